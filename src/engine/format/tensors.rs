//! All tensors of a checkpoint under their Hugging Face names, whatever the files are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

#[cfg(target_os = "linux")]
use crate::engine::ffi::Region;
use crate::engine::format::file::{ModelFile, damaged};
use crate::engine::format::ggml_type::GgmlType;
use crate::engine::format::layout::Layout;
use crate::engine::format::metadata::Metadata;
use crate::engine::format::parts::OpenPart;
use crate::engine::format::safetensors::Dtype;
use crate::engine::format::unpack::Form;
use crate::engine::format::weight::FloatType;
use crate::engine::format::{parts, safetensors};
use crate::engine::models;
use crate::engine::models::names::{self, LATENT, LAYER_INPUTS, Names};
use crate::error::{Code, Result};

/// How a tensor's elements lie in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    Safetensors(Dtype),
    Ggml(GgmlType),
}

impl Encoding {
    /// The name that the format gives the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Safetensors(dtype) => dtype.name(),
            Self::Ggml(kind) => kind.name(),
        }
    }

    /// The float type, if it is one that the engine computes with.
    pub fn float(self) -> Option<FloatType> {
        match self {
            Self::Safetensors(Dtype::F32) | Self::Ggml(GgmlType::F32) => Some(FloatType::F32),
            Self::Safetensors(Dtype::F16) | Self::Ggml(GgmlType::F16) => Some(FloatType::F16),
            Self::Safetensors(Dtype::BF16) | Self::Ggml(GgmlType::BF16) => Some(FloatType::BF16),
            _ => None,
        }
    }
}

/// One tensor and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    pub encoding: Encoding,
    /// Row-major, outermost dimension first.
    pub shape: Vec<usize>,
    /// Position in the list of files.
    pub file: usize,
    pub offset: u64,
    pub bytes: u64,
}

/// The tensors of a checkpoint. Opening reads headers only.
#[derive(Debug)]
pub struct Tensors {
    files: Vec<ModelFile>,
    /// The folder of a safetensors model in several files, else the only or first file.
    main_path: PathBuf,
    entries: BTreeMap<String, Tensor>,
}

impl Tensors {
    /// Opens the files of a safetensors layout: every tensor of the index is where the index says.
    pub fn open_safetensors(
        shards: &[impl AsRef<Path>],
        weight_map: &BTreeMap<String, usize>,
        index: &Path,
    ) -> Result<Self> {
        let mut files = Vec::with_capacity(shards.len());
        let mut entries: BTreeMap<String, Tensor> = BTreeMap::new();
        for (position, shard) in shards.iter().enumerate() {
            let shard = shard.as_ref();
            let file = ModelFile::open(shard).map_err(|error| match error.code() {
                Code::FileNotFound => damaged(shard, "is missing, a shard of the model"),
                _ => error,
            })?;
            for (name, info) in safetensors::Header::read(&file)?.tensors {
                let claimed = weight_map.get(&name);
                if claimed.is_some_and(|&claimed| claimed != position) {
                    continue;
                }
                let tensor = Tensor {
                    encoding: Encoding::Safetensors(info.dtype),
                    shape: info.shape,
                    file: position,
                    offset: info.offset,
                    bytes: info.bytes,
                };
                if entries.contains_key(&name) {
                    return Err(damaged(shard, &format!("has tensor {name:?} that another shard has too")));
                }
                entries.insert(name, tensor);
            }
            files.push(file);
        }
        if let Some((name, _)) = weight_map.iter().find(|(name, _)| !entries.contains_key(*name)) {
            return Err(damaged(index, &format!("names tensor {name:?}, which its file does not have")));
        }
        let entries = text_entries(entries);
        let entries = entries.into_iter().map(|(name, tensor)| (expert_name(&name).unwrap_or(name), tensor));
        let main_path = match files.as_slice() {
            [one] => one.path(),
            several => several.first().and_then(|file| file.path().parent()).unwrap_or(Path::new("")),
        };
        Ok(Self { main_path: main_path.to_owned(), files, entries: entries.collect() })
    }

