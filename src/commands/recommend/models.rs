//! Well-known models, and what each takes. Numbers of parameters and sizes are those of the models' own
//! config.json.

use crate::cli::recommend::Purpose;
use crate::engine::cache::{LayerShape, TokenShape, Values};
use crate::engine::format::sizes::WeightSizes;
use crate::engine::format::weight::FloatType;
use crate::engine::policy::{self, Machine, Policy};
use crate::engine::probe::{Demand, Steps, Working};
use crate::engine::request::LoadOptions;

/// Bits of a weight with MLX's usual quantization: 4, and a scale and an offset of 16 bits for 64 weights.
const FOUR_BITS: f64 = 4.5;
const BF16: f64 = 16.0;
const F32: f64 = 32.0;
/// Tokens of context that memory is counted for.
const CONTEXT: usize = 4096;
/// Bytes of weights read for a token beyond which a processor's memory, at 30 to 50 GB/s, no longer keeps up
/// with a reader (some ten tokens a second).
const CPU_READS: f64 = 3e9;

/// A model worth a try.
#[derive(Debug, Clone, Copy)]
pub struct Recommended {
    /// The short name in [`crate::commands::aliases`].
    pub alias: &'static str,
    pub repository: &'static str,
    pub purpose: Purpose,
    pub parameters: u64,
    /// Parameters that a token needs: fewer than all in a mixture of experts.
    active: u64,
    bits: f64,
    sizes: Sizes,
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    layers: usize,
    hidden: usize,
    /// Of queries, and of keys and values.
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    /// Width of the feed-forward part: of all experts that a token needs.
    inner: usize,
    vocabulary: usize,
}

const fn decoder(
    layers: usize,
    hidden: usize,
    [heads, kv_heads, head_dim]: [usize; 3],
    inner: usize,
    vocabulary: usize,
) -> Sizes {
    Sizes { layers, hidden, heads, kv_heads, head_dim, inner, vocabulary }
}

const fn encoder(layers: usize, hidden: usize, heads: usize, inner: usize, vocabulary: usize) -> Sizes {
    let head_dim = hidden / heads;
    Sizes { layers, hidden, heads, kv_heads: heads, head_dim, inner, vocabulary }
}

const fn model(
    purpose: Purpose,
    alias: &'static str,
    repository: &'static str,
    parameters: u64,
    bits: f64,
    sizes: Sizes,
) -> Recommended {
    Recommended { alias, repository, purpose, parameters, active: parameters, bits, sizes }
}

