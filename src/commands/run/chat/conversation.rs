//! The state of a chat: what a typed line changes and asks for, without a terminal or a model.

use std::fmt::Write;

use super::command::{self, Command, HELP, Topic};
use super::input::Input;
use super::saved::SavedChat;
use crate::commands::run::inputs::Inputs;
use crate::commands::run::parameters::Parameters;
use crate::engine::outcome::{FinishReason, Generation};
use crate::engine::request::{GenerateRequest, Message, Prompt};
use crate::error::{Code, Error, Result};
use crate::report::run::SamplingReport;

/// What is to be done after a line.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Read the next line.
    Wait,
    /// Tell the user this, then read the next line.
    Say(String),
    /// Answer this message.
    Answer(String),
    /// Drop the engine's cache and tell the user this.
    Forget(String),
    /// Leave.
    Exit,
}

/// A conversation with a model.
#[derive(Debug)]
pub struct Conversation {
    /// The model's name, shown and saved.
    model: String,
    /// Most tokens that the whole conversation may have.
    context: usize,
    system: Option<String>,
    /// `user` and `assistant` in turn.
    messages: Vec<Message>,
    parameters: Parameters,
    /// What holds for every answer.
    inputs: Inputs,
    /// Sampling of the last answer and what it took.
    last: Option<Last>,
    generated_tokens: usize,
}

#[derive(Debug)]
struct Last {
    seed: u64,
    generation: Generation,
}

impl Conversation {
    pub fn new(model: String, context: usize, system: Option<String>, parameters: Parameters) -> Self {
        Self {
            model,
            context,
            system,
            messages: Vec::new(),
            parameters,
            inputs: Inputs::default(),
            last: None,
            generated_tokens: 0,
        }
    }

    /// With template variables and a format for every answer.
    pub fn with(self, inputs: Inputs) -> Self {
        Self { inputs, ..self }
    }

    /// Begins with turns that nobody has typed.
    pub fn beginning_with(self, messages: Vec<Message>) -> Self {
        Self { messages, ..self }
    }

    /// Takes what the user typed.
    pub fn take(&mut self, input: Input) -> Result<Action> {
        if !input.quoted && input.text.starts_with('/') {
            return self.obey(command::parse(&input.text)?);
        }
        if input.text.trim().is_empty() {
            return Ok(Action::Wait);
        }
        Ok(Action::Answer(input.text))
    }

    fn obey(&mut self, command: Command) -> Result<Action> {
        Ok(match command {
            Command::Help => Action::Say(HELP.to_owned()),
            Command::Exit => Action::Exit,
            Command::Clear => {
                self.messages.clear();
                Action::Forget("the conversation is forgotten".to_owned())
            }
            Command::System(text) => {
                let said = if text.is_some() { "system message set" } else { "system message removed" };
                self.system = text;
                Action::Say(said.to_owned())
            }
            Command::Set(name, value) => {
                self.parameters.set(&name, &value)?;
                Action::Say(format!("{name} set to {value}"))
            }
            Command::Show(topic) => Action::Say(self.show(topic)),
            Command::Save(path) => {
                SavedChat::of(&self.model, self.system.as_deref(), &self.parameters, &self.messages)
                    .write(&path)?;
                Action::Say(format!("saved to {}", path.display()))
            }
            Command::Load(path) => {
                let saved = SavedChat::read(&path)?;
                let mut said = format!("loaded {} messages from {}", saved.messages.len(), path.display());
                if saved.model != self.model {
                    let _ = write!(said, "; they are from another model, {}", saved.model);
                }
                self.messages = saved.turns();
                self.system = saved.system;
                self.parameters = saved.parameters;
                Action::Say(said)
            }
        })
    }

    /// The request for the answer to `message`, and the sampling with its seed.
    pub fn request(&self, message: &str) -> (GenerateRequest, SamplingReport) {
        let mut turns = Vec::with_capacity(self.messages.len() + 2);
        turns.extend(self.system.as_deref().map(|text| Message::new("system", text)));
        turns.extend(self.messages.iter().cloned());
        turns.push(Message::new("user", message));
        self.inputs.request(Prompt::Chat(turns), &self.parameters)
    }

