//! `bench` as text: a table, Markdown or CSV.

use crate::report::bench::{BenchForm, BenchReport, BenchResult};

use super::page::{BAD, FAINT, Human, Page, printable};
use super::units;

impl Human for BenchReport {
    fn human(&self, page: &mut Page) {
        let rows: Vec<(&BenchResult, Option<String>)> = if self.history.is_empty() {
            self.results.iter().map(|result| (result, None)).collect()
        } else {
            let tagged = |number: i64, time| Some(format!("{number} ({})", page.ago(time)));
            self.history
                .iter()
                .flat_map(|kept| {
                    kept.results.iter().map(move |it| (it, tagged(kept.number, kept.measured_at)))
                })
                .collect()
        };
        match self.form {
            BenchForm::Table => table(self, &rows, page),
            BenchForm::Markdown => markdown(self, &rows, page),
            BenchForm::Csv => csv(&rows, page),
        }
    }
}

const HEAD: [&str; 7] = ["MODEL", "TEST", "MEAN", "±", "MEDIAN", "RANGE", ""];

fn table(report: &BenchReport, rows: &[(&BenchResult, Option<String>)], page: &mut Page) {
    let cells: Vec<_> = rows.iter().map(|(result, tag)| cells(result, tag.as_deref())).collect();
    page.table(HEAD, &[2, 3, 4], cells);
    for ratio in &report.peers {
        page.line(format!(
            "{}: {} is {} times '{}' ({}–{})",
            ratio.test,
            printable(&ratio.model),
            number(ratio.ratio),
            printable(&ratio.peer),
            number(ratio.min),
            number(ratio.max)
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

fn machine(report: &BenchReport) -> Option<String> {
    let environment = report.environment.as_ref()?;
    let cpu = environment.cpu.as_deref().unwrap_or(&environment.arch);
    let on = match (environment.device.as_str(), environment.threads) {
        ("cpu", Some(threads)) => format!("{cpu}, {threads} threads"),
        ("cpu", None) => cpu.to_owned(),
        (gpu, _) => gpu.to_owned(),
    };
    Some(format!(
        "mlx-cache {}, MLX {}, {on}, {}",
        environment.version,
        environment.mlx.as_deref().unwrap_or("?"),
        environment.os
    ))
}

fn markdown(report: &BenchReport, rows: &[(&BenchResult, Option<String>)], page: &mut Page) {
    page.line("| model | test | mean | ± | median | range |");
    page.line("| --- | --- | ---: | ---: | ---: | --- |");
    for (result, tag) in rows {
        let [model, test, mean, deviation, median, range, note] = cells(result, tag.as_deref());
        let cell = |text: &str| printable(text).replace('|', "\\|");
        page.line(format!(
            "| {} | {test} | {mean} | {deviation} | {median} | {range}{} |",
            cell(&model),
            if note.is_empty() { String::new() } else { format!(" {note}") }
        ));
    }
    if let Some(line) = machine(report) {
        page.line("");
        page.line(line);
    }
}

fn csv(rows: &[(&BenchResult, Option<String>)], page: &mut Page) {
    page.line("model,test,unit,mean,stddev,min,median,p95,max,noisy,samples");
    for (result, _) in rows {
        let samples: Vec<String> = result.samples.iter().map(f64::to_string).collect();
        let BenchResult { unit, mean, stddev, min, median, p95, max, noisy, .. } = result;
        page.line(format!(
            "\"{}\",{},{unit},{mean},{stddev},{min},{median},{p95},{max},{noisy},{}",
            printable(&result.model).replace('"', "\"\""),
            result.test,
            samples.join(" ")
        ));
    }
}

fn cells(result: &BenchResult, tag: Option<&str>) -> [String; 7] {
    let value = |value: f64| match result.unit.as_str() {
        "bytes" => units::bytes(value as u64),
        "s" => format!("{} s", number(value)),
        _ => format!("{} tok/s", number(value)),
    };
    let several = result.samples.len() > 1;
    let only = |text: String| if several { text } else { String::new() };
    let mut notes: Vec<&str> = Vec::new();
    notes.extend(result.noisy.then_some("noisy"));
    notes.extend(tag);
    [
        result.model.clone(),
        result.test.clone(),
        value(result.mean),
        only(number(result.stddev)),
        only(number(result.median)),
        only(format!("{}–{}", number(result.min), number(result.max))),
        notes.join(", "),
    ]
}

/// Three digits that count.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        magnitude if magnitude >= 100.0 => 0,
        magnitude if magnitude >= 10.0 => 1,
        magnitude if magnitude >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}
