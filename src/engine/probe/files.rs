//! Which files of a folder belong to a model.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::engine::format::file::{damaged, read_small};
use crate::engine::format::tensors::Tensors;
use crate::error::{Code, Error, Result};

const MAX_JSON_BYTES: u64 = 64 << 20;
/// Endings of files beside the weights that loaders read, and of what a person should see with them.
const EXTENSIONS: &[&str] = &["json", "jinja", "model", "tiktoken", "txt"];
const DOCUMENTS: &[&str] = &["README", "LICENSE", "LICENCE", "NOTICE", "USE_POLICY"];

/// Weights, configurations, tokenizer, templates, licence, and the folders of a
/// sentence-transformers pipeline; relative to `folder`, sorted.
pub fn of_folder(folder: &Path, tensors: &Tensors) -> Result<Vec<PathBuf>> {
    let mut files: BTreeSet<PathBuf> =
        tensors.paths().filter_map(|path| path.strip_prefix(folder).ok().map(Path::to_owned)).collect();
    add_files(folder, Path::new(""), &mut files)?;
    for module in modules(folder)? {
        add_files(folder, &module, &mut files)?;
    }
    Ok(files.into_iter().collect())
}

/// The one file, or all its parts.
pub fn of_gguf(tensors: &Tensors) -> Vec<PathBuf> {
    tensors.paths().filter_map(|path| path.file_name().map(PathBuf::from)).collect()
}

/// Adds the files of one folder that belong to the model. Weights of modules below the top belong to
/// it too (a projection after pooling).
fn add_files(folder: &Path, below: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    let place = folder.join(below);
    let entries = match std::fs::read_dir(&place) {
        Ok(entries) => entries,
        // A module without parameters needs no folder.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && below != Path::new("") => return Ok(()),
        Err(e) => return Err(Error::io("read", &place, e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("read", &place, e))?;
        let name = PathBuf::from(entry.file_name());
        let text = name.to_string_lossy();
        let extension = name.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let is_ours = EXTENSIONS.contains(&extension)
            || DOCUMENTS.iter().any(|document| text.starts_with(document))
            || (below != Path::new("") && extension == "safetensors");
        if is_ours && !text.starts_with('.') && entry.path().is_file() {
            files.insert(below.join(&name));
        }
    }
    Ok(())
}

/// Folders that modules.json names, without the top one.
fn modules(folder: &Path) -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct Module {
        #[serde(default)]
        path: PathBuf,
    }

    let path = folder.join("modules.json");
    let content = match read_small(&path, MAX_JSON_BYTES) {
        Ok(content) => content,
        Err(error) if error.code() == Code::FileNotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let modules: Vec<Module> = serde_json::from_slice(&content)
        .map_err(|e| damaged(&path, &format!("is not a list of modules: {e}")))?;
    let mut folders = Vec::new();
    for module in modules.into_iter().map(|module| module.path) {
        if !module.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Error::new(
                Code::BoundaryViolation,
                format!("{} names the folder {}, outside the model", path.display(), module.display()),
            )
            .hint("do not use this model: its list of modules is not an honest one"));
        }
        if module != Path::new("") {
            folders.push(module);
        }
    }
    Ok(folders)
}

/// Whether a tokenizer_config.json holds a chat template.
pub fn names_chat_template(path: &Path) -> Result<bool> {
    #[derive(Deserialize)]
    struct TokenizerConfig {
        chat_template: Option<IgnoredAny>,
    }

    let config: TokenizerConfig = serde_json::from_slice(&read_small(path, MAX_JSON_BYTES)?)
        .map_err(|e| damaged(path, &format!("is not a JSON object: {e}")))?;
    Ok(config.chat_template.is_some())
}
