//! From a prompt to text: prefill, decode, sampling, stopping. Runs on the engine's thread.

mod answer;
mod decode;
pub mod draft;
mod prompt;
mod saved;
mod speculate;
mod together;

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
pub(super) use self::together::Member;
pub use self::together::{Exchange, Next};
use crate::engine::cache::{KvCache, LONGEST_STEP, Mark};
use crate::engine::constrain::{Constraint, Grammars};
use crate::engine::memory;
use crate::engine::models::{LanguageModel, Logits};
use crate::engine::outcome::{Drafts, Event, Generation, Timings, Usage};
use crate::engine::policy::CachePlan;
use crate::engine::request::{Format, GenerateRequest};
use crate::engine::sample::Sampler;
use crate::engine::text::{ChatTemplate, Tokenizer};
use crate::error::Result;

/// Prompt tokens computed at once: large enough for efficient products, small enough for progress
/// and a quick stop.
const PREFILL_CHUNK: usize = LONGEST_STEP;

/// Most tokens of an answer that caches have room for from the start. What grows leaves its old place, which nothing
/// as large as its new one fits into.
const EXPECTED: usize = LONGEST_STEP;

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
    /// How caches are kept, and most bytes that those of several sequences may have.
    pub cache_plan: CachePlan,
    pub cache_room: u64,
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

/// A request that is ready to be computed.
struct Begun<'a> {
    answer: Answer<'a>,
    /// As the model sees it.
    prompt: String,
    tokens: Vec<u32>,
}

/// How an answer came to be.
struct Course {
    started: Instant,
    /// When computing began.
    computing: Instant,
    /// Tokens of the prompt that need no computing.
    cached: usize,
    /// Those that were computed.
    computed: usize,
}

impl Course {
    fn begin() -> Self {
        let now = Instant::now();
        Self { started: now, computing: now, cached: 0, computed: 0 }
    }

    /// Computing begins.
    fn compute(&mut self, cached: usize) {
        (self.computing, self.cached) = (Instant::now(), cached);
    }

    /// The answer ends now.
    fn end(&self, prompt: String, prompt_tokens: usize, decoded: Decoded) -> Generation {
        let ended = Instant::now();
        let first = decoded.first_token.unwrap_or(ended);
        let per_second =
            |count: usize, seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        Generation {
            prompt,
            finish_reason: decoded.finish_reason,
            usage: Usage {
                prompt_tokens,
                cached_tokens: self.cached,
                generated_tokens: decoded.tokens.len(),
                ..Usage::default()
            },
            timings: Timings {
                ttft_s: (first - self.started).as_secs_f64(),
                prompt_tokens_per_s: per_second(self.computed, (first - self.computing).as_secs_f64()),
                generation_tokens_per_s: per_second(
                    decoded.tokens.len().saturating_sub(1),
                    (ended - first).as_secs_f64(),
                ),
                total_s: (ended - self.started).as_secs_f64(),
            },
            peak_bytes: memory::peak_bytes(),
            text: decoded.text,
            reasoning: decoded.reasoning,
            tokens: decoded.tokens,
            logprobs: decoded.logprobs,
        }
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

    /// Goes back to where the tokens held are no longer these, before the last of these at most; where it is.
    pub(super) fn rewind_to_common(&mut self, tokens: &[u32]) -> usize {
        let common = self.held.iter().zip(tokens).take_while(|(held, new)| held == new).count();
        self.rewind(common.min(tokens.len().saturating_sub(1)))
    }

    /// Goes back to the end of the last prompt if `tokens` are that prompt; the logits that followed it.
    fn again(&mut self, tokens: &[u32]) -> Option<Array> {
        let last = self.last_prompt.take_if(|last| last.tokens == tokens && self.held.starts_with(tokens))?;
        self.cache.rewind(&last.mark).ok()?;
        self.held.truncate(tokens.len());
        Some(last.logits)
    }

    fn answer(&mut self, request: &GenerateRequest, channel: &mut Channel) -> Result<Generation> {
        let mut course = Course::begin();
        let (tokenizer, end_of_turn) = (Arc::clone(&self.tokenizer), self.end_of_turn.clone());
        let Begun { answer, prompt, tokens } = self.begin(request, &tokenizer, &end_of_turn)?;

        // The same prompt again needs nothing; else at least one token is computed for its logits.
        let again = self.again(&tokens);
        let cached = if again.is_some() { tokens.len() } else { self.rewind_to_common(&tokens) };
        (channel.emit)(Event::Prompt { text: prompt.clone(), tokens: tokens.len(), cached_tokens: cached });

        course.compute(cached);
        self.cache.expect(tokens.len() - cached + answer.room().min(EXPECTED))?;
        let on_device = answer.is_on_device() && self.drafter.is_none();
        let first = match again {
            Some(logits) => Some(self.pending(logits, on_device)?),
            None => self.prefill(&tokens[cached..], on_device, channel)?,
        };
        let prompt_tokens = tokens.len();
        let (decoded, drafts) = match first {
            Some(first) => {
                let (logits, mark) = (first.logits().clone(), self.cache.mark());
                self.last_prompt = Some(LastPrompt { tokens, logits, mark });
                self.continue_with(first, answer, channel)?
            }
            None => (Decoded::interrupted(), Drafts::default()),
        };
        course.computed = self.held.len().min(prompt_tokens) - cached;
        let mut generation = course.end(prompt, prompt_tokens, decoded);
        generation.usage.drafted_tokens = drafts.drafted;
        generation.usage.accepted_tokens = drafts.accepted;
        Ok(generation)
    }

    /// Makes the request ready to be computed.
    fn begin<'a>(
        &mut self,
        request: &GenerateRequest,
        tokenizer: &'a Tokenizer,
        end_of_turn: &'a [u32],
    ) -> Result<Begun<'a>> {
        let sampler = Sampler::new(request.sampling, self.bias(&request.logit_bias)?)?;
        let constraint = request.format.as_ref().map(|format| self.constraint(format)).transpose()?;
        let (prompt, tokens) = self.prompt(request)?;
        let means = Means {
            tokenizer,
            end_of_turn,
            sampler,
            constraint,
            reasoning: self.reasoning(request, &prompt),
            limit: self.room_for(tokens.len(), request.max_tokens)?,
        };
        Ok(Begun { answer: Answer::new(means, request, &tokens)?, prompt, tokens })
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
                transforms::eval(&self.cache.arrays()?)?;
            } else {
                pending = Some(self.step(&ids(chunk), on_device)?);
            }
            self.held.extend_from_slice(chunk);
        }
        (channel.emit)(Event::Prefill { done, total: tokens.len() });
        Ok(pending)
    }
}
