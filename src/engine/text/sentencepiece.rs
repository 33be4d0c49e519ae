//! SentencePiece's BPE, as GGUF files (`tokenizer.ggml.model` = `llama`) and its own files describe it: pieces
//! with scores, spaces as ▁, and bytes for what no piece spells.
//!
//! Encoding merges, again and again, the neighbours whose joined piece has the best score, the
//! leftmost of equals (Kudo and Richardson, arXiv:1808.06226, and the reference implementation).

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use aho_corasick::{AhoCorasick, MatchKind};

use super::characters::Characters;
use crate::error::{Code, Error, Result};

/// Stands for a space in pieces.
pub(super) const SPACE: char = '\u{2581}';

/// What a piece is for; the numbers are those of `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    /// Never typed by a user: BOS, end of turn and their like.
    Control,
    /// Found in text before anything is merged.
    UserDefined,
    Unused,
    Byte,
}

impl Kind {
    pub(super) fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            // 0 is what converters wrote before they knew kinds.
            0 | 1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// A vocabulary that encodes.
#[derive(Debug)]
pub(super) struct SentencePiece {
    pieces: Vec<String>,
    scores: Vec<f32>,
    kinds: Vec<Kind>,
    ids: HashMap<String, u32>,
    bytes: [Option<u32>; 256],
    unknown: Option<u32>,
    /// Finds control and user-defined pieces in text, and their ids by pattern.
    added: Option<(AhoCorasick, Vec<u32>)>,
    space_prefix: bool,
    /// Only the beginning of a text gets that space, not what follows an added piece.
    only_first: bool,
    /// What characters become before anything else.
    characters: Option<Characters>,
    /// Spaces at the ends of a text go, and several become one.
    squeezes: bool,
}

impl SentencePiece {
    /// All three lists are of one length; `space_prefix` puts a space before text, as if it began a word.
    ///
    /// # Errors
    /// `INTEGRITY_FAILED` when two pieces are equal.
    pub(super) fn new(
        pieces: Vec<String>,
        scores: Vec<f32>,
        kinds: Vec<Kind>,
        unknown: Option<u32>,
        space_prefix: bool,
    ) -> Result<Self> {
        let mut ids = HashMap::with_capacity(pieces.len());
        let mut bytes = [None; 256];
        let (mut patterns, mut added_ids) = (Vec::new(), Vec::new());
        for ((id, piece), kind) in (0u32..).zip(&pieces).zip(&kinds) {
            if let Some(first) = ids.insert(piece.clone(), id) {
                return Err(Error::new(
                    Code::IntegrityFailed,
                    format!("the vocabulary has the token {piece:?} twice, as {first} and as {id}"),
                ));
            }
            match kind {
                Kind::Byte => {
                    if let Some(byte) = byte_of(piece) {
                        bytes[usize::from(byte)] = Some(id);
                    }
                }
                Kind::Control | Kind::UserDefined if !piece.is_empty() => {
                    patterns.push(piece);
                    added_ids.push(id);
                }
                _ => {}
            }
        }
        let added = if patterns.is_empty() {
            None
        } else {
            let finder =
                AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&patterns).map_err(
                    |error| Error::new(Code::ModelUnsupported, format!("too many special tokens: {error}")),
                )?;
            Some((finder, added_ids))
        };
        Ok(Self {
            pieces,
            scores,
            kinds,
            ids,
            bytes,
            unknown,
            added,
            space_prefix,
            only_first: false,
            characters: None,
            squeezes: false,
        })
    }

    #[must_use]
    pub(super) fn with_space_only_first(mut self) -> Self {
        self.only_first = true;
        self
    }

    #[must_use]
    pub(super) fn with_characters(mut self, table: Characters) -> Self {
        self.characters = Some(table);
        self
    }

    #[must_use]
    pub(super) fn with_spaces_squeezed(mut self) -> Self {
        self.squeezes = true;
        self
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn piece(&self, id: u32) -> Option<&str> {
        self.pieces.get(id as usize).map(String::as_str)
    }

    pub(super) fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    pub(super) fn id(&self, piece: &str) -> Option<u32> {
        self.ids.get(piece).copied()
    }

    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut start = 0;
        if let Some((finder, added_ids)) = &self.added {
            for found in finder.find_iter(text) {
                self.encode_plain(&text[start..found.start()], start == 0, &mut ids);
                ids.push(added_ids[found.pattern().as_usize()]);
                start = found.end();
            }
        }
        self.encode_plain(&text[start..], start == 0, &mut ids);
        ids
    }

