//! Counts of parameters and labels of precision, from the tensors' headers.

use std::collections::BTreeMap;

use crate::engine::config::Outline;
use crate::engine::format::safetensors::Dtype;
use crate::engine::format::tensors::{Encoding, Tensor, Tensors};

/// Tensors that belong to the packing of another one (MLX, GPTQ, AWQ, fp8).
const PACKING: &[&str] = &[".scales", ".biases", ".qzeros", ".g_idx", ".weight_scale_inv", ".weight_scale"];

/// How many numbers the weights are. Packed words count as the elements in them: by their scales'
/// shape where MLX packed them, else by the configuration's bits.
pub fn parameters(tensors: &Tensors, outline: &Outline) -> u64 {
    let count = |(name, tensor): (&str, &Tensor)| {
        if is_packing(name, tensors) || name.ends_with("rotary_emb.inv_freq") || name == "rope_freqs.weight" {
            return 0;
        }
        let elements = elements(tensor);
        match tensor.encoding {
            Encoding::Safetensors(Dtype::U32 | Dtype::I32) if is_packed(name, tensors) => {
                match outline.bits.filter(|&bits| bits > 0) {
                    Some(bits) => elements.saturating_mul(32) / bits,
                    None => elements,
                }
            }
            _ => elements,
        }
    };
    tensors.iter().map(count).fold(0, u64::saturating_add)
}

fn elements(tensor: &Tensor) -> u64 {
    tensor.shape.iter().fold(1, |product, &size| product.saturating_mul(size as u64))
}

/// Whether a tensor holds words of packed elements: it has scales.
fn is_packed(name: &str, tensors: &Tensors) -> bool {
    let module = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".qweight"));
    module.is_some_and(|module| tensors.get(&format!("{module}.scales")).is_some())
}

fn is_packing(name: &str, tensors: &Tensors) -> bool {
    PACKING.iter().filter_map(|suffix| name.strip_suffix(suffix)).any(|module| {
        let has = |suffix: &str| tensors.get(&format!("{module}{suffix}")).is_some();
        has(".weight") || has(".qweight")
    })
}

/// The type that most bytes of the matrices have: "bf16" for safetensors, "Q4_1" for GGUF.
pub fn of_tensors(tensors: &Tensors) -> Option<String> {
    let mut bytes: BTreeMap<&'static str, (u64, Encoding)> = BTreeMap::new();
    for (_, tensor) in tensors.iter().filter(|(_, tensor)| tensor.shape.len() > 1) {
        let entry = bytes.entry(tensor.encoding.name()).or_insert((0, tensor.encoding));
        entry.0 = entry.0.saturating_add(tensor.bytes);
    }
    let (name, (_, encoding)) = bytes.into_iter().max_by_key(|(_, (bytes, _))| *bytes)?;
    Some(match encoding {
        Encoding::Safetensors(_) => name.to_lowercase(),
        Encoding::Ggml(_) => name.to_owned(),
    })
}
