//! One prompt, and its answer or answers.

use jiff::Timestamp;

use super::answer::{Show, answer};
use super::chat::Tally;
use super::inputs::Inputs;
use super::loaded::{Loaded, some};
use super::manner::Manner;
use super::parameters::Parameters;
use crate::cli::run::RunArgs;
use crate::commands::resolve::Resolved;
use crate::context::Context;
use crate::engine::outcome::FinishReason;
use crate::engine::request::{Message, Prompt};
use crate::error::{Code, Error, Result};
use crate::output::run::figures;
use crate::report::run::{RunEvent, RunReport, SampleReport};

pub fn answer_once(
    args: &RunArgs,
    parameters: &Parameters,
    inputs: &Inputs,
    manner: &Manner,
    model: &Resolved,
    text: &str,
    context: &Context,
) -> Result<RunReport> {
    let started_at = Timestamp::now();
    let show = match (args.stream_json, context.output.is_json()) {
        (true, _) => Show::Events,
        (false, true) => Show::Nothing,
        (false, false) => Show::Text,
    };
    let mut loaded = Loaded::load(model, args, manner.context, show, context)?;
    let prompt = if args.raw {
        Prompt::Raw(text.to_owned())
    } else {
        let system = args.system.as_ref().or(manner.system.as_ref());
        let system = system.map(|system| Message::new("system", system));
        let turns = manner.turns.iter().cloned();
        Prompt::Chat(system.into_iter().chain(turns).chain([Message::new("user", text)]).collect())
    };
    let (mut request, sampling) = inputs.request(prompt, parameters);
    let samples = args.sampling.samples as usize;
    let mut tally = Tally::default();
    let mut report: Option<RunReport> = None;
    for number in 1..=samples {
        request.sampling.seed = sampling.options.seed.wrapping_add(number as u64 - 1);
        if samples > 1 {
            begin(number, samples, request.sampling.seed, show, context)?;
        }
        let mut generation = answer(&mut loaded.engine, &request, show, inputs.hide_thinking, context)?;
        if inputs.hide_thinking {
            generation.reasoning.clear();
        }
        tally.add(&generation);
        if generation.finish_reason == FinishReason::Interrupted {
            loaded.record(started_at, &tally, context);
            return Err(Error::new(Code::Interrupted, "interrupted in the middle of the answer")
                .detail("model", model.reference.clone())
                .detail("text", generation.text)
                .detail("generated_tokens", generation.usage.generated_tokens));
        }
        match &mut report {
            None => report = Some(loaded.report(text.to_owned(), &generation, sampling.clone())),
            Some(report) => report.others.push(SampleReport {
                seed: request.sampling.seed,
                text: generation.text,
                reasoning: some(generation.reasoning),
                finish_reason: generation.finish_reason,
                logprobs: generation.logprobs,
                usage: generation.usage,
            }),
        }
    }
    loaded.record(started_at, &tally, context);
    loaded.keep()?;
    let report = report.ok_or_else(|| Error::internal("no answer was asked for"))?;
    if context.output.is_verbose() {
        context.output.detail(figures(&report));
    }
    Ok(report)
}

/// Says which of several answers comes.
fn begin(number: usize, samples: usize, seed: u64, show: Show, context: &Context) -> Result<()> {
    match show {
        Show::Nothing => Ok(()),
        Show::Events => context.output.event(&RunEvent::Sample { number, seed }),
        Show::Text => {
            let gap = if number > 1 { "\n" } else { "" };
            context.output.stream(&format!("{gap}[{number} of {samples}, seed {seed}]\n"))
        }
    }
}
