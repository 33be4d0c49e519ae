//! The decode loop with drafts: the model checks a draft in one step and keeps what it would have
//! chosen itself.
//!
//! At each place the sampler chooses as it always does, from the model's logits and the draw of that
//! place; a drafted token counts if it is the one chosen. So the answer is the one without drafts, whatever
//! the temperature. For drafts of single tokens, as these are, no rule accepts more of them without
//! changing the distribution: a token is kept as often as the model would have chosen it.

use mlx_rs::Dtype;

use super::answer::{Answer, Decoded};
use super::decode::{Pending, floats, ids};
use super::draft::Drafter;
use super::{Channel, Generator};
use crate::engine::cache::Mark;
use crate::engine::models::Logits;
use crate::engine::outcome::Drafts;
use crate::error::{Error, Result};

impl Generator {
    /// Generates until the answer ends.
    pub(super) fn speculate(
        &mut self,
        first: &Pending,
        mut answer: Answer,
        drafter: &mut Drafter,
        channel: &mut Channel,
    ) -> Result<(Decoded, Drafts)> {
        let mut drafts = Drafts::default();
        let mut rows = floats(&first.logits().as_dtype(Dtype::Float32)?)?;
        let width = rows.len();
        let (mut draft, mut mark): (Vec<u32>, Mark) = (Vec::new(), self.cache.mark());
        loop {
            // Row n follows the first n tokens of the draft.
            let base = self.held.len() - draft.len();
            let mut accepted = 0;
            let (feed, ended) = loop {
                let row = rows.get_mut(accepted * width..(accepted + 1) * width);
                let coming =
                    answer.coming(|| row.ok_or_else(|| Error::internal("a place without logits")))?;
                let left = draft.get(accepted..).unwrap_or_default();
                let same = coming.iter().zip(left).take_while(|(chosen, drafted)| chosen == drafted).count();
                accepted += same;
                let ended = !answer.take_all(&coming, channel)? || answer.is_complete();
                if ended || same < coming.len() {
                    break (coming[same..].to_vec(), ended);
                }
            };
            drafts.drafted += draft.len();
            drafts.accepted += accepted;
            self.go_back(base + accepted, &mark)?;
            if ended {
                return Ok((answer.finish(channel)?, drafts));
            }
            draft = drafter.draft(answer.history(), answer.room().saturating_sub(1))?;
            draft.retain(|&id| (id as usize) < self.vocabulary);
            mark = self.cache.mark();
            let tokens: Vec<u32> = feed.iter().chain(&draft).copied().collect();
            let logits = self.model.logits(&ids(&tokens), &mut self.cache, Logits::All)?;
            self.held.extend_from_slice(&tokens);
            let all = floats(&logits.as_dtype(Dtype::Float32)?)?;
            rows = all.get((feed.len() - 1) * width..).unwrap_or_default().to_vec();
        }
    }

    /// Forgets what was drafted after the first `tokens` tokens; `mark` is where the last step began.
    fn go_back(&mut self, tokens: usize, mark: &Mark) -> Result<()> {
        if self.held.len() <= tokens {
            return Ok(());
        }
        if self.cache.truncate(tokens).is_err() {
            // A recurrent state has no way back but to an earlier one.
            self.cache.rewind(mark).map_err(|refusal| Error::internal(format!("a draft: {refusal}")))?;
            let again = self.held.get(self.cache.offset()..tokens).unwrap_or_default().to_vec();
            if !again.is_empty() {
                self.model.forward(&ids(&again), &mut self.cache, Logits::None)?;
            }
        }
        self.held.truncate(tokens);
        Ok(())
    }
}
