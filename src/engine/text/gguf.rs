//! A tokenizer from the keys `tokenizer.ggml.*` of a GGUF file.

use tokenizers::models::bpe::{BPE, BpeBuilder, Merges, Vocab};
use tokenizers::normalizers::replace::Replace;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper};

use super::config::names;
use super::sentencepiece::{Kind, SPACE, SentencePiece};
use super::split;
use super::tokenizer::{Decoding, Roles, Tokenizer, Vocabulary, guard};
use super::word_piece;
use crate::engine::format::metadata::Metadata;
use crate::error::{Code, Error, Result};

const PREFIX: &str = "tokenizer.ggml.";

pub(super) fn load(metadata: &Metadata) -> Result<Tokenizer> {
    let model = metadata.text(&key("model")).ok_or_else(|| missing("model"))?;
    let tokens = metadata.texts(&key("tokens")).ok_or_else(|| missing("tokens"))?;
    if u32::try_from(tokens.len()).is_err() {
        return Err(damaged("the vocabulary has more tokens than ids can name"));
    }
    let kinds = kinds(metadata, tokens.len())?;
    match model {
        "gpt2" => byte_level(metadata, tokens, &kinds),
        "llama" => sentence_piece(metadata, tokens, kinds),
        "gemma4" => spaced(metadata, tokens, &kinds),
        "bert" => word_piece(metadata, tokens, &kinds),
        _ => Err(Error::new(
            Code::ModelUnsupported,
            format!("tokenizers of the kind \"{model}\" are not supported"),
        )
        .hint("use the model's safetensors version, which carries its own tokenizer.json")
        .detail("tokenizer", model)),
    }
}

/// Byte-level BPE with merges.
fn byte_level(metadata: &Metadata, tokens: &[String], kinds: &[Kind]) -> Result<Tokenizer> {
    let rules = split::rules(metadata.text(&key("pre")).unwrap_or("default"))?;
    let (ids, merges) = vocabulary(metadata, tokens)?;
    let model = BPE::builder().vocab_and_merges(ids, merges).ignore_merges(rules.ignore_merges);
    let mut library = tokenizers::Tokenizer::new(built(model)?);
    library.with_pre_tokenizer(Some(rules.pre_tokenizer()?));
    library.with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::default())));
    add(&mut library, tokens, kinds)?;

    let roles = roles(metadata, tokens, [None; 3])?;
    let (prefix, suffix) = special(metadata, &roles, rules.add_bos)?;
    let vocabulary = Vocabulary::Library(Box::new(library));
    Ok(Tokenizer::new(vocabulary, Decoding::ByteLevel, roles).with_special(prefix, suffix))
}

/// Gemma's BPE with merges: spaces are ▁, texts are no words, and bytes spell what no token does.
fn spaced(metadata: &Metadata, tokens: &[String], kinds: &[Kind]) -> Result<Tokenizer> {
    let (ids, merges) = vocabulary(metadata, tokens)?;
    let mut model = BPE::builder().vocab_and_merges(ids, merges).fuse_unk(true).byte_fallback(true);
    if let Some(unknown) = id(metadata, "unknown_token_id", None, tokens.len())? {
        model = model.unk_token(tokens[unknown as usize].clone());
    }
    let mut library = tokenizers::Tokenizer::new(built(model)?);
    let replace = Replace::new(" ", SPACE.to_string())
        .map_err(|error| Error::internal(format!("a space is no pattern: {error}")))?;
    library
        .with_normalizer(Some(NormalizerWrapper::Replace(replace)))
        .map_err(|error| damaged(format!("its spaces do not fit: {error}")))?;
    add(&mut library, tokens, kinds)?;

    let roles = roles(metadata, tokens, [None; 3])?;
    let (prefix, suffix) = special(metadata, &roles, true)?;
    let decoding = Decoding::SentencePiece { strip_space: false };
    Ok(Tokenizer::new(Vocabulary::Library(Box::new(library)), decoding, roles).with_special(prefix, suffix))
}

