//! A model's weights and configuration, the same whatever files they are in.
//!
//! Names are those of Hugging Face checkpoints. Everything is read by position through `&self`, so
//! several threads may read at once.

mod on_load;
mod rows;
mod small_floats;

pub use rows::MatrixRows;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::engine::config::style::{Experts, Mixer, NormKind};
use crate::engine::config::{self, Affine, ConfigFiles, ModelConfig, Packing};
use crate::engine::format::adapter::Adapter;
use crate::engine::format::file::{damaged, unsupported};
use crate::engine::format::inventory::{self, Needed};
use crate::engine::format::layout::Layout;
use crate::engine::format::metadata::Metadata;
use crate::engine::format::safetensors::Dtype;
use crate::engine::format::sizes::{Storage, WeightSizes};
use crate::engine::format::tensors::{self, Encoding, Tensor, Tensors};
use crate::engine::format::unpack::Form;
use crate::engine::format::weight::{CodeTable, FloatType, Floats, WeightData};
use crate::engine::models::names;
use crate::error::{Error, Result};
use crate::ids;

/// Where a checkpoint came from.
#[derive(Debug)]
pub enum Origin {
    /// A folder, which has its tokenizer and chat template in files beside the weights.
    Folder(PathBuf),
    /// A GGUF file, which has them in its metadata.
    Gguf { path: PathBuf, metadata: Metadata },
}

/// A configuration that is read, but not yet understood.
pub(in crate::engine) enum Configuration {
    Folder(ConfigFiles, PathBuf),
    Gguf { path: PathBuf, metadata: Metadata },
}

impl Configuration {
    /// Opens a folder or a .gguf file: its tensors and its configuration.
    pub(in crate::engine) fn open(path: &Path) -> Result<(Tensors, Self)> {
        let layout = Layout::find(path)?;
        let (tensors, metadata) = tensors::open(&layout)?;
        let configuration = match (layout, metadata) {
            (Layout::Gguf(path), Some(metadata)) => Self::Gguf { path, metadata },
            (Layout::Safetensors { folder, .. } | Layout::Gguf(folder), _) => {
                Self::Folder(ConfigFiles::read(&folder)?, folder)
            }
        };
        Ok((tensors, configuration))
    }
}

/// An opened checkpoint. Opening reads headers and configuration only.
#[derive(Debug)]
pub struct Checkpoint {
    pub config: ModelConfig,
    pub origin: Origin,
    tensors: Tensors,
    /// How matrices of floats are packed while they are read.
    on_load: Option<Packing>,
    /// Columns of each matrix that the model needs, by module.
    columns: BTreeMap<String, usize>,
}

impl Checkpoint {
    /// Opens a folder or a .gguf file.
    ///
    /// Every tensor that the model needs is there and has the right shape when this succeeds.
    ///
    /// # Errors
    /// INTEGRITY_FAILED for damaged or missing files, MODEL_UNSUPPORTED for a model or an element
    /// type that the engine lacks, FILE_NOT_FOUND where there is no model.
    pub fn open(path: &Path) -> Result<Self> {
        let (tensors, configuration) = Configuration::open(path)?;
        Self::assemble(tensors, configuration)
    }

    /// Understands the configuration and checks the tensors against it.
    pub(in crate::engine) fn assemble(tensors: Tensors, configuration: Configuration) -> Result<Self> {
        Self::assemble_with(tensors, configuration, true)
    }

    /// The same for a model of which only the hidden states are wanted: it needs no head.
    pub(in crate::engine) fn assemble_headless(
        tensors: Tensors,
        configuration: Configuration,
    ) -> Result<Self> {
        Self::assemble_with(tensors, configuration, false)
    }

