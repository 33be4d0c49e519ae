//! `run`: an answer to a prompt, or a chat.

mod answer;
pub mod chat;
mod manner;
mod model;
mod parameters;
mod prompt;

use std::time::{Duration, Instant};

use jiff::Timestamp;

use self::answer::{Show, answer};
use self::chat::Tally;
use self::manner::Manner;
use self::parameters::Parameters;
use self::prompt::Asked;
use crate::cli::run::{EngineArgs, RunArgs};
use crate::commands::loading;
use crate::commands::resolve::Resolved;
use crate::context::Context;
use crate::engine::outcome::{FinishReason, Generation};
use crate::engine::probe::not_generating;
use crate::engine::request::{GenerateRequest, Message, Prompt};
use crate::engine::session::Engine;
use crate::error::{Code, Error, Result};
use crate::output::progress::Unit;
use crate::output::run::figures;
use crate::registry::{NewSession, Registry};
use crate::report::Report;
use crate::report::run::{MemoryReport, RunEvent, RunReport, SamplingReport, TimingsReport};

const WAITING: &str =
    "waiting for the end of standard input, which is read too; if nothing comes, start with </dev/null";

pub fn run(args: &RunArgs, context: &Context) -> Result<Report> {
    // Before anything is looked for.
    Parameters::of(args, Parameters::default()).check()?;
    let model = model::choose(args.model.as_deref(), args.prompt.is_none(), args.yes, context)?;
    let manner = Manner::of(&model, context)?;
    let parameters = Parameters::of(args, manner.parameters.clone());
    parameters.check()?;
    let screen = context.output.is_terminal();
    let waiting = || context.output.note(WAITING);
    match context.cancel.while_waiting(|| prompt::read(args.prompt.as_deref(), screen, waiting))? {
        Asked::Text(text) => answer_once(args, &parameters, &manner, &model, text, context).map(Report::from),
        Asked::Chat => {
            if context.output.is_json() || args.raw {
                return Err(prompt::nothing_asked());
            }
            let mut loaded = Loaded::load(&model, &args.engine, manner.context, Show::Text, context)?;
            let system = args.system.clone().or(manner.system);
            chat::run(&mut loaded, system, manner.turns, parameters, context)?;
            Ok(Report::Chat)
        }
    }
}

fn answer_once(
    args: &RunArgs,
    parameters: &Parameters,
    manner: &Manner,
    model: &Resolved,
    text: String,
    context: &Context,
) -> Result<RunReport> {
    let started_at = Timestamp::now();
    let show = match (args.stream_json, context.output.is_json()) {
        (true, _) => Show::Events,
        (false, true) => Show::Nothing,
        (false, false) => Show::Text,
    };
    let mut loaded = Loaded::load(model, &args.engine, manner.context, show, context)?;
    let sampling = parameters.draw();
    let request = GenerateRequest {
        prompt: if args.raw {
            Prompt::Raw(text.clone())
        } else {
            let system = args.system.as_ref().or(manner.system.as_ref());
            let system = system.map(|system| Message::new("system", system));
            let turns = manner.turns.iter().cloned();
            Prompt::Chat(system.into_iter().chain(turns).chain([Message::new("user", &text)]).collect())
        },
        max_tokens: parameters.max_tokens,
        sampling: sampling.options(),
        stop: parameters.stop.clone(),
    };
    let generation = answer(&mut loaded.engine, &request, show, context)?;
    let mut tally = Tally::default();
    tally.add(&generation);
    loaded.record(started_at, &tally, context);
    let report = loaded.report(text, &generation, sampling);
    if context.output.is_verbose() {
        context.output.detail(figures(&report));
    }
    if generation.finish_reason == FinishReason::Interrupted {
        return Err(Error::new(Code::Interrupted, "interrupted in the middle of the answer")
            .detail("model", report.model)
            .detail("text", report.text)
            .detail("generated_tokens", report.usage.generated_tokens));
    }
    Ok(report)
}

/// Loading that takes no longer needs no progress bar.
const WORTH_A_BAR: Duration = Duration::from_millis(300);

/// A model in memory.
pub struct Loaded<'a> {
    engine: Engine,
    model: &'a Resolved,
}

impl<'a> Loaded<'a> {
    /// `window` is the context that the model is to have unless a flag tells.
    fn load(
        model: &'a Resolved,
        args: &EngineArgs,
        window: Option<usize>,
        show: Show,
        context: &Context,
    ) -> Result<Self> {
        let mut options = loading::options(args, &context.settings)?;
        options.context = options.context.or(window);
        let (started, mut bar, mut failure) = (Instant::now(), None, None);
        let mut progress = |done, total| {
            if started.elapsed() > WORTH_A_BAR {
                let label = format!("loading {}", model.reference);
                bar.get_or_insert_with(|| context.output.progress(&label, Some(total), Unit::Bytes))
                    .set(done);
            }
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
        let engine = engine.map_err(|error| not_generating(&model.path).unwrap_or(error))?;
        drop(bar);
        failure.map_or(Ok(()), Err)?;
        context.cancel.check()?;
        for warning in &engine.policy().warnings {
            context.output.warn(warning);
        }
        Ok(Self { engine, model })
    }

    fn report(&self, prompt: String, generation: &Generation, sampling: SamplingReport) -> RunReport {
        RunReport {
            model: self.model.reference.clone(),
            prompt,
            rendered_prompt: generation.prompt.clone(),
            text: generation.text.clone(),
            finish_reason: generation.finish_reason,
            usage: generation.usage,
            timings: TimingsReport::new(self.engine.load_seconds(), generation),
            memory: MemoryReport { peak_bytes: generation.peak_bytes },
            sampling,
        }
    }

    /// Writes down that the model was used. The answer stands even if that fails.
    fn record(&self, started_at: Timestamp, tally: &Tally, context: &Context) {
        let recorded = Registry::open(&context.settings.home.value).and_then(|registry| {
            // A model that lies outside any store is no reason to make one.
            let Some(mut registry) = registry else { return Ok(()) };
            registry.record_session(&NewSession {
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
            })
        });
        if let Err(error) = recorded {
            context.output.warn(format!("this use is not written down: {}", error.message()));
        }
    }
}
