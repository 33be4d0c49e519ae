//! A step of a model that is had again, for what comes one place later, without building it anew.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use super::chain::{Closing, UPDATED, lost};
use super::cpu_op::{OutputSpec, check, is_settled, operation};
use super::program::Program;
use super::tensor::{Tensor, Update};

/// An operation that makes one result of a fresh array and of memory that it updates, each time for the place after
/// the last.
///
/// Kernels say by [`Buffers::later`](super::Buffers::later) what a place changes for them. Everything else is what it
/// was when the operation was recorded: whoever has it must let go of it when anything else has changed.
pub struct Repeat {
    program: Arc<Program>,
    /// How often it was had again.
    later: usize,
    fresh: Form,
    made: Form,
    /// That of the last time, which all who have the memory know, too.
    update: Rc<Update>,
}

/// Shape and type.
type Form = (Box<[i32]>, Dtype);

impl Repeat {
    /// Makes the chain of `result` an operation, if it can be had again: if the chain takes nothing from outside but
    /// one fresh array and what is computed, makes nothing else that anybody has, and updates all of `updated` and
    /// nothing else. Where it is not so, nothing is done.
    ///
    /// # Errors
    /// MLX refuses the operation.
    pub fn of<'a>(
        result: &Tensor,
        updated: impl IntoIterator<Item = &'a Tensor>,
    ) -> Result<Option<Self>, Exception> {
        let Some((chain, value)) = result.pending() else { return Ok(None) };
        let mut count = 0;
        for tensor in updated {
            match tensor.pending() {
                Some((other, _)) if Rc::ptr_eq(&other, &chain) => count += 1,
                _ => return Ok(None),
            }
        }
        let wanted = chain.borrow().wanted();
        let Some(index) = chain.borrow().repeats(&wanted, value, count) else { return Ok(None) };
        let closing = chain.take().program(&wanted, &[index]);
        let Closing { inputs, made, .. } = &closing;
        let ([fresh, ..], [made]) = (inputs.as_slice(), made.as_slice()) else { return Err(lost()) };
        let fresh = (fresh.shape().into(), fresh.dtype());
        let made = (made.shape().into(), made.dtype());
        let (program, update) = closing.operation()?;
        Ok(update.map(|update| Self { program, later: 0, fresh, made, update }))
    }

    /// The result for the next place; `None` for an array of another form than the first time.
    ///
    /// # Errors
    /// MLX refuses the operation, or a kernel has failed, see [`check`].
    pub fn next(&mut self, fresh: &Array) -> Result<Option<Array>, Exception> {
        check()?;
        if *fresh.shape() != *self.fresh.0 || fresh.dtype() != self.fresh.1 {
            return Ok(None);
        }
        let before = self.update.borrow().clone();
        let inputs = [fresh, &before];
        let inputs = if is_settled(&before) { &inputs[..1] } else { &inputs };
        let result = OutputSpec::New { shape: &self.made.0, dtype: self.made.1 };
        let made = operation(Arc::clone(&self.program), self.later + 1, inputs, &[result, UPDATED])?;
        let Ok([result, update]) = <[Array; 2]>::try_from(made) else { return Err(lost()) };
        self.later += 1;
        *self.update.borrow_mut() = update;
        Ok(Some(result))
    }
}

impl fmt::Debug for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repeat").field("later", &self.later).finish_non_exhaustive()
    }
}
