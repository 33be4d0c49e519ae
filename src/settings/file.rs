//! config.toml: reading it with its line numbers, and which keys it may hold.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, Table, Value};

use crate::engine::request::DeviceChoice;
use crate::error::{Code, Error, Result};

use super::value::{AutoPull, parse_auto_pull, parse_bytes, parse_device, parse_name, parse_threads};

/// What config.toml says; absent keys are `None`.
#[derive(Debug, Clone, Default)]
pub struct ConfigFile {
    pub default_model: Option<String>,
    pub memory_limit: Option<u64>,
    pub offline: Option<bool>,
    pub auto_pull: Option<AutoPull>,
    pub device: Option<DeviceChoice>,
    pub threads: Option<usize>,
    /// Short names and what they stand for.
    pub aliases: BTreeMap<String, String>,
}

/// A key that config.toml may hold.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub name: &'static str,
    /// What a value looks like.
    pub form: &'static str,
    /// One sentence for the documentation.
    pub meaning: &'static str,
}

/// Every key, in the order of the documentation. Aliases are keys of the table `aliases`.
pub const KEYS: &[Key] = &[
    Key {
        name: "default_model",
        form: "text, such as \"org/name\"",
        meaning: "the model of commands that are given none",
    },
    Key {
        name: "memory_limit",
        form: "text such as \"8GB\", or a number of bytes",
        meaning: "memory that a model and its cache may take; what the machine has free without it",
    },
    Key { name: "offline", form: "true or false", meaning: "forbids every use of the network" },
    Key {
        name: "auto_pull",
        form: "\"ask\", \"always\" or \"never\"",
        meaning: "whether a missing model is fetched when a command needs it; `ask` asks on a terminal, or takes `--yes`",
    },
    Key { name: "device", form: "\"auto\", \"gpu\" or \"cpu\"", meaning: "where to compute" },
    Key {
        name: "threads",
        form: "a whole number",
        meaning: "how many threads compute on the CPU; the physical cores without it",
    },
    Key {
        name: "aliases.NAME",
        form: "text, such as \"org/name\"",
        meaning: "a short name of a model, to be used wherever a model is named",
    },
];

impl ConfigFile {
    /// Where it lies in a store.
    pub fn path_in(home: &Path) -> PathBuf {
        home.join("config.toml")
    }

    /// Reads the file; one that does not exist says nothing.
    pub fn read(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(broken(path, None, "the file is not UTF-8 text"));
            }
            Err(error) => return Err(Error::io("read", path, error)),
        };
        Self::parse(&text, path)
    }

    /// Reads the text of a config.toml; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let document: Document<&str> = Document::parse(text).map_err(|error| {
            let line = error.span().map(|span| line_of(text, span.start));
            broken(path, line, &one_line(error.message()))
        })?;
        let mut config = Self::default();
        for (key, item) in document.as_table() {
            let line = line_of_key(document.as_table(), key, text);
            let at = |error: Error| broken(path, line, &format!("{key}: {}", error.message()));
            match key {
                "default_model" => {
                    config.default_model = Some(text_of(item).and_then(parse_name).map_err(at)?);
                }
                "memory_limit" => {
                    config.memory_limit = Some(
                        match item.as_integer() {
                            Some(bytes) => parse_bytes(&bytes.to_string()),
                            None => text_of(item).and_then(parse_bytes),
                        }
                        .map_err(at)?,
                    );
                }
                "offline" => {
                    config.offline = Some(item.as_bool().ok_or_else(|| at(expected("true or false", item)))?);
                }
                "auto_pull" => config.auto_pull = Some(text_of(item).and_then(parse_auto_pull).map_err(at)?),
                "device" => config.device = Some(text_of(item).and_then(parse_device).map_err(at)?),
                "threads" => {
                    let number = item.as_integer().ok_or_else(|| at(expected("a whole number", item)))?;
                    config.threads = Some(parse_threads(&number.to_string()).map_err(at)?);
                }
                "aliases" => {
                    let table = item.as_table_like().ok_or_else(|| at(expected("a table", item)))?;
                    for (name, item) in table.iter() {
                        let target = text_of(item).and_then(parse_name).map_err(at)?;
                        config.aliases.insert(name.to_owned(), target);
                    }
                }
                _ => {
                    return Err(broken(path, line, &format!("there is no setting '{}'", key.escape_debug())));
                }
            }
        }
        Ok(config)
    }
}

fn text_of(item: &Item) -> Result<&str> {
    item.as_str().ok_or_else(|| expected("text", item))
}

fn expected(what: &str, item: &Item) -> Error {
    let found = item.as_value().map_or(item.type_name(), Value::type_name);
    Error::new(Code::InvalidRequest, format!("expected {what}, found {found}"))
}

fn broken(path: &Path, line: Option<usize>, reason: &str) -> Error {
    let place = line.map_or_else(String::new, |line| format!(", line {line}"));
    let error = Error::new(Code::InvalidRequest, format!("{}{place}: {reason}", path.display()))
        .hint("correct the file, or remove the line and use `mlx-cache config set`")
        .detail("path", path.display().to_string());
    match line {
        Some(line) => error.detail("line", line),
        None => error,
    }
}

/// The line, counted from 1, of a byte offset.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

fn line_of_key(table: &Table, key: &str, text: &str) -> Option<usize> {
    let (key, item) = table.get_key_value(key)?;
    let span = key.span().or_else(|| item.span())?;
    Some(line_of(text, span.start))
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConfigFile> {
        ConfigFile::parse(text, Path::new("/s/config.toml"))
    }

    #[test]
    fn every_key_is_read() {
        let config = parse(
            "default_model = 'a/b'\nmemory_limit = '8GB'\noffline = true\ndevice = 'cpu'\nthreads = 3\n\
             [aliases]\nsmall = 'c/d'\n",
        )
        .expect("all keys are valid");
        assert_eq!(config.default_model.as_deref(), Some("a/b"));
        assert_eq!(config.memory_limit, Some(8_000_000_000));
        assert_eq!(
            (config.offline, config.device, config.threads),
            (Some(true), Some(DeviceChoice::Cpu), Some(3))
        );
        assert_eq!(config.aliases.get("small").map(String::as_str), Some("c/d"));
    }

    #[test]
    fn an_error_names_file_and_line() {
        for (text, line, reason) in [
            ("offline = true\nthreads = 'two'\n", 2, "threads: expected a whole number, found string"),
            ("\n\nwhat = 1\n", 3, "there is no setting 'what'"),
            ("device = 'tpu'", 1, "device: 'tpu' is not a device"),
            ("offline = true\n[aliases\n", 2, ""),
            ("memory_limit = -5", 1, "memory_limit: '-5' is not a size in bytes"),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.code(), Code::InvalidRequest);
            let start = format!("/s/config.toml, line {line}: {reason}");
            assert!(
                error.message().starts_with(&start),
                "{:?} does not start with {start:?}",
                error.message()
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}(\n[a-z_]{1,8} = [\"\\[0-9a-z.]{0,8}){0,4}") {
            let _ = parse(&text);
        }
    }
}
