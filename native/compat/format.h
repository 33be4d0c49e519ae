// A substitute for <format> where the standard library has none (GCC 12): "{}" is replaced by each
// argument in turn, which is all that mlx-c asks of it.
#pragma once
#include <sstream>
#include <string>
#include <string_view>

namespace std {

template <typename... Args>
std::string format(std::string_view pattern, const Args&... args) {
  std::ostringstream out;
  [[maybe_unused]] auto put = [&](const auto& value) {
    auto hole = pattern.find("{}");
    out << pattern.substr(0, hole);
    if (hole != std::string_view::npos) {
      out << value;
      pattern.remove_prefix(hole + 2);
    } else {
      pattern = {};
    }
  };
  (put(args), ...);
  out << pattern;
  return out.str();
}

} // namespace std
