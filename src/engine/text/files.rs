//! Which file of a folder is the model's tokenizer.

use std::fs;
use std::path::{Path, PathBuf};

use super::config::{TokenizerConfig, missing, read_bytes};
use super::{Tokenizer, piece_model, tiktoken, tokenizer_json};
use crate::error::{Error, Result};

/// Names in the order in which one is taken.
const NAMES: [&str; 3] = ["tokenizer.json", "tiktoken.model", "tokenizer.model"];

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
            "tokenizer.model" => {
                let content = read_bytes(&path, piece_model::MAX_BYTES)?.unwrap_or_default();
                if piece_model::is_model(&content) {
                    return piece_model::load(&path, &content, config);
                }
                return tiktoken::load(&path, config);
            }
            _ => return tiktoken::load(&path, config),
        }
    }
    match named_tiktoken(directory)? {
        Some(path) => tiktoken::load(&path, config),
        None => Err(missing(&directory.join(NAMES[0]))),
    }
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
