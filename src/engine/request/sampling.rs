//! How the next token is chosen. See [`sample`](crate::engine::sample) for the order.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};

/// How the next token is chosen. The default is greedy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct SamplingOptions {
    /// 0 is greedy: the most likely token, always.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of tokens with at least this probability; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one; 0 drops none.
    pub min_p: f32,
    /// Keep the tokens nearest to the expected surprise with at least this probability; 1 keeps all.
    pub typical_p: f32,
    /// How often XTC drops the likeliest tokens; 0 is never.
    pub xtc_probability: f32,
    /// From which probability on XTC drops a token, as long as a less likely one has it too.
    pub xtc_threshold: f32,
    /// Surprise in bits that Mirostat 2 holds, in the place of all cuts; 0 is off.
    pub mirostat_tau: f32,
    /// How fast Mirostat follows.
    pub mirostat_eta: f32,
    /// Divides positive and multiplies negative logits of recent tokens (CTRL, arXiv:1909.05858); 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of recent tokens; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted from the logits of recent tokens for each time they came; 0 is off.
    pub frequency_penalty: f32,
    /// How many of the last tokens, the prompt's included, the penalties look at.
    pub repetition_window: usize,
    /// The same seed gives the same text on the same device.
    pub seed: u64,
}

impl SamplingOptions {
    /// Whether the next token is simply the most likely one, so that the device can choose it.
    pub fn is_plain_greedy(&self) -> bool {
        self.temperature <= 0.0 && !self.penalizes()
    }

    /// Whether recent tokens change anything.
    #[allow(clippy::float_cmp)] // Exactly this value is off; anything else, however near, is not.
    pub fn penalizes(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            mirostat_tau: 0.0,
            mirostat_eta: 0.1,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_window: 64,
            seed: 0,
        }
    }
}

/// A token that is to be more or less likely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bias {
    /// The token.
    pub token: BiasedToken,
    /// What is added to its logit; null forbids the token.
    pub value: Option<f32>,
}

/// A token's id, or the text of exactly one token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum BiasedToken {
    Id(u32),
    Text(String),
}

/// `TOKEN=VALUE`: an id or a text, which may stand in double quotes as in JSON, and a number or `never`.
impl FromStr for Bias {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |what: &str| {
            Error::new(Code::InvalidRequest, format!("'{text}' is no logit bias: {what}"))
                .hint("write TOKEN=VALUE, such as 1234=-5, ' yes'=2.5 or '\"42\"=never'")
        };
        let (token, value) = text.rsplit_once('=').ok_or_else(|| bad("it has no ="))?;
        let value = match value {
            "never" => None,
            number => match number.parse::<f32>() {
                Ok(value) if value.is_finite() => Some(value),
                _ => return Err(bad("the value is neither a number nor never")),
            },
        };
        let token = match token.parse() {
            Ok(id) => BiasedToken::Id(id),
            Err(_) if token.is_empty() => return Err(bad("the token is empty")),
            Err(_) if token.starts_with('"') && token.ends_with('"') && token.len() > 1 => {
                BiasedToken::Text(serde_json::from_str(token).map_err(|_| bad("the quoted text is no JSON"))?)
            }
            Err(_) => BiasedToken::Text(token.to_owned()),
        };
        Ok(Self { token, value })
    }
}

/// As it is read.
impl fmt::Display for Bias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.token {
            BiasedToken::Id(id) => write!(f, "{id}")?,
            BiasedToken::Text(text) => write!(f, "{text:?}")?,
        }
        match self.value {
            Some(value) => write!(f, "={value}"),
            None => f.write_str("=never"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_is_read_and_written() {
        let text = |text: &str| BiasedToken::Text(text.to_owned());
        for (written, token, value) in [
            ("1234=-5", BiasedToken::Id(1234), Some(-5.0)),
            (" yes=2.5", text(" yes"), Some(2.5)),
            ("==1", text("="), Some(1.0)),
            ("\"42\"=never", text("42"), None),
            ("\"\\n\"=1e1", text("\n"), Some(10.0)),
            ("99999999999=1", text("99999999999"), Some(1.0)),
        ] {
            let bias: Bias = written.parse().expect(written);
            assert_eq!(bias, Bias { token, value }, "{written}");
            assert_eq!(bias.to_string().parse::<Bias>().expect("again"), bias);
            let json = serde_json::to_string(&bias).expect("JSON");
            assert_eq!(serde_json::from_str::<Bias>(&json).expect(&json), bias);
        }
    }

    #[test]
    fn what_is_no_bias_is_refused() {
        for written in ["", "5", "=1", "x=", "x=inf", "x=nan", "x=-inf", "x=much", "\"a\\\"=1"] {
            let error = written.parse::<Bias>().expect_err(written);
            assert_eq!(error.code(), Code::InvalidRequest);
            assert!(error.hint_text().is_some());
        }
    }
}