    /// The tensors of an open GGUF model, renamed.
    pub fn of_gguf(parts: Vec<OpenPart>, names: &Names) -> Result<Self> {
        let main_path = parts.first().map(|(file, _)| file.path().to_owned()).unwrap_or_default();
        let mut files = Vec::with_capacity(parts.len());
        let mut entries = BTreeMap::new();
        for (position, (file, tensors)) in parts.into_iter().enumerate() {
            for (name, info) in tensors {
                let tensor = Tensor {
                    encoding: Encoding::Ggml(info.kind),
                    shape: shape_of(&name, info.shape),
                    file: position,
                    offset: info.offset,
                    bytes: info.bytes,
                };
                let renamed = checkpoint_name(&name, names).unwrap_or_else(|| name.clone());
                if entries.insert(renamed, tensor).is_some() {
                    return Err(damaged(file.path(), &format!("has tensor {name:?} under two names")));
                }
            }
            files.push(file);
        }
        Ok(Self { files, main_path, entries })
    }

    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.entries.get(name)
    }

    /// A tensor that must be there: INTEGRITY_FAILED naming the file and the tensor if it is not.
    pub fn require(&self, name: &str) -> Result<&Tensor> {
        self.get(name).ok_or_else(|| damaged(self.main_path(), &format!("has no tensor {name:?}")))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The file a tensor is in.
    pub fn path_of(&self, tensor: &Tensor) -> &Path {
        self.files.get(tensor.file).map_or(Path::new(""), ModelFile::path)
    }

    /// Paths of all files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(ModelFile::path)
    }

    /// The folder of a safetensors model in several files, else the only or first file.
    pub fn main_path(&self) -> &Path {
        &self.main_path
    }

    /// The float type that the model was stored in: of the embedding, or of its scales where it is
    /// packed (float16 in a GGUF); `None` for other types.
    pub fn stored_float(&self) -> Option<FloatType> {
        let embedding = "model.embed_tokens";
        let scales = self.get(&format!("{embedding}.scales"));
        match scales.or_else(|| self.get(&format!("{embedding}.weight")))?.encoding {
            Encoding::Ggml(kind) if Form::of(kind).is_some() => Some(FloatType::F16),
            other => other.float(),
        }
    }

    /// Size of all weight files in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(ModelFile::bytes).sum()
    }

    /// Adds names, shapes and the first bytes of all tensors to a digest.
    pub fn add_to(&self, digest: &mut Sha256) -> Result<()> {
        const FIRST: u64 = 1024;
        for (name, tensor) in self.iter() {
            digest.update(format!("{name} {:?} {} ", tensor.shape, tensor.encoding.name()));
            let mut bytes = vec![0; tensor.bytes.min(FIRST) as usize];
            self.read_into(tensor, &mut bytes)?;
            digest.update(&bytes);
        }
        Ok(())
    }

    /// A tensor's bytes where they lie, see [`ModelFile::region`].
    #[cfg(target_os = "linux")]
    pub fn region(&self, tensor: &Tensor) -> Option<Region> {
        self.files.get(tensor.file)?.region(tensor.offset, tensor.bytes)
    }

    /// Reads a tensor's bytes into `buffer`, which has their length.
    pub fn read_into(&self, tensor: &Tensor, buffer: &mut [u8]) -> Result<()> {
        match self.files.get(tensor.file) {
            Some(file) => file.read_at(buffer, tensor.offset),
            None => Ok(()),
        }
    }

    /// Reads a tensor's bytes in order, at most `piece` at a time.
    pub fn read_pieces(
        &self,
        tensor: &Tensor,
        piece: usize,
        mut use_piece: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let Some(file) = self.files.get(tensor.file) else {
            return Ok(());
        };
        let mut buffer = vec![0; piece.min(tensor.bytes as usize)];
        let mut done = 0;
        while done < tensor.bytes {
            let left = usize::try_from(tensor.bytes - done).unwrap_or(usize::MAX);
            let size = buffer.len().min(left);
            file.read_at(&mut buffer[..size], tensor.offset + done)?;
            use_piece(&buffer[..size])?;
            done += size as u64;
        }
        Ok(())
    }

    /// Reads a tensor's bytes.
    pub fn read(&self, tensor: &Tensor) -> Result<Vec<u8>> {
        let mut bytes = vec![0; tensor.bytes as usize];
        self.read_into(tensor, &mut bytes)?;
        Ok(bytes)
    }
}

/// The tensors of a text model under the names they have where a head goes with it: multimodal checkpoints
/// put something before them, those of a model alone, as embedding models are stored, lack a part, and
/// Mamba's models have names of their own.
fn text_entries(entries: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    if entries.contains_key("model.embed_tokens.weight") {
        return entries;
    }
    if entries.contains_key("embed_tokens.weight") {
        return entries.into_iter().map(|(name, tensor)| (format!("model.{name}"), tensor)).collect();
    }
    entries.into_iter().map(|(name, tensor)| (text_name(&name).unwrap_or(name), tensor)).collect()
}

