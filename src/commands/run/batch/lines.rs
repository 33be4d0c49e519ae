//! The prompts of a batch: a JSON object a line.

use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use crate::commands::pieces::{self, LONGEST, Pieces};
use crate::commands::run::inputs::Inputs;
use crate::commands::run::parameters::Parameters;
use crate::engine::request::{GenerateRequest, Message, Prompt};
use crate::error::{Code, Error, Result};
use crate::report::run::BatchId;

/// What holds for each prompt unless its line tells otherwise.
#[derive(Debug, Clone)]
pub struct Common {
    pub inputs: Inputs,
    pub parameters: Parameters,
    /// The seed of the first prompt; the others have the numbers that follow.
    pub seed: u64,
    pub system: Option<String>,
    /// Turns before the prompt.
    pub turns: Vec<Message>,
    pub raw: bool,
}

/// A prompt of a batch.
#[derive(Debug)]
pub struct Asked {
    pub line: u64,
    pub id: Option<BatchId>,
    pub request: GenerateRequest,
}

/// The prompts of a file or of standard input, one by one.
pub struct Prompts {
    pieces: Pieces,
    /// What errors call the input.
    name: String,
    /// Whether it can be read more than once.
    pub is_file: bool,
    common: Common,
    /// How many there were.
    count: u64,
}

impl Prompts {
    /// Nothing of standard input, `-`, is read yet.
    pub fn open(path: &Path, common: Common) -> Result<Self> {
        let (reader, name, is_file): (Box<dyn io::Read + Send>, _, _) = if path == Path::new("-") {
            (Box::new(io::stdin()), "standard input".to_owned(), false)
        } else {
            let (file, bytes) = pieces::open(path, "prompts")?;
            (Box::new(file), path.display().to_string(), bytes.is_some())
        };
        Ok(Self { pieces: Pieces::new(reader, b'\n', too_long), name, is_file, common, count: 0 })
    }

    /// The next prompt; `None` at the end. Blank lines are none.
    ///
    /// # Errors
    /// INVALID_REQUEST naming the line.
    pub fn next(&mut self) -> Result<Option<Asked>> {
        self.read().map_err(|error| error.context(&self.name))
    }

    fn read(&mut self) -> Result<Option<Asked>> {
        while let Some(piece) = self.pieces.next()? {
            let line = self.pieces.number;
            let text = String::from_utf8(piece).map_err(|error| {
                let byte = error.utf8_error().valid_up_to() + 1;
                broken(line, &format!("is not UTF-8: byte {byte} begins no character"))
                    .hint("convert the input with iconv")
            })?;
            if text.trim().is_empty() {
                continue;
            }
            let number = self.count;
            self.count += 1;
            return self.asked(&text, line, number).map(Some);
        }
        Ok(None)
    }

    fn asked(&self, text: &str, line: u64, number: u64) -> Result<Asked> {
        let common = &self.common;
        let mut fields: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
            broken(line, &format!("is no JSON object: {error}"))
                .hint("give one object a line, such as {\"prompt\": \"Name a village\"}")
        })?;
        // What is null is as if it were not there.
        fields.retain(|_, value| !value.is_null());
        let id = fields.remove("id").map(|id| {
            serde_json::from_value(id)
                .map_err(|_| broken(line, "has an id that is neither a text nor a whole number"))
        });
        let prompt = self.prompt(&mut fields, line)?;
        let mut parameters = common.parameters.clone();
        parameters.seed = Some(common.seed.wrapping_add(number));
        for (name, value) in fields {
            set(&mut parameters, &name, value, line)?;
        }
        if common.inputs.format.is_some() && !parameters.stop.is_empty() {
            return Err(broken(line, "has stop texts, which do not go with --format"));
        }
        let (request, _) = common.inputs.request(prompt, &parameters);
        Ok(Asked { line, id: id.transpose()?, request })
    }

    /// Takes the fields that make the prompt.
    fn prompt(&self, fields: &mut Map<String, Value>, line: u64) -> Result<Prompt> {
        let common = &self.common;
        let mut text = |name: &str| match fields.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(broken(line, &format!("has something else than a text as its {name}"))),
        };
        let (system, prompt) = (text("system")?, text("prompt")?);
        let messages = fields.remove("messages").map(|messages| turns_of(messages, line));
        if common.raw && (system.is_some() || messages.is_some()) {
            return Err(broken(line, "has turns of a chat, which --raw gives to no template"));
        }
        let mut turns = match (prompt, messages.transpose()?) {
            (Some(_), Some(_)) => return Err(broken(line, "has both a prompt and messages")),
            (Some(prompt), None) if prompt.trim().is_empty() => {
                return Err(broken(line, "has an empty prompt"));
            }
            (Some(prompt), None) if common.raw => return Ok(Prompt::Raw(prompt)),
            (Some(prompt), None) => {
                common.turns.iter().cloned().chain([Message::new("user", prompt)]).collect()
            }
            (None, Some(messages)) if messages.is_empty() => return Err(broken(line, "has no messages")),
            (None, Some(messages)) => messages,
            (None, None) => {
                return Err(broken(line, "has no prompt")
                    .hint("write {\"prompt\": \"…\"}, or {\"messages\": [{\"role\": \"user\", \"content\": \"…\"}]}"));
            }
        };
        // A system message among the messages is the nearest to them.
        let begins = turns.first().is_some_and(|first| first.role == "system");
        match system.or_else(|| common.system.clone().filter(|_| !begins)) {
            Some(_) if begins => return Err(broken(line, "has two system messages")),
            Some(system) => turns.insert(0, Message::new("system", system)),
            None => {}
        }
        Ok(Prompt::Chat(turns))
    }
}

