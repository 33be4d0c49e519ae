//! Short names that everybody knows, and the repositories they stand for. The user's own, in
//! config.toml, come first.

/// (alias, repository), by alias.
const ALIASES: &[(&str, &str)] = &[
    ("e5-small", "intfloat/multilingual-e5-small"),
    ("llama-3.1-8b", "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit"),
    ("llama-3.2-1b", "mlx-community/Llama-3.2-1B-Instruct-4bit"),
    ("llama-3.2-3b", "mlx-community/Llama-3.2-3B-Instruct-4bit"),
    ("llama-3.3-70b", "mlx-community/Llama-3.3-70B-Instruct-4bit"),
    ("minilm", "sentence-transformers/all-MiniLM-L6-v2"),
    ("mistral-7b", "mlx-community/Mistral-7B-Instruct-v0.3-4bit"),
    ("nomic-embed", "nomic-ai/nomic-embed-text-v1.5"),
    ("qwen2.5-coder-1.5b", "mlx-community/Qwen2.5-Coder-1.5B-Instruct-4bit"),
    ("qwen2.5-coder-7b", "mlx-community/Qwen2.5-Coder-7B-Instruct-4bit"),
    ("qwen3-0.6b", "mlx-community/Qwen3-0.6B-4bit"),
    ("qwen3-14b", "mlx-community/Qwen3-14B-4bit"),
    ("qwen3-30b", "mlx-community/Qwen3-30B-A3B-Instruct-2507-4bit"),
    ("qwen3-4b", "mlx-community/Qwen3-4B-Instruct-2507-4bit"),
    ("qwen3-coder-30b", "mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit"),
    ("qwen3-embedding-0.6b", "Qwen/Qwen3-Embedding-0.6B"),
    ("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    ("smollm2-360m", "HuggingFaceTB/SmolLM2-360M-Instruct"),
    ("smollm2-1.7b", "HuggingFaceTB/SmolLM2-1.7B-Instruct"),
    ("tinyllama", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
];

/// The repository that a short name stands for.
pub fn repository(alias: &str) -> Option<&'static str> {
    let alias = alias.to_ascii_lowercase();
    ALIASES.iter().find(|(name, _)| *name == alias).map(|(_, repository)| *repository)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Host, ModelName};

    #[test]
    fn every_alias_stands_for_a_valid_name() {
        for (alias, repository) in ALIASES {
            assert!(ModelName::parse_pair(Host::HuggingFace, repository).is_ok(), "{alias}");
            assert_eq!(super::repository(&alias.to_ascii_uppercase()), Some(*repository));
        }
    }
}
