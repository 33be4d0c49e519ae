//! Chat templates: Jinja as Hugging Face's transformers runs it.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value};
use serde_json::Map;

use super::config::{TokenizerConfig, read_object, read_text};
use super::{generation, python};
use crate::engine::format::metadata::Metadata;
use crate::engine::request::{Message, TemplateArguments};
use crate::error::{Code, Error, Result};

/// Instructions a rendering may take. Templates take about a hundred for each turn.
const FUEL: u64 = 500_000;

/// Known templates have at most a few ten thousand bytes.
const MAX_TEMPLATE_BYTES: u64 = 256 << 10;

/// Stack for each byte that is compiled and each instruction that is run: either may nest syntax or
/// values one level deeper, and both are taken down level by level. Measured: at most 800 bytes.
const STACK_PER_LEVEL: u64 = 1 << 10;

const NAME: &str = "chat";

/// The variables by which templates turn reasoning on and off.
const THINKING: [&str; 2] = ["enable_thinking", "thinking"];

/// The variable by which templates of Seed-OSS do: so many tokens of reasoning.
const BUDGET: &str = "thinking_budget";

/// A model's template. It is compiled when it renders, in a tenth of a millisecond: a model whose
/// template is broken can still be used without it.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    special_tokens: Map<String, serde_json::Value>,
}

/// What a template said with `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

impl ChatTemplate {
    /// `special_tokens` become variables: see
    /// [`Tokenizer::special_tokens`](super::Tokenizer::special_tokens).
    pub fn new(source: String, special_tokens: Map<String, serde_json::Value>) -> Self {
        Self { source, special_tokens }
    }

    /// The template of a model's folder: `chat_template.jinja`, else the one in
    /// `tokenizer_config.json`, else `chat_template.json`. `None` where there is none.
    ///
    /// # Errors
    /// `INTEGRITY_FAILED` when one of these files is damaged.
    pub fn from_directory(
        directory: &Path,
        special_tokens: &Map<String, serde_json::Value>,
    ) -> Result<Option<Self>> {
        let source = source_in_directory(directory)?;
        Ok(source.map(|source| Self::new(source, special_tokens.clone())))
    }

    /// The template in a GGUF file's metadata.
    pub fn from_gguf(metadata: &Metadata, special_tokens: &Map<String, serde_json::Value>) -> Option<Self> {
        let source = metadata.text("tokenizer.chat_template")?;
        Some(Self::new(source.to_owned(), special_tokens.clone()))
    }

    /// The template's own text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The variables that stand for a caller's arguments.
    fn given(&self, arguments: &TemplateArguments) -> Result<Map<String, serde_json::Value>> {
        let mut given = Map::new();
        if let Some(tools) = &arguments.tools {
            if !has_word(&self.source, "tools") {
                return Err(lacking("knows no tools"));
            }
            given.insert("tools".to_owned(), tools.clone().into());
        }
        if let Some(think) = arguments.think {
            let names = THINKING.iter().filter(|name| has_word(&self.source, name));
            given.extend(names.map(|name| ((*name).to_owned(), think.into())));
            if has_word(&self.source, BUDGET) {
                // Without a budget such a template lets the model think as long as it likes.
                given.extend((!think).then(|| (BUDGET.to_owned(), 0.into())));
            } else if !given.keys().any(|name| name != "tools") {
                return Err(lacking("has no switch for reasoning"));
            }
        }
        for (name, value) in &arguments.values {
            if !has_word(&self.source, name) {
                return Err(lacking(&format!("has no variable {name:?}")));
            }
            given.insert(name.clone(), value.clone());
        }
        Ok(given)
    }

