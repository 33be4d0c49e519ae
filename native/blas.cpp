// The matrix products of MLX, handed on to OpenBLAS. It is loaded when the first one comes: once loaded it starts a
// thread for each core, which takes longer than all that most commands do, and our kernels leave it little to do.
// The program's own definitions come before those of the reference BLAS that libmlx.so depends on.
#include <dlfcn.h>

namespace {

// As CBLAS declares them; the first three are enumerations.
template <typename Scalar, typename Elements>
using Gemm = void(int, int, int, int, int, int, Scalar, const Elements*, int, const Elements*, int, Scalar, Elements*, int);

} // namespace

extern "C" {

// A function of OpenBLAS or, where that is missing, of the reference BLAS; null if neither has it.
void* mlx_cache_blas(const char* name) {
  static void* const library = [] {
    void* found = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    return found ? found : dlopen("libopenblas.so", RTLD_NOW | RTLD_LOCAL);
  }();
  void* found = library ? dlsym(library, name) : nullptr;
  return found ? found : dlsym(RTLD_NEXT, name);
}

void cblas_sgemm(int order, int a_form, int b_form, int m, int n, int k, float alpha, const float* a, int lda,
                 const float* b, int ldb, float beta, float* c, int ldc) {
  static const auto gemm = reinterpret_cast<Gemm<float, float>*>(mlx_cache_blas("cblas_sgemm"));
  gemm(order, a_form, b_form, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void cblas_dgemm(int order, int a_form, int b_form, int m, int n, int k, double alpha, const double* a, int lda,
                 const double* b, int ldb, double beta, double* c, int ldc) {
  static const auto gemm = reinterpret_cast<Gemm<double, double>*>(mlx_cache_blas("cblas_dgemm"));
  gemm(order, a_form, b_form, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void cblas_cgemm(int order, int a_form, int b_form, int m, int n, int k, const void* alpha, const void* a, int lda,
                 const void* b, int ldb, const void* beta, void* c, int ldc) {
  static const auto gemm = reinterpret_cast<Gemm<const void*, void>*>(mlx_cache_blas("cblas_cgemm"));
  gemm(order, a_form, b_form, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

}
