//! One answer, shown while it is made.

use std::ops::ControlFlow;

use crate::context::Context;
use crate::engine::outcome::{Event, Generation};
use crate::engine::request::GenerateRequest;
use crate::engine::session::Engine;
use crate::error::{Error, Result};
use crate::output::progress::{Progress, Unit};
use crate::report::run::RunEvent;

/// Shorter prompts are computed before a progress bar could be read.
const WORTH_A_BAR: usize = 512;

/// What is shown of an answer while it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Its text.
    Text,
    /// Every event, as a line of JSON.
    Events,
    Nothing,
}

/// Generates an answer. The user's request to stop ends it early, with the text so far; when nobody
/// reads the output any more, that is the error.
pub fn answer(
    engine: &mut Engine,
    request: &GenerateRequest,
    show: Show,
    hide_thinking: bool,
    context: &Context,
) -> Result<Generation> {
    let mut screen =
        Screen { show, hide_thinking, context, bar: None, thinks: false, open_line: false, failure: None };
    let generation = engine.generate(request, &mut |event| {
        if let Err(error) = screen.event(event) {
            screen.failure = Some(error);
        }
        if screen.failure.is_some() || context.cancel.is_set() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    screen.bar = None;
    if let Some(failure) = screen.failure.take() {
        return Err(failure);
    }
    screen.end()?;
    generation
}

struct Screen<'a> {
    show: Show,
    context: &'a Context,
    /// Whether reasoning is not shown.
    hide_thinking: bool,
    bar: Option<Progress>,
    /// Whether reasoning was shown last.
    thinks: bool,
    /// Whether text was shown that did not end its line.
    open_line: bool,
    failure: Option<Error>,
}

impl Screen<'_> {
    fn event(&mut self, event: Event) -> Result<()> {
        if self.hide_thinking && matches!(event, Event::Reasoning(_)) {
            return Ok(());
        }
        match self.show {
            Show::Nothing => Ok(()),
            Show::Events => self.context.output.event(&RunEvent::from(event)),
            Show::Text => self.text(event),
        }
    }

    fn text(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Prompt { .. } => Ok(()),
            Event::Prefill { done, total } => {
                if total >= WORTH_A_BAR {
                    let bar = self.bar.get_or_insert_with(|| {
                        self.context.output.progress("reading the prompt", Some(total as u64), Unit::Items)
                    });
                    bar.set(done as u64);
                }
                Ok(())
            }
            Event::Reasoning(piece) => {
                self.bar = None;
                self.thinks = true;
                self.context.output.reasoning(&piece);
                Ok(())
            }
            Event::Text(piece) => {
                self.bar = None;
                if std::mem::take(&mut self.thinks) {
                    self.context.output.reasoning("\n\n");
                }
                if !piece.is_empty() {
                    self.open_line = !piece.ends_with('\n');
                }
                self.context.output.answer(&piece)
            }
        }
    }

    /// Ends the last line, so that a prompt or the next command's output begins its own.
    fn end(&mut self) -> Result<()> {
        if std::mem::take(&mut self.thinks) {
            self.context.output.reasoning("\n");
        }
        if self.open_line { self.context.output.stream("\n") } else { Ok(()) }
    }
}

impl From<Event> for RunEvent {
    fn from(event: Event) -> Self {
        match event {
            Event::Prompt { text, tokens, cached_tokens } => Self::Prompt { text, tokens, cached_tokens },
            Event::Prefill { done, total } => Self::Prefill { done, total },
            Event::Reasoning(text) => Self::Reasoning { text },
            Event::Text(text) => Self::Text { text },
        }
    }
}
