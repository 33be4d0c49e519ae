//! Which experts each token goes to.

use crate::engine::config::style::{Groups, Routing, Scoring};

/// One token at one expert.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Visit {
    pub(super) expert: usize,
    pub(super) token: usize,
    pub(super) weight: f32,
}

/// Keeps weights that all vanished from being divided by zero, as the models' own code does.
const LEAST_TOTAL: f32 = 1e-20;

/// Who goes where, by expert, from the scores `[L, count]` and, for corrected routing, a correction of
/// each expert. Scores that are no numbers make weights that are none.
pub(super) fn visits(routing: &Routing, scores: &[f32], correction: Option<&[f32]>) -> Vec<Visit> {
    let Routing { count, used, .. } = *routing;
    let mut visits = Vec::with_capacity(scores.len() / count * used);
    let mut weights = vec![0.0; count];
    let mut ranks = vec![0.0; count];
    let mut order: Vec<usize> = Vec::with_capacity(count);
    for (token, scores) in scores.chunks_exact(count).enumerate() {
        weigh(routing.scoring, scores, &mut weights);
        match correction {
            Some(correction) => {
                for ((rank, weight), correction) in ranks.iter_mut().zip(&weights).zip(correction) {
                    *rank = weight + correction;
                }
            }
            // Weights grow with scores, which tell more apart.
            None if routing.groups.is_none() => ranks.copy_from_slice(scores),
            None => ranks.copy_from_slice(&weights),
        }
        if let Some(groups) = routing.groups {
            leave_groups(groups, &mut ranks);
        }
        order.clear();
        order.extend(0..count);
        order.sort_by(|&a, &b| ranks[b].total_cmp(&ranks[a]));
        let chosen = &order[..used];
        let total = if routing.normalized {
            chosen.iter().map(|&expert| weights[expert]).sum::<f32>() + LEAST_TOTAL
        } else {
            1.0
        };
        visits.extend(chosen.iter().map(|&expert| Visit {
            expert,
            token,
            weight: weights[expert] / total * routing.scale,
        }));
    }
    visits.sort_by_key(|visit| visit.expert);
    visits
}

/// Weights of experts as the scoring gives them.
fn weigh(scoring: Scoring, scores: &[f32], weights: &mut [f32]) {
    match scoring {
        Scoring::Softmax => {
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for (weight, score) in weights.iter_mut().zip(scores) {
                *weight = (score - largest).exp();
            }
            let total: f32 = weights.iter().sum();
            for weight in weights {
                *weight /= total;
            }
        }
        Scoring::Sigmoid => {
            for (weight, score) in weights.iter_mut().zip(scores) {
                *weight = 1.0 / (1.0 + (-score).exp());
            }
        }
    }
}

/// Puts experts of all but the best groups behind every other.
fn leave_groups(groups: Groups, ranks: &mut [f32]) {
    let each = ranks.len() / groups.count;
    let mut order: Vec<(usize, f32)> = ranks
        .chunks_exact(each)
        .map(|ranks| {
            let mut ranks = ranks.to_vec();
            ranks.sort_by(|a, b| b.total_cmp(a));
            ranks.iter().take(groups.judged_by).sum()
        })
        .enumerate()
        .collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    for &(group, _) in order.iter().skip(groups.used) {
        ranks[group * each..][..each].fill(f32::NEG_INFINITY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_token(routing: &Routing, scores: &[f32], correction: Option<&[f32]>) -> Vec<(usize, f32)> {
        let visits = visits(routing, scores, correction);
        assert!(visits.iter().all(|visit| visit.token == 0));
        visits.iter().map(|visit| (visit.expert, visit.weight)).collect()
    }

    fn near(found: &[(usize, f32)], expected: &[(usize, f32)]) {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (a, b) in found.iter().zip(expected) {
            assert!(a.0 == b.0 && (a.1 - b.1).abs() < 1e-6, "{found:?}, not {expected:?}");
        }
    }

    #[test]
    fn weights_of_a_softmax_add_up_to_one_if_they_shall() {
        let scores = [0.0, 3f32.ln(), 2f32.ln(), -100.0];
        near(&of_token(&Routing::softmax(4, 2), &scores, None), &[(1, 0.6), (2, 0.4)]);
        let all = Routing { normalized: false, scale: 3.0, ..Routing::softmax(4, 2) };
        near(&of_token(&all, &scores, None), &[(1, 1.5), (2, 1.0)]);
        let far = Routing { ..Routing::softmax(3, 1) };
        near(&of_token(&far, &[1000.0, 999.0, -1000.0], None), &[(0, 1.0)]);
    }

    #[test]
    fn a_correction_chooses_but_does_not_weigh() {
        let routing = Routing { scoring: Scoring::Sigmoid, corrected: true, ..Routing::softmax(3, 2) };
        let scores = [0.0, 0.0, 3f32.ln()];
        near(&of_token(&routing, &scores, Some(&[0.0, 0.6, 0.0])), &[(1, 0.4), (2, 0.6)]);
        let plain = Routing { normalized: false, scale: 2.0, ..routing };
        near(&of_token(&plain, &scores, Some(&[-1.0, 0.6, 0.0])), &[(1, 1.0), (2, 1.5)]);
    }

    #[test]
    fn only_the_best_groups_are_used() {
        let groups = Some(Groups { count: 2, used: 1, judged_by: 2 });
        let routing = Routing { scoring: Scoring::Sigmoid, groups, ..Routing::softmax(6, 2) };
        // The best expert stands in the worse group.
        let scores = [2.0, -9.0, -9.0, 1.0, -1.0, 1.0];
        near(&of_token(&routing, &scores, None), &[(3, 0.5), (5, 0.5)]);
        let by_best = Routing { groups: Some(Groups { count: 2, used: 1, judged_by: 1 }), ..routing };
        assert_eq!(of_token(&by_best, &scores, None)[0].0, 0);
    }
}
