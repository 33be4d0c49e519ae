//! RoBERTa (Liu et al., arXiv:1907.11692) and XLM-RoBERTa (Conneau et al., arXiv:1911.02116): BERT's
//! modules, with positions that begin after the padding token's id.

use super::block::bert_shape;
use super::settings::Settings;
use super::weights::Weights;
use super::{Encoder, bert};
use crate::error::Result;

pub fn load(settings: &Settings, weights: &Weights) -> Result<Encoder> {
    let padding = settings.size(&["pad_token_id"])?.unwrap_or(1);
    let shape = bert_shape(settings, padding + 1)?;
    let prefix =
        weights.prefix(&["", "roberta.", "xlm-roberta.", "model."], "embeddings.word_embeddings.weight");
    let positions = bert::positions(weights, &shape, prefix, Some(padding as u32))?;
    bert::assemble(weights, shape, prefix, &bert::MODULES, positions, None)
}
