//! The configuration of an encoder, as its files have it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::Shape;
use crate::engine::config::style::Activation;
use crate::engine::format::checkpoint::Configuration;
use crate::engine::format::file::{damaged, unsupported};
use crate::engine::format::metadata::Metadata;
use crate::error::Result;

/// Larger than those of any model.
const MAX_SIZE: usize = 1 << 24;
const MAX_LAYERS: usize = 4096;
const MAX_HEAD_DIM: usize = 2048;

/// Keys and values of config.json or of a GGUF's metadata.
pub struct Settings {
    path: PathBuf,
    source: Source,
}

enum Source {
    Json(Map<String, Value>),
    Gguf(Metadata),
}

impl Settings {
    pub(in crate::engine) fn new(configuration: Configuration) -> Self {
        match configuration {
            Configuration::Folder(files, folder) => Self { path: folder, source: Source::Json(files.config) },
            Configuration::Gguf { path, metadata } => Self { path, source: Source::Gguf(metadata) },
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_gguf(&self) -> bool {
        matches!(self.source, Source::Gguf(_))
    }

    pub fn metadata(&self) -> Option<&Metadata> {
        match &self.source {
            Source::Gguf(metadata) => Some(metadata),
            Source::Json(_) => None,
        }
    }

    /// `model_type`, or `general.architecture` of a GGUF.
    pub fn architecture(&self) -> Result<String> {
        let found = match &self.source {
            Source::Json(map) => map.get("model_type").and_then(Value::as_str),
            Source::Gguf(metadata) => metadata.text("general.architecture"),
        };
        found.map(str::to_owned).ok_or_else(|| damaged(&self.path, "does not say its architecture"))
    }

    /// A value of config.json, `None` if it is absent or null.
    pub fn value(&self, name: &str) -> Option<&Value> {
        match &self.source {
            Source::Json(map) => map.get(name).filter(|value| !value.is_null()),
            Source::Gguf(_) => None,
        }
    }

    /// The first of these values of config.json, as a size. Names of a GGUF begin with a dot, which
    /// stands for the architecture.
    pub fn size(&self, names: &[&str]) -> Result<Option<usize>> {
        for name in names {
            let found = match (&self.source, name.strip_prefix('.')) {
                (Source::Json(_), None) => match self.value(name) {
                    Some(value) => value.as_u64(),
                    None => continue,
                },
                (Source::Gguf(metadata), Some(key)) => {
                    let key = format!("{}.{key}", self.architecture()?);
                    match metadata.get(&key) {
                        Some(_) => metadata.unsigned(&key),
                        None => continue,
                    }
                }
                _ => continue,
            };
            return match found.and_then(|size| usize::try_from(size).ok()) {
                Some(size) if size <= MAX_SIZE => Ok(Some(size)),
                _ => Err(damaged(&self.path, &format!("has an impossible {name}"))),
            };
        }
        Ok(None)
    }

    /// A size that must be there.
    pub fn required(&self, names: &[&str]) -> Result<usize> {
        self.size(names)?.filter(|&size| size > 0).ok_or_else(|| {
            let name = names.first().copied().unwrap_or_default();
            damaged(&self.path, &format!("has a configuration without {name}"))
        })
    }

    /// How many words have embeddings; a GGUF has one for each token.
    pub fn vocabulary(&self) -> Result<usize> {
        match self.metadata() {
            Some(metadata) => metadata
                .texts("tokenizer.ggml.tokens")
                .map(<[String]>::len)
                .ok_or_else(|| damaged(&self.path, "has no tokens")),
            None => self.required(&["vocab_size"]),
        }
    }

    pub fn float(&self, names: &[&str]) -> Result<Option<f64>> {
        for name in names {
            let found = match (&self.source, name.strip_prefix('.')) {
                (Source::Json(_), None) => match self.value(name) {
                    Some(value) => value.as_f64(),
                    None => continue,
                },
                (Source::Gguf(metadata), Some(key)) => {
                    let key = format!("{}.{key}", self.architecture()?);
                    match metadata.get(&key) {
                        Some(_) => metadata.float(&key),
                        None => continue,
                    }
                }
                _ => continue,
            };
            return match found {
                Some(number) if number.is_finite() => Ok(Some(number)),
                _ => Err(damaged(&self.path, &format!("has an impossible {name}"))),
            };
        }
        Ok(None)
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(damaged(&self.path, &format!("has a {name} that is neither true nor false"))),
        }
    }

    /// The activation of the first of these names; GELU where none is named.
    pub fn activation(&self, names: &[&str]) -> Result<Activation> {
        let Some(value) = names.iter().find_map(|name| self.value(name)) else {
            return Ok(Activation::Gelu);
        };
        value.as_str().and_then(Activation::of).ok_or_else(|| {
            unsupported(&self.path, &format!("needs the activation {value}"))
                .hint("supported are gelu, its tanh form, relu and silu")
        })
    }

    /// Checks sizes before anything is computed from them.
    pub fn checked(&self, shape: Shape) -> Result<Shape> {
        let sizes =
            [shape.hidden, shape.layers, shape.heads, shape.inner, shape.vocabulary, shape.max_tokens];
        let fits = sizes.iter().all(|&size| size > 0 && size <= MAX_SIZE)
            && shape.layers <= MAX_LAYERS
            && shape.hidden.is_multiple_of(shape.heads)
            && shape.hidden / shape.heads <= MAX_HEAD_DIM
            && shape.epsilon >= 0.0;
        if fits {
            return Ok(shape);
        }
        Err(damaged(&self.path, &format!("has sizes that cannot be: {shape:?}")))
    }
}
