//! How often tests are measured.

use std::time::{Duration, Instant};

use crate::cli::bench::BenchArgs;

/// Rounds that are measured unless a flag tells, if they do not take long.
const USUAL: u32 = 5;
/// The fewest of them: one alone tells nothing of the noise.
const FEWEST: u32 = 2;
/// How long all rounds take at most, as far as that can be foreseen, where there are more than the fewest.
const LONG: Duration = Duration::from_secs(45);

/// Rounds of all tests, one after the other.
pub struct Rounds {
    warmup: u32,
    repeat: Option<u32>,
    begun: Instant,
    /// Those that began.
    count: u32,
}

impl Rounds {
    pub fn new(args: &BenchArgs) -> Self {
        Self { warmup: args.warmup, repeat: args.repeat, begun: Instant::now(), count: 0 }
    }

    /// How often each test is measured at most.
    pub fn repeat(args: &BenchArgs) -> u32 {
        args.repeat.unwrap_or(USUAL)
    }

    /// How many rounds there are at most.
    pub fn most(&self) -> u32 {
        self.warmup + self.repeat.unwrap_or(USUAL)
    }

    /// Begins the next round; whether it counts. `None` when there is none.
    pub fn begin(&mut self) -> Option<bool> {
        self.begin_after(self.begun.elapsed())
    }

    fn begin_after(&mut self, taken: Duration) -> Option<bool> {
        let foreseen = taken + taken / self.count.max(1);
        let enough = match self.repeat {
            Some(_) => self.count >= self.most(),
            None => self.count >= self.most() || self.measured() >= FEWEST && foreseen > LONG,
        };
        if enough {
            return None;
        }
        self.count += 1;
        Some(self.count > self.warmup)
    }

    /// How often each test has been measured, if that is less often than is usual.
    pub fn fewer(&self) -> Option<String> {
        let measured = self.measured();
        (self.count < self.most()).then(|| {
            let taken = self.begun.elapsed().as_secs();
            format!(
                "each test was measured {measured} times, in {taken} s; -r {USUAL} measures it {USUAL} times"
            )
        })
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
        let mut rounds = Rounds { warmup, repeat, begun: Instant::now(), count: 0 };
        let mut counted = 0;
        while let Some(counts) = rounds.begin_after(Duration::from_secs(seconds) * rounds.count) {
            counted += u32::from(counts);
        }
        assert_eq!((counted, rounds.fewer().is_some()), (rounds.measured(), counted < repeat.unwrap_or(5)));
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
