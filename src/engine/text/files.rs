//! Which file of a folder is the model's tokenizer.

use std::fs;
use std::path::{Path, PathBuf};

use super::config::{TokenizerConfig, missing, read_bytes};
use super::{Tokenizer, piece_model, tiktoken, tokenizer_json};
use crate::error::{Error, Result};

/// Names in the order in which one is taken.
const NAMES: [&str; 3] = ["tokenizer.json", "tiktoken.model", "tokenizer.model"];

/// Of SentencePiece's and tiktoken's files the largest that are known have 200,000 tokens in 4 MB.
const MAX_BYTES: u64 = 32 << 20;

/// Whether a file of a model's folder has a name that tokenizers have.
pub fn is_tokenizer(name: &str) -> bool {
    NAMES.contains(&name) || is_tiktoken(name)
}

fn is_tiktoken(name: &str) -> bool {
    !name.contains(['/', '\\']) && name.ends_with(".tiktoken")
}

pub(super) fn load(directory: &Path) -> Result<Tokenizer> {
    let config = TokenizerConfig::read(directory)?;
    for name in NAMES {
        let path = directory.join(name);
        match name {
            _ if !path.exists() => {}
            "tokenizer.json" => return tokenizer_json::load(&path, &config),
            _ => return by_content(&path, config),
        }
    }
    match named_tiktoken(directory)? {
        Some(path) => by_content(&path, config),
        None => Err(missing(&directory.join(NAMES[0]))),
    }
}

/// SentencePiece's and tiktoken's files may have the same name.
fn by_content(path: &Path, config: TokenizerConfig) -> Result<Tokenizer> {
    let content = read_bytes(path, MAX_BYTES)?.ok_or_else(|| missing(path))?;
    if path.ends_with("tokenizer.model") && piece_model::is_model(&content) {
        return piece_model::load(path, &content, config);
    }
    tiktoken::load(path, content, config)
}

/// The first file of a folder whose name ends in `.tiktoken`.
fn named_tiktoken(directory: &Path) -> Result<Option<PathBuf>> {
    let mut first = None;
    for entry in fs::read_dir(directory).map_err(|error| Error::io("read", directory, error))? {
        let entry = entry.map_err(|error| Error::io("read", directory, error))?;
        if entry.file_name().to_str().is_some_and(is_tiktoken) {
            let path = entry.path();
            first = Some(first.map_or_else(|| path.clone(), |first: PathBuf| first.min(path.clone())));
        }
    }
    Ok(first)
}
