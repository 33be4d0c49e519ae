// Symbols that mlx-rs links against and that only Apple platforms or aarch64 builds of mlx-c have.
#include <cstdint>
#include <cstring>
#include <ctime>

#include "mlx/c/error.h"
#include "mlx/c/mlx.h"
#include "mlx/c/private/mlx.h"

namespace {

template <typename T>
int item(uint16_t* result, mlx_array array) {
  try {
    T value = mlx_array_get_(array).item<T>();
    std::memcpy(result, &value, sizeof(uint16_t));
    return 0;
  } catch (std::exception& error) {
    mlx_error(error.what());
    return 1;
  }
}

template <typename T>
const uint16_t* data(mlx_array array) {
  try {
    return reinterpret_cast<const uint16_t*>(mlx_array_get_(array).data<T>());
  } catch (std::exception& error) {
    mlx_error(error.what());
    return nullptr;
  }
}

} // namespace

extern "C" {

#ifndef HAS_FLOAT16
int mlx_array_item_float16(uint16_t* result, const mlx_array array) {
  return item<mlx::core::float16_t>(result, array);
}
const uint16_t* mlx_array_data_float16(const mlx_array array) {
  return data<mlx::core::float16_t>(array);
}
#endif

#ifndef HAS_BFLOAT16
int mlx_array_item_bfloat16(uint16_t* result, const mlx_array array) {
  return item<mlx::core::bfloat16_t>(result, array);
}
const uint16_t* mlx_array_data_bfloat16(const mlx_array array) {
  return data<mlx::core::bfloat16_t>(array);
}
#endif

// mlx-rs seeds its random state from Apple's clock.
uint64_t mach_approximate_time() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return uint64_t(now.tv_sec) * 1'000'000'000u + uint64_t(now.tv_nsec);
}
}