    /// Remembers an answer, also one that the user stopped; a note for the user, if there is
    /// something to know.
    pub fn answered(&mut self, message: String, seed: u64, generation: Generation) -> Option<String> {
        let note = match generation.finish_reason {
            FinishReason::Length if self.parameters.max_tokens == Some(generation.usage.generated_tokens) => {
                Some(format!(
                    "stopped after {} tokens; /set max_tokens changes that",
                    generation.usage.generated_tokens
                ))
            }
            FinishReason::Length => Some(CONTEXT_FULL.to_owned()),
            FinishReason::Stop | FinishReason::Interrupted => None,
        };
        // An answer stopped before its first word would leave two user turns in a row, which many
        // templates refuse.
        if !(generation.finish_reason == FinishReason::Interrupted && generation.text.is_empty()) {
            self.messages.push(Message::new("user", message));
            self.messages.push(Message::new("assistant", generation.text.clone()));
        }
        self.generated_tokens += generation.usage.generated_tokens;
        self.last = Some(Last { seed, generation });
        note
    }

    fn show(&self, topic: Topic) -> String {
        match topic {
            Topic::Model => format!("model     {}\ncontext   {} tokens", self.model, self.context),
            Topic::System => format!("system    {}", self.system.as_deref().unwrap_or("none")),
            Topic::Parameters => {
                let rows: Vec<_> =
                    self.parameters.rows().iter().map(|(name, value)| format!("{name:<20}{value}")).collect();
                rows.join("\n")
            }
            Topic::Usage => self.usage(),
            Topic::All => [Topic::Model, Topic::System, Topic::Usage, Topic::Parameters]
                .map(|topic| self.show(topic))
                .join("\n"),
        }
    }

    fn usage(&self) -> String {
        let mut said =
            format!("turns     {}, {} tokens generated", self.messages.len() / 2, self.generated_tokens);
        if let Some(Last { seed, generation }) = &self.last {
            let usage = generation.usage;
            let _ = write!(
                said,
                "\nlast      {} prompt tokens ({} cached), {} generated at {:.1} tokens/s, seed {seed}",
                usage.prompt_tokens,
                usage.cached_tokens,
                usage.generated_tokens,
                generation.timings.generation_tokens_per_s,
            );
        }
        said
    }
}

const CONTEXT_FULL: &str = "the context is full: /clear forgets the conversation, and --context with a larger number keeps more of it";

