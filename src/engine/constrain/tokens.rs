//! The bytes of each token, in a tree.

use std::sync::Arc;

use llguidance::toktrie::{TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use crate::engine::text::Tokenizer;
use crate::error::Result;

/// Longer tokens, such as runs of a thousand blanks, do not fit the tree and never come.
const LONGEST: usize = 1000;

pub(super) struct Tokens {
    tokenizer: Arc<Tokenizer>,
    tree: TokTrie,
}

impl Tokens {
    pub(super) fn new(tokenizer: &Arc<Tokenizer>, vocabulary: usize, ends: &[u32]) -> Result<Self> {
        let mut words: Vec<Vec<u8>> = Vec::with_capacity(vocabulary + 1);
        for id in 0..vocabulary as u32 {
            words.push(if tokenizer.is_special(id) { special(tokenizer, id) } else { text(tokenizer, id)? });
        }
        let mut ends: Vec<TokenId> = ends.iter().copied().filter(|&id| (id as usize) < vocabulary).collect();
        if ends.is_empty() {
            // The library wants an end; this one is beyond the logits and never comes.
            words.push(vec![TokTrie::SPECIAL_TOKEN_MARKER, b'.']);
            ends.push(vocabulary as u32);
        }
        for &end in &ends {
            if let Some(word) = words.get_mut(end as usize)
                && word.first() != Some(&TokTrie::SPECIAL_TOKEN_MARKER)
            {
                // An end that is written as text must not be taken for it.
                *word = special(tokenizer, end);
            }
        }
        let info = TokRxInfo::new(words.len() as u32, ends[0]);
        let tree = TokTrie::from(&info, &words).with_eos_tokens(&ends);
        Ok(Self { tokenizer: Arc::clone(tokenizer), tree })
    }
}

/// A token that is no text: found by no bytes.
fn special(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let name = tokenizer.id_to_token(id).unwrap_or_else(|| id.to_string());
    let mut word = vec![TokTrie::SPECIAL_TOKEN_MARKER];
    word.extend(name.bytes().take(LONGEST));
    word
}

fn text(tokenizer: &Tokenizer, id: u32) -> Result<Vec<u8>> {
    let bytes = tokenizer.bytes(id)?;
    // The marker of special tokens is a byte that no UTF-8 has.
    let fits = bytes.len() <= LONGEST && bytes.first() != Some(&TokTrie::SPECIAL_TOKEN_MARKER);
    Ok(if fits { bytes } else { Vec::new() })
}

impl TokenizerEnv for Tokens {
    fn tok_trie(&self) -> &TokTrie {
        &self.tree
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        if self.tokenize_is_canonical()
            && let Ok(text) = std::str::from_utf8(bytes)
            && let Ok(ids) = self.tokenizer.encode(text, false)
            // What looks like a special token is text in an answer.
            && !ids.iter().any(|&id| self.tree.is_special_token(id))
            && self.tree.decode_raw(&ids) == bytes
        {
            return ids;
        }
        self.tree.greedy_tokenize(bytes)
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.tokenizer.cuts_anywhere()
    }
}
