//! Byte arrays whose content starts on a cache line. MLX's CPU allocator aligns to 8 bytes only, so the
//! array is a little larger and the content starts at its first aligned address.

use std::ffi::CStr;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use super::chain::cpu_op;
use super::cpu_op::{Kernel, OutputSpec};
use super::slots::{Buffers, SharedSlice};

/// Alignment of the content in bytes.
pub const LINE: usize = 64;

/// A new byte array `[n, 64]` with room for `bytes` aligned bytes, filled by `fill`, which gets exactly
/// these and must write all of them.
///
/// # Errors
/// No memory, or more than MLX can count.
pub fn aligned_bytes(bytes: usize, fill: impl FnOnce(SharedSlice<'_, u8>)) -> Result<Array, Exception> {
    let lines = i32::try_from(bytes.div_ceil(LINE) + 1)
        .map_err(|_| Exception::custom(format!("{bytes} bytes are too many for one array")))?;
    let shape = [lines, LINE as i32];
    let made = cpu_op(Allocate, &[], &[OutputSpec::New { shape: &shape, dtype: Dtype::Uint8 }])?;
    let array = made.into_iter().next().ok_or_else(|| Exception::custom("mlx made no array"))?;
    array.eval()?;
    // SAFETY: evaluated and not shared yet, so this is the only access to its `nbytes` bytes.
    let all = unsafe {
        let data = mlx_sys::mlx_array_data_uint8(array.as_ptr()).cast_mut();
        if data.is_null() {
            return Err(Exception::custom("mlx made an array without memory"));
        }
        std::slice::from_raw_parts_mut(data, array.nbytes())
    };
    let start = offset(all);
    fill(SharedSlice::new(&mut all[start..start + bytes]));
    Ok(array)
}

/// The aligned content of an array made by [`aligned_bytes`]; it may be followed by padding.
pub fn aligned(all: &[u8]) -> &[u8] {
    &all[offset(all)..]
}

fn offset(all: &[u8]) -> usize {
    all.as_ptr().addr().wrapping_neg() % LINE
}

/// Makes the memory: MLX allocates outputs before it runs an operation.
#[derive(Clone, Copy)]
struct Allocate;

impl Kernel for Allocate {
    const NAME: &'static CStr = c"Allocate";

    fn run(&self, _: &Buffers<'_>) {}
}
