//! What a name or a record says that content is.

use std::fmt;
use std::str::FromStr;

use super::{Digest, invalid};
use crate::error::Error;

/// A checksum that a name or a record claims. It is never proof: only hashing the content is.
///
/// Written as the Hugging Face Hub names content: 64 hexadecimal digits of SHA-256, or 40 of the SHA-1
/// by which git names a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Checksum {
    Sha256(Digest),
    /// SHA-1 of `blob <length>\0` and the content, as git names files.
    GitSha1([u8; 20]),
}

impl Checksum {
    /// The checksum that 40 or 64 lower-case hexadecimal digits write, as tools name their files.
    pub fn of_name(name: &str) -> Option<Self> {
        let is_name = name.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if is_name { name.parse().ok() } else { None }
    }
}

impl FromStr for Checksum {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.len() == 64 {
            return text.parse().map(Self::Sha256);
        }
        let wrong = || invalid("checksum", text, "expected 40 or 64 hexadecimal digits");
        if text.len() != 40 {
            return Err(wrong());
        }
        let mut bytes = [0; 20];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            for &digit in pair {
                let value = (digit as char).to_digit(16).ok_or_else(wrong)?;
                *byte = (*byte << 4) | value as u8;
            }
        }
        Ok(Self::GitSha1(bytes))
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => digest.fmt(f),
            Self::GitSha1(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_and_checksum_say_the_same(long: [u8; 32], short: [u8; 20]) {
            for checksum in [Checksum::Sha256(Digest::from_bytes(long)), Checksum::GitSha1(short)] {
                prop_assert_eq!(checksum.to_string().parse::<Checksum>().expect("own text"), checksum);
            }
        }

        #[test]
        fn nothing_else_is_a_checksum(text in "\\PC{0,70}") {
            prop_assume!(!(matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())));
            prop_assert!(text.parse::<Checksum>().is_err());
        }
    }
}
