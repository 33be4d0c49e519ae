//! From a prompt to text: prefill, decode, sampling, stopping. Runs on the engine's thread.

mod answer;
mod decode;
pub mod draft;
mod prompt;
mod saved;
mod speculate;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mlx_rs::{Array, transforms};

use self::answer::{Answer, Decoded, Means};
use self::decode::ids;
pub(super) use self::decode::{Pending, item};
use self::draft::Drafter;
pub use self::saved::Identity;
use crate::engine::cache::{KvCache, LONGEST_STEP, Mark};
use crate::engine::constrain::{Constraint, Grammars};
use crate::engine::memory;
use crate::engine::models::{LanguageModel, Logits};
use crate::engine::outcome::{Drafts, Event, Generation, Timings, Usage};
use crate::engine::request::{Format, GenerateRequest};
use crate::engine::sample::Sampler;
use crate::engine::text::{ChatTemplate, Tokenizer};
use crate::error::Result;

/// Prompt tokens computed at once: large enough for efficient products, small enough for progress
/// and a quick stop.
const PREFILL_CHUNK: usize = LONGEST_STEP;

/// A loaded model with its tokenizer and the cache of the last conversation.
pub struct Generator {
    pub model: Box<dyn LanguageModel>,
    pub tokenizer: Arc<Tokenizer>,
    pub template: Option<ChatTemplate>,
    /// The tokens as formats see them, once one was asked for.
    pub grammars: Option<Rc<Grammars>>,
    /// Tokens that end the model's turn.
    pub end_of_turn: Vec<u32>,
    pub vocabulary: usize,
    /// Most tokens that prompt and answer may have together.
    pub context: usize,
    pub cache: KvCache,
    /// The tokens whose keys and values are in the cache.
    pub held: Vec<u32>,
    /// What followed the last prompt: another answer to it begins without computing.
    pub last_prompt: Option<LastPrompt>,
    /// Guesses what comes, where that is wanted.
    pub drafter: Option<Drafter>,
    /// What saved caches are known by.
    pub identity: Identity,
    /// The step that may still be computing when an answer ends before it is needed.
    pub ahead: Option<Pending>,
}

impl Drop for Generator {
    fn drop(&mut self) {
        // The device must be done with the model before the model and, at the process's end, the library go.
        if let Some(ahead) = self.ahead.take() {
            let _ = ahead.wait();
        }
    }
}

/// A prompt that was computed to its end.
pub struct LastPrompt {
    tokens: Vec<u32>,
    /// Of its last token: `[1, vocabulary]`.
    logits: Array,
    /// Where the cache was.
    mark: Mark,
}

/// Where the events of one generation go, and how it is told to stop.
pub struct Channel<'a> {
    pub emit: &'a mut dyn FnMut(Event),
    pub cancel: &'a AtomicBool,
}

impl Channel<'_> {
    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

impl Generator {
    /// Answers one request. The cache keeps what was computed; on an error it is emptied.
    pub fn generate(&mut self, request: &GenerateRequest, channel: &mut Channel) -> Result<Generation> {
        let outcome = self.answer(request, channel);
        if outcome.is_err() {
            self.clear();
        }
        outcome
    }

    pub fn clear(&mut self) {
        self.rewind(0);
        self.last_prompt = None;
    }

    /// Goes back to the first `tokens` tokens held, or to the beginning where the cache cannot; where it is.
    fn rewind(&mut self, tokens: usize) -> usize {
        let reached = if self.cache.truncate(tokens).is_ok() { tokens } else { 0 };
        if reached == 0 {
            self.cache.clear();
        }
        self.held.truncate(reached);
        reached
    }

    /// Goes back to the end of the last prompt if `tokens` are that prompt; the logits that followed it.
    fn again(&mut self, tokens: &[u32]) -> Option<Array> {
        let last = self.last_prompt.take_if(|last| last.tokens == tokens && self.held.starts_with(tokens))?;
        self.cache.rewind(&last.mark).ok()?;
        self.held.truncate(tokens.len());
        Some(last.logits)
    }