/// Opened tensors and, for a GGUF file, its metadata.
pub fn open(layout: &Layout) -> Result<(Tensors, Option<Metadata>)> {
    match layout {
        Layout::Safetensors { folder, index, shards, weight_map } => {
            let index = index.as_deref().unwrap_or(folder);
            Ok((Tensors::open_safetensors(shards, weight_map, index)?, None))
        }
        Layout::Gguf(path) => {
            let (parts, metadata) = parts::open(path)?;
            // Of an architecture that the engine lacks, Llama's names are as good as any.
            let name = metadata.text("general.architecture").unwrap_or_default();
            let sparse = metadata.unsigned(&format!("{name}.expert_count")).is_some_and(|it| it > 0);
            let names = models::of_gguf(name, sparse).map_or(&names::PLAIN, |(found, _)| &found.names);
            Ok((Tensors::of_gguf(parts, names)?, Some(metadata)))
        }
    }
}

/// The name of a text model's tensor or module without what a multimodal checkpoint puts before it, and
/// with what most models say where Mamba's say "backbone"; `None` where nothing is to be changed.
pub fn text_name(name: &str) -> Option<String> {
    // As transformers 4 and mlx-lm write them, and as transformers 5 does.
    if let Some(rest) = name.strip_prefix("language_model.") {
        return (rest.starts_with("model.") || rest.starts_with("lm_head")).then(|| rest.to_owned());
    }
    // Mamba's models.
    if let Some(rest) = name.strip_prefix("backbone.") {
        return Some(match rest.strip_prefix("embeddings") {
            Some(parameter) => format!("model.embed_tokens{parameter}"),
            None => format!("model.{rest}"),
        });
    }
    name.strip_prefix("model.language_model.").map(|rest| format!("model.{rest}"))
}

/// The name of a tensor that holds a matrix of all experts, where it has no module of its own:
/// `experts.gate_up_proj` is the weight of a module here, `_blocks` and `_scales` are that of another.
fn expert_name(name: &str) -> Option<String> {
    let (layer, rest) = name.split_once(".experts.")?;
    if let Some((matrix, scales)) =
        rest.split_once("_scale").filter(|(_, scales)| matches!(*scales, "" | "_inv"))
    {
        // Of eight-bit floats.
        return matches!(matrix, "gate_up_proj" | "down_proj")
            .then(|| format!("{layer}.experts.{matrix}.weight_scale{scales}"));
    }
    let matrix = rest.strip_suffix("_blocks").or(rest.strip_suffix("_scales")).unwrap_or(rest);
    if !matches!(matrix, "gate_up_proj" | "down_proj") {
        return None;
    }
    Some(match rest.strip_suffix("_scales") {
        Some(matrix) => format!("{layer}.experts.{matrix}_blocks.scales"),
        None => format!("{layer}.experts.{rest}.weight"),
    })
}

/// The shape of a tensor of a GGUF as checkpoints have it: there, vectors of state spaces have a second
/// dimension, and the matrix of one row that weighs the shared expert may lack it.
fn shape_of(name: &str, shape: Vec<usize>) -> Vec<usize> {
    let rest = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    match (rest.map_or("", |(_, rest)| rest), shape.as_slice()) {
        ("ssm_a" | "ssm_d" | "ssm_norm.weight", [rows, columns]) => vec![rows.saturating_mul(*columns)],
        ("ffn_gate_inp_shexp.weight", [columns]) => vec![1, *columns],
        _ => shape,
    }
}