/// Tokens by their text, and the merges.
fn vocabulary(metadata: &Metadata, tokens: &[String]) -> Result<(Vocab, Merges)> {
    let mut ids = Vocab::with_capacity(tokens.len());
    let mut longest = 0;
    for (id, token) in (0u32..).zip(tokens) {
        longest = longest.max(token.len());
        if let Some(first) = ids.insert(token.clone(), id) {
            return Err(damaged(format!(
                "the vocabulary has the token {token:?} twice, as {first} and as {id}"
            )));
        }
    }
    let listed = metadata.texts(&key("merges")).ok_or_else(|| missing("merges"))?;
    let mut merges = Merges::with_capacity(listed.len());
    for merge in listed {
        let pair = merge.split_once(' ').filter(|(left, right)| {
            // The library relies on the last; it checks the tokens themselves.
            !left.is_empty() && !right.is_empty() && left.len() + right.len() <= longest
        });
        let (left, right) =
            pair.ok_or_else(|| damaged(format!("the merge {merge:?} does not make a token")))?;
        merges.push((left.to_owned(), right.to_owned()));
    }
    Ok((ids, merges))
}

fn built(model: BpeBuilder) -> Result<BPE> {
    guard(|| model.build())?
        .map_err(|error| damaged(format!("the vocabulary and its merges do not fit: {error}")))
}

/// Adds the tokens that are found in text before anything is merged.
fn add(library: &mut tokenizers::Tokenizer, tokens: &[String], kinds: &[Kind]) -> Result<()> {
    let added = tokens.iter().zip(kinds).filter_map(|(token, kind)| {
        let special = match kind {
            Kind::Control | Kind::Unknown => true,
            Kind::UserDefined => false,
            _ => return None,
        };
        Some(AddedToken::from(token.as_str(), special).normalized(false))
    });
    guard(|| library.add_tokens(added))?
        .map_err(|error| damaged(format!("special tokens do not fit: {error}")))?;
    Ok(())
}

/// BERT's WordPiece, with its tokens around a text.
fn word_piece(metadata: &Metadata, tokens: &[String], kinds: &[Kind]) -> Result<Tokenizer> {
    let named = |name: &str, token: &str| -> Result<Option<u32>> {
        let written = || tokens.iter().position(|found| found == token).map(|id| id as u32);
        Ok(id(metadata, name, None, tokens.len())?.or_else(written))
    };
    let unknown = named("unknown_token_id", "[UNK]")?.ok_or_else(|| missing("unknown_token_id"))?;
    // The format's own spelling.
    let separator = named("seperator_token_id", "[SEP]")?.ok_or_else(|| missing("seperator_token_id"))?;
    // Newer converters write it as what a text begins with.
    let begins = id(metadata, "bos_token_id", None, tokens.len())?;
    let class = match id(metadata, "cls_token_id", None, tokens.len())?.or(begins) {
        Some(class) => class,
        None => named("bos_token_id", "[CLS]")?.ok_or_else(|| missing("bos_token_id"))?,
    };
    let is_special: Vec<bool> = (0u32..)
        .zip(kinds)
        .map(|(id, kind)| {
            matches!(kind, Kind::Control | Kind::Unknown) || [unknown, separator, class].contains(&id)
        })
        .collect();
    let library = word_piece::build(tokens, &is_special, &tokens[unknown as usize])
        .map_err(|error| damaged(format!("its words do not fit: {error}")))?;
    let roles = roles(metadata, tokens, [None; 3])?;
    let vocabulary = Vocabulary::Library(Box::new(library));
    Ok(Tokenizer::new(vocabulary, Decoding::Library, roles).with_special(vec![class], vec![separator]))
}

/// SentencePiece's BPE with scores.
fn sentence_piece(metadata: &Metadata, tokens: &[String], kinds: Vec<Kind>) -> Result<Tokenizer> {
    let scores = metadata.floats(&key("scores")).ok_or_else(|| missing("scores"))?;
    if scores.len() != tokens.len() {
        return Err(damaged(format!("there are {} tokens but {} scores", tokens.len(), scores.len())));
    }
    // The ids that SentencePiece gives where nobody says otherwise.
    let roles = roles(metadata, tokens, [Some(1), Some(2), Some(0)])?;
    let (prefix, suffix) = special(metadata, &roles, true)?;
    let space_prefix = metadata.bool(&key("add_space_prefix")).unwrap_or(true);
    let unknown = id(metadata, "unknown_token_id", Some(0), tokens.len())?;
    let pieces = SentencePiece::new(tokens.to_vec(), scores.to_vec(), kinds, unknown, space_prefix)?;
    let decoding = Decoding::SentencePiece { strip_space: space_prefix };
    Ok(Tokenizer::new(Vocabulary::SentencePiece(Box::new(pieces)), decoding, roles)
        .with_special(prefix, suffix))
}

