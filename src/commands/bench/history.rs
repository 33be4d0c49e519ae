//! Kept results: writing them down, showing them, holding new ones against them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::samples::noise_percent;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::registry::{Benchmark, Registry};
use crate::report::bench::{
    BenchBaseline, BenchChange, BenchEnvironment, BenchModel, BenchRecord, BenchResult,
};

/// The largest baseline file that is read.
const LARGEST: u64 = 64 << 20;

/// Results to hold new ones against.
#[derive(Debug)]
pub struct Baseline {
    from: String,
    measured_at: Option<Timestamp>,
    /// What was measured in one go each, in the order in which it counts.
    parts: Vec<Part>,
}

/// Results that were measured in one place.
#[derive(Debug, Deserialize)]
struct Part {
    environment: Option<BenchEnvironment>,
    results: Vec<BenchResult>,
}

impl From<BenchRecord> for Part {
    fn from(record: BenchRecord) -> Self {
        Self { environment: Some(record.environment), results: record.results }
    }
}

/// Keeps the results of one model. They stand even if that fails.
pub fn keep(
    measured_at: Timestamp,
    environment: &BenchEnvironment,
    model: &BenchModel,
    results: &[BenchResult],
    context: &Context,
) {
    let write = || {
        // A model that lies outside any store is no reason to make one.
        let Some(mut registry) = Registry::open(&context.settings.home.value)? else { return Ok(()) };
        let json = |value| {
            serde_json::to_string(&value)
                .map_err(|error| Error::internal(format!("results as JSON: {error}")))
        };
        let results = json(serde_json::to_value(results).unwrap_or_default())?;
        let environment = json(serde_json::to_value(environment).unwrap_or_default())?;
        let described = json(serde_json::to_value(model).unwrap_or_default())?;
        registry
            .record_benchmark(measured_at, &model.reference, &environment, &described, &results)
            .map(|number| context.output.detail(format!("kept as result {number}")))
    };
    if let Err(error) = write() {
        context.output.warn(format!("the results are not kept: {}", error.message()));
    }
}

/// The results kept of a model, or of all, newest first.
pub fn of(reference: Option<&str>, context: &Context) -> Result<Vec<BenchRecord>> {
    let registry = Registry::open(&context.settings.home.value)?;
    registry.map_or(Ok(Vec::new()), |registry| registry.benchmarks(reference))?.iter().map(record).collect()
}

fn record(kept: &Benchmark) -> Result<BenchRecord> {
    Ok(BenchRecord {
        number: kept.number,
        measured_at: kept.measured_at,
        environment: parse(&kept.environment, kept.number)?,
        model: parse(&kept.model, kept.number)?,
        results: parse(&kept.results, kept.number)?,
    })
}

fn parse<T: DeserializeOwned>(json: &str, number: i64) -> Result<T> {
    serde_json::from_str(json).map_err(|error| {
        Error::new(Code::IntegrityFailed, format!("the kept result {number} cannot be read: {error}"))
            .hint("compare with another one: mlx-cache bench --history MODEL lists them")
    })
}

/// What `--compare` names: `last`, a number, or a file. `models` are those to be measured.
pub fn baseline(text: &str, models: &[String], context: &Context) -> Result<Baseline> {
    let missing = |what: String| {
        Error::new(Code::FileNotFound, what)
            .hint("mlx-cache bench --history MODEL lists what is kept; --json writes a file to compare with")
    };
    if text == "last" {
        let kept = models.iter().map(|model| of(Some(model), context)).collect::<Result<Vec<_>>>()?;
        let last: Vec<BenchRecord> = kept.into_iter().filter_map(|kept| kept.into_iter().next()).collect();
        if last.is_empty() {
            return Err(missing(format!("no result of {} is kept", models.join(", "))));
        }
        return Ok(Baseline {
            from: "last".to_owned(),
            measured_at: last.iter().map(|record| record.measured_at).max(),
            parts: last.into_iter().map(Part::from).collect(),
        });
    }
    if let Ok(number) = text.parse::<i64>() {
        let registry = Registry::open(&context.settings.home.value)?;
        let kept = registry.map_or(Ok(None), |registry| registry.benchmark(number))?;
        let kept = kept.ok_or_else(|| missing(format!("no result {number} is kept")))?;
        let record = record(&kept)?;
        return Ok(Baseline {
            from: number.to_string(),
            measured_at: Some(record.measured_at),
            parts: vec![record.into()],
        });
    }
    from_file(Path::new(text))
}

