//! `bench` as text: a table, Markdown or CSV; the same forms, and JSON, for files.

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::report::bench::{BenchForm, BenchReport, BenchResult};
use crate::report::{Envelope, Report};

use super::page::{BAD, FAINT, Human, Page, printable};
use super::units;

impl Human for BenchReport {
    fn human(&self, page: &mut Page) {
        let rows = rows(self);
        match self.form {
            BenchForm::Markdown => markdown(self, &rows, page),
            BenchForm::Csv => csv(&rows, page),
            BenchForm::Table | BenchForm::Json => table(self, &rows, page),
        }
    }
}

/// What a file of this form holds: JSON as `--json` prints it, or the text. Times are exact in it.
pub fn exported(report: &BenchReport, form: BenchForm) -> Result<String> {
    if form == BenchForm::Json {
        return serde_json::to_string(&Envelope::ok(&Report::from(report.clone())))
            .map(|text| text + "\n")
            .map_err(|error| Error::internal(format!("results as JSON: {error}")));
    }
    let mut page = Page::for_file();
    BenchReport { form, ..report.clone() }.human(&mut page);
    Ok(page.into_text())
}

/// A result, with the number and the time under which it is kept.
type Row<'a> = (&'a BenchResult, Option<(i64, Timestamp)>);

fn rows(report: &BenchReport) -> Vec<Row<'_>> {
    let kept = report.history.iter().flat_map(|kept| {
        kept.results.iter().map(move |result| (result, Some((kept.number, kept.measured_at))))
    });
    report.results.iter().map(|result| (result, None)).chain(kept).collect()
}

const HEAD: [&str; 7] = ["MODEL", "TEST", "MEAN", "±", "MEDIAN", "RANGE", ""];

fn table(report: &BenchReport, rows: &[Row<'_>], page: &mut Page) {
    let cells: Vec<_> = rows
        .iter()
        .map(|(result, kept)| {
            let kept = kept.map(|(number, time)| format!("{number} ({})", page.ago(time)));
            cells(result, kept.as_deref())
        })
        .collect();
    page.table(HEAD, &[2, 3, 4], cells);
    for ratio in &report.peers {
        page.line(format!(
            "{}: {} is {} times '{}' ({}–{}{})",
            ratio.test,
            printable(&ratio.model),
            number(ratio.ratio),
            printable(&ratio.peer),
            number(ratio.min),
            number(ratio.max),
            ratio.about.as_ref().map_or_else(String::new, |about| format!("; {}", printable(about)))
        ));
    }
    if let Some(baseline) = &report.baseline {
        for change in &baseline.changes {
            let text = format!(
                "{} {}: {:+.1} % against {}{}",
                printable(&change.model),
                change.test,
                change.better_percent,
                printable(&baseline.from),
                change.noise_percent.map_or_else(String::new, |noise| format!(" (noise {noise:.1} %)"))
            );
            let style = if change.regression { BAD } else { FAINT };
            page.line(page.styled(style, text + if change.regression { ": a regression" } else { "" }));
        }
    }
    if let Some(line) = machine(report) {
        page.line(page.styled(FAINT, line));
    }
}

pub(super) fn machine(report: &BenchReport) -> Option<String> {
    let environment = report.environment.as_ref()?;
    if environment.device == "disk" {
        return Some(format!("mlx-cache {}, {}", environment.version, environment.os));
    }
    let cpu = environment.cpu.as_deref().unwrap_or(&environment.arch);
    let on = match (environment.device.as_str(), environment.threads) {
        ("cpu", Some(threads)) => format!("{cpu}, {threads} threads"),
        ("cpu", None) => cpu.to_owned(),
        (gpu, _) => gpu.to_owned(),
    };
    let program = format!("mlx-cache {}", environment.version);
    let mlx = format!("MLX {}", environment.mlx.as_deref().unwrap_or("?"));
    let flags = environment.flags.iter().map(|flag| printable(flag));
    Some([program, mlx, on, environment.os.clone()].into_iter().chain(flags).collect::<Vec<_>>().join(", "))
}

fn markdown(report: &BenchReport, rows: &[Row<'_>], page: &mut Page) {
    page.line("| model | test | mean | ± | median | range | note |");
    page.line("| --- | --- | ---: | ---: | ---: | --- | --- |");
    for (result, kept) in rows {
        let kept = kept.map(|(number, time)| format!("{number} ({time:.0})"));
        let [model, test, mean, deviation, median, range, note] = cells(result, kept.as_deref());
        let cell = |text: &str| printable(text).replace('|', "\\|");
        let model = cell(&model);
        page.line(format!("| {model} | {test} | {mean} | {deviation} | {median} | {range} | {note} |"));
    }
    if let Some(line) = machine(report) {
        page.line("");
        page.line(line);
    }
}

fn csv(rows: &[Row<'_>], page: &mut Page) {
    let of_history = rows.iter().any(|(_, kept)| kept.is_some());
    let head = if of_history { "number,measured_at," } else { "" };
    page.line(format!("{head}model,test,unit,mean,stddev,min,median,p95,max,noisy,samples"));
    for (result, kept) in rows {
        let kept = kept.map_or_else(String::new, |(number, time)| format!("{number},{time},"));
        let samples: Vec<String> = result.samples.iter().map(f64::to_string).collect();
        let BenchResult { unit, mean, stddev, min, median, p95, max, noisy, .. } = result;
        page.line(format!(
            "{kept}\"{}\",{},{unit},{mean},{stddev},{min},{median},{p95},{max},{noisy},{}",
            printable(&result.model).replace('"', "\"\""),
            result.test,
            samples.join(" ")
        ));
    }
}

fn cells(result: &BenchResult, tag: Option<&str>) -> [String; 7] {
    let several = result.samples.len() > 1;
    let only = |text: String| if several { text } else { String::new() };
    let mut notes: Vec<&str> = Vec::new();
    notes.extend(result.noisy.then_some("noisy"));
    notes.extend(tag);
    [
        result.model.clone(),
        result.test.clone(),
        value(result.mean, &result.unit),
        only(number(result.stddev)),
        only(number(result.median)),
        only(format!("{}–{}", number(result.min), number(result.max))),
        notes.join(", "),
    ]
}

/// A value with its unit.
fn value(value: f64, unit: &str) -> String {
    match unit {
        "bytes" => units::bytes(value as u64),
        "tokens/s" => format!("{} tok/s", number(value)),
        unit => format!("{} {}", number(value), printable(unit)),
    }
}

/// Three digits that count.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        magnitude if magnitude >= 100.0 => 0,
        magnitude if magnitude >= 10.0 => 1,
        magnitude if magnitude >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}
