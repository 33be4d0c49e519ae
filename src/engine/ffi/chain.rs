//! Kernels that follow each other, gathered into one operation of MLX's graph.
//!
//! A kernel whose inputs are results of others joins their chain. The chain becomes an operation when somebody
//! wants one of its results as an array: results whose [`Tensor`] is still held are the operation's outputs
//! then, all others lie in working memory while it runs, and MLX never hears of them. Arrays that are computed,
//! such as weights, the operation keeps to itself; others are its inputs.

use std::cell::RefCell;
use std::ffi::c_void;
use std::rc::{Rc, Weak};

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use super::cpu_op::{Kernel, OutputSpec, check, is_settled, item_size, operation};
use super::program::{AnyKernel, Argument, Extent, Given, Program, Room, Source, Stage, lay_out};
use super::region::Region;
use super::tensor::{Input, Node, Operand, Tensor};

/// A chain that updates so many arrays is not made longer. To MLX each is an input and an output of the
/// operation, and every output knows all inputs and all other outputs: its work grows by the square.
const MOST_UPDATED: usize = 20;

#[derive(Default)]
pub(super) struct Chain {
    stages: Vec<Stage>,
    arguments: Vec<Argument>,
    given: Vec<(Outside, Extent)>,
    values: Vec<Value>,
    updated: usize,
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
    let updated = outputs.iter().filter(|output| matches!(output, OutputSpec::InPlace(_))).count();
    let chain = chain_of(inputs, updated)?;
    let mut open = chain.borrow_mut();
    let mut arguments = Vec::with_capacity(inputs.len() + outputs.len());
    for input in inputs {
        let of = match input {
            Input::Array(array) => open.add_array((*array).clone()),
            Input::Tensor(tensor) => match tensor.pending() {
                Some((_, value)) => Source::Value(value),
                None => open.add_array(tensor.array()?),
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
    open.updated += updated;
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

/// The chain that the inputs come from, if it has room for so many updates more; what else is pending is
/// closed.
fn chain_of(inputs: &[Input<'_>], updated: usize) -> Result<Rc<RefCell<Chain>>, Exception> {
    let mut found: Option<Rc<RefCell<Chain>>> = None;
    for input in inputs {
        let Input::Tensor(tensor) = input else { continue };
        let Some((chain, _)) = tensor.pending() else { continue };
        let is_full = updated > 0 && chain.borrow().updated + updated > MOST_UPDATED;
        if is_full {
            close(&chain)?;
        } else if let Some(other) = found.replace(Rc::clone(&chain))
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
    let nodes: Vec<_> = chain.values.iter().map(|value| value.node.upgrade()).collect();
    let made = chain.build(&nodes);
    let mut arrays = made.as_ref().map(|arrays| arrays.iter()).ok();
    for node in nodes.iter().flatten() {
        node.settle(arrays.as_mut().and_then(|arrays| arrays.next().cloned()));
    }
    made.map(|_| ())
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
                node.settle(None);
            }
            *wanted = node.filter(|_| index == value);
        }
        let (floats, updated) = (chain.values[value].extent.0, chain.updated);
        let (program, inputs, outputs) = chain.program(&wanted);
        if updated > 0
            || !inputs.is_empty()
            || !matches!(outputs.as_slice(), [Made::New(node)] if node.dtype() == Dtype::Float32)
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
        unsafe { self.program.run(std::ptr::null(), &raw const output) };
    }
}

/// What an operation makes of a program's result.
enum Made {
    New(Rc<Node>),
    /// The input of this index, updated.
    InPlace(usize),
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

    /// The arrays of those values that have a node.
    fn build(self, nodes: &[Option<Rc<Node>>]) -> Result<Vec<Array>, Exception> {
        let (program, inputs, made) = self.program(nodes);
        let outputs = made.iter().map(|made| match made {
            Made::New(node) => OutputSpec::New { shape: node.shape(), dtype: node.dtype() },
            Made::InPlace(input) => OutputSpec::InPlace(*input),
        });
        operation(Box::new(program), &inputs.iter().collect::<Vec<_>>(), &outputs.collect::<Vec<_>>())
    }

    /// What computes those values that have a node, from which arrays that are still to come.
    fn program(self, nodes: &[Option<Rc<Node>>]) -> (Program, Vec<Array>, Vec<Made>) {
        let mut updated = vec![false; self.given.len()];
        for value in
            self.values.iter().zip(nodes).filter_map(|(value, node)| node.as_ref().and(value.updates))
        {
            updated[value] = true;
        }
        let (mut inputs, mut all_given) = (Vec::new(), Vec::with_capacity(self.given.len()));
        for ((given, extent), updated) in self.given.into_iter().zip(updated) {
            let given = match given {
                Outside::Array(array) if updated || !is_settled(&array) => {
                    inputs.push(array);
                    Given::Input(inputs.len() - 1)
                }
                Outside::Array(array) => Given::Held(array),
                Outside::Region(region) => Given::Region(region),
            };
            all_given.push((given, extent));
        }

        let is_inside = |(value, node): (&Value, &Option<Rc<Node>>)| {
            (node.is_none() && value.updates.is_none()).then_some(value.extent)
        };
        let inside: Vec<_> = self.values.iter().zip(nodes).map(is_inside).collect();
        let (starts, scratch) = lay_out(&self.stages, &self.arguments, &inside);
        let (mut outputs, mut values) = (Vec::new(), Vec::with_capacity(self.values.len()));
        for ((value, node), start) in self.values.iter().zip(nodes).zip(starts) {
            let room = match (value.updates, node) {
                (Some(given), _) => Room::Given(given),
                (None, Some(_)) => Room::Output(outputs.len()),
                (None, None) => Room::Scratch(start),
            };
            values.push((room, value.extent));
            let Some(node) = node else { continue };
            outputs.push(match value.updates.map(|given| &all_given[given].0) {
                Some(Given::Input(input)) => Made::InPlace(*input),
                _ => Made::New(Rc::clone(node)),
            });
        }
        let (stages, arguments) = (self.stages, self.arguments);
        (Program { stages, arguments, given: all_given, values, scratch }, inputs, outputs)
    }
}
