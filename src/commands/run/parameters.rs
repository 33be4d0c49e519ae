//! How to answer: the values that flags give and that a chat changes with `/set`.

use std::hash::{BuildHasher, RandomState};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cli::run::RunArgs;
use crate::engine::request::{Bias, SamplingOptions};
use crate::error::{Code, Error, Result};
use crate::report::run::SamplingReport;

/// Everything about an answer that is not the prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
// What an older version did not know has its default.
#[serde(deny_unknown_fields, default)]
pub struct Parameters {
    /// Randomness; 0 takes the most likely token, always.
    pub temperature: f64,
    /// Tokens to choose from, the most likely ones; 0 is all.
    pub top_k: usize,
    /// Probability that the tokens to choose from have together; 1 is all.
    pub top_p: f64,
    /// The least probability, as a share of the most likely token's; 0 is off.
    pub min_p: f64,
    /// Probability that tokens of about the expected surprise have together; 1 is all.
    pub typical_p: f64,
    /// How often the likeliest tokens are left out; 0 is never.
    pub xtc_probability: f64,
    /// From which probability on they are.
    pub xtc_threshold: f64,
    /// The surprise in bits that Mirostat holds; 0 is off.
    pub mirostat_tau: f64,
    /// How fast Mirostat follows.
    pub mirostat_eta: f64,
    /// Divides the chance of recent tokens; 1 is off.
    pub repetition_penalty: f64,
    /// Taken from the logits of recent tokens; 0 is off.
    pub presence_penalty: f64,
    /// Taken from the logits of recent tokens for each time they came; 0 is off.
    pub frequency_penalty: f64,
    /// How many tokens are recent.
    pub repetition_window: usize,
    /// Tokens made more or less likely.
    pub logit_bias: Vec<Bias>,
    /// Seed of the random numbers; without one, each answer draws its own.
    pub seed: Option<u64>,
    /// Most tokens of an answer; without it, the model ends its turn or the context is full.
    pub max_tokens: Option<usize>,
    /// Texts before which an answer ends.
    pub stop: Vec<String>,
}

/// The values without flags: those that llama.cpp and Ollama settled on.
impl Default for Parameters {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            mirostat_tau: 0.0,
            mirostat_eta: 0.1,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_window: 64,
            logit_bias: Vec::new(),
            seed: None,
            max_tokens: None,
            stop: Vec::new(),
        }
    }
}

impl Parameters {
    /// The flags where they are given, else these values.
    pub fn of(args: &RunArgs, default: Self) -> Self {
        let sampling = &args.sampling;
        Self {
            temperature: sampling.temp.unwrap_or(default.temperature),
            top_k: sampling.top_k.unwrap_or(default.top_k),
            top_p: sampling.top_p.unwrap_or(default.top_p),
            min_p: sampling.min_p.unwrap_or(default.min_p),
            typical_p: sampling.typical_p.unwrap_or(default.typical_p),
            xtc_probability: sampling.xtc_probability.unwrap_or(default.xtc_probability),
            xtc_threshold: sampling.xtc_threshold.unwrap_or(default.xtc_threshold),
            mirostat_tau: sampling.mirostat_tau.unwrap_or(default.mirostat_tau),
            mirostat_eta: sampling.mirostat_eta.unwrap_or(default.mirostat_eta),
            repetition_penalty: sampling.repetition_penalty.unwrap_or(default.repetition_penalty),
            presence_penalty: sampling.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: sampling.frequency_penalty.unwrap_or(default.frequency_penalty),
            repetition_window: sampling.repetition_window.unwrap_or(default.repetition_window),
            logit_bias: if sampling.logit_bias.is_empty() {
                default.logit_bias
            } else {
                sampling.logit_bias.clone()
            },
            seed: sampling.seed.or(default.seed),
            max_tokens: args.max_tokens.or(default.max_tokens),
            stop: if args.stop.is_empty() { default.stop } else { args.stop.clone() },
        }
    }

