//! Kernels that run one after the other within one operation of MLX's graph.

use std::cmp::Reverse;
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

/// Where values that nobody outside wants lie in working memory, and how much of that is needed. The largest get
/// their places first, each the lowest that nothing else has while it is needed (greedy by size: Pisarchyk and Lee,
/// "Efficient Memory Management for Deep Neural Net Inference", arXiv:2001.03288).
pub(super) fn lay_out(
    stages: &[Stage],
    arguments: &[Argument],
    inside: &[Option<Extent>],
) -> (Vec<usize>, usize) {
    // The first stage that has the value, and the last.
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; inside.len()];
    let mut rest = arguments;
    for (index, stage) in stages.iter().enumerate() {
        let (own, others) = rest.split_at(stage.inputs + stage.outputs);
        rest = others;
        for argument in own {
            if let Source::Value(value) = argument.of {
                lives[value].get_or_insert((index, index)).1 = index;
            }
        }
    }
    let sized = inside.iter().zip(lives).enumerate();
    let mut values: Vec<_> =
        sized.filter_map(|(value, (extent, life))| Some((floats((*extent)?), value, life?))).collect();
    values.sort_unstable_by_key(|&(size, value, _)| (Reverse(size), value));

    let (mut starts, mut total) = (vec![0; inside.len()], 0);
    // What has a place already, where it begins and ends, by the stages that have it.
    let mut placed = vec![Vec::<(usize, usize)>::new(); stages.len()];
    for (size, value, (first, last)) in values {
        let mut beside: Vec<_> = placed[first..=last].iter().flatten().copied().collect();
        beside.sort_unstable();
        let mut start = 0;
        for (begins, ends) in beside {
            if start + size <= begins {
                break;
            }
            start = start.max(ends);
        }
        for stage in &mut placed[first..=last] {
            stage.push((start, start + size));
        }
        starts[value] = start;
        total = total.max(start + size);
    }
    (starts, total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Nothing;

    impl Kernel for Nothing {
        const NAME: &'static CStr = c"Nothing";

        fn run(&self, _: &Buffers<'_>) {}
    }

    proptest! {
        #[test]
        fn what_is_needed_together_lies_apart(
            // Of each stage: floats of its output, whether it lies inside, and which of the values before it reads.
            plan in prop::collection::vec((0..400_usize, prop::bool::weighted(0.9), prop::collection::vec(0..64_usize, 0..4)), 1..40),
        ) {
            let (mut stages, mut arguments, mut inside) = (Vec::new(), Vec::new(), Vec::new());
            let mut lives: Vec<(usize, usize)> = Vec::new();
            for (index, (size, is_inside, reads)) in plan.iter().enumerate() {
                let read: Vec<usize> = reads.iter().filter(|&&value| value < index).copied().collect();
                for &value in &read {
                    lives[value].1 = index;
                    arguments.push(Argument { of: Source::Value(value), in_place: false });
                }
                arguments.push(Argument { of: Source::Value(index), in_place: false });
                lives.push((index, index));
                inside.push(is_inside.then_some((*size, 4)));
                stages.push(Stage { kernel: Box::new(Nothing), inputs: read.len(), outputs: 1 });
            }
            let (starts, total) = lay_out(&stages, &arguments, &inside);

            let place = |value: usize| inside[value].map(|extent| (starts[value], starts[value] + floats(extent)));
            let mut most = 0;
            for stage in 0..stages.len() {
                let alive = |&value: &usize| lives[value].0 <= stage && stage <= lives[value].1;
                let mut places: Vec<_> = (0..stages.len()).filter(alive).filter_map(place).collect();
                places.sort_unstable();
                prop_assert!(places.iter().all(|&(start, end)| start % LINE_FLOATS == 0 && end <= total));
                prop_assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{places:?}");
                most = most.max(places.iter().map(|(start, end)| end - start).sum::<usize>());
            }
            prop_assert!(most <= total);
        }
    }

    /// A layer's hidden states, projections, attention, and a network twice as wide, several times.
    #[test]
    fn layers_of_a_model_take_no_more_than_their_widest_place() {
        let (mut stages, mut arguments, mut inside) = (Vec::new(), Vec::new(), Vec::new());
        let mut stage = |inputs: &[usize], size: usize| {
            let made = inside.len();
            inside.push(Some((size, 4)));
            let all = inputs.iter().copied().chain([made]);
            arguments.extend(all.map(|value| Argument { of: Source::Value(value), in_place: false }));
            stages.push(Stage { kernel: Box::new(Nothing), inputs: inputs.len(), outputs: 1 });
            made
        };
        let mut hidden = stage(&[], 576);
        for _ in 0..30 {
            let projected = stage(&[hidden], 960);
            let attended = stage(&[projected], 576);
            let middle = stage(&[attended, hidden], 576);
            let gated = stage(&[middle], 1536);
            hidden = stage(&[gated, middle], 576);
        }
        assert_eq!(lay_out(&stages, &arguments, &inside).1, 1536 + 2 * 576);
    }
}
