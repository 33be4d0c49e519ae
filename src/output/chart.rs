//! Results of `bench` as an SVG chart: a panel for each kind of test. Bars where a run is shown, lines over
//! the depth where it has several, lines over time where kept results are.

mod draw;

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::report::bench::{BenchReport, BenchResult};

use super::bench::machine;

/// What is drawn together: one axis, one unit.
#[derive(Debug)]
struct Panel {
    topic: &'static str,
    unit: String,
    axis: Axis,
    series: Vec<Series>,
}

/// What lies along the bottom of a panel.
#[derive(Debug, Clone, PartialEq)]
enum Axis {
    /// The names of tests: those of a series stand at 0, 1, …
    Tests(Vec<String>),
    /// Tokens that the cache held.
    Depth,
    /// Seconds since 1970.
    Time,
}

/// What has one colour.
#[derive(Debug, PartialEq)]
struct Series {
    name: String,
    points: Vec<Point>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    at: f64,
    mean: f64,
    deviation: f64,
}

/// A result, with the time at which it was measured if it is a kept one.
type Timed<'a> = (&'a BenchResult, Option<Timestamp>);

/// Draws a report.
///
/// # Errors
/// INTERNAL if the drawing library fails, which a drawing in memory gives no reason for.
pub fn svg(report: &BenchReport) -> Result<String> {
    let mut models: Vec<&str> = Vec::new();
    let results = report.results.iter();
    for result in results.chain(report.history.iter().flat_map(|kept| &kept.results)) {
        if !models.contains(&result.model.as_str()) {
            models.push(&result.model);
        }
    }
    draw::sheet(&models.join(", "), machine(report).as_deref(), &panels(report))
        .map_err(|error| Error::internal(format!("cannot draw the chart: {error}")))
}

/// The kind of a test, and so the panel that it belongs to; its name without the depth, and the depth.
fn topic(result: &BenchResult) -> (&'static str, &str, u32) {
    let (test, depth) = result.test.split_once("@d").unwrap_or((&result.test, "0"));
    let kind = test.split('@').next().unwrap_or(test).trim_end_matches(|c: char| c.is_ascii_digit());
    let topic = match (kind, result.unit.as_str()) {
        ("pp", _) => "prompt",
        ("tg", _) => "generation",
        ("emb", _) => "embedding",
        ("texts", _) => "texts",
        ("ttft", _) => "time to first token",
        ("load" | "load-cold", _) => "loading",
        (_, "bytes") => "memory",
        (_, "MB/s") => "content",
        (_, "rows/s") => "registry",
        (_, "links/s") => "links",
        _ => "time",
    };
    (topic, test, depth.parse().unwrap_or(0))
}

fn panels(report: &BenchReport) -> Vec<Panel> {
    let timed: Vec<Timed<'_>> = if report.history.is_empty() {
        report.results.iter().map(|result| (result, None)).collect()
    } else {
        // From the oldest, as time goes.
        let kept = report.history.iter().rev();
        kept.flat_map(|kept| kept.results.iter().map(|it| (it, Some(kept.measured_at)))).collect()
    };
    let mut grouped: Vec<(&'static str, Vec<Timed<'_>>)> = Vec::new();
    for (result, time) in timed {
        let (topic, ..) = topic(result);
        match grouped.iter_mut().find(|(known, _)| *known == topic) {
            Some((_, group)) => group.push((result, time)),
            None => grouped.push((topic, vec![(result, time)])),
        }
    }
    grouped.into_iter().map(|(topic, group)| panel(topic, &group)).collect()
}

