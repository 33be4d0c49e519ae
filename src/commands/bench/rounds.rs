//! How often tests are measured.

use std::time::{Duration, Instant};

use crate::cli::bench::BenchArgs;
use crate::context::Context;

/// Rounds that are measured unless a flag tells, if they do not take long.
const USUAL: u32 = 5;
/// The fewest of them: one alone tells nothing of the noise.
const FEWEST: u32 = 2;
/// How long all rounds take at most, as far as that can be foreseen, where there are more than the fewest.
const LONG: Duration = Duration::from_secs(45);

/// Rounds of all tests, one after the other.
pub struct Rounds {
    warmup: u32,
    repeat: u32,
    /// Whether that is what a flag asks for.
    is_asked: bool,
    begun: Instant,
    /// Those that began.
    count: u32,
}

impl Rounds {
    pub fn new(args: &BenchArgs) -> Self {
        Self::of(args.warmup, args.repeat)
    }

    fn of(warmup: u32, asked: Option<u32>) -> Self {
        let repeat = asked.unwrap_or(USUAL);
        Self { warmup, repeat, is_asked: asked.is_some(), begun: Instant::now(), count: 0 }
    }

    /// How often each test is measured at most.
    pub fn repeat(&self) -> u32 {
        self.repeat
    }

    /// How many rounds there are at most.
    pub fn most(&self) -> u32 {
        self.warmup + self.repeat
    }

    /// Begins the next round; whether it counts. `None` when there is none.
    pub fn begin(&mut self) -> Option<bool> {
        self.begin_after(self.begun.elapsed())
    }

    fn begin_after(&mut self, taken: Duration) -> Option<bool> {
        let foreseen = taken + taken / self.count.max(1);
        let is_long = !self.is_asked && self.measured() >= FEWEST && foreseen > LONG;
        if is_long || !self.is_short() {
            return None;
        }
        self.count += 1;
        Some(self.count > self.warmup)
    }

    /// Says so if each test has been measured less often than is usual.
    pub fn end(&self, context: &Context) {
        if self.is_short() {
            let (measured, taken) = (self.measured(), self.begun.elapsed().as_secs());
            context.output.note(format!(
                "each test was measured {measured} times, in {taken} s; -r {USUAL} measures it {USUAL} times"
            ));
        }
    }

    /// Whether rounds are missing.
    fn is_short(&self) -> bool {
        self.count < self.most()
    }

    fn measured(&self) -> u32 {
        self.count.saturating_sub(self.warmup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often is measured, with rounds of so many seconds.
    fn measured(warmup: u32, repeat: Option<u32>, seconds: u64) -> u32 {
        let mut rounds = Rounds::of(warmup, repeat);
        let mut counted = 0;
        while let Some(counts) = rounds.begin_after(Duration::from_secs(seconds) * rounds.count) {
            counted += u32::from(counts);
        }
        assert_eq!((counted, rounds.is_short()), (rounds.measured(), counted < repeat.unwrap_or(5)));
        counted
    }

    #[test]
    fn tests_that_take_long_are_measured_less_often_unless_that_is_asked_for() {
        assert_eq!(measured(1, None, 0), 5);
        assert_eq!(measured(1, None, 7), 5, "six rounds, 42 seconds");
        assert_eq!(measured(1, None, 8), 4, "five rounds, 40 seconds");
        assert_eq!(measured(0, None, 8), 5);
        assert_eq!(measured(1, None, 12), 2);
        assert_eq!(measured(1, None, 1000), 2);
        assert_eq!(measured(3, None, 1000), 2);
        assert_eq!(measured(1, Some(5), 1000), 5);
        assert_eq!(measured(0, Some(1), 1000), 1);
        assert_eq!(measured(2, Some(9), 0), 9);
    }
}