    fn answer(&mut self, request: &GenerateRequest, channel: &mut Channel) -> Result<Generation> {
        let started = Instant::now();
        let sampler = Sampler::new(request.sampling, self.bias(&request.logit_bias)?)?;
        let constraint = request.format.as_ref().map(|format| self.constraint(format)).transpose()?;
        let (prompt, prompt_tokens) = self.prompt(request)?;
        let (tokenizer, end_of_turn) = (Arc::clone(&self.tokenizer), self.end_of_turn.clone());
        let means = Means {
            tokenizer: &tokenizer,
            end_of_turn: &end_of_turn,
            sampler,
            constraint,
            reasoning: self.reasoning(request, &prompt),
            limit: self.room_for(prompt_tokens.len(), request.max_tokens)?,
        };
        let answer = Answer::new(means, request, &prompt_tokens)?;

        // The same prompt again needs nothing; else at least one token is computed for its logits.
        let again = self.again(&prompt_tokens);
        let cached = if again.is_some() {
            prompt_tokens.len()
        } else {
            let common = self.held.iter().zip(&prompt_tokens).take_while(|(held, new)| held == new).count();
            self.rewind(common.min(prompt_tokens.len() - 1))
        };
        (channel.emit)(Event::Prompt {
            text: prompt.clone(),
            tokens: prompt_tokens.len(),
            cached_tokens: cached,
        });

        let prefill_started = Instant::now();
        let on_device = answer.is_on_device() && self.drafter.is_none();
        let first = match again {
            Some(logits) => Some(self.pending(logits, on_device)?),
            None => self.prefill(&prompt_tokens[cached..], on_device, channel)?,
        };
        let (decoded, drafts) = match first {
            Some(first) => {
                self.last_prompt = Some(LastPrompt {
                    tokens: prompt_tokens.clone(),
                    logits: first.logits().clone(),
                    mark: self.cache.mark(),
                });
                self.continue_with(first, answer, channel)?
            }
            None => (Decoded::interrupted(), Drafts::default()),
        };
        let ended = Instant::now();

        let first = decoded.first_token.unwrap_or(ended);
        let per_second =
            |count: usize, seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let computed = self.held.len().min(prompt_tokens.len()) - cached;
        Ok(Generation {
            prompt,
            finish_reason: decoded.finish_reason,
            usage: Usage {
                prompt_tokens: prompt_tokens.len(),
                cached_tokens: cached,
                generated_tokens: decoded.tokens.len(),
                drafted_tokens: drafts.drafted,
                accepted_tokens: drafts.accepted,
            },
            timings: Timings {
                ttft_s: (first - started).as_secs_f64(),
                prompt_tokens_per_s: per_second(computed, (first - prefill_started).as_secs_f64()),
                generation_tokens_per_s: per_second(
                    decoded.tokens.len().saturating_sub(1),
                    (ended - first).as_secs_f64(),
                ),
                total_s: (ended - started).as_secs_f64(),
            },
            peak_bytes: memory::peak_bytes(),
            text: decoded.text,
            reasoning: decoded.reasoning,
            tokens: decoded.tokens,
            logprobs: decoded.logprobs,
        })
    }

    /// Generates the answer, with drafts where there is a drafter.
    fn continue_with(
        &mut self,
        first: Pending,
        answer: Answer,
        channel: &mut Channel,
    ) -> Result<(Decoded, Drafts)> {
        match self.drafter.take() {
            Some(mut drafter) => {
                let outcome = self.speculate(&first, answer, &mut drafter, channel);
                self.drafter = Some(drafter);
                outcome
            }
            None => Ok((self.decode(first, answer, channel)?, Drafts::default())),
        }
    }

    /// What holds an answer to a format.
    fn constraint(&mut self, format: &Format) -> Result<Constraint> {
        let grammars = match &self.grammars {
            Some(grammars) => Rc::clone(grammars),
            None => Rc::new(Grammars::new(&self.tokenizer, self.vocabulary, &self.end_of_turn)?),
        };
        let constraint = grammars.begin(format);
        self.grammars = Some(grammars);
        constraint
    }

    /// Computes the prompt's new tokens; `None` when told to stop before the end. `on_device`: the
    /// device is to choose the token that follows.
    pub(super) fn prefill(
        &mut self,
        tokens: &[u32],
        on_device: bool,
        channel: &mut Channel,
    ) -> Result<Option<Pending>> {
        self.cache.expect(tokens.len() + 1)?;
        let mut done = 0;
        let mut pending = None;
        for chunk in tokens.chunks(PREFILL_CHUNK) {
            if channel.cancelled() {
                return Ok(None);
            }
            (channel.emit)(Event::Prefill { done, total: tokens.len() });
            done += chunk.len();
            if done < tokens.len() {
                self.model.forward(&ids(chunk), &mut self.cache, Logits::None)?;
                transforms::eval(self.cache.arrays())?;
            } else {
                pending = Some(self.step(&ids(chunk), on_device)?);
            }
            self.held.extend_from_slice(chunk);
        }
        (channel.emit)(Event::Prefill { done, total: tokens.len() });
        Ok(pending)
    }
}
