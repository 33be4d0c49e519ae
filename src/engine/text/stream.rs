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
        if self.tokenizer.id_to_token(id).is_none() {
            return Ok(None);
        }
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

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::samples::{byte_level, byte_level_json, folder, sentence_piece, word_piece_json};
    use super::*;

    fn from_json(json: &Value) -> Tokenizer {
        Tokenizer::from_directory(folder(&[("tokenizer.json", json)]).path()).unwrap()
    }

    /// SentencePiece's pipeline around the byte-level sample's vocabulary, which has ▁ in no token.
    fn sentence_piece_json(strip: bool) -> Value {
        let mut json = byte_level_json();
        let mut steps = vec![
            json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if strip {
            steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        json["decoder"] = json!({"type": "Sequence", "decoders": steps});
        let vocab = json["model"]["vocab"].as_object_mut().unwrap();
        for (id, token) in (268..).zip(["\u{2581}", "\u{2581}hello", "<0xC3>", "<0xA9>", "<0x0A>"]) {
            vocab.insert(token.to_owned(), id.into());
        }
        json
    }

    fn metaspace_json() -> Value {
        let mut json = sentence_piece_json(false);
        json["decoder"] = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
        json
    }

    /// One of each way of decoding; WordPiece, the last, has but nine tokens.
    static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
        vec![
            Tokenizer::from_gguf(&byte_level()).unwrap(),
            Tokenizer::from_gguf(&sentence_piece()).unwrap(),
            from_json(&sentence_piece_json(true)),
            from_json(&metaspace_json()),
            from_json(&word_piece_json()),
        ]
    });

    static LIBRARY: LazyLock<tokenizers::Tokenizer> =
        LazyLock::new(|| byte_level_json().to_string().parse().unwrap());

    fn streamed(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> (Vec<String>, String) {
        let mut stream = Detokenizer::new(tokenizer, skip_special);
        let mut pieces: Vec<String> = ids.iter().filter_map(|&id| stream.push(id).unwrap()).collect();
        pieces.extend(stream.finish().unwrap());
        (pieces.clone(), pieces.concat())
    }

    fn push(stream: &mut Detokenizer, token: &str) -> Option<String> {
        let id = stream.tokenizer.token_to_id(token).unwrap();
        stream.push(id).unwrap()
    }

    #[test]
    fn half_a_character_is_held_back() {
        let tokenizer = Tokenizer::from_gguf(&byte_level()).unwrap();
        let mut stream = Detokenizer::new(&tokenizer, true);
        assert_eq!(push(&mut stream, "hello").unwrap(), "hello");
        // 😀 is F0 9F 98 80.
        assert_eq!(push(&mut stream, "ðŁ"), None);
        assert_eq!(push(&mut stream, "ĺ"), None);
        assert_eq!(push(&mut stream, "Ģ").unwrap(), "😀");
        assert_eq!(push(&mut stream, "Ã"), None);
        assert_eq!(push(&mut stream, "<|im_end|>"), None);
        assert_eq!(push(&mut stream, "h").unwrap(), "\u{fffd}h");
        assert_eq!(push(&mut stream, "Ã"), None);
        assert_eq!(stream.finish().unwrap().unwrap(), "\u{fffd}");
        assert_eq!(stream.finish().unwrap(), None);
    }

    #[test]
    fn sentence_pieces_lose_their_first_space_only() {
        let tokenizer = Tokenizer::from_gguf(&sentence_piece()).unwrap();
        let mut stream = Detokenizer::new(&tokenizer, true);
        assert_eq!(push(&mut stream, "<s>"), None);
        assert_eq!(push(&mut stream, "▁hello").unwrap(), "hello");
        assert_eq!(push(&mut stream, "▁w").unwrap(), " w");
        assert_eq!(push(&mut stream, "<0xC3>"), None);
        assert_eq!(push(&mut stream, "<0xA9>").unwrap(), "é");
        let ids = [tokenizer.token_to_id("▁▁").unwrap(); 2];
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), "   ");
    }

    #[test]
    fn a_sentence_piece_pipeline_decodes_as_the_library_does() {
        for strip in [false, true] {
            let json = sentence_piece_json(strip);
            let library: tokenizers::Tokenizer = json.to_string().parse().unwrap();
            let tokenizer = from_json(&json);
            assert_eq!(tokenizer.decoding(), Decoding::SentencePiece { strip_space: strip });
            for ids in [&[269, 268, 269, 270, 271, 272][..], &[268], &[1, 268, 4], &[]] {
                assert_eq!(tokenizer.decode(ids, true).unwrap(), library.decode(ids, true).unwrap());
            }
        }
    }

    #[test]
    fn a_long_stream_takes_no_quadratic_time() {
        for tokenizer in TOKENIZERS.iter() {
            let ids: Vec<u32> = (0..30_000).map(|step| 3 + step % 5).collect();
            let (_, text) = streamed(tokenizer, &ids, false);
            assert_eq!(text, tokenizer.decode(&ids, false).unwrap());
        }
    }

    proptest! {
        #[test]
        fn pieces_join_to_what_decoding_all_gives(
            ids in prop::collection::vec(prop_oneof![0u32..12, 0u32..290], 0..40),
            skip_special: bool,
        ) {
            for tokenizer in TOKENIZERS.iter() {
                let (_, text) = streamed(tokenizer, &ids, skip_special);
                prop_assert_eq!(&text, &tokenizer.decode(&ids, skip_special).unwrap());
            }
        }

        #[test]
        fn byte_level_decoding_is_the_library_s(ids in prop::collection::vec(0u32..268, 0..40)) {
            let text = TOKENIZERS[0].decode(&ids, false).unwrap();
            prop_assert_eq!(text, LIBRARY.decode(&ids, false).unwrap());
        }

        #[test]
        fn text_survives_in_whole_characters(text in "\\PC{0,40}") {
            for tokenizer in &TOKENIZERS[..2] {
                let ids = tokenizer.encode(&text, true).unwrap();
                let (pieces, all) = streamed(tokenizer, &ids, true);
                prop_assert_eq!(&all, &text);
                let broken = pieces.iter().any(|piece| piece.contains(char::REPLACEMENT_CHARACTER));
                prop_assert_eq!(broken, text.contains(char::REPLACEMENT_CHARACTER));
            }
        }
    }
}
