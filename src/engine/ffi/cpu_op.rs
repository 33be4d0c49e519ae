//! A safe face for `native/cpu_op.h`: Rust kernels as a lazy operation of MLX's CPU stream.

use std::any::Any;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use mlx_rs::error::Exception;
use mlx_rs::{Array, Device, Dtype, Stream};

use super::program::Program;
use super::slots::Buffers;

/// What computes the outputs of an operation from its inputs. The stream's thread runs it.
pub trait Kernel: Send + Sync + 'static {
    /// What MLX calls the operation in its messages and graph dumps.
    const NAME: &'static CStr;

    /// Fills the outputs. Outputs hold arbitrary bytes before, unless they alias an input. What it does depends on
    /// the inputs, on what the kernel was made of, and on nothing else but [`Buffers::later`].
    fn run(&self, buffers: &Buffers<'_>);
}

/// What an output is.
#[derive(Debug, Clone, Copy)]
pub enum OutputSpec<'a> {
    /// A new row-major array.
    New { shape: &'a [i32], dtype: Dtype },
    /// The input of this index, updated in place: same buffer, shape and dtype. That input array, which is
    /// computed when the kernel is recorded, still exists and sees the update, so in-place kernels only write what
    /// nobody has read yet.
    InPlace(usize),
}

/// Builds the lazy outputs of a program that runs so many places later. Inputs that are not row-contiguous are
/// copied first; an input that an output aliases must be row-contiguous once evaluated.
///
/// # Errors
/// MLX refuses.
pub(super) fn operation(
    program: Arc<Program>,
    later: usize,
    inputs: &[&Array],
    outputs: &[OutputSpec<'_>],
) -> Result<Vec<Array>, Exception> {
    static HANDLER: Once = Once::new();
    // MLX's own error handler ends the process; mlx-rs replaces it with the first fallible call.
    HANDLER.call_once(|| drop(Stream::try_default_on_device(&Device::cpu())));
    let stream = match mlx_rs::thread_local_default_stream() {
        Some(stream) => stream,
        None => Stream::try_default_on_device(&Device::cpu())?,
    };
    let name = program.name();
    let specs: Vec<COutput> = outputs
        .iter()
        .map(|output| match *output {
            OutputSpec::New { shape, dtype } => {
                let dtype = u32::from(dtype) as c_int;
                COutput { shape: shape.as_ptr(), ndim: shape.len(), dtype, alias: -1 }
            }
            OutputSpec::InPlace(index) => {
                COutput { shape: std::ptr::null(), ndim: 0, dtype: 0, alias: index as c_int }
            }
        })
        .collect();
    let arrays: Vec<_> = inputs.iter().map(|input| input.as_ptr()).collect();
    // SAFETY: makes empty handles, which the call below fills or which are freed by `Array`'s drop.
    let mut made: Vec<_> = outputs.iter().map(|_| unsafe { mlx_sys::mlx_array_new() }).collect();
    let run = Box::new(Run { program, later });
    let kernel = CKernel { state: Box::into_raw(run).cast(), run: run_program, drop: drop_program };
    // SAFETY: every pointer is valid for its count during the call; the state, of which the call becomes the
    // owner, is what its two functions take it for.
    let status = unsafe {
        mlx_cache_cpu_kernel(
            made.as_mut_ptr(),
            specs.as_ptr(),
            specs.len(),
            arrays.as_ptr(),
            arrays.len(),
            kernel,
            name.as_ptr(),
            stream.as_ptr(),
        )
    };
    // SAFETY: each handle is owned here and passed on once.
    let made: Vec<Array> = made.into_iter().map(|array| unsafe { Array::from_ptr(array) }).collect();
    if status != 0 {
        return Err(Exception::custom(format!("mlx refuses the operation {name:?}")));
    }
    Ok(made)
}

/// Whether an array is computed and row-major: its memory can be read now, and as long as it lives.
pub(super) fn is_settled(array: &Array) -> bool {
    let (mut available, mut contiguous) = (false, false);
    // SAFETY: a valid handle, and two places to write to.
    unsafe {
        mlx_sys::_mlx_array_is_available(&raw mut available, array.as_ptr()) == 0
            && available
            && mlx_sys::_mlx_array_is_row_contiguous(&raw mut contiguous, array.as_ptr()) == 0
            && contiguous
    }
}

/// The memory of an array that [`is_settled`].
pub(super) fn memory(array: &Array) -> *mut c_void {
    // SAFETY: a valid handle of an array that is computed; the type only says what the pointer points to.
    unsafe { mlx_sys::mlx_array_data_uint8(array.as_ptr()) }.cast_mut().cast()
}

/// Whether every kernel so far did its work. A kernel that panicked leaves its outputs undefined and its
/// message here; the message is handed out once.
///
/// # Errors
/// The message of the first kernel that failed since the last call.
pub fn check() -> Result<(), Exception> {
    if !FAILED.load(Ordering::Acquire) {
        return Ok(());
    }
    FAILED.store(false, Ordering::Release);
    match FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(message) => Err(Exception::custom(message)),
        None => Ok(()),
    }
}