    fn assemble_with(tensors: Tensors, configuration: Configuration, with_head: bool) -> Result<Self> {
        let (mut config, origin) = match configuration {
            Configuration::Gguf { path, metadata } => {
                let config = config::from_gguf(&metadata, &tensors)?;
                (config, Origin::Gguf { path, metadata })
            }
            Configuration::Folder(files, folder) => {
                let has_head = tensors.get("lm_head.weight").is_some();
                let mut config = config::from_config_json(&files, has_head, tensors.stored_float())?;
                // mlx-lm adds the one to norms of models whose convolutions it turns round.
                if config.style.norm == NormKind::RmsPlusOne && has_mlx_convolution(&config, &tensors) {
                    config.style.norm = NormKind::Rms;
                }
                if let Some(experts) = turned_experts(&config, &tensors) {
                    config.experts = Some(experts);
                }
                (config, Origin::Folder(folder))
            }
        };
        // A head that is the embedding needs no tensors of its own.
        config.tie_word_embeddings |= !with_head;
        let mut checkpoint = Self { config, origin, tensors, on_load: None, columns: BTreeMap::new() };
        // Checked one by one: a list of what an absurd configuration needs might not fit the memory.
        checkpoint.needed().try_for_each(|needed| checkpoint.check(&needed))?;
        let columns = checkpoint.needed().filter_map(|needed| match needed {
            Needed::Matrix { module, columns, .. } => Some((module, columns)),
            Needed::Vector { .. } | Needed::Conv { .. } => None,
        });
        checkpoint.columns = columns.collect();
        Ok(checkpoint)
    }

