//! Which files of a folder are the model's weights.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::engine::format::file::{ModelFile, damaged, read_small, unsupported};
use crate::engine::format::gguf;
use crate::error::{Code, Error, Result};
use crate::ids::leader;

const MAX_INDEX_BYTES: u64 = 100_000_000;
const INDEX_SUFFIX: &str = ".safetensors.index.json";

/// The weight files of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// One GGUF file, which is all there is to a model, or the first of its numbered parts.
    Gguf(PathBuf),
    /// A folder of safetensors files.
    Safetensors {
        folder: PathBuf,
        /// The index that names the shards, if there is one.
        index: Option<PathBuf>,
        shards: Vec<PathBuf>,
        /// Tensor names and their positions in `shards`; empty without an index.
        weight_map: BTreeMap<String, usize>,
    },
}

impl Layout {
    /// Finds the weights at `path`: a GGUF file, or a folder.
    ///
    /// In a folder, `model.safetensors` comes first, then the files of an index, then
    /// `model*.safetensors`, then any safetensors; without
    /// these or without config.json, the only GGUF file or the parts of the only one.
    pub fn find(path: &Path) -> Result<Self> {
        let kind = std::fs::metadata(path).map_err(|e| Error::io("read", path, e))?;
        if !kind.is_dir() {
            return Self::of_file(path);
        }
        let names = file_names(path)?;
        let safetensors: Vec<&String> =
            names.iter().filter(|name| has_extension(name, "safetensors")).collect();
        let index = names.iter().find(|name| name.ends_with(INDEX_SUFFIX));
        let single = safetensors.iter().any(|name| *name == "model.safetensors");
        if let Some(index) = index {
            let (shards, weight_map) = read_index(path, index)?;
            // An index beside one whole file that it does not name is left over from the model that
            // this one was converted from.
            if !single || shards.iter().any(|name| name == "model.safetensors") {
                return Ok(Self::Safetensors {
                    folder: path.to_owned(),
                    index: Some(path.join(index)),
                    shards: shards.iter().map(|name| path.join(name)).collect(),
                    weight_map,
                });
            }
        }
        let of_folder = |names: Vec<&String>| Self::Safetensors {
            folder: path.to_owned(),
            index: None,
            shards: names.into_iter().map(|name| path.join(name)).collect(),
            weight_map: BTreeMap::new(),
        };
        let shards = if single {
            safetensors.into_iter().filter(|name| *name == "model.safetensors").collect()
        } else if safetensors.iter().any(|name| name.starts_with("model")) {
            safetensors.into_iter().filter(|name| name.starts_with("model")).collect()
        } else {
            safetensors
        };
        let ggufs: Vec<&String> = names.iter().filter(|name| has_extension(name, "gguf")).collect();
        let has_config = names.iter().any(|name| name == "config.json");
        if !shards.is_empty() && (has_config || ggufs.is_empty()) {
            return Ok(of_folder(shards));
        }
        match (leader(ggufs.iter().copied(), |name| name), ggufs.as_slice()) {
            (Some(one), _) => Ok(Self::Gguf(path.join(one))),
            (None, []) => Err(no_weights(path, &names)),
            (None, several) => Err(Error::new(
                Code::ModelAmbiguous,
                format!("{} holds {} GGUF files", path.display(), several.len()),
            )
            .hint(format!("name one of them: {}", listing(several)))),
        }
    }

    fn of_file(path: &Path) -> Result<Self> {
        let file = ModelFile::open(path)?;
        let mut magic = [0; 4];
        if file.bytes() >= 4 {
            file.read_at(&mut magic, 0)?;
        }
        if magic == gguf::MAGIC {
            return Ok(Self::Gguf(path.to_owned()));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if has_extension(&name, "safetensors") {
            return Err(unsupported(path, "is one file of a model").hint("name the folder that it lies in"));
        }
        if file.bytes() < 4 && has_extension(&name, "gguf") {
            return Err(damaged(path, "is truncated: it ends inside the header"));
        }
        Err(damaged(path, "is neither a GGUF file nor a folder with a model")
            .hint("name a .gguf file, or the folder that holds config.json and the weights"))
    }
}

/// Names of the files (or links) in a folder, sorted; names that are not UTF-8 are no model files.
fn file_names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))? {
        let entry = entry.map_err(|e| Error::io("read", folder, e))?;
        // Files that macOS leaves on foreign disks ("._model.safetensors") are no models.
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
            && !entry.path().is_dir()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// Shard names, and which shard each tensor is in.
fn read_index(folder: &Path, name: &str) -> Result<(Vec<String>, BTreeMap<String, usize>)> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }

    let path = folder.join(name);
    let index: Index = serde_json::from_slice(&read_small(&path, MAX_INDEX_BYTES)?)
        .map_err(|e| damaged(&path, &format!("is a broken index: {e}")))?;
    let mut positions = BTreeMap::new();
    let mut shards = Vec::new();
    let mut weight_map = BTreeMap::new();
    for (tensor, shard) in index.weight_map {
        let position = if let Some(&position) = positions.get(&shard) {
            position
        } else {
            if !is_plain_name(&shard) {
                return Err(Error::new(
                    Code::BoundaryViolation,
                    format!("{} names the file {shard:?}, outside its folder", path.display()),
                )
                .hint("do not use this model: its index is not an honest one"));
            }
            let position = shards.len();
            shards.push(shard.clone());
            positions.insert(shard, position);
            position
        };
        weight_map.insert(tensor, position);
    }
    Ok((shards, weight_map))
}

fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let first = components.next();
    matches!(first, Some(Component::Normal(only)) if only == name)
        && components.next().is_none()
        && !name.chars().any(char::is_control)
}

/// Why a folder without weights that we read cannot be run.
fn no_weights(folder: &Path, names: &[String]) -> Error {
    let pickled = |name: &&String| {
        ["bin", "pt", "pth", "npz", "h5", "msgpack", "onnx"].iter().any(|e| has_extension(name, e))
    };
    if let Some(name) = names.iter().find(pickled) {
        return unsupported(folder, &format!("has its weights in {name} only"))
            .hint("safetensors and GGUF are supported: look for such a version of the model");
    }
    Error::new(Code::FileNotFound, format!("{} holds no safetensors or GGUF file", folder.display()))
        .hint("name a folder with a model, or a .gguf file")
        .detail("path", folder.display().to_string())
}

fn listing(names: &[&String]) -> String {
    let shown: Vec<&str> = names.iter().take(8).map(|name| name.as_str()).collect();
    let more = if names.len() > shown.len() { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
