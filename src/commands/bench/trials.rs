//! The tests that flags ask for, and their names.

use crate::cli::bench::BenchArgs;
use crate::engine::measure::{Trial, Work};
use crate::engine::probe::{Kind, Probe};
use crate::engine::request::LoadOptions;
use crate::error::{Code, Error, Result};

/// Tokens of a prompt, and of an answer, unless flags tell.
const PROMPT: usize = 512;
const GENERATED: usize = 128;
/// Tokens of texts to embed, as far as a model takes them.
const TEXTS: [usize; 5] = [8, 32, 128, 256, 512];
/// Tokens of all texts that are embedded at once, unless a flag tells: enough to fill the engine's batches.
const TEXT_TOKENS: usize = 4096;

/// The tests of models that generate text.
pub fn of_generation(args: &BenchArgs) -> Result<Vec<Trial>> {
    let lengths = |given: &[usize], default: usize| match given {
        [] => vec![default],
        given => given.iter().copied().filter(|&tokens| tokens > 0).collect(),
    };
    let prompts = lengths(&args.prompt_tokens, PROMPT).into_iter().map(Work::Prompt);
    let generated = lengths(&args.generate_tokens, GENERATED).into_iter().map(Work::Generate);
    let works: Vec<Work> = prompts.chain(generated).collect();
    let mut trials = Vec::new();
    for &depth in if args.depth.is_empty() { &[0][..] } else { &args.depth } {
        for &work in &works {
            for &batch in if args.batch.is_empty() { &[1][..] } else { &args.batch } {
                add(&mut trials, Trial { depth, work, batch: batch as usize });
            }
        }
    }
    if trials.is_empty() {
        return Err(Error::new(Code::InvalidRequest, "there is nothing to measure")
            .hint("ask for prompt tokens with -p, for generated ones with -g, or for both"));
    }
    Ok(trials)
}

/// The tests of a model that makes vectors of texts of at most `longest` tokens.
pub fn of_embedding(args: &BenchArgs, longest: usize) -> Result<Vec<Trial>> {
    let asked = args.prompt_tokens.iter().copied().filter(|&tokens| tokens > 0);
    let lengths: Vec<usize> = if args.prompt_tokens.is_empty() {
        TEXTS.into_iter().filter(|&tokens| tokens <= longest).collect()
    } else {
        asked.collect()
    };
    if let Some(length) = lengths.iter().find(|&&length| length > longest) {
        return Err(Error::new(
            Code::InvalidRequest,
            format!("texts of {length} tokens are more than the {longest} that the model takes"),
        )
        .hint("ask for shorter ones with -p"));
    }
    let mut trials = Vec::new();
    for length in lengths {
        let filling = [filling(length)];
        let given: Vec<usize> = args.batch.iter().map(|&batch| batch as usize).collect();
        for &batch in if given.is_empty() { &filling[..] } else { &given } {
            add(&mut trials, Trial { depth: 0, work: Work::Embed(length), batch });
        }
    }
    if trials.is_empty() {
        return Err(Error::new(Code::InvalidRequest, "there is nothing to measure")
            .hint("ask for texts of some tokens with -p"));
    }
    Ok(trials)
}

/// Refuses what only makes sense of models that generate text.
pub fn check_embedding(args: &BenchArgs, model: &str) -> Result<()> {
    let refused = |what: &str| {
        let message = format!("{model} is an embedding model: {what}");
        Err(Error::new(Code::CapabilityMissing, message)
            .hint("measure how fast it makes vectors, with -p for the lengths of texts, and other models by themselves"))
    };
    if args.generate_tokens.iter().any(|&tokens| tokens > 0) {
        return refused("it generates no text to be timed with -g");
    }
    if args.depth.iter().any(|&depth| depth > 0) {
        return refused("it has no cache to be filled with --depth");
    }
    if !args.compare.against.is_empty() || !args.compare.against_command.is_empty() {
        return refused("it is not measured against other programs");
    }
    Ok(())
}

/// Refuses what does not fit the context, as far as that is known before the model is loaded: memory may make it
/// smaller.
pub fn check_context(trials: &[Trial], probed: &Probe, options: &LoadOptions) -> Result<()> {
    let demand = probed.demand.as_ref().filter(|_| probed.kind == Kind::Generation);
    let context = demand.map_or(usize::MAX, |demand| options.context.unwrap_or(demand.context));
    trials.iter().try_for_each(|trial| trial.check(context))
}

/// How many texts of this many tokens are embedded at once, unless a flag tells.
fn filling(tokens: usize) -> usize {
    (TEXT_TOKENS / tokens.max(1)).max(1)
}

fn add(trials: &mut Vec<Trial>, trial: Trial) {
    if !trials.contains(&trial) {
        trials.push(trial);
    }
}

/// `pp512`, `tg128`, `emb32`, with `@b4` where so many sequences at once are not what is usual, and `@d4096`
/// where the cache holds tokens.
pub fn name(trial: Trial) -> String {
    let (kind, usual) = match trial.work {
        Work::Prompt(_) => ("pp", 1),
        Work::Generate(_) => ("tg", 1),
        Work::Embed(tokens) => ("emb", filling(tokens)),
    };
    let batch = if trial.batch == usual { String::new() } else { format!("@b{}", trial.batch) };
    let depth = if trial.depth > 0 { format!("@d{}", trial.depth) } else { String::new() };
    format!("{kind}{}{batch}{depth}", trial.work.tokens())
}
