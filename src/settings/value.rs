//! The types of settings' values and how they are read from text.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use crate::engine::request::DeviceChoice;
use crate::error::{Code, Error, Result};
use crate::ids::ModelRef;

use super::variables::Variable;

/// Where a value comes from; the first that has one wins.
#[derive(Debug, Clone, Copy)]
pub enum Origin {
    Environment(Variable),
    File,
    Default,
}

/// A value and where it comes from.
#[derive(Debug, Clone)]
pub struct Setting<T> {
    pub value: T,
    pub origin: Origin,
}

impl<T> Setting<T> {
    pub fn default(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }
}

/// Whether a missing model is fetched from the hub when a command needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoPull {
    /// After a question on a terminal, or with `--yes`.
    #[default]
    Ask,
    Always,
    /// Not even with `--yes`.
    Never,
}

impl AutoPull {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// The hub's access token. Neither `Debug` nor anything else shows it.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// The first line of a variable or file; `None` if it is blank.
    pub fn read(text: &str) -> Option<Self> {
        let line = text.trim();
        (!line.is_empty()).then(|| Self(line.to_owned()))
    }

    /// A token as it was given, whatever it is: an error of the command line would quote it.
    pub fn given(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.trim().to_owned()))
    }

    /// The token itself, for requests to the hub and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the hub can have issued it: one printable word, so that it fits into a header.
    pub fn is_well_formed(&self) -> bool {
        !self.0.is_empty() && self.0.chars().all(|c| c.is_ascii_graphic())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// `8GB`, `512 MiB`, `1.5g`, `1000000`: a number of bytes. Decimal units are powers of 1000, those with
/// an `i` powers of 1024, a bare letter counts as decimal.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let bad = || {
        Error::new(Code::InvalidRequest, format!("'{text}' is not a size in bytes"))
            .hint("write a number and a unit, such as 8GB or 512MiB")
    };
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let (base, unit) = match unit.strip_suffix('i') {
        Some(unit) if !unit.is_empty() => (1024_f64, unit),
        Some(_) => return Err(bad()),
        None => (1000_f64, unit),
    };
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(bad()),
    };
    let bytes = (number * base.powi(power)).round();
    // 2^64 is exact as a float; from there on the conversion would saturate.
    if !(1.0..18_446_744_073_709_551_616.0).contains(&bytes) {
        return Err(bad());
    }
    Ok(bytes as u64)
}

/// `1`, `true`, `yes`, `on` and their opposites in any case, as Hugging Face's tools read them.
pub fn parse_bool(text: &str) -> Result<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(Error::new(Code::InvalidRequest, format!("'{text}' is neither true nor false"))
            .hint("write true or false")),
    }
}

pub fn parse_device(text: &str) -> Result<DeviceChoice> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Ok(DeviceChoice::Auto),
        "gpu" => Ok(DeviceChoice::Gpu),
        "cpu" => Ok(DeviceChoice::Cpu),
        _ => Err(Error::new(Code::InvalidRequest, format!("'{text}' is not a device"))
            .hint("write auto, gpu or cpu")),
    }
}

pub fn parse_auto_pull(text: &str) -> Result<AutoPull> {
    match text.to_ascii_lowercase().as_str() {
        "ask" => Ok(AutoPull::Ask),
        "always" => Ok(AutoPull::Always),
        "never" => Ok(AutoPull::Never),
        _ => Err(Error::new(Code::InvalidRequest, format!("'{text}' does not say when to pull"))
            .hint("write ask, always or never")),
    }
}

/// A time to wait, in seconds, up to an hour.
pub fn parse_seconds(text: &str) -> Result<Duration> {
    let seconds = text.parse().ok().filter(|seconds| (0.05..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        Error::new(Code::InvalidRequest, format!("'{text}' is not a time to wait"))
            .hint("write a number of seconds, such as 30")
    })
}

/// How often something is tried again.
pub fn parse_retries(text: &str) -> Result<u32> {
    text.parse().ok().filter(|retries| *retries <= 1000).ok_or_else(|| {
        Error::new(Code::InvalidRequest, format!("'{text}' is not a number of retries"))
            .hint("write a whole number from 0 to 1000")
    })
}

/// A number of threads that a machine may have.
pub fn parse_threads(text: &str) -> Result<usize> {
    text.parse().ok().filter(|threads| (1..=1024).contains(threads)).ok_or_else(|| {
        Error::new(Code::InvalidRequest, format!("'{text}' is not a number of threads"))
            .hint("write a whole number from 1 to 1024")
    })
}

/// A model's name as a setting: any model reference.
pub fn parse_name(text: &str) -> Result<String> {
    let name = text.trim();
    name.parse::<ModelRef>()?;
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_decimal_and_binary_units() {
        for (text, bytes) in [
            ("8GB", 8_000_000_000),
            ("512 MiB", 536_870_912),
            ("1.5g", 1_500_000_000),
            ("4096", 4096),
            ("2kib", 2048),
        ] {
            assert_eq!(parse_bytes(text).expect(text), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in
            ["", "GB", "-1GB", "0", "1e5", "8 XB", "8i", "1.2.3", "NaN", "inf", "99999999999TB", "0.1"]
        {
            assert_eq!(parse_bytes(text).expect_err(text).code(), Code::InvalidRequest, "{text}");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let token = Token::read(" hf_secret\n").expect("not blank");
        assert!(!format!("{token:?}").contains("secret"));
        assert!(token.is_well_formed());
        assert!(!Token::read("hf_a\nX-Evil: 1").expect("not blank").is_well_formed());
        assert!(Token::read(" \n").is_none());
    }
}
