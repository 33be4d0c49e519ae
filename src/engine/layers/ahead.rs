//! How far ahead of the CPU's thread operations are handed to it.

use mlx_rs::{Array, transforms};

use super::Backend;
use crate::error::Result;

/// Layers whose results may be in memory at once while many tokens are computed by the kernels.
pub const LAYERS_AHEAD: usize = 4;
/// Steps in which a sequence has so many tokens are computed a few layers at a time ...
const LONG: usize = 16;
/// ... so many, while as many before them are under way. MLX makes room for every result when it hands an
/// operation to the CPU's thread, and runs far ahead of a thread that has much to compute: twenty layers and
/// more, all of whose results would be in memory at once.
const LAYERS_AT_ONCE: usize = LAYERS_AHEAD / 2;

/// Starts the layers of one step a few at a time.
pub struct Ahead {
    /// Layers of the step; none where MLX is to go ahead as it likes.
    layers: usize,
    done: usize,
    started: Option<Array>,
}

impl Ahead {
    /// For a step of so many layers, in which no sequence has more than `tokens` tokens.
    pub fn new(backend: Backend, tokens: usize, layers: usize) -> Self {
        let in_parts = backend == Backend::Kernels && tokens >= LONG;
        Self { layers: if in_parts { layers } else { 0 }, done: 0, started: None }
    }

    /// The next layer gives what `x` makes, where it is wanted.
    pub fn layer(&mut self, x: impl FnOnce() -> Result<Array>) -> Result<()> {
        self.done += 1;
        // Not behind the last one, whose result nobody wants where the step only fills the caches.
        if self.done.is_multiple_of(LAYERS_AT_ONCE) && self.done < self.layers {
            let x = x()?;
            transforms::async_eval([&x])?;
            if let Some(before) = self.started.replace(x) {
                before.eval()?;
            }
        }
        Ok(())
    }
}
