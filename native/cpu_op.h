// A CPU operation of ours inside MLX's graph. MLX owns buffers, order and lifetime; the work is a
// C function (a Rust kernel, or several), called on the CPU stream's thread.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "mlx/c/array.h"
#include "mlx/c/stream.h"

#ifdef __cplusplus
extern "C" {
#endif

// The work. `run` gets `inputs[i]` and `outputs[i]`, which point at row-contiguous data, and must not
// throw. `drop` frees the state when nobody needs it any more, on whatever thread that is.
typedef struct {
  void* state;
  void (*run)(const void* state, const void* const* inputs, void* const* outputs);
  void (*drop)(void* state);
} mlx_cache_kernel;

// One output: its shape and mlx_dtype, or, when `alias` >= 0, input `alias` updated in place (same
// shape and dtype; the caller must not use that input array afterwards).
typedef struct {
  const int* shape;
  size_t ndim;
  int dtype;
  int alias;
} mlx_cache_output;

// Builds the lazy outputs, and takes over the kernel's state whatever comes of it. Inputs that are not
// row-contiguous are copied first; an aliased input must be row-contiguous once evaluated, else the
// evaluation fails. Returns 0, or 1 after reporting through mlx_error.
int mlx_cache_cpu_kernel(
    mlx_array* results,
    const mlx_cache_output* outputs,
    size_t output_count,
    const mlx_array* inputs,
    size_t input_count,
    mlx_cache_kernel kernel,
    const char* name,
    mlx_stream stream);

#ifdef __cplusplus
}
#endif
