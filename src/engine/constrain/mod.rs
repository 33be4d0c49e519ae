//! Answers of a fixed format: at each step only the tokens may come that a grammar allows.

mod schema;
mod tokens;

use std::sync::Arc;

use llguidance::api::{ParserLimits, StopReason, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, TokEnv};
use llguidance::{Matcher, ParserFactory};

use crate::engine::request::Format;
use crate::engine::text::Tokenizer;
use crate::error::{Code, Error, Result};

/// A tokenizer as grammars see it. Making one takes a walk over the whole vocabulary.
pub struct Grammars {
    factory: ParserFactory,
    vocabulary: usize,
}

impl Grammars {
    /// `vocabulary` is the width of the model's logits, `ends` are the tokens that end its turn.
    ///
    /// # Errors
    /// `CAPABILITY_MISSING` for a tokenizer whose tokens have no bytes of their own.
    pub fn new(tokenizer: &Arc<Tokenizer>, vocabulary: usize, ends: &[u32]) -> Result<Self> {
        let tokens: TokEnv = Arc::new(tokens::Tokens::new(tokenizer, vocabulary, ends)?);
        let forces =
            InferenceCapabilities { ff_tokens: tokens.tokenize_is_canonical(), ..Default::default() };
        let mut factory = ParserFactory::new(&tokens, forces, &SlicedBiasComputer::general_slices())
            .map_err(|error| {
                Error::internal(format!("the tokens cannot be sorted for a grammar: {error}"))
            })?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits { verbose_errors: false, ..ParserLimits::default() };
        Ok(Self { factory, vocabulary })
    }

    /// The beginning of an answer of this format.
    ///
    /// # Errors
    /// `INVALID_REQUEST` naming a schema that cannot be followed, is contradictory or too complex.
    pub fn begin(&self, format: &Format) -> Result<Constraint> {
        let schema = schema::prepared(format)?;
        let parser = self
            .factory
            .create_parser(TopLevelGrammar::from_json_schema(schema))
            .map_err(|error| schema::refused(format, &format!("{error:#}")))?;
        let matcher = Matcher::new(Ok(parser));
        if let Some(error) = matcher.get_error() {
            return Err(schema::refused(format, &error));
        }
        Ok(Constraint { matcher, format: format.clone(), vocabulary: self.vocabulary })
    }
}

/// What an answer may still become.
pub struct Constraint {
    matcher: Matcher,
    format: Format,
    vocabulary: usize,
}

impl Constraint {
    /// Makes minus infinity of the logits `[vocabulary]` of tokens that may not come.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<()> {
        let allowed = self.matcher.compute_mask().map_err(|error| self.failed(&error.to_string()))?;
        let mut any = false;
        let words = allowed.as_slice();
        for (place, group) in logits.chunks_mut(u32::BITS as usize).enumerate() {
            let word = words.get(place).copied().unwrap_or(0);
            for (bit, logit) in group.iter_mut().enumerate() {
                let inside = place * u32::BITS as usize + bit < self.vocabulary;
                if word >> bit & 1 == 0 || !inside {
                    *logit = f32::NEG_INFINITY;
                } else {
                    any = true;
                }
            }
        }
        if any {
            return Ok(());
        }
        Err(Error::new(
            Code::CapabilityMissing,
            format!("the model has no token that could follow in the format {}", self.format.name()),
        )
        .hint("allow other characters in the schema, or take a model with another tokenizer"))
    }

    /// Takes in the token that comes, and gives those that must follow it: no logits are needed for them.
    pub fn take(&mut self, id: u32) -> Result<Vec<u32>> {
        self.matcher.consume_token(id).map_err(|error| self.failed(&error.to_string()))?;
        self.forced()
    }

    /// The tokens that must come now, taken in.
    pub fn forced(&mut self) -> Result<Vec<u32>> {
        if self.is_complete() {
            return Ok(Vec::new());
        }
        let forced = self.matcher.consume_ff_tokens();
        match self.matcher.get_error() {
            None => Ok(forced),
            Some(error) => Err(self.failed(&error)),
        }
    }

    /// Whether nothing can follow.
    pub fn is_complete(&self) -> bool {
        matches!(
            self.matcher.stop_reason(),
            StopReason::NoExtension | StopReason::NoExtensionBias | StopReason::EndOfSentence
        )
    }

    /// Whether what came is whole, if nothing followed.
    pub fn is_satisfied(&mut self) -> bool {
        self.is_complete() || self.matcher.is_accepting().unwrap_or(false)
    }

    fn failed(&self, reason: &str) -> Error {
        schema::refused(&self.format, reason)
    }
}
