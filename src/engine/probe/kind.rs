//! What sort of model it is.

use crate::engine::config::Outline;
use crate::engine::format::metadata::Metadata;

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Writes text.
    Generation,
    /// Turns text into vectors.
    Embedding,
    /// Something else: images, speech, an adapter.
    Other,
}

impl Kind {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generation => "generation",
            Self::Embedding => "embedding",
            Self::Other => "other",
        }
    }
}

/// Encoders whose bare checkpoints are used for embedding: `model_type` of config.json, or
/// `general.architecture` of a GGUF.
const ENCODERS: &[&str] = &[
    "albert",
    "bert",
    "camembert",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "eurobert",
    "gemma-embedding",
    "gte",
    "jina-bert-v2",
    "jina-bert-v3",
    "modern-bert",
    "modernbert",
    "mpnet",
    "neo-bert",
    "neobert",
    "new",
    "nomic-bert",
    "nomic-bert-moe",
    "nomic_bert",
    "roberta",
    "roformer",
    "xlm-roberta",
];

/// A folder with `modules.json` is a sentence-transformers model, whatever its architecture.
pub fn of_folder(outline: &Outline, has_modules: bool) -> Kind {
    let is_encoder = outline.model_type.as_deref().is_some_and(|kind| ENCODERS.contains(&kind));
    let writes = |class: &str| {
        ["ForCausalLM", "LMHeadModel", "ForConditionalGeneration"].iter().any(|end| class.ends_with(end))
    };
    match &outline.class {
        _ if has_modules || is_encoder => Kind::Embedding,
        Some(class) if writes(class) => Kind::Generation,
        // mlx-lm's configurations need no class: a model with layers writes text.
        None if outline.layers.is_some() && outline.model_type.is_some() => Kind::Generation,
        _ => Kind::Other,
    }
}

/// llama.cpp's converter writes a pooling type for embedding models only.
pub fn of_gguf(metadata: &Metadata) -> Kind {
    let Some(architecture) = metadata.text("general.architecture") else {
        return Kind::Other;
    };
    let pooling = metadata.unsigned(&format!("{architecture}.pooling_type"));
    if ENCODERS.contains(&architecture) || pooling.is_some_and(|pooling| pooling > 0) {
        return Kind::Embedding;
    }
    let is_model = metadata.text("general.type").is_none_or(|kind| kind == "model");
    if is_model && metadata.texts("tokenizer.ggml.tokens").is_some() { Kind::Generation } else { Kind::Other }
}