/// Says what a chat can do about an error that a single run cannot.
pub fn advise(error: Error) -> Error {
    // A prompt that does not fit is the only error that tells its length: in a chat, that is the
    // conversation's.
    if error.code() == Code::InvalidRequest && error.details().contains_key("prompt_tokens") {
        return error.hint(CONTEXT_FULL);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::outcome::{Timings, Usage};

    fn chat() -> Conversation {
        Conversation::new("tiny".to_owned(), 256, None, Parameters::default())
    }

    fn typed(text: &str) -> Input {
        Input { text: text.to_owned(), quoted: false }
    }

    fn said(chat: &mut Conversation, line: &str) -> String {
        match chat.take(typed(line)).expect(line) {
            Action::Say(text) | Action::Forget(text) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn generation(text: &str, finish_reason: FinishReason, generated_tokens: usize) -> Generation {
        Generation {
            prompt: String::new(),
            text: text.to_owned(),
            reasoning: String::new(),
            tokens: vec![0; generated_tokens],
            logprobs: Vec::new(),
            finish_reason,
            usage: Usage { prompt_tokens: 9, cached_tokens: 4, generated_tokens, ..Usage::default() },
            timings: Timings::default(),
            peak_bytes: 1,
        }
    }

    fn turns(chat: &Conversation) -> Vec<(String, String)> {
        match chat.request("next").0.prompt {
            Prompt::Chat(turns) => turns.into_iter().map(|turn| (turn.role, turn.content)).collect(),
            Prompt::Raw(text) => panic!("{text}"),
        }
    }

    fn turn(role: &str, content: &str) -> (String, String) {
        (role.to_owned(), content.to_owned())
    }

    #[test]
    fn a_message_is_answered_and_a_blank_line_is_not() {
        let mut chat = chat();
        assert_eq!(chat.take(typed("Hi")).expect("asks"), Action::Answer("Hi".to_owned()));
        assert_eq!(chat.take(typed("  ")).expect("waits"), Action::Wait);
        assert_eq!(
            chat.take(typed(" /etc/passwd")).expect("asks"),
            Action::Answer(" /etc/passwd".to_owned())
        );
        let quoted = Input { text: "/exit".to_owned(), quoted: true };
        assert_eq!(chat.take(quoted).expect("asks"), Action::Answer("/exit".to_owned()));
        assert_eq!(chat.take(typed("/exit")).expect("leaves"), Action::Exit);
    }

    #[test]
    fn answers_become_turns_after_the_system_message() {
        let mut chat = chat();
        said(&mut chat, "/system Be brief.");
        chat.answered("Hi".to_owned(), 1, generation("Hello!", FinishReason::Stop, 2));
        assert_eq!(
            turns(&chat),
            [
                turn("system", "Be brief."),
                turn("user", "Hi"),
                turn("assistant", "Hello!"),
                turn("user", "next")
            ]
        );
        assert!(said(&mut chat, "/clear").contains("forgotten"));
        assert_eq!(turns(&chat), [turn("system", "Be brief."), turn("user", "next")]);
        said(&mut chat, "/system");
        assert_eq!(turns(&chat), [turn("user", "next")]);
    }

    #[test]
    fn a_stopped_answer_is_kept_as_far_as_it_came() {
        let mut chat = chat();
        chat.answered("Hi".to_owned(), 1, generation("Hel", FinishReason::Interrupted, 1));
        assert_eq!(turns(&chat).len(), 3);
        chat.answered("Hi".to_owned(), 1, generation("", FinishReason::Interrupted, 0));
        assert_eq!(turns(&chat).len(), 3);
    }

    #[test]
    fn the_reason_for_a_short_answer_is_told() {
        let mut chat = chat();
        let note = chat.answered("Hi".to_owned(), 1, generation("Hel", FinishReason::Length, 3));
        assert!(note.is_some_and(|note| note.contains("the context is full") && note.contains("/clear")));
        said(&mut chat, "/set max_tokens 3");
        let note = chat.answered("Hi".to_owned(), 1, generation("Hel", FinishReason::Length, 3));
        assert!(note.is_some_and(|note| note.contains("max_tokens")));
        assert_eq!(chat.answered("Hi".to_owned(), 1, generation("Hello", FinishReason::Stop, 3)), None);
    }

    #[test]
    fn set_changes_the_next_request_and_show_tells() {
        let mut chat = chat();
        said(&mut chat, "/set temp 0");
        said(&mut chat, "/set seed 42");
        said(&mut chat, "/set max_tokens 5");
        said(&mut chat, "/set stop END");
        let (request, sampling) = chat.request("Hi");
        assert_eq!(request.sampling.seed, 42);
        assert!(request.sampling.temperature.abs() < f32::EPSILON);
        assert_eq!(request.max_tokens, Some(5));
        assert_eq!(request.stop, ["END"]);
        assert_eq!(sampling.options.seed, 42);
        let shown = said(&mut chat, "/show");
        for told in [
            "tiny",
            "256 tokens",
            "seed                42",
            "temp                0",
            "\"END\"",
            "turns     0",
        ] {
            assert!(shown.contains(told), "{told} in {shown}");
        }
    }

    #[test]
    fn show_usage_tells_the_last_answer() {
        let mut chat = chat();
        chat.answered("Hi".to_owned(), 7, generation("Hello", FinishReason::Stop, 2));
        let shown = said(&mut chat, "/show usage");
        assert!(
            shown.contains("9 prompt tokens (4 cached), 2 generated") && shown.contains("seed 7"),
            "{shown}"
        );
    }

    #[test]
    fn a_bad_command_changes_nothing() {
        let mut chat = chat();
        for line in ["/set temp hot", "/nonsense", "/load", "/load /no/such/file"] {
            assert!(chat.take(typed(line)).is_err(), "{line}");
        }
        assert_eq!(turns(&chat), [turn("user", "next")]);
    }

    #[test]
    fn a_saved_conversation_comes_back_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("chat.json");
        let mut before = chat();
        said(&mut before, "/system Be brief.");
        said(&mut before, "/set temp 0.25");
        before.answered("Hi".to_owned(), 1, generation("Hello!", FinishReason::Stop, 2));
        said(&mut before, &format!("/save {}", path.display()));

        let mut after = Conversation::new("other".to_owned(), 256, None, Parameters::default());
        let told = said(&mut after, &format!("/load {}", path.display()));
        assert!(told.contains("2 messages") && told.contains("another model, tiny"), "{told}");
        assert_eq!(turns(&after), turns(&before));
        assert_eq!(after.parameters, before.parameters);
    }
}
