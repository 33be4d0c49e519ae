//! One answer while it is made: which token comes, what of its text is shown, when it ends.

use std::time::Instant;

use super::Channel;
use crate::engine::constrain::Constraint;
use crate::engine::outcome::{Alternative, Event, FinishReason, TokenLogprob};
use crate::engine::request::GenerateRequest;
use crate::engine::sample::{Sampler, likely};
use crate::engine::text::reasoning::{Piece, Splitter, Tags};
use crate::engine::text::{Detokenizer, StopMatcher, Tokenizer};
use crate::error::{Code, Error, Result};

/// What decides how an answer goes, beside the request.
pub(super) struct Means<'a> {
    pub tokenizer: &'a Tokenizer,
    /// Tokens that end the model's turn.
    pub end_of_turn: &'a [u32],
    pub sampler: Sampler,
    /// What follows the format, if there is one.
    pub constraint: Option<Constraint>,
    /// How the model marks its reasoning, and whether the prompt has begun it.
    pub reasoning: Option<(Tags, bool)>,
    /// Most tokens of the answer.
    pub limit: usize,
}

/// An answer up to now.
pub(super) struct Answer<'a> {
    tokenizer: &'a Tokenizer,
    end_of_turn: &'a [u32],
    sampler: Sampler,
    constraint: Option<Constraint>,
    tags: Option<Tags>,
    splitter: Option<Splitter>,
    detokenizer: Detokenizer<'a>,
    stops: StopMatcher,
    /// The prompt's tokens, then those of the answer.
    history: Vec<u32>,
    prompt: usize,
    limit: usize,
    /// How many alternatives are told with each token.
    alternatives: Option<usize>,
    likely: Vec<TokenLogprob>,
    text: String,
    reasoning: String,
    first_token: Option<Instant>,
    finish_reason: Option<FinishReason>,
}

/// What an answer leaves.
pub(super) struct Decoded {
    pub tokens: Vec<u32>,
    pub text: String,
    pub reasoning: String,
    pub logprobs: Vec<TokenLogprob>,
    pub finish_reason: FinishReason,
    pub first_token: Option<Instant>,
}

impl Decoded {
    /// The end before the first token: told to stop while the prompt was computed.
    pub fn interrupted() -> Self {
        Self {
            tokens: Vec::new(),
            text: String::new(),
            reasoning: String::new(),
            logprobs: Vec::new(),
            finish_reason: FinishReason::Interrupted,
            first_token: None,
        }
    }
}

impl<'a> Answer<'a> {
    pub fn new(means: Means<'a>, request: &GenerateRequest, prompt: &[u32]) -> Result<Self> {
        let Means { tokenizer, end_of_turn, sampler, constraint, reasoning, limit } = means;
        // In a format a tag is text like any other, and the format itself ends the answer.
        let is_free = constraint.is_none();
        let splitter = reasoning
            .filter(|&(_, begun)| is_free || begun)
            .map(|(tags, begun)| Splitter::new(tags, begun, is_free));
        Ok(Self {
            tokenizer,
            end_of_turn,
            sampler,
            tags: reasoning.map(|(tags, _)| tags).filter(|_| splitter.is_some()),
            constraint,
            splitter,
            detokenizer: Detokenizer::new(tokenizer, true),
            stops: StopMatcher::new(if is_free { &request.stop } else { &[] })?,
            history: prompt.to_vec(),
            prompt: prompt.len(),
            limit,
            alternatives: request.logprobs,
            likely: Vec::new(),
            text: String::new(),
            reasoning: String::new(),
            first_token: None,
            finish_reason: None,
        })
    }

    /// Whether nobody needs the logits but the device, which takes the most likely token.
    pub fn is_on_device(&self) -> bool {
        self.sampler.is_plain_greedy() && self.alternatives.is_none() && self.constraint.is_none()
    }

    /// The prompt's tokens and those of the answer.
    pub fn history(&self) -> &[u32] {
        &self.history
    }

    /// How many tokens may still come.
    pub fn room(&self) -> usize {
        self.limit - self.length().min(self.limit)
    }

