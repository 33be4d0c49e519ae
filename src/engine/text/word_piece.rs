//! WordPiece (Schuster and Nakajima, 2012) as GGUF files have it: words begin with ▁ where BERT's own files
//! mark what does not begin one with ##.

use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::bert::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

use super::sentencepiece::SPACE;
use super::tokenizer::guard;
use crate::error::Result;

/// A tokenizer of these tokens. `is_special` tells which of them are found in texts as they stand.
///
/// The file does not say whether letters are made lower: one whose vocabulary has no words with capitals does.
/// Single letters do not count, which a vocabulary may have for their own sake.
pub(super) fn build(
    tokens: &[String],
    is_special: &[bool],
    unknown: &str,
) -> Result<tokenizers::Tokenizer, tokenizers::Error> {
    let mut vocabulary = Vocab::with_capacity(tokens.len());
    let mut has_capitals = false;
    for ((id, token), special) in (0u32..).zip(tokens).zip(is_special) {
        let piece = match token.strip_prefix(SPACE) {
            _ if *special || (token.starts_with('[') && token.ends_with(']')) => token.clone(),
            Some(word) => {
                has_capitals |= word.chars().nth(1).is_some() && word.chars().any(char::is_uppercase);
                word.to_owned()
            }
            None => format!("##{token}"),
        };
        vocabulary.entry(piece).or_insert(id);
    }
    let model = WordPiece::builder().vocab(vocabulary).unk_token(unknown.to_owned()).build()?;
    let mut library = tokenizers::Tokenizer::new(model);
    let lower = !has_capitals;
    let normalizer = BertNormalizer::new(true, true, Some(lower), lower);
    library.with_normalizer(Some(NormalizerWrapper::BertNormalizer(normalizer)))?;
    library.with_pre_tokenizer(Some(PreTokenizerWrapper::BertPreTokenizer(BertPreTokenizer)));
    let special = tokens.iter().zip(is_special).filter(|token| *token.1);
    let added: Vec<_> =
        special.map(|(token, _)| AddedToken::from(token.as_str(), true).normalized(false)).collect();
    guard(|| library.add_tokens(added)).map_err(|error| error.to_string())??;
    Ok(library)
}
