//! From a prompt to text: prefill, decode, sampling, stopping. Runs on the engine's thread.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mlx_rs::ops::indexing::argmax_axis;
use mlx_rs::{Array, Dtype, transforms};

use crate::engine::cache::{KvCache, LONGEST_STEP};
#[cfg(target_os = "linux")]
use crate::engine::kernels;
use crate::engine::layers::Backend;
use crate::engine::memory;
use crate::engine::models::{LanguageModel, Logits};
use crate::engine::outcome::{Event, FinishReason, Generation, Timings, Usage};
use crate::engine::request::{GenerateRequest, Prompt};
use crate::engine::sample::Sampler;
use crate::engine::text::{ChatTemplate, Detokenizer, StopMatcher, Tokenizer};
use crate::error::{Code, Error, Result};

/// Prompt tokens computed at once: large enough for efficient products, small enough for progress
/// and a quick stop.
const PREFILL_CHUNK: usize = LONGEST_STEP;

/// A loaded model with its tokenizer and the cache of the last conversation.
pub struct Generator {
    pub model: Box<dyn LanguageModel>,
    pub tokenizer: Rc<Tokenizer>,
    pub template: Option<ChatTemplate>,
    /// Tokens that end the model's turn.
    pub end_of_turn: Vec<u32>,
    pub vocabulary: usize,
    /// Most tokens that prompt and answer may have together.
    pub context: usize,
    pub cache: KvCache,
    /// The tokens whose keys and values are in the cache.
    pub held: Vec<u32>,
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

/// The outcome of a step that may still be computing.
pub enum Pending {
    /// The next token, chosen on the device: `[1]` int32.
    Token(Array),
    /// Logits `[1, vocabulary]` from which the host chooses.
    Logits(Array),
}

impl Pending {
    /// Waits until it is computed.
    pub(super) fn wait(&self) -> Result<()> {
        match self {
            Self::Token(token) => item(token).map(|_| ()),
            Self::Logits(logits) => Ok(logits.eval()?),
        }
    }
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

/// What the decode loop leaves.
struct Decoded {
    tokens: Vec<u32>,
    text: String,
    finish_reason: FinishReason,
    first_token: Option<Instant>,
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

    fn answer(&mut self, request: &GenerateRequest, channel: &mut Channel) -> Result<Generation> {
        let started = Instant::now();
        let sampler = Sampler::new(request.sampling)?;
        let stops = StopMatcher::new(&request.stop)?;
        let greedy = request.sampling.is_plain_greedy();
        let (prompt, prompt_tokens) = self.prompt(&request.prompt)?;
        let limit = self.room_for(prompt_tokens.len(), request.max_tokens)?;

        // At least one token is computed again: its logits are needed.
        let common = self.held.iter().zip(&prompt_tokens).take_while(|(held, new)| held == new).count();
        let cached = self.rewind(common.min(prompt_tokens.len() - 1));
        (channel.emit)(Event::Prompt {
            text: prompt.clone(),
            tokens: prompt_tokens.len(),
            cached_tokens: cached,
        });

        let prefill_started = Instant::now();
        let decoded = match self.prefill(&prompt_tokens[cached..], greedy, channel)? {
            Some(pending) => self.decode(pending, &prompt_tokens, limit, &sampler, stops, greedy, channel)?,
            None => Decoded {
                tokens: Vec::new(),
                text: String::new(),
                finish_reason: FinishReason::Interrupted,
                first_token: None,
            },
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
            tokens: decoded.tokens,
        })
    }

    /// The prompt's text as the model sees it, and its tokens.
    fn prompt(&self, prompt: &Prompt) -> Result<(String, Vec<u32>)> {
        let (text, tokens) = match (prompt, &self.template) {
            (Prompt::Raw(text), _) => (text.clone(), self.tokenizer.encode(text, true)?),
            (Prompt::Chat(messages), Some(template)) => {
                // The template writes the special tokens itself.
                let text = template.render(messages, true)?;
                let tokens = self.tokenizer.encode(&text, false)?;
                (text, tokens)
            }
            (Prompt::Chat(messages), None) => {
                let text =
                    messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n\n");
                let tokens = self.tokenizer.encode(&text, true)?;
                (text, tokens)
            }
        };
        if tokens.is_empty() {
            return Err(Error::new(Code::InvalidRequest, "the prompt is empty")
                .hint("give a text as an argument or pipe it in"));
        }
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= self.vocabulary) {
            return Err(Error::new(
                Code::IntegrityFailed,
                format!(
                    "the tokenizer gives token {id} but the model's vocabulary has {} tokens",
                    self.vocabulary
                ),
            )
            .hint("tokenizer and weights do not belong together: fetch the model again"));
        }
        Ok((text, tokens))
    }

    /// How many tokens may be generated.
    fn room_for(&self, prompt_tokens: usize, max_tokens: Option<usize>) -> Result<usize> {
        if prompt_tokens >= self.context {
            return Err(Error::new(
                Code::InvalidRequest,
                format!(
                    "the prompt has {prompt_tokens} tokens, which leaves no room for an answer in a context of {}",
                    self.context
                ),
            )
            .hint("shorten the prompt, start a new conversation, or raise --context as far as the model allows")
            .detail("prompt_tokens", prompt_tokens)
            .detail("context", self.context));
        }
        let room = self.context - prompt_tokens;
        Ok(max_tokens.map_or(room, |asked| asked.min(room)))
    }

