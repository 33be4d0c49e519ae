//! Low-rank adapters (LoRA, arXiv:2106.09685) in files: mlx-lm's `adapters.safetensors` and PEFT's
//! `adapter_model.safetensors`, each beside its `adapter_config.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::engine::format::file::{damaged, read_small, unsupported};
use crate::engine::format::tensors::{Tensor, Tensors, text_name};
use crate::engine::format::weight::Floats;
use crate::error::{Code, Error, Result};

/// A configuration is a page of JSON.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
const WANTED: &str = "give the folder of an adapter that mlx-lm or PEFT has saved";

/// An opened adapter. Opening reads headers and configuration only.
#[derive(Debug)]
pub struct Adapter {
    folder: PathBuf,
    tensors: Tensors,
    scale: f32,
    /// The names of both tensors of each module, and whether they are PEFT's: transposed.
    modules: BTreeMap<String, [String; 2]>,
    transposed: bool,
}

/// What is added to a module's product: `b · (a · x)`, the scale inside of `b`.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    pub rank: usize,
    /// `[rank, columns]`.
    pub a: Vec<f32>,
    /// `[rows, rank]`.
    pub b: Vec<f32>,
}

impl LowRank {
    /// `b · a`, `[rows, columns]`.
    pub fn product(&self) -> Vec<f32> {
        let columns = self.a.len() / self.rank.max(1);
        let mut product = vec![0.0; self.b.len() / self.rank.max(1) * columns];
        for (row, factors) in product.chunks_exact_mut(columns.max(1)).zip(self.b.chunks_exact(self.rank)) {
            for (factor, a) in factors.iter().zip(self.a.chunks_exact(columns.max(1))) {
                row.iter_mut().zip(a).for_each(|(value, a)| *value += factor * a);
            }
        }
        product
    }
}

/// Sizes of what is added to a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LowRankShape {
    /// Matrices that have such a part each, in tensors of three dimensions; `None`: one matrix.
    pub experts: Option<usize>,
    pub rank: usize,
    pub rows: usize,
    pub columns: usize,
}

/// What both tools write into adapter_config.json, as far as it matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    fine_tune_type: Option<String>,
    lora_parameters: Option<Parameters>,
    peft_type: Option<String>,
    r: Option<u32>,
    lora_alpha: Option<f64>,
    use_rslora: bool,
    use_dora: bool,
    rank_pattern: Option<BTreeMap<String, serde_json::Value>>,
    alpha_pattern: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(Debug, Deserialize)]
struct Parameters {
    scale: Option<f64>,
}

impl Adapter {
    /// Opens the folder of an adapter, or a file in it.
    ///
    /// # Errors
    /// FILE_NOT_FOUND without the files, INTEGRITY_FAILED for damaged ones, MODEL_UNSUPPORTED for
    /// kinds of adapters other than LoRA.
    pub fn open(path: &Path) -> Result<Self> {
        let folder = if path.is_file() { path.parent().unwrap_or(path) } else { path };
        let config_path = folder.join("adapter_config.json");
        let config: Config = {
            let bytes = read_small(&config_path, MAX_CONFIG_BYTES).map_err(|error| match error.code() {
                Code::FileNotFound => error.hint(WANTED),
                _ => error,
            })?;
            serde_json::from_slice(&bytes).map_err(|error| damaged(&config_path, &error.to_string()))?
        };
        let (file, transposed) = if folder.join("adapters.safetensors").exists() {
            (folder.join("adapters.safetensors"), false)
        } else {
            (folder.join("adapter_model.safetensors"), true)
        };
        if !file.exists() {
            return Err(Error::new(
                Code::FileNotFound,
                format!("{} has no adapters.safetensors and no adapter_model.safetensors", folder.display()),
            )
            .hint(WANTED));
        }
        let scale = config.scale(&config_path)?;
        let tensors = Tensors::open_safetensors(&[&file], &BTreeMap::new(), &file)?;
        let modules = modules(&tensors, &file)?;
        Ok(Self { folder: folder.to_owned(), tensors, scale, modules, transposed })
    }

