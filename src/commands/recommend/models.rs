//! Well-known models, and what each takes. Numbers of parameters and the shapes of caches follow from the
//! models' own config.json.

use crate::cli::recommend::Purpose;
use crate::engine::policy::Machine;

/// Bits of a weight with MLX's usual quantization: 4, and a scale and an offset of 16 bits for 64 weights.
const FOUR_BITS: f64 = 4.5;
const BF16: f64 = 16.0;
const F32: f64 = 32.0;
/// Texts are read at once: nothing is kept from one token to the next.
const NO_CACHE: u64 = 0;
/// Tokens of context that memory is counted for.
const CONTEXT: u64 = 4096;
/// The share of the free memory up to which the engine loads without a warning.
const COMFORTABLE: f64 = 0.7;
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
    /// Layers × heads of keys and values × size of a head.
    cache: u64,
}

const fn model(
    purpose: Purpose,
    alias: &'static str,
    repository: &'static str,
    parameters: u64,
    bits: f64,
    cache: u64,
) -> Recommended {
    Recommended { alias, repository, purpose, parameters, active: parameters, bits, cache }
}

/// Of each purpose the better ones last.
pub const MODELS: &[Recommended] = &[
    model(
        Purpose::Quick,
        "smollm2-135m",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        134_515_008,
        BF16,
        30 * 3 * 64,
    ),
    model(
        Purpose::Quick,
        "qwen3-0.6b",
        "mlx-community/Qwen3-0.6B-4bit",
        596_049_920,
        FOUR_BITS,
        28 * 8 * 128,
    ),
    model(
        Purpose::Quick,
        "llama-3.2-1b",
        "mlx-community/Llama-3.2-1B-Instruct-4bit",
        1_235_814_400,
        FOUR_BITS,
        16 * 8 * 64,
    ),
    model(
        Purpose::Chat,
        "llama-3.2-3b",
        "mlx-community/Llama-3.2-3B-Instruct-4bit",
        3_212_749_824,
        FOUR_BITS,
        28 * 8 * 128,
    ),
    model(
        Purpose::Chat,
        "qwen3-4b",
        "mlx-community/Qwen3-4B-Instruct-2507-4bit",
        4_022_468_096,
        FOUR_BITS,
        36 * 8 * 128,
    ),
    model(
        Purpose::Chat,
        "llama-3.1-8b",
        "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit",
        8_030_261_248,
        FOUR_BITS,
        32 * 8 * 128,
    ),
    model(
        Purpose::Chat,
        "qwen3-14b",
        "mlx-community/Qwen3-14B-4bit",
        14_768_307_200,
        FOUR_BITS,
        40 * 8 * 128,
    ),
    Recommended {
        active: 3_352_821_760,
        ..model(
            Purpose::Chat,
            "qwen3-30b",
            "mlx-community/Qwen3-30B-A3B-Instruct-2507-4bit",
            30_532_122_624,
            FOUR_BITS,
            48 * 4 * 128,
        )
    },
    model(
        Purpose::Chat,
        "llama-3.3-70b",
        "mlx-community/Llama-3.3-70B-Instruct-4bit",
        70_553_706_496,
        FOUR_BITS,
        80 * 8 * 128,
    ),
    model(
        Purpose::Code,
        "qwen2.5-coder-1.5b",
        "mlx-community/Qwen2.5-Coder-1.5B-Instruct-4bit",
        1_543_714_304,
        FOUR_BITS,
        28 * 2 * 128,
    ),
    model(
        Purpose::Code,
        "qwen2.5-coder-7b",
        "mlx-community/Qwen2.5-Coder-7B-Instruct-4bit",
        7_615_616_512,
        FOUR_BITS,
        28 * 4 * 128,
    ),
    Recommended {
        active: 3_352_821_760,
        ..model(
            Purpose::Code,
            "qwen3-coder-30b",
            "mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit",
            30_532_122_624,
            FOUR_BITS,
            48 * 4 * 128,
        )
    },
    model(Purpose::Embed, "minilm", "sentence-transformers/all-MiniLM-L6-v2", 22_713_216, F32, NO_CACHE),
    model(Purpose::Embed, "e5-small", "intfloat/multilingual-e5-small", 117_653_760, F32, NO_CACHE),
    model(Purpose::Embed, "nomic-embed", "nomic-ai/nomic-embed-text-v1.5", 136_731_648, F32, NO_CACHE),
    model(Purpose::Embed, "qwen3-embedding-0.6b", "Qwen/Qwen3-Embedding-0.6B", 595_776_512, BF16, NO_CACHE),
];

impl Recommended {
    /// Bytes to fetch and to keep on the disk, about: without tokenizer and configuration.
    pub fn bytes(&self) -> u64 {
        (self.parameters as f64 * self.bits / 8.0) as u64
    }

    /// Bytes in memory with a context of 4096 tokens: weights, and keys and values, which a GPU keeps in 16
    /// bits and the CPU in 32.
    pub fn memory(&self, machine: &Machine) -> u64 {
        let number = if machine.gpu { 2 } else { 4 };
        self.bytes() + 2 * self.cache * number * CONTEXT
    }

    /// Whether it can be loaded without a warning.
    pub fn fits(&self, machine: &Machine) -> bool {
        self.memory(machine) as f64 <= machine.free_memory as f64 * COMFORTABLE
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
        Machine { free_memory: gigabytes * 1_000_000_000, total_memory: gigabytes * 1_000_000_000, gpu }
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
            ["smollm2-135m", "minilm", "e5-small", "nomic-embed"],
            "1.2 GB of the last are too many"
        );
        assert!(fitting(&machine(8, true)).contains(&"qwen2.5-coder-7b"));
        assert!(!fitting(&machine(8, true)).contains(&"qwen3-14b"));
        assert!(fitting(&machine(16, true)).contains(&"qwen3-14b"));
        assert!(!fitting(&machine(16, false)).contains(&"llama-3.1-8b"), "a processor reads 4.5 GB a token");
        assert!(fitting(&machine(64, false)).contains(&"qwen3-30b"), "of which it reads 1.9 GB a token");
        assert_eq!(fitting(&machine(96, true)).len(), MODELS.len());
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
