//! Measuring speed: work of exact token counts, without a tokenizer, without sampling, without an end.

use std::sync::atomic::Ordering;
use std::time::Instant;

use rand_core::Rng;
use rand_pcg::Pcg64Mcg;

use crate::engine::generate::{Channel, Generator, Pending, item};
use crate::error::{Code, Error, Result};

/// The same tokens every time: what a model computes with them depends on nothing else.
const SEED: u128 = 0x6d6c_782d_6361_6368;

/// One measured piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// Tokens that the cache holds before; they are computed first and not measured.
    pub depth: usize,
    pub work: Work,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Computing a prompt of this many tokens at once, up to the choice of the token that follows.
    Prompt(usize),
    /// Generating this many tokens one by one, each the most likely one, whether it ends a turn or not.
    Generate(usize),
}

impl Trial {
    /// Tokens that must fit the context.
    pub fn tokens(&self) -> usize {
        match self.work {
            Work::Prompt(tokens) => self.depth + tokens + 1,
            Work::Generate(tokens) => self.depth.max(1) + tokens + 1,
        }
    }
}

impl Generator {
    /// Does the work and gives the seconds that it took; `None` when told to stop before its end.
    /// The conversation in the cache is lost.
    ///
    /// # Errors
    /// INVALID_REQUEST if the work is nothing or does not fit the context.
    pub fn measure(&mut self, trial: Trial, channel: &mut Channel) -> Result<Option<f64>> {
        let (Work::Prompt(tokens) | Work::Generate(tokens)) = trial.work;
        if tokens == 0 || trial.tokens() > self.context {
            return Err(Error::new(
                Code::InvalidRequest,
                format!(
                    "a test of {tokens} tokens at depth {} does not fit a context of {}",
                    trial.depth, self.context
                ),
            )
            .hint("measure fewer tokens, or give a larger --context as far as the model allows"));
        }
        self.clear();
        let measured = self.timed(trial, channel);
        self.clear();
        measured
    }

    fn timed(&mut self, trial: Trial, channel: &mut Channel) -> Result<Option<f64>> {
        let mut random = Pcg64Mcg::new(SEED);
        let vocabulary = self.vocabulary.max(1) as u64;
        let mut tokens = |count: usize| -> Vec<u32> {
            (0..count).map(|_| (random.next_u64() % vocabulary) as u32).collect()
        };
        let before = match trial.work {
            Work::Prompt(_) => trial.depth,
            Work::Generate(_) => trial.depth.max(1),
        };
        let mut pending = None;
        if before > 0 {
            let Some(ready) = self.prefill(&tokens(before), true, channel)? else { return Ok(None) };
            ready.wait()?;
            pending = Some(ready);
        }
        match trial.work {
            Work::Prompt(count) => {
                let prompt = tokens(count);
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
        }
    }
}
