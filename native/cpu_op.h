// A CPU operation of ours inside MLX's graph. MLX owns buffers, order and lifetime; the work is a
// C function pointer (a Rust kernel), called on the CPU stream's thread.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "mlx/c/array.h"
#include "mlx/c/stream.h"

#ifdef __cplusplus
extern "C" {
#endif

// The kernel: `inputs[i]` and `outputs[i]` point at row-contiguous data. Must not throw.
typedef void (*mlx_cache_kernel)(
    const void* params,
    const void* const* inputs,
    void* const* outputs);

// One output: its shape and mlx_dtype, or, when `alias` >= 0, input `alias` updated in place (same
// shape and dtype; the caller must not use that input array afterwards).
typedef struct {
  const int* shape;
  size_t ndim;
  int dtype;
  int alias;
} mlx_cache_output;

// Builds the lazy outputs. `params` (`params_size` bytes) is copied. Inputs that are not
// row-contiguous are copied first; an aliased input must be row-contiguous once evaluated, else the
// evaluation fails. At most 10 inputs and 7 outputs. Returns 0, or 1 after reporting through mlx_error.
int mlx_cache_cpu_op(
    mlx_array* results,
    const mlx_cache_output* outputs,
    size_t output_count,
    const mlx_array* inputs,
    size_t input_count,
    mlx_cache_kernel kernel,
    const void* params,
    size_t params_size,
    const char* name,
    mlx_stream stream);

#ifdef __cplusplus
}
#endif
