//! MLX's products with small floats, whose packing mlx-rs does not pass on.

use std::ffi::{CStr, c_int};

use mlx_rs::error::Exception;
use mlx_rs::{Array, Device, Stream};

use crate::engine::format::block_float::BlockFloat;

/// A matrix in one of MLX's packings of small floats: codes in `uint32` words, scales in `uint8`.
#[derive(Debug, Clone, Copy)]
pub struct BlockFloats<'a> {
    pub mode: BlockFloat,
    pub packed: &'a Array,
    pub scales: &'a Array,
}

impl BlockFloats<'_> {
    /// `x [.., columns]` times the transposed matrix: `[.., rows]` in the type of `x`.
    ///
    /// # Errors
    /// What MLX refuses.
    pub fn product(&self, x: &Array) -> Result<Array, Exception> {
        let (group, bits) = self.sizes();
        self.made(|result, none, stream| {
            // SAFETY: every handle is alive during the call, and the name ends with a zero.
            unsafe {
                mlx_sys::mlx_quantized_matmul(
                    result,
                    x.as_ptr(),
                    self.packed.as_ptr(),
                    self.scales.as_ptr(),
                    none,
                    true,
                    group,
                    bits,
                    self.mode_name().as_ptr(),
                    stream,
                )
            }
        })
    }

    /// `x [.., 1, columns]` times those of several transposed matrices `[experts, rows, columns]` that
    /// `chosen` names: `[.., 1, rows]`.
    ///
    /// # Errors
    /// What MLX refuses.
    pub fn gathered(&self, x: &Array, chosen: &Array) -> Result<Array, Exception> {
        let (group, bits) = self.sizes();
        self.made(|result, none, stream| {
            // SAFETY: every handle is alive during the call, and the name ends with a zero.
            unsafe {
                mlx_sys::mlx_gather_qmm(
                    result,
                    x.as_ptr(),
                    self.packed.as_ptr(),
                    self.scales.as_ptr(),
                    none,
                    none,
                    chosen.as_ptr(),
                    true,
                    group,
                    bits,
                    self.mode_name().as_ptr(),
                    false,
                    stream,
                )
            }
        })
    }

    /// The numbers themselves, float32.
    ///
    /// # Errors
    /// What MLX refuses.
    pub fn unpacked(&self) -> Result<Array, Exception> {
        let (group, bits) = self.sizes();
        let dtype = mlx_sys::mlx_optional_dtype { value: mlx_sys::mlx_dtype__MLX_FLOAT32, has_value: true };
        self.made(|result, none, stream| {
            // SAFETY: every handle is alive during the call, and the name ends with a zero.
            unsafe {
                mlx_sys::mlx_dequantize(
                    result,
                    self.packed.as_ptr(),
                    self.scales.as_ptr(),
                    none,
                    group,
                    bits,
                    self.mode_name().as_ptr(),
                    none,
                    dtype,
                    stream,
                )
            }
        })
    }

    fn sizes(&self) -> (mlx_sys::mlx_optional_int, mlx_sys::mlx_optional_int) {
        let known = |value: usize| mlx_sys::mlx_optional_int { value: value as c_int, has_value: true };
        (known(self.mode.group()), known(self.mode.bits()))
    }

    fn mode_name(&self) -> &'static CStr {
        match self.mode {
            BlockFloat::Mxfp4 => c"mxfp4",
            BlockFloat::Mxfp8 => c"mxfp8",
            BlockFloat::Nvfp4 => c"nvfp4",
        }
    }

    /// Calls with a place for the result, an array that stands for none, and the stream.
    fn made(
        &self,
        call: impl FnOnce(*mut mlx_sys::mlx_array, mlx_sys::mlx_array, mlx_sys::mlx_stream) -> c_int,
    ) -> Result<Array, Exception> {
        let stream = match mlx_rs::thread_local_default_stream() {
            Some(stream) => stream,
            None => Stream::try_default_on_device(&Device::try_default()?)?,
        };
        // SAFETY: makes empty handles, each owned here and freed by the `Array`'s drop.
        let (none, mut result) =
            unsafe { (Array::from_ptr(mlx_sys::mlx_array_new()), mlx_sys::mlx_array_new()) };
        let status = call(&raw mut result, none.as_ptr(), stream.as_ptr());
        // SAFETY: as above; a failed call leaves it empty.
        let result = unsafe { Array::from_ptr(result) };
        if status != 0 {
            return Err(Exception::custom(format!("mlx refuses an operation on {}", self.mode.name())));
        }
        Ok(result)
    }
}
