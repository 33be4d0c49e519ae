//! Kernels that follow each other, gathered into one operation of MLX's graph.
//!
//! A kernel whose inputs are results of others joins their chain. The chain becomes an operation when somebody
//! wants one of its results as an array: results whose [`Tensor`] is still held are the operation's outputs
//! then, all others lie in working memory while it runs, and MLX never hears of them. Arrays that are computed,
//! such as weights, the operation keeps to itself; others are its inputs.
//!
//! Arrays that kernels update are kept so, too. For all of them together the operation has one output more, of a
//! byte: whoever reads or updates them later waits for it (see [`Update`]), so that MLX keeps the order of the
//! operations that share the memory. Each as an input and an output would be work that grows by the square: of an
//! operation every output knows all inputs and all other outputs.

use std::cell::RefCell;
use std::ffi::c_void;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use super::cpu_op::{Kernel, OutputSpec, check, is_settled, item_size, operation};
use super::program::{AnyKernel, Argument, Extent, Given, Program, Room, Source, Stage, lay_out};
use super::region::Region;
use super::tensor::{Input, Node, Operand, State, Tensor, Update};

/// The output that tells of updates.
pub(super) const UPDATED: OutputSpec<'static> = OutputSpec::New { shape: &[1], dtype: Dtype::Uint8 };

#[derive(Default)]
pub(super) struct Chain {
    stages: Vec<Stage>,
    arguments: Vec<Argument>,
    given: Vec<(Outside, Extent)>,
    values: Vec<Value>,
    /// Updates of these arrays that come before.
    after: Vec<Rc<Update>>,
    /// Arrays that are others each time.
    fresh: Vec<usize>,
}

/// What comes from outside of a chain.
enum Outside {
    Array(Array),
    Region(Region),
}

/// What a kernel of a chain makes.
struct Value {
    node: Weak<Node>,
    extent: Extent,
    /// The array that it is an update of.
    updates: Option<usize>,
}