    /// The folder, for messages.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// The modules that it changes, with the sizes of what it adds to them.
    ///
    /// # Errors
    /// INVALID_REQUEST for parts that do not fit each other.
    pub fn shapes(&self) -> impl Iterator<Item = Result<(&str, LowRankShape)>> {
        self.modules.iter().map(|(module, names)| Ok((module.as_str(), self.shape(module, names)?)))
    }

    fn shape(&self, module: &str, [a, b]: &[String; 2]) -> Result<LowRankShape> {
        let (a, b) = (self.tensors.require(a)?, self.tensors.require(b)?);
        if let (&[experts, rank, columns], &[same, rows, of]) = (a.shape.as_slice(), b.shape.as_slice())
            && (experts, rank) == (same, of)
            && rank > 0
        {
            return Ok(LowRankShape { experts: Some(experts), rank, rows, columns });
        }
        let [mut a_shape, mut b_shape] = [matrix(a), matrix(b)];
        if !self.transposed {
            // mlx-lm writes a as [columns, rank], b as [rank, rows].
            (a_shape, b_shape) = (a_shape.map(swap), b_shape.map(swap));
        }
        match (a_shape, b_shape) {
            (Some((rank, columns)), Some((rows, of))) if of == rank && rank > 0 => {
                Ok(LowRankShape { experts: None, rank, rows, columns })
            }
            _ => Err(self.misfit(&format!("of {module} it has {:?} and {:?}", a.shape, b.shape))),
        }
    }

    /// Adds what it is known by to a digest.
    pub fn add_to(&self, digest: &mut Sha256) -> Result<()> {
        digest.update(self.scale.to_le_bytes());
        self.tensors.add_to(digest)
    }

    /// What it adds to the module `[rows, columns]`; `None` if it leaves it as it is.
    ///
    /// # Errors
    /// INVALID_REQUEST when the shapes do not fit the module.
    pub fn of(&self, module: &str, rows: usize, columns: usize) -> Result<Option<LowRank>> {
        self.part(module, None, rows, columns)
    }

