//! A model's tokenizer, whatever it was read from.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::{Map, Value};

use super::sentencepiece::{self, Kind, SPACE, SentencePiece};
use super::stream::Detokenizer;
use super::{files, gguf};
use crate::engine::format::metadata::Metadata;
use crate::error::{Code, Error, Result};

/// Tokens that end a turn or a document in well-known models. A file that does not list its end
/// tokens is searched for special tokens of these names.
const TURN_ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<end_of_turn>",
    "<turn|>",
    "<end_of_utterance>",
    "<|eot|>",
    "<EOT>",
    "[EOT]",
    "[EOS]",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
];

/// Text to token ids and back.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    decoding: Decoding,
    size: usize,
    /// Ids that `add_special` puts before and after a text.
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    roles: Roles,
}

#[derive(Debug)]
pub(super) enum Vocabulary {
    Library(Box<tokenizers::Tokenizer>),
    SentencePiece(Box<SentencePiece>),
}

impl Vocabulary {
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        match self {
            Self::Library(library) => library.token_to_id(token),
            Self::SentencePiece(pieces) => pieces.id(token),
        }
    }
}

/// How the text of a sequence follows from its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoding {
    /// Each character of a token stands for a byte, as GPT-2 does it.
    ByteLevel,
    /// ▁ is a space, `<0x0A>` is a byte; the first space of a text may be the tokenizer's own.
    SentencePiece { strip_space: bool },
    /// As the `tokenizers` library does it.
    Library,
}

/// What single tokens are for.
#[derive(Debug, Default)]
pub(super) struct Roles {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    /// Tokens that end an answer, beside EOS.
    pub ends: Vec<u32>,
    /// As templates know them: `bos_token` and so on.
    pub names: Map<String, Value>,
}

impl Tokenizer {
    /// From the tokenizer's file in a model's folder, with the roles of tokens from `tokenizer_config.json`.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND` without such a file, `INTEGRITY_FAILED` when a file is damaged,
    /// `MODEL_UNSUPPORTED` for a kind of tokenizer that is not known.
    pub fn from_directory(directory: &Path) -> Result<Self> {
        files::load(directory)
    }

