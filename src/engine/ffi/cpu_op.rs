//! A safe face for `native/cpu_op.h`: a Rust kernel as a lazy operation of MLX's CPU stream.

use std::any::Any;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use bytemuck::Pod;
use mlx_rs::error::Exception;
use mlx_rs::{Array, Device, Dtype, Stream};

const MAX_INPUTS: usize = 10;
/// Most outputs of an operation.
pub const MAX_OUTPUTS: usize = 7;

/// An operation: its parameters (the value itself, copied into the graph) and what it computes.
///
/// `Copy` because MLX keeps the parameters as bytes and never drops them; `Send` because the stream's
/// thread runs them. Arrays that a kernel reads go in as inputs, so that MLX keeps them alive.
pub trait Kernel: Copy + Send + 'static {
    /// What MLX calls the operation in its messages and graph dumps.
    const NAME: &'static CStr;

    /// Fills the outputs. Outputs hold arbitrary bytes before, unless they alias an input.
    fn run(&self, buffers: &Buffers<'_>);
}

/// What an output is.
#[derive(Debug, Clone, Copy)]
pub enum OutputSpec<'a> {
    /// A new row-major array.
    New { shape: &'a [i32], dtype: Dtype },
    /// The input of this index, updated in place: same buffer, shape and dtype. That input array still
    /// exists and sees the update, so in-place kernels only write what nobody has read yet.
    InPlace(usize),
}

/// Builds the lazy outputs of `kernel`. Inputs that are not row-contiguous are copied first; an input
/// that an output aliases must be row-contiguous once evaluated.
///
/// # Errors
/// Too many inputs or outputs, an alias out of range, or MLX refuses. A kernel that failed (a defect of
/// ours) since the last call is reported here too, see [`check`].
pub fn cpu_op<K: Kernel>(
    kernel: K,
    inputs: &[&Array],
    outputs: &[OutputSpec<'_>],
) -> Result<Vec<Array>, Exception> {
    static HANDLER: Once = Once::new();
    check()?;
    if inputs.len() > MAX_INPUTS || outputs.is_empty() || outputs.len() > MAX_OUTPUTS {
        return Err(Exception::custom("a cpu operation has too many or no inputs or outputs"));
    }
    // MLX's own error handler ends the process; mlx-rs replaces it with the first fallible call.
    HANDLER.call_once(|| drop(Stream::try_default_on_device(&Device::cpu())));
    let stream = match mlx_rs::thread_local_default_stream() {
        Some(stream) => stream,
        None => Stream::try_default_on_device(&Device::cpu())?,
    };

    let mut call = Call {
        kernel,
        inputs: [Slot::NONE; MAX_INPUTS],
        outputs: [Slot::NONE; MAX_OUTPUTS],
        input_count: inputs.len(),
        output_count: outputs.len(),
    };
    for (slot, input) in call.inputs.iter_mut().zip(inputs) {
        *slot = Slot { count: input.size(), item_size: input.item_size(), in_place: false };
    }
    let mut specs = Vec::with_capacity(outputs.len());
    for (slot, output) in call.outputs.iter_mut().zip(outputs) {
        match *output {
            OutputSpec::New { shape, dtype } => {
                let count = shape.iter().try_fold(1_usize, |all, &n| all.checked_mul(n.try_into().ok()?));
                let count = count.ok_or_else(|| Exception::custom("an output's shape is out of range"))?;
                *slot = Slot { count, item_size: item_size(dtype), in_place: false };
                specs.push(COutput {
                    shape: shape.as_ptr(),
                    ndim: shape.len(),
                    dtype: u32::from(dtype) as c_int,
                    alias: -1,
                });
            }
            OutputSpec::InPlace(index) => {
                let Some(input) = call.inputs.get_mut(index).filter(|_| index < inputs.len()) else {
                    return Err(Exception::custom("an output aliases an input that is not there"));
                };
                input.in_place = true;
                *slot = *input;
                specs.push(COutput { shape: std::ptr::null(), ndim: 0, dtype: 0, alias: index as c_int });
            }
        }
    }
    let arrays: Vec<_> = inputs.iter().map(|input| input.as_ptr()).collect();
    // SAFETY: makes empty handles, which the call below fills or which are freed by `Array`'s drop.
    let mut made: Vec<_> = outputs.iter().map(|_| unsafe { mlx_sys::mlx_array_new() }).collect();
    // SAFETY: every pointer is valid for its count during the call; the parameters are copied bytewise,
    // which `K: Copy` allows, and `trampoline::<K>` reads back exactly the type that was copied.
    let status = unsafe {
        mlx_cache_cpu_op(
            made.as_mut_ptr(),
            specs.as_ptr(),
            specs.len(),
            arrays.as_ptr(),
            arrays.len(),
            trampoline::<K>,
            (&raw const call).cast(),
            size_of::<Call<K>>(),
            K::NAME.as_ptr(),
            stream.as_ptr(),
        )
    };
    // SAFETY: each handle is owned here and passed on once.
    let made: Vec<Array> = made.into_iter().map(|array| unsafe { Array::from_ptr(array) }).collect();
    if status != 0 {
        return Err(Exception::custom(format!("mlx refuses the operation {:?}", K::NAME)));
    }
    Ok(made)
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

fn record_failure(name: &CStr, panic: &(dyn Any + Send)) {
    let reason = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown reason");
    let message = format!("the cpu kernel {name:?} failed: {reason}");
    FAILURE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
    FAILED.store(true, Ordering::Release);
}

/// The inputs and outputs of one run of a kernel.
pub struct Buffers<'a> {
    inputs: &'a [Slot],
    outputs: &'a [Slot],
    input_data: *const *const c_void,
    output_data: *const *mut c_void,
    life: PhantomData<&'a [u8]>,
}

impl<'a> Buffers<'a> {
    /// The elements of input `index`, row-major.
    ///
    /// # Panics
    /// On a defect of the kernel: no such input, another element size, or an input updated in place.
    pub fn input<T: Pod>(&self, index: usize) -> &'a [T] {
        let slot = self.inputs[index];
        assert!(slot.item_size == size_of::<T>() && !slot.in_place, "wrong use of input {index}");
        if slot.count == 0 {
            return &[];
        }
        // SAFETY: MLX hands one pointer an input, to `count` initialised elements that stay alive and
        // unchanged during the run; nothing in place overlaps because of the assertion above.
        unsafe { std::slice::from_raw_parts((*self.input_data.add(index)).cast(), slot.count) }
    }

    /// The elements of output `index`, to be written.
    ///
    /// # Panics
    /// On a defect of the kernel: no such output, or another element size.
    pub fn output<T: Pod>(&self, index: usize) -> SharedSlice<'a, T> {
        let slot = self.outputs[index];
        assert!(slot.item_size == size_of::<T>(), "wrong use of output {index}");
        // SAFETY: as for inputs.
        SharedSlice {
            data: unsafe { *self.output_data.add(index) }.cast(),
            count: slot.count,
            life: PhantomData,
        }
    }

    /// The bytes of output `index`, whatever its elements are.
    ///
    /// # Panics
    /// On a defect of the kernel: no such output.
    pub fn output_bytes(&self, index: usize) -> SharedSlice<'a, u8> {
        let slot = self.outputs[index];
        // SAFETY: as for inputs; any memory may be seen as bytes.
        SharedSlice {
            data: unsafe { *self.output_data.add(index) }.cast(),
            count: slot.count * slot.item_size,
            life: PhantomData,
        }
    }
}

