//! The chat of `run`: a conversation on the terminal.

mod command;
mod conversation;
mod input;
pub mod saved;
mod terminal;

use jiff::Timestamp;

use self::conversation::{Action, Conversation, advise};
use self::input::{Collector, Input};
use self::terminal::{Line, Terminal};
use super::answer::{Show, answer};
use super::inputs::Inputs;
use super::loaded::Loaded;
use super::parameters::Parameters;
use crate::context::Context;
use crate::engine::outcome::Generation;
use crate::engine::request::Message;
use crate::error::{Code, Result};
use crate::output::run::figures;

/// The file in the store that keeps what was typed.
const HISTORY: &str = "chat_history";

/// What the answers of a chat took together.
#[derive(Debug, Default)]
pub struct Tally {
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    pub generated_tokens: usize,
    /// Of the first answer.
    pub ttft_s: f64,
    pub total_s: f64,
}

impl Tally {
    pub fn add(&mut self, generation: &Generation) {
        if self.prompt_tokens == 0 {
            self.ttft_s = generation.timings.ttft_s;
        }
        self.prompt_tokens += generation.usage.prompt_tokens;
        self.cached_tokens += generation.usage.cached_tokens;
        self.generated_tokens += generation.usage.generated_tokens;
        self.total_s += generation.timings.total_s;
    }
}

/// Talks with the user until they leave; `turns` come before the first.
pub fn run(
    loaded: &mut Loaded<'_>,
    system: Option<String>,
    turns: Vec<Message>,
    parameters: Parameters,
    inputs: Inputs,
    context: &Context,
) -> Result<()> {
    let hide_thinking = inputs.hide_thinking;
    let started_at = Timestamp::now();
    let mut chat = Chat {
        conversation: Conversation::new(
            loaded.model.reference.clone(),
            loaded.engine.policy().context,
            system,
            parameters,
        )
        .beginning_with(turns)
        .with(inputs),
        hide_thinking,
        tally: Tally::default(),
        loaded,
        context,
    };
    let ended = chat.talk();
    if chat.tally.prompt_tokens > 0 {
        chat.loaded.record(started_at, &chat.tally, context);
    }
    ended
}

struct Chat<'a, 'b> {
    conversation: Conversation,
    hide_thinking: bool,
    tally: Tally,
    loaded: &'a mut Loaded<'b>,
    context: &'a Context,
}

impl Chat<'_, '_> {
    fn talk(&mut self) -> Result<()> {
        // A model that lies outside any store is no reason to make one.
        let home = Some(&self.context.settings.home.value).filter(|home| home.is_dir());
        let mut terminal = Terminal::new(home.map(|home| home.join(HISTORY)), &self.context.cancel)?;
        let mut collector = Collector::default();
        let mut interrupted = false;
        self.say("/help lists the commands, Ctrl-D leaves")?;
        loop {
            let prompt = if collector.is_open() { "... " } else { ">>> " };
            let line = match terminal.read(prompt) {
                Ok(line) => line,
                Err(error) if error.code() == Code::InvalidRequest => {
                    self.context.output.error(None, &error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let text = match line {
                Line::Text(text) => text,
                Line::Interrupt => {
                    if interrupted && !collector.is_open() {
                        self.say("Ctrl-D or /bye leaves")?;
                    }
                    interrupted = true;
                    collector.reset();
                    continue;
                }
                Line::End => return Ok(()),
            };
            interrupted = false;
            let Some(input) = collector.push(&text) else { continue };
            if let Err(error) = terminal.remember(&input.text) {
                self.context.output.warn(error.message());
            }
            if self.take(input)?.is_break() {
                return Ok(());
            }
        }
    }

    /// Does what the user typed. What fails is told and leaves the chat as it was, unless nobody
    /// reads any more.
    fn take(&mut self, input: Input) -> Result<std::ops::ControlFlow<()>> {
        use std::ops::ControlFlow::{Break, Continue};
        match self.conversation.take(input) {
            Ok(Action::Exit) => return Ok(Break(())),
            Ok(Action::Wait) => {}
            Ok(Action::Say(text)) => self.say(&text)?,
            Ok(Action::Forget(text)) => {
                self.loaded.engine.clear()?;
                self.say(&text)?;
            }
            Ok(Action::Answer(message)) => self.answer(message)?,
            Err(error) => {
                self.context.output.error(None, &error);
            }
        }
        Ok(Continue(()))
    }

    fn answer(&mut self, message: String) -> Result<()> {
        let (request, sampling) = self.conversation.request(&message);
        let generation =
            answer(&mut self.loaded.engine, &request, Show::Text, self.hide_thinking, self.context);
        // Ctrl-C has stopped this answer; the next one is not to be stopped by it.
        self.context.cancel.reset();
        let generation = match generation {
            Ok(generation) => generation,
            Err(error) if self.context.output.is_reader_gone() => return Err(error),
            Err(error) => {
                self.context.output.error(None, &advise(error));
                return Ok(());
            }
        };
        self.tally.add(&generation);
        if self.context.output.is_verbose() {
            let report = self.loaded.report(message.clone(), &generation, sampling.clone());
            self.context.output.detail(figures(&report));
        }
        match self.conversation.answered(message, sampling.options.seed, generation) {
            Some(note) => self.say(&note),
            None => self.say(""),
        }
    }

    fn say(&self, text: &str) -> Result<()> {
        self.context.output.stream(&format!("{text}\n"))
    }
}
