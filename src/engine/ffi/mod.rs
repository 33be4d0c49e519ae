//! The border to C++: arrays from bytes, and operations of our own inside MLX's graph.
#![allow(unsafe_code)]

pub mod array;
#[cfg(target_os = "linux")]
mod buffer;
#[cfg(target_os = "linux")]
mod cpu_op;
pub mod heap;
pub mod library;
pub mod quantized;

#[cfg(target_os = "linux")]
pub use buffer::{aligned, aligned_bytes};
#[cfg(target_os = "linux")]
pub use cpu_op::{Buffers, Kernel, MAX_OUTPUTS, OutputSpec, SharedSlice, check, cpu_op};
