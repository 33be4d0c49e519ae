//! Several requests at once. Each step computes the next tokens of all sequences that are being answered and,
//! with the room that is left, parts of the prompts of new ones: weights are read once for all of them.
//! Sequences of any length come and go between steps.

use std::sync::atomic::{AtomicBool, Ordering};

use mlx_rs::{Dtype, transforms};

use super::decode::{floats, ids};
use super::{Answer, Begun, Channel, Course, EXPECTED, Generator};
use crate::engine::cache::{KvCache, LONGEST_STEP};
use crate::engine::models::{Logits, Sequence};
use crate::engine::outcome::Generation;
use crate::engine::request::GenerateRequest;
use crate::engine::text::Tokenizer;
use crate::error::Result;

/// What comes next of the requests.
pub enum Next {
    /// A request with its number.
    Request(u64, Box<GenerateRequest>),
    /// None now, but maybe later.
    NotYet,
    /// None any more.
    End,
}

/// Where requests come from and answers go.
pub struct Exchange<'a> {
    /// The next request; `true` waits for it.
    pub next: &'a mut dyn FnMut(bool) -> Next,
    /// Takes the answer to the request of a number, as soon as it has ended.
    pub done: &'a mut dyn FnMut(u64, Result<Generation>),
    pub cancel: &'a AtomicBool,
}

/// A sequence that is computed with others.
pub(in crate::engine) struct Member {
    pub cache: KvCache,
    /// Tokens that are still to be computed.
    pub feed: Vec<u32>,
    /// Whether they are the answer's: these come first.
    pub answers: bool,
}

/// A request that is being answered.
struct Running<'a> {
    number: u64,
    answer: Answer<'a>,
    member: Member,
    prompt: String,
    prompt_tokens: usize,
    /// Most bytes that its cache will have.
    bytes: u64,
    course: Course,
}

/// The requests that are being answered, and one that has to wait for memory.
#[derive(Default)]
struct Crowd<'a> {
    running: Vec<Running<'a>>,
    waiting: Option<(u64, Begun<'a>)>,
    /// Whether no request is to come.
    ended: bool,
}

impl Generator {
    /// Answers requests until there are no more, at most `most` at once and no more than the memory for
    /// caches allows, but always one. The conversation in the cache stays as it is.
    ///
    /// # Errors
    /// What makes computing impossible; what is wrong with a single request goes where its answer would.
    pub fn generate_together(&mut self, most: usize, exchange: &mut Exchange) -> Result<()> {
        let (tokenizer, end_of_turn) = (self.tokenizer.clone(), self.end_of_turn.clone());
        let mut crowd = Crowd::default();
        while !exchange.cancel.load(Ordering::Relaxed) {
            self.admit(&mut crowd, most.max(1), exchange, (&*tokenizer, end_of_turn.as_slice()))?;
            if !crowd.running.is_empty() {
                self.advance(&mut crowd.running, exchange)?;
            } else if crowd.ended {
                break;
            }
        }
        Ok(())
    }