    /// Every tensor that the model reads.
    pub fn needed(&self) -> impl Iterator<Item = Needed> + '_ {
        inventory::needed(&self.config, |module| self.contains(&format!("{module}.weight")))
    }

    /// Names of all tensors.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|(name, _)| name)
    }

    /// Whether there is a tensor of this full name, such as `model.norm.weight`.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.get(name).is_some()
    }

    /// The shape of a tensor as stored, by its full name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| tensor.shape.as_slice())
    }

    /// Bytes of a module's matrix in the files, with what belongs to its packing.
    pub fn stored_bytes(&self, module: &str) -> u64 {
        let parts = ["weight", "scales", "biases"].iter().chain(&small_floats::SCALES);
        parts.filter_map(|part| Some(self.tensors.get(&format!("{module}.{part}"))?.bytes)).sum()
    }

    /// Every tensor of the files.
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// Size of the weight files in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.tensors.file_bytes()
    }

    /// The folder or file, for messages.
    pub fn path(&self) -> &Path {
        match &self.origin {
            Origin::Folder(path) | Origin::Gguf { path, .. } => path,
        }
    }

    /// Metadata of a GGUF file; `None` for a folder.
    pub fn metadata(&self) -> Option<&Metadata> {
        match &self.origin {
            Origin::Gguf { metadata, .. } => Some(metadata),
            Origin::Folder(_) => None,
        }
    }

    /// What the weights, with an adapter to them, are known by: a digest of names, shapes and the first
    /// kilobyte of each tensor. Reads little; weights that were trained on differ from the first byte on.
    pub fn digest(&self, adapter: Option<&Adapter>) -> Result<String> {
        let mut digest = Sha256::new();
        self.tensors.add_to(&mut digest)?;
        if let Some(adapter) = adapter {
            adapter.add_to(&mut digest)?;
        }
        if let Some(packing) = self.on_load {
            digest.update(packing.to_string());
        }
        Ok(ids::Digest::from_bytes(digest.finalize().into()).to_string())
    }

    /// Sizes for the memory gate.
    pub fn sizes(&self) -> WeightSizes {
        let mut sizes = WeightSizes::default();
        for needed in self.needed() {
            match needed {
                Needed::Matrix { module, rows, columns, by_heads: true } => {
                    sizes.add_unpacked(rows, columns, self.storage(&module, columns));
                }
                Needed::Matrix { module, rows, columns, .. } => {
                    let (rows, columns) = self.turned(&module, rows, columns);
                    sizes.add_matrix(rows, columns, self.storage(&module, columns));
                }
                Needed::Vector { size, .. } => sizes.add_vector(size),
                Needed::Conv { channels, width, .. } => sizes.add_vector(channels * width),
            }
        }
        sizes
    }

    /// How a matrix lies in its file; `None` if it cannot be read.
    fn storage(&self, module: &str, columns: usize) -> Option<Storage> {
        let tensor = self.tensors.get(&format!("{module}.weight"))?;
        if let Some(float) = tensor.encoding.float() {
            let target = self.on_load.and_then(|asked| self.target(asked, module, columns));
            return Some(match target {
                None => Storage::Dense(float),
                Some(Packing::Affine(affine)) => Storage::Affine { affine, scale: float },
                Some(Packing::BlockFloat(mode)) => Storage::BlockFloat(mode),
            });
        }
        match tensor.encoding {
            Encoding::Ggml(kind) => Form::of(kind).map(Storage::Blocks),
            Encoding::Safetensors(Dtype::F8E4M3) => {
                let is_grouped = self.small_floats(module, tensor).is_ok_and(|small| small.is_grouped());
                Some(if is_grouped && !self.is_transposed(module) {
                    Storage::Blocks(Form::Codes(CodeTable::Fp8))
                } else {
                    Storage::Dense(FloatType::F32)
                })
            }
            Encoding::Safetensors(_) => {
                let packed = self.packing(module, tensor, Some(columns)).ok()?;
                Some(match packed.packing {
                    Packing::Affine(affine) => {
                        Storage::Affine { affine, scale: packed.scales.encoding.float()? }
                    }
                    Packing::BlockFloat(mode) => Storage::BlockFloat(mode),
                })
            }
        }
    }

    /// The matrix of a linear or embedding module, such as `model.layers.0.self_attn.q_proj`:
    /// packed if the checkpoint has it so, dense otherwise.
    pub fn weight(&self, module: &str) -> Result<WeightData> {
        if let Some(matrix) = self.rows(module)? {
            return matrix.read(0..matrix.rows());
        }
        let tensor = self.tensors.require(&format!("{module}.weight"))?;
        match tensor.encoding {
            Encoding::Safetensors(Dtype::F8E4M3) => self.read_small_floats(module, tensor),
            _ => self.packed_on_load(module, tensor),
        }
    }

    /// A norm, a bias or another small tensor as float32, by its full name.
    pub fn vector(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.tensors.require(name)?;
        Ok(self.floats(name, tensor)?.to_f32())
    }

    fn floats(&self, name: &str, tensor: &Tensor) -> Result<Floats> {
        floats(&self.tensors, name, tensor)
    }

    /// How a module is packed: its tensors must fit one another and what config.json says.
    ///
    /// Where config.json names the module, that counts; where it gives only a default that does not
    /// fit, the shapes tell the packing, as in mlx-lm.
    fn packing(&self, module: &str, tensor: &Tensor, columns: Option<usize>) -> Result<Packed<'_>> {
        let name = format!("{module}.weight");
        let path = self.tensors.path_of(tensor);
        let quantization = self.config.quantization.as_ref();
        let declared = quantization.and_then(|packing| packing.of(module)).ok_or_else(|| {
            damaged(path, &format!("has the packed tensor {name:?}, but config.json does not say how"))
        })?;
        let (rows, words) = packed_words(&name, tensor, path)?;
        let scales_name = format!("{module}.scales");
        let scales = self.tensors.require(&scales_name)?;
        let (scale_rows, groups) = matrix(&scales_name, scales, path)?;
        let named = quantization.is_some_and(|packing| packing.overrides.contains_key(module));
        if scales.encoding == Encoding::Safetensors(Dtype::U8) {
            let Packing::BlockFloat(mode) = declared else {
                let reason =
                    format!("has scales of small floats for {name:?}, which config.json does not say");
                return Err(damaged(path, &reason));
            };
            let columns = columns.unwrap_or(groups.saturating_mul(mode.group()));
            let fits = scale_rows == rows
                && Some(columns) == groups.checked_mul(mode.group())
                && columns.checked_mul(mode.bits()) == words.checked_mul(32);
            if !fits {
                return Err(no_fit(path, &name, (words, groups, columns), mode.bits(), mode.group()));
            }
            let packing = Packing::BlockFloat(mode);
            return Ok(Packed { rows, columns, packing, scales, biases: None });
        }
        let biases = self.tensors.require(&format!("{module}.biases"))?;
        if scales.shape != biases.shape || scale_rows != rows {
            return Err(damaged(
                path,
                &format!(
                    "has scales {:?} and biases {:?} for {rows} rows of {name:?}",
                    scales.shape, biases.shape
                ),
            ));
        }
        let Affine { group, bits } = match declared {
            Packing::Affine(affine) => affine,
            Packing::BlockFloat(mode) => Affine { group: mode.group(), bits: mode.bits() },
        };
        let columns = columns.unwrap_or(groups.saturating_mul(group));
        match Affine::fitting(columns, words, groups) {
            Some(affine) if Packing::Affine(affine) == declared || !named => {
                let packing = Packing::Affine(affine);
                Ok(Packed { rows, columns, packing, scales, biases: Some(biases) })
            }
            _ => Err(no_fit(path, &name, (words, groups, columns), bits, group)),
        }
    }

    /// Checks one needed tensor without reading it.
    fn check(&self, needed: &Needed) -> Result<()> {
        let (name, expected) = match needed {
            Needed::Matrix { module, rows, columns, .. } => {
                (&format!("{module}.weight"), vec![*rows, *columns])
            }
            Needed::Vector { name, size, rows: 1 } => (name, vec![*size]),
            Needed::Vector { name, size, rows } => (name, vec![*rows, size / rows]),
            Needed::Conv { name, channels, width } => (name, vec![*channels, *width]),
        };
        let tensor = self.tensors.require(name)?;
        let path = self.tensors.path_of(tensor);
        let shape = match (needed, tensor.encoding) {
            (Needed::Vector { .. }, encoding) if encoding.float().is_some() => tensor.shape.clone(),
            (Needed::Conv { .. }, encoding) if encoding.float().is_some() => without_one(&tensor.shape),
            (Needed::Matrix { .. }, encoding) if encoding.float().is_some() => flat(&tensor.shape),
            (Needed::Matrix { .. }, Encoding::Ggml(kind)) if Form::of(kind).is_some() => flat(&tensor.shape),
            (Needed::Matrix { module, columns, .. }, Encoding::Safetensors(Dtype::U32 | Dtype::U8)) => {
                let packed = self.packing(module, tensor, Some(*columns))?;
                vec![packed.rows, packed.columns]
            }
            (Needed::Matrix { module, .. }, Encoding::Safetensors(Dtype::F8E4M3)) => {
                let small = self.small_floats(module, tensor)?;
                vec![small.rows, small.columns]
            }
            _ => return Err(element_unsupported(name, tensor, path)),
        };
        if shape != expected {
            return Err(damaged(
                path,
                &format!("has tensor {name:?} of shape {shape:?}, the configuration needs {expected:?}"),
            ));
        }
        Ok(())
    }
}