/// Reads what `bench --json` or `bench --export` has written. Of exported history the newest result of a test
/// counts, which comes first.
fn from_file(path: &Path) -> Result<Baseline> {
    #[derive(Deserialize)]
    struct File {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        #[serde(flatten)]
        measured: Part,
        #[serde(default)]
        history: Vec<Part>,
    }
    let metadata = fs::metadata(path).map_err(|error| Error::io("read", path, error))?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(Error::new(Code::InvalidRequest, format!("{} is no result of bench", path.display()))
            .detail("path", path.display().to_string())
            .hint("give a file that mlx-cache bench --json has written"));
    }
    let bytes = fs::read(path).map_err(|error| Error::io("read", path, error))?;
    let file: File = serde_json::from_slice(&bytes).map_err(|error| {
        Error::new(Code::InvalidRequest, format!("{} is no result of bench: {error}", path.display()))
            .detail("path", path.display().to_string())
            .hint("give a file that mlx-cache bench --json has written")
    })?;
    let parts = [file.data.measured].into_iter().chain(file.data.history).collect();
    Ok(Baseline { from: path.display().to_string(), measured_at: None, parts })
}

impl Baseline {
    /// Warns where the model was measured on another machine or in another way than now.
    pub fn warn_of_others(&self, model: &str, now: &BenchEnvironment, context: &Context) {
        let of_model = self.parts.iter().find(|part| part.results.iter().any(|it| it.model == model));
        let Some(before) = of_model.and_then(|part| part.environment.as_ref()) else { return };
        let describe = |it: &BenchEnvironment| {
            let cpu = it.cpu.as_deref().unwrap_or(&it.arch).to_owned();
            let threads = it.threads.map(|threads| format!("{threads} threads"));
            let all = [cpu, it.device.clone()].into_iter().chain(threads).chain(it.flags.clone());
            all.collect::<Vec<_>>().join(", ")
        };
        let (before, now) = (describe(before), describe(now));
        if before != now {
            let from = &self.from;
            let message = format!("the baseline {from} was measured with {before}; this is {now}");
            context.output.warn(format!("{model}: {message}"));
        }
    }

    /// Holds results of these models against it; those of peers are not. Memory is that of all tests of a
    /// model, and only compared where they are the same. A mean that is worse by more than `tolerated` percent and by more than
    /// the noise is a regression; none is where nothing is said to be tolerated.
    ///
    /// # Errors
    /// INVALID_REQUEST if there is no test that both have.
    pub fn compare(
        self,
        models: &[BenchModel],
        results: &[BenchResult],
        tolerated: Option<f64>,
    ) -> Result<BenchBaseline> {
        let tests = |results: &[BenchResult], model: &str| -> BTreeSet<String> {
            let of_model = results.iter().filter(|it| it.model == model && !it.test.starts_with("load"));
            of_model.map(|it| it.test.clone()).collect()
        };
        let before = |now: &BenchResult| {
            self.parts.iter().find_map(|part| {
                let found =
                    part.results.iter().find(|it| (&it.model, &it.test) == (&now.model, &now.test))?;
                let alike =
                    now.unit != "bytes" || tests(results, &now.model) == tests(&part.results, &now.model);
                (alike && found.unit == now.unit && found.mean > 0.0).then_some(found)
            })
        };
        let changes: Vec<BenchChange> = results
            .iter()
            .filter(|now| models.iter().any(|model| model.reference == now.model))
            .filter_map(|now| Some(change(before(now)?, now, tolerated)))
            .collect();
        if changes.is_empty() {
            return Err(Error::new(
                Code::InvalidRequest,
                format!("the baseline {} has none of these tests", self.from),
            )
            .hint("measure the same model with the same -p, -g and --depth as it did"));
        }
        let regression = changes.iter().any(|change| change.regression);
        Ok(BenchBaseline { from: self.from, measured_at: self.measured_at, changes, regression })
    }
}

