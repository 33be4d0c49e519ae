//! Kernels that run one after the other within one operation of MLX's graph.

use std::ffi::{CStr, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mlx_rs::Array;

use super::cpu_op::{Kernel, memory, record_failure};
use super::region::Region;
use super::scratch::{LINE_FLOATS, Scratch};
use super::slots::{Buffers, SharedSlice, Slot};

/// A kernel of whatever kind.
pub(super) trait AnyKernel: Send + Sync {
    fn name(&self) -> &'static CStr;
    fn run(&self, buffers: &Buffers<'_>);
}

impl<K: Kernel> AnyKernel for K {
    fn name(&self) -> &'static CStr {
        K::NAME
    }

    fn run(&self, buffers: &Buffers<'_>) {
        Kernel::run(self, buffers);
    }
}

/// One kernel, and how many arguments it has.
pub(super) struct Stage {
    pub(super) kernel: Box<dyn AnyKernel>,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

/// An input or an output of a kernel.
#[derive(Clone, Copy)]
pub(super) struct Argument {
    pub(super) of: Source,
    /// Whether it is an input that the kernel updates.
    pub(super) in_place: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Source {
    /// Of this index among what comes from outside.
    Given(usize),
    /// What a kernel of this program makes, of this index among all of that.
    Value(usize),
}

/// Where a value lies.
#[derive(Clone, Copy)]
pub(super) enum Room {
    /// In an output of the operation.
    Output(usize),
    /// In what came from outside, which it is after an update.
    Given(usize),
    /// In working memory, from this float on.
    Scratch(usize),
}

/// What comes from outside: an input of the operation, or what is there already and kept alive here. An array of the
/// latter may be one that kernels update.
pub(super) enum Given {
    Input(usize),
    Held(Array),
    Region(Region),
}

/// Elements, and bytes of each.
pub(super) type Extent = (usize, usize);

#[derive(Default)]
pub(super) struct Program {
    pub(super) stages: Vec<Stage>,
    /// Inputs, then outputs of every stage, one after the other.
    pub(super) arguments: Vec<Argument>,
    pub(super) given: Vec<(Given, Extent)>,
    pub(super) values: Vec<(Room, Extent)>,
    /// Floats of working memory.
    pub(super) scratch: usize,
}

// SAFETY: kernels and regions are `Send` and `Sync`; of the arrays, which are `Send`, only the memory is looked at while
// the program runs. Nobody changes it but kernels of programs like this one, of which one runs after the other: an
// operation waits for those that have updated what it looks at, and all of them run on the thread of MLX's CPU stream.
unsafe impl Sync for Program {}

impl Program {
    /// What MLX calls the operation.
    pub(super) fn name(&self) -> &'static CStr {
        match self.stages.as_slice() {
            [only] => only.kernel.name(),
            _ => c"Chain",
        }
    }

    /// Runs all kernels in their order, or up to the first that fails, as they were recorded or so many places
    /// later.
    ///
    /// # Safety
    /// `inputs` and `outputs` point at pointers to the operation's arrays, which are row-major, as large as the
    /// arrays that the program was made for, and nobody else's while it runs.
    pub(super) unsafe fn run(&self, later: usize, inputs: *const *const c_void, outputs: *const *mut c_void) {
        let mut scratch = Scratch::new(self.scratch);
        let scratch = SharedSlice::new(&mut scratch);
        let slot = |data: *mut c_void, (count, item_size)| Slot { data, count, item_size, in_place: false };
        let given = |index: usize| {
            let (given, extent) = &self.given[index];
            let data = match given {
                // SAFETY: the caller's: there are as many inputs.
                Given::Input(input) => unsafe { *inputs.add(*input) }.cast_mut(),
                Given::Held(array) => memory(array),
                // Only read: no value updates it.
                Given::Region(region) => region.as_ptr().cast_mut().cast(),
            };
            slot(data, *extent)
        };
        let value = |index: usize| {
            let (room, extent) = self.values[index];
            match room {
                // SAFETY: the caller's: there are as many outputs.
                Room::Output(output) => slot(unsafe { *outputs.add(output) }, extent),
                Room::Given(index) => given(index),
                Room::Scratch(at) => slot(scratch.range(at, floats(extent)).cast(), extent),
            }
        };
        let (mut slots, mut rest) = (Vec::new(), self.arguments.as_slice());
        for Stage { kernel, inputs, outputs } in &self.stages {
            let (own, others) = rest.split_at(inputs + outputs);
            rest = others;
            slots.clear();
            slots.extend(own.iter().map(|argument| {
                let slot = match argument.of {
                    Source::Given(index) => given(index),
                    Source::Value(index) => value(index),
                };
                Slot { in_place: argument.in_place, ..slot }
            }));
            let (inputs, outputs) = slots.split_at(*inputs);
            // SAFETY: arrays live as long as the operation; what lies in working memory is written before it is
            // read, and shares its place with nothing that is still to be read.
            let buffers = unsafe { Buffers::new(inputs, outputs, later) };
            // A panic must not unwind into C++: it becomes an error of the next `check`.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| kernel.run(&buffers))) {
                return record_failure(kernel.name(), panic.as_ref());
            }
        }
    }
}

/// Floats of working memory that so many elements take, in whole lines.
fn floats((count, item_size): Extent) -> usize {
    (count * item_size).div_ceil(LINE_FLOATS * size_of::<f32>()) * LINE_FLOATS
}

/// Where values that nobody outside wants lie in working memory, and how much of that is needed: what was read
/// for the last time makes room for what comes later.
pub(super) fn lay_out(
    stages: &[Stage],
    arguments: &[Argument],
    inside: &[Option<Extent>],
) -> (Vec<usize>, usize) {
    let mut last_use = vec![0; inside.len()];
    let by_stage = || {
        let mut rest = arguments;
        stages.iter().enumerate().map(move |(index, stage)| {
            let (own, others) = rest.split_at(stage.inputs + stage.outputs);
            rest = others;
            let values = own.iter().filter_map(|argument| match argument.of {
                Source::Value(value) => Some(value),
                Source::Given(_) => None,
            });
            (index, values)
        })
    };
    for (index, values) in by_stage() {
        for value in values {
            last_use[value] = index;
        }
    }
    let (mut starts, mut free, mut total) = (vec![None; inside.len()], Vec::<(usize, usize)>::new(), 0);
    for (index, values) in by_stage() {
        for value in values.clone() {
            let (Some(extent), None) = (inside[value], starts[value]) else { continue };
            let size = floats(extent);
            let fitting = free.iter().enumerate().filter(|(_, (_, room))| *room >= size);
            let best = fitting.min_by_key(|(_, (_, room))| *room).map(|(at, _)| at);
            starts[value] = Some(if let Some(best) = best {
                let (start, room) = free.swap_remove(best);
                if room > size {
                    free.push((start + size, room - size));
                }
                start
            } else {
                total += size;
                total - size
            });
        }
        for value in values {
            if let (Some(extent), Some(start)) = (inside[value], starts[value])
                && last_use[value] == index
            {
                // Once only, even if it is several arguments of the stage.
                last_use[value] = usize::MAX;
                free.push((start, floats(extent)));
            }
        }
    }
    (starts.into_iter().map(Option::unwrap_or_default).collect(), total)
}
