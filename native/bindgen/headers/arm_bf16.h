/* As arm_fp16.h: the type __bf16 needs no header. */