fn change(before: &BenchResult, now: &BenchResult, tolerated: Option<f64>) -> BenchChange {
    let difference = (now.mean - before.mean) / before.mean * 100.0;
    // More per second is better; fewer seconds and bytes are.
    let better_percent = if now.unit.ends_with("/s") { difference } else { -difference };
    let noise_percent = noise_percent(before, now);
    BenchChange {
        model: now.model.clone(),
        test: now.test.clone(),
        before: before.mean,
        now: now.mean,
        better_percent,
        noise_percent,
        regression: tolerated
            .zip(noise_percent)
            .is_some_and(|(percent, noise)| -better_percent > percent.max(noise)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::result;
    use super::*;

    fn model() -> BenchModel {
        BenchModel {
            reference: "m".to_owned(),
            revision: None,
            digest: None,
            architecture: None,
            parameters: None,
            quantization: None,
            bytes: 1,
        }
    }

    fn part(results: Vec<BenchResult>) -> Part {
        Part { environment: None, results }
    }

    fn compared(before: &[f64], now: &[f64], unit: &str, tolerated: Option<f64>) -> BenchBaseline {
        let baseline = Baseline {
            from: "1".to_owned(),
            measured_at: None,
            parts: vec![part(vec![result("m", "t", unit, before.to_vec())])],
        };
        baseline.compare(&[model()], &[result("m", "t", unit, now.to_vec())], tolerated).expect("comparable")
    }

    #[test]
    fn slower_beyond_tolerance_and_noise_is_a_regression() {
        let steady = [100.0, 101.0, 99.0, 100.0];
        assert!(compared(&steady, &[80.0, 81.0, 79.0], "tokens/s", Some(5.0)).regression);
        assert!(!compared(&steady, &[97.0, 98.0, 96.0], "tokens/s", Some(5.0)).regression, "tolerated");
        assert!(!compared(&steady, &[120.0, 121.0], "tokens/s", Some(5.0)).regression, "better");
        assert!(!compared(&steady, &[80.0, 81.0], "tokens/s", None).regression, "not asked");
        assert!(!compared(&[100.0, 140.0], &[80.0, 110.0], "tokens/s", Some(5.0)).regression, "noise");
        assert!(compared(&[1.0, 1.01], &[1.2, 1.21], "s", Some(5.0)).regression, "seconds grow");
    }

    #[test]
    fn memory_of_other_tests_and_peers_are_not_compared() {
        let measured = |test: &str| {
            let of = |model: &str, test: &str, unit: &str| result(model, test, unit, vec![2.0, 2.0]);
            vec![of("m", test, "tokens/s"), of("m", "peak_memory", "bytes"), of("peer", test, "tokens/s")]
        };
        let changes = |before: Vec<BenchResult>, now: &[BenchResult]| {
            let baseline = Baseline { from: "1".to_owned(), measured_at: None, parts: vec![part(before)] };
            let compared = baseline.compare(&[model()], now, None).expect("comparable");
            compared.changes.into_iter().map(|it| it.test).collect::<Vec<_>>()
        };
        assert_eq!(changes(measured("pp8"), &measured("pp8")), ["pp8", "peak_memory"]);
        let more = [measured("pp8"), vec![result("m", "tg4", "tokens/s", vec![1.0])]].concat();
        assert_eq!(changes(more, &measured("pp8")), ["pp8"]);
    }

    #[test]
    fn tests_that_only_one_has_are_not_compared() {
        let baseline = Baseline { from: "1".to_owned(), measured_at: None, parts: Vec::new() };
        let error =
            baseline.compare(&[model()], &[result("m", "t", "s", vec![1.0])], None).expect_err("nothing");
        assert_eq!(error.code(), Code::InvalidRequest);
    }
}