/// Appends a kernel to the chain that its inputs come from, or begins one; what it will make.
///
/// # Errors
/// No outputs, an alias that is no array's, or MLX refuses. A kernel that failed (a defect of ours) since the
/// last call is reported here too, see [`check`].
pub fn record<K: Kernel>(
    kernel: K,
    inputs: &[Input<'_>],
    outputs: &[OutputSpec<'_>],
) -> Result<Vec<Tensor>, Exception> {
    check()?;
    let chain = chain_of(inputs)?;
    let mut open = chain.borrow_mut();
    let mut arguments = Vec::with_capacity(inputs.len() + outputs.len());
    for input in inputs {
        let of = match input {
            Input::Array(array) => open.add_array((*array).clone()),
            Input::Fresh(array) => {
                let index = open.given.len();
                open.fresh.push(index);
                open.add_array((*array).clone())
            }
            Input::Tensor(tensor) => match &*tensor.state() {
                State::Pending(_, value) => Source::Value(*value),
                State::Updated(memory, update) => {
                    open.wait_for(update);
                    open.add_array(memory.clone())
                }
                State::Array(array) => open.add_array(array.clone()),
                State::Lost => return Err(lost()),
            },
            Input::Region(region) => open.add(Outside::Region((*region).clone()), (region.len(), 1)),
        };
        arguments.push(Argument { of, in_place: false });
    }
    let mut made = Vec::with_capacity(outputs.len());
    for output in outputs {
        let (tensor, extent, updates) = match *output {
            OutputSpec::New { shape, dtype } => {
                let count = shape.iter().try_fold(1_usize, |all, &n| all.checked_mul(n.try_into().ok()?));
                let count = count.ok_or_else(|| Exception::custom("an output's shape is out of range"))?;
                (Node::new(shape, dtype), (count, item_size(dtype)), None)
            }
            OutputSpec::InPlace(index) => {
                let input = arguments.get_mut(index).filter(|_| index < inputs.len());
                let updates = input.and_then(|input| {
                    input.in_place = true;
                    match input.of {
                        Source::Given(given) => Some(given),
                        Source::Value(value) => open.values[value].updates,
                    }
                });
                match updates.map(|given| &open.given[given]) {
                    Some((Outside::Array(array), extent)) => {
                        settle(array)?;
                        (Node::new(array.shape(), array.dtype()), *extent, updates)
                    }
                    _ => return Err(Exception::custom("an output aliases no array")),
                }
            }
        };
        let value = open.values.len();
        open.values.push(Value { node: Rc::downgrade(&tensor), extent, updates });
        arguments.push(Argument { of: Source::Value(value), in_place: false });
        made.push(Tensor::pending_in(tensor, &chain, value));
    }
    if made.is_empty() {
        return Err(Exception::custom("a kernel that makes nothing"));
    }
    open.arguments.append(&mut arguments);
    let kernel: Box<dyn AnyKernel> = Box::new(kernel);
    open.stages.push(Stage { kernel, inputs: inputs.len(), outputs: outputs.len() });
    Ok(made)
}

/// An operation of this kernel alone.
///
/// # Errors
/// As [`record`].
pub fn cpu_op<K: Kernel>(
    kernel: K,
    inputs: &[&Array],
    outputs: &[OutputSpec<'_>],
) -> Result<Vec<Array>, Exception> {
    let inputs: Vec<Input> = inputs.iter().map(|array| Input::Array(array)).collect();
    record(kernel, &inputs, outputs)?.iter().map(Tensor::array).collect()
}

/// The chain that the inputs come from; what else is pending is closed.
fn chain_of(inputs: &[Input<'_>]) -> Result<Rc<RefCell<Chain>>, Exception> {
    let mut found: Option<Rc<RefCell<Chain>>> = None;
    for input in inputs {
        let Input::Tensor(tensor) = input else { continue };
        let Some((chain, _)) = tensor.pending() else { continue };
        if let Some(other) = found.replace(Rc::clone(&chain))
            && !Rc::ptr_eq(&other, &chain)
        {
            close(&other)?;
        }
    }
    Ok(found.unwrap_or_default())
}

/// Makes an operation of a chain; every tensor of it then has its array.
pub(super) fn close(chain: &Rc<RefCell<Chain>>) -> Result<(), Exception> {
    let chain = chain.take();
    let nodes = chain.wanted();
    chain.program(&nodes, &[]).operation().map(|_| ())
}

/// That an array, which is to be updated, is computed: it is so already where it is a cache.
fn settle(array: &Array) -> Result<(), Exception> {
    if is_settled(array) {
        return Ok(());
    }
    array.eval()?;
    if is_settled(array) {
        return Ok(());
    }
    Err(Exception::custom("an array to update in place that is not row-contiguous"))
}

pub(super) fn lost() -> Exception {
    Exception::custom("a result whose operation failed")
}

/// Memory as an array of MLX's graph, once it is updated.
pub(super) fn updated(memory: &Array, update: &Update) -> Result<Array, Exception> {
    let update = update.borrow();
    if is_settled(&update) {
        return Ok(memory.clone());
    }
    let made = operation(Arc::default(), 0, &[memory, &update], &[OutputSpec::InPlace(0)])?;
    made.into_iter().next().ok_or_else(lost)
}

/// What makes one result from arrays that are computed, to be run by whoever wants it, outside of MLX's graph.
pub struct Closed {
    program: Program,
    floats: usize,
}

impl Closed {
    /// Closes the chain of a float32 tensor, of which nothing else is wanted.
    ///
    /// # Errors
    /// A tensor that is an array already, a chain that updates arrays or waits for some.
    pub fn new(tensor: &Tensor) -> Result<Self, Exception> {
        let (chain, value) = tensor.pending().ok_or_else(|| Exception::custom("nothing to compute"))?;
        let chain = chain.take();
        let mut wanted = vec![None; chain.values.len()];
        for (index, (made, wanted)) in chain.values.iter().zip(&mut wanted).enumerate() {
            let node = made.node.upgrade();
            if let Some(node) = &node {
                node.settle(State::Lost);
            }
            *wanted = node.filter(|_| index == value);
        }
        let floats = chain.values[value].extent.0;
        let updates = chain.values.iter().any(|value| value.updates.is_some());
        let Closing { program, inputs, made, .. } = chain.program(&wanted, &[]);
        if updates
            || !inputs.is_empty()
            || !matches!(made.as_slice(), [node] if node.dtype() == Dtype::Float32)
        {
            return Err(Exception::custom("a chain that is not made of computed arrays alone"));
        }
        Ok(Self { program, floats })
    }

    /// How many floats it makes.
    pub fn floats(&self) -> usize {
        self.floats
    }

    /// Makes them. A kernel that fails is reported by the next [`check`].
    ///
    /// # Panics
    /// If there is not exactly that much room.
    pub fn run(&self, to: &mut [f32]) {
        assert!(to.len() == self.floats, "a result of another size");
        let output: *mut c_void = to.as_mut_ptr().cast();
        // SAFETY: there are no inputs, and one output, which is as large as the program was made for.
        unsafe { self.program.run(0, std::ptr::null(), &raw const output) };
    }
}

/// A chain that is to be an operation.
pub(super) struct Closing {
    pub(super) program: Program,
    /// Arrays that are still to come, then the updates to wait for.
    pub(super) inputs: Vec<Array>,
    /// The outputs.
    pub(super) made: Vec<Rc<Node>>,
    /// What is updated, and its memory.
    pub(super) updated: Vec<(Rc<Node>, Array)>,
}

impl Closing {
    /// Makes the operation; all results have their arrays then. What it runs, and what tells of its updates.
    pub(super) fn operation(self) -> Result<(Arc<Program>, Option<Rc<Update>>), Exception> {
        let Self { program, inputs, made, updated } = self;
        let program = Arc::new(program);
        let specs = made.iter().map(|node| OutputSpec::New { shape: node.shape(), dtype: node.dtype() });
        let specs: Vec<_> = specs.chain((!updated.is_empty()).then_some(UPDATED)).collect();
        let inputs: Vec<&Array> = inputs.iter().collect();
        let arrays = operation(Arc::clone(&program), 0, &inputs, &specs);
        let mut arrays = match arrays {
            Ok(arrays) => arrays.into_iter(),
            Err(error) => {
                for node in made.iter().chain(updated.iter().map(|(node, _)| node)) {
                    node.settle(State::Lost);
                }
                return Err(error);
            }
        };
        for (node, array) in made.iter().zip(&mut arrays) {
            node.settle(State::Array(array));
        }
        let update = arrays.next().map(|update| Rc::new(RefCell::new(update)));
        for (node, memory) in updated {
            let state = update.as_ref().map(|update| State::Updated(memory, Rc::clone(update)));
            node.settle(state.unwrap_or(State::Lost));
        }
        Ok((program, update))
    }
}

impl Chain {
    fn add(&mut self, given: Outside, extent: Extent) -> Source {
        self.given.push((given, extent));
        Source::Given(self.given.len() - 1)
    }

    fn add_array(&mut self, array: Array) -> Source {
        let extent = (array.size(), array.item_size());
        self.add(Outside::Array(array), extent)
    }

    fn wait_for(&mut self, update: &Rc<Update>) {
        if !self.after.iter().any(|known| Rc::ptr_eq(known, update)) {
            self.after.push(Rc::clone(update));
        }
    }

    /// The results that somebody still has.
    pub(super) fn wanted(&self) -> Vec<Option<Rc<Node>>> {
        self.values.iter().map(|value| value.node.upgrade()).collect()
    }

    /// The index of the fresh array of a chain that can be had again: of which only this value and so many updates
    /// are wanted, and which waits for no array but that one.
    pub(super) fn repeats(&self, wanted: &[Option<Rc<Node>>], value: usize, updates: usize) -> Option<usize> {
        let &[fresh] = self.fresh.as_slice() else { return None };
        let is_update = |index: usize| self.values[index].updates.is_some();
        let are_wanted = wanted
            .iter()
            .enumerate()
            .all(|(index, node)| node.is_some() == (index == value || is_update(index)));
        let updated = (0..self.values.len()).filter(|&index| is_update(index)).count();
        let is_there = |(index, (given, _)): (usize, &(Outside, Extent))| match given {
            Outside::Array(array) => index == fresh || is_settled(array),
            Outside::Region(_) => true,
        };
        let repeats = are_wanted
            && !is_update(value)
            && updates > 0
            && updated == updates
            && self.given.iter().enumerate().all(is_there);
        repeats.then_some(fresh)
    }

    /// What computes those values that have a node. Arrays that are still to come are its inputs, and these.
    pub(super) fn program(self, nodes: &[Option<Rc<Node>>], fresh: &[usize]) -> Closing {
        let (mut inputs, mut all_given) = (Vec::new(), Vec::with_capacity(self.given.len()));
        for (index, (given, extent)) in self.given.into_iter().enumerate() {
            let given = match given {
                Outside::Array(array) if fresh.contains(&index) || !is_settled(&array) => {
                    inputs.push(array);
                    Given::Input(inputs.len() - 1)
                }
                Outside::Array(array) => Given::Held(array),
                Outside::Region(region) => Given::Region(region),
            };
            all_given.push((given, extent));
        }
        let updates = self.after.iter().map(|update| update.borrow().clone());
        inputs.extend(updates.filter(|update| !is_settled(update)));

        let is_inside = |(value, node): (&Value, &Option<Rc<Node>>)| {
            (node.is_none() && value.updates.is_none()).then_some(value.extent)
        };
        let inside: Vec<_> = self.values.iter().zip(nodes).map(is_inside).collect();
        let (starts, scratch) = lay_out(&self.stages, &self.arguments, &inside);
        let (mut made, mut updated) = (Vec::new(), Vec::new());
        let mut values = Vec::with_capacity(self.values.len());
        for ((value, node), start) in self.values.iter().zip(nodes).zip(starts) {
            let room = match (value.updates, node) {
                (Some(given), _) => Room::Given(given),
                (None, Some(_)) => Room::Output(made.len()),
                (None, None) => Room::Scratch(start),
            };
            values.push((room, value.extent));
            let Some(node) = node else { continue };
            match value.updates.map(|given| &all_given[given].0) {
                // What is updated was computed when that was recorded.
                Some(Given::Held(memory)) => updated.push((Rc::clone(node), memory.clone())),
                _ => made.push(Rc::clone(node)),
            }
        }
        let (stages, arguments) = (self.stages, self.arguments);
        let program = Program { stages, arguments, given: all_given, values, scratch };
        Closing { program, inputs, made, updated }
    }
}