static FAILED: AtomicBool = AtomicBool::new(false);
static FAILURE: Mutex<Option<String>> = Mutex::new(None);

pub(super) fn record_failure(name: &CStr, panic: &(dyn Any + Send)) {
    let reason = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown reason");
    let message = format!("the cpu kernel {name:?} failed: {reason}");
    FAILURE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
    FAILED.store(true, Ordering::Release);
}

/// The state of an operation.
struct Run {
    program: Arc<Program>,
    later: usize,
}

unsafe extern "C" fn run_program(
    state: *const c_void,
    inputs: *const *const c_void,
    outputs: *const *mut c_void,
) {
    // SAFETY: `operation` made the state; MLX hands one pointer an input and an output, to memory that stays alive
    // during the run.
    unsafe {
        let Run { program, later } = &*state.cast::<Run>();
        program.run(*later, inputs, outputs);
    }
}

unsafe extern "C" fn drop_program(state: *mut c_void) {
    // SAFETY: `operation` made it of a box, and this is called once.
    drop(unsafe { Box::from_raw(state.cast::<Run>()) });
}

pub(super) fn item_size(dtype: Dtype) -> usize {
    match dtype {
        Dtype::Float32 | Dtype::Int32 | Dtype::Uint32 => 4,
        Dtype::Float16 | Dtype::Bfloat16 | Dtype::Int16 | Dtype::Uint16 => 2,
        Dtype::Bool | Dtype::Int8 | Dtype::Uint8 => 1,
        Dtype::Int64 | Dtype::Uint64 | Dtype::Float64 | Dtype::Complex64 => 8,
    }
}

#[repr(C)]
struct COutput {
    shape: *const c_int,
    ndim: usize,
    dtype: c_int,
    alias: c_int,
}

#[repr(C)]
struct CKernel {
    state: *mut c_void,
    run: unsafe extern "C" fn(*const c_void, *const *const c_void, *const *mut c_void),
    drop: unsafe extern "C" fn(*mut c_void),
}

unsafe extern "C" {
    fn mlx_cache_cpu_kernel(
        results: *mut mlx_sys::mlx_array,
        outputs: *const COutput,
        output_count: usize,
        inputs: *const mlx_sys::mlx_array,
        input_count: usize,
        kernel: CKernel,
        name: *const c_char,
        stream: mlx_sys::mlx_stream,
    ) -> c_int;
}

#[cfg(test)]
mod tests {
    use super::super::chain::cpu_op;
    use super::*;

    #[derive(Clone, Copy)]
    struct AddInto(f32);

    impl Kernel for AddInto {
        const NAME: &'static CStr = c"AddInto";

        fn run(&self, buffers: &Buffers<'_>) {
            let added = buffers.input::<f32>(1);
            let sums = buffers.output::<f32>(0);
            let copy = buffers.output::<f32>(1);
            // SAFETY: one worker, distinct outputs.
            let (sums, copy) = unsafe { (sums.slice(0, sums.len()), copy.slice(0, copy.len())) };
            for ((sum, copy), added) in sums.iter_mut().zip(copy).zip(added) {
                *sum += added + self.0;
                *copy = *sum;
            }
        }
    }

    #[test]
    fn a_kernel_updates_in_place_and_fills_a_new_array() {
        let base = Array::from_slice(&[1.0_f32, 2.0, 3.0, 4.0], &[2, 2]);
        let added = Array::from_slice(&[10.0_f32, 30.0, 20.0, 40.0], &[2, 2]);
        let transposed = added.swap_axes(0, 1).unwrap();
        let shape = [4];
        let made = cpu_op(
            AddInto(0.5),
            &[&base, &transposed],
            &[OutputSpec::InPlace(0), OutputSpec::New { shape: &shape, dtype: Dtype::Float32 }],
        )
        .unwrap();
        assert_eq!(made[1].as_slice::<f32>(), [11.5, 22.5, 33.5, 44.5]);
        assert_eq!(made[0].shape(), [2, 2]);
        assert_eq!(made[0].as_slice::<f32>(), made[1].as_slice::<f32>());
    }

    #[test]
    fn wrong_aliases_are_errors() {
        let base = Array::from_slice(&[1.0_f32], &[1]);
        assert!(cpu_op(AddInto(0.0), &[&base], &[OutputSpec::InPlace(1)]).is_err());
        assert!(cpu_op(AddInto(0.0), &[&base], &[]).is_err());
    }
}
