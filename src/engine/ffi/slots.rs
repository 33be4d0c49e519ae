//! The memory that a kernel works on.

use std::ffi::c_void;
use std::marker::PhantomData;

use bytemuck::Pod;

/// Where the elements of one input or output lie.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) data: *mut c_void,
    pub(super) count: usize,
    pub(super) item_size: usize,
    /// Whether the kernel updates this input in place.
    pub(super) in_place: bool,
}

/// The inputs and outputs of one run of a kernel.
pub struct Buffers<'a> {
    inputs: &'a [Slot],
    outputs: &'a [Slot],
    later: usize,
}

impl<'a> Buffers<'a> {
    /// # Safety
    /// Every slot's memory is there, aligned for its elements, as long as the slots are borrowed. Inputs that
    /// are not updated in place are initialised and nobody writes them; nobody else looks at outputs.
    pub(super) unsafe fn new(inputs: &'a [Slot], outputs: &'a [Slot], later: usize) -> Self {
        Self { inputs, outputs, later }
    }

    /// How many places later in its sequence than it was made for the kernel runs: what depends on a place adds it.
    pub fn later(&self) -> usize {
        self.later
    }

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
        // SAFETY: promised to `new`; nothing in place overlaps because of the assertion above.
        unsafe { std::slice::from_raw_parts(slot.data.cast_const().cast(), slot.count) }
    }

    /// Takes the float32 inputs from `first` on, one after the other, of which some were given only if what they are
    /// for is wanted.
    ///
    /// # Panics
    /// As [`Buffers::input`].
    pub fn optional(&self, first: usize) -> impl FnMut(bool) -> Option<&'a [f32]> {
        let mut next = first;
        move |given| {
            let index = next;
            next += usize::from(given);
            given.then(|| self.input(index))
        }
    }

    /// The bytes of input `index`, whatever its elements are; none where it was not given.
    ///
    /// # Panics
    /// On a defect of the kernel: the input is updated in place.
    pub fn optional_bytes(&self, index: usize) -> &'a [u8] {
        let Some(slot) = self.inputs.get(index).filter(|slot| slot.count > 0) else { return &[] };
        assert!(!slot.in_place, "wrong use of input {index}");
        // SAFETY: promised to `new`; nothing in place overlaps because of the assertion above.
        unsafe { std::slice::from_raw_parts(slot.data.cast_const().cast(), slot.count * slot.item_size) }
    }

    /// The elements of output `index`, to be written.
    ///
    /// # Panics
    /// On a defect of the kernel: no such output, or another element size.
    pub fn output<T: Pod>(&self, index: usize) -> SharedSlice<'a, T> {
        let slot = self.outputs[index];
        assert!(slot.item_size == size_of::<T>(), "wrong use of output {index}");
        SharedSlice { data: slot.data.cast(), count: slot.count, life: PhantomData }
    }

    /// The bytes of output `index`, whatever its elements are.
    ///
    /// # Panics
    /// On a defect of the kernel: no such output.
    pub fn output_bytes(&self, index: usize) -> SharedSlice<'a, u8> {
        let slot = self.outputs[index];
        SharedSlice { data: slot.data.cast(), count: slot.count * slot.item_size, life: PhantomData }
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
