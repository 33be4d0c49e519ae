//! `bench`: how fast models are on this machine.

mod environment;
mod history;
mod peer;
mod samples;

use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;

use self::samples::{quantile, result};
use super::loading;
use super::pull::auto::resolve_or_pull;
use super::resolve::{Resolved, resolve};
use crate::cli::bench::{BenchArgs, BenchFormat};
use crate::context::Context;
use crate::engine::measure::{Trial, Work};
use crate::engine::probe::{Kind, Probe, probe};
use crate::engine::request::LoadOptions;
use crate::engine::session::Engine;
use crate::error::{Code, Error, Result};
use crate::fs::forget_pages;
use crate::output::progress::Unit;
use crate::registry::Registry;
use crate::report::bench::{BenchForm, BenchModel, BenchRatio, BenchReport, BenchResult};

pub fn run(args: &BenchArgs, context: &Context) -> Result<BenchReport> {
    let form = match args.format {
        BenchFormat::Table => BenchForm::Table,
        BenchFormat::Markdown => BenchForm::Markdown,
        BenchFormat::Csv => BenchForm::Csv,
    };
    if let Some(reference) = &args.history {
        return show_history(reference, form, context);
    }
    let trials = trials(args)?;
    let pattern = peer::pattern(&args.compare.against_pattern)?;
    // Everything is found before anything is measured.
    let models = args
        .models
        .iter()
        .map(|model| resolve_or_pull(model, args.yes, context))
        .collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = models.iter().map(|model| model.reference.clone()).collect();
    let baseline =
        args.compare.compare.as_deref().map(|text| history::baseline(text, &names, context)).transpose()?;

    let options = loading::options(&args.engine, &context.settings)?;
    let mut report = BenchReport {
        environment: None,
        models: Vec::new(),
        results: Vec::new(),
        peers: Vec::new(),
        baseline: None,
        history: Vec::new(),
        form,
    };
    for model in &models {
        let measured_at = Timestamp::now();
        let probed = probe(&model.path)?;
        if probed.kind == Kind::Embedding {
            return Err(Error::new(
                Code::CapabilityMissing,
                format!("{} is an embedding model: it generates no text to be timed", model.reference),
            )
            .hint("measure a model that generates text"));
        }
        let mut subject = Subject::load(model, &probed, &options, context)?;
        let environment = environment::of(&subject.engine, options.threads)?;
        if environment.load_average > 0.5 {
            context.output.warn(format!(
                "the machine was not idle: its load in the last minute was {:.1}",
                environment.load_average
            ));
        }
        let peers = subject.measure(args, &trials, &pattern, context)?;
        let described = describe(model, &probed, context);
        if !args.no_save {
            let own: Vec<&BenchResult> =
                subject.results.iter().filter(|it| it.model == model.reference).collect();
            history::keep(measured_at, &environment, &described, &own, context);
        }
        report.environment = Some(environment);
        report.models.push(described);
        report.results.append(&mut subject.results);
        report.peers.extend(peers);
    }
    report.baseline = baseline
        .map(|baseline| baseline.compare(&report.results, args.compare.fail_on_regression))
        .transpose()?;
    Ok(report)
}

fn show_history(reference: &str, form: BenchForm, context: &Context) -> Result<BenchReport> {
    // A model that is gone may have left results.
    let name = resolve(reference, context).map_or_else(|_| reference.to_owned(), |found| found.reference);
    let history = history::of(&name, context)?;
    if history.is_empty() {
        return Err(Error::new(Code::FileNotFound, format!("no result of {name} is kept"))
            .hint(format!("measure it with: mlx-cache bench {name}")));
    }
    Ok(BenchReport {
        environment: None,
        models: Vec::new(),
        results: Vec::new(),
        peers: Vec::new(),
        baseline: None,
        history,
        form,
    })
}