fn kinds(metadata: &Metadata, count: usize) -> Result<Vec<Kind>> {
    let Some(numbers) = metadata.integers(&key("token_type")) else { return Ok(vec![Kind::Normal; count]) };
    if numbers.len() != count {
        return Err(damaged(format!("there are {count} tokens but {} token types", numbers.len())));
    }
    let kind =
        |&number| Kind::from_number(number).ok_or_else(|| damaged(format!("{number} is no token type")));
    numbers.iter().map(kind).collect()
}

/// `defaults` are the ids of BOS, EOS and the unknown token where the file does not name them.
fn roles(metadata: &Metadata, tokens: &[String], defaults: [Option<u64>; 3]) -> Result<Roles> {
    let [bos, eos, unknown] = defaults;
    let count = tokens.len();
    let bos = id(metadata, "bos_token_id", bos, count)?;
    let eos = id(metadata, "eos_token_id", eos, count)?;
    let mut ends = Vec::new();
    for name in ["eot_token_id", "eom_token_id"] {
        ends.extend(id(metadata, name, None, count)?);
    }
    let names = names(|role| {
        let id = match role {
            "bos_token" => bos,
            "eos_token" => eos,
            "unk_token" => id(metadata, "unknown_token_id", unknown, count)?,
            // The format's own spelling.
            "sep_token" => id(metadata, "seperator_token_id", None, count)?,
            "pad_token" => id(metadata, "padding_token_id", None, count)?,
            "cls_token" => id(metadata, "cls_token_id", None, count)?,
            "mask_token" => id(metadata, "mask_token_id", None, count)?,
            _ => None,
        };
        Ok(id.and_then(|id| tokens.get(id as usize)).map(String::as_str))
    })?;
    Ok(Roles { bos, eos, ends, names })
}

/// The ids around a text: BOS and EOS where the file asks for them.
fn special(metadata: &Metadata, roles: &Roles, add_bos: bool) -> Result<(Vec<u32>, Vec<u32>)> {
    let pick = |name: &str, default, id: Option<u32>| {
        let asked = metadata.bool(&key(name));
        match id {
            Some(id) if asked.unwrap_or(default) => Ok(vec![id]),
            None if asked == Some(true) => {
                Err(damaged(format!("{PREFIX}{name} asks for a token that is not named")))
            }
            _ => Ok(Vec::new()),
        }
    };
    Ok((pick("add_bos_token", add_bos, roles.bos)?, pick("add_eos_token", false, roles.eos)?))
}

