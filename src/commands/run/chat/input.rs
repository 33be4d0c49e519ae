//! Lines of a terminal put together into inputs: blocks between `"""` and lines that end in a
//! backslash make one input of several lines.

const FENCE: &str = "\"\"\"";

/// What the user typed, possibly over several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    pub text: String,
    /// Whether the whole text stood between `"""`: then it is never a command.
    pub quoted: bool,
}

/// Collects lines until an input is complete.
#[derive(Debug, Default)]
pub struct Collector {
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    input: Input,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An open `"""`.
    Block,
    /// The last line ended in a backslash.
    Continued,
}

impl Collector {
    /// Whether an input has begun and is not complete.
    pub fn is_open(&self) -> bool {
        self.pending.is_some()
    }

    /// Drops what has begun.
    pub fn reset(&mut self) {
        self.pending = None;
    }

    /// Takes the next line, or several pasted ones; the input, if this completes it.
    pub fn push(&mut self, line: &str) -> Option<Input> {
        let (mut input, kind) = match self.pending.take() {
            Some(Pending { mut input, kind }) => {
                // The line with the opening fence adds no line of its own.
                if kind == Kind::Continued || !input.text.is_empty() {
                    input.text.push('\n');
                }
                (input, kind)
            }
            None => match opened(line) {
                Some((before, rest)) => {
                    let quoted = before.is_empty();
                    self.pending =
                        Some(Pending { input: Input { text: before.to_owned(), quoted }, kind: Kind::Block });
                    return self.continue_block(rest);
                }
                None => (Input { text: String::new(), quoted: false }, Kind::Continued),
            },
        };
        if kind == Kind::Block {
            self.pending = Some(Pending { input, kind });
            return self.continue_block(line);
        }
        if let Some(line) = continued(line) {
            input.text.push_str(line);
            self.pending = Some(Pending { input, kind });
            return None;
        }
        input.text.push_str(line);
        Some(input)
    }

    fn continue_block(&mut self, line: &str) -> Option<Input> {
        let pending = self.pending.as_mut()?;
        let Some(last) = line.trim_end().strip_suffix(FENCE) else {
            pending.input.text.push_str(line);
            return None;
        };
        pending.input.text.push_str(last);
        let mut input = self.pending.take()?.input;
        // A closing fence on a line of its own ends the line before it.
        if last.is_empty() && input.text.ends_with('\n') {
            input.text.pop();
        }
        Some(input)
    }
}

/// The text before and after a fence that opens a block: at the beginning, or as the whole value
/// of a command.
fn opened(line: &str) -> Option<(&str, &str)> {
    let at = line.find(FENCE)?;
    let (before, rest) = (&line[..at], &line[at + FENCE.len()..]);
    if before.trim().is_empty() {
        return Some(("", rest));
    }
    (before.starts_with('/') && before.ends_with(' ') && !before.contains('"')).then_some((before, rest))
}

/// The line without its last backslash, if that one escapes the line end: an even number of them
/// escapes nothing.
fn continued(line: &str) -> Option<&str> {
    let backslashes = line.len() - line.trim_end_matches('\\').len();
    if backslashes % 2 == 1 { line.strip_suffix('\\') } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The inputs that lines make, and whether one is left open.
    fn collect(lines: &[&str]) -> (Vec<(String, bool)>, bool) {
        let mut collector = Collector::default();
        let inputs = lines.iter().filter_map(|line| collector.push(line));
        let inputs = inputs.map(|input| (input.text, input.quoted)).collect();
        (inputs, collector.is_open())
    }

    fn one(lines: &[&str]) -> (String, bool) {
        let (mut inputs, open) = collect(lines);
        assert!(!open && inputs.len() == 1, "{inputs:?} {open}");
        inputs.remove(0)
    }

    #[test]
    fn a_plain_line_is_an_input() {
        assert_eq!(one(&["Hello"]), ("Hello".to_owned(), false));
        assert_eq!(one(&[""]), (String::new(), false));
    }

    #[test]
    fn a_block_spans_lines_with_its_fences_on_lines_of_their_own_or_not() {
        let expected = ("a\n\n  b".to_owned(), true);
        assert_eq!(one(&["\"\"\"a", "", "  b\"\"\""]), expected);
        assert_eq!(one(&["\"\"\"", "a", "", "  b", "\"\"\""]), expected);
        assert_eq!(one(&["\"\"\"a\n\n  b\"\"\""]), expected);
        assert_eq!(one(&["\"\"\"/help\"\"\""]), ("/help".to_owned(), true));
        assert_eq!(one(&["\"\"\"\"\"\""]), (String::new(), true));
    }

    #[test]
    fn a_command_takes_a_block_as_its_value() {
        assert_eq!(one(&["/system \"\"\"Be", "brief.\"\"\""]), ("/system Be\nbrief.".to_owned(), false));
    }

    #[test]
    fn three_quotes_inside_a_line_open_nothing() {
        assert_eq!(one(&["say \"\"\" twice"]), ("say \"\"\" twice".to_owned(), false));
    }

    #[test]
    fn an_odd_number_of_backslashes_continues_the_line() {
        assert_eq!(one(&["a\\", "b\\", "c"]), ("a\nb\nc".to_owned(), false));
        assert_eq!(one(&["a\\\\"]), ("a\\\\".to_owned(), false));
        assert_eq!(one(&["\\", "\"\"\""]), ("\n\"\"\"".to_owned(), false));
    }

    #[test]
    fn an_open_input_can_be_dropped() {
        let mut collector = Collector::default();
        assert_eq!(collector.push("\"\"\"never"), None);
        assert!(collector.is_open());
        collector.reset();
        assert_eq!(collector.push("Hi").map(|input| input.text).as_deref(), Some("Hi"));
    }

    proptest! {
        #[test]
        fn a_block_gives_back_any_text_without_quotes(lines in proptest::collection::vec("[^\"\n]*", 1..5)) {
            let text = lines.join("\n");
            let mut typed = vec!["\"\"\"".to_owned()];
            typed.extend(lines);
            typed.push("\"\"\"".to_owned());
            let typed: Vec<_> = typed.iter().map(String::as_str).collect();
            // Lines after the fence count from the first that holds something.
            prop_assert_eq!(one(&typed).0, text.trim_start_matches('\n').to_owned());
        }
    }
}
