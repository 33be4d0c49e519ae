//! Text from tokens as they come.

use super::tokenizer::{Decoding, Tokenizer};
use crate::error::Result;

/// Tokens of a [`Decoding::Library`] stream that are decoded again with each new one, because a
/// token's text depends on its neighbours.
const CONTEXT: usize = 8;

/// Turns tokens into text one by one, never showing half a character. All that [`push`](Self::push)
/// and [`finish`](Self::finish) return, joined, is what [`Tokenizer::decode`] makes of all tokens.
#[derive(Debug)]
pub struct Detokenizer<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// Bytes that no character is complete of yet.
    pending: Vec<u8>,
    /// Whether the first space is still to come and to be dropped.
    strip_space: bool,
    /// For [`Decoding::Library`]: the last tokens, and how many bytes of their text were shown.
    window: Vec<u32>,
    shown: usize,
}

impl<'a> Detokenizer<'a> {
    /// `skip_special` leaves control tokens out of the text.
    pub fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        Self {
            tokenizer,
            skip_special,
            pending: Vec::new(),
            strip_space: tokenizer.decoding() == Decoding::SentencePiece { strip_space: true },
            window: Vec::new(),
            shown: 0,
        }
    }

    /// The text that is certain with this token, if there is any.
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        if self.skip_special && self.tokenizer.is_special(id) {
            return Ok(None);
        }
        if self.tokenizer.decoding() == Decoding::Library {
            return self.push_to_window(id);
        }
        self.tokenizer.append_bytes(id, &mut self.pending);
        if self.strip_space && !self.pending.is_empty() {
            self.strip_space = false;
            if self.pending.first() == Some(&b' ') {
                self.pending.remove(0);
            }
        }
        Ok(some(self.complete()))
    }

    /// The rest; a character that was never completed is U+FFFD.
    pub fn finish(&mut self) -> Result<Option<String>> {
        if self.tokenizer.decoding() == Decoding::Library {
            let text = self.tokenizer.decode(&self.window, self.skip_special)?;
            let rest = text.get(self.shown..).unwrap_or_default().to_owned();
            self.window.clear();
            self.shown = 0;
            return Ok(some(rest));
        }
        let rest = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        Ok(some(rest))
    }

    /// Takes the complete characters out of `pending`, what can be none as U+FFFD.
    fn complete(&mut self) -> String {
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text += valid;
                    rest = &[];
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text += &String::from_utf8_lossy(valid);
                    rest = after;
                    let Some(wrong) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[wrong..];
                }
            }
        }
        let taken = self.pending.len() - rest.len();
        self.pending.drain(..taken);
        text
    }

    fn push_to_window(&mut self, id: u32) -> Result<Option<String>> {
        self.window.push(id);
        let text = self.tokenizer.decode(&self.window, self.skip_special)?;
        // Half a character shows as U+FFFD for now; after a few tokens it is meant.
        if text.ends_with(char::REPLACEMENT_CHARACTER) && self.window.len() < 2 * CONTEXT {
            return Ok(None);
        }
        let new = text.get(self.shown..).unwrap_or_default().to_owned();
        self.shown = text.len();
        if self.window.len() >= 2 * CONTEXT {
            self.window.drain(..CONTEXT);
            self.shown = self.tokenizer.decode(&self.window, self.skip_special)?.len();
        }
        Ok(some(new))
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
