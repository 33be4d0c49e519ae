//! Text to tokens and back: tokenizers, streaming detokenization, chat templates, stop texts.

mod characters;
mod config;
pub mod files;
mod generation;
mod gguf;
mod piece_model;
mod python;
pub mod reasoning;
#[cfg(test)]
mod samples;
mod sentencepiece;
mod split;
pub mod stop;
pub mod stream;
pub mod template;
mod tiktoken;
pub mod tokenizer;
mod tokenizer_json;
mod word_piece;

pub use stop::StopMatcher;
pub use stream::Detokenizer;
pub use template::ChatTemplate;
pub use tokenizer::Tokenizer;
