//! A tokenizer from `tokenizer.json`, the format of the `tokenizers` library.
//!
//! BPE models, which nearly all language models have, are read here rather than by the library: its
//! reader buffers the whole vocabulary twice and panics on some broken files.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use tokenizers::AddedToken;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::{BPE, Merges, Vocab};

use super::config::{TokenizerConfig, broken, missing, names, read_text};
use super::tokenizer::{Decoding, Roles, Tokenizer, Vocabulary, guard};
use crate::error::{Code, Error, Result};

/// The largest vocabularies make files of some 40 MB.
const MAX_BYTES: u64 = 512 << 20;

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    model: &'a RawValue,
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

#[derive(Deserialize)]
struct Model {
    r#type: Option<String>,
    merges: Option<de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(bound = "")]
struct Bpe {
    vocab: Vocab,
    merges: Pairs,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

pub(super) fn load(path: &Path, config: &TokenizerConfig) -> Result<Tokenizer> {
    let text = read_text(path, MAX_BYTES)?.ok_or_else(|| missing(path))?;
    parse(&text, config).map_err(|failure| failure.of(path))
}

/// Why a file is refused.
pub(super) enum Failure {
    Known(Error),
    Broken(String),
}

impl Failure {
    /// As an error that names the file.
    pub(super) fn of(self, path: &Path) -> Error {
        match self {
            Self::Known(error) => error.context(path.display()),
            Self::Broken(reason) => broken(path, reason),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Known(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<tokenizers::Error> for Failure {
    fn from(error: tokenizers::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

fn parse(text: &str, config: &TokenizerConfig) -> Result<Tokenizer, Failure> {
    let file: File = serde_json::from_str(text)?;
    let mut added: Vec<(u32, AddedToken)> =
        file.added_tokens.into_iter().map(|added| (added.id, added.token)).collect();
    for (id, content, special) in config.added_tokens()? {
        if !added.iter().any(|(_, token)| token.content == content) {
            added.push((id, AddedToken::from(content, special).normalized(false)));
        }
    }
    added.sort_by_key(|(id, _)| *id);

    let mut library = tokenizers::Tokenizer::new(model(file.model, &added)?);
    let decoding = decoding(&file.decoder);
    library.with_normalizer(part::<tokenizers::NormalizerWrapper>(file.normalizer)?)?;
    library.with_pre_tokenizer(part::<tokenizers::PreTokenizerWrapper>(file.pre_tokenizer)?);
    library.with_post_processor(part::<tokenizers::PostProcessorWrapper>(file.post_processor)?);
    library.with_decoder(part::<tokenizers::DecoderWrapper>(file.decoder)?);
    add(&mut library, &added)?;
    let around = around(&library)?;
    complete(Vocabulary::Library(Box::new(library)), decoding, config, around)
}

/// Adds tokens that are found in text before anything is merged, at the ids that they claim.
pub(super) fn add(library: &mut tokenizers::Tokenizer, added: &[(u32, AddedToken)]) -> Result<(), Failure> {
    guard(|| library.add_tokens(added.iter().map(|(_, token)| token.clone())))??;
    for (id, token) in added {
        if !token.content.is_empty() && library.token_to_id(&token.content) != Some(*id) {
            return Err(Failure::Broken(format!("the token {:?} cannot have the id {id}", token.content)));
        }
    }
    Ok(())
}

/// The tokenizer, with the roles that the configuration gives to its tokens. `around` is what a text has
/// before and after it where the configuration says nothing.
pub(super) fn complete(
    vocabulary: Vocabulary,
    decoding: Decoding,
    config: &TokenizerConfig,
    around: (Vec<u32>, Vec<u32>),
) -> Result<Tokenizer, Failure> {
    let mut named = names(|role| config.token(role))?;
    let additional = config.additional_special_tokens();
    if !additional.is_empty() {
        named.insert("additional_special_tokens".to_owned(), additional.into());
    }
    let token_id = |role| Ok::<_, Error>(config.token(role)?.and_then(|token| vocabulary.id(token)));
    let roles =
        Roles { bos: token_id("bos_token")?, eos: token_id("eos_token")?, ends: Vec::new(), names: named };
    let (prefix, suffix) = special(around, config, &roles)?;
    Ok(Tokenizer::new(vocabulary, decoding, roles).with_special(prefix, suffix))
}

fn model(raw: &RawValue, added: &[(u32, AddedToken)]) -> Result<ModelWrapper, Failure> {
    let model: Model = serde_json::from_str(raw.get())?;
    let kind = model.r#type.unwrap_or_else(|| if model.merges.is_some() { "BPE" } else { "" }.to_owned());
    match kind.as_str() {
        "BPE" => Ok(ModelWrapper::BPE(bpe(serde_json::from_str(raw.get())?, added)?)),
        "WordPiece" | "WordLevel" | "Unigram" => {
            // Through a value: the library's reader panics where text is nested too deeply.
            let value: Value = serde_json::from_str(raw.get())?;
            Ok(guard(|| serde_json::from_value(value))??)
        }
        _ => Err(Error::new(
            Code::ModelUnsupported,
            format!("tokenizers of the kind \"{kind}\" are not supported"),
        )
        .detail("tokenizer", kind)
        .into()),
    }
}

fn bpe(mut model: Bpe, added: &[(u32, AddedToken)]) -> Result<BPE, Failure> {
    // Put in beforehand, added tokens get the ids they claim even where the vocabulary has holes.
    for (id, token) in added {
        model.vocab.entry(token.content.clone()).or_insert(*id);
    }
    let longest = model.vocab.keys().map(String::len).max().unwrap_or(0);
    let prefix = model.continuing_subword_prefix.as_deref().unwrap_or_default().to_owned();
    for (left, right) in &model.merges.0 {
        // The library takes all of this for granted.
        let joined = right.strip_prefix(&prefix).map(|rest| left.len() + rest.len());
        if joined.is_none_or(|length| length > longest) {
            return Err(Failure::Broken(format!(
                "the merge of {left:?} and {right:?} does not make a token"
            )));
        }
    }
    let mut builder = BPE::builder()
        .vocab_and_merges(model.vocab, model.merges.0)
        .fuse_unk(model.fuse_unk)
        .byte_fallback(model.byte_fallback)
        .ignore_merges(model.ignore_merges);
    if let Some(token) = model.unk_token {
        builder = builder.unk_token(token);
    }
    if !prefix.is_empty() {
        builder = builder.continuing_subword_prefix(prefix);
    }
    if let Some(suffix) = model.end_of_word_suffix.filter(|suffix| !suffix.is_empty()) {
        builder = builder.end_of_word_suffix(suffix);
    }
    Ok(guard(|| builder.build())??)
}

/// A part of the pipeline; `null` is none.
fn part<T: DeserializeOwned>(value: Value) -> Result<Option<T>, Failure> {
    if value.is_null() {
        return Ok(None);
    }
    Ok(guard(|| serde_json::from_value(value).map(Some))??)
}

/// What of the library's decoders this program does itself, exactly.
fn decoding(decoder: &Value) -> Decoding {
    let kind = |part: &Value| part["type"].as_str().unwrap_or_default().to_owned();
    if kind(decoder) == "ByteLevel" {
        return Decoding::ByteLevel;
    }
    let steps = decoder["decoders"].as_array().map(Vec::as_slice).unwrap_or_default();
    let spaces = |part: &Value| {
        kind(part) == "Replace" && part["pattern"]["String"] == "\u{2581}" && part["content"] == " "
    };
    let strips = |part: &Value| {
        kind(part) == "Strip" && part["content"] == " " && part["start"] == 1 && part["stop"] == 0
    };
    match steps {
        [replace, bytes, fuse, rest @ ..]
            if spaces(replace) && kind(bytes) == "ByteFallback" && kind(fuse) == "Fuse" =>
        {
            match rest {
                [] => Decoding::SentencePiece { strip_space: false },
                [strip] if strips(strip) => Decoding::SentencePiece { strip_space: true },
                _ => Decoding::Library,
            }
        }
        _ => Decoding::Library,
    }
}

/// What the post-processor puts before and after a text, found by trying.
fn around(library: &tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>), Failure> {
    let ids = |add_special| guard(|| library.encode_fast("a", add_special).map(|e| e.get_ids().to_vec()));
    let (plain, all) = (ids(false)??, ids(true)??);
    let start = if plain.is_empty() {
        Some(all.len())
    } else {
        all.windows(plain.len()).position(|window| window == plain)
    };
    let Some(start) = start else {
        return Err(Failure::Broken("its post-processor changes the text's own tokens".to_owned()));
    };
    Ok((all[..start].to_vec(), all[start + plain.len()..].to_vec()))
}

/// The ids around a text: `add_bos_token` and `add_eos_token` where the configuration has them, else
/// what the post-processor does.
fn special(
    around: (Vec<u32>, Vec<u32>),
    config: &TokenizerConfig,
    roles: &Roles,
) -> Result<(Vec<u32>, Vec<u32>)> {
    let (mut prefix, mut suffix) = around;
    match (config.bool("add_bos_token")?, roles.bos) {
        (Some(true), Some(bos)) if prefix.first() != Some(&bos) => prefix.insert(0, bos),
        (Some(false), Some(bos)) => prefix.retain(|&id| id != bos),
        _ => {}
    }
    match (config.bool("add_eos_token")?, roles.eos) {
        (Some(true), Some(eos)) if suffix.last() != Some(&eos) => suffix.push(eos),
        (Some(false), Some(eos)) => suffix.retain(|&id| id != eos),
        _ => {}
    }
    Ok((prefix, suffix))
}

/// Merges, as pairs or as texts with a space between.
#[derive(Default)]
struct Pairs(Merges);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Pairs, A::Error> {
                let mut pairs = Merges::new();
                while let Some(Pair(left, right)) = list.next_element()? {
                    pairs.push((left, right));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}

struct Pair(String, String);

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Pair;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a merge of two tokens")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Pair, E> {
                let pair = text.split_once(' ').filter(|(_, right)| !right.contains(' '));
                let (left, right) = pair.ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))?;
                Ok(Pair(left.to_owned(), right.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Pair, A::Error> {
                let short = |this: &Self| de::Error::invalid_length(0, this);
                let left = pair.next_element()?.ok_or_else(|| short(&self))?;
                let right = pair.next_element()?.ok_or_else(|| short(&self))?;
                Ok(Pair(left, right))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::samples::{byte_level, byte_level_json, folder, word_piece_json, write};
    use super::*;

    fn load(folder: &Path) -> Result<Tokenizer> {
        Tokenizer::from_directory(folder)
    }

    fn tokenizer(json: &Value, config: &Value) -> Tokenizer {
        load(folder(&[("tokenizer.json", json), ("tokenizer_config.json", config)]).path()).unwrap()
    }

    fn refused(text: &str) -> Error {
        let folder = folder(&[]);
        write(folder.path(), "tokenizer.json", text);
        load(folder.path()).unwrap_err()
    }

    /// The sample with a value of the JSON replaced.
    fn changed(path: &str, value: Value) -> String {
        let mut json = byte_level_json();
        *json.pointer_mut(path).unwrap() = value;
        json.to_string()
    }

    #[test]
    fn the_same_vocabulary_gives_the_same_ids_as_from_gguf() {
        let from_json = tokenizer(&byte_level_json(), &json!({"bos_token": "<|im_start|>"}));
        let from_gguf = Tokenizer::from_gguf(&byte_level()).unwrap();
        for text in ["hello wé  12", "<|im_start|>hello<|im_end|>", "", "😀\u{0}"] {
            let ids = from_json.encode(text, true).unwrap();
            assert_eq!(ids, from_gguf.encode(text, true).unwrap(), "{text}");
            assert_eq!(from_json.decode(&ids, false).unwrap(), text);
        }
        assert_eq!(from_json.vocab_size(), from_gguf.vocab_size());
        assert_eq!(from_json.bos(), Some(1));
        assert_eq!(from_json.end_tokens(), [0, 2]);
    }

    #[test]
    fn the_configuration_decides_on_bos_and_eos() {
        let tokens = json!({"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|endoftext|>",
            "add_bos_token": true, "add_eos_token": true});
        let both = tokenizer(&byte_level_json(), &tokens);
        assert_eq!(both.encode("he", true).unwrap(), [1, 260, 0]);
        assert_eq!(both.encode("<|im_start|>he", true).unwrap(), [1, 260, 0]);
        assert_eq!(both.encode("he", false).unwrap(), [260]);
        assert_eq!(both.special_tokens()["eos_token"], "<|endoftext|>");

        let bert = tokenizer(&word_piece_json(), &json!({}));
        assert_eq!(bert.encode("hello worlds", true).unwrap(), [1, 3, 4, 5, 2]);
        let without = json!({"bos_token": "[CLS]", "add_bos_token": false});
        assert_eq!(tokenizer(&word_piece_json(), &without).encode("hello", true).unwrap(), [3, 2]);
    }

    #[test]
    fn roles_may_be_in_the_map_of_special_tokens() {
        let map = json!({"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]});
        let folder = folder(&[("tokenizer.json", &byte_level_json()), ("special_tokens_map.json", &map)]);
        let tokenizer = load(folder.path()).unwrap();
        assert_eq!(tokenizer.eos(), Some(2));
        assert_eq!(tokenizer.special_tokens()["additional_special_tokens"], json!(["<|im_start|>"]));
    }

    #[test]
    fn tokens_that_only_the_configuration_adds_are_added() {
        let config = json!({"added_tokens_decoder": {"268": {"content": "<|new|>", "special": true}}});
        let tokenizer = tokenizer(&byte_level_json(), &config);
        assert_eq!(tokenizer.encode("<|new|>he", false).unwrap(), [268, 260]);
        assert_eq!(tokenizer.decode(&[268, 260], true).unwrap(), "he");
    }

    #[test]
    fn added_tokens_keep_their_ids_above_a_hole() {
        let mut json = byte_level_json();
        json["added_tokens"][3]["id"] = 500.into();
        json["model"]["vocab"].as_object_mut().unwrap().remove("  ");
        assert_eq!(tokenizer(&json, &json!({})).encode("  ", false).unwrap(), [500]);
    }

    #[test]
    fn merges_may_be_pairs() {
        let mut json = byte_level_json();
        for merge in json["model"]["merges"].as_array_mut().unwrap() {
            *merge = merge.as_str().unwrap().split(' ').collect::<Vec<_>>().into();
        }
        assert_eq!(tokenizer(&json, &json!({})).encode("hello", false).unwrap(), [263]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(folder(&[]).path()).unwrap_err();
        assert_eq!(error.code(), Code::FileNotFound);
        assert!(error.message().contains("tokenizer.json"));
    }

    #[test]
    fn damaged_files_are_errors_that_name_the_file() {
        let whole = byte_level_json().to_string();
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        for text in [
            String::new(),
            "{}".to_owned(),
            "[]".to_owned(),
            whole[..whole.len() / 2].to_owned(),
            changed("/model/merges", json!(["he"])),
            changed("/model/merges", json!([["h", "e", "l"]])),
            changed("/model/merges", json!(["h zzz"])),
            changed("/model/merges", json!([["<|im_start|>", "<|im_start|>"]])),
            changed("/model/vocab", json!({"a": -1})),
            changed("/model/vocab", json!(["a"])),
            changed("/decoder", json!({"type": "Nothing"})),
            changed("/decoder", json!(5)),
            changed(
                "/pre_tokenizer",
                json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false}),
            ),
            changed("/added_tokens/0", json!({"id": 0})),
            whole.replacen("\"normalizer\":null", &format!("\"normalizer\":{deep}"), 1),
        ] {
            let error = refused(&text);
            assert_eq!(error.code(), Code::IntegrityFailed, "{error}");
            assert!(error.message().contains("tokenizer.json"), "{error}");
        }
        let folder = folder(&[("tokenizer.json", &byte_level_json())]);
        for config in [
            "{",
            "[]",
            r#"{"bos_token": 5}"#,
            r#"{"add_bos_token": "yes"}"#,
            r#"{"added_tokens_decoder": {"x": {}}}"#,
        ] {
            write(folder.path(), "tokenizer_config.json", config);
            let error = load(folder.path()).unwrap_err();
            assert_eq!(error.code(), Code::IntegrityFailed, "{config}");
            assert!(error.message().contains("tokenizer_config.json"), "{error}");
        }
        std::fs::write(folder.path().join("tokenizer_config.json"), b"\xff\xfe").unwrap();
        assert_eq!(load(folder.path()).unwrap_err().code(), Code::IntegrityFailed);
    }

    #[test]
    fn an_unknown_kind_of_model_is_named() {
        let error = refused(&changed("/model/type", json!("Quantum")));
        assert_eq!(error.code(), Code::ModelUnsupported);
        assert!(error.message().contains("Quantum"));
    }

    #[test]
    fn text_that_cannot_be_cut_is_an_error_and_nothing_less_is() {
        let tokenizer = tokenizer(&byte_level_json(), &json!({}));
        for run in ["\t", "e", "語"] {
            let error = tokenizer.encode(&(run.repeat(200_001) + "x"), false).unwrap_err();
            assert_eq!(error.code(), Code::InvalidRequest);
            let text = run.repeat(200_000);
            let ids = tokenizer.encode(&format!("{text},{text}!!he"), false).unwrap();
            assert_eq!(ids.last(), Some(&260), "what follows is cut as ever");
        }
    }
}