/// The Hugging Face name of a tensor of a GGUF; `None` for those without one.
///
/// Names: `gguf.constants.MODEL_TENSORS` and `tensor_mapping.py` of llama.cpp's gguf-py.
pub fn checkpoint_name(name: &str, names: &Names) -> Option<String> {
    if let Some((module, parameter)) = name.split_once('.') {
        let whole = match module {
            "token_embd" => Some("model.embed_tokens"),
            "output_norm" => Some(names.final_norm),
            // LFM2's last norm has a name here and there as if it came first.
            "token_embd_norm" if names.final_norm == "model.embedding_norm" => Some(names.final_norm),
            "output" => Some("lm_head"),
            "per_layer_token_embd" => Some(LAYER_INPUTS.table),
            "per_layer_model_proj" => Some(LAYER_INPUTS.projection),
            "per_layer_proj_norm" => Some(LAYER_INPUTS.norm),
            _ => None,
        };
        if let Some(whole) = whole {
            return Some(format!("{whole}.{parameter}"));
        }
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    if layer.is_empty() || !layer.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    if let Some((_, name)) = names.recurrent.iter().find(|(known, _)| *known == rest) {
        return Some(format!("model.layers.{layer}.{name}"));
    }
    let (module, parameter) = rest.split_once('.')?;
    // What has no module of its own there.
    let whole = match (module, parameter) {
        ("exp_probs_b", "bias") => Some(names.experts.correction),
        ("attn_sinks", "weight") => Some(names.sinks),
        ("layer_output_scale", "weight") => Some(names.scalar),
        ("ffn_gate_inp", "scale") => Some(names.experts.router_norm),
        ("ffn_down_exps", "scale") => Some(names.experts.factors),
        _ => None,
    };
    if let Some(name) = whole {
        return Some(format!("model.layers.{layer}.{name}"));
    }
    let (gate_up, down): (&[&str], &str) = match &names.split_mlp {
        Some([gate_up @ .., down]) => (gate_up, down),
        None => (names.gate_up, names.down),
    };
    let [gate, up, _] = names.experts.shared;
    // Without a gate, the first is up.
    let up = if names.gate_up.len() == 1 && up.is_empty() { gate } else { up };
    let [shared_gate, shared_up] = names.experts.split_shared.unwrap_or([gate, up]);
    let [squeezes, widens] = names.experts.squeeze;
    let [before_experts, behind_experts, behind_dense] = names.experts.norms;
    let module = match (module, names.qkv, gate_up) {
        ("attn_norm", _, _) => names.attention_norm,
        ("post_attention_norm", _, _) => names.attention_post_norm,
        ("ffn_norm", _, _) => names.mlp_norm,
        ("post_ffw_norm", _, _) => names.mlp_post_norm,
        ("pre_ffw_norm_2", _, _) => before_experts,
        ("post_ffw_norm_2", _, _) => behind_experts,
        ("post_ffw_norm_1", _, _) => behind_dense,
        ("inp_gate", _, _) => LAYER_INPUTS.gate,
        ("proj", _, _) => LAYER_INPUTS.back,
        ("post_norm", _, _) => LAYER_INPUTS.post_norm,
        ("attn_q", [q, _, _], _) => q,
        ("attn_k", [_, k, _], _) => k,
        ("attn_v", [_, _, v], _) => v,
        ("attn_qkv", [qkv], _) => qkv,
        ("attn_q_a", _, _) => LATENT.query_down,
        ("attn_q_a_norm", _, _) => LATENT.query_norm,
        ("attn_q_b", _, _) => LATENT.query_up,
        ("attn_kv_a_mqa", _, _) => LATENT.latent,
        ("attn_kv_a_norm", _, _) => LATENT.latent_norm,
        ("attn_kv_b", _, _) => LATENT.both,
        ("attn_k_b", _, _) => LATENT.keys,
        ("attn_v_b", _, _) => LATENT.values,
        ("attn_output", _, _) => names.output,
        ("attn_q_norm", _, _) => names.q_norm,
        ("attn_k_norm", _, _) => names.k_norm,
        ("ffn_gate", _, [gate, _]) => gate,
        ("ffn_up", _, [_, up] | [up]) => up,
        ("ffn_down", _, _) => down,
        ("ffn_gate_inp", _, _) => names.experts.router,
        ("ffn_latent_down", _, _) => squeezes,
        ("ffn_latent_up", _, _) => widens,
        ("ffn_gate_up_exps", _, _) => names.experts.fused[0],
        ("ffn_gate_exps", _, _) => names.experts.stacked[0],
        ("ffn_up_exps", _, _) => names.experts.stacked[1],
        ("ffn_down_exps", _, _) => names.experts.stacked[2],
        ("ffn_gate_inp_shexp", _, _) => names.experts.shared_gate,
        ("ffn_gate_shexp", _, _) => shared_gate,
        ("ffn_up_shexp", _, _) => shared_up,
        ("ffn_down_shexp", _, _) => names.experts.shared[2],
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{module}.{parameter}"))
}
