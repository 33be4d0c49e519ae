//! A tokenizer from SentencePiece's own file, a protocol buffer of the type `ModelProto`
//! (sentencepiece_model.proto): pieces with scores, how to cut words into them, and what is done to text before.
//!
//! BPE models merge by score, unigram models take the likeliest pieces (Kudo, arXiv:1804.10959). What the file does
//! not say, `tokenizer_config.json` does: further tokens and the roles of all.

use std::path::Path;

use prost::Message;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Precompiled, Replace, Sequence, Strip};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::{AddedToken, NormalizerWrapper};

use super::characters::Characters;
use super::config::TokenizerConfig;
use super::sentencepiece::{Kind, SPACE, SentencePiece};
use super::tokenizer::{Decoding, Tokenizer, Vocabulary, guard};
use super::tokenizer_json::{Failure, add, complete};
use crate::error::{Code, Error, Result};

#[derive(Message)]
struct Model {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalizer>,
}

#[derive(Message)]
struct Piece {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3", default = "1")]
    kind: Option<i32>,
}

#[derive(Message)]
struct Trainer {
    #[prost(int32, optional, tag = "3", default = "1")]
    model: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    space_follows: Option<bool>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
    #[prost(int32, optional, tag = "41", default = "1")]
    bos: Option<i32>,
    #[prost(int32, optional, tag = "42", default = "2")]
    eos: Option<i32>,
    #[prost(int32, optional, tag = "43", default = "-1")]
    pad: Option<i32>,
}

#[derive(Message)]
struct Normalizer {
    #[prost(bytes = "vec", optional, tag = "2")]
    characters: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3", default = "true")]
    space_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4", default = "true")]
    squeezes: Option<bool>,
    #[prost(bool, optional, tag = "5", default = "true")]
    escapes: Option<bool>,
}

/// Numbers of the models that are known.
const UNIGRAM: i32 = 1;
const BPE: i32 = 2;

/// Whether a file begins as a `ModelProto` does: with the field of its pieces.
pub(super) fn is_model(content: &[u8]) -> bool {
    content.first() == Some(&0x0a) && !content.get(1).is_some_and(u8::is_ascii_whitespace)
}

pub(super) fn load(path: &Path, content: &[u8], config: TokenizerConfig) -> Result<Tokenizer> {
    read(content, config).map_err(|failure| failure.of(path))
}

fn read(content: &[u8], mut config: TokenizerConfig) -> Result<Tokenizer, Failure> {
    let model = Model::decode(content).map_err(|error| Failure::Broken(error.to_string()))?;
    let trainer = model.trainer.unwrap_or_default();
    let normalizer = model.normalizer.unwrap_or_default();
    if trainer.space_follows() || !normalizer.escapes() {
        return Err(unsupported("SentencePiece models that write spaces in another way").into());
    }
    let mut pieces = Vec::with_capacity(model.pieces.len());
    for piece in &model.pieces {
        let kind = Kind::from_number(piece.kind().into());
        let kind = kind.ok_or_else(|| Failure::Broken(format!("{} is no type of pieces", piece.kind())))?;
        if !piece.score().is_finite() {
            return Err(Failure::Broken(format!("the score of {:?} is no number", piece.text())));
        }
        pieces.push((piece.text().to_owned(), piece.score(), kind));
    }
    let named = |id: i32| usize::try_from(id).ok().and_then(|id| pieces.get(id)).map(|piece| piece.0.clone());
    let roles = [("bos_token", trainer.bos()), ("eos_token", trainer.eos()), ("pad_token", trainer.pad())];
    for (role, id) in roles {
        if let Some(text) = named(id) {
            config.default_token(role, &text);
        }
    }
    let prefix = match config.bool("add_prefix_space")?.unwrap_or(normalizer.space_prefix()) {
        false => PrependScheme::Never,
        // What transformers calls so puts a space behind every special token too, as it always does for
        // unigram models.
        true if config.bool("legacy")?.unwrap_or(trainer.model() == UNIGRAM) => PrependScheme::Always,
        true => PrependScheme::First,
    };
    let decoding = Decoding::SentencePiece { strip_space: prefix != PrependScheme::Never };
    let added = added(&mut pieces, &config)?;
    let vocabulary = match trainer.model() {
        BPE => Vocabulary::SentencePiece(Box::new(merging(pieces, &normalizer, prefix)?)),
        UNIGRAM => Vocabulary::Library(Box::new(unigram(&pieces, &trainer, &normalizer, prefix, &added)?)),
        number => return Err(unsupported(&format!("SentencePiece models of the type {number}")).into()),
    };
    // Models of this kind begin every text with BOS where nothing says otherwise.
    let bos = config.token("bos_token")?.and_then(|bos| vocabulary.id(bos));
    complete(vocabulary, decoding, &config, (bos.into_iter().collect(), Vec::new()))
}