    /// What it adds to the matrices `[rows, columns]` of so many experts, which mlx-lm has in one tensor; `None`
    /// if it leaves them as they are.
    ///
    /// # Errors
    /// INVALID_REQUEST when the shapes do not fit.
    pub fn of_experts(
        &self,
        module: &str,
        count: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Option<LowRank>> {
        self.part(module, Some(count), rows, columns)
    }

    fn part(
        &self,
        module: &str,
        count: Option<usize>,
        rows: usize,
        columns: usize,
    ) -> Result<Option<LowRank>> {
        let Some(names) = self.modules.get(module) else { return Ok(None) };
        let LowRankShape { experts, rank, rows: high, columns: wide } = self.shape(module, names)?;
        if (experts, high, wide) != (count, rows, columns) {
            let times = |count: Option<usize>| count.map_or(String::new(), |count| format!("{count} times "));
            return Err(self.misfit(&format!(
                "{module} is {}[{rows}, {columns}], for which it has {}[{high}, {rank}] and [{rank}, {wide}]",
                times(count),
                times(experts),
            )));
        }
        let [mut a, mut b] = [self.floats(&names[0])?, self.floats(&names[1])?];
        if experts.is_none() && !self.transposed {
            (a, b) = (turned(&a, columns, rank), turned(&b, rank, rows));
        }
        for value in &mut b {
            *value *= self.scale;
        }
        Ok(Some(LowRank { rank, a, b }))
    }

    /// An error unless every module that it changes is among those `used`.
    pub fn check_used(&self, used: &BTreeSet<String>) -> Result<()> {
        match self.modules.keys().find(|module| !used.contains(*module)) {
            None => Ok(()),
            Some(module) => Err(self.misfit(&format!("it changes {module}, which cannot be adapted here"))),
        }
    }

    fn misfit(&self, reason: &str) -> Error {
        Error::new(
            Code::InvalidRequest,
            format!("the adapter {} does not fit the model: {reason}", self.folder.display()),
        )
        .hint(
            "give the adapter of this very model; embeddings and experts in fused matrices cannot be adapted",
        )
    }

    fn floats(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.tensors.require(name)?;
        let path = self.tensors.path_of(tensor);
        let dtype = tensor.encoding.float().ok_or_else(|| {
            unsupported(path, &format!("has tensor {name:?} of type {}", tensor.encoding.name()))
        })?;
        let values = Floats { dtype, bytes: self.tensors.read(tensor)? }.to_f32();
        if values.iter().all(|value| value.is_finite()) {
            return Ok(values);
        }
        Err(damaged(path, &format!("has values in {name:?} that are infinite or not a number")))
    }
}

impl Config {
    fn scale(&self, path: &Path) -> Result<f32> {
        let kind = self.fine_tune_type.as_deref().or(self.peft_type.as_deref()).unwrap_or("lora");
        let patterns = [&self.rank_pattern, &self.alpha_pattern];
        if !kind.eq_ignore_ascii_case("lora") || self.use_dora {
            let kind = if self.use_dora { "DoRA" } else { kind };
            return Err(unsupported(path, &format!("describes an adapter of the kind {kind}"))
                .hint("LoRA adapters are supported: merge others into the model first"));
        }
        if patterns.iter().any(|pattern| pattern.as_ref().is_some_and(|it| !it.is_empty())) {
            return Err(unsupported(path, "gives modules ranks of their own"));
        }
        let scale = match (&self.lora_parameters, self.r, self.lora_alpha) {
            (Some(parameters), ..) => parameters.scale,
            (None, Some(rank), Some(alpha)) if rank > 0 => {
                let rank = f64::from(rank);
                Some(alpha / if self.use_rslora { rank.sqrt() } else { rank })
            }
            _ => None,
        };
        scale
            .map(|scale| scale as f32)
            .filter(|scale| scale.is_finite())
            .ok_or_else(|| damaged(path, "has neither lora_parameters.scale nor r and lora_alpha"))
    }
}

/// The tensors of each module. All must belong to one.
fn modules(tensors: &Tensors, path: &Path) -> Result<BTreeMap<String, [String; 2]>> {
    let mut found: BTreeMap<String, [Option<String>; 2]> = BTreeMap::new();
    for (name, _) in tensors.iter() {
        let (module, which) = part(name).ok_or_else(|| {
            unsupported(path, &format!("has tensor {name:?}, which is no part of a LoRA adapter"))
        })?;
        let module = text_name(module).unwrap_or_else(|| module.to_owned());
        found.entry(module).or_default()[which] = Some(name.to_owned());
    }
    if found.is_empty() {
        return Err(damaged(path, "has no tensors"));
    }
    found
        .into_iter()
        .map(|(module, parts)| match parts {
            [Some(a), Some(b)] => Ok((module, [a, b])),
            _ => Err(damaged(path, &format!("has only one of the two tensors of {module}"))),
        })
        .collect()
}

/// The module that a tensor belongs to, and 0 for its a, 1 for its b.
fn part(name: &str) -> Option<(&str, usize)> {
    const ENDS: [(&str, usize); 6] = [
        (".lora_a", 0),
        (".lora_b", 1),
        (".lora_A.weight", 0),
        (".lora_B.weight", 1),
        (".lora_A.default.weight", 0),
        (".lora_B.default.weight", 1),
    ];
    let (module, which) = ENDS.iter().find_map(|(end, which)| Some((name.strip_suffix(end)?, *which)))?;
    Some((module.strip_prefix("base_model.model.").unwrap_or(module), which))
}

fn matrix(tensor: &Tensor) -> Option<(usize, usize)> {
    match tensor.shape[..] {
        [rows, columns] => Some((rows, columns)),
        _ => None,
    }
}

fn swap((rows, columns): (usize, usize)) -> (usize, usize) {
    (columns, rows)
}

/// A matrix `[rows, columns]`, transposed.
fn turned(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}
