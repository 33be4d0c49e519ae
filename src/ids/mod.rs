//! Identifiers as types: what was parsed into one of these needs no second look before it touches
//! a path or a query.

mod bytes;
mod checksum;
mod digest;
mod name;
mod part;
mod path;
mod reference;
mod revision;
mod url;

pub use bytes::Bytes;
pub use checksum::Checksum;
pub use digest::Digest;
pub use name::{Host, ModelName};
pub use part::{Part, leader};
pub use path::SnapshotPath;
pub use reference::{FileChoice, ModelRef};
pub use revision::{Revision, RevisionSpec};

use crate::error::{Code, Error};

/// Text shown in an error: at most this many characters of what a person or a server sent.
const SHOWN: usize = 80;

/// A name, revision or path that is not understood, quoted without its control characters.
fn invalid(what: &str, text: &str, why: &str) -> Error {
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    Error::new(Code::InvalidRequest, format!("invalid {what} \"{shown}\": {why}"))
}

/// Characters that no name and no path of ours holds: control characters, and the invisible or
/// direction-changing ones that make two names look alike.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
