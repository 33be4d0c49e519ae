#include "cpu_op.h"

#include <array>
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

// Bounds, so that a dispatched task is one allocation.
constexpr size_t max_inputs = 10;
constexpr size_t max_outputs = 7;

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
    struct Task {
      mlx_cache_kernel kernel;
      std::shared_ptr<std::vector<char>> params;
      std::array<const void*, max_inputs> in;
      std::array<void*, max_outputs> out;
      // Keeps the memory even when nobody waits for an output any more.
      std::array<std::shared_ptr<array::Data>, max_outputs> held;
      void operator()() const { kernel(params->data(), in.data(), out.data()); }
    } task{kernel_, params_, {}, {}, {}};
    for (size_t i = 0; i < inputs.size(); i++) {
      if (!inputs[i].flags().row_contiguous) {
        throw std::runtime_error(name_ + " got an array to update in place that is not row-contiguous");
      }
      task.in[i] = inputs[i].data<char>();
    }
    for (size_t i = 0; i < outputs.size(); i++) {
      if (alias_[i] >= 0) {
        outputs[i].copy_shared_buffer(inputs[alias_[i]]);
      } else {
        outputs[i].set_data(allocator::malloc(outputs[i].nbytes()));
      }
      task.out[i] = outputs[i].data<char>();
      task.held[i] = outputs[i].data_shared_ptr();
    }
    auto& encoder = cpu::get_command_encoder(stream());
    for (const auto& input : inputs) {
      encoder.set_input_array(input);
    }
    for (auto& output : outputs) {
      encoder.set_output_array(output);
    }
    encoder.dispatch(std::move(task));
  }

 private:
  mlx_cache_kernel kernel_;
  std::shared_ptr<std::vector<char>> params_;
  std::vector<int> alias_;
  std::string name_;
};

// Whether the array needs no copy to be row-contiguous. A `contiguous` that turns out to have nothing
// to do still is a primitive to schedule, several for each of ours.
bool is_row_contiguous(const array& input) {
  if (input.status() != array::Status::unscheduled) {
    return input.flags().row_contiguous;
  }
  return input.has_primitive() && dynamic_cast<const CpuOp*>(&input.primitive()) != nullptr;
}

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
    if (input_count > max_inputs || output_count > max_outputs) {
      throw std::invalid_argument("too many inputs or outputs");
    }
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
      in.push_back(aliased[i] || is_row_contiguous(input) ? input : contiguous(input, false, s));
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
