//! A model in memory, for the time of one command.

use std::path::PathBuf;

use jiff::Timestamp;

use super::answer::Show;
use super::batch::at_a_time;
use super::chat::Tally;
use crate::cli::run::RunArgs;
use crate::commands::resolve::{Resolved, resolve};
use crate::commands::{loading, session};
use crate::context::Context;
use crate::engine::outcome::Generation;
use crate::engine::probe::not_generating;
use crate::engine::request::DraftOptions;
use crate::engine::session::Engine;
use crate::error::Result;
use crate::registry::NewSession;
use crate::report::run::{MemoryReport, RunEvent, RunReport, SamplingReport, TimingsReport};

/// A model in memory.
pub struct Loaded<'a> {
    pub engine: Engine,
    pub model: &'a Resolved,
    prompt_cache: Option<PathBuf>,
}

impl<'a> Loaded<'a> {
    /// `window` is the context that the model is to have unless a flag tells.
    pub fn load(
        model: &'a Resolved,
        args: &RunArgs,
        window: Option<usize>,
        show: Show,
        context: &Context,
    ) -> Result<Self> {
        let mut options = loading::options(&args.engine, &context.settings)?;
        let draft_model = args.speed.draft_model.as_deref().map(|name| resolve(name, context)).transpose()?;
        if args.speed.draft.is_some() || draft_model.is_some() {
            options.draft = Some(DraftOptions {
                model: draft_model.map(|model| model.path),
                most: args.speed.draft_tokens as usize,
            });
        }
        options.context = options.context.or(window);
        options.sequences = args.batch.batch.is_some().then(|| at_a_time(args));
        let (mut bar, mut failure) = (loading::bar(&model.reference, context), None);
        let mut progress = |done, total| {
            bar(done, total);
            if show == Show::Events && failure.is_none() {
                failure = context.output.event(&RunEvent::Load { done, total }).err();
            }
        };
        let engine = if context.output.is_json() {
            // A request to stop is seen after loading, so that it is answered with an envelope.
            Engine::load(&model.path, &options, &mut progress)
        } else {
            // Nothing is to be cleaned up: a signal may end the process in the middle of it.
            context.cancel.while_waiting(|| Engine::load(&model.path, &options, &mut progress))
        };
        let mut engine = engine.map_err(|error| not_generating(&model.path).unwrap_or(error))?;
        drop(bar);
        failure.map_or(Ok(()), Err)?;
        context.cancel.check()?;
        for warning in &engine.policy().warnings {
            context.output.warn(warning);
        }
        if let Some(path) = args.speed.prompt_cache.as_deref().filter(|path| path.exists()) {
            engine.restore_cache(path)?;
        }
        Ok(Self { engine, model, prompt_cache: args.speed.prompt_cache.clone() })
    }

    /// Keeps what was computed, where the user wants it kept.
    pub fn keep(&mut self) -> Result<()> {
        match &self.prompt_cache {
            Some(path) => self.engine.save_cache(path).map(|_| ()),
            None => Ok(()),
        }
    }

    pub fn report(&self, prompt: String, generation: &Generation, sampling: SamplingReport) -> RunReport {
        RunReport {
            model: self.model.reference.clone(),
            prompt,
            rendered_prompt: generation.prompt.clone(),
            text: generation.text.clone(),
            reasoning: some(generation.reasoning.clone()),
            finish_reason: generation.finish_reason,
            logprobs: generation.logprobs.clone(),
            usage: generation.usage,
            others: Vec::new(),
            timings: TimingsReport::new(self.engine.load_seconds(), generation),
            memory: MemoryReport {
                peak_bytes: generation.peak_bytes,
                estimate_bytes: self.engine.policy().estimate_bytes,
            },
            sampling,
        }
    }

    /// Writes down that the model was used.
    pub fn record(&self, started_at: Timestamp, tally: &Tally, context: &Context) {
        let session = NewSession {
            snapshot: self.model.snapshot,
            reference: &self.model.reference,
            command: "run",
            started_at,
            prompt_tokens: tally.prompt_tokens as u64,
            cached_tokens: tally.cached_tokens as u64,
            generated_tokens: tally.generated_tokens as u64,
            load_s: self.engine.load_seconds(),
            ttft_s: tally.ttft_s,
            total_s: tally.total_s,
        };
        session::record(&session, context);
    }
}

/// A text, if there is one.
pub fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