    /// Encodes text without special pieces.
    fn encode_plain(&self, text: &str, is_first: bool, ids: &mut Vec<u32>) {
        let replaced = self.characters.as_ref().map(|table| table.replace(text));
        let text = replaced.as_deref().unwrap_or(text);
        let squeezed;
        let text = if self.squeezes {
            squeezed = text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
            &squeezed
        } else {
            text
        };
        if text.is_empty() {
            return;
        }
        let mut spaced = String::with_capacity(text.len() + SPACE.len_utf8());
        if self.space_prefix && (is_first || !self.only_first) {
            spaced.push(SPACE);
        }
        spaced.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));
        for symbol in self.merge(&spaced) {
            let symbol = &spaced[symbol];
            if let Some(id) = self.mergeable(symbol) {
                ids.push(id);
                continue;
            }
            let bytes = symbol.bytes().map(|byte| self.bytes[usize::from(byte)]);
            if !bytes.clone().all(|byte| byte.is_some()) {
                // One for all that is unknown in a row.
                ids.extend(self.unknown.filter(|unknown| ids.last() != Some(unknown)));
                continue;
            }
            ids.extend(bytes.flatten());
        }
    }

    /// The id of a piece that merging may make.
    fn mergeable(&self, piece: &str) -> Option<u32> {
        let id = self.id(piece)?;
        matches!(self.kinds[id as usize], Kind::Normal | Kind::UserDefined).then_some(id)
    }

    /// Cuts `text` into pieces (or single characters that are none), as ranges of bytes.
    fn merge(&self, text: &str) -> Vec<std::ops::Range<usize>> {
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(index, (start, c))| Symbol {
                start,
                end: start + c.len_utf8(),
                previous: index.checked_sub(1),
                next: Some(index + 1),
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = None;
        }
        let mut queue = BinaryHeap::new();
        for left in 1..symbols.len() {
            self.propose(text, &symbols, left - 1, left, &mut queue);
        }
        while let Some(Candidate { left, right, end, start, .. }) = queue.pop() {
            // Either may have grown, or been taken in, since this was proposed.
            if symbols[left].start != start
                || symbols[left].end != symbols[right].start
                || symbols[right].end != end
            {
                continue;
            }
            let after = symbols[right].next;
            symbols[left].end = end;
            symbols[left].next = after;
            symbols[right].start = end;
            if let Some(after) = after {
                symbols[after].previous = Some(left);
                self.propose(text, &symbols, left, after, &mut queue);
            }
            if let Some(before) = symbols[left].previous {
                self.propose(text, &symbols, before, left, &mut queue);
            }
        }
        symbols.into_iter().filter(|symbol| symbol.start < symbol.end).map(|s| s.start..s.end).collect()
    }

    /// Queues the merge of two neighbours if it makes a piece.
    fn propose(
        &self,
        text: &str,
        symbols: &[Symbol],
        left: usize,
        right: usize,
        queue: &mut BinaryHeap<Candidate>,
    ) {
        let (start, end) = (symbols[left].start, symbols[right].end);
        if let Some(id) = self.mergeable(&text[start..end]) {
            queue.push(Candidate { score: self.scores[id as usize], left, right, start, end });
        }
    }
}

/// The byte that a piece such as `<0x0A>` stands for.
pub(super) fn byte_of(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    // A sign would pass the parser.
    let two_digits = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    two_digits.then(|| u8::from_str_radix(digits, 16).ok())?
}

