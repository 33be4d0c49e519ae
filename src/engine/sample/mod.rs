//! Choosing the next token from logits.
//!
//! The order is llama.cpp's. What a format forbids is minus infinity before anything else; then
//!
//! 1. logit bias,
//! 2. repetition, frequency and presence penalties,
//! 3. top-k, typical-p, top-p, min-p, XTC, each within what the one before has left,
//! 4. temperature, and the draw.
//!
//! The cuts therefore see the distribution at temperature 1, whatever the temperature, as in mlx-lm too
//! (which cuts by k last, not first). Mirostat 2 takes the place of all cuts and comes after the
//! temperature. At temperature 0 the most likely token is taken after the penalties, and nothing is cut.

mod adjust;
mod cuts;
mod likely;
mod numeric;
#[cfg(test)]
mod tests;

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use self::numeric::{exp, largest, pick};
use crate::engine::request::SamplingOptions;
use crate::error::{Code, Error, Result};

pub use self::likely::likely;

/// Makes the draws of XTC others than those of tokens.
const COINS: u64 = 0x7874_6320_636f_696e;

/// Chooses tokens by fixed options. Without Mirostat it holds no state: the same logits, recent tokens
/// and step give the same token, so a run that resumes from a cache goes on as the uninterrupted one would.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplingOptions,
    /// What is added to the logits of single tokens; minus infinity forbids one.
    bias: Vec<(u32, f32)>,
    /// The seed's random stream; a draw looks at a copy advanced to its step.
    stream: Pcg64,
    /// Another stream of the seed, for whether XTC cuts.
    coins: Pcg64,
    /// Mirostat's limit of surprise in bits, which every token moves.
    surprise: f64,
}

impl Sampler {
    /// `bias` is added to the logits of these tokens.
    ///
    /// # Errors
    /// `INVALID_REQUEST` naming the option that is out of range.
    pub fn new(options: SamplingOptions, bias: Vec<(u32, f32)>) -> Result<Self> {
        let SamplingOptions { temperature, top_p, min_p, typical_p, repetition_penalty, .. } = options;
        let SamplingOptions { xtc_probability, xtc_threshold, mirostat_tau, mirostat_eta, .. } = options;
        let share = |value: f32| (0.0..=1.0).contains(&value);
        let any = "a number";
        check("--temp", "a number from 0 up", temperature, temperature >= 0.0)?;
        check("--top-p", "above 0 and at most 1", top_p, top_p > 0.0 && top_p <= 1.0)?;
        check("--min-p", "from 0 to 1", min_p, share(min_p))?;
        check("--typical-p", "above 0 and at most 1", typical_p, typical_p > 0.0 && typical_p <= 1.0)?;
        check("--xtc-probability", "from 0 to 1", xtc_probability, share(xtc_probability))?;
        check(
            "--xtc-threshold",
            "above 0 and at most 1",
            xtc_threshold,
            xtc_threshold > 0.0 && xtc_threshold <= 1.0,
        )?;
        check("--mirostat-tau", "a number from 0 up", mirostat_tau, mirostat_tau >= 0.0)?;
        check(
            "--mirostat-eta",
            "above 0 and at most 1",
            mirostat_eta,
            mirostat_eta > 0.0 && mirostat_eta <= 1.0,
        )?;
        check("--repetition-penalty", "a number above 0", repetition_penalty, repetition_penalty > 0.0)?;
        check("--presence-penalty", any, options.presence_penalty, true)?;
        check("--frequency-penalty", any, options.frequency_penalty, true)?;
        Ok(Self {
            options,
            bias,
            stream: Pcg64::seed_from_u64(options.seed),
            coins: Pcg64::seed_from_u64(options.seed ^ COINS),
            surprise: 2.0 * f64::from(mirostat_tau),
        })
    }

    /// Whether the choice is simply the most likely token, so that the device can make it.
    pub fn is_plain_greedy(&self) -> bool {
        self.options.is_plain_greedy() && self.bias.is_empty()
    }

