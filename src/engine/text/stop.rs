//! Stop texts: generation ends before the first of them, wherever token borders fall.

use crate::error::{Code, Error, Result};

/// Finds stop texts in streamed text and holds back only what may still become one.
///
/// The match that is complete first counts; of several complete at once, the longest. So the
/// outcome does not depend on how the text was cut into pieces.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// The end of the text so far that is the beginning of a stop text.
    held: String,
    matched: bool,
}

impl StopMatcher {
    /// # Errors
    /// `INVALID_REQUEST` for an empty stop text, which would end every answer before it begins.
    pub fn new(stops: &[String]) -> Result<Self> {
        if stops.iter().any(String::is_empty) {
            return Err(Error::new(Code::InvalidRequest, "a stop text is empty")
                .hint("give --stop at least one character"));
        }
        Ok(Self { stops: stops.to_vec(), held: String::new(), matched: false })
    }

    /// Takes more text; returns what is safe to show now, and whether a stop text was found.
    /// After a match everything else is dropped.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        if self.matched {
            return (String::new(), true);
        }
        let mut text = std::mem::take(&mut self.held) + text;
        if let Some(start) = self.first_match(&text) {
            self.matched = true;
            text.truncate(start);
            return (text, true);
        }
        let keep = self.stops.iter().map(|stop| overlap(&text, stop)).max().unwrap_or(0);
        self.held = text.split_off(text.len() - keep);
        (text, false)
    }

    /// The end of the stream: what was held back is text after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the match begins that is complete first.
    fn first_match(&self, text: &str) -> Option<usize> {
        self.stops
            .iter()
            .filter_map(|stop| {
                let start = memchr::memmem::find(text.as_bytes(), stop.as_bytes())?;
                Some((start + stop.len(), start))
            })
            .min()
            .map(|(_, start)| start)
    }
}

/// Bytes of the longest end of `text` that is the beginning, but not all, of `stop`. Both are
/// UTF-8, so such an end begins at a character.
fn overlap(text: &str, stop: &str) -> usize {
    let (text, stop) = (text.as_bytes(), stop.as_bytes());
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|&length| text.ends_with(&stop[..length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(&stops.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    /// Everything shown, and whether it stopped.
    fn run<'a>(stops: &[&str], pieces: impl IntoIterator<Item = &'a str>) -> (String, bool) {
        let mut matcher = matcher(stops);
        let mut shown = String::new();
        for piece in pieces {
            let (text, matched) = matcher.push(piece);
            shown += &text;
            if matched {
                return (shown, true);
            }
        }
        shown += &matcher.finish();
        (shown, false)
    }

    #[test]
    fn a_stop_text_may_span_pieces() {
        assert_eq!(run(&["\nUser:"], ["Paris.", "\n", "Us", "er", ": and"]), ("Paris.".into(), true));
    }

    #[test]
    fn only_a_possible_beginning_is_held_back() {
        let mut matcher = matcher(&["END", "ab"]);
        assert_eq!(matcher.push("the E"), ("the ".into(), false));
        assert_eq!(matcher.push("N"), (String::new(), false));
        assert_eq!(matcher.push("x"), ("ENx".into(), false));
        assert_eq!(matcher.push("a"), (String::new(), false));
        assert_eq!(matcher.finish(), "a");
    }

    #[test]
    fn nothing_follows_a_match() {
        let mut matcher = matcher(&["x"]);
        assert_eq!(matcher.push("axb"), ("a".into(), true));
        assert_eq!(matcher.push("c"), (String::new(), true));
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn an_empty_stop_text_is_refused() {
        assert_eq!(StopMatcher::new(&[String::new()]).unwrap_err().code(), Code::InvalidRequest);
    }

    #[test]
    fn characters_of_several_bytes_are_not_split() {
        assert_eq!(run(&["é!"], ["caf", "é", "?"]), ("café?".into(), false));
        assert_eq!(run(&["é!"], ["caf", "é", "!"]), ("caf".into(), true));
    }

    proptest! {
        #[test]
        fn cutting_does_not_change_the_outcome(
            text in "[abé]{0,24}",
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
            cuts in prop::collection::vec(0usize..24, 0..6),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            // The first stop text to be complete, character by character, without a matcher.
            let expected = text
                .char_indices()
                .map(|(at, c)| &text[..at + c.len_utf8()])
                .find_map(|seen| {
                    let ended = stops.iter().filter(|stop| seen.ends_with(**stop)).map(|s| s.len()).max();
                    ended.map(|length| (seen[..seen.len() - length].to_owned(), true))
                })
                .unwrap_or((text.clone(), false));
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|&c| text.is_char_boundary(c)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]);
            prop_assert_eq!(run(&stops, pieces), expected);
        }
    }
}
