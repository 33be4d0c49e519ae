//! `run`: an answer to a prompt, or a chat.

mod answer;
mod batch;
pub mod chat;
mod inputs;
mod loaded;
mod manner;
mod model;
mod once;
mod parameters;
mod prompt;

use self::answer::Show;
use self::inputs::Inputs;
use self::loaded::Loaded;
use self::manner::Manner;
use self::parameters::Parameters;
use self::prompt::Asked;
use crate::cli::run::RunArgs;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::report::Report;
use crate::report::run::RunData;

const WAITING: &str =
    "waiting for the end of standard input, which is read too; if nothing comes, start with </dev/null";

pub fn run(args: &RunArgs, context: &Context) -> Result<Report> {
    // Before anything is looked for.
    if args.batch.batch.is_none() && (args.batch.batch_size.is_some() || args.batch.unordered) {
        return Err(Error::new(Code::InvalidRequest, "--batch-size and --unordered are for --batch")
            .hint("give the prompts with --batch FILE, a line of JSON each"));
    }
    Parameters::of(args, Parameters::default()).check()?;
    let inputs = Inputs::of(args)?;
    let model = model::choose(args.model.as_deref(), args.prompt.is_none(), args.yes, context)?;
    let manner = Manner::of(&model, context)?;
    let parameters = Parameters::of(args, manner.parameters.clone());
    parameters.check()?;
    if let Some(path) = &args.batch.batch {
        return batch::run(args, path, parameters, &inputs, &manner, &model, context)
            .map(RunData::Batch)
            .map(Report::from);
    }
    let screen = context.output.is_terminal();
    let waiting = || context.output.note(WAITING);
    match context.cancel.while_waiting(|| prompt::read(args.prompt.as_deref(), screen, waiting))? {
        Asked::Text(text) => {
            let answer = once::answer_once(args, &parameters, &inputs, &manner, &model, &text, context)?;
            Ok(RunData::Answer(answer).into())
        }
        Asked::Chat => {
            if context.output.is_json() || args.raw || args.sampling.samples > 1 {
                return Err(prompt::nothing_asked());
            }
            let mut loaded = Loaded::load(&model, args, manner.context, Show::Text, context)?;
            let system = args.system.clone().or(manner.system);
            // A chat has no place to tell them.
            let inputs = Inputs { logprobs: None, ..inputs };
            chat::run(&mut loaded, system, manner.turns, parameters, inputs, context)?;
            loaded.keep()?;
            Ok(Report::Chat)
        }
    }
}