/// A token's id by the name of its key. A default that the vocabulary is too small for is none.
fn id(metadata: &Metadata, name: &str, default: Option<u64>, count: usize) -> Result<Option<u32>> {
    let inside = |id: u64| u32::try_from(id).ok().filter(|&id| (id as usize) < count);
    match metadata.unsigned(&key(name)) {
        Some(id) => inside(id)
            .map(Some)
            .ok_or_else(|| damaged(format!("{PREFIX}{name} is {id}, but there are only {count} tokens"))),
        None => Ok(default.and_then(inside)),
    }
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn missing(name: &str) -> Error {
    damaged(format!("{PREFIX}{name} is missing")).hint("use a GGUF file that includes its tokenizer")
}

fn damaged(reason: impl Into<String>) -> Error {
    Error::new(Code::IntegrityFailed, format!("the tokenizer in the GGUF file is damaged: {}", reason.into()))
        .hint("download or convert the model again")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::samples::{byte_level, folder, sentence_piece};
    use super::*;
    use crate::engine::format::metadata::Value;

    fn with(mut metadata: Metadata, name: &str, value: Value) -> Metadata {
        metadata.0.insert(key(name), value);
        metadata
    }

    fn without(mut metadata: Metadata, name: &str) -> Metadata {
        metadata.0.remove(&key(name));
        metadata
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    fn spelled(tokenizer: &Tokenizer, text: &str, add_special: bool) -> Vec<String> {
        let ids = tokenizer.encode(text, add_special).unwrap();
        ids.into_iter().map(|id| tokenizer.id_to_token(id).unwrap()).collect()
    }

    #[test]
    fn byte_level_tokens_are_merged_and_added_ones_found() {
        let tokenizer = load(&byte_level()).unwrap();
        assert_eq!(spelled(&tokenizer, "hello wé", false), ["hello", "Ġw", "Ã©"]);
        let turn = "<|im_start|>hello<|im_end|>  w";
        assert_eq!(spelled(&tokenizer, turn, false), ["<|im_start|>", "hello", "<|im_end|>", "  ", "w"]);
        assert_eq!(tokenizer.decode(&tokenizer.encode(turn, false).unwrap(), false).unwrap(), turn);
        assert_eq!(tokenizer.decode(&tokenizer.encode(turn, false).unwrap(), true).unwrap(), "hello  w");
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.vocab_size()), (Some(1), Some(0), 268));
        assert_eq!(tokenizer.end_tokens(), [0, 2]);
        assert_eq!(tokenizer.special_tokens()["bos_token"], "<|im_start|>");
        assert_eq!(tokenizer.token_to_id("hello"), Some(263));
        assert_eq!((tokenizer.token_to_id("nope"), tokenizer.id_to_token(9999)), (None, None));
    }

    #[test]
    fn bos_is_added_once_where_it_is_asked_for() {
        let asked = with(byte_level(), "add_bos_token", Value::Bool(true));
        let tokenizer = load(&asked).unwrap();
        assert_eq!(spelled(&tokenizer, "he", true), ["<|im_start|>", "he"]);
        assert_eq!(spelled(&tokenizer, "<|im_start|>he", true), ["<|im_start|>", "he"]);
        assert_eq!(spelled(&tokenizer, "he", false), ["he"]);
        assert_eq!(spelled(&load(&byte_level()).unwrap(), "he", true), ["he"]);
        let llama3 = load(&with(byte_level(), "pre", text("llama-bpe"))).unwrap();
        assert_eq!(spelled(&llama3, "he", true), ["<|im_start|>", "he"]);
        let eos = with(asked, "add_eos_token", Value::Bool(true));
        assert_eq!(spelled(&load(&eos).unwrap(), "he", true), ["<|im_start|>", "he", "<|endoftext|>"]);
    }

    #[test]
    fn the_named_way_of_cutting_words_is_used() {
        assert_eq!(spelled(&load(&byte_level()).unwrap(), "12", false), ["12"]);
        let smollm = load(&with(byte_level(), "pre", text("smollm"))).unwrap();
        assert_eq!(spelled(&smollm, "12", false), ["1", "2"]);
    }

    #[test]
    fn sentence_pieces_begin_with_bos_and_a_space() {
        let tokenizer = load(&sentence_piece()).unwrap();
        assert_eq!(spelled(&tokenizer, "hello w", true), ["<s>", "▁hello", "▁w"]);
        assert_eq!(spelled(&tokenizer, "<s>hello", true), ["<s>", "▁hello"]);
        assert_eq!(spelled(&tokenizer, "<|turn|>é\n", false), ["<|turn|>", "▁", "é", "<0x0A>"]);
        for round in ["hello w", " hello", "", "é😀\n", "  w  "] {
            let ids = tokenizer.encode(round, true).unwrap();
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), round);
        }
        let plain = load(&with(sentence_piece(), "add_space_prefix", Value::Bool(false))).unwrap();
        assert_eq!(spelled(&plain, "hello w", false), ["hello", "▁w"]);
        assert_eq!(plain.decode(&plain.encode(" w", false).unwrap(), true).unwrap(), " w");
    }

    /// As its `tokenizer.json` has it, which the library itself reads.
    #[test]
    fn gemma_4_has_the_tokens_of_its_own_file() {
        let merges = ["h e", "l l", "he ll", "▁ w", "▁ ▁", "hell o"].map(str::to_owned);
        let metadata = with(sentence_piece(), "merges", Value::Texts(merges.to_vec()));
        let metadata = with(metadata, "unknown_token_id", Value::Unsigned(0));
        let metadata = with(with(metadata, "model", text("gemma4")), "bos_token_id", Value::Unsigned(1));
        let from_gguf = load(&metadata).unwrap();

        let tokens = metadata.texts(&key("tokens")).unwrap();
        let vocab: serde_json::Map<_, _> =
            tokens.iter().zip(0..).map(|(token, id): (_, u32)| (token.clone(), id.into())).collect();
        let added = |id: usize| {
            json!({"id": id, "content": tokens[id], "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": id < 3})
        };
        let replace =
            |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
        let file = json!({
            "version": "1.0",
            "added_tokens": [added(0), added(1), added(2), added(259)],
            "normalizer": replace(" ", "▁"),
            "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                "invert": false},
            "decoder": {"type": "Sequence",
                "decoders": [replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
                "vocab": vocab, "merges": merges},
        });
        let config = json!({"add_bos_token": true, "bos_token": "<s>"});
        let folder = folder(&[("tokenizer.json", &file), ("tokenizer_config.json", &config)]);
        let from_json = Tokenizer::from_directory(folder.path()).unwrap();
        for text in ["hello w", " hello  w", "<|turn|>hello\n\n w", "é😀 \u{0}", "", "<s>he", "▁w w"] {
            let ids = from_json.encode(text, true).unwrap();
            assert_eq!(from_gguf.encode(text, true).unwrap(), ids, "{text:?}");
            assert_eq!(from_gguf.decode(&ids, false).unwrap(), from_json.decode(&ids, false).unwrap());
        }
        assert_eq!(spelled(&from_gguf, "hello w<|turn|>é", true), ["<s>", "hello", "▁w", "<|turn|>", "é"]);
        assert_eq!(load(&without(metadata, "merges")).unwrap_err().code(), Code::IntegrityFailed);
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (metadata, name) in [
            (with(byte_level(), "model", text("rwkv")), "rwkv"),
            (with(byte_level(), "pre", text("brand-new")), "brand-new"),
        ] {
            let error = load(&metadata).unwrap_err();
            assert_eq!(error.code(), Code::ModelUnsupported);
            assert!(error.message().contains(name), "{error}");
        }
    }

    #[test]
    fn metadata_that_contradicts_itself_is_an_error() {
        let texts = |texts: &[&str]| Value::Texts(texts.iter().map(ToString::to_string).collect());
        for metadata in [
            Metadata::default(),
            without(byte_level(), "tokens"),
            without(byte_level(), "merges"),
            without(sentence_piece(), "scores"),
            with(byte_level(), "tokens", Value::Unsigned(3)),
            with(byte_level(), "token_type", Value::Integers(vec![1])),
            with(byte_level(), "token_type", Value::Integers(vec![77; 268])),
            with(byte_level(), "merges", texts(&["he"])),
            with(byte_level(), "merges", texts(&["h zzz"])),
            with(byte_level(), "merges", texts(&["h h"])),
            with(byte_level(), "merges", texts(&[" h"])),
            with(byte_level(), "merges", texts(&["<|im_start|> <|im_start|>"])),
            with(byte_level(), "bos_token_id", Value::Unsigned(268)),
            with(byte_level(), "eos_token_id", Value::Unsigned(u64::MAX)),
            with(without(byte_level(), "bos_token_id"), "add_bos_token", Value::Bool(true)),
            with(sentence_piece(), "scores", Value::Floats(vec![0.0])),
            with(with(byte_level(), "tokens", texts(&["a", "a"])), "token_type", Value::Integers(vec![1; 2])),
        ] {
            assert_eq!(load(&metadata).unwrap_err().code(), Code::IntegrityFailed);
        }
    }

    #[test]
    fn a_vocabulary_of_nothing_encodes_to_nothing() {
        let empty = with(byte_level(), "tokens", Value::Texts(Vec::new()));
        let empty =
            with(without(without(empty, "bos_token_id"), "eos_token_id"), "merges", Value::Texts(Vec::new()));
        let tokenizer = load(&with(empty, "token_type", Value::Integers(Vec::new()))).unwrap();
        assert!(tokenizer.encode("hello", true).unwrap().is_empty());
    }
}
