//! Chat templates: Jinja as Hugging Face's transformers runs it.

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value};
use serde_json::Map;

use super::config::{TokenizerConfig, read_object, read_text};
use super::{generation, python};
use crate::engine::format::metadata::Metadata;
use crate::engine::request::Message;
use crate::error::{Code, Error, Result};

/// Instructions a rendering may take: seconds. A conversation of a thousand turns takes some 100,000.
const FUEL: u64 = 20_000_000;

/// No template that is known has more than a hundredth of this.
const MAX_TEMPLATE_BYTES: u64 = 16 << 20;

const NAME: &str = "chat";

/// A model's template, compiled.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    special_tokens: Map<String, serde_json::Value>,
}

/// What a template said with `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

impl ChatTemplate {
    /// Compiles a template. `special_tokens` become variables: see
    /// [`Tokenizer::special_tokens`](super::Tokenizer::special_tokens).
    ///
    /// # Errors
    /// `MODEL_UNSUPPORTED` when it is no template that can be understood.
    pub fn new(source: &str, special_tokens: Map<String, serde_json::Value>) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| failure(&error))?);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(python::method);
        environment.set_formatter(|out, _, value| Ok(out.write_str(&python::display(value))?));
        environment.add_filter("tojson", python::to_json);
        environment.add_filter("string", |value: &Value| python::display(value));
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message.clone())
                .with_source(Raised(message)))
        });
        environment.add_function("strftime_now", strftime_now);
        // Jinja reads every kind of line end as one.
        let text = source.replace("\r\n", "\n").replace('\r', "\n");
        environment
            .add_template_owned(NAME, generation::rename_tags(&text))
            .map_err(|error| failure(&error))?;
        Ok(Self { environment, source: source.to_owned(), special_tokens })
    }

    /// The template of a model's folder: `chat_template.jinja`, else the one in
    /// `tokenizer_config.json`, else `chat_template.json`. `None` where there is none.
    ///
    /// # Errors
    /// As [`new`](Self::new), and `INTEGRITY_FAILED` when a file is damaged.
    pub fn from_directory(
        directory: &Path,
        special_tokens: &Map<String, serde_json::Value>,
    ) -> Result<Option<Self>> {
        let source = source_in_directory(directory)?;
        source.map(|source| Self::new(&source, special_tokens.clone())).transpose()
    }

    /// The template in a GGUF file's metadata.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_gguf(
        metadata: &Metadata,
        special_tokens: &Map<String, serde_json::Value>,
    ) -> Result<Option<Self>> {
        let source = metadata.text("tokenizer.chat_template");
        source.map(|source| Self::new(source, special_tokens.clone())).transpose()
    }

    /// The template's own text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt for a conversation. `add_generation_prompt` begins the model's turn.
    ///
    /// # Errors
    /// `INVALID_REQUEST` with the template's own words when it refuses the conversation,
    /// `MODEL_UNSUPPORTED` when it fails or does not come to an end.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let mut variables: BTreeMap<&str, Value> =
            self.special_tokens.iter().map(|(role, token)| (role.as_str(), token_value(token))).collect();
        let turn = |message: &Message| {
            Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())])
        };
        variables.insert("messages", messages.iter().map(turn).collect());
        variables.insert("add_generation_prompt", add_generation_prompt.into());
        // Templates ask whether these are none, not whether they are defined.
        variables.insert("tools", ().into());
        variables.insert("documents", ().into());
        let rendered = self.environment.get_template(NAME).and_then(|template| template.render(variables));
        rendered.map_err(|error| failure(&error))
    }
}

/// A token's text, or a list of them.
fn token_value(token: &serde_json::Value) -> Value {
    match token {
        serde_json::Value::Array(tokens) => tokens.iter().map(token_value).collect(),
        token => Value::from(token.as_str().unwrap_or_default()),
    }
}

/// The text of a folder's chat template, by the order of [`ChatTemplate::from_directory`].
pub fn source_in_directory(directory: &Path) -> Result<Option<String>> {
    if let Some(text) = read_text(&directory.join("chat_template.jinja"), MAX_TEMPLATE_BYTES)? {
        return Ok(Some(text));
    }
    if let Some(text) = TokenizerConfig::read(directory)?.chat_template()? {
        return Ok(Some(text.to_owned()));
    }
    let object = read_object(&directory.join("chat_template.json"))?;
    Ok(object.and_then(|object| Some(object.get("chat_template")?.as_str()?.to_owned())))
}

/// The local date and time by a format of Python's `strftime`.
fn strftime_now(format: &str) -> Result<String, minijinja::Error> {
    jiff::fmt::strtime::format(format, &jiff::Zoned::now()).map_err(|error| {
        minijinja::Error::new(ErrorKind::InvalidOperation, "strftime_now cannot use this format")
            .with_source(error)
    })
}

fn failure(error: &minijinja::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return Error::new(
                Code::InvalidRequest,
                format!("the model's chat template refuses the conversation: {message}"),
            )
            .hint("change the turns as it says (not every model takes a system prompt), or use --raw");
        }
        cause = current.source();
    }
    let line = error.line().map_or(String::new(), |line| format!(" in line {line}"));
    let reason = match error.kind() {
        ErrorKind::OutOfFuel => "it does not come to an end".to_owned(),
        kind => match error.detail() {
            Some(detail) => format!("{kind}: {detail}"),
            None => kind.to_string(),
        },
    };
    Error::new(Code::ModelUnsupported, format!("the model's chat template cannot be used: {reason}{line}"))
        .hint("use --raw to give the prompt without the template")
}