fn panel(name: &'static str, group: &[Timed<'_>]) -> Panel {
    let differ = |key: fn(&BenchResult) -> String| {
        let first = group.first().map(|(result, _)| key(result));
        group.iter().any(|(result, _)| Some(key(result)) != first)
    };
    let several_models = differ(|result| result.model.clone());
    let several_depths = differ(|result| topic(result).2.to_string());
    let over_time = group.iter().any(|(_, time)| time.is_some());
    let mut tests: Vec<String> = Vec::new();
    let mut series: Vec<Series> = Vec::new();
    for (result, time) in group {
        let (_, test, depth) = topic(result);
        let line = |test: &str| {
            if several_models { format!("{} {test}", result.model) } else { test.to_owned() }
        };
        let (name, at) = match time {
            Some(time) => (line(&result.test), time.as_millisecond() as f64 / 1000.0),
            None if several_depths => (line(test), f64::from(depth)),
            None => {
                let known = tests.iter().position(|known| *known == result.test);
                let at = known.unwrap_or_else(|| {
                    tests.push(result.test.clone());
                    tests.len() - 1
                });
                (result.model.clone(), at as f64)
            }
        };
        let point = Point { at, mean: result.mean, deviation: result.stddev };
        match series.iter_mut().find(|known| known.name == name) {
            Some(known) => known.points.push(point),
            None => series.push(Series { name, points: vec![point] }),
        }
    }
    for line in &mut series {
        line.points.sort_by(|a, b| a.at.total_cmp(&b.at));
    }
    let axis = match (over_time, several_depths) {
        (true, _) => Axis::Time,
        (false, true) => Axis::Depth,
        (false, false) => Axis::Tests(tests),
    };
    let unit = group.first().map(|(result, _)| result.unit.clone()).unwrap_or_default();
    Panel { topic: name, unit, axis, series }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::bench::BenchForm;

    fn report(results: &[(&str, &str, &str, f64)]) -> BenchReport {
        let results = results.iter().map(|(model, test, unit, mean)| BenchResult {
            model: (*model).to_owned(),
            test: (*test).to_owned(),
            unit: (*unit).to_owned(),
            mean: *mean,
            stddev: mean / 10.0,
            min: *mean,
            median: *mean,
            p95: *mean,
            max: *mean,
            noisy: false,
            samples: vec![*mean],
        });
        BenchReport {
            environment: None,
            models: Vec::new(),
            results: results.collect(),
            peers: Vec::new(),
            baseline: None,
            history: Vec::new(),
            form: BenchForm::Table,
        }
    }

    #[test]
    fn each_kind_of_test_has_a_panel_and_depths_make_lines() {
        let panels = panels(&report(&[
            ("m", "pp512", "tokens/s", 900.0),
            ("m", "pp512@d4096", "tokens/s", 500.0),
            ("m", "tg128", "tokens/s", 90.0),
            ("n", "tg128", "tokens/s", 70.0),
        ]));
        let [prompt, generation] = panels.as_slice() else { panic!("{panels:?}") };
        assert_eq!((prompt.topic, &prompt.axis), ("prompt", &Axis::Depth));
        let points: Vec<f64> = prompt.series.iter().flat_map(|it| &it.points).map(|it| it.at).collect();
        assert_eq!((prompt.series.len(), points), (1, vec![0.0, 4096.0]));
        assert_eq!(generation.axis, Axis::Tests(vec!["tg128".to_owned()]));
        let names: Vec<_> = generation.series.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["m", "n"]);
    }

    #[test]
    fn whatever_the_values_and_names_are_there_is_a_drawing() {
        let name = "<script>&\"'\u{1b}[31m\u{ffff}]]>";
        for mean in [0.0, f64::MIN_POSITIVE, 1e300, f64::MAX, f64::NAN, f64::INFINITY, -1.0] {
            let text = svg(&report(&[(name, "pp1", "tokens/s", mean), (name, "x@d9", "bytes", mean)]))
                .expect("a drawing");
            assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{text}");
            assert!(!text.contains("<script") && !text.contains('\u{1b}') && !text.contains('\u{ffff}'));
            assert!(text.contains("&lt;script&gt;&amp;"));
        }
        assert!(svg(&report(&[])).is_ok());
    }
}
