//! Llama (Touvron et al., 2023) and what shares its block: Llama 2 and 3, SmolLM2.

use super::architecture::{Architecture, Gguf, PLAIN, no_more_keys};

pub const ARCHITECTURE: Architecture = Architecture {
    name: "llama",
    // The aliases are those that mlx-lm runs with its Llama as well.
    model_types: &["llama", "iquestcoder", "xverse"],
    gguf: GGUF,
    ..PLAIN
};

pub const GGUF: Option<Gguf> = Some(Gguf { names: &["llama"], interleaved: true, read: no_more_keys });
