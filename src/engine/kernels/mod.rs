//! Kernels for the CPU device on Linux: whole pieces of a transformer block as single operations of
//! MLX's graph, over weights repacked for streaming. Arithmetic is float32 throughout.
//!
//! Activations are row-major float32 matrices `[L, K]`, one token a row.
#![allow(unsafe_code)]
// Code that handles vectors must be compiled inside `Isa::run`, see `isa::Task`.
#![allow(clippy::inline_always)]

mod attention;
mod check;
mod embed;
mod encode;
mod experts;
mod gemm;
mod gemv;
mod inputs;
mod isa;
mod lanes;
mod norm;
mod pack;
mod packed;
mod panel;
pub mod pool;
mod project;
mod quants;
mod rows;
mod select;
mod sum;
mod together;

use super::ffi::scratch;

pub use attention::{Attention, AttentionOutput, Place, attention, attention_together};
pub use embed::embed;
pub use encode::{SequenceAttention, sequence_attention};
pub use experts::{ExpertVectors, Experts, experts};
pub use norm::{HeadNorms, Norm, norm_heads, norm_onto};
pub use packed::PackedMatrix;
pub use project::{Epilogue, project};
pub use select::argmax;
pub use sum::{Other, sum_onto};
pub use together::together;

#[cfg(test)]
mod tests;
