//! A loaded model: one dedicated thread owns every MLX value, callers talk to it by messages.

use std::ops::ControlFlow;
use std::path::Path;

use crate::engine::outcome::{Event, Generation};
use crate::engine::request::{GenerateRequest, LoadOptions};
use crate::error::{Error, Result};

/// A loaded model, ready to generate. Keeps the cache of the last conversation: a prompt that
/// begins with the same tokens is only computed from where it differs.
pub struct Engine {
    load_seconds: f64,
}

impl Engine {
    /// Loads the model at `path` (a folder or a .gguf file). `progress` gets (done, total) bytes.
    pub fn load(path: &Path, options: &LoadOptions, progress: &mut dyn FnMut(u64, u64)) -> Result<Self> {
        let _ = (path, options, progress);
        Err(Error::internal("the engine is under construction"))
    }

    /// Seconds that loading took.
    pub fn load_seconds(&self) -> f64 {
        self.load_seconds
    }

    /// Generates an answer. `on_event` sees text as it comes; `Break` ends generation with
    /// [`FinishReason::Interrupted`](crate::engine::outcome::FinishReason::Interrupted) and keeps what was computed.
    pub fn generate(
        &mut self,
        request: &GenerateRequest,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Generation> {
        let _ = (request, on_event);
        Err(Error::internal("the engine is under construction"))
    }

    /// Forgets the cached conversation.
    pub fn clear(&mut self) {}
}
