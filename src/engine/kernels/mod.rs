//! Kernels for the CPU device on Linux: whole pieces of a transformer block as single operations of
//! MLX's graph, over weights repacked for streaming. Arithmetic is float32 throughout.
//!
//! Activations are row-major float32 matrices `[L, K]`, one token a row.
#![allow(unsafe_code)]

mod attention;
mod check;
mod embed;
mod gemm;
mod gemv;
mod isa;
mod lanes;
mod pack;
mod packed;
pub mod pool;
mod project;
mod scratch;
mod select;

pub use attention::{Attention, AttentionOutput, attention};
pub use embed::embed;
pub use packed::PackedMatrix;
pub use project::{Epilogue, project};
pub use select::argmax;

#[cfg(test)]
mod tests;
