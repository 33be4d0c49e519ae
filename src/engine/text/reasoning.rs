//! The part of an answer in which a reasoning model thinks aloud: told apart by its tags.

/// How a family of models marks its reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tags {
    /// What a chat template of the family has in it.
    evidence: &'static str,
    open: &'static str,
    close: &'static str,
    /// Marks around the answer that are not part of it.
    dropped: &'static [&'static str],
}

/// The families known. The evidence is the closing tag where templates cut old reasoning off by it.
const FAMILIES: [Tags; 8] = [
    Tags { evidence: "</think>", open: "<think>", close: "</think>", dropped: &[] },
    Tags {
        // The channels of gpt-oss: the answer is another one.
        evidence: "<|channel|>analysis",
        open: "<|channel|>analysis<|message|>",
        close: "<|end|>",
        dropped: &["<|start|>assistant", "<|channel|>final<|message|>", "<|channel|>commentary<|message|>"],
    },
    Tags { evidence: "<|channel>thought", open: "<|channel>thought", close: "<channel|>", dropped: &[] },
    Tags { evidence: "[/THINK]", open: "[THINK]", close: "[/THINK]", dropped: &[] },
    Tags { evidence: "</seed:think>", open: "<seed:think>", close: "</seed:think>", dropped: &[] },
    Tags {
        evidence: "<|START_THINKING|>",
        open: "<|START_THINKING|>",
        close: "<|END_THINKING|>",
        dropped: &["<|START_RESPONSE|>", "<|END_RESPONSE|>"],
    },
    Tags { evidence: "</thinking>", open: "<thinking>", close: "</thinking>", dropped: &[] },
    Tags { evidence: "</thought>", open: "<thought>", close: "</thought>", dropped: &[] },
];

impl Tags {
    /// The tags of a model with this chat template; `None`: it does not reason.
    pub fn of(template: &str) -> Option<Self> {
        FAMILIES.into_iter().find(|tags| template.contains(tags.evidence))
    }

    /// Whether a token that is otherwise not shown is part of a tag.
    pub fn has(&self, token: &str) -> bool {
        let all = [self.open, self.close].into_iter().chain(self.dropped.iter().copied());
        !token.is_empty() && all.into_iter().any(|tag| tag.contains(token))
    }

    /// Whether a prompt ends in the model's reasoning, begun by its template.
    pub fn begun_by(&self, prompt: &str) -> bool {
        prompt.trim_end().ends_with(self.open)
    }
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Reasoning(String),
    Text(String),
}

/// Tells reasoning from the answer in streamed text, holding back only what may become a tag. The tags
/// and the blanks after them are dropped.
#[derive(Debug, Clone)]
pub struct Splitter {
    tags: Tags,
    thinking: bool,
    /// Whether the next tag of the answer would begin reasoning again.
    reopens: bool,
    /// The end of the text so far that is the beginning of a tag.
    held: String,
    /// Whether blanks are dropped because a tag came before them.
    after_tag: bool,
}

impl Splitter {
    /// `thinking`: the answer begins inside of the reasoning. `reopens`: reasoning may begin later.
    pub fn new(tags: Tags, thinking: bool, reopens: bool) -> Self {
        Self { tags, thinking, reopens, held: String::new(), after_tag: thinking }
    }

    pub fn is_thinking(&self) -> bool {
        self.thinking
    }

    /// Takes more text; returns what is certain.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        let mut text = std::mem::take(&mut self.held) + text;
        let mut pieces = Vec::new();
        while let Some((at, tag)) = self.first_tag(&text) {
            let rest = text.split_off(at + tag.len());
            text.truncate(at);
            self.put(&mut pieces, text);
            if tag == self.tags.open || tag == self.tags.close {
                self.thinking = tag == self.tags.open;
            }
            self.after_tag = true;
            text = rest;
        }
        let keep = self.watched().map(|tag| overlap(&text, tag)).max().unwrap_or(0);
        self.held = text.split_off(text.len() - keep);
        self.put(&mut pieces, text);
        pieces
    }

    /// The end of the stream: what was held back is text after all.
    pub fn finish(&mut self) -> Vec<Piece> {
        let rest = std::mem::take(&mut self.held);
        let mut pieces = Vec::new();
        self.put(&mut pieces, rest);
        pieces
    }

    fn put(&mut self, pieces: &mut Vec<Piece>, mut text: String) {
        if self.after_tag {
            let blanks = text.len() - text.trim_start().len();
            text.drain(..blanks);
        }
        if text.is_empty() {
            return;
        }
        self.after_tag = false;
        pieces.push(if self.thinking { Piece::Reasoning(text) } else { Piece::Text(text) });
    }

    /// The tags that mean something now.
    fn watched(&self) -> impl Iterator<Item = &'static str> {
        let tags = self.tags;
        let turn = if self.thinking { Some(tags.close) } else { Some(tags.open).filter(|_| self.reopens) };
        let dropped = if self.reopens && !self.thinking { tags.dropped } else { &[] };
        turn.into_iter().chain(dropped.iter().copied())
    }

    fn first_tag(&self, text: &str) -> Option<(usize, &'static str)> {
        self.watched().filter_map(|tag| Some((text.find(tag)?, tag))).min()
    }
}

