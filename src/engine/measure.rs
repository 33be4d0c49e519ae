//! Measuring speed: work of exact token counts, without a tokenizer, without sampling, without an end.

use std::sync::atomic::Ordering;
use std::time::Instant;

use rand_core::Rng;
use rand_pcg::Pcg64Mcg;

use crate::engine::generate::{Channel, Generator, Member, Pending, item};
use crate::engine::request::SamplingOptions;
use crate::engine::sample::Sampler;
use crate::error::{Code, Error, Result};
use crate::ids::Bytes;

/// The same tokens every time: what a model computes with them depends on nothing else.
const SEED: u128 = 0x6d6c_782d_6361_6368;

/// One measured piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// Tokens that the cache holds before; they are computed first and not measured.
    pub depth: usize,
    pub work: Work,
    /// How many sequences do the work at once.
    pub batch: usize,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Computing a prompt of this many tokens at once, up to the choice of the token that follows.
    Prompt(usize),
    /// Generating this many tokens one by one, each the most likely one, whether it ends a turn or not.
    Generate(usize),
    /// Making the vector of a text of this many tokens.
    Embed(usize),
}

impl Work {
    /// Tokens of one sequence.
    pub fn tokens(self) -> usize {
        match self {
            Self::Prompt(tokens) | Self::Generate(tokens) | Self::Embed(tokens) => tokens,
        }
    }
}

impl Trial {
    /// Tokens that must fit the context.
    pub fn tokens(&self) -> usize {
        match self.work {
            Work::Prompt(tokens) | Work::Generate(tokens) => self.before() + tokens + 1,
            Work::Embed(tokens) => tokens,
        }
    }

    /// Tokens that are computed before: what is generated follows one at least.
    fn before(&self) -> usize {
        match self.work {
            Work::Generate(_) => self.depth.max(1),
            Work::Prompt(_) | Work::Embed(_) => self.depth,
        }
    }

    /// # Errors
    /// INVALID_REQUEST if the work is nothing or does not fit a context of so many tokens.
    pub fn check(&self, context: usize) -> Result<()> {
        let tokens = self.work.tokens();
        if tokens > 0 && self.tokens() <= context {
            return Ok(());
        }
        let test = format!("a test of {tokens} tokens at depth {}", self.depth);
        Err(Error::new(Code::InvalidRequest, format!("{test} does not fit a context of {context}"))
            .hint("measure fewer tokens, or give a larger --context as far as the model allows"))
    }
}

/// Tokens without a meaning, the same ones every time.
pub(super) struct Synthetic {
    random: Pcg64Mcg,
    vocabulary: u64,
}

impl Synthetic {
    pub(super) fn new(vocabulary: usize) -> Self {
        Self { random: Pcg64Mcg::new(SEED), vocabulary: vocabulary.max(1) as u64 }
    }

    /// The next `count` of them.
    pub(super) fn tokens(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| (self.random.next_u64() % self.vocabulary) as u32).collect()
    }
}

impl Generator {
    /// Does the work and gives the seconds that it took; `None` when told to stop before its end.
    /// The conversation in the cache is lost. What comes before the work stays for the next one, where the cache can
    /// go back there.
    ///
    /// # Errors
    /// INVALID_REQUEST if the work is nothing or does not fit the context.
    pub fn measure(&mut self, trial: Trial, channel: &mut Channel) -> Result<Option<f64>> {
        trial.check(self.context)?;
        self.last_prompt = None;
        let measured =
            if trial.batch == 1 { self.timed(trial, channel) } else { self.timed_together(trial, channel) };
        if !matches!(measured, Ok(Some(_))) {
            self.clear();
        }
        measured
    }

