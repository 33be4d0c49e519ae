//! The border to C++: arrays from bytes, and operations of our own inside MLX's graph.
#![allow(unsafe_code)]

pub mod array;
#[cfg(target_os = "linux")]
mod buffer;
#[cfg(target_os = "linux")]
mod chain;
#[cfg(target_os = "linux")]
mod cpu_op;
pub mod heap;
pub mod library;
#[cfg(target_os = "linux")]
mod mapping;
#[cfg(target_os = "linux")]
mod program;
pub mod quantized;
#[cfg(target_os = "linux")]
mod region;
#[cfg(target_os = "linux")]
mod repeat;
#[cfg(target_os = "linux")]
mod room;
#[cfg(target_os = "linux")]
pub mod scratch;
#[cfg(target_os = "linux")]
mod slots;
mod tensor;

#[cfg(not(target_os = "linux"))]
pub use array::with_zeros as with_room;
#[cfg(target_os = "linux")]
pub use buffer::{aligned, aligned_bytes, end_sharing};
#[cfg(target_os = "linux")]
pub use chain::{Closed, cpu_op, record};
#[cfg(target_os = "linux")]
pub use cpu_op::{Kernel, OutputSpec};
#[cfg(target_os = "linux")]
pub use mapping::Mapping;
#[cfg(target_os = "linux")]
pub use region::Region;
#[cfg(target_os = "linux")]
pub use repeat::Repeat;
#[cfg(target_os = "linux")]
pub use room::with_room;
#[cfg(target_os = "linux")]
pub use slots::{Buffers, SharedSlice};
#[cfg(target_os = "linux")]
pub use tensor::Input;
#[cfg(not(target_os = "linux"))]
pub use tensor::Repeat;
pub use tensor::{Operand, Tensor};

use crate::error::Result;

/// Whether what was computed so far is to be believed: no kernel has failed, and the files are what they were.
///
/// # Errors
/// INTERNAL for the first kernel that failed since the last call, INTEGRITY_FAILED for a file that was changed.
pub fn check_results() -> Result<()> {
    #[cfg(target_os = "linux")]
    {
        cpu_op::check()?;
        mapping::check()?;
    }
    Ok(())
}