/// Of each purpose the better ones last.
pub const MODELS: &[Recommended] = &[
    model(
        Purpose::Quick,
        "smollm2-135m",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        134_515_008,
        BF16,
        decoder(30, 576, [9, 3, 64], 1536, 49_152),
    ),
    model(
        Purpose::Quick,
        "qwen3-0.6b",
        "mlx-community/Qwen3-0.6B-4bit",
        596_049_920,
        FOUR_BITS,
        decoder(28, 1024, [16, 8, 128], 3072, 151_936),
    ),
    model(
        Purpose::Quick,
        "llama-3.2-1b",
        "mlx-community/Llama-3.2-1B-Instruct-4bit",
        1_235_814_400,
        FOUR_BITS,
        decoder(16, 2048, [32, 8, 64], 8192, 128_256),
    ),
    model(
        Purpose::Chat,
        "llama-3.2-3b",
        "mlx-community/Llama-3.2-3B-Instruct-4bit",
        3_212_749_824,
        FOUR_BITS,
        decoder(28, 3072, [24, 8, 128], 8192, 128_256),
    ),
    model(
        Purpose::Chat,
        "qwen3-4b",
        "mlx-community/Qwen3-4B-Instruct-2507-4bit",
        4_022_468_096,
        FOUR_BITS,
        decoder(36, 2560, [32, 8, 128], 9728, 151_936),
    ),
    model(
        Purpose::Chat,
        "llama-3.1-8b",
        "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit",
        8_030_261_248,
        FOUR_BITS,
        decoder(32, 4096, [32, 8, 128], 14_336, 128_256),
    ),
    model(
        Purpose::Chat,
        "qwen3-14b",
        "mlx-community/Qwen3-14B-4bit",
        14_768_307_200,
        FOUR_BITS,
        decoder(40, 5120, [40, 8, 128], 17_408, 151_936),
    ),
    Recommended {
        active: 3_352_821_760,
        ..model(
            Purpose::Chat,
            "qwen3-30b",
            "mlx-community/Qwen3-30B-A3B-Instruct-2507-4bit",
            30_532_122_624,
            FOUR_BITS,
            decoder(48, 2048, [32, 4, 128], 8 * 768, 151_936),
        )
    },
    model(
        Purpose::Chat,
        "llama-3.3-70b",
        "mlx-community/Llama-3.3-70B-Instruct-4bit",
        70_553_706_496,
        FOUR_BITS,
        decoder(80, 8192, [64, 8, 128], 28_672, 128_256),
    ),
    model(
        Purpose::Code,
        "qwen2.5-coder-1.5b",
        "mlx-community/Qwen2.5-Coder-1.5B-Instruct-4bit",
        1_543_714_304,
        FOUR_BITS,
        decoder(28, 1536, [12, 2, 128], 8960, 151_936),
    ),
    model(
        Purpose::Code,
        "qwen2.5-coder-7b",
        "mlx-community/Qwen2.5-Coder-7B-Instruct-4bit",
        7_615_616_512,
        FOUR_BITS,
        decoder(28, 3584, [28, 4, 128], 18_944, 152_064),
    ),
    Recommended {
        active: 3_352_821_760,
        ..model(
            Purpose::Code,
            "qwen3-coder-30b",
            "mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit",
            30_532_122_624,
            FOUR_BITS,
            decoder(48, 2048, [32, 4, 128], 8 * 768, 151_936),
        )
    },
    model(
        Purpose::Embed,
        "minilm",
        "sentence-transformers/all-MiniLM-L6-v2",
        22_713_216,
        F32,
        encoder(6, 384, 12, 1536, 30_522),
    ),
    model(
        Purpose::Embed,
        "e5-small",
        "intfloat/multilingual-e5-small",
        117_653_760,
        F32,
        encoder(12, 384, 12, 1536, 250_037),
    ),
    model(
        Purpose::Embed,
        "nomic-embed",
        "nomic-ai/nomic-embed-text-v1.5",
        136_731_648,
        F32,
        encoder(12, 768, 12, 3072, 30_528),
    ),
    model(
        Purpose::Embed,
        "qwen3-embedding-0.6b",
        "Qwen/Qwen3-Embedding-0.6B",
        595_776_512,
        BF16,
        decoder(28, 1024, [16, 8, 128], 3072, 151_669),
    ),
];

impl Recommended {
    /// Bytes to fetch and to keep on the disk, about: without tokenizer and configuration.
    pub fn bytes(&self) -> u64 {
        (self.parameters as f64 * self.bits / 8.0) as u64
    }

    /// What the memory gate gets to know of such a model.
    fn demand(&self) -> Demand {
        let Sizes { layers, hidden, heads, kv_heads, head_dim, inner, vocabulary } = self.sizes;
        let embeds = self.purpose == Purpose::Embed;
        let tokens =
            TokenShape { heads: kv_heads, key_dim: head_dim, values: Values::Own(head_dim), window: None };
        Demand {
            weights: WeightSizes {
                kernel_bytes: self.bytes(),
                packed_bytes: self.bytes(),
                ..WeightSizes::default()
            },
            // An embedding model sees its texts at once: nothing is kept from one token to the next.
            cache: if embeds { Vec::new() } else { vec![LayerShape::Tokens(tokens); layers] },
            context: CONTEXT,
            dtype: FloatType::BF16,
            working: Working {
                numbers: 2 * (heads + kv_heads) * head_dim + inner + 2 * hidden,
                // All of these decoders are blocks of kernels alone.
                layers: if embeds { layers } else { 1 },
                tokens: vocabulary,
                steps: if embeds { Steps::Texts(usize::MAX) } else { Steps::Prompts },
            },
            draft: None,
        }
    }

    /// How the engine would run it with a context of 4096 tokens, as far as memory goes.
    fn policy(&self, machine: &Machine) -> Option<Policy> {
        let options = LoadOptions { context: Some(CONTEXT), force: true, ..LoadOptions::default() };
        policy::decide(machine, &options, &self.demand()).ok()
    }

    /// Bytes of memory with a context of 4096 tokens, or many texts.
    pub fn memory(&self, machine: &Machine) -> u64 {
        self.policy(machine).map_or(self.bytes(), |policy| policy.estimate_bytes)
    }

