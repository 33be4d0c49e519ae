//! A JSON value a line.

use std::io::Read;

use serde_json::Value;

use super::{Carried, Record, Records, broken, decode, too_long};
use crate::cli::embed::Invalid;
use crate::commands::pieces::Pieces;
use crate::error::{Error, Result};

pub(super) struct Objects {
    pieces: Pieces,
    /// Names and places that lead to the text.
    path: Vec<String>,
    /// Lines may also be plain texts, when no path is asked for.
    plain: bool,
    invalid: Invalid,
}

impl Objects {
    pub(super) fn new(reader: Box<dyn Read + Send>, field: Option<&str>, invalid: Invalid) -> Self {
        let path = field.unwrap_or("text").split('.').map(str::to_owned).collect();
        Self { pieces: Pieces::new(reader, b'\n', too_long), path, plain: field.is_none(), invalid }
    }

    fn text(&self, line: &str, number: u64) -> Result<String> {
        let value: Value = serde_json::from_str(line).map_err(|error| {
            broken(number, &format!("is not JSON: {error}")).hint("give one JSON value a line")
        })?;
        if let (true, Value::String(text)) = (self.plain, &value) {
            return Ok(text.clone());
        }
        let mut found = &value;
        for name in &self.path {
            let inner = match found {
                Value::Object(map) => map.get(name),
                Value::Array(list) => name.parse::<usize>().ok().and_then(|place| list.get(place)),
                _ => None,
            };
            found = inner.ok_or_else(|| self.missing(&value, number))?;
        }
        match found {
            Value::String(text) => Ok(text.clone()),
            other => Err(broken(
                number,
                &format!("has {} in the field {}, not a text", kind(other), self.path.join(".")),
            )
            .hint("name the field that holds the text with --field")),
        }
    }

    fn missing(&self, value: &Value, number: u64) -> Error {
        let names: Vec<&str> = match value {
            Value::Object(map) => map.keys().map(String::as_str).take(20).collect(),
            _ => Vec::new(),
        };
        let hint = if names.is_empty() {
            "give objects, or plain strings without --field".to_owned()
        } else {
            format!("name the field with --field; this line has {}", names.join(", ").escape_debug())
        };
        broken(number, &format!("has no field {}", self.path.join("."))).hint(hint)
    }
}

impl Records for Objects {
    fn next(&mut self) -> Result<Option<Record>> {
        loop {
            let Some(piece) = self.pieces.next()? else { return Ok(None) };
            let number = self.pieces.number;
            let line = decode(piece, number, self.invalid)?;
            let trimmed = line.trim();
            // A blank line is no value.
            if trimmed.is_empty() {
                continue;
            }
            let text = self.text(trimmed, number)?;
            let carried =
                if trimmed.starts_with('{') { Carried::Object(trimmed.to_owned()) } else { Carried::Nothing };
            return Ok(Some(Record { number, text, carried }));
        }
    }

    fn position(&self) -> u64 {
        self.pieces.position
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn texts(lines: &'static str, field: Option<&str>) -> Result<Vec<String>> {
        let mut objects = Objects::new(Box::new(lines.as_bytes()), field, Invalid::Error);
        let mut found = Vec::new();
        while let Some(record) = objects.next()? {
            found.push(record.text);
        }
        Ok(found)
    }

    #[test]
    fn the_text_is_found_where_the_path_leads() {
        assert_eq!(texts("{\"text\":\"a\"}\n\n\"b\"\n", None).unwrap(), ["a", "b"]);
        assert_eq!(texts(r#"{"a":{"b":["x","y"]}}"#, Some("a.b.1")).unwrap(), ["y"]);
    }

    #[test]
    fn lines_that_do_not_fit_are_errors_with_their_number() {
        for (lines, field, what) in [
            ("{\"text\":\"a\"}\n{\"text\":", None, "line 2 is not JSON"),
            ("{\"body\":\"a\"}", None, "line 1 has no field text"),
            ("{\"text\":5}", None, "line 1 has a number in the field text"),
            ("[\"a\"]", Some("1"), "line 1 has no field 1"),
            ("\"a\"", Some("text"), "line 1 has no field text"),
        ] {
            let error = texts(lines, field).unwrap_err();
            assert_eq!(error.code(), Code::EmbeddingFailed);
            assert!(error.message().contains(what), "{error}");
        }
        assert!(texts("{\"body\":\"a\"}", None).unwrap_err().hint_text().unwrap().contains("body"));
    }
}
