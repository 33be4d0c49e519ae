//! What changes logits before anything is cut: bias and penalties.

use crate::engine::request::SamplingOptions;

/// Adds a value to the logits of single tokens.
pub(super) fn bias(logits: &mut [f32], bias: &[(u32, f32)]) {
    for &(id, value) in bias {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit += value;
        }
    }
}

/// Makes tokens among the recent ones less likely, in this order: the repetition penalty divides or
/// multiplies once for each token (CTRL, arXiv:1909.05858), the frequency penalty is subtracted for
/// each time that the token came, the presence penalty once.
pub(super) fn penalties(logits: &mut [f32], recent: &[u32], options: &SamplingOptions) {
    if !options.penalizes() {
        return;
    }
    let window = recent.len().min(options.repetition_window);
    let mut ids = recent[recent.len() - window..].to_vec();
    ids.sort_unstable();
    for same in ids.chunk_by(|a, b| a == b) {
        let Some(logit) = same.first().and_then(|&id| logits.get_mut(id as usize)) else { continue };
        let penalty = options.repetition_penalty;
        *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        *logit -= same.len() as f32 * options.frequency_penalty + options.presence_penalty;
    }
}
