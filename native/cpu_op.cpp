#include "cpu_op.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "mlx/backend/cpu/encoder.h"
#include "mlx/c/error.h"
#include "mlx/c/private/array.h"
#include "mlx/c/private/enums.h"
#include "mlx/c/private/stream.h"
#include "mlx/mlx.h"
#include "mlx/primitives.h"

using namespace mlx::core;

namespace {

class CpuOp : public Primitive {
 public:
  CpuOp(Stream stream, mlx_cache_kernel kernel, std::shared_ptr<std::vector<char>> params,
        std::vector<int> alias, std::string name)
      : Primitive(stream), kernel_(kernel), params_(std::move(params)), alias_(std::move(alias)),
        name_(std::move(name)) {}

  const char* name() const override { return name_.c_str(); }

  // Kernels may update an input in place, so two of them are never merged.
  bool is_equivalent(const Primitive&) const override { return false; }

  void eval_gpu(const std::vector<array>&, std::vector<array>&) override {
    throw std::runtime_error(name_ + " runs on the CPU device only");
  }

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    std::vector<const void*> in;
    std::vector<void*> out;
    in.reserve(inputs.size());
    out.reserve(outputs.size());
    for (size_t i = 0; i < outputs.size(); i++) {
      if (alias_[i] >= 0) {
        outputs[i].copy_shared_buffer(inputs[alias_[i]]);
      } else {
        outputs[i].set_data(allocator::malloc(outputs[i].nbytes()));
      }
      out.push_back(outputs[i].data<char>());
    }
    for (const auto& input : inputs) {
      in.push_back(input.data<char>());
    }
    auto& encoder = cpu::get_command_encoder(stream());
    for (const auto& input : inputs) {
      encoder.set_input_array(input);
    }
    for (auto& output : outputs) {
      encoder.set_output_array(output);
    }
    // MLX keeps inputs and outputs alive until the tasks of this primitive have run.
    encoder.dispatch([kernel = kernel_, params = params_, in = std::move(in),
                      out = std::move(out)]() {
      kernel(params->data(), in.data(), out.data());
    });
  }

 private:
  mlx_cache_kernel kernel_;
  std::shared_ptr<std::vector<char>> params_;
  std::vector<int> alias_;
  std::string name_;
};

} // namespace

extern "C" int mlx_cache_cpu_op(
    mlx_array* results,
    const mlx_cache_output* outputs,
    size_t output_count,
    const mlx_array* inputs,
    size_t input_count,
    mlx_cache_kernel kernel,
    const void* params,
    size_t params_size,
    const char* name,
    mlx_stream stream) {
  try {
    auto s = mlx_stream_get_(stream);
    std::vector<bool> aliased(input_count, false);
    for (size_t i = 0; i < output_count; i++) {
      if (outputs[i].alias >= 0) {
        aliased.at(outputs[i].alias) = true;
      }
    }
    std::vector<array> in;
    in.reserve(input_count);
    for (size_t i = 0; i < input_count; i++) {
      const auto& input = mlx_array_get_(inputs[i]);
      in.push_back(aliased[i] ? input : contiguous(input, false, s));
    }
    std::vector<Shape> shapes;
    std::vector<Dtype> dtypes;
    std::vector<int> alias;
    for (size_t i = 0; i < output_count; i++) {
      const auto& output = outputs[i];
      alias.push_back(output.alias);
      if (output.alias >= 0) {
        shapes.push_back(in[output.alias].shape());
        dtypes.push_back(in[output.alias].dtype());
      } else {
        shapes.emplace_back(output.shape, output.shape + output.ndim);
        dtypes.push_back(mlx_dtype_to_cpp(static_cast<mlx_dtype>(output.dtype)));
      }
    }
    auto bytes = std::make_shared<std::vector<char>>(
        static_cast<const char*>(params), static_cast<const char*>(params) + params_size);
    auto made = array::make_arrays(
        std::move(shapes), dtypes,
        std::make_shared<CpuOp>(s, kernel, std::move(bytes), std::move(alias), name),
        std::move(in));
    for (size_t i = 0; i < output_count; i++) {
      mlx_array_set_(results[i], std::move(made[i]));
    }
    return 0;
  } catch (std::exception& error) {
    mlx_error(error.what());
    return 1;
  }
}
