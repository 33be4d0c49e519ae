//! Peers: what is measured in turn with our own engine.

mod command;
mod ollama;

use regex::Regex;

use self::ollama::Served;
use crate::cli::bench::CompareArgs;
use crate::context::Context;
use crate::engine::measure::{Trial, Work};
use crate::error::Result;

/// A peer.
#[derive(Debug)]
pub struct Peer {
    /// What its results are told under.
    pub name: String,
    /// What it says of itself.
    pub about: Option<String>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A shell command that prints one speed, and where in its output that is.
    Command(Regex),
    /// A model of Ollama's.
    Served(Box<Served>),
}

impl Peer {
    /// The peers that the flags name. A server is asked whether it is there, and for the model.
    pub fn all(
        args: &CompareArgs,
        trials: &[Trial],
        threads: Option<usize>,
        context: &Context,
    ) -> Result<Vec<Self>> {
        let pattern = command::pattern(&args.against_pattern)?;
        let mut peers: Vec<Self> = args
            .against_command
            .iter()
            .map(|command| Self { name: command.clone(), about: None, kind: Kind::Command(pattern.clone()) })
            .collect();
        for model in &args.against {
            let (served, about) = Served::find(model, trials, threads, context)?;
            let kind = Kind::Served(Box::new(served));
            peers.push(Self { name: format!("ollama:{model}"), about: Some(about), kind });
        }
        Ok(peers)
    }

    /// Whether it is held against this one of the trials. One that prints a speed is held against the first
    /// that generates; where there is none, against the first.
    pub fn takes(&self, trial: Trial, trials: &[Trial]) -> bool {
        // None of them tells what several sequences at once took.
        if trial.batch > 1 {
            return false;
        }
        match &self.kind {
            Kind::Command(_) => {
                let mut alone = trials.iter().filter(|trial| trial.batch == 1);
                let first = alone.clone().next();
                alone.find(|trial| matches!(trial.work, Work::Generate(_))).or(first) == Some(&trial)
            }
            Kind::Served(_) => ollama::takes(trial),
        }
    }

    /// Does the work once; tokens per second.
    ///
    /// # Errors
    /// SERVER_CRASHED if it stops in the middle of it.
    pub fn measure(&mut self, trial: Trial, context: &Context) -> Result<f64> {
        match &mut self.kind {
            Kind::Command(pattern) => command::measure(&self.name, pattern, context),
            Kind::Served(served) => served.measure(trial, context),
        }
    }

    /// Seconds that it took to load its model, where that was seen; told once.
    pub fn take_load(&mut self) -> Option<f64> {
        match &mut self.kind {
            Kind::Command(_) => None,
            Kind::Served(served) => served.take_load(),
        }
    }
}