/// The tests that the flags ask for, each with its name.
fn trials(args: &BenchArgs) -> Result<Vec<Trial>> {
    let prompts = args.prompt_tokens.iter().filter(|&&tokens| tokens > 0).map(|&tokens| Work::Prompt(tokens));
    let generated =
        args.generate_tokens.iter().filter(|&&tokens| tokens > 0).map(|&tokens| Work::Generate(tokens));
    let works: Vec<Work> = prompts.chain(generated).collect();
    let mut trials: Vec<Trial> = Vec::new();
    for &depth in &args.depth {
        for &work in &works {
            let trial = Trial { depth, work };
            if !trials.contains(&trial) {
                trials.push(trial);
            }
        }
    }
    if trials.is_empty() {
        return Err(Error::new(Code::InvalidRequest, "there is nothing to measure")
            .hint("ask for prompt tokens with -p, for generated ones with -g, or for both"));
    }
    Ok(trials)
}

/// `pp512`, `tg128`, with `@d4096` where the cache holds tokens.
fn name(trial: Trial) -> String {
    let (kind, tokens) = match trial.work {
        Work::Prompt(tokens) => ("pp", tokens),
        Work::Generate(tokens) => ("tg", tokens),
    };
    let depth = if trial.depth > 0 { format!("@d{}", trial.depth) } else { String::new() };
    format!("{kind}{tokens}{depth}")
}

/// A model in memory, and what was measured of it.
struct Subject<'a> {
    model: &'a Resolved,
    engine: Engine,
    results: Vec<BenchResult>,
}

impl<'a> Subject<'a> {
    /// Loads it twice: with its files out of the page cache, where the system drops them, and with
    /// its files in it.
    fn load(model: &'a Resolved, probed: &Probe, options: &LoadOptions, context: &Context) -> Result<Self> {
        let bar = context.output.progress(&format!("loading {}", model.reference), None, Unit::Items);
        let load = || {
            context.cancel.check()?;
            let started = Instant::now();
            let engine = Engine::load(&model.path, options, &mut |_, _| ())?;
            Ok::<_, Error>((engine, started.elapsed().as_secs_f64()))
        };
        let mut results = Vec::new();
        let folder =
            if model.path.is_dir() { &model.path } else { model.path.parent().unwrap_or(&model.path) };
        if probed.files.iter().all(|file| forget_pages(&folder.join(file))) {
            let (_, cold) = load()?;
            results.push(result(&model.reference, "load-cold", "s", vec![cold]));
        } else {
            load()?;
        }
        let (engine, warm) = load()?;
        results.push(result(&model.reference, "load", "s", vec![warm]));
        drop(bar);
        for warning in &engine.policy().warnings {
            context.output.warn(warning);
        }
        Ok(Self { model, engine, results })
    }