/// Whether the first convolution of a model has its taps where MLX wants them.
fn has_mlx_convolution(config: &ModelConfig, tensors: &Tensors) -> bool {
    let first = config.plan.iter().position(|layer| layer.mixer == Mixer::Recurrent);
    let tensor =
        first.and_then(|layer| tensors.get(&format!("model.layers.{layer}.{}.weight", names::DELTA.conv)));
    tensor.is_some_and(|tensor| matches!(tensor.shape[..], [_, width, 1] if width > 1))
}

/// The experts of a model whose fused matrices are `[experts, columns, rows]`, where that has no name of its own.
fn turned_experts(config: &ModelConfig, tensors: &Tensors) -> Option<Experts> {
    let (names, experts) = (&config.architecture.names.experts, config.experts?);
    let [gate_up, _] = names.transposed.filter(|transposed| *transposed == names.fused)?;
    let layer = config.plan.iter().position(|layer| layer.sparse)?;
    let tensor = tensors.get(&format!("model.layers.{layer}.{gate_up}.weight"))?;
    let (turned, plain) = (config.hidden_size, 2 * experts.intermediate_size);
    let is_turned = tensor.shape.get(1..) == Some(&[turned, plain]) && turned != plain;
    is_turned.then_some(Experts { turned: true, ..experts })
}

