//! From the hidden states of a text's tokens to one vector.

use std::str::FromStr;

/// How the tokens' vectors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// The first token's.
    Cls,
    /// The largest value in each dimension.
    Max,
    /// The mean.
    Mean,
    /// The sum divided by the square root of how many there are.
    MeanSqrtLength,
    /// The mean weighted by position: the n-th token counts n times (Muennighoff, arXiv:2202.08904).
    WeightedMean,
    /// The last token's.
    Last,
}

impl Pooling {
    /// Every way, by the name in reports and arguments.
    pub const NAMES: &'static [(&'static str, Self)] = &[
        ("cls", Self::Cls),
        ("max", Self::Max),
        ("mean", Self::Mean),
        ("mean-sqrt-len", Self::MeanSqrtLength),
        ("weighted-mean", Self::WeightedMean),
        ("last", Self::Last),
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|row| row.1 == self).map_or("", |row| row.0)
    }

    /// Adds the pooled vector to `to`. `states` are the text's rows of `width` numbers; the first `skipped` of
    /// them, a prompt's, do not count, unless there are no others.
    pub(super) fn pool(self, states: &[f32], width: usize, skipped: usize, to: &mut Vec<f32>) {
        let rows = || states.chunks_exact(width);
        let skipped = if skipped < rows().len() { skipped } else { 0 };
        let counted = || rows().skip(skipped);
        let count = counted().len() as f32;
        let start = to.len();
        match self {
            Self::Cls => to.extend(counted().next().into_iter().flatten()),
            Self::Last => to.extend(counted().next_back().into_iter().flatten()),
            Self::Max => {
                to.resize(start + width, f32::NEG_INFINITY);
                for row in counted() {
                    for (largest, value) in to[start..].iter_mut().zip(row) {
                        *largest = largest.max(*value);
                    }
                }
            }
            Self::Mean | Self::MeanSqrtLength => {
                to.resize(start + width, 0.0);
                for row in counted() {
                    for (sum, value) in to[start..].iter_mut().zip(row) {
                        *sum += value;
                    }
                }
                let divisor = if self == Self::Mean { count } else { count.sqrt() };
                to[start..].iter_mut().for_each(|sum| *sum /= divisor);
            }
            Self::WeightedMean => {
                to.resize(start + width, 0.0);
                let mut total = 0.0;
                for (position, row) in rows().enumerate().skip(skipped) {
                    let weight = (position + 1) as f32;
                    total += weight;
                    for (sum, value) in to[start..].iter_mut().zip(row) {
                        *sum += weight * value;
                    }
                }
                to[start..].iter_mut().for_each(|sum| *sum /= total);
            }
        }
    }
}

impl FromStr for Pooling {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|row| row.0 == text).map(|row| row.1);
        found.ok_or_else(|| {
            let names: Vec<_> = Self::NAMES.iter().map(|row| row.0).collect();
            format!("known are {}", names.join(", "))
        })
    }
}

/// Divides a vector by its length; one of length 0 stays.
pub(super) fn normalize(vector: &mut [f32]) {
    /// As `torch.nn.functional.normalize` has it.
    const LEAST: f64 = 1e-12;
    let squares: f64 = vector.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    let factor = (1.0 / squares.sqrt().max(LEAST)) as f32;
    for value in vector {
        *value *= factor;
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // These are exact.
mod tests {
    use super::*;

    fn pooled(pooling: Pooling, skipped: usize) -> Vec<f32> {
        let mut to = vec![9.0];
        pooling.pool(&[1.0, 8.0, 3.0, 4.0, 5.0, -6.0], 2, skipped, &mut to);
        assert_eq!(to[0], 9.0, "what is there stays");
        to[1..].to_vec()
    }

    #[test]
    fn each_way_does_what_its_name_says() {
        assert_eq!(pooled(Pooling::Cls, 0), [1.0, 8.0]);
        assert_eq!(pooled(Pooling::Last, 0), [5.0, -6.0]);
        assert_eq!(pooled(Pooling::Max, 0), [5.0, 8.0]);
        assert_eq!(pooled(Pooling::Mean, 0), [3.0, 2.0]);
        assert_eq!(pooled(Pooling::MeanSqrtLength, 0), [9.0 / 3f32.sqrt(), 6.0 / 3f32.sqrt()]);
        assert_eq!(pooled(Pooling::WeightedMean, 0), [22.0 / 6.0, -2.0 / 6.0]);
    }

    #[test]
    fn a_prompt_does_not_count_unless_it_is_all_there_is() {
        assert_eq!(pooled(Pooling::Cls, 1), [3.0, 4.0]);
        assert_eq!(pooled(Pooling::Mean, 1), [4.0, -1.0]);
        assert_eq!(pooled(Pooling::WeightedMean, 1), [21.0 / 5.0, -10.0 / 5.0]);
        assert_eq!(pooled(Pooling::Mean, 3), pooled(Pooling::Mean, 0));
    }

    #[test]
    fn names_lead_back_and_unknown_ones_are_listed() {
        for (name, pooling) in Pooling::NAMES {
            assert_eq!(name.parse(), Ok(*pooling));
            assert_eq!(pooling.name(), *name);
        }
        assert!("median".parse::<Pooling>().unwrap_err().contains("weighted-mean"));
    }

    #[test]
    fn a_normalised_vector_has_the_length_one_and_nothing_stays_nothing() {
        let mut vector = [3.0, 4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        let mut nothing = [0.0, 0.0];
        normalize(&mut nothing);
        assert_eq!(nothing, [0.0, 0.0]);
    }
}
