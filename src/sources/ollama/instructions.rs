//! The layers of a model that say how it is to be asked: system message, parameters, first messages.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::damaged;
use super::manifest::{Layer, Manifest};
use crate::error::{Code, Error, Result};
use crate::ids::ModelName;
use crate::sources::bounds::{Bounds, Destination};
use crate::sources::walk::{What, what_is_at};
use crate::sources::{reason_of, record};

/// Texts that people write; the longest template of Ollama's library has about 10 kB.
const LONGEST: u64 = 1 << 20;

/// How a model of Ollama is to be asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Instructions {
    pub system: Option<String>,
    /// Sampling parameters by the names that Ollama has for them.
    pub parameters: Map<String, Value>,
    /// Roles and contents of the turns that every conversation begins with.
    pub messages: Vec<(String, String)>,
    /// Whether it has a template in Go's template language.
    pub has_template: bool,
    /// Whether it has a part that sees images.
    pub has_projector: bool,
}

#[derive(Deserialize)]
struct Turn {
    role: String,
    #[serde(default)]
    content: String,
}

impl Instructions {
    /// Reads them from the blobs in `folder`. A model with adapters is MODEL_UNSUPPORTED: without them it
    /// would be another model.
    pub(super) fn read(
        name: &ModelName,
        folder: &Path,
        manifest: &Manifest,
        bounds: &Bounds,
    ) -> Result<Self> {
        let mut read = Self::default();
        for layer in manifest.layers() {
            match layer.path.as_str() {
                "system" => read.system = Some(text(folder, layer, bounds)?),
                "params.json" => read.parameters = json(folder, layer, bounds)?,
                "messages.json" => {
                    let turns: Vec<Turn> = json(folder, layer, bounds)?;
                    read.messages = turns.into_iter().map(|turn| (turn.role, turn.content)).collect();
                }
                "template" | "prompt" => read.has_template = true,
                "projector.gguf" => read.has_projector = true,
                "adapter.gguf" => {
                    return Err(Error::new(
                        Code::ModelUnsupported,
                        format!("{name} has an adapter, which mlx-cache cannot apply yet"),
                    )
                    .hint("run the model that the adapter was made for, or merge the two"));
                }
                _ => {}
            }
        }
        Ok(read)
    }
}

fn bytes(folder: &Path, layer: &Layer, bounds: &Bounds) -> Result<Vec<u8>> {
    let path = folder.join(&layer.blob);
    // dedupe may have made a link of it.
    let real = match what_is_at(&path).map_err(|error| Error::io("read", &path, error))? {
        What::Link(text) => match bounds.follow(&path, &text) {
            Ok(Destination::Inside(inside)) => inside,
            Ok(Destination::Store(kept, _)) => kept.to_path_buf(),
            Err(fault) => return Err(damaged(&path, &reason_of(&fault))),
        },
        _ => path.clone(),
    };
    record::read(&real, LONGEST).map_err(|error| Error::io("read", &path, error))
}

fn text(folder: &Path, layer: &Layer, bounds: &Bounds) -> Result<String> {
    String::from_utf8(bytes(folder, layer, bounds)?)
        .map_err(|_| damaged(&folder.join(&layer.blob), "it is not UTF-8"))
}

fn json<T: serde::de::DeserializeOwned>(folder: &Path, layer: &Layer, bounds: &Bounds) -> Result<T> {
    serde_json::from_slice(&bytes(folder, layer, bounds)?)
        .map_err(|error| damaged(&folder.join(&layer.blob), &error.to_string()))
}