    /// How many tokens there are.
    pub fn length(&self) -> usize {
        self.history.len() - self.prompt
    }

    /// Whether another token may follow those that come now.
    pub fn goes_on_after(&self, coming: &[u32]) -> bool {
        self.length() + coming.len() < self.limit
            && !coming.iter().any(|id| self.end_of_turn.contains(id))
            && !self.is_complete()
    }

    /// Whether another token may follow one that is not known yet.
    pub fn has_room(&self) -> bool {
        self.length() + 1 < self.limit
    }

    /// The tokens that come next: those that the format has here, else the choice from the logits
    /// `[vocabulary]`, which it changes, and what the format has after that.
    pub fn coming<L: AsMut<[f32]>>(&mut self, logits: impl FnOnce() -> Result<L>) -> Result<Vec<u32>> {
        let given = self.given()?;
        if given.is_empty() { self.choose(logits()?.as_mut()) } else { Ok(given) }
    }

    /// The tokens that the format has at this place, whatever the model says.
    fn given(&mut self) -> Result<Vec<u32>> {
        let Some(constraint) = self.constraint.as_mut().filter(|_| !is_thinking(self.splitter.as_ref()))
        else {
            return Ok(Vec::new());
        };
        let given = constraint.forced()?;
        self.tell_given(&given)?;
        Ok(given)
    }

    /// Chooses the next token from `logits` `[vocabulary]`, which it changes. Further tokens are those
    /// that the format has after it.
    fn choose(&mut self, logits: &mut [f32]) -> Result<Vec<u32>> {
        let before = self.alternatives.map(|count| (count, logits.to_vec()));
        let (is_thinking, step) = (is_thinking(self.splitter.as_ref()), self.length() as u64);
        let mut constraint = self.constraint.as_mut().filter(|_| !is_thinking);
        if let Some(constraint) = &mut constraint {
            constraint.mask(logits)?;
        }
        let id = self.sampler.sample(logits, &self.history, step)?;
        let mut coming = vec![id];
        if let Some(constraint) = constraint.filter(|_| !self.end_of_turn.contains(&id)) {
            coming.extend(constraint.take(id)?);
        }
        if let Some((count, logits)) = before {
            self.tell(id, &logits, count)?;
        }
        self.tell_given(&coming[1..])?;
        Ok(coming)
    }

    /// Writes down how likely a token was.
    fn tell(&mut self, id: u32, logits: &[f32], count: usize) -> Result<()> {
        let (logprob, best) = likely(logits, id, count)?;
        let text = |id: u32| self.tokenizer.decode(&[id], false);
        let alternatives = best
            .into_iter()
            .map(|(id, logprob)| Ok(Alternative { id, text: text(id)?, logprob }))
            .collect::<Result<_>>()?;
        let text = text(id)?;
        self.likely.push(TokenLogprob { id, text, logprob, alternatives });
        Ok(())
    }

    /// Writes down that tokens were certain.
    fn tell_given(&mut self, given: &[u32]) -> Result<()> {
        if self.alternatives.is_some() {
            for &id in given {
                let text = self.tokenizer.decode(&[id], false)?;
                self.likely.push(TokenLogprob { id, text, logprob: 0.0, alternatives: Vec::new() });
            }
        }
        Ok(())
    }

    /// Takes the next token in and shows what is certain of its text. Whether the answer goes on.
    fn take(&mut self, id: u32, channel: &mut Channel) -> Result<bool> {
        self.first_token.get_or_insert_with(Instant::now);
        if self.end_of_turn.contains(&id) {
            self.finish_reason = Some(FinishReason::Stop);
            return Ok(false);
        }
        self.history.push(id);
        let stopped = match self.piece(id)? {
            Some(piece) => self.read(&piece, channel),
            None => false,
        };
        if stopped {
            self.finish_reason = Some(FinishReason::Stop);
            return Ok(false);
        }
        if channel.cancelled() {
            self.finish_reason = Some(FinishReason::Interrupted);
            return Ok(false);
        }
        Ok(self.length() < self.limit)
    }