/// A run of text; empty once it has been merged into its left neighbour.
struct Symbol {
    start: usize,
    end: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

/// A possible merge; the greatest is the next to be done.
struct Candidate {
    score: f32,
    left: usize,
    right: usize,
    start: usize,
    end: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unknown, BOS, EOS, 256 bytes, then `pieces` with falling scores.
    fn vocabulary(pieces: &[&str], added: &[(&str, Kind)]) -> SentencePiece {
        let mut all = vec!["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()];
        let mut kinds = vec![Kind::Unknown, Kind::Control, Kind::Control];
        for byte in 0..=255u8 {
            all.push(format!("<0x{byte:02X}>"));
            kinds.push(Kind::Byte);
        }
        all.extend(pieces.iter().map(ToString::to_string));
        kinds.extend(pieces.iter().map(|_| Kind::Normal));
        for (piece, kind) in added {
            all.push((*piece).to_owned());
            kinds.push(*kind);
        }
        let scores = (0..all.len()).map(|id| -(id as f32)).collect();
        SentencePiece::new(all, scores, kinds, Some(0), true).unwrap()
    }

    fn spelled(vocabulary: &SentencePiece, text: &str) -> Vec<String> {
        let ids = vocabulary.encode(text);
        ids.into_iter().map(|id| vocabulary.piece(id).unwrap().to_owned()).collect()
    }

    #[test]
    fn the_best_score_is_merged_first() {
        let letters = ["ab", "bc", "▁a", "a", "b", "c", "▁"];
        assert_eq!(spelled(&vocabulary(&letters, &[]), "abc"), ["▁", "ab", "c"]);
        let letters = ["bc", "▁a", "ab", "a", "b", "c", "▁"];
        assert_eq!(spelled(&vocabulary(&letters, &[]), "abc"), ["▁a", "bc"]);
    }

    #[test]
    fn equal_scores_are_merged_from_the_left() {
        let vocabulary = vocabulary(&["aa", "a", "▁"], &[]);
        assert_eq!(spelled(&vocabulary, "aaaaa"), ["▁", "aa", "aa", "a"]);
    }

    #[test]
    fn what_no_piece_spells_becomes_bytes() {
        let vocabulary = vocabulary(&["▁", "a"], &[]);
        assert_eq!(spelled(&vocabulary, "aé"), ["▁", "a", "<0xC3>", "<0xA9>"]);
        assert_eq!(spelled(&vocabulary, ""), Vec::<String>::new());
    }

    #[test]
    fn added_pieces_are_found_and_start_words_anew() {
        let vocabulary =
            vocabulary(&["▁a", "▁", "a"], &[("<|x|>", Kind::UserDefined), ("<|x|>y", Kind::Control)]);
        assert_eq!(spelled(&vocabulary, "<s>a<|x|>a</s>"), ["<s>", "▁a", "<|x|>", "▁a", "</s>"]);
        assert_eq!(spelled(&vocabulary, "<|x|>y"), ["<|x|>y"]);
    }

    #[test]
    fn without_bytes_the_unknown_piece_stands_in() {
        let pieces = vec!["<unk>".to_owned(), "a".to_owned()];
        let kinds = vec![Kind::Unknown, Kind::Normal];
        let vocabulary = SentencePiece::new(pieces, vec![0.0; 2], kinds, Some(0), false).unwrap();
        assert_eq!(vocabulary.encode("ab"), [1, 0]);
    }

    #[test]
    fn a_token_twice_is_an_error() {
        let pieces = vec!["a".to_owned(), "a".to_owned()];
        let error = SentencePiece::new(pieces, vec![0.0; 2], vec![Kind::Normal; 2], None, false).unwrap_err();
        assert_eq!(error.code(), Code::IntegrityFailed);
    }

    #[test]
    fn byte_pieces_are_read_strictly() {
        assert_eq!(byte_of("<0x0A>"), Some(10));
        for wrong in ["<0x+A>", "<0x0>", "<0xGG>", "0x0A", "<0x0A0>"] {
            assert_eq!(byte_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn long_runs_take_no_quadratic_time() {
        let vocabulary = vocabulary(&["aa", "aaaa", "a", "▁"], &[]);
        let text = "a".repeat(400_000);
        assert_eq!(vocabulary.encode(&text).len(), 1 + 100_000);
    }

    /// The same vocabulary as merges in the order of their scores, for the `tokenizers` library.
    fn as_merges(vocabulary: &SentencePiece) -> tokenizers::models::bpe::BPE {
        let mut merges: Vec<(f32, String, String)> = Vec::new();
        for (piece, &score) in vocabulary.pieces.iter().zip(&vocabulary.scores) {
            let cuts = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
            let parts =
                cuts.filter(|(left, right)| [left, right].iter().all(|p| vocabulary.mergeable(p).is_some()));
            merges.extend(
                parts
                    .filter(|_| vocabulary.mergeable(piece).is_some())
                    .map(|(l, r)| (score, l.to_owned(), r.to_owned())),
            );
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0));
        let merges = merges.into_iter().map(|(_, left, right)| (left, right)).collect();
        let ids: tokenizers::models::bpe::Vocab =
            vocabulary.ids.iter().map(|(p, &id)| (p.clone(), id)).collect();
        let builder = tokenizers::models::bpe::BPE::builder().vocab_and_merges(ids, merges);
        builder.byte_fallback(true).build().unwrap()
    }

    proptest::proptest! {
        #[test]
        fn pieces_are_those_of_the_library_s_merges(
            pieces in proptest::collection::btree_set("[abé]{2,4}", 0..12),
            order in proptest::prelude::any::<u64>(),
            text in "[abéz ]{0,24}",
        ) {
            use tokenizers::Model;
            let mut pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let middle = if pieces.is_empty() { 0 } else { order as usize % pieces.len() };
            pieces.rotate_left(middle);
            pieces.extend(["a", "b", "é", "▁"]);
            let vocabulary = vocabulary(&pieces, &[]);
            let spaced = format!("▁{}", text.replace(' ', "▁"));
            let tokens = as_merges(&vocabulary).tokenize(&spaced).unwrap();
            let expected: Vec<u32> = if text.is_empty() { Vec::new() } else { tokens.iter().map(|t| t.id).collect() };
            proptest::prop_assert_eq!(vocabulary.encode(&text), expected);
        }
    }
}