/// The turns of a conversation. A turn's content may be in parts, as OpenAI's interface has it; only texts can
/// be answered.
fn turns_of(mut messages: Value, line: u64) -> Result<Vec<Message>> {
    for content in messages.as_array_mut().into_iter().flatten().filter_map(|turn| turn.get_mut("content")) {
        if let Value::Array(parts) = content {
            let texts = parts.iter().map(|part| text_of(part, line)).collect::<Result<Vec<_>>>()?;
            *content = Value::String(texts.concat());
        }
    }
    serde_json::from_value(messages).map_err(|error| {
        broken(line, &format!("has messages that are none: {error}"))
            .hint("write [{\"role\": \"user\", \"content\": \"…\"}, …]")
    })
}

fn text_of(part: &Value, line: u64) -> Result<&str> {
    match (part.get("text").and_then(Value::as_str), part.get("type").and_then(Value::as_str)) {
        (Some(text), Some("text" | "input_text" | "output_text") | None) => Ok(text),
        (_, Some(kind)) if kind != "text" => {
            let kind: String = kind.chars().take(64).collect();
            Err(Error::new(
                Code::CapabilityMissing,
                format!(
                    "line {line} has a part of type {kind:?} in a message, and only texts can be answered"
                ),
            )
            .hint("leave images, sounds and files out")
            .detail("line", line))
        }
        _ => Err(broken(line, "has a part of a message that is no text")
            .hint("write {\"type\": \"text\", \"text\": \"…\"}")),
    }
}

fn set(parameters: &mut Parameters, name: &str, value: Value, line: u64) -> Result<()> {
    let text = match (name, value) {
        ("stop", Value::Array(texts)) => {
            let texts: Option<Vec<String>> =
                texts.into_iter().map(|text| text.as_str().map(str::to_owned)).collect();
            parameters.stop = texts.ok_or_else(|| broken(line, "has stop texts that are none"))?;
            return parameters.check().map_err(|error| located(error, line));
        }
        (_, Value::String(text)) => text,
        (_, Value::Number(number)) => number.to_string(),
        _ => return Err(broken(line, &format!("has neither a number nor a text as its {name}"))),
    };
    parameters.set(name, &text).map_err(|error| located(error, line))
}

fn located(error: Error, line: u64) -> Error {
    error.context(format!("line {line}")).detail("line", line)
}

fn broken(line: u64, reason: &str) -> Error {
    Error::new(Code::InvalidRequest, format!("line {line} {reason}")).detail("line", line)
}

