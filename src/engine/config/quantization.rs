//! How the weights of a safetensors checkpoint are packed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use crate::engine::format::block_float::BlockFloat;
use crate::engine::format::file::{damaged, unsupported};
use crate::engine::format::tensors::text_name;
use crate::error::{Code, Error, Result};

/// Bits and group sizes that MLX has for its affine form.
const BITS: &[u64] = &[2, 3, 4, 5, 6, 8];
const GROUPS: &[u64] = &[32, 64, 128];

/// MLX's affine packing: `bits` an element, one scale and bias for each `group` of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affine {
    pub group: usize,
    pub bits: usize,
}

impl Affine {
    /// The packing of a row of `columns` elements in `words` 32-bit words and `groups` scales, if it
    /// is one that MLX has.
    pub fn fitting(columns: usize, words: usize, groups: usize) -> Option<Self> {
        let group = columns.checked_div(groups)?;
        let bits = words.checked_mul(32)?.checked_div(columns)?;
        let exact = group * groups == columns && bits * columns == words * 32;
        let known = GROUPS.contains(&(group as u64)) && BITS.contains(&(bits as u64));
        (exact && known).then_some(Self { group, bits })
    }
}

/// How MLX packs a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Affine(Affine),
    BlockFloat(BlockFloat),
}

impl Packing {
    /// What a user asks for by the number of bits or the name of a mode, and the size of a group, which is
    /// 64 if nothing is said.
    ///
    /// # Errors
    /// INVALID_REQUEST for what MLX does not have.
    pub fn asked(name: &str, group: Option<usize>) -> Result<Self> {
        let refused = |what: String, hint: String| Err(Error::new(Code::InvalidRequest, what).hint(hint));
        if let Some(mode) = BlockFloat::of(name) {
            return match group {
                Some(group) if group != mode.group() => refused(
                    format!("{name} has no groups of {group} weights"),
                    format!("its groups are of {}: leave --quantize-group-size out", mode.group()),
                ),
                _ => Ok(Self::BlockFloat(mode)),
            };
        }
        let group = group.unwrap_or(64);
        if !GROUPS.contains(&(group as u64)) {
            return refused(
                format!("weights cannot be quantized in groups of {group}"),
                "groups of 32, 64 and 128 weights are supported".to_owned(),
            );
        }
        match name.parse().ok().filter(|bits| BITS.contains(bits)) {
            Some(bits) => Ok(Self::Affine(Affine { group, bits: bits as usize })),
            None => refused(
                format!("weights cannot be quantized to {name:?}"),
                "2, 3, 4, 5, 6 and 8 bits are supported, and mxfp4, mxfp8 and nvfp4".to_owned(),
            ),
        }
    }

    pub fn is_affine(self) -> bool {
        matches!(self, Self::Affine(_))
    }

    /// Elements that share a scale.
    pub fn group(self) -> usize {
        match self {
            Self::Affine(affine) => affine.group,
            Self::BlockFloat(mode) => mode.group(),
        }
    }

    /// Bits of an element.
    pub fn bits(self) -> usize {
        match self {
            Self::Affine(affine) => affine.bits,
            Self::BlockFloat(mode) => mode.bits(),
        }
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Affine(Affine { group, bits }) => write!(f, "{bits}-bit (group {group})"),
            Self::BlockFloat(mode) => f.write_str(mode.name()),
        }
    }
}

/// The packing of a checkpoint: one for all matrices, with exceptions by module name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantization {
    pub default: Packing,
    /// Exceptions; `None`: that module is not packed.
    pub overrides: BTreeMap<String, Option<Packing>>,
}

impl Quantization {
    /// The packing of a module such as `model.layers.0.self_attn.q_proj`; `None`: it is not packed.
    pub fn of(&self, module: &str) -> Option<Packing> {
        self.overrides.get(module).copied().unwrap_or(Some(self.default))
    }
}

