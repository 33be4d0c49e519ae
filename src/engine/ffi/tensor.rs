//! What layers compute with.

#[cfg(target_os = "linux")]
use std::cell::{Ref, RefCell};
#[cfg(target_os = "linux")]
use std::fmt;
#[cfg(target_os = "linux")]
use std::rc::Rc;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

#[cfg(target_os = "linux")]
use super::chain::{Chain, close, lost, updated};
#[cfg(target_os = "linux")]
use super::region::Region;

/// Rows of numbers on their way through a model: arrays, or tensors, which the kernels gather into
/// operations of several.
pub trait Operand: Clone + From<Array> {
    /// As an array of MLX's graph.
    ///
    /// # Errors
    /// MLX refuses the operation that it comes from.
    fn array(&self) -> Result<Array, Exception>;

    fn shape(&self) -> &[i32];

    fn dtype(&self) -> Dtype;

    /// What a kernel reads.
    #[cfg(target_os = "linux")]
    fn input(&self) -> Input<'_>;

    /// From what a kernel makes.
    ///
    /// # Errors
    /// As [`array`](Self::array).
    #[cfg(target_os = "linux")]
    fn of(tensor: Tensor) -> Result<Self, Exception>;
}

impl Operand for Array {
    fn array(&self) -> Result<Array, Exception> {
        Ok(self.clone())
    }

    fn shape(&self) -> &[i32] {
        Self::shape(self)
    }

    fn dtype(&self) -> Dtype {
        Self::dtype(self)
    }

    #[cfg(target_os = "linux")]
    fn input(&self) -> Input<'_> {
        Input::Array(self)
    }

    #[cfg(target_os = "linux")]
    fn of(tensor: Tensor) -> Result<Self, Exception> {
        tensor.array()
    }
}

/// An input of a kernel.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy)]
pub enum Input<'a> {
    Array(&'a Array),
    /// One that is another each time, where all else of a step is as it was: see [`Repeat`](super::Repeat).
    Fresh(&'a Array),
    Tensor(&'a Tensor),
    /// Bytes that are no array's.
    Region(&'a Region),
}

#[cfg(target_os = "linux")]
impl<'a> From<&'a Array> for Input<'a> {
    fn from(array: &'a Array) -> Self {
        Self::Array(array)
    }
}

/// An array, or what a kernel of a chain that is not yet an operation will make. Bound to its thread.
#[cfg(target_os = "linux")]
#[derive(Clone)]
pub struct Tensor(Rc<Node>);

/// What all handles of a tensor share.
#[cfg(target_os = "linux")]
pub(super) struct Node {
    shape: Box<[i32]>,
    dtype: Dtype,
    state: RefCell<State>,
}

/// What tells of an operation that updates memory in place, a byte that it makes: who reads or updates the memory
/// later waits for it. It is that of the last such operation where several do the same.
#[cfg(target_os = "linux")]
pub(super) type Update = RefCell<Array>;

#[cfg(target_os = "linux")]
pub(super) enum State {
    Array(Array),
    /// Memory that is computed, and how it is updated. Nobody may look at it but an operation that waits for that.
    Updated(Array, Rc<Update>),
    /// The value of this index in a chain.
    Pending(Rc<RefCell<Chain>>, usize),
    /// Its operation could not be made.
    Lost,
}

#[cfg(target_os = "linux")]
impl Node {
    pub(super) fn new(shape: &[i32], dtype: Dtype) -> Rc<Self> {
        Rc::new(Self { shape: shape.into(), dtype, state: RefCell::new(State::Lost) })
    }

    pub(super) fn shape(&self) -> &[i32] {
        &self.shape
    }

    pub(super) fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The chain has become an operation, or not.
    pub(super) fn settle(&self, state: State) {
        *self.state.borrow_mut() = state;
    }
}

#[cfg(target_os = "linux")]
impl Tensor {
    pub(super) fn pending_in(node: Rc<Node>, chain: &Rc<RefCell<Chain>>, value: usize) -> Self {
        *node.state.borrow_mut() = State::Pending(Rc::clone(chain), value);
        Self(node)
    }

    /// The chain, and which of its values this is.
    pub(super) fn pending(&self) -> Option<(Rc<RefCell<Chain>>, usize)> {
        match &*self.0.state.borrow() {
            State::Pending(chain, value) => Some((Rc::clone(chain), *value)),
            State::Array(_) | State::Updated(..) | State::Lost => None,
        }
    }

    pub(super) fn state(&self) -> Ref<'_, State> {
        self.0.state.borrow()
    }
}

#[cfg(target_os = "linux")]
impl Operand for Tensor {
    fn array(&self) -> Result<Array, Exception> {
        if let Some((chain, _)) = self.pending() {
            close(&chain)?;
        }
        match &*self.0.state.borrow() {
            State::Array(array) => Ok(array.clone()),
            State::Updated(memory, update) => updated(memory, update),
            State::Pending(..) | State::Lost => Err(lost()),
        }
    }

    fn shape(&self) -> &[i32] {
        &self.0.shape
    }

    fn dtype(&self) -> Dtype {
        self.0.dtype
    }

    fn input(&self) -> Input<'_> {
        Input::Tensor(self)
    }

    fn of(tensor: Tensor) -> Result<Self, Exception> {
        Ok(tensor)
    }
}

#[cfg(target_os = "linux")]
impl From<Array> for Tensor {
    fn from(array: Array) -> Self {
        let (shape, dtype) = (array.shape().into(), array.dtype());
        Self(Rc::new(Node { shape, dtype, state: RefCell::new(State::Array(array)) }))
    }
}

#[cfg(target_os = "linux")]
impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tensor")
            .field("shape", &self.0.shape)
            .field("dtype", &self.0.dtype)
            .finish_non_exhaustive()
    }
}

/// An array: elsewhere than on Linux there are no kernels whose results could wait.
#[cfg(not(target_os = "linux"))]
#[derive(Debug, Clone)]
pub struct Tensor(Array);

#[cfg(not(target_os = "linux"))]
impl From<Array> for Tensor {
    fn from(array: Array) -> Self {
        Self(array)
    }
}

#[cfg(not(target_os = "linux"))]
impl Operand for Tensor {
    fn array(&self) -> Result<Array, Exception> {
        Ok(self.0.clone())
    }

    fn shape(&self) -> &[i32] {
        self.0.shape()
    }

    fn dtype(&self) -> Dtype {
        self.0.dtype()
    }
}

/// A step that could be had again: there are none.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub enum Repeat {}

#[cfg(not(target_os = "linux"))]
impl Repeat {
    pub fn of<'a>(_: &Tensor, _: impl IntoIterator<Item = &'a Tensor>) -> Result<Option<Self>, Exception> {
        Ok(None)
    }

    pub fn next(&mut self, _: &Array) -> Result<Option<Array>, Exception> {
        match *self {}
    }
}