/// Bytes of the longest end of `text` that is the beginning, but not all, of `tag`.
fn overlap(text: &str, tag: &str) -> usize {
    let longest = text.len().min(tag.len() - 1);
    (1..=longest).rev().find(|&length| text.as_bytes().ends_with(&tag.as_bytes()[..length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn think() -> Tags {
        Tags::of("{{ content.split('</think>')[-1] }}").unwrap()
    }

    fn gpt_oss() -> Tags {
        Tags::of("<|start|>assistant<|channel|>analysis<|message|>").unwrap()
    }

    /// Reasoning and answer, joined.
    fn split<'a>(mut splitter: Splitter, texts: impl IntoIterator<Item = &'a str>) -> (String, String) {
        let mut pieces: Vec<Piece> = texts.into_iter().flat_map(|text| splitter.push(text)).collect();
        pieces.extend(splitter.finish());
        let (mut reasoning, mut answer) = (String::new(), String::new());
        for piece in pieces {
            match piece {
                Piece::Reasoning(text) => reasoning += &text,
                Piece::Text(text) => answer += &text,
            }
        }
        (reasoning, answer)
    }

    fn both(reasoning: &str, answer: &str) -> (String, String) {
        (reasoning.to_owned(), answer.to_owned())
    }

    #[test]
    fn tags_that_the_model_writes_part_the_answer() {
        let splitter = Splitter::new(think(), false, true);
        assert_eq!(
            split(splitter.clone(), ["<think>", "\nwell", "…\n</th", "ink>\n\nYes", "."]),
            both("well…\n", "Yes.")
        );
        assert_eq!(split(splitter.clone(), ["1 <", " 2 <thin", "g>"]), both("", "1 < 2 <thing>"));
        assert_eq!(split(splitter, ["<think>never ends </thi"]), both("never ends </thi", ""));
    }

    #[test]
    fn reasoning_that_the_template_began_needs_no_opening_tag() {
        assert!(think().begun_by("<|im_start|>assistant\n<think>\n"));
        assert!(!think().begun_by("<|im_start|>assistant\n<think>\n\n</think>\n\n"));
        assert_eq!(split(Splitter::new(think(), true, true), ["hm</think>", " Yes"]), both("hm", "Yes"));
    }

    #[test]
    fn in_an_answer_of_a_fixed_format_a_tag_is_text() {
        let splitter = Splitter::new(think(), true, false);
        assert_eq!(split(splitter, ["a</think>{\"x\": \"<think>\"}"]), both("a", "{\"x\": \"<think>\"}"));
    }

    #[test]
    fn the_channels_of_gpt_oss_are_its_reasoning_and_its_answer() {
        let splitter = Splitter::new(gpt_oss(), false, true);
        let text = "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>4";
        assert_eq!(split(splitter, [text]), both("Easy.", "4"));
        assert!(gpt_oss().has("<|message|>") && !gpt_oss().has("<|return|>") && !gpt_oss().has(""));
    }

    #[test]
    fn templates_without_tags_are_of_models_that_do_not_reason() {
        assert_eq!(Tags::of("{% for m in messages %}{{ m.content }}{% endfor %}"), None);
        for tags in FAMILIES {
            assert!(tags.has(tags.open) && tags.has(tags.close), "{tags:?}");
            assert_eq!(Tags::of(&format!("a {} b {}", tags.open, tags.close)), Some(tags));
        }
    }

    proptest! {
        #[test]
        fn cutting_does_not_change_the_outcome(
            parts in prop::collection::vec(
                prop_oneof!["[ab<>/ ]{0,6}", Just("<think>".to_owned()), Just("</think>".to_owned())], 0..6),
            cuts in prop::collection::vec(0usize..40, 0..6),
            thinking: bool,
        ) {
            let text = parts.concat();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]);
            let whole = split(Splitter::new(think(), thinking, true), [text.as_str()]);
            prop_assert_eq!(split(Splitter::new(think(), thinking, true), pieces), whole);
        }
    }
}
