//! `bench`: how fast models are on this machine.

mod disk;
mod environment;
mod files;
mod history;
mod peer;
mod rounds;
mod samples;
mod subject;
mod trials;

use jiff::Timestamp;

use self::peer::Peer;
use self::rounds::Rounds;
use self::subject::{Subject, describe};
use super::loading;
use super::pull::auto::resolve_or_pull;
use super::resolve::{Resolved, resolve};
use crate::cli::bench::{BenchArgs, BenchFormat};
use crate::context::Context;
use crate::engine::measure::Trial;
use crate::engine::probe::{Kind, Probe, probe};
use crate::engine::request::LoadOptions;
use crate::error::{Code, Error, Result};
use crate::report::bench::{BenchEnvironment, BenchForm, BenchReport};

pub fn run(args: &BenchArgs, context: &Context) -> Result<BenchReport> {
    files::check(args)?;
    if let Some(model) = &args.history {
        let report = show_history(model.as_deref(), args, context)?;
        return files::write(&report, args, context).map(|()| report);
    }
    if args.store {
        return measure_store(args, context);
    }
    // Everything is found before anything is measured.
    let models = args
        .models
        .iter()
        .map(|model| resolve_or_pull(model, args.yes, context))
        .collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = models.iter().map(|model| model.reference.clone()).collect();
    let baseline =
        args.compare.compare.as_deref().map(|text| history::baseline(text, &names, context)).transpose()?;

    let probed = models.iter().map(|model| probe(&model.path)).collect::<Result<Vec<_>>>()?;
    let embeds = |probed: &Probe| probed.kind == Kind::Embedding;
    for (model, _) in models.iter().zip(&probed).filter(|(_, probed)| embeds(probed)) {
        trials::check_embedding(args, &model.reference)?;
    }
    let all_embed = probed.iter().all(embeds);
    let generating = if all_embed { Vec::new() } else { trials::of_generation(args)? };

    let options = loading::options(&args.engine, &context.settings)?;
    for (model, probed) in models.iter().zip(&probed) {
        if let Some(obstacle) = &probed.obstacle {
            return Err(obstacle.to_error());
        }
        trials::check_context(&generating, probed, &options)
            .map_err(|error| error.context(&model.reference))?;
    }
    let peers = Peer::all(&args.compare, &generating, options.threads, context)?;
    let mut run = Run { args, context, options, generating, peers, baseline, report: empty(args) };
    for (model, probed) in models.iter().zip(&probed) {
        if let Err(error) = run.measure(model, probed) {
            return Err(run.stopped(error));
        }
    }
    conclude(run.report, run.baseline, args, context)
}

/// Models that are measured one after the other, and what was found so far.
struct Run<'a> {
    args: &'a BenchArgs,
    context: &'a Context,
    options: LoadOptions,
    generating: Vec<Trial>,
    peers: Vec<Peer>,
    baseline: Option<history::Baseline>,
    report: BenchReport,
}

impl Run<'_> {
    /// Measures a model, and keeps what was found, also before a failure or a Ctrl-C in the middle.
    fn measure(&mut self, model: &Resolved, probed: &Probe) -> Result<()> {
        let Self { args, context, options, report, .. } = self;
        let measured_at = Timestamp::now();
        let mut subject = Subject::load(model, probed, options, Rounds::new(args).repeat(), context)?;
        let embedding =
            subject.longest_text().map(|longest| trials::of_embedding(args, longest)).transpose()?;
        let trials = embedding.as_deref().unwrap_or(&self.generating);
        let environment = environment::of(subject.policy(), options.threads, &args.engine)?;
        warn_if_busy(&environment, context);
        if let Some(baseline) = &self.baseline {
            baseline.warn_of_others(&model.reference, &environment, context);
        }
        let (ratios, failure) = subject.measure(args, trials, &mut self.peers, context)?;
        let mut described = describe(model, probed, context);
        if let Some(packing) = options.quantize {
            described.quantization = Some(packing.to_string());
        }
        if !args.no_save {
            history::keep(measured_at, &environment, &described, &subject.results, context);
        }
        report.environment = Some(environment);
        report.models.push(described);
        report.results.append(&mut subject.results);
        report.peers.extend(ratios);
        failure.map_or(Ok(()), Err)
    }

    /// The error that ends it, with what was measured before, which is shown, and written where the flags say.
    fn stopped(&self, error: Error) -> Error {
        if self.report.results.is_empty() {
            return error;
        }
        self.context.output.plan(&self.report);
        if let Err(unwritten) = files::write(&self.report, self.args, self.context) {
            self.context.output.warn(unwritten.message());
        }
        for model in self.report.models.iter().filter(|_| !self.args.no_save) {
            let how = format!("mlx-cache bench --history {}", model.reference);
            self.context.output.warn(format!("what was measured before is kept, and shown by: {how}"));
        }
        error.detail("measured", serde_json::to_value(&self.report.results).unwrap_or_default())
    }
}

/// The report with what it is held against, written where the flags say.
fn conclude(
    mut report: BenchReport,
    baseline: Option<history::Baseline>,
    args: &BenchArgs,
    context: &Context,
) -> Result<BenchReport> {
    report.baseline = baseline
        .map(|baseline| baseline.compare(&report.models, &report.results, args.compare.fail_on_regression))
        .transpose()?;
    files::write(&report, args, context)?;
    Ok(report)
}

fn measure_store(args: &BenchArgs, context: &Context) -> Result<BenchReport> {
    let names = [disk::NAME.to_owned()];
    let baseline =
        args.compare.compare.as_deref().map(|text| history::baseline(text, &names, context)).transpose()?;
    let measured_at = Timestamp::now();
    let (environment, described, results) = disk::run(args, context)?;
    warn_if_busy(&environment, context);
    if !args.no_save {
        history::keep(measured_at, &environment, &described, &results, context);
    }
    let report =
        BenchReport { environment: Some(environment), models: vec![described], results, ..empty(args) };
    conclude(report, baseline, args, context)
}

fn show_history(model: Option<&str>, args: &BenchArgs, context: &Context) -> Result<BenchReport> {
    let name = model.map(|model| match model {
        disk::NAME => model.to_owned(),
        // A model that is gone may have left results.
        _ => resolve(model, context).map_or_else(|_| model.to_owned(), |found| found.reference),
    });
    let history = history::of(name.as_deref(), context)?;
    if history.is_empty() {
        let (of, how) = match name.as_deref() {
            None => (String::new(), "MODEL"),
            Some(disk::NAME) => (format!(" of the {}", disk::NAME), "--store"),
            Some(name) => (format!(" of {name}"), name),
        };
        return Err(Error::new(Code::FileNotFound, format!("no result{of} is kept"))
            .hint(format!("measure with: mlx-cache bench {how}")));
    }
    Ok(BenchReport { history, ..empty(args) })
}

fn empty(args: &BenchArgs) -> BenchReport {
    BenchReport {
        environment: None,
        models: Vec::new(),
        results: Vec::new(),
        peers: Vec::new(),
        baseline: None,
        history: Vec::new(),
        form: form(args.format),
    }
}

fn form(format: BenchFormat) -> BenchForm {
    match format {
        BenchFormat::Table => BenchForm::Table,
        BenchFormat::Markdown => BenchForm::Markdown,
        BenchFormat::Csv => BenchForm::Csv,
        BenchFormat::Json => BenchForm::Json,
    }
}

fn warn_if_busy(environment: &BenchEnvironment, context: &Context) {
    if environment.load_average > 0.5 {
        context.output.warn(format!(
            "the machine was not idle: its load in the last minute was {:.1}",
            environment.load_average
        ));
    }
}
