/* On ARM mlx-c's half.h asks for this header of the C compiler's. GCC's has functions made of its own built-ins, which
 * libclang does not know; the binding generator wants the type __fp16 alone, which libclang has without a header. */
