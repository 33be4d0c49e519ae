//! A model that is measured.

use std::path::Path;
use std::time::Instant;

use super::name;
use super::peer::Peer;
use super::samples::{quantile, result};
use crate::cli::bench::BenchArgs;
use crate::commands::resolve::Resolved;
use crate::context::Context;
use crate::engine::measure::{Trial, Work};
use crate::engine::probe::Probe;
use crate::engine::request::LoadOptions;
use crate::engine::session::Engine;
use crate::error::{Code, Error, Result};
use crate::fs::forget_pages;
use crate::output::progress::Unit;
use crate::registry::Registry;
use crate::report::bench::{BenchModel, BenchRatio, BenchResult};

/// A model in memory, and what was measured of it.
pub struct Subject<'a> {
    model: &'a Resolved,
    pub engine: Engine,
    pub results: Vec<BenchResult>,
}

impl<'a> Subject<'a> {
    /// Loads it twice: with its files out of the page cache, where the system drops them, and with
    /// its files in it.
    pub fn load(
        model: &'a Resolved,
        probed: &Probe,
        options: &LoadOptions,
        context: &Context,
    ) -> Result<Self> {
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
    /// machine for a while disturbs all of them. The error is that of a peer which stopped in the middle:
    /// what was measured before stands.
    pub fn measure(
        &mut self,
        args: &BenchArgs,
        trials: &[Trial],
        peers: &mut [Peer],
        context: &Context,
    ) -> Result<(Vec<BenchRatio>, Option<Error>)> {
        let rounds = args.warmup + args.repeat;
        let rivals: usize =
            trials.iter().map(|trial| peers.iter().filter(|peer| peer.takes(*trial, trials)).count()).sum();
        let steps = u64::from(rounds) * (trials.len() + rivals) as u64;
        let bar = context.output.progress(&self.model.reference, Some(steps), Unit::Items);
        let mut own: Vec<Vec<f64>> = vec![Vec::new(); trials.len()];
        let mut theirs: Vec<Vec<Vec<f64>>> = vec![vec![Vec::new(); trials.len()]; peers.len()];
        let mut failure = None;
        'rounds: for round in 0..rounds {
            let counts = round >= args.warmup;
            for (place, (trial, samples)) in trials.iter().zip(&mut own).enumerate() {
                bar.label(&format!("{} {}", self.model.reference, name(*trial)));
                let measured = self.engine.measure(*trial, &|| !context.cancel.is_set())?;
                context.cancel.check()?;
                let taken = measured.ok_or_else(|| Error::internal("a measurement stopped by itself"))?;
                if counts {
                    samples.push(taken);
                }
                bar.advance(1);
                for (peer, speeds) in peers.iter_mut().zip(&mut theirs) {
                    if !peer.takes(*trial, trials) {
                        continue;
                    }
                    bar.label(&format!("{} {}", peer.name, name(*trial)));
                    match peer.measure(*trial, context) {
                        Ok(speed) => {
                            if let (true, Some(samples)) = (counts, speeds.get_mut(place)) {
                                samples.push(speed);
                            }
                        }
                        Err(error) if counts && error.code() == Code::ServerCrashed => {
                            failure = Some(error);
                            break 'rounds;
                        }
                        Err(error) => return Err(error),
                    }
                    bar.advance(1);
                }
            }
        }
        drop(bar);
        self.conclude(trials, &own);
        let mut ratios = Vec::new();
        for (peer, speeds) in peers.iter_mut().zip(&theirs) {
            if let Some(seconds) = peer.take_load() {
                self.results.push(result(&peer.name, "load", "s", vec![seconds]));
            }
            for ((trial, own), speeds) in trials.iter().zip(&own).zip(speeds) {
                ratios.extend(self.hold_against(*trial, own, peer, speeds));
            }
        }
        Ok((ratios, failure))
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

    /// A peer's result, and ours in ratio to it round by round.
    fn hold_against(&mut self, trial: Trial, own: &[f64], peer: &Peer, speeds: &[f64]) -> Option<BenchRatio> {
        if speeds.is_empty() {
            return None;
        }
        let (Work::Prompt(tokens) | Work::Generate(tokens)) = trial.work;
        let mut rounds: Vec<f64> =
            own.iter().zip(speeds).map(|(taken, speed)| tokens as f64 / taken / speed).collect();
        rounds.sort_by(f64::total_cmp);
        self.results.push(result(&peer.name, &name(trial), "tokens/s", speeds.to_vec()));
        Some(BenchRatio {
            model: self.model.reference.clone(),
            peer: peer.name.clone(),
            about: peer.about.clone(),
            test: name(trial),
            ratio: quantile(&rounds, 0.5),
            min: quantile(&rounds, 0.0),
            max: quantile(&rounds, 1.0),
        })
    }
}

/// What was measured, for whoever reads the numbers later.
pub fn describe(model: &Resolved, probed: &Probe, context: &Context) -> BenchModel {
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