/// A packed module whose tensors fit one another.
#[derive(Clone)]
struct Packed<'a> {
    rows: usize,
    columns: usize,
    packing: Packing,
    scales: &'a Tensor,
    /// Of affine ones.
    biases: Option<&'a Tensor>,
}

fn no_fit(
    path: &Path,
    name: &str,
    (words, groups, columns): (usize, usize, usize),
    bits: usize,
    group: usize,
) -> Error {
    damaged(
        path,
        &format!(
            "has {words} words and {groups} scales for each {columns} elements of {name:?}, which is not {bits} bits in groups of {group}"
        ),
    )
}

/// Rows and words a row of a packed tensor: 32-bit words, or bytes by groups `[.., rows, groups, bytes]`.
fn packed_words(name: &str, tensor: &Tensor, path: &Path) -> Result<(usize, usize)> {
    match (tensor.encoding, tensor.shape.as_slice()) {
        (Encoding::Safetensors(Dtype::U8), [.., rows, groups, bytes]) => {
            let before = &tensor.shape[..tensor.shape.len() - 3];
            let rows = before.iter().fold(*rows, |all, &one| all.saturating_mul(one));
            let row = groups.saturating_mul(*bytes);
            if !row.is_multiple_of(4) {
                return Err(damaged(path, &format!("has {row} bytes a row of {name:?}, no whole words")));
            }
            Ok((rows, row / 4))
        }
        _ => matrix(name, tensor, path),
    }
}

/// Rows and columns of a matrix.
fn matrix(name: &str, tensor: &Tensor, path: &Path) -> Result<(usize, usize)> {
    match flat(&tensor.shape).as_slice() {
        [rows, columns] => Ok((*rows, *columns)),
        other => Err(damaged(path, &format!("has tensor {name:?} of shape {other:?}, not a matrix"))),
    }
}

/// The matrices of several experts as one below the other; other shapes as they are.
fn flat(shape: &[usize]) -> Vec<usize> {
    match *shape {
        [experts, rows, columns] => vec![experts.saturating_mul(rows), columns],
        _ => shape.to_vec(),
    }
}

/// The shape of a convolution's taps without the one that MLX has at its end, and others in its middle.
fn without_one(shape: &[usize]) -> Vec<usize> {
    match *shape {
        [channels, width, 1] | [channels, 1, width] => vec![channels, width],
        _ => shape.to_vec(),
    }
}

fn floats(tensors: &Tensors, name: &str, tensor: &Tensor) -> Result<Floats> {
    let dtype =
        tensor.encoding.float().ok_or_else(|| element_unsupported(name, tensor, tensors.path_of(tensor)))?;
    Ok(Floats { dtype, bytes: tensors.read(tensor)? })
}

fn element_unsupported(name: &str, tensor: &Tensor, path: &Path) -> Error {
    let hint = match tensor.encoding {
        Encoding::Ggml(_) => {
            "supported are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS and MXFP4: get one of these files"
        }
        Encoding::Safetensors(_) => "supported are F32, F16 and BF16, and MLX's quantizations",
    };
    unsupported(path, &format!("has tensor {name:?} of type {}", tensor.encoding.name()))
        .hint(hint)
        .detail("tensor", name)
        .detail("type", tensor.encoding.name())
}

/// `None` where a code of an eight-bit float is no number.
fn check_codes(codes: &[u8]) -> Option<()> {
    codes.iter().all(|code| code & 0x7f != 0x7f).then_some(())
}

fn not_finite(name: &str, path: &Path) -> Error {
    damaged(path, &format!("has scales in {name:?} that are infinite or not a number"))
}
