//! Byte arrays whose content starts on a cache line. MLX's CPU allocator aligns to 8 bytes only, so an
//! array is a little larger and the content starts at its first aligned address.
//!
//! They lie side by side in larger arrays for which the system is asked for huge pages: to hand out a model's memory
//! in small ones took half of the time of loading.

use std::cell::RefCell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mlx_rs::error::Exception;
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Dtype};

use super::chain::cpu_op;
use super::cpu_op::{Kernel, OutputSpec};
use super::slots::{Buffers, SharedSlice};

/// Alignment of the content in bytes.
pub const LINE: usize = 64;

/// Lines of the arrays that others lie in: 64 MiB. What is larger than half of that has an array of its own.
const SHARED_LINES: usize = (64 << 20) / LINE;

/// The size of a huge page on x86-64, and on ARM with pages of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;

/// A huge page takes some 0.1 ms, most of which goes into clearing it. In a virtual machine whose host has taken back
/// what was free, it takes 5 to 10 ms: small pages are then more likely to be those that the host has left, since it
/// takes only whole huge ones.
const SLOW: Duration = Duration::from_millis(2);

/// Whether one took longer; no more are asked for then.
static COME_SLOWLY: AtomicBool = AtomicBool::new(false);

thread_local! {
    static SHARED: RefCell<Option<Shared>> = const { RefCell::new(None) };
}

/// An array that others lie in.
struct Shared {
    array: Array,
    /// Lines that are taken.
    taken: usize,
}

/// A new byte array `[n, 64]` with room for `bytes` aligned bytes, filled by `fill`, which gets exactly
/// these and must write all of them.
///
/// # Errors
/// Those of `fill`, no memory, or more than MLX can count.
pub fn aligned_bytes<E: From<Exception>>(
    bytes: usize,
    fill: impl FnOnce(SharedSlice<'_, u8>) -> Result<(), E>,
) -> Result<Array, E> {
    let lines = bytes.div_ceil(LINE) + 1;
    if lines > SHARED_LINES / 2 {
        let array = allocate(lines)?;
        // SAFETY: nobody else has the array yet.
        unsafe { fill_lines(&array, 0, bytes, fill)? };
        return Ok(array);
    }
    SHARED.with_borrow_mut(|shared| {
        let kept = shared.take().filter(|it| lines <= SHARED_LINES - it.taken);
        let kept = match kept {
            Some(kept) => kept,
            None => Shared { array: allocate(SHARED_LINES)?, taken: 0 },
        };
        let Shared { array, taken } = shared.insert(kept);
        // SAFETY: nobody else has these lines: what is taken lies before them.
        unsafe { fill_lines(array, *taken, bytes, fill)? };
        let part = array.try_index(*taken as i32..(*taken + lines) as i32)?;
        part.eval()?;
        *taken += lines;
        Ok(part)
    })
}

/// Lets go of the array that the next ones of this thread were to lie in: when a model is loaded, it is not to
/// outlive it.
pub fn end_sharing() {
    SHARED.take();
}

/// The aligned content of an array made by [`aligned_bytes`]; it may be followed by padding.
pub fn aligned(all: &[u8]) -> &[u8] {
    &all[offset(all.as_ptr())..]
}

/// Bytes from an address to the next line.
fn offset(from: *const u8) -> usize {
    from.addr().wrapping_neg() % LINE
}

/// # Safety
/// Nobody else has the lines from `first` on that hold so many aligned bytes.
unsafe fn fill_lines<E: From<Exception>>(
    array: &Array,
    first: usize,
    bytes: usize,
    fill: impl FnOnce(SharedSlice<'_, u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = data(array)?.wrapping_add(first * LINE);
    let start = start.wrapping_add(offset(start));
    // SAFETY: within the array, which has a line more than the bytes fill, and the caller's.
    fill(SharedSlice::new(unsafe { std::slice::from_raw_parts_mut(start, bytes) }))
}

/// An array of so many lines, in huge pages where the system has them.
fn allocate(lines: usize) -> Result<Array, Exception> {
    let count = i32::try_from(lines).map_err(|_| {
        Exception::custom(format!("{lines} lines of {LINE} bytes are too many for one array"))
    })?;
    let shape = [count, LINE as i32];
    let made = cpu_op(Allocate, &[], &[OutputSpec::New { shape: &shape, dtype: Dtype::Uint8 }])?;
    let array = made.into_iter().next().ok_or_else(|| Exception::custom("mlx made no array"))?;
    array.eval()?;
    let start = data(&array)?;
    let before = start.addr().wrapping_neg() % HUGE_PAGE;
    let whole = array.nbytes().saturating_sub(before) / HUGE_PAGE * HUGE_PAGE;
    if whole > 0 && !COME_SLOWLY.load(Ordering::Relaxed) {
        let pages = start.wrapping_add(before);
        // SAFETY: whole pages inside the array, which nobody else has yet; what the system refuses only costs time.
        unsafe {
            libc::madvise(pages.cast(), whole, libc::MADV_HUGEPAGE);
            let asked = Instant::now();
            // Volatile, since nobody reads it.
            pages.write_volatile(0);
            if asked.elapsed() > SLOW {
                COME_SLOWLY.store(true, Ordering::Relaxed);
                libc::madvise(pages.cast(), whole, libc::MADV_NOHUGEPAGE);
            }
        }
    }
    Ok(array)
}

/// Where an evaluated array's bytes are.
fn data(array: &Array) -> Result<*mut u8, Exception> {
    // SAFETY: the array is evaluated.
    let data = unsafe { mlx_sys::mlx_array_data_uint8(array.as_ptr()) }.cast_mut();
    if data.is_null() { Err(Exception::custom("mlx made an array without memory")) } else { Ok(data) }
}

/// Makes the memory: MLX allocates outputs before it runs an operation.
#[derive(Clone, Copy)]
struct Allocate;

impl Kernel for Allocate {
    const NAME: &'static CStr = c"Allocate";

    fn run(&self, _: &Buffers<'_>) {}
}