    /// Chooses from `logits` `[vocabulary]`, which bias and penalties change in place.
    /// `recent` are the tokens so far, the last one last; `step` counts the tokens generated.
    /// A logit of minus infinity forbids its token.
    ///
    /// # Errors
    /// `INTEGRITY_FAILED` when a logit is NaN or plus infinity or all are minus infinity,
    /// `INVALID_REQUEST` when the bias forbids every token that is left.
    pub fn sample(&mut self, logits: &mut [f32], recent: &[u32], step: u64) -> Result<u32> {
        let largest = self.adjusted(logits, recent)?;
        if self.options.temperature == 0.0 {
            let id = logits.iter().position(|&logit| logit >= largest);
            return id.map(|id| id as u32).ok_or_else(|| Error::internal("no logit is the largest one"));
        }
        let temperature = self.options.temperature;
        let draw = draw(&self.stream, step);
        if self.options.mirostat_tau > 0.0 {
            return Ok(self.mirostat(logits, largest, draw));
        }
        if self.cuts() {
            let kept = self.kept(logits, largest, step);
            // Not always the largest of all: typical-p and XTC may have taken that out.
            let top = kept.first().map_or(largest, |&id| logits[id as usize]);
            let weights: Vec<f32> =
                kept.iter().map(|&id| exp((logits[id as usize] - top) / temperature)).collect();
            Ok(kept[pick(&weights, draw)])
        } else {
            let weights: Vec<f32> =
                logits.iter().map(|&logit| exp((logit - largest) / temperature)).collect();
            Ok(pick(&weights, draw) as u32)
        }
    }

    /// Adds bias and penalties and gives the largest logit.
    fn adjusted(&self, logits: &mut [f32], recent: &[u32]) -> Result<f32> {
        adjust::bias(logits, &self.bias);
        adjust::penalties(logits, recent, &self.options);
        let forbids = self.bias.iter().any(|&(_, value)| value == f32::NEG_INFINITY);
        if forbids && logits.iter().all(|&logit| logit == f32::NEG_INFINITY) {
            return Err(Error::new(
                Code::InvalidRequest,
                "the logit bias forbids every token that could come",
            )
            .hint("take a --logit-bias away"));
        }
        largest(logits)
    }

    /// Whether any token can be cut off.
    fn cuts(&self) -> bool {
        let SamplingOptions { top_k, top_p, min_p, typical_p, xtc_probability, .. } = self.options;
        top_k > 0 || top_p < 1.0 || min_p > 0.0 || typical_p < 1.0 || xtc_probability > 0.0
    }

    /// Ids that the cuts leave, at least one, by descending logit.
    fn kept(&self, logits: &[f32], largest: f32, step: u64) -> Vec<u32> {
        let SamplingOptions { xtc_probability, xtc_threshold, .. } = self.options;
        let mut kept = cuts::kept(logits, largest, &self.options);
        if xtc_probability > 0.0 && draw(&self.coins, step) < f64::from(xtc_probability) {
            cuts::exclude_top(&mut kept, logits, xtc_threshold);
        }
        kept
    }

    /// Mirostat 2 (arXiv:2007.14966): tokens with more surprise than the limit are out, and the limit
    /// follows the surprise of what is drawn.
    fn mirostat(&mut self, logits: &[f32], largest: f32, draw: f64) -> u32 {
        let SamplingOptions { temperature, mirostat_tau, mirostat_eta, .. } = self.options;
        let mut weights: Vec<f32> =
            logits.iter().map(|&logit| exp((logit - largest) / temperature)).collect();
        let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        // surprise = -log2(weight / total) <= limit; the most likely token, of weight 1, always stays.
        let least = (total * (-self.surprise).exp2()).min(1.0);
        for weight in &mut weights {
            if f64::from(*weight) < least {
                *weight = 0.0;
            }
        }
        let chosen = pick(&weights, draw);
        let left: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        let observed = -(f64::from(weights.get(chosen).copied().unwrap_or(1.0)) / left).log2();
        self.surprise -= f64::from(mirostat_eta) * (observed - f64::from(mirostat_tau));
        chosen as u32
    }
}

/// A number in [0, 1) that depends on the stream and the step only.
fn draw(stream: &Pcg64, step: u64) -> f64 {
    let mut stream = stream.clone();
    stream.advance(u128::from(step));
    (stream.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

fn check(flag: &str, range: &str, value: f32, fits: bool) -> Result<()> {
    if fits && value.is_finite() {
        return Ok(());
    }
    Err(Error::new(Code::InvalidRequest, format!("{flag} is {value}, but must be {range}"))
        .hint(format!("give {flag} {range}")))
}
