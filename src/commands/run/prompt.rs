//! What is asked: the PROMPT argument, the text on standard input, or both.

use std::io::{self, IsTerminal, Read};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::error::{Code, Error, Result};

/// The longest text that is read from standard input; no model's context holds as much.
const LONGEST: u64 = 16 << 20;

/// How long standard input may be silent before the user is told that it is waited for: a program that
/// starts this one often leaves a pipe open without meaning to write to it.
const SILENCE: Duration = Duration::from_secs(2);

/// What the user wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// An answer to this text.
    Text(String),
    /// A conversation.
    Chat,
}

/// Finds out what is asked. Standard input is read when it is not a terminal, or when the argument
/// is `-`. A chat needs a terminal to print on, too: `screen`. Calls `waiting` if it takes long.
pub fn read(argument: Option<&str>, screen: bool, waiting: impl FnOnce()) -> Result<Asked> {
    let stdin = io::stdin();
    let at_terminal = stdin.is_terminal();
    if at_terminal && argument != Some("-") {
        return match argument {
            None if screen => Ok(Asked::Chat),
            None => Err(nothing_asked()),
            Some(text) => compose(Some(text), None).map(Asked::Text),
        };
    }
    compose(argument, Some(piped(waiting)?)).map(Asked::Text)
}

/// Everything on standard input.
fn piped(waiting: impl FnOnce()) -> Result<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut piped = Vec::new();
        let read = io::stdin().lock().take(LONGEST + 1).read_to_end(&mut piped);
        // Nobody waits any more only when the process ends.
        let _ = sender.send(read.map(|_| piped));
    });
    let read = match receiver.recv_timeout(SILENCE) {
        Err(RecvTimeoutError::Timeout) => {
            waiting();
            receiver.recv().map_err(|_| io::Error::other("the reader ended"))
        }
        read => read.map_err(|_| io::Error::other("the reader ended")),
    };
    read.and_then(|read| read)
        .map_err(|error| Error::new(Code::IoError, format!("cannot read standard input: {error}")))
}

/// The prompt that an argument and the bytes of standard input make: the argument, a blank line,
/// the text. An argument of `-` stands for the text alone. One line end at the end of the text is
/// dropped, since shells and editors put it there; so is a byte order mark.
pub fn compose(argument: Option<&str>, piped: Option<Vec<u8>>) -> Result<String> {
    let argument = argument.filter(|&text| text != "-").unwrap_or_default();
    let piped = piped.map_or_else(|| Ok(String::new()), decode)?;
    let prompt = match (argument.trim().is_empty(), piped.trim().is_empty()) {
        (true, true) => return Err(nothing_asked()),
        (true, false) => piped,
        (false, true) => argument.to_owned(),
        (false, false) => format!("{argument}\n\n{piped}"),
    };
    Ok(prompt)
}

fn decode(bytes: Vec<u8>) -> Result<String> {
    if bytes.len() as u64 > LONGEST {
        return Err(not_a_prompt(format!("the text on standard input is longer than {} MiB", LONGEST >> 20))
            .hint("pass a shorter text: models hold a few thousand to a few hundred thousand words"));
    }
    if let Some(offset) = memchr::memchr(0, &bytes) {
        return Err(not_a_prompt(format!(
            "standard input is not text: there is a NUL byte at offset {offset}"
        ))
        .hint("pass text in UTF-8"));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        not_a_prompt(format!("standard input is not UTF-8: the byte at offset {offset} begins no character"))
            .hint("convert it first, for example with: iconv -f LATIN1 -t UTF-8")
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// There is neither a prompt nor a terminal to chat on.
pub fn nothing_asked() -> Error {
    not_a_prompt("the prompt is empty".to_owned())
        .hint("give the prompt after the model or on standard input; on a terminal, no prompt starts a chat")
}

fn not_a_prompt(message: String) -> Error {
    Error::new(Code::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn composed(argument: Option<&str>, piped: Option<&[u8]>) -> String {
        compose(argument, piped.map(<[u8]>::to_vec)).expect("a prompt")
    }

    fn refused(argument: Option<&str>, piped: Option<&[u8]>) -> Error {
        let error = compose(argument, piped.map(<[u8]>::to_vec)).expect_err("no prompt");
        assert_eq!(error.code(), Code::InvalidRequest);
        error
    }

    #[test]
    fn an_argument_alone_is_the_prompt() {
        assert_eq!(composed(Some("Hello"), None), "Hello");
        assert_eq!(composed(Some(" Hello\n"), None), " Hello\n");
    }

    #[test]
    fn the_piped_text_is_the_prompt_without_an_argument_and_with_a_dash() {
        assert_eq!(composed(None, Some(b"Hello\n")), "Hello");
        assert_eq!(composed(Some("-"), Some(b"Hello\n")), "Hello");
    }

    #[test]
    fn with_both_a_blank_line_parts_the_argument_from_the_text() {
        assert_eq!(composed(Some("Summarize:"), Some(b"some\n text\n")), "Summarize:\n\nsome\n text");
    }

    #[test]
    fn standard_input_that_gives_nothing_leaves_the_argument_alone() {
        assert_eq!(composed(Some("Hello"), Some(b"")), "Hello");
        assert_eq!(composed(Some("Hello"), Some(b"\n")), "Hello");
    }

    #[test]
    fn an_empty_argument_leaves_the_text_alone() {
        assert_eq!(composed(Some(""), Some(b"text")), "text");
    }

    #[test]
    fn one_line_end_and_a_byte_order_mark_are_dropped() {
        assert_eq!(composed(None, Some(b"a\n\n")), "a\n");
        assert_eq!(composed(None, Some(b"a\r\n")), "a");
        assert_eq!(composed(None, Some("\u{feff}a".as_bytes())), "a");
    }

    #[test]
    fn nothing_at_all_is_refused() {
        for (argument, piped) in
            [(None, Some("")), (Some(""), None), (Some("  "), Some(" \n")), (Some("-"), Some(""))]
        {
            let error = refused(argument, piped.map(str::as_bytes));
            assert_eq!(error.message(), "the prompt is empty");
            assert!(error.hint_text().is_some());
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_with_their_place() {
        assert!(refused(Some("x"), Some(b"ab\xffcd")).message().contains("offset 2"));
        assert!(refused(None, Some(b"abc\0")).message().contains("NUL byte at offset 3"));
    }

    #[test]
    fn a_text_that_no_model_holds_is_refused() {
        assert!(refused(None, Some(&vec![b'a'; LONGEST as usize + 1])).message().contains("16 MiB"));
    }

    proptest! {
        #[test]
        fn any_input_is_a_prompt_or_a_refusal(
            argument in proptest::option::of(".*"),
            piped in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..64)),
        ) {
            match compose(argument.as_deref(), piped) {
                Ok(prompt) => prop_assert!(!prompt.trim().is_empty()),
                Err(error) => prop_assert_eq!(error.code(), Code::InvalidRequest),
            }
        }
    }
}