fn too_long(line: u64) -> Error {
    broken(line, &format!("is longer than {} MiB", LONGEST >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(lines: impl Into<String>, common: Common) -> Prompts {
        let pieces = Pieces::new(Box::new(io::Cursor::new(lines.into())), b'\n', too_long);
        Prompts { pieces, name: "it".to_owned(), is_file: true, common, count: 0 }
    }

    fn common() -> Common {
        let parameters = Parameters { temperature: 0.5, ..Parameters::default() };
        let system = Some("be brief".to_owned());
        Common { inputs: Inputs::default(), parameters, seed: 7, system, turns: Vec::new(), raw: false }
    }

    fn turns(asked: &Asked) -> Vec<(&str, &str)> {
        match &asked.request.prompt {
            Prompt::Chat(turns) => {
                turns.iter().map(|turn| (turn.role.as_str(), turn.content.as_str())).collect()
            }
            Prompt::Raw(text) => vec![("raw", text)],
        }
    }

    #[test]
    fn a_line_goes_before_what_holds_for_all() {
        let mut prompts = prompts(
            "{\"prompt\": \"a\"}\n\n{\"id\": \"x\", \"messages\": [{\"role\": \"system\", \"content\": \"s\"}, \
             {\"role\": \"user\", \"content\": \"b\"}], \"temp\": 0, \"seed\": 3, \"stop\": [\"u\", \"v\"]}\r\n\
             {\"id\": 9, \"prompt\": \"c\", \"system\": \"t\", \"max_tokens\": 4, \"top_k\": null}",
            common(),
        );
        let mut next = || prompts.next().expect("a line").expect("a prompt");
        let first = next();
        assert_eq!((first.line, &first.id, first.request.sampling.seed), (1, &None, 7));
        assert_eq!(turns(&first), [("system", "be brief"), ("user", "a")]);
        let second = next();
        assert_eq!((second.line, &second.id), (3, &Some(BatchId::Text("x".to_owned()))));
        assert_eq!(turns(&second), [("system", "s"), ("user", "b")]);
        let sampling = second.request.sampling;
        assert!(sampling.seed == 3 && sampling.temperature == 0.0 && second.request.stop == ["u", "v"]);
        let third = next();
        assert_eq!((third.id.clone(), third.request.sampling.seed), (Some(BatchId::Number(9)), 9));
        assert_eq!(turns(&third), [("system", "t"), ("user", "c")]);
        assert_eq!((third.request.max_tokens, third.request.sampling.top_k), (Some(4), 40));
        assert!(prompts.next().expect("the end").is_none());
    }

    #[test]
    fn the_parts_of_a_message_are_texts() {
        let asked = |line: String| prompts(line, common()).next();
        let parts = r#"{"messages": [{"role": "user", "content":
            [{"type": "text", "text": "What is "}, {"type": "input_text", "text": "this?"}]}]}"#
            .replace('\n', " ");
        let asked_parts = asked(parts).expect("a line").expect("a prompt");
        assert_eq!(turns(&asked_parts), [("system", "be brief"), ("user", "What is this?")]);
        for (part, code) in [
            (r#"{"type": "image_url", "image_url": {"url": "data:"}}"#, Code::CapabilityMissing),
            (r#"{"type": "input_audio", "input_audio": {}}"#, Code::CapabilityMissing),
            (r#"{"type": "image", "text": "a cat"}"#, Code::CapabilityMissing),
            (r#"{"type": "text"}"#, Code::InvalidRequest),
            (r#""text""#, Code::InvalidRequest),
            (r#"{"type": "text", "text": 5}"#, Code::InvalidRequest),
        ] {
            let line = format!(r#"{{"messages": [{{"role": "user", "content": [{part}]}}]}}"#);
            let error = asked(line).expect_err(part);
            assert_eq!(error.code(), code, "{part}");
            assert!(error.message().starts_with("it: line 1 has a part"), "{error}");
        }
    }

    #[test]
    fn a_line_that_is_no_prompt_is_refused_with_its_number() {
        for (line, told) in [
            ("no", "it: line 1 is no JSON object"),
            ("[1]", "it: line 1 is no JSON object"),
            ("\n{\"prompt\": \"a\"", "it: line 2 is no JSON object"),
            ("{}", "it: line 1 has no prompt"),
            ("{\"prompt\": \" \"}", "it: line 1 has an empty prompt"),
            ("{\"prompt\": 5}", "it: line 1 has something else than a text as its prompt"),
            ("{\"messages\": []}", "it: line 1 has no messages"),
            ("{\"messages\": [\"a\"]}", "it: line 1 has messages that are none"),
            ("{\"prompt\": \"a\", \"messages\": []}", "it: line 1 has both a prompt and messages"),
            ("{\"prompt\": \"a\", \"id\": []}", "it: line 1 has an id"),
            ("{\"prompt\": \"a\", \"tempo\": 1}", "it: line 1: there is no parameter 'tempo'"),
            ("{\"prompt\": \"a\", \"temp\": -1}", "it: line 1: temperature is -1"),
            ("{\"prompt\": \"a\", \"top_k\": [1]}", "it: line 1 has neither a number nor a text"),
            ("{\"prompt\": \"a\", \"stop\": [\"\"]}", "it: line 1: a stop text is empty"),
            (
                "{\"system\": \"s\", \"messages\": [{\"role\": \"system\", \"content\": \"t\"}]}",
                "it: line 1 has two system messages",
            ),
        ] {
            let error = prompts(line, common()).next().expect_err(line);
            assert_eq!(error.code(), Code::InvalidRequest);
            assert!(error.message().starts_with(told), "{line}: {}", error.message());
            assert!(error.details().contains_key("line"), "{line}");
        }
        let raw = || Common { raw: true, ..common() };
        assert!(prompts("{\"messages\": []}", raw()).next().is_err());
        let asked = prompts("{\"prompt\": \"a\"}", raw()).next().expect("a line").expect("a prompt");
        assert_eq!(turns(&asked), [("raw", "a")]);
    }
}