    /// An error that names the first value out of its range.
    pub fn check(&self) -> Result<()> {
        let share = |value: f64| value > 0.0 && value <= 1.0;
        let (share_name, any) = ("above 0 and at most 1", "that is not infinite");
        let ranges = [
            ("temperature", self.temperature, self.temperature >= 0.0, "at least 0"),
            ("top-p", self.top_p, share(self.top_p), share_name),
            ("min-p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1"),
            ("typical-p", self.typical_p, share(self.typical_p), share_name),
            (
                "xtc-probability",
                self.xtc_probability,
                (0.0..=1.0).contains(&self.xtc_probability),
                "from 0 to 1",
            ),
            ("xtc-threshold", self.xtc_threshold, share(self.xtc_threshold), share_name),
            ("mirostat-tau", self.mirostat_tau, self.mirostat_tau >= 0.0, "at least 0"),
            ("mirostat-eta", self.mirostat_eta, share(self.mirostat_eta), share_name),
            ("repetition-penalty", self.repetition_penalty, self.repetition_penalty > 0.0, "above 0"),
            ("presence-penalty", self.presence_penalty, true, any),
            ("frequency-penalty", self.frequency_penalty, true, any),
        ];
        for (name, value, inside, range) in ranges {
            // The engine computes in f32: what becomes 0 or infinite there is out of range too.
            let engine_value = value as f32;
            if !inside || !engine_value.is_finite() || (engine_value == 0.0 && value != 0.0) {
                return Err(invalid(format!("{name} is {value}, but it must be a number {range}")));
            }
        }
        if self.max_tokens == Some(0) {
            return Err(invalid("max-tokens is 0, but an answer needs at least one token".to_owned()));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(invalid("a stop text is empty, which would stop every answer at once".to_owned()));
        }
        Ok(())
    }

    /// Changes the value called `name`, as `/set` does. Nothing changes after an error.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let mut next = self.clone();
        let key = name.to_ascii_lowercase().replace('-', "_");
        match key.as_str() {
            "temp" | "temperature" => next.temperature = number(name, value)?,
            "top_k" => next.top_k = number(name, value)?,
            "top_p" => next.top_p = number(name, value)?,
            "min_p" => next.min_p = number(name, value)?,
            "typical_p" => next.typical_p = number(name, value)?,
            "xtc_probability" => next.xtc_probability = number(name, value)?,
            "xtc_threshold" => next.xtc_threshold = number(name, value)?,
            "mirostat_tau" => next.mirostat_tau = number(name, value)?,
            "mirostat_eta" => next.mirostat_eta = number(name, value)?,
            "presence_penalty" => next.presence_penalty = number(name, value)?,
            "frequency_penalty" => next.frequency_penalty = number(name, value)?,
            "repetition_penalty" | "repeat_penalty" => next.repetition_penalty = number(name, value)?,
            "repetition_window" | "repeat_last_n" => next.repetition_window = number(name, value)?,
            "logit_bias" => {
                next.logit_bias =
                    unless(value, "none", || value.parse().map(|bias| vec![bias]))?.unwrap_or_default();
            }
            "seed" => next.seed = unless(value, "random", || number(name, value))?,
            "max_tokens" | "num_predict" => {
                next.max_tokens = unless(value, "none", || number(name, value))?;
            }
            "stop" => {
                next.stop = unless(value, "none", || Ok(vec![value.to_owned()]))?.unwrap_or_default();
            }
            _ => {
                let names: Vec<_> = self.rows().into_iter().map(|(name, _)| name).collect();
                return Err(invalid(format!("there is no parameter '{name}'"))
                    .hint(format!("the parameters are: {}", names.join(", "))));
            }
        }
        next.check()?;
        *self = next;
        Ok(())
    }

    /// Names and values, as `/set` takes and `/show parameters` prints them.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let or = |value: Option<String>, none: &str| value.unwrap_or_else(|| none.to_owned());
        let bias: Vec<_> = self.logit_bias.iter().map(ToString::to_string).collect();
        let stop: Vec<_> = self.stop.iter().map(|text| format!("{text:?}")).collect();
        vec![
            ("temp", self.temperature.to_string()),
            ("top_k", self.top_k.to_string()),
            ("top_p", self.top_p.to_string()),
            ("min_p", self.min_p.to_string()),
            ("typical_p", self.typical_p.to_string()),
            ("xtc_probability", self.xtc_probability.to_string()),
            ("xtc_threshold", self.xtc_threshold.to_string()),
            ("mirostat_tau", self.mirostat_tau.to_string()),
            ("mirostat_eta", self.mirostat_eta.to_string()),
            ("repetition_penalty", self.repetition_penalty.to_string()),
            ("presence_penalty", self.presence_penalty.to_string()),
            ("frequency_penalty", self.frequency_penalty.to_string()),
            ("repetition_window", self.repetition_window.to_string()),
            ("logit_bias", if bias.is_empty() { "none".to_owned() } else { bias.join(" ") }),
            ("seed", or(self.seed.map(|seed| seed.to_string()), "random")),
            ("max_tokens", or(self.max_tokens.map(|most| most.to_string()), "none")),
            ("stop", if stop.is_empty() { "none".to_owned() } else { stop.join(" ") }),
        ]
    }

    /// The values for one answer, with the seed drawn if none is set.
    pub fn draw(&self) -> SamplingReport {
        let options = SamplingOptions {
            temperature: self.temperature as f32,
            top_k: self.top_k,
            top_p: self.top_p as f32,
            min_p: self.min_p as f32,
            typical_p: self.typical_p as f32,
            xtc_probability: self.xtc_probability as f32,
            xtc_threshold: self.xtc_threshold as f32,
            mirostat_tau: self.mirostat_tau as f32,
            mirostat_eta: self.mirostat_eta as f32,
            repetition_penalty: self.repetition_penalty as f32,
            presence_penalty: self.presence_penalty as f32,
            frequency_penalty: self.frequency_penalty as f32,
            repetition_window: self.repetition_window,
            seed: self.seed.unwrap_or_else(random_seed),
        };
        SamplingReport { options, logit_bias: self.logit_bias.clone() }
    }
}

