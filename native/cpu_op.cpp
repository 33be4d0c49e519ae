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

using State = std::shared_ptr<void>;
using Run = void (*)(const void*, const void* const*, void* const*);

class CpuOp : public Primitive {
 public:
  CpuOp(Stream stream, Run run, State state, std::vector<int> alias, std::string name)
      : Primitive(stream), run_(run), state_(std::move(state)), alias_(std::move(alias)),
        name_(std::move(name)) {}

  const char* name() const override { return name_.c_str(); }

  // Kernels may update an input in place, so two of them are never merged.
  bool is_equivalent(const Primitive&) const override { return false; }

  void eval_gpu(const std::vector<array>&, std::vector<array>&) override {
    throw std::runtime_error(name_ + " runs on the CPU device only");
  }

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    struct Task {
      Run run;
      State state;
      std::vector<const void*> in;
      std::vector<void*> out;
      // Keeps the memory even when nobody waits for an output any more.
      std::vector<std::shared_ptr<array::Data>> held;
      void operator()() const { run(state.get(), in.data(), out.data()); }
    } task{run_, state_, {}, {}, {}};
    task.in.reserve(inputs.size());
    task.out.reserve(outputs.size());
    task.held.reserve(outputs.size());
    for (const auto& input : inputs) {
      if (!input.flags().row_contiguous) {
        throw std::runtime_error(name_ + " got an array to update in place that is not row-contiguous");
      }
      task.in.push_back(input.data<char>());
    }
    for (size_t i = 0; i < outputs.size(); i++) {
      if (alias_[i] >= 0) {
        outputs[i].copy_shared_buffer(inputs[alias_[i]]);
      } else {
        outputs[i].set_data(allocator::malloc(outputs[i].nbytes()));
      }
      task.out.push_back(outputs[i].data<char>());
      task.held.push_back(outputs[i].data_shared_ptr());
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
  Run run_;
  State state_;
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

extern "C" int mlx_cache_cpu_kernel(
    mlx_array* results,
    const mlx_cache_output* outputs,
    size_t output_count,
    const mlx_array* inputs,
    size_t input_count,
    mlx_cache_kernel kernel,
    const char* name,
    mlx_stream stream) {
  try {
    State state(kernel.state, kernel.drop);
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
    auto made = array::make_arrays(
        std::move(shapes), dtypes,
        std::make_shared<CpuOp>(s, kernel.run, std::move(state), std::move(alias), name),
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
