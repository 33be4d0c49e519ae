//! `tokenizer_config.json` and `special_tokens_map.json`: the roles of tokens, as transformers reads them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Code, Error, Result};

/// Larger than any such file that is known: a Jinja template or a list of added tokens takes kilobytes.
const MAX_CONFIG_BYTES: u64 = 64 << 20;

/// The names by which templates and configurations know single tokens.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What templates get to know of the roles: each token's text by its role.
pub(super) fn names<'a>(
    mut token: impl FnMut(&str) -> Result<Option<&'a str>>,
) -> Result<Map<String, Value>> {
    let mut names = Map::new();
    for role in ROLES {
        if let Some(text) = token(role)? {
            names.insert(role.to_owned(), text.into());
        }
    }
    Ok(names)
}

/// The settings of `tokenizer_config.json`, the roles completed from `special_tokens_map.json`.
/// Both files may be missing.
#[derive(Debug, Clone, Default)]
pub(super) struct TokenizerConfig {
    path: PathBuf,
    values: Map<String, Value>,
}

impl TokenizerConfig {
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("tokenizer_config.json");
        let mut values = read_object(&path)?.unwrap_or_default();
        for (key, value) in read_object(&directory.join("special_tokens_map.json"))?.unwrap_or_default() {
            values.entry(key).or_insert(value);
        }
        Ok(Self { path, values })
    }

    /// The text of a token that is given as a string or as an object with its `content`.
    pub(super) fn token(&self, role: &str) -> Result<Option<&str>> {
        match self.values.get(role) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match content(value) {
                Some(text) => Ok(Some(text)),
                None => Err(self.wrong(role, "a token")),
            },
        }
    }

    /// The role of a token that the files do not name.
    pub(super) fn default_token(&mut self, role: &str, text: &str) {
        self.values.entry(role).or_insert_with(|| text.into());
    }

    /// The class that transformers reads the tokenizer with.
    pub(super) fn class(&self) -> Result<Option<&str>> {
        match self.values.get("tokenizer_class") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(class)) => Ok(Some(class)),
            Some(_) => Err(self.wrong("tokenizer_class", "a name")),
        }
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// Tokens without a role of their own.
    pub(super) fn additional_special_tokens(&self) -> Vec<&str> {
        let list = self.values.get("additional_special_tokens").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(content).collect()
    }

    /// `added_tokens_decoder`: (id, content, special).
    pub(super) fn added_tokens(&self) -> Result<Vec<(u32, &str, bool)>> {
        let key = "added_tokens_decoder";
        let Some(Value::Object(tokens)) = self.values.get(key) else { return Ok(Vec::new()) };
        let read = |(id, token): (&String, _)| -> Option<(u32, &str, bool)> {
            let special = Value::get(token, "special").and_then(Value::as_bool).unwrap_or(false);
            Some((id.parse().ok()?, content(token)?, special))
        };
        tokens.iter().map(|entry| read(entry).ok_or_else(|| self.wrong(key, "ids with tokens"))).collect()
    }

    /// The chat template: a string, or a list of named ones of which `default` is meant.
    pub(super) fn chat_template(&self) -> Result<Option<&str>> {
        match self.values.get("chat_template") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(template)) => Ok(Some(template)),
            Some(Value::Array(named)) => {
                let default = named.iter().find(|entry| entry["name"] == "default");
                match default.and_then(|entry| entry["template"].as_str()) {
                    Some(template) => Ok(Some(template)),
                    None => Err(self.wrong("chat_template", "a list with a template named default")),
                }
            }
            Some(_) => Err(self.wrong("chat_template", "a template or a list of named ones")),
        }
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        Error::new(
            Code::IntegrityFailed,
            format!("\"{key}\" in {} should be {expected}", self.path.display()),
        )
        .detail("path", self.path.display().to_string())
    }
}

fn content(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// A file's JSON object; `None` where there is no file.
pub(super) fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    let Some(text) = read_text(path, MAX_CONFIG_BYTES)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| broken(path, error))
}

/// A file's text; `None` where there is no file.
pub(super) fn read_text(path: &Path, limit: u64) -> Result<Option<String>> {
    let Some(bytes) = read_bytes(path, limit)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|error| broken(path, error))
}

/// A file's content; `None` where there is no file.
pub(super) fn read_bytes(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path, error)),
    };
    if !metadata.is_file() || metadata.len() > limit {
        let what = if metadata.is_file() { "is too large to be what its name says" } else { "is not a file" };
        return Err(Error::new(Code::IntegrityFailed, format!("{} {what}", path.display()))
            .detail("path", path.display().to_string()));
    }
    fs::read(path).map(Some).map_err(|error| Error::io("read", path, error))
}

/// A tokenizer's file that is not there.
pub(super) fn missing(path: &Path) -> Error {
    Error::new(Code::FileNotFound, format!("{} is not there", path.display()))
        .hint("the model needs a tokenizer.json (transformers writes one with save_pretrained), a tokenizer.model or a tiktoken file")
        .detail("path", path.display().to_string())
}

/// A file that does not hold what it should.
pub(super) fn broken(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::new(Code::IntegrityFailed, format!("{} is damaged: {reason}", path.display()))
        .hint("download or convert the model again")
        .detail("path", path.display().to_string())
}