/// A seed of 32 bits: short to type, and exact in JSON readers that know only doubles.
fn random_seed() -> u64 {
    RandomState::new().hash_one(0) >> 32
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| invalid(format!("'{value}' is no value for {name}")))
}

fn unless<T>(value: &str, none: &str, parse: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    if value.eq_ignore_ascii_case(none) { Ok(None) } else { parse().map(Some) }
}

fn invalid(message: String) -> Error {
    Error::new(Code::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range() {
        Parameters::default().check().expect("in range");
    }

    #[test]
    fn values_out_of_range_are_refused_by_name_and_change_nothing() {
        for (name, value, told) in [
            ("temp", "-0.1", "temperature is -0.1"),
            ("temp", "nan", "temperature is NaN"),
            ("temperature", "inf", "temperature is inf"),
            ("temp", "1e300", "temperature is"),
            ("temp", "1e-300", "temperature is"),
            ("top_p", "0", "top-p is 0"),
            ("top_p", "1.5", "top-p is 1.5"),
            ("min_p", "-1", "min-p is -1"),
            ("typical_p", "0", "typical-p is 0"),
            ("xtc_probability", "2", "xtc-probability is 2"),
            ("xtc_threshold", "0", "xtc-threshold is 0"),
            ("mirostat_tau", "-1", "mirostat-tau is -1"),
            ("mirostat_eta", "0", "mirostat-eta is 0"),
            ("repetition_penalty", "0", "repetition-penalty is 0"),
            ("presence_penalty", "nan", "presence-penalty is NaN"),
            ("frequency_penalty", "inf", "frequency-penalty is inf"),
            ("logit_bias", "5", "'5' is no logit bias"),
            ("max_tokens", "0", "max-tokens is 0"),
            ("top_k", "-1", "'-1' is no value for top_k"),
            ("top_k", "many", "'many' is no value for top_k"),
            ("seed", "1.5", "'1.5' is no value for seed"),
            ("stop", "", "a stop text is empty"),
        ] {
            let mut parameters = Parameters::default();
            let error = parameters.set(name, value).expect_err(name);
            assert!(error.message().starts_with(told), "{name} {value}: {}", error.message());
            assert_eq!(error.code(), Code::InvalidRequest);
            assert_eq!(parameters, Parameters::default());
        }
    }

    #[test]
    fn every_listed_name_can_be_set_to_the_value_that_is_listed() {
        let set = Parameters {
            seed: Some(7),
            max_tokens: Some(9),
            stop: Vec::new(),
            temperature: 0.25,
            typical_p: 0.75,
            presence_penalty: -0.5,
            logit_bias: vec!["\" no\"=never".parse().expect("a bias")],
            ..Parameters::default()
        };
        for from in [Parameters::default(), set] {
            let mut to = Parameters { temperature: 0.5, max_tokens: Some(1), ..Parameters::default() };
            for (name, value) in from.rows() {
                to.set(name, &value).expect(name);
            }
            assert_eq!(to, from);
        }
    }

    #[test]
    fn names_are_taken_as_ollama_and_the_flags_spell_them() {
        let mut parameters = Parameters::default();
        parameters.set("num_predict", "5").expect("ollama's name");
        parameters.set("Repetition-Penalty", "1.1").expect("the flag's name");
        assert_eq!(parameters.max_tokens, Some(5));
        assert!((parameters.repetition_penalty - 1.1).abs() < 1e-9);
    }

    #[test]
    fn an_unknown_name_is_told_with_those_there_are() {
        let error = Parameters::default().set("tmp", "1").expect_err("unknown");
        assert!(error.message().contains("'tmp'"));
        assert!(error.hint_text().is_some_and(|hint| hint.contains("temp, top_k")));
    }

    #[test]
    fn a_seed_is_drawn_anew_unless_it_is_set() {
        let drawn: std::collections::HashSet<u64> =
            (0..32).map(|_| Parameters::default().draw().options.seed).collect();
        assert!(drawn.len() > 30);
        assert!(drawn.iter().all(|&seed| u32::try_from(seed).is_ok()));
        let fixed = Parameters { seed: Some(u64::MAX), ..Parameters::default() };
        assert_eq!(fixed.draw().options.seed, u64::MAX);
    }
}
