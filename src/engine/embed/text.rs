//! Texts to tokens, as an embedding model wants them. Works on any number of threads at once.

use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;

use super::modules::Pipeline;
use crate::engine::format::file::{damaged, read_small};
use crate::engine::format::metadata::Metadata;
use crate::engine::text::Tokenizer;
use crate::error::{Code, Error, Result};

const MAX_JSON_BYTES: u64 = 64 << 20;

/// What becomes of a text with more tokens than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Truncate {
    /// Its beginning is kept.
    #[default]
    Head,
    /// Its end is kept.
    Tail,
    /// It is an error.
    None,
}

impl FromStr for Truncate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "head" => Ok(Self::Head),
            "tail" => Ok(Self::Tail),
            "none" => Ok(Self::None),
            _ => Err("known are head, tail and none".to_owned()),
        }
    }
}

/// The tokens of one text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tokens {
    pub ids: Vec<u32>,
    /// Whether some of the text was left out.
    pub truncated: bool,
}

/// Makes tokens of texts.
#[derive(Debug)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    lower_case: bool,
    prompt: String,
    max_tokens: usize,
    truncate: Truncate,
    /// Tokens that stand before and after every text.
    around: (usize, usize),
    /// Tokens at the beginning that do not count in pooling.
    pub(super) skipped: usize,
}

impl TextEncoder {
    /// `most` is what the encoder can take, `asked` what the user wants.
    pub(super) fn new(
        tokenizer: Tokenizer,
        pipeline: &Pipeline,
        folder: Option<&Path>,
        most: usize,
        asked: Option<usize>,
        truncate: Truncate,
    ) -> Result<Self> {
        let around = tokenizer.special_around();
        let own = match (pipeline.max_tokens, folder) {
            (Some(own), _) => own,
            (None, Some(folder)) => tokenizer_length(folder)?.unwrap_or(usize::MAX),
            (None, None) => usize::MAX,
        };
        let own = own.min(most);
        let max_tokens = match asked {
            Some(asked) if asked > most => {
                return Err(Error::new(
                    Code::InvalidRequest,
                    format!("{asked} tokens are more than the {most} that the model can take"),
                )
                .hint(format!("ask for at most {most}; the model's own limit is {own}")));
            }
            asked => asked.unwrap_or(own),
        };
        let (before, after) = around;
        if max_tokens <= before + after {
            return Err(Error::new(
                Code::InvalidRequest,
                format!(
                    "texts of at most {max_tokens} tokens have no room beside the {} special ones",
                    before + after
                ),
            )
            .hint("allow longer texts with --max-length"));
        }
        let mut encoder = Self {
            tokenizer,
            lower_case: pipeline.lower_case,
            prompt: pipeline.prompt.clone(),
            max_tokens,
            truncate,
            around,
            skipped: 0,
        };
        if !pipeline.pool_prompt && !encoder.prompt.is_empty() {
            let prompt = encoder.tokenizer.encode_between(&encoder.prepared(""))?;
            encoder.skipped = prompt.len() - after;
        }
        Ok(encoder)
    }

    /// The longest text in tokens.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// What is put before every text.
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// The tokens of a text, special ones included.
    ///
    /// # Errors
    /// EMBEDDING_FAILED for a text that is too long where none may be shortened, and for one without tokens;
    /// INVALID_REQUEST for one
    /// that cannot be cut into words.
    pub fn encode(&self, text: &str) -> Result<Tokens> {
        let mut ids = if self.prompt.is_empty() && !self.lower_case {
            self.tokenizer.encode_between(text)?
        } else {
            self.tokenizer.encode_between(&self.prepared(text))?
        };
        if ids.is_empty() {
            return Err(Error::new(
                Code::EmbeddingFailed,
                "the text has no tokens, and the model puts none around it",
            )
            .hint("leave empty texts out with --empty skip"));
        }
        if ids.len() <= self.max_tokens {
            return Ok(Tokens { ids, truncated: false });
        }
        let (before, after) = self.around;
        let excess = ids.len() - self.max_tokens;
        match self.truncate {
            Truncate::None => {
                return Err(Error::new(
                    Code::EmbeddingFailed,
                    format!(
                        "the text has {} tokens, more than the {} that are taken",
                        ids.len(),
                        self.max_tokens
                    ),
                )
                .hint("keep a part of such texts with --truncate head or tail, or break them up")
                .detail("tokens", ids.len() as u64)
                .detail("max_tokens", self.max_tokens as u64));
            }
            Truncate::Head => {
                let end = ids.len() - after;
                ids.drain(end - excess..end);
            }
            Truncate::Tail => {
                ids.drain(before..before + excess);
            }
        }
        Ok(Tokens { ids, truncated: true })
    }

    /// The text behind the prompt, in lower case where the model wants it.
    fn prepared(&self, text: &str) -> String {
        let mut whole = String::with_capacity(self.prompt.len() + text.len());
        for part in [&self.prompt, text] {
            if self.lower_case {
                // Letter by letter, as the tokenizers library does it.
                whole.extend(part.chars().flat_map(char::to_lowercase));
            } else {
                whole.push_str(part);
            }
        }
        whole
    }
}

/// The tokenizer of a folder or of a GGUF's metadata.
pub(super) fn tokenizer(folder: &Path, metadata: Option<&Metadata>) -> Result<Tokenizer> {
    match metadata {
        Some(metadata) => Tokenizer::from_gguf(metadata),
        None => Tokenizer::from_directory(folder),
    }
}

/// `model_max_length` of tokenizer_config.json.
fn tokenizer_length(folder: &Path) -> Result<Option<usize>> {
    #[derive(Deserialize)]
    struct Config {
        model_max_length: Option<f64>,
    }

    let path = folder.join("tokenizer_config.json");
    let content = match read_small(&path, MAX_JSON_BYTES) {
        Ok(content) => content,
        Err(error) if error.code() == Code::FileNotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let config: Config = serde_json::from_slice(&content)
        .map_err(|error| damaged(&path, &format!("cannot be understood: {error}")))?;
    // A number beyond all lengths stands for none.
    Ok(config.model_max_length.filter(|&length| (1.0..1e9).contains(&length)).map(|length| length as usize))
}