    /// Computes the prompt's new tokens; `None` when told to stop before the end.
    pub(super) fn prefill(
        &mut self,
        tokens: &[u32],
        greedy: bool,
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
                pending = Some(self.step(&ids(chunk), greedy)?);
            }
            self.held.extend_from_slice(chunk);
        }
        (channel.emit)(Event::Prefill { done, total: tokens.len() });
        Ok(pending)
    }

    /// Starts computing what follows `tokens`.
    pub(super) fn step(&mut self, tokens: &Array, greedy: bool) -> Result<Pending> {
        let logits = self
            .model
            .forward(tokens, &mut self.cache, Logits::Last)?
            .ok_or_else(|| Error::internal("a step without logits"))?;
        if greedy {
            let token = most_likely(&logits, self.model.cache_shape().backend)?;
            transforms::async_eval([&token])?;
            Ok(Pending::Token(token))
        } else {
            let logits = logits.as_dtype(Dtype::Float32)?;
            transforms::async_eval([&logits])?;
            Ok(Pending::Logits(logits))
        }
    }

    /// Generates up to `limit` tokens. While the host handles one token, the device computes the next.
    #[allow(clippy::too_many_arguments)] // One loop; its inputs belong to no common thing.
    fn decode(
        &mut self,
        first: Pending,
        prompt_tokens: &[u32],
        limit: usize,
        sampler: &Sampler,
        mut stops: StopMatcher,
        greedy: bool,
        channel: &mut Channel,
    ) -> Result<Decoded> {
        let mut history = prompt_tokens.to_vec();
        let mut text = String::new();
        let mut first_token = None;
        let mut finish_reason = FinishReason::Length;
        let tokenizer = Rc::clone(&self.tokenizer);
        let mut detokenizer = Detokenizer::new(&tokenizer, true);
        self.ahead = Some(first);

        for step in 0..limit {
            let Some(now) = self.ahead.take() else { break };
            let more = step + 1 < limit;
            let id = match now {
                Pending::Token(token) => {
                    if more {
                        self.ahead = Some(self.step(&token, greedy)?);
                    }
                    item(&token)?
                }
                Pending::Logits(logits) => {
                    logits.eval()?;
                    let mut logits = logits
                        .try_as_slice::<f32>()
                        .map_err(|error| Error::internal(format!("logits: {error}")))?
                        .to_vec();
                    let id = sampler.sample(&mut logits, &history, step as u64)?;
                    if more {
                        self.ahead = Some(self.step(&ids(&[id]), greedy)?);
                    }
                    id
                }
            };
            first_token.get_or_insert_with(Instant::now);
            if more {
                self.held.push(id);
            }
            if self.end_of_turn.contains(&id) {
                finish_reason = FinishReason::Stop;
                break;
            }
            history.push(id);
            if let Some(piece) = detokenizer.push(id)? {
                let (safe, matched) = stops.push(&piece);
                show(&mut text, safe, channel);
                if matched {
                    finish_reason = FinishReason::Stop;
                    break;
                }
            }
            if channel.cancelled() {
                finish_reason = FinishReason::Interrupted;
                break;
            }
        }
        if let Some(piece) = detokenizer.finish()? {
            let (safe, _) = stops.push(&piece);
            show(&mut text, safe, channel);
        }
        show(&mut text, stops.finish(), channel);
        let tokens = history.split_off(prompt_tokens.len());
        Ok(Decoded { tokens, text, finish_reason, first_token })
    }
}

/// The index of the largest of logits `[1, vocabulary]`, int32 `[1]`, chosen on the device.
fn most_likely(logits: &Array, backend: Backend) -> Result<Array> {
    match backend {
        #[cfg(target_os = "linux")]
        Backend::Kernels => Ok(kernels::argmax(logits)?),
        _ => Ok(argmax_axis(logits, -1, false)?.as_dtype(Dtype::Int32)?),
    }
}

fn show(text: &mut String, piece: String, channel: &mut Channel) {
    if !piece.is_empty() {
        text.push_str(&piece);
        (channel.emit)(Event::Text(piece));
    }
}

/// The token that a step has chosen, once it is computed.
pub(super) fn item(token: &Array) -> Result<u32> {
    token.eval()?;
    let id = token.try_item_exact::<i32>().map_err(|error| Error::internal(format!("token: {error}")))?;
    #[cfg(target_os = "linux")]
    crate::engine::ffi::check()?;
    u32::try_from(id).map_err(|_| {
        Error::new(Code::IntegrityFailed, "the model's logits are not numbers")
            .hint("the weights are damaged or not supported: fetch the model again")
    })
}

/// Token ids as the model takes them.
fn ids(tokens: &[u32]) -> Array {
    let tokens: Vec<i32> = tokens.iter().map(|&token| token.cast_signed()).collect();
    Array::from_slice(&tokens, &[tokens.len() as i32])
}