    /// The prompt for a conversation. `add_generation_prompt` begins the model's turn.
    ///
    /// # Errors
    /// `INVALID_REQUEST` with the template's own words when it refuses the conversation,
    /// `MODEL_UNSUPPORTED` when it cannot be understood, fails or does not come to an end.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.render_with(messages, add_generation_prompt, &TemplateArguments::default())
    }

    /// The same, with variables of the caller's.
    ///
    /// # Errors
    /// Also `CAPABILITY_MISSING` when the template has no such variable.
    pub fn render_with(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        arguments: &TemplateArguments,
    ) -> Result<String> {
        let given = self.given(arguments)?;
        if self.source.len() as u64 > MAX_TEMPLATE_BYTES {
            return Err(unsupported("it is larger than any template should be"));
        }
        // Jinja reads every kind of line end as one.
        let text = generation::rename_tags(&self.source.replace("\r\n", "\n").replace('\r', "\n"));
        let turn = |message: &Message| {
            Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())])
        };
        let render = || {
            let mut variables: BTreeMap<&str, Value> =
                self.special_tokens.iter().map(|(role, token)| (role.as_str(), token_value(token))).collect();
            variables.insert("messages", messages.iter().map(turn).collect());
            variables.insert("add_generation_prompt", add_generation_prompt.into());
            // Templates ask whether these are none, not whether they are defined.
            variables.insert("tools", ().into());
            variables.insert("documents", ().into());
            variables.extend(given.iter().map(|(name, value)| (name.as_str(), json_value(value))));
            let mut environment = environment()?;
            environment.add_template(NAME, &text)?;
            environment.get_template(NAME)?.render(variables)
        };
        on_deep_stack(FUEL.max(text.len() as u64), render)?.map_err(|error| failure(&error))
    }
}

/// Whether a template has a word, as a variable or otherwise.
fn has_word(source: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    source
        .match_indices(word)
        .any(|(at, _)| !source[..at].ends_with(inside) && !source[at + word.len()..].starts_with(inside))
}

fn lacking(what: &str) -> Error {
    Error::new(Code::CapabilityMissing, format!("the model's chat template {what}"))
        .hint("leave the flag out, or take a model whose template knows it")
}

/// Jinja with the settings and extensions of transformers.
fn environment<'source>() -> Result<Environment<'source>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(python::method);
    environment.add_filter("tojson", python::to_json);
    environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
        let error = minijinja::Error::new(ErrorKind::InvalidOperation, message.clone());
        Err(error.with_source(Raised(message)))
    });
    environment.add_function("strftime_now", strftime_now);
    // Its output grows with the square of a value's depth.
    environment.remove_filter("pprint");
    Ok(environment)
}

/// Runs code of minijinja with a stack for so many nested levels. It is only reserved, not taken.
fn on_deep_stack<T: Send>(levels: u64, run: impl FnOnce() -> T + Send) -> Result<T> {
    let bytes = (8 << 20) + levels * STACK_PER_LEVEL;
    thread::scope(|scope| {
        let worker = thread::Builder::new().stack_size(bytes as usize).spawn_scoped(scope, run);
        let worker = worker.map_err(|error| {
            Error::new(
                Code::InsufficientMemory,
                format!("cannot start a thread for the chat template: {error}"),
            )
            .hint("raise the limit on memory or threads")
        })?;
        worker.join().map_err(|_| unsupported("the template library fails on it"))
    })
}

/// A token's text, or a list of them.
fn token_value(token: &serde_json::Value) -> Value {
    match token {
        serde_json::Value::Array(tokens) => tokens.iter().map(token_value).collect(),
        token => Value::from(token.as_str().unwrap_or_default()),
    }
}

/// A JSON value as templates see it. Values that were read are nested 128 deep at most.
fn json_value(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => ().into(),
        serde_json::Value::Bool(value) => (*value).into(),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        serde_json::Value::String(text) => text.as_str().into(),
        serde_json::Value::Array(values) => values.iter().map(json_value).collect(),
        serde_json::Value::Object(values) => {
            Value::from_pairs(values.iter().map(|(name, value)| (name.as_str(), json_value(value))))
        }
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
    unsupported(&format!("{reason}{line}"))
}

