//! A model that is measured.

use std::path::Path;
use std::time::{Duration, Instant};

use super::peer::Peer;
use super::rounds::Rounds;
use super::samples::{quantile, result};
use super::trials::name;
use crate::cli::bench::BenchArgs;
use crate::commands::resolve::Resolved;
use crate::context::Context;
use crate::engine::embed::{EmbedOptions, Embedder};
use crate::engine::measure::{Trial, Work};
use crate::engine::memory::restart_peak;
use crate::engine::policy::Policy;
use crate::engine::probe::{Kind, Probe};
use crate::engine::request::LoadOptions;
use crate::engine::session::Engine;
use crate::error::{Error, Result};
use crate::fs::forget_pages;
use crate::output::progress::Unit;
use crate::registry::Registry;
use crate::report::bench::{BenchModel, BenchRatio, BenchResult};

/// How long a model is loaded again and again, from the disk and from the page cache each.
const LOADING: Duration = Duration::from_secs(3);

/// A model in memory, and what was measured of it.
pub struct Subject<'a> {
    model: &'a Resolved,
    engine: Measured,
    pub results: Vec<BenchResult>,
}

/// What computes.
enum Measured {
    Text(Engine),
    Vectors(Embedder),
}

impl Measured {
    fn load(path: &Path, kind: Kind, options: &LoadOptions) -> Result<Self> {
        if kind == Kind::Embedding {
            let embedder = Embedder::load(path, options, &EmbedOptions::default(), &mut |_, _| ())?;
            return Ok(Self::Vectors(embedder));
        }
        Engine::load(path, options, &mut |_, _| ()).map(Self::Text)
    }

    fn policy(&self) -> &Policy {
        match self {
            Self::Text(engine) => engine.policy(),
            Self::Vectors(embedder) => embedder.policy(),
        }
    }

    fn peak_bytes(&self) -> u64 {
        match self {
            Self::Text(engine) => engine.peak_bytes(),
            Self::Vectors(embedder) => embedder.peak_bytes(),
        }
    }

    /// The seconds that the work took.
    fn measure(&mut self, trial: Trial, context: &Context) -> Result<f64> {
        let go_on = || !context.cancel.is_set();
        let measured = match self {
            Self::Text(engine) => engine.measure(trial, &go_on)?,
            Self::Vectors(embedder) => Some(embedder.measure(trial, &go_on)?),
        };
        context.cancel.check()?;
        measured.ok_or_else(|| Error::internal("a measurement stopped by itself"))
    }
}

impl<'a> Subject<'a> {
    /// Loads it with its files out of the page cache, where the system drops them, and with its files in it,
    /// each as often as asked as far as [`LOADING`] suffices, and once at least.
    pub fn load(
        model: &'a Resolved,
        probed: &Probe,
        options: &LoadOptions,
        repeat: u32,
        context: &Context,
    ) -> Result<Self> {
        let bar = context.output.progress(&format!("loading {}", model.reference), None, Unit::Items);
        restart_peak();
        let load = || {
            context.cancel.check()?;
            let started = Instant::now();
            let engine = Measured::load(&model.path, probed.kind, options)?;
            Ok::<_, Error>((engine, started.elapsed().as_secs_f64()))
        };
        let folder =
            if model.path.is_dir() { &model.path } else { model.path.parent().unwrap_or(&model.path) };
        let forget = || probed.files.iter().all(|file| forget_pages(&folder.join(file)));
        let is_enough = |samples: &[f64]| {
            samples.len() >= repeat as usize || samples.iter().sum::<f64>() >= LOADING.as_secs_f64()
        };
        let mut results = Vec::new();
        let mut cold = Vec::new();
        while !is_enough(&cold) && forget() {
            cold.push(load()?.1);
        }
        if cold.is_empty() {
            load()?;
        } else {
            results.push(result(&model.reference, "load-cold", "s", cold));
        }
        let (mut engine, seconds) = load()?;
        let mut warm = vec![seconds];
        while !is_enough(&warm) {
            // One at a time is in memory.
            drop(engine);
            let (again, seconds) = load()?;
            engine = again;
            warm.push(seconds);
        }
        results.push(result(&model.reference, "load", "s", warm));
        drop(bar);
        for warning in &engine.policy().warnings {
            context.output.warn(warning);
        }
        Ok(Self { model, engine, results })
    }

    /// What was decided when it was loaded.
    pub fn policy(&self) -> &Policy {
        self.engine.policy()
    }

    /// Tokens of the longest text that it embeds; `None` if it generates text.
    pub fn longest_text(&self) -> Option<usize> {
        match &self.engine {
            Measured::Text(_) => None,
            Measured::Vectors(embedder) => Some(embedder.text().max_tokens()),
        }
    }