    /// The same for several sequences at once.
    fn timed_together(&mut self, trial: Trial, channel: &mut Channel) -> Result<Option<f64>> {
        let needed = self.cache_plan.bytes(trial.tokens()).saturating_mul(trial.batch as u64);
        if needed > self.cache_room {
            return Err(Error::new(
                Code::InsufficientMemory,
                format!(
                    "the caches of {} sequences need {}, but there is room for {}",
                    trial.batch,
                    Bytes(needed),
                    Bytes(self.cache_room)
                ),
            )
            .hint("measure fewer sequences at once, or shorter ones"));
        }
        self.clear();
        let mut synthetic = Synthetic::new(self.vocabulary);
        let before = trial.before();
        let mut members = Vec::with_capacity(trial.batch);
        for _ in 0..trial.batch {
            let mut cache = self.empty_cache()?;
            cache.expect(trial.tokens())?;
            members.push(Member { cache, feed: synthetic.tokens(before), answers: false });
        }
        let mut members: Vec<&mut Member> = members.iter_mut().collect();
        if !self.advance_together(&mut members, channel)? {
            return Ok(None);
        }
        let steps = match trial.work {
            Work::Generate(count) => count,
            Work::Prompt(count) | Work::Embed(count) => {
                for member in &mut members {
                    (member.feed, member.answers) = (synthetic.tokens(count), false);
                }
                1
            }
        };
        let started = Instant::now();
        for _ in 0..steps {
            if !self.advance_together(&mut members, channel)? {
                return Ok(None);
            }
        }
        Ok(Some(started.elapsed().as_secs_f64()))
    }

    /// Computes all that the sequences are fed with, and feeds each with its most likely token; `false` when
    /// told to stop before.
    fn advance_together(&self, members: &mut [&mut Member], channel: &Channel) -> Result<bool> {
        let mut greedy = Sampler::new(SamplingOptions::default(), Vec::new())?;
        let mut chosen: Vec<Option<u32>> = vec![None; members.len()];
        while members.iter().any(|member| !member.feed.is_empty()) {
            if channel.cancel.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let (mut logits, whose) = self.step_together(members)?;
            let width = (logits.len() / whose.len().max(1)).max(1);
            for (place, row) in whose.into_iter().zip(logits.chunks_exact_mut(width)) {
                chosen[place] = Some(greedy.sample(row, &[], 0)?);
            }
        }
        for (member, token) in members.iter_mut().zip(chosen) {
            member.feed.extend(token);
            member.answers = true;
        }
        Ok(true)
    }

    fn timed(&mut self, trial: Trial, channel: &mut Channel) -> Result<Option<f64>> {
        let mut synthetic = Synthetic::new(self.vocabulary);
        let before = synthetic.tokens(trial.before());
        let held = self.rewind_to_common(&before);
        let mut pending = None;
        if !before.is_empty() {
            let Some(ready) = self.prefill(&before[held..], true, channel)? else {
                return Ok(None);
            };
            ready.wait()?;
            pending = Some(ready);
        }
        match trial.work {
            Work::Prompt(count) => {
                let prompt = synthetic.tokens(count);
                let started = Instant::now();
                let Some(ready) = self.prefill(&prompt, true, channel)? else { return Ok(None) };
                ready.wait()?;
                Ok(Some(started.elapsed().as_secs_f64()))
            }
            Work::Generate(count) => {
                let Some(Pending::Token(mut token, _)) = pending else {
                    return Err(Error::internal("a greedy step chose no token"));
                };
                let started = Instant::now();
                let mut next = self.step(&token, true)?;
                for step in 1..=count {
                    let Pending::Token(chosen, _) = next else {
                        return Err(Error::internal("a greedy step chose no token"));
                    };
                    token = chosen;
                    if channel.cancel.load(Ordering::Relaxed) {
                        return Ok(None);
                    }
                    // As in real generation: the next step is under way while this one is read.
                    if step == count {
                        item(&token)?;
                        break;
                    }
                    next = self.step(&token, true)?;
                    item(&token)?;
                }
                Ok(Some(started.elapsed().as_secs_f64()))
            }
            Work::Embed(_) => Err(Error::internal("a model that generates text was to embed")),
        }
    }
}
