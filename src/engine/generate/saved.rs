//! Prompt caches in files: what a model remembers of a conversation, to go on with it another time.
//!
//! A safetensors file. `__metadata__` has `format`, `model` (a digest of the weights), `settings` and
//! `tokens` (how many); the tensor `tokens` has their ids as uint32, the others are the cache's contents.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use mlx_rs::{Array, Dtype};
use serde_json::{Map, Value, json};

use super::Generator;
use crate::engine::ffi::array::dimensions;
use crate::engine::format::file::ModelFile;
use crate::engine::format::safetensors::{self, Header, TensorInfo};
use crate::error::{Code, Error, Result};
use crate::fs::TempFile;

const FORMAT: &str = "mlx-cache prompt 1";

/// What a saved cache must have been made with to be of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Digest of weights and adapter.
    pub model: String,
    /// Type and options of the cache.
    pub settings: String,
}

/// Types that a cache has, as safetensors and MLX name them.
const TYPES: [(safetensors::Dtype, Dtype); 4] = [
    (safetensors::Dtype::F32, Dtype::Float32),
    (safetensors::Dtype::F16, Dtype::Float16),
    (safetensors::Dtype::BF16, Dtype::Bfloat16),
    (safetensors::Dtype::U32, Dtype::Uint32),
];

impl Generator {
    /// Writes what is held to a file, whole or not at all: how many tokens. A file that is there must be
    /// a prompt cache too.
    pub fn save_cache(&mut self, path: &Path) -> Result<usize> {
        if path.exists() {
            header_of(path)?;
        }
        let mut arrays =
            vec![("tokens".to_owned(), Array::from_slice(&self.held, &[self.held.len() as i32]))];
        arrays.extend(self.cache.contents()?);
        let (mut header, mut at) = (Map::new(), 0u64);
        header.insert(
            "__metadata__".to_owned(),
            json!({"format": FORMAT, "model": self.identity.model, "settings": self.identity.settings}),
        );
        for (name, array) in &arrays {
            let dtype = TYPES
                .iter()
                .find(|(_, mlx)| *mlx == array.dtype())
                .ok_or_else(|| Error::internal(format!("a cache of {:?}", array.dtype())))?;
            let end = at + array.nbytes() as u64;
            header.insert(
                name.clone(),
                json!({"dtype": dtype.0.name(), "shape": array.shape(), "data_offsets": [at, end]}),
            );
            at = end;
        }
        let header = Value::Object(header).to_string();
        // A name alone has no folder of its own to write in and to make durable.
        let target = std::path::absolute(path).map_err(|error| Error::io("write", path, error))?;
        let mut temp = TempFile::create_in(target.parent().unwrap_or(Path::new("/")))?;
        let written = |error| Error::io("write", path, error);
        {
            let mut file = BufWriter::new(temp.file());
            file.write_all(&(header.len() as u64).to_le_bytes()).map_err(written)?;
            file.write_all(header.as_bytes()).map_err(written)?;
            for (_, array) in &arrays {
                let flat = array.reshape(&[-1])?.contiguous()?.view::<u8>()?;
                let bytes = flat.try_as_slice::<u8>();
                let bytes = bytes.map_err(|error| Error::internal(format!("a cache's bytes: {error}")))?;
                file.write_all(bytes).map_err(written)?;
            }
            file.flush().map_err(written)?;
        }
        temp.publish(&target, 0o600)?;
        Ok(self.held.len())
    }

    /// Takes over what [`save_cache`](Self::save_cache) wrote: how many tokens.
    ///
    /// # Errors
    /// INVALID_REQUEST for a file that is none or was made with another model or other settings,
    /// INTEGRITY_FAILED for a damaged one. Nothing is held then.
    pub fn restore_cache(&mut self, path: &Path) -> Result<usize> {
        self.clear();
        let (file, header) = header_of(path)?;
        let said = |key: &str| header.metadata.get(key).map(String::as_str).unwrap_or_default();
        for (key, own, what) in [
            ("model", &self.identity.model, "another model or adapter"),
            ("settings", &self.identity.settings, "other settings of the cache"),
        ] {
            if said(key) != own {
                return Err(Error::new(
                    Code::InvalidRequest,
                    format!("the prompt cache {} was made with {what}", path.display()),
                )
                .hint("give another file, or remove this one to have it made anew")
                .detail("path", path.display().to_string()));
            }
        }
        let damaged = |reason: &str| {
            Error::new(
                Code::IntegrityFailed,
                format!("the prompt cache {} is damaged: {reason}", path.display()),
            )
            .hint("remove it to have it made anew")
        };
        let mut arrays: BTreeMap<&str, Array> = BTreeMap::new();
        for (name, info) in &header.tensors {
            arrays.insert(name, read(&file, info)?.ok_or_else(|| damaged("a tensor has a type of its own"))?);
        }
        let tokens = arrays.remove("tokens").ok_or_else(|| damaged("it has no tokens"))?;
        let tokens: Vec<u32> = tokens
            .try_as_slice::<u32>()
            .map(<[u32]>::to_vec)
            .or_else(|error| if tokens.size() == 0 { Ok(Vec::new()) } else { Err(error) })
            .map_err(|_| damaged("its tokens are no list of ids"))?;
        if tokens.len() > self.context || tokens.iter().any(|&id| id as usize >= self.vocabulary) {
            return Err(damaged("it has tokens that the model or its context lacks"));
        }
        self.cache.restore(tokens.len(), |name| arrays.get(name).cloned())?;
        self.held = tokens;
        Ok(self.held.len())
    }
}

/// The header of a prompt cache.
fn header_of(path: &Path) -> Result<(ModelFile, Header)> {
    let file = ModelFile::open(path)?;
    let header = Header::read(&file)
        .ok()
        .filter(|header| header.metadata.get("format").is_some_and(|format| format == FORMAT));
    match header {
        Some(header) => Ok((file, header)),
        None => Err(Error::new(
            Code::InvalidRequest,
            format!("{} is no prompt cache that this version knows", path.display()),
        )
        .hint("give a file that --prompt-cache has written, or a new name")
        .detail("path", path.display().to_string())),
    }
}

/// One tensor; `None` for a type that no cache has.
fn read(file: &ModelFile, info: &TensorInfo) -> Result<Option<Array>> {
    let Some((_, dtype)) = TYPES.iter().find(|(stored, _)| *stored == info.dtype) else { return Ok(None) };
    let mut bytes = vec![0u8; info.bytes as usize];
    file.read_at(&mut bytes, info.offset)?;
    let shape = dimensions(&info.shape)?;
    if bytes.is_empty() {
        return Ok(Some(mlx_rs::ops::zeros_dtype(&shape, *dtype)?));
    }
    let length = dimensions(&[bytes.len()])?;
    Ok(Some(Array::from_slice(&bytes, &length).view_dtype(*dtype)?.reshape(&shape)?))
}