    /// Lets requests in as long as there is room for them.
    fn admit<'a>(
        &mut self,
        crowd: &mut Crowd<'a>,
        most: usize,
        exchange: &mut Exchange,
        (tokenizer, end_of_turn): (&'a Tokenizer, &'a [u32]),
    ) -> Result<()> {
        while crowd.running.len() < most {
            let (number, begun) = match crowd.waiting.take() {
                Some(waiting) => waiting,
                None if crowd.ended => return Ok(()),
                None => match (exchange.next)(crowd.running.is_empty()) {
                    Next::Request(number, request) => match self.begin(&request, tokenizer, end_of_turn) {
                        Ok(begun) => (number, begun),
                        Err(error) => {
                            (exchange.done)(number, Err(error));
                            continue;
                        }
                    },
                    Next::NotYet => return Ok(()),
                    Next::End => {
                        crowd.ended = true;
                        return Ok(());
                    }
                },
            };
            let bytes = self.cache_plan.bytes(begun.tokens.len() + begun.answer.room());
            let taken = crowd.running.iter().map(|running| running.bytes).fold(bytes, u64::saturating_add);
            if !crowd.running.is_empty() && taken > self.cache_room {
                crowd.waiting = Some((number, begun));
                return Ok(());
            }
            crowd.running.push(self.join(number, begun, bytes)?);
        }
        Ok(())
    }

    /// Does a step; answers that have ended leave.
    fn advance(&self, running: &mut Vec<Running>, exchange: &mut Exchange) -> Result<()> {
        let mut members: Vec<&mut Member> = running.iter_mut().map(|running| &mut running.member).collect();
        let (mut logits, whose) = self.step_together(&mut members)?;
        let width = (logits.len() / whose.len().max(1)).max(1);
        let mut over = Vec::new();
        for (&place, row) in whose.iter().zip(logits.chunks_exact_mut(width)) {
            let Some(one) = running.get_mut(place) else { continue };
            let mut channel = Channel { emit: &mut |_| (), cancel: exchange.cancel };
            match one.answer.next(row, &mut channel) {
                Ok(Some(coming)) => one.member.feed = coming,
                Ok(None) => over.push((place, None)),
                Err(error) => over.push((place, Some(error))),
            }
            one.member.answers = true;
        }
        // From the last one on, so that the places of the others stay.
        for (place, failure) in over.into_iter().rev() {
            let Running { number, answer, prompt, prompt_tokens, course, .. } = running.remove(place);
            let mut channel = Channel { emit: &mut |_| (), cancel: exchange.cancel };
            let ended = failure.map_or_else(|| answer.finish(&mut channel), Err);
            (exchange.done)(number, ended.map(|decoded| course.end(prompt, prompt_tokens, decoded)));
        }
        Ok(())
    }

    fn join<'a>(&self, number: u64, begun: Begun<'a>, bytes: u64) -> Result<Running<'a>> {
        let Begun { answer, prompt, tokens } = begun;
        let mut cache = self.empty_cache()?;
        cache.expect(tokens.len() + answer.room().min(EXPECTED))?;
        Ok(Running {
            number,
            answer,
            prompt,
            prompt_tokens: tokens.len(),
            bytes,
            course: Course { computed: tokens.len(), ..Course::begin() },
            member: Member { cache, feed: tokens, answers: false },
        })
    }

    /// A cache for a sequence of its own.
    pub(in crate::engine) fn empty_cache(&self) -> Result<KvCache> {
        KvCache::with_options(self.model.cache_shape(), &self.cache_plan.options)
    }

    /// Computes the next tokens of each of these, of long prompts only a part. The logits `[R, vocabulary]`
    /// behind those that have nothing left to be computed, and which they are.
    pub(in crate::engine) fn step_together(
        &self,
        members: &mut [&mut Member],
    ) -> Result<(Vec<f32>, Vec<usize>)> {
        let mut left = LONGEST_STEP;
        let mut counts = vec![0; members.len()];
        for answers in [true, false] {
            for (count, member) in counts.iter_mut().zip(&*members) {
                if member.answers == answers {
                    *count = member.feed.len().min(left);
                    left -= *count;
                }
            }
        }
        let (mut tokens, mut whose) = (Vec::new(), Vec::new());
        let mut sequences = Vec::with_capacity(members.len());
        for (place, (member, &count)) in members.iter_mut().zip(&counts).enumerate() {
            if count == 0 {
                continue;
            }
            tokens.extend(member.feed.drain(..count));
            let is_whole = member.feed.is_empty();
            whose.extend(is_whole.then_some(place));
            let logits = if is_whole { Logits::Last } else { Logits::None };
            sequences.push(Sequence { tokens: count, cache: &mut member.cache, logits });
        }
        if let Some(logits) = self.model.forward_together(&ids(&tokens), &mut sequences)? {
            return Ok((floats(&logits.as_dtype(Dtype::Float32)?)?, whose));
        }
        for sequence in &sequences {
            transforms::eval(&sequence.cache.arrays()?)?;
        }
        Ok((Vec::new(), whose))
    }
}