    /// From the keys `tokenizer.ggml.*` of a GGUF file.
    ///
    /// # Errors
    /// `INTEGRITY_FAILED` when keys are missing or contradict each other, `MODEL_UNSUPPORTED` for a
    /// kind of tokenizer that is not known.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self> {
        gguf::load(metadata)
    }

    pub(super) fn new(vocabulary: Vocabulary, decoding: Decoding, mut roles: Roles) -> Self {
        let size = match &vocabulary {
            Vocabulary::Library(library) => library.get_vocab_size(true),
            Vocabulary::SentencePiece(pieces) => pieces.len(),
        };
        let mut tokenizer = Self {
            vocabulary,
            decoding,
            size,
            prefix: Vec::new(),
            suffix: Vec::new(),
            roles: Roles::default(),
        };
        let named = |name: &&str| tokenizer.token_to_id(name).filter(|&id| tokenizer.is_added(id));
        let mut ends: Vec<u32> = TURN_ENDS.iter().filter_map(named).collect();
        // Where <|return|> ends an answer, <|end|> only ends one of its parts.
        if named(&"<|return|>").is_some() {
            ends.retain(|&id| tokenizer.id_to_token(id).as_deref() != Some("<|end|>"));
        }
        roles.ends.extend(ends);
        roles.ends.extend(roles.eos);
        roles.ends.sort_unstable();
        roles.ends.dedup();
        tokenizer.roles = roles;
        tokenizer
    }

    #[must_use]
    pub(super) fn with_special(mut self, prefix: Vec<u32>, suffix: Vec<u32>) -> Self {
        self.prefix = prefix;
        self.suffix = suffix;
        self
    }

    /// The ids of a text. Special tokens in the text are recognised. `add_special` adds what the
    /// model expects around a text, such as BOS, except a BOS that the text already begins with.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when the text has a run of letters or spaces too long to be cut into words.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let mut ids = match &self.vocabulary {
            Vocabulary::Library(library) => {
                check_runs(text)?;
                let encoding = guard(|| library.encode_fast(text, false))?;
                let encoding = encoding.map_err(|error| {
                    Error::new(Code::InvalidRequest, format!("the text cannot be cut into tokens: {error}"))
                        .hint("give another text, or check the model's tokenizer.json")
                })?;
                encoding.get_ids().to_vec()
            }
            Vocabulary::SentencePiece(pieces) => pieces.encode(text),
        };
        if add_special {
            let begins = self.prefix.len() == 1 && self.prefix.first() == ids.first();
            if !begins {
                ids.splice(0..0, self.prefix.iter().copied());
            }
            ids.extend_from_slice(&self.suffix);
        }
        Ok(ids)
    }

    /// The text of ids; `skip_special` leaves out control tokens. Bytes that are no UTF-8 become
    /// U+FFFD; ids that are no tokens are left out.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        if let (Decoding::Library, Vocabulary::Library(library)) = (self.decoding, &self.vocabulary) {
            return guard(|| library.decode(ids, skip_special))?.map_err(|error| {
                Error::new(Code::IntegrityFailed, format!("the tokenizer cannot decode: {error}"))
            });
        }
        let mut detokenizer = Detokenizer::new(self, skip_special);
        let mut text = String::new();
        for &id in ids {
            text.extend(detokenizer.push(id)?);
        }
        text.extend(detokenizer.finish()?);
        Ok(text)
    }

    /// The ids of a text between the tokens that the model expects around one, whatever it begins with.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`].
    pub fn encode_between(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(text, false)?;
        ids.splice(0..0, self.prefix.iter().copied());
        ids.extend_from_slice(&self.suffix);
        Ok(ids)
    }

    /// How many tokens the model expects before and after a text.
    pub fn special_around(&self) -> (usize, usize) {
        (self.prefix.len(), self.suffix.len())
    }

    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.vocabulary.id(token)
    }

    /// The token as the vocabulary writes it (`Ġthe`, `▁the`, `<0x0A>`).
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        match &self.vocabulary {
            Vocabulary::Library(library) => library.id_to_token(id),
            Vocabulary::SentencePiece(pieces) => pieces.piece(id).map(str::to_owned),
        }
    }

    /// How many tokens there are. A model's logits may be wider, padded to a round number.
    pub fn vocab_size(&self) -> usize {
        self.size
    }

    pub fn bos(&self) -> Option<u32> {
        self.roles.bos
    }

    pub fn eos(&self) -> Option<u32> {
        self.roles.eos
    }

    /// Ids that end an answer, ascending: EOS and end-of-turn tokens. A `generation_config.json` may
    /// add to them.
    pub fn end_tokens(&self) -> &[u32] {
        &self.roles.ends
    }

    /// Special tokens by role, as chat templates know them: `bos_token`, `eos_token`, …
    pub fn special_tokens(&self) -> &Map<String, Value> {
        &self.roles.names
    }

    /// Whether the token controls the model rather than being text.
    pub fn is_special(&self, id: u32) -> bool {
        match &self.vocabulary {
            Vocabulary::Library(library) => {
                library.get_added_vocabulary().get_added_tokens_decoder().get(&id).is_some_and(|t| t.special)
            }
            Vocabulary::SentencePiece(pieces) => {
                matches!(pieces.kind(id), Some(Kind::Control | Kind::Unknown))
            }
        }
    }

    /// The first id that is another token in the other tokenizer; `None` if all are the same.
    pub fn first_difference(&self, other: &Self) -> Option<u32> {
        let most = self.vocab_size().max(other.vocab_size()) as u32;
        (0..most).find(|&id| self.id_to_token(id) != other.id_to_token(id))
    }

    /// The bytes that a token stands for in the middle of a text; none for ids that are no tokens.
    ///
    /// # Errors
    /// `CAPABILITY_MISSING` for tokenizers whose tokens have no text of their own.
    pub fn bytes(&self, id: u32) -> Result<Vec<u8>> {
        if self.decoding == Decoding::Library {
            return Err(Error::new(
                Code::CapabilityMissing,
                "the model's tokens have no text of their own, which formats need",
            )
            .hint("ask without --format, or take a model with a byte-level or SentencePiece tokenizer"));
        }
        let mut bytes = Vec::new();
        self.append_bytes(id, &mut bytes);
        Ok(bytes)
    }

    /// Whether a part of a text has the tokens that it has in the whole text, nearly always: the
    /// tokenizer puts nothing before a text.
    pub fn cuts_anywhere(&self) -> bool {
        self.decoding == Decoding::ByteLevel
    }

    pub(super) fn decoding(&self) -> Decoding {
        self.decoding
    }

    /// Whether the token is found in text before anything is merged.
    fn is_added(&self, id: u32) -> bool {
        match &self.vocabulary {
            Vocabulary::Library(library) => {
                library.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id)
            }
            Vocabulary::SentencePiece(pieces) => {
                matches!(pieces.kind(id), Some(Kind::Control | Kind::UserDefined))
            }
        }
    }

    /// Appends the bytes that a token stands for. Not for [`Decoding::Library`].
    pub(super) fn append_bytes(&self, id: u32, bytes: &mut Vec<u8>) {
        let (token, is_byte) = match &self.vocabulary {
            Vocabulary::Library(library) => {
                let Some(token) = library.id_to_token(id) else { return };
                (token, true)
            }
            Vocabulary::SentencePiece(pieces) => {
                let Some(token) = pieces.piece(id) else { return };
                (token.to_owned(), pieces.kind(id) == Some(Kind::Byte))
            }
        };
        match self.decoding {
            Decoding::SentencePiece { .. } => match sentencepiece::byte_of(&token).filter(|_| is_byte) {
                Some(byte) => bytes.push(byte),
                None => bytes.extend(token.replace(SPACE, " ").into_bytes()),
            },
            Decoding::ByteLevel if !self.is_added(id) => {
                let start = bytes.len();
                for character in token.chars() {
                    let Some(byte) = byte_of_character(character) else {
                        // Not written in the alphabet: such a token is text.
                        bytes.truncate(start);
                        bytes.extend(token.bytes());
                        return;
                    };
                    bytes.push(byte);
                }
            }
            Decoding::ByteLevel | Decoding::Library => bytes.extend(token.into_bytes()),
        }
    }
}

