//! Texts that one thread computes from the first layer to the last.

/// Tokens of a group: what is computed of them stays in a core's second-level cache, and the weights, which
/// every group reads anew, come as fast as they are needed.
const TOKENS: usize = 192;
/// Fewer are not worth reading the weights.
const LEAST: usize = 64;
/// Groups become smaller towards the end, so that all threads end at nearly the same time: what is left is so
/// many groups for each.
const LEFT: usize = 3;

/// Whether so many tokens, at most `longest` of them in a text, are enough for groups. Otherwise threads had
/// better share the work on each layer.
pub(super) fn are_worth_it(tokens: usize, longest: usize, threads: usize) -> bool {
    tokens >= longest.max(LEAST) * threads * LEFT
}

/// Groups of texts that follow each other; one of all texts where that is not worth it.
pub(super) fn of<'a, 'b>(texts: &'b [&'a [u32]], threads: usize) -> Vec<&'b [&'a [u32]]> {
    let tokens = |texts: &[&[u32]]| texts.iter().map(|text| text.len()).sum::<usize>();
    let mut left = tokens(texts);
    if !are_worth_it(left, texts.iter().map(|text| text.len()).max().unwrap_or(0), threads) {
        return vec![texts];
    }
    let (mut groups, mut rest) = (Vec::new(), texts);
    while !rest.is_empty() {
        let most = (left / (threads * LEFT)).clamp(LEAST, TOKENS);
        let mut together = 0;
        let fit = rest.iter().take_while(|text| {
            together += text.len();
            together <= most
        });
        let (group, others) = rest.split_at(fit.count().max(1));
        groups.push(group);
        left -= tokens(group);
        rest = others;
    }
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn groups_are_all_texts_in_their_order(
            lengths in prop::collection::vec(1..300_usize, 1..200),
            threads in 1..9_usize,
        ) {
            let texts: Vec<Vec<u32>> = lengths.iter().map(|&length| vec![7; length]).collect();
            let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let groups = of(&texts, threads);
            let sizes = |texts: &[&[u32]]| texts.iter().map(|text| text.len()).collect::<Vec<_>>();
            prop_assert_eq!(groups.iter().flat_map(|group| sizes(group)).collect::<Vec<_>>(), lengths.clone());
            let tokens: usize = lengths.iter().sum();
            if groups.len() == 1 {
                let longest = lengths.iter().copied().max().unwrap_or(0);
                prop_assert!(tokens < longest.max(LEAST) * threads * LEFT);
            } else {
                prop_assert!(groups.len() > threads);
                let fits = |group: &&[&[u32]]| group.len() == 1 || sizes(group).iter().sum::<usize>() <= TOKENS;
                prop_assert!(groups.iter().all(fits));
            }
        }
    }
}