    /// Measures each trial and each peer in rounds, one after the other, so that what disturbs the
    /// machine for a while disturbs all of them.
    fn measure(
        &mut self,
        args: &BenchArgs,
        trials: &[Trial],
        pattern: &regex::Regex,
        context: &Context,
    ) -> Result<Vec<BenchRatio>> {
        let commands = &args.compare.against_command;
        let rounds = args.warmup + args.repeat;
        let steps = u64::from(rounds) * (trials.len() + commands.len()) as u64;
        let bar = context.output.progress(&self.model.reference, Some(steps), Unit::Items);
        let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); trials.len()];
        let mut speeds: Vec<Vec<f64>> = vec![Vec::new(); commands.len()];
        let mut failure = None;
        'rounds: for round in 0..rounds {
            let counts = round >= args.warmup;
            for (trial, samples) in trials.iter().zip(&mut seconds) {
                bar.label(&format!("{} {}", self.model.reference, name(*trial)));
                let measured = self.engine.measure(*trial, &|| !context.cancel.is_set())?;
                context.cancel.check()?;
                let taken = measured.ok_or_else(|| Error::internal("a measurement stopped by itself"))?;
                if counts {
                    samples.push(taken);
                }
                bar.advance(1);
            }
            for (command, samples) in commands.iter().zip(&mut speeds) {
                bar.label(command);
                match peer::measure(command, pattern, context) {
                    Ok(speed) if counts => samples.push(speed),
                    Ok(_) => {}
                    // What was measured so far is worth telling, and keeping.
                    Err(error) if counts && error.code() == Code::ServerCrashed => {
                        failure = Some(error);
                        break 'rounds;
                    }
                    Err(error) => return Err(error),
                }
                bar.advance(1);
            }
        }
        drop(bar);
        self.conclude(trials, &seconds);
        let ratios = self.hold_against(trials, &seconds, commands, &speeds);
        if let Some(error) = failure {
            let measured = serde_json::to_value(&self.results).unwrap_or_default();
            return Err(error.detail("measured", measured));
        }
        Ok(ratios)
    }

    /// The results of what was measured.
    fn conclude(&mut self, trials: &[Trial], seconds: &[Vec<f64>]) {
        let reference = &self.model.reference;
        for (trial, samples) in trials.iter().zip(seconds).filter(|(_, samples)| !samples.is_empty()) {
            let (Work::Prompt(tokens) | Work::Generate(tokens)) = trial.work;
            let speeds = samples.iter().map(|taken| tokens as f64 / taken).collect();
            self.results.push(result(reference, &name(*trial), "tokens/s", speeds));
        }
        for (trial, samples) in trials.iter().zip(seconds).filter(|(_, samples)| !samples.is_empty()) {
            if let Work::Prompt(_) = trial.work {
                let test = name(*trial).replacen("pp", "ttft", 1);
                self.results.push(result(reference, &test, "s", samples.clone()));
            }
        }
        let policy = self.engine.policy();
        let longest = trials.iter().map(Trial::tokens).max().unwrap_or(0);
        let cache = policy.cache.bytes(longest) as f64;
        self.results.push(result(reference, "kv_cache", "bytes", vec![cache]));
        let peak = self.engine.peak_bytes() as f64;
        self.results.push(result(reference, "peak_memory", "bytes", vec![peak]));
    }

    /// The peers' results, and ours in ratio to them round by round. A peer that prints one speed is held
    /// against the test that generates; where there is none, against the first.
    fn hold_against(
        &mut self,
        trials: &[Trial],
        seconds: &[Vec<f64>],
        commands: &[String],
        speeds: &[Vec<f64>],
    ) -> Vec<BenchRatio> {
        let generating = trials.iter().position(|trial| matches!(trial.work, Work::Generate(_))).unwrap_or(0);
        let (Some(trial), Some(own)) = (trials.get(generating), seconds.get(generating)) else {
            return Vec::new();
        };
        let (Work::Prompt(tokens) | Work::Generate(tokens)) = trial.work;
        let mut ratios = Vec::new();
        for (command, samples) in commands.iter().zip(speeds).filter(|(_, samples)| !samples.is_empty()) {
            let mut rounds: Vec<f64> =
                own.iter().zip(samples).map(|(taken, speed)| tokens as f64 / taken / speed).collect();
            rounds.sort_by(f64::total_cmp);
            ratios.push(BenchRatio {
                model: self.model.reference.clone(),
                peer: command.clone(),
                test: name(*trial),
                ratio: quantile(&rounds, 0.5),
                min: quantile(&rounds, 0.0),
                max: quantile(&rounds, 1.0),
            });
            self.results.push(result(command, &name(*trial), "tokens/s", samples.clone()));
        }
        ratios
    }
}

/// What was measured, for whoever reads the numbers later.
fn describe(model: &Resolved, probed: &Probe, context: &Context) -> BenchModel {
    let registered = || {
        let registry = Registry::open(&context.settings.home.value).ok()??;
        let id = model.snapshot?;
        let snapshot = registry.snapshots().ok()?.into_iter().find(|snapshot| snapshot.id == id)?;
        let largest = registry.files(id).ok()?.into_iter().max_by_key(|file| file.bytes)?;
        Some((snapshot.revision.to_string(), largest.digest.to_string()))
    };
    let (revision, digest) = registered().unzip();
    let folder = if model.path.is_dir() {
        model.path.as_path()
    } else {
        model.path.parent().unwrap_or(Path::new("/"))
    };
    let sizes = probed.files.iter().filter_map(|file| Some(std::fs::metadata(folder.join(file)).ok()?.len()));
    BenchModel {
        reference: model.reference.clone(),
        revision,
        digest,
        architecture: probed.architecture.clone(),
        parameters: Some(probed.parameters),
        quantization: probed.quantization.clone(),
        bytes: sizes.sum(),
    }
}