fn unsupported(reason: &str) -> Error {
    Error::new(Code::ModelUnsupported, format!("the model's chat template cannot be used: {reason}"))
        .hint("use --raw to give the prompt without the template")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn fixture(name: &str) -> String {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/chat").join(name)).unwrap()
    }

    fn rendered(source: &str) -> Result<String> {
        ChatTemplate::new(source.to_owned(), Map::new()).render(&[Message::new("user", "hi")], true)
    }

    #[test]
    fn renderings_are_those_of_jinja2_with_the_settings_of_transformers() {
        let golden: serde_json::Value = serde_json::from_str(&fixture("golden.json")).unwrap();
        let special_tokens = golden["special_tokens"].as_object().unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() > 100);
        for case in cases {
            let source = fixture(case["template"].as_str().unwrap());
            let template = ChatTemplate::new(source, special_tokens.clone());
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
            let outcome = template.render(&messages, case["add_generation_prompt"].as_bool().unwrap());
            let name = format!("{} with {}", case["template"], case["conversation"]);
            if let Some(expected) = case["rendered"].as_str() {
                assert_eq!(outcome.unwrap(), expected, "{name}");
            } else {
                let error = outcome.unwrap_err();
                assert_eq!(error.code(), Code::InvalidRequest, "{name}");
                assert!(error.message().ends_with(case["refused"].as_str().unwrap()), "{name}: {error}");
            }
        }
    }

    #[test]
    fn what_only_transformers_has_is_there() {
        assert_eq!(
            rendered("{{ strftime_now('%Y-%m-%d') }}").unwrap(),
            jiff::Zoned::now().strftime("%Y-%m-%d").to_string()
        );
        assert_eq!(rendered("{{ {'a': 1} | tojson(false, 1) }}").unwrap(), "{\n \"a\": 1\n}");
        assert_eq!(rendered("{% if tools is none and documents is none %}none{% endif %}").unwrap(), "none");
        assert_eq!(rendered("a\r\nb{% if true %}\r\nc{% endif %}").unwrap(), "a\nbc");
    }

    #[test]
    fn a_broken_template_is_unsupported_and_says_where() {
        for source in
            ["{% if %}", "{{ 'x", "{% for m in messages %}", "{% nonsense %}", "a\n{{ messages | nofilter }}"]
        {
            let error = rendered(source).unwrap_err();
            assert_eq!(error.code(), Code::ModelUnsupported, "{source}");
            assert!(error.message().contains("line"), "{source}: {error}");
        }
        for source in [
            "{{ nothing() }}",
            "{{ messages.nomethod() }}",
            "{{ missing.attribute }}",
            "{{ strftime_now('%!') }}",
        ] {
            assert_eq!(rendered(source).unwrap_err().code(), Code::ModelUnsupported, "{source}");
        }
    }

    #[test]
    fn hostile_templates_come_to_an_end() {
        for source in [
            "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{{ 'a' * 999999999999 }}",
            "{% set ns = namespace(x=[]) %}{% for a in range(200) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}",
            "{% include 'chat' %}",
            "{% extends 'chat' %}",
        ] {
            assert_eq!(rendered(source).unwrap_err().code(), Code::ModelUnsupported, "{source}");
        }
        let nested = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
        assert_eq!(rendered(&nested).unwrap_err().code(), Code::ModelUnsupported);
        let large = " ".repeat(1 << 20);
        assert_eq!(rendered(&large).unwrap_err().code(), Code::ModelUnsupported);
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        let deep = |repeated: &str| repeated.repeat(200_000 / repeated.len());
        for source in [
            format!("{{{{ 1{} }}}}", deep("~1")),
            format!("{{{{ 1{} }}}}", deep("**1")),
            format!("{{{{ {}1 }}}}", deep("-")),
            format!("{{{{ a{} }}}}", deep("|e")),
            format!("{{{{ 1{} }}}}", deep(" if a else 1")),
            format!("{{% if a %}}{}{{% endif %}}", deep("{% elif a %}")),
        ] {
            assert!(rendered(&source).is_ok(), "{}", &source[..20]);
        }
        let values = |use_them: &str| {
            let nest = "{% for a in range(9999) %}{% set ns.x = [[[[ns.x]]]] %}{% endfor %}";
            rendered(&format!("{{% set ns = namespace(x=[]) %}}{}{use_them}", nest.repeat(4)))
        };
        assert_eq!(values("").unwrap(), "");
        assert_eq!(values("{{ ns.x | string | length }}").unwrap(), "319970");
        assert_eq!(values("{{ ns.x == [ns.x] }}").unwrap(), "False");
    }

    #[test]
    fn arguments_become_variables_that_the_template_must_have() {
        let render = |source: &str, arguments: &TemplateArguments| {
            ChatTemplate::new(source.to_owned(), Map::new()).render_with(&[], false, arguments)
        };
        let think = |think| TemplateArguments { think: Some(think), ..TemplateArguments::default() };
        let switch = "{{ enable_thinking }}{{ thinking is defined }}";
        assert_eq!(render(switch, &think(true)).unwrap(), "TrueTrue");
        assert_eq!(render(switch, &think(false)).unwrap(), "FalseTrue");
        assert_eq!(render("{{ thinking_budget is defined }}", &think(false)).unwrap(), "True");
        let tools = TemplateArguments {
            tools: Some(vec![serde_json::json!({"name": "f", "b": 1, "a": 2})]),
            ..TemplateArguments::default()
        };
        let listed = "{% for tool in tools %}{{ tool | tojson }}{% endfor %}";
        assert_eq!(render(listed, &tools).unwrap(), r#"{"name": "f", "b": 1, "a": 2}"#);
        let values = |name: &str| TemplateArguments {
            values: Map::from_iter([(name.to_owned(), "x".into())]),
            ..TemplateArguments::default()
        };
        assert_eq!(render("{{ effort }}", &values("effort")).unwrap(), "x");
        for (source, arguments) in [
            ("{{ rethinking }}", think(true)),
            ("{{ mytools }}", tools),
            ("{{ efforts }}{{ an_effort }}", values("effort")),
        ] {
            let error = render(source, &arguments).unwrap_err();
            assert_eq!(error.code(), Code::CapabilityMissing, "{source}");
        }
    }

    #[test]
    fn a_refusal_inside_of_a_macro_is_still_a_refusal() {
        let error =
            rendered("{% macro m() %}{{ raise_exception('not today') }}{% endmacro %}{{ m() }}").unwrap_err();
        assert_eq!(error.code(), Code::InvalidRequest);
        assert!(error.message().ends_with("not today"));
    }

    #[test]
    fn folders_keep_their_template_in_one_of_three_files() {
        let folder = tempfile::tempdir().unwrap();
        let source = || source_in_directory(folder.path());
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(source().unwrap(), None);
        write("chat_template.json", r#"{"chat_template": "processor"}"#);
        assert_eq!(source().unwrap().unwrap(), "processor");
        write(
            "tokenizer_config.json",
            r#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#,
        );
        assert_eq!(source().unwrap().unwrap(), "d");
        write("tokenizer_config.json", r#"{"chat_template": "config"}"#);
        assert_eq!(source().unwrap().unwrap(), "config");
        write("chat_template.jinja", "file");
        assert_eq!(source().unwrap().unwrap(), "file");

        write("chat_template.jinja", "{% broken");
        let template = ChatTemplate::from_directory(folder.path(), &Map::new()).unwrap().unwrap();
        assert_eq!(template.render(&[], true).unwrap_err().code(), Code::ModelUnsupported);
        fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
        for wrong in [r#"{"chat_template": 5}"#, r#"{"chat_template": [{"name": "x"}]}"#, "{", "[]"] {
            write("tokenizer_config.json", wrong);
            assert_eq!(source().unwrap_err().code(), Code::IntegrityFailed, "{wrong}");
        }
    }

    #[test]
    fn gguf_files_keep_their_template_in_their_metadata() {
        let mut metadata = Metadata::default();
        assert!(ChatTemplate::from_gguf(&metadata, &Map::new()).is_none());
        let text = crate::engine::format::metadata::Value::Text("{{ eos_token }}!".to_owned());
        metadata.0.insert("tokenizer.chat_template".to_owned(), text);
        let tokens = Map::from_iter([("eos_token".to_owned(), "</s>".into())]);
        let template = ChatTemplate::from_gguf(&metadata, &tokens).unwrap();
        assert_eq!(template.render(&[], false).unwrap(), "</s>!");
    }
}
