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

/// The codes of a matrix `[rows, columns]` of floats, and the scales of its groups.
///
/// # Errors
/// What MLX refuses.
pub fn pack(mode: BlockFloat, dense: &Array) -> Result<[Array; 2], Exception> {
    let (group, bits) = sizes(mode);
    let stream = stream()?;
    // SAFETY: an empty handle, owned here and freed below.
    let mut parts = unsafe { mlx_sys::mlx_vector_array_new() };
    // SAFETY: an empty handle, freed by the `Array`'s drop.
    let none = unsafe { Array::from_ptr(mlx_sys::mlx_array_new()) };
    // SAFETY: every handle is alive during the call, and the name ends with a zero.
    let status = unsafe {
        mlx_sys::mlx_quantize(
            &raw mut parts,
            dense.as_ptr(),
            group,
            bits,
            mode_name(mode).as_ptr(),
            none.as_ptr(),
            stream.as_ptr(),
        )
    };
    let part = |index: usize| {
        // SAFETY: an empty handle that the call fills, owned by the `Array` either way.
        unsafe {
            let mut part = mlx_sys::mlx_array_new();
            let status = mlx_sys::mlx_vector_array_get(&raw mut part, parts, index);
            (status, Array::from_ptr(part))
        }
    };
    let made = (status == 0).then(|| [part(0), part(1)]);
    // SAFETY: made above; the arrays taken from it hold their own references.
    unsafe { mlx_sys::mlx_vector_array_free(parts) };
    match made {
        Some([(0, packed), (0, scales)]) => Ok([packed, scales]),
        _ => Err(refused(mode)),
    }
}

impl BlockFloats<'_> {
    /// `x [.., columns]` times the transposed matrix: `[.., rows]` in the type of `x`.
    ///
    /// # Errors
    /// What MLX refuses.
    pub fn product(&self, x: &Array) -> Result<Array, Exception> {
        let (group, bits) = sizes(self.mode);
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
                    mode_name(self.mode).as_ptr(),
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
        let (group, bits) = sizes(self.mode);
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
                    mode_name(self.mode).as_ptr(),
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
        let (group, bits) = sizes(self.mode);
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
                    mode_name(self.mode).as_ptr(),
                    none,
                    dtype,
                    stream,
                )
            }
        })
    }

    /// Calls with a place for the result, an array that stands for none, and the stream.
    fn made(
        &self,
        call: impl FnOnce(*mut mlx_sys::mlx_array, mlx_sys::mlx_array, mlx_sys::mlx_stream) -> c_int,
    ) -> Result<Array, Exception> {
        let stream = stream()?;
        // SAFETY: makes empty handles, each owned here and freed by the `Array`'s drop.
        let (none, mut result) =
            unsafe { (Array::from_ptr(mlx_sys::mlx_array_new()), mlx_sys::mlx_array_new()) };
        let status = call(&raw mut result, none.as_ptr(), stream.as_ptr());
        // SAFETY: as above; a failed call leaves it empty.
        let result = unsafe { Array::from_ptr(result) };
        if status != 0 {
            return Err(refused(self.mode));
        }
        Ok(result)
    }
}

fn sizes(mode: BlockFloat) -> (mlx_sys::mlx_optional_int, mlx_sys::mlx_optional_int) {
    let known = |value: usize| mlx_sys::mlx_optional_int { value: value as c_int, has_value: true };
    (known(mode.group()), known(mode.bits()))
}

fn mode_name(mode: BlockFloat) -> &'static CStr {
    match mode {
        BlockFloat::Mxfp4 => c"mxfp4",
        BlockFloat::Mxfp8 => c"mxfp8",
        BlockFloat::Nvfp4 => c"nvfp4",
    }
}

fn stream() -> Result<Stream, Exception> {
    match mlx_rs::thread_local_default_stream() {
        Some(stream) => Ok(stream),
        None => Stream::try_default_on_device(&Device::try_default()?),
    }
}

fn refused(mode: BlockFloat) -> Exception {
    Exception::custom(format!("mlx refuses an operation on {}", mode.name()))
}
