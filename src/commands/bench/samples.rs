//! Statistics of samples.

use crate::report::bench::BenchResult;

/// A standard deviation above this share of the mean is called noisy.
const NOISY: f64 = 0.05;

/// The result of a test from its samples, of which there is at least one.
pub fn result(model: &str, test: &str, unit: &str, samples: Vec<f64>) -> BenchResult {
    let mean = mean(&samples);
    let stddev = deviation(&samples);
    let mut sorted = samples.clone();
    sorted.sort_by(f64::total_cmp);
    BenchResult {
        model: model.to_owned(),
        test: test.to_owned(),
        unit: unit.to_owned(),
        mean,
        stddev,
        min: quantile(&sorted, 0.0),
        median: quantile(&sorted, 0.5),
        p95: quantile(&sorted, 0.95),
        max: quantile(&sorted, 1.0),
        noisy: stddev > NOISY * mean.abs(),
        samples,
    }
}

fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len().max(1) as f64
}

/// The sample standard deviation (with n - 1); 0 for fewer than two samples.
fn deviation(samples: &[f64]) -> f64 {
    if samples.len() < 2 {
        return 0.0;
    }
    let mean = mean(samples);
    let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
    (squares / (samples.len() - 1) as f64).sqrt()
}

/// Linear interpolation between the two nearest of sorted samples (type 7 of Hyndman and Fan).
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * sorted.len().saturating_sub(1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    match (sorted.get(below), sorted.get(above)) {
        (Some(low), Some(high)) => low + (high - low) * (place - place.floor()),
        _ => 0.0,
    }
}

/// Two standard errors of the difference of two means, in percent of the first mean; nothing for times
/// of which one was measured once.
pub fn noise_percent(before: &BenchResult, now: &BenchResult) -> Option<f64> {
    if now.unit != "bytes" && before.samples.len().min(now.samples.len()) < 2 {
        return None;
    }
    let error = |result: &BenchResult| result.stddev.powi(2) / result.samples.len().max(1) as f64;
    Some(200.0 * (error(before) + error(now)).sqrt() / before.mean.abs().max(f64::MIN_POSITIVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::float_cmp)] // These are exact.
    fn a_result_tells_the_samples_statistics() {
        let of = result("m", "tg4", "tokens/s", vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!((of.mean, of.min, of.median, of.max), (2.5, 1.0, 2.5, 4.0));
        assert!((of.stddev - 1.290_994).abs() < 1e-6 && (of.p95 - 3.85).abs() < 1e-12, "{of:?}");
        assert!(of.noisy && of.samples == [4.0, 1.0, 3.0, 2.0]);
        let one = result("m", "load", "s", vec![7.0]);
        assert_eq!((one.mean, one.stddev, one.median, one.p95), (7.0, 0.0, 7.0, 7.0));
        assert!(!one.noisy);
    }

    #[test]
    fn noise_shrinks_with_more_samples() {
        let few = result("m", "t", "s", vec![1.0, 1.1]);
        let many = result("m", "t", "s", [1.0, 1.1].repeat(8));
        assert!(noise_percent(&few, &few) > noise_percent(&many, &many));
        let once = result("m", "t", "s", vec![1.0]);
        assert_eq!(noise_percent(&few, &once), None);
    }
}
