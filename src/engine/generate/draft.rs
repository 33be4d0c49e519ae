//! Drafts: tokens that are likely to come, cheaply guessed, so that the model checks several at once
//! (Leviathan et al., arXiv:2211.17192).

use mlx_rs::{Array, transforms};

use super::decode::{ids, item, most_likely};
use crate::engine::cache::{KvCache, LONGEST_STEP};
use crate::engine::models::{LanguageModel, Logits};
use crate::error::Result;

/// Longest and shortest end of the text that is looked for further up.
const LONGEST_MATCH: usize = 4;
const SHORTEST_MATCH: usize = 2;

/// Where drafts come from.
pub struct Drafter {
    pub source: Source,
    /// Most tokens of a draft.
    pub most: usize,
}

pub enum Source {
    /// What followed the same tokens further up: answers repeat their prompts.
    Lookup,
    /// A smaller model with the same tokens.
    Model(Box<DraftModel>),
}

impl Drafter {
    /// At most `most` tokens that may follow `history`, which is not empty.
    pub fn draft(&mut self, history: &[u32], most: usize) -> Result<Vec<u32>> {
        let most = most.min(self.most);
        if most == 0 {
            return Ok(Vec::new());
        }
        match &mut self.source {
            Source::Lookup => Ok(looked_up(history, most).to_vec()),
            Source::Model(model) => model.draft(history, most),
        }
    }
}

/// What followed the last tokens where they came last before.
fn looked_up(history: &[u32], most: usize) -> &[u32] {
    for length in (SHORTEST_MATCH..=LONGEST_MATCH).rev() {
        let Some(start) = history.len().checked_sub(length).filter(|&start| start > 0) else { continue };
        let (before, end) = (&history[..history.len() - 1], &history[start..]);
        if let Some(at) = before.windows(length).rposition(|window| window == end) {
            let follows = at + length;
            return &history[follows..history.len().min(follows + most)];
        }
    }
    &[]
}

/// A model that drafts, with its own cache.
pub struct DraftModel {
    pub model: Box<dyn LanguageModel>,
    pub cache: KvCache,
    /// The tokens in the cache.
    pub held: Vec<u32>,
    /// Most tokens that it can see.
    pub context: usize,
}

impl DraftModel {
    fn draft(&mut self, history: &[u32], most: usize) -> Result<Vec<u32>> {
        if history.len() + most > self.context {
            return Ok(Vec::new());
        }
        let common = self.held.iter().zip(history).take_while(|(held, new)| held == new).count();
        let kept = common.min(history.len() - 1);
        let kept = if self.cache.truncate(kept).is_ok() { kept } else { 0 };
        if kept == 0 {
            self.cache.clear();
        }
        self.held.truncate(kept);
        let fresh = &history[kept..];
        let (early, last) = fresh.split_at((fresh.len() - 1) / LONGEST_STEP * LONGEST_STEP);
        for chunk in early.chunks(LONGEST_STEP) {
            self.model.forward(&ids(chunk), &mut self.cache, Logits::None)?;
            transforms::eval(&self.cache.arrays()?)?;
        }
        let mut token = self.step(&ids(last))?;
        self.held.extend_from_slice(fresh);
        let mut draft = vec![item(&token)?];
        while draft.len() < most {
            token = self.step(&token)?;
            self.held.extend(draft.last());
            draft.push(item(&token)?);
        }
        Ok(draft)
    }

    /// The most likely token after these, int32 `[1]`.
    fn step(&mut self, tokens: &Array) -> Result<Array> {
        let logits = self.model.logits(tokens, &mut self.cache, Logits::Last)?;
        most_likely(&logits, self.model.cache_shape().backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_the_longest_same_end_is_drafted() {
        let history = [1, 2, 3, 4, 9, 3, 4, 7, 5, 2, 3, 4];
        assert_eq!(looked_up(&history, 8), [9, 3, 4, 7, 5, 2, 3, 4]);
        assert_eq!(looked_up(&history, 2), [9, 3]);
        // Of equal ones the last.
        assert_eq!(looked_up(&[3, 4, 1, 8, 3, 4, 2, 3, 4], 1), [2]);
        assert_eq!(looked_up(&[5, 5, 5], 4), [5]);
        for nothing in [&[][..], &[1], &[1, 1], &[1, 2, 3, 4]] {
            assert!(looked_up(nothing, 4).is_empty() || nothing == [1, 1], "{nothing:?}");
        }
    }
}
