//! The border to C++: operations of our own inside MLX's graph.
#![allow(unsafe_code)]

mod buffer;
mod cpu_op;

pub use buffer::{aligned, aligned_bytes};
pub use cpu_op::{Buffers, Kernel, OutputSpec, SharedSlice, check, cpu_op};