    /// Whether it can be loaded without a warning.
    pub fn fits(&self, machine: &Machine) -> bool {
        self.policy(machine).is_some_and(|policy| policy.warnings.is_empty())
    }

    /// Whether it is worth a try here.
    pub fn suits(&self, machine: &Machine) -> bool {
        self.fits(machine) && !self.is_slow(machine)
    }

    /// Whether it would answer slower than one reads.
    pub fn is_slow(&self, machine: &Machine) -> bool {
        !machine.gpu && self.active as f64 * self.bits / 8.0 > CPU_READS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::aliases;

    fn machine(gigabytes: u64, gpu: bool) -> Machine {
        let bytes = gigabytes * 1_000_000_000;
        Machine { free_memory: bytes, total_memory: bytes, resident: 0, gpu }
    }

    #[test]
    fn every_model_has_a_short_name_that_leads_to_it() {
        for model in MODELS {
            assert_eq!(aliases::repository(model.alias), Some(model.repository));
        }
    }

    #[test]
    fn better_models_of_a_purpose_come_later() {
        for pair in MODELS.windows(2).filter(|pair| pair[0].purpose == pair[1].purpose) {
            assert!(pair[0].parameters < pair[1].parameters, "{} and {}", pair[0].alias, pair[1].alias);
        }
    }

    #[test]
    fn what_fits_depends_on_the_memory_and_the_device() {
        let fitting = |machine: &Machine| -> Vec<&str> {
            MODELS.iter().filter(|model| model.suits(machine)).map(|model| model.alias).collect()
        };
        assert_eq!(
            fitting(&machine(1, false)),
            ["smollm2-135m", "minilm", "e5-small"],
            "the 0.5 GB of nomic-embed need 0.3 to compute with"
        );
        assert!(fitting(&machine(8, true)).contains(&"qwen2.5-coder-7b"));
        assert!(!fitting(&machine(8, true)).contains(&"qwen3-14b"));
        assert!(fitting(&machine(16, true)).contains(&"qwen3-14b"));
        assert!(!fitting(&machine(16, false)).contains(&"llama-3.1-8b"), "a processor reads 4.5 GB a token");
        assert!(fitting(&machine(64, false)).contains(&"qwen3-30b"), "of which it reads 1.9 GB a token");
        assert_eq!(fitting(&machine(96, true)).len(), MODELS.len());
    }

    #[test]
    fn what_a_model_needs_is_more_than_its_weights() {
        let memory = |alias| {
            let model = MODELS.iter().find(|model| model.alias == alias).expect("a model");
            model.memory(&machine(100, false)) as f64 / 1e6
        };
        // Beside weights: keys and values as half floats, results of one layer or four, a tokenizer.
        assert!((memory("smollm2-135m") - (269.0 + 94.4 + 13.0 + 13.8 + 8.4)).abs() < 1.0);
        assert!((memory("minilm") - (90.9 + 125.8 + 8.5 + 8.4)).abs() < 1.0);
    }

    #[test]
    fn parameters_follow_from_the_sizes() {
        for model in MODELS.iter().filter(|model| model.active == model.parameters) {
            let Sizes { layers, hidden, heads, kv_heads, head_dim, inner, vocabulary } = model.sizes;
            let embeds = model.purpose == Purpose::Embed;
            let attention = 2 * hidden * (heads + kv_heads) * head_dim;
            let matches = [1, 2].into_iter().any(|tables| {
                // A feed-forward part without a gate has two matrices; positions and biases are left out.
                [2, 3].into_iter().filter(|&matrices| embeds || matrices == 3).any(|matrices| {
                    let all = tables * vocabulary * hidden + layers * (attention + matrices * hidden * inner);
                    (all as f64 / model.parameters as f64 - 1.0).abs() < 0.02
                })
            });
            assert!(matches, "{}", model.alias);
        }
    }

    #[test]
    fn sizes_are_those_of_the_published_files() {
        let bytes = |alias| {
            let model = MODELS.iter().find(|model| model.alias == alias).expect("a model");
            model.bytes() as f64 / 1e9
        };
        // model.safetensors of the first and the last; 4.5 bits a weight of the second.
        assert!((bytes("smollm2-135m") - 0.269).abs() < 0.001);
        assert!((bytes("llama-3.1-8b") - 4.517).abs() < 0.001);
        assert!((bytes("minilm") - 0.0909).abs() < 0.0001);
    }
}