/// Memory that several workers fill, each its own part. It may be uninitialised.
pub struct SharedSlice<'a, T> {
    data: *mut T,
    count: usize,
    life: PhantomData<&'a mut [T]>,
}

impl<T> Clone for SharedSlice<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedSlice<'_, T> {}

// SAFETY: a pointer and a length; whoever dereferences answers for the disjointness of the parts.
unsafe impl<T: Send> Send for SharedSlice<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    pub fn new(data: &'a mut [T]) -> Self {
        Self { data: data.as_mut_ptr(), count: data.len(), life: PhantomData }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The address of element `start`, with room for `count` elements.
    ///
    /// # Panics
    /// When the range leaves the memory.
    pub fn range(&self, start: usize, count: usize) -> *mut T {
        assert!(start <= self.count && count <= self.count - start, "a kernel left its output");
        // SAFETY: in bounds by the assertion.
        unsafe { self.data.add(start) }
    }

    /// A part of the memory.
    ///
    /// # Panics
    /// When the range leaves the memory.
    #[must_use]
    pub fn part(&self, start: usize, count: usize) -> Self {
        Self { data: self.range(start, count), count, life: PhantomData }
    }

    /// A part of the memory as a slice.
    ///
    /// # Safety
    /// The part is initialised, or only written; no other reference to it exists meanwhile.
    ///
    /// # Panics
    /// When the range leaves the memory.
    pub unsafe fn slice(&self, start: usize, count: usize) -> &'a mut [T] {
        // SAFETY: in bounds by `range`, exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.range(start, count), count) }
    }
}

#[derive(Clone, Copy)]
struct Slot {
    count: usize,
    item_size: usize,
    in_place: bool,
}

impl Slot {
    const NONE: Self = Self { count: 0, item_size: 0, in_place: false };
}

#[derive(Clone, Copy)]
struct Call<K> {
    kernel: K,
    inputs: [Slot; MAX_INPUTS],
    outputs: [Slot; MAX_OUTPUTS],
    input_count: usize,
    output_count: usize,
}

unsafe extern "C" fn trampoline<K: Kernel>(
    params: *const c_void,
    inputs: *const *const c_void,
    outputs: *const *mut c_void,
) {
    // SAFETY: `cpu_op` passed exactly this type; the copy may lie unaligned.
    let call = unsafe { params.cast::<Call<K>>().read_unaligned() };
    let buffers = Buffers {
        inputs: &call.inputs[..call.input_count],
        outputs: &call.outputs[..call.output_count],
        input_data: inputs,
        output_data: outputs,
        life: PhantomData,
    };
    // A panic must not unwind into C++: it becomes an error of the next `check`.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| call.kernel.run(&buffers))) {
        record_failure(K::NAME, panic.as_ref());
    }
}

fn item_size(dtype: Dtype) -> usize {
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

type CKernel = unsafe extern "C" fn(*const c_void, *const *const c_void, *const *mut c_void);

unsafe extern "C" {
    fn mlx_cache_cpu_op(
        results: *mut mlx_sys::mlx_array,
        outputs: *const COutput,
        output_count: usize,
        inputs: *const mlx_sys::mlx_array,
        input_count: usize,
        kernel: CKernel,
        params: *const c_void,
        params_size: usize,
        name: *const c_char,
        stream: mlx_sys::mlx_stream,
    ) -> c_int;
}

#[cfg(test)]
mod tests {
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