    /// Takes tokens in until the answer ends. Whether it goes on.
    pub fn take_all(&mut self, coming: &[u32], channel: &mut Channel) -> Result<bool> {
        for &id in coming {
            if !self.take(id, channel)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes in the tokens that come next; those to be computed if the answer goes on.
    pub fn next(&mut self, logits: &mut [f32], channel: &mut Channel) -> Result<Option<Vec<u32>>> {
        let coming = self.coming(|| Ok(logits))?;
        let goes_on = self.take_all(&coming, channel)? && !self.is_complete();
        Ok(goes_on.then_some(coming))
    }

    /// Whether the format ends the answer here.
    pub fn is_complete(&self) -> bool {
        self.constraint.as_ref().is_some_and(Constraint::is_complete)
    }

    /// The text that a token makes certain, special tokens left out unless they are part of a tag.
    fn piece(&mut self, id: u32) -> Result<Option<String>> {
        if let Some(tags) = self.tags
            && self.tokenizer.is_special(id)
            && let Some(token) = self.tokenizer.id_to_token(id)
            && tags.has(&token)
        {
            return Ok(Some(token));
        }
        self.detokenizer.push(id)
    }

    /// Takes text in. Whether a stop text ends the answer.
    fn read(&mut self, text: &str, channel: &mut Channel) -> bool {
        let Some(splitter) = &mut self.splitter else { return self.answer(text, channel) };
        let pieces = splitter.push(text);
        self.put(pieces, channel)
    }

    fn put(&mut self, pieces: Vec<Piece>, channel: &mut Channel) -> bool {
        pieces.into_iter().any(|piece| match piece {
            Piece::Text(text) => self.answer(&text, channel),
            Piece::Reasoning(text) => {
                self.reasoning.push_str(&text);
                (channel.emit)(Event::Reasoning(text));
                false
            }
        })
    }

    fn answer(&mut self, text: &str, channel: &mut Channel) -> bool {
        let (safe, matched) = self.stops.push(text);
        self.show(safe, channel);
        matched
    }

    /// The end: what was held back is text after all.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when the answer had to end before its format was whole.
    pub fn finish(mut self, channel: &mut Channel) -> Result<Decoded> {
        if let Some(piece) = self.detokenizer.finish()? {
            self.read(&piece, channel);
        }
        if let Some(splitter) = &mut self.splitter {
            let pieces = splitter.finish();
            self.put(pieces, channel);
        }
        let rest = self.stops.finish();
        self.show(rest, channel);
        let tokens = self.history.split_off(self.prompt);
        // The token that ended the turn has a probability too, but is none of the answer's.
        self.likely.truncate(tokens.len());
        let mut finish_reason = self.finish_reason.unwrap_or(FinishReason::Length);
        if let Some(constraint) = &mut self.constraint
            && finish_reason == FinishReason::Length
        {
            let is_whole = !is_thinking(self.splitter.as_ref()) && constraint.is_satisfied();
            if !is_whole {
                return Err(unfinished(tokens.len(), self.text));
            }
            finish_reason = FinishReason::Stop;
        }
        Ok(Decoded {
            tokens,
            text: self.text,
            reasoning: self.reasoning.trim_end().to_owned(),
            logprobs: self.likely,
            finish_reason,
            first_token: self.first_token,
        })
    }

    fn show(&mut self, piece: String, channel: &mut Channel) {
        if !piece.is_empty() {
            self.text.push_str(&piece);
            (channel.emit)(Event::Text(piece));
        }
    }
}

fn is_thinking(splitter: Option<&Splitter>) -> bool {
    splitter.is_some_and(Splitter::is_thinking)
}

fn unfinished(tokens: usize, text: String) -> Error {
    Error::new(
        Code::InvalidRequest,
        format!("the answer is not whole in its format: {tokens} tokens were not enough"),
    )
    .hint("raise --max-tokens or --context, or set bounds in the schema, such as maxLength and maxItems")
    .detail("text", text)
    .detail("generated_tokens", tokens)
}