/// Puts the configuration's tokens after the pieces, or in their stead. All tokens that are found in text before
/// anything is cut, by their ids.
fn added(
    pieces: &mut Vec<(String, f32, Kind)>,
    config: &TokenizerConfig,
) -> Result<Vec<(u32, AddedToken)>, Failure> {
    let mut configured = config.added_tokens()?;
    configured.sort_by_key(|&(id, ..)| id);
    for (id, text, special) in configured {
        let kind = if special { Kind::Control } else { Kind::UserDefined };
        let count = pieces.len();
        match pieces.get_mut(id as usize) {
            Some(piece) if piece.0 == text => {
                if piece.2 != Kind::Unknown {
                    piece.2 = kind;
                }
            }
            None if id as usize == count => pieces.push((text.to_owned(), 0.0, kind)),
            _ => return Err(Failure::Broken(format!("the token {text:?} cannot have the id {id}"))),
        }
    }
    let found = (0..).zip(pieces.iter()).filter_map(|(id, (text, _, kind))| {
        let special = match kind {
            Kind::Control | Kind::Unknown => true,
            Kind::UserDefined => false,
            _ => return None,
        };
        Some((id, AddedToken::from(text.as_str(), special).normalized(false)))
    });
    Ok(found.collect())
}

fn merging(
    pieces: Vec<(String, f32, Kind)>,
    normalizer: &Normalizer,
    prefix: PrependScheme,
) -> Result<SentencePiece, Failure> {
    let unknown = pieces.iter().position(|(.., kind)| *kind == Kind::Unknown).map(|id| id as u32);
    let (mut texts, mut scores, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    for (text, score, kind) in pieces {
        texts.push(text);
        scores.push(score);
        kinds.push(kind);
    }
    let mut model = SentencePiece::new(texts, scores, kinds, unknown, prefix != PrependScheme::Never)?;
    if !normalizer.characters().is_empty() {
        let table = Characters::new(normalizer.characters());
        let broken = || Failure::Broken("its table of characters is cut off".to_owned());
        model = model.with_characters(table.ok_or_else(broken)?);
    }
    if prefix == PrependScheme::First {
        model = model.with_space_only_first();
    }
    Ok(if normalizer.squeezes() { model.with_spaces_squeezed() } else { model })
}

fn unigram(
    pieces: &[(String, f32, Kind)],
    trainer: &Trainer,
    normalizer: &Normalizer,
    prefix: PrependScheme,
    added: &[(u32, AddedToken)],
) -> Result<tokenizers::Tokenizer, Failure> {
    let unknown = pieces.iter().position(|(.., kind)| *kind == Kind::Unknown);
    let vocabulary = pieces.iter().map(|(text, score, _)| (text.clone(), f64::from(*score))).collect();
    let model = guard(|| Unigram::from(vocabulary, unknown, trainer.byte_fallback()))??;
    let mut library = tokenizers::Tokenizer::new(model);
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    let characters = normalizer.characters();
    if let Some((size, rest)) = characters.split_first_chunk() {
        // The library allocates what is written here.
        if u32::from_le_bytes(*size) as usize > rest.len() {
            return Err(Failure::Broken("its table of characters is cut off".to_owned()));
        }
        let table = guard(|| Precompiled::from(characters))?;
        steps.push(table.map_err(|error| Failure::Broken(error.to_string()))?.into());
    }
    if normalizer.squeezes() {
        steps.push(Strip::new(true, true).into());
        steps.push(Replace::new(ReplacePattern::Regex(" {2,}".to_owned()), " ")?.into());
    }
    library.with_normalizer(Some(Sequence::new(steps)))?;
    library.with_pre_tokenizer(Some(Metaspace::new(SPACE, prefix, false)));
    add(&mut library, added)?;
    Ok(library)
}

fn unsupported(what: &str) -> Error {
    Error::new(Code::ModelUnsupported, format!("{what} are not supported"))
        .hint("use a version of the model that has a tokenizer.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &str, score: f32, kind: i32) -> Piece {
        Piece { text: Some(text.to_owned()), score: Some(score), kind: Some(kind) }
    }

    fn model(kind: i32) -> Model {
        let pieces = vec![
            piece("<unk>", 0.0, 2),
            piece("<s>", 0.0, 3),
            piece("</s>", 0.0, 3),
            piece("▁a", -1.0, 1),
            piece("▁", -2.0, 1),
            piece("a", -3.0, 1),
        ];
        let trainer = Trainer { model: Some(kind), ..Trainer::default() };
        Model { pieces, trainer: Some(trainer), normalizer: None }
    }

    fn load(model: &Model, config: &serde_json::Value) -> Result<Tokenizer> {
        let folder = super::super::samples::folder(&[("tokenizer_config.json", config)]);
        let path = folder.path().join("tokenizer.model");
        std::fs::write(&path, model.encode_to_vec()).unwrap();
        Tokenizer::from_directory(folder.path())
    }

    #[test]
    fn spaces_are_squeezed_and_unknown_characters_are_one() {
        for kind in [BPE, UNIGRAM] {
            let tokenizer = load(&model(kind), &serde_json::json!({})).unwrap();
            assert_eq!(tokenizer.encode("  a   a ", true).unwrap(), [1, 3, 3], "{kind}");
            assert_eq!(tokenizer.encode("a éß a", false).unwrap(), [3, 4, 0, 3], "{kind}");
            let behind = if kind == BPE { 5 } else { 3 };
            assert_eq!(tokenizer.encode("a</s>a", false).unwrap(), [3, 2, behind], "{kind}");
            assert_eq!(tokenizer.decode(&[1, 3, 3], true).unwrap(), "a a", "{kind}");
        }
    }

    #[test]
    fn the_configuration_adds_tokens_and_names_roles() {
        let config = serde_json::json!({"eos_token": "<x>", "add_bos_token": false, "add_eos_token": true,
            "added_tokens_decoder": {"6": {"content": "<x>", "special": true}, "5": {"content": "a"}}});
        for kind in [BPE, UNIGRAM] {
            let tokenizer = load(&model(kind), &config).unwrap();
            assert_eq!(tokenizer.encode("a<x>", true).unwrap(), [5, 6, 6], "{kind}");
            assert!(tokenizer.is_special(6) && !tokenizer.is_special(5), "{kind}");
        }
        let wrong = serde_json::json!({"added_tokens_decoder": {"3": {"content": "<x>"}}});
        assert_eq!(load(&model(BPE), &wrong).unwrap_err().code(), Code::IntegrityFailed);
        let hole = serde_json::json!({"added_tokens_decoder": {"9": {"content": "<x>"}}});
        assert_eq!(load(&model(BPE), &hole).unwrap_err().code(), Code::IntegrityFailed);
    }

    #[test]
    fn what_is_damaged_or_not_known_is_an_error_that_names_the_file() {
        let with = |change: &dyn Fn(&mut Model)| {
            let mut model = model(UNIGRAM);
            change(&mut model);
            load(&model, &serde_json::json!({})).map(|_| ()).unwrap_err()
        };
        let table = |bytes: &[u8]| Normalizer { characters: Some(bytes.to_vec()), ..Normalizer::default() };
        for error in [
            with(&|model| model.pieces.clear()),
            with(&|model| model.pieces[4].kind = Some(9)),
            with(&|model| model.pieces[4].score = Some(f32::NAN)),
            with(&|model| model.normalizer = Some(table(&[0xff; 40]))),
            with(&|model| model.normalizer = Some(table(&[4, 0, 0, 0, 1, 2, 3, 4, 0xff]))),
        ] {
            assert_eq!(error.code(), Code::IntegrityFailed, "{error}");
            assert!(error.message().contains("tokenizer.model"), "{error}");
        }
        let of_words = with(&|model| model.trainer = Some(Trainer { model: Some(3), ..Trainer::default() }));
        let of_suffixes = with(&|model| {
            model.trainer = Some(Trainer { space_follows: Some(true), ..Trainer::default() });
        });
        for error in [of_words, of_suffixes] {
            assert_eq!(error.code(), Code::ModelUnsupported, "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_model_or_an_error(
            mut content in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            at in 0_usize..400,
            byte in proptest::prelude::any::<u8>(),
        ) {
            let _ = read(&content, TokenizerConfig::default());
            content = model(UNIGRAM).encode_to_vec();
            let at = at % content.len();
            content[at] = byte;
            if let Ok(tokenizer) = read(&content, TokenizerConfig::default()) {
                let _ = tokenizer.encode("a é <s> b", true);
            }
        }
    }
}
