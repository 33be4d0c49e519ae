//! Kernels for the CPU device on Linux: whole pieces of a transformer block as single operations of
//! MLX's graph, over weights repacked for streaming. Arithmetic is float32 throughout.
//!
//! Activations are row-major float32 matrices `[L, K]`, one token a row.
#![allow(unsafe_code)]
// Code that handles vectors must be compiled inside `Isa::run`, see `isa::Task`.
#![allow(clippy::inline_always)]

mod activation;
mod attention;
mod check;
mod embed;
mod encode;
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
pub use encode::{SequenceAttention, layer_norm, sequence_attention};
pub use packed::PackedMatrix;
pub use project::{Epilogue, project};
pub use select::{argmax, sample};

#[cfg(test)]
mod tests;