/// Reads `quantization` as mlx-lm writes it, or `quantization_config`, which mlx-lm writes as a copy
/// and others fill with schemes of their own, of which gpt-oss's is the same as MLX's.
pub(super) fn from_config(config: &Map<String, Value>, path: &Path) -> Result<Option<Quantization>> {
    let own = config.get("quantization").filter(|value| !value.is_null());
    let other = config.get("quantization_config").filter(|value| !value.is_null());
    let Some(value) = own.or(other) else {
        return Ok(None);
    };
    let fields =
        value.as_object().ok_or_else(|| damaged(path, "has a quantization that is not an object"))?;
    if let Some(method) = fields.get("quant_method") {
        let method = method.as_str().unwrap_or("unnamed");
        if method == BlockFloat::Mxfp4.name() {
            let default = Packing::BlockFloat(BlockFloat::Mxfp4);
            return Ok(Some(Quantization { default, overrides: BTreeMap::new() }));
        }
        // The tensors say which of them are.
        if is_small_floats(method, fields) {
            return Ok(None);
        }
        return Err(scheme_unsupported(method, path));
    }
    let default = packing(fields, None, path)?;
    let mut overrides = BTreeMap::new();
    for (module, value) in fields {
        let packing = match value {
            Value::Object(fields) => Some(packing(fields, Some(default), path)?),
            Value::Bool(true) => Some(default),
            Value::Bool(false) => None,
            _ => continue,
        };
        let is_bare = module == "embed_tokens" || module.starts_with("layers.");
        let bare = is_bare.then(|| format!("model.{module}"));
        overrides.insert(text_name(module).or(bare).unwrap_or_else(|| module.clone()), packing);
    }
    Ok(Some(Quantization { default, overrides }))
}

/// Whether a scheme is that of eight-bit floats (e4m3) with scales beside them.
fn is_small_floats(method: &str, fields: &Map<String, Value>) -> bool {
    match method {
        "fp8" => fields.get("fmt").is_none_or(|format| format == "e4m3"),
        "fbgemm_fp8" => true,
        "compressed-tensors" => {
            let groups = fields.get("config_groups").and_then(Value::as_object);
            let is_eight = |group: &Value| {
                let weights = &group["weights"];
                weights["num_bits"] == 8 && weights["type"] == "float"
            };
            groups.is_some_and(|groups| !groups.is_empty() && groups.values().all(is_eight))
        }
        _ => false,
    }
}

/// Rows and columns of the blocks of eight-bit floats that share a scale: `weight_block_size`, or the
/// `block_structure` of a group of compressed-tensors.
pub(super) fn float_blocks(config: &Map<String, Value>, path: &Path) -> Result<Option<[usize; 2]>> {
    let Some(fields) = config.get("quantization_config").and_then(Value::as_object) else { return Ok(None) };
    let groups = fields.get("config_groups").and_then(Value::as_object);
    let mut structures =
        groups.into_iter().flat_map(Map::values).map(|group| &group["weights"]["block_structure"]);
    let size = fields.get("weight_block_size").or(structures.next()).filter(|size| !size.is_null());
    let Some(size) = size else { return Ok(None) };
    let edge = |at: usize| size.get(at).and_then(Value::as_u64).and_then(|edge| usize::try_from(edge).ok());
    match (edge(0), edge(1), size.get(2)) {
        (Some(rows @ 1..), Some(columns @ 1..), None) => Ok(Some([rows, columns])),
        _ => Err(damaged(path, "has a weight_block_size that is not two sizes")),
    }
}

/// One `{group_size, bits, mode}`; what an exception leaves out, it has from an affine default.
fn packing(fields: &Map<String, Value>, default: Option<Packing>, path: &Path) -> Result<Packing> {
    let mode = match fields.get("mode") {
        None | Some(Value::Null) => "affine",
        Some(mode) => mode.as_str().ok_or_else(|| damaged(path, "has a quantization without a mode"))?,
    };
    let number = |name: &str, default: Option<usize>, known: &[u64]| match fields.get(name) {
        None => default.ok_or_else(|| damaged(path, &format!("has a quantization without {name}"))),
        Some(value) => match value.as_u64() {
            Some(number) if known.contains(&number) => Ok(number as usize),
            Some(number) => Err(unsupported(path, &format!("needs quantization with {name} {number}"))
                .hint(format!("supported are {known:?}"))),
            None => Err(damaged(path, &format!("has a quantization whose {name} is not a number"))),
        },
    };
    if let Some(mode) = BlockFloat::of(mode) {
        number("group_size", Some(mode.group()), &[mode.group() as u64])?;
        number("bits", Some(mode.bits()), &[mode.bits() as u64])?;
        return Ok(Packing::BlockFloat(mode));
    }
    if mode != "affine" {
        return Err(scheme_unsupported(mode, path));
    }
    let default = default.map(|default| match default {
        Packing::Affine(affine) => affine,
        // MLX's own.
        Packing::BlockFloat(_) => Affine { group: 64, bits: 4 },
    });
    Ok(Packing::Affine(Affine {
        group: number("group_size", default.map(|d| d.group), GROUPS)?,
        bits: number("bits", default.map(|d| d.bits), BITS)?,
    }))
}

fn scheme_unsupported(scheme: &str, path: &Path) -> Error {
    let scheme: String = scheme.chars().take(64).collect();
    unsupported(path, &format!("needs the quantization scheme {scheme:?}"))
        .hint("supported are MLX's affine, mxfp4, mxfp8 and nvfp4, fp8 with scales, and unquantized weights")
}