/// Letters or spaces in a row that the library's patterns are trusted with: at a million steps back
/// they give up, and the library then takes the rest of the text for one word, in silence.
const MAX_RUN: usize = 200_000;

fn check_runs(text: &str) -> Result<()> {
    #[derive(PartialEq)]
    enum Class {
        Space,
        Letter,
        /// Punctuation, on which no pattern has to step back.
        Break,
    }
    if text.len() < MAX_RUN {
        return Ok(());
    }
    let (mut last, mut run) = (Class::Break, 0);
    for character in text.chars() {
        let class = match character {
            c if c.is_whitespace() => Class::Space,
            c if c.is_alphanumeric() => Class::Letter,
            '\0'..='\u{7f}' | '\u{2000}'..='\u{206f}' | '\u{3000}'..='\u{303f}' | '\u{ff00}'..='\u{ff20}' => {
                Class::Break
            }
            // Marks, mostly, which some patterns take for letters.
            _ => Class::Letter,
        };
        run = if class == last { run + 1 } else { 1 };
        if run > MAX_RUN && class != Class::Break {
            return Err(Error::new(
                Code::InvalidRequest,
                format!("the text has more than {MAX_RUN} letters or spaces in a row"),
            )
            .hint("break the text up, or take out what is no text"));
        }
        last = class;
    }
    Ok(())
}

/// The byte that a character of GPT-2's alphabet stands for: printable Latin-1 stands for itself, the
/// other bytes follow from U+0100 on in their order.
fn byte_of_character(character: char) -> Option<u8> {
    Some(match u32::from(character) {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => code as u8,
        code @ 0x100..=0x120 => (code - 0x100) as u8,
        code @ 0x121..=0x142 => (code - 0x121 + 0x7F) as u8,
        0x143 => 0xAD,
        _ => return None,
    })
}

/// The characters of GPT-2's alphabet, by the byte that each stands for.
pub(super) fn alphabet() -> [char; 256] {
    let mut alphabet = ['\0'; 256];
    for character in '\u{21}'..='\u{143}' {
        if let Some(byte) = byte_of_character(character) {
            alphabet[usize::from(byte)] = character;
        }
    }
    alphabet
}

/// Runs code of the `tokenizers` library, which panics on some tokenizers that no tool writes.
pub(super) fn guard<T>(run: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| {
        Error::new(
            Code::IntegrityFailed,
            "the model's tokenizer is damaged: it makes the tokenizer library fail",
        )
        .hint("download or convert the model again")
    })
}