    /// Measures each trial and each peer in rounds, one after the other, so that what disturbs the
    /// machine for a while disturbs all of them. The error beside the ratios is what stopped it in the middle,
    /// a peer's end or a Ctrl-C: what was measured before stands.
    ///
    /// # Errors
    /// What stopped it before anything was measured.
    pub fn measure(
        &mut self,
        args: &BenchArgs,
        trials: &[Trial],
        peers: &mut [Peer],
        context: &Context,
    ) -> Result<(Vec<BenchRatio>, Option<Error>)> {
        let mut own: Vec<Vec<f64>> = vec![Vec::new(); trials.len()];
        let mut theirs: Vec<Vec<Vec<f64>>> = vec![vec![Vec::new(); trials.len()]; peers.len()];
        let failure = match self.rounds(args, trials, peers, &mut own, &mut theirs, context) {
            Err(error) if own.iter().all(Vec::is_empty) => return Err(error),
            stopped => stopped.err(),
        };
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

    /// The seconds of each trial, and the speeds of each peer in each trial.
    fn rounds(
        &mut self,
        args: &BenchArgs,
        trials: &[Trial],
        peers: &mut [Peer],
        own: &mut [Vec<f64>],
        theirs: &mut [Vec<Vec<f64>>],
        context: &Context,
    ) -> Result<()> {
        let mut rounds = Rounds::new(args);
        let rivals: usize =
            trials.iter().map(|trial| peers.iter().filter(|peer| peer.takes(*trial, trials)).count()).sum();
        let steps = u64::from(rounds.most()) * (trials.len() + rivals) as u64;
        let bar = context.output.progress(&self.model.reference, Some(steps), Unit::Items);
        while let Some(counts) = rounds.begin() {
            for (place, (trial, samples)) in trials.iter().zip(&mut *own).enumerate() {
                bar.label(&format!("{} {}", self.model.reference, name(*trial)));
                let taken = self.engine.measure(*trial, context)?;
                if counts {
                    samples.push(taken);
                }
                bar.advance(1);
                for (peer, speeds) in peers.iter_mut().zip(&mut *theirs) {
                    if !peer.takes(*trial, trials) {
                        continue;
                    }
                    bar.label(&format!("{} {}", peer.name, name(*trial)));
                    let speed = peer.measure(*trial, context)?;
                    if let (true, Some(samples)) = (counts, speeds.get_mut(place)) {
                        samples.push(speed);
                    }
                    bar.advance(1);
                }
            }
        }
        drop(bar);
        rounds.end(context);
        Ok(())
    }

    /// The results of what was measured.
    fn conclude(&mut self, trials: &[Trial], seconds: &[Vec<f64>]) {
        let reference = &self.model.reference;
        let measured = || trials.iter().zip(seconds).filter(|(_, samples)| !samples.is_empty());
        for (trial, samples) in measured() {
            let rates = |count: usize| samples.iter().map(|taken| count as f64 / taken).collect();
            let (test, tokens) = (name(*trial), trial.work.tokens());
            self.results.push(result(reference, &test, "tokens/s", rates(trial.batch * tokens)));
            match trial.work {
                Work::Embed(_) => {
                    let test = test.replacen("emb", "texts", 1);
                    self.results.push(result(reference, &test, "texts/s", rates(trial.batch)));
                }
                Work::Generate(_) if trial.batch > 1 => {
                    self.results.push(result(reference, &format!("{test}/seq"), "tokens/s", rates(tokens)));
                }
                Work::Generate(_) | Work::Prompt(_) => {}
            }
        }
        for (trial, samples) in measured() {
            if let (Work::Prompt(_), 1) = (trial.work, trial.batch) {
                let test = name(*trial).replacen("pp", "ttft", 1);
                self.results.push(result(reference, &test, "s", samples.clone()));
            }
        }
        if let Measured::Text(engine) = &self.engine {
            let cache = |trial: &Trial| trial.batch as u64 * engine.policy().cache.bytes(trial.tokens());
            let most = trials.iter().map(cache).max().unwrap_or(0) as f64;
            self.results.push(result(reference, "kv_cache", "bytes", vec![most]));
        }
        let peak = self.engine.peak_bytes() as f64;
        self.results.push(result(reference, "peak_memory", "bytes", vec![peak]));
    }

    /// A peer's result, and ours in ratio to it round by round.
    fn hold_against(&mut self, trial: Trial, own: &[f64], peer: &Peer, speeds: &[f64]) -> Option<BenchRatio> {
        if speeds.is_empty() {
            return None;
        }
        let tokens = trial.work.tokens();
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
