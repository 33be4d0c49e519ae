//! Many prompts in one run, several at a time: a line of JSON for each, in and out.

mod lines;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Instant;

use jiff::Timestamp;

use self::lines::{Asked, Common, Prompts};
use super::answer::Show;
use super::chat::Tally;
use super::inputs::Inputs;
use super::loaded::{Loaded, some};
use super::manner::Manner;
use super::parameters::Parameters;
use crate::cli::run::RunArgs;
use crate::commands::resolve::Resolved;
use crate::context::Context;
use crate::engine::outcome::{Generation, Usage};
use crate::engine::request::GenerateRequest;
use crate::error::{Code, Error, Result};
use crate::output::run::batch_figures;
use crate::report::ErrorReport;
use crate::report::run::{BatchId, BatchReport, BatchResult, MemoryReport};

/// Prompts that are answered at a time, unless a flag tells.
const AT_A_TIME: usize = 8;
/// How many prompts are read before the results of earlier ones are printed, for each that is answered at a
/// time: long enough that none of them waits, and a bound to what is held in memory.
const AHEAD: usize = 8;

/// Answers the prompts of the file at `path`.
pub fn run(
    args: &RunArgs,
    path: &Path,
    parameters: Parameters,
    inputs: &Inputs,
    manner: &Manner,
    model: &Resolved,
    context: &Context,
) -> Result<BatchReport> {
    let started_at = Timestamp::now();
    let common = Common {
        inputs: inputs.clone(),
        seed: parameters.draw().options.seed,
        parameters,
        system: args.system.clone().or_else(|| manner.system.clone()),
        turns: manner.turns.clone(),
        raw: args.raw,
    };
    let mut prompts = Prompts::open(path, common.clone())?;
    if prompts.is_file {
        check(prompts, path, context)?;
        prompts = Prompts::open(path, common)?;
    }
    let mut loaded = Loaded::load(model, args, manner.context, Show::Nothing, context)?;
    let begun = Instant::now();
    let most = at_a_time(args);
    let reading = Reading::start(prompts, most * AHEAD)?;
    let mut results = Results {
        context,
        hide_thinking: inputs.hide_thinking,
        in_order: !args.batch.unordered,
        announced: reading.announced,
        printed: reading.printed,
        waiting: BTreeMap::new(),
        ended: BTreeMap::new(),
        next: 0,
        tally: Tally::default(),
        report: BatchReport {
            model: model.reference.clone(),
            results: Vec::new(),
            count: 0,
            failed: 0,
            prompt_tokens: 0,
            generated_tokens: 0,
            load_s: loaded.engine.load_seconds(),
            total_s: 0.0,
            generated_tokens_per_s: 0.0,
            memory: MemoryReport { peak_bytes: 0, estimate_bytes: loaded.engine.policy().estimate_bytes },
        },
    };
    let answered = loaded.engine.generate_together(
        most,
        reading.requests,
        &mut |number, answer| results.take(number, answer),
        &|| !context.cancel.is_set(),
    );
    let Results { tally, mut report, .. } = results;
    report.total_s = begun.elapsed().as_secs_f64();
    report.generated_tokens_per_s = report.generated_tokens as f64 / report.total_s.max(f64::MIN_POSITIVE);
    report.memory.peak_bytes = loaded.engine.peak_bytes();
    if report.count > 0 {
        loaded.record(started_at, &Tally { total_s: report.total_s, ..tally }, context);
    }
    // The end of reading is known only once all that was read is answered.
    answered
        .and_then(|()| reading.ended.recv().unwrap_or_else(|_| Err(Error::internal("the reader is lost"))))?;
    if report.count == 0 {
        return Err(nothing(path));
    }
    if report.failed > 0 {
        let BatchReport { failed, count, .. } = report;
        context.output.warn(format!("{failed} of {count} prompts were not answered: their results say why"));
    }
    if context.output.is_verbose() {
        context.output.detail(batch_figures(&report));
    }
    Ok(report)
}

/// How many prompts are answered at a time.
pub(super) fn at_a_time(args: &RunArgs) -> usize {
    args.batch.batch_size.map_or(AT_A_TIME, |size| size as usize)
}

/// Looks for lines that are none before anything is loaded.
fn check(mut prompts: Prompts, path: &Path, context: &Context) -> Result<()> {
    let mut count = 0;
    while prompts.next()?.is_some() {
        context.cancel.check()?;
        count += 1;
    }
    if count == 0 { Err(nothing(path)) } else { Ok(()) }
}

fn nothing(path: &Path) -> Error {
    Error::new(Code::InvalidRequest, format!("there is no prompt in {}", path.display()))
        .hint("give one JSON object a line, such as {\"prompt\": \"Name a village\"}")
}

/// What is known of a prompt beside its request.
struct Announced {
    line: u64,
    id: Option<BatchId>,
    seed: u64,
}

/// A thread that reads prompts, never far ahead of what is printed.
struct Reading {
    requests: Receiver<(u64, GenerateRequest)>,
    announced: Receiver<(u64, Announced)>,
    /// Told for each result that is printed.
    printed: Sender<()>,
    /// Whether the input was read to its end.
    ended: Receiver<Result<()>>,
}

impl Reading {
    fn start(prompts: Prompts, ahead: usize) -> Result<Self> {
        let (to_engine, requests) = sync_channel(1);
        let (announce, announced) = channel();
        let (printed, permits) = channel();
        let (end, ended) = channel();
        for _ in 0..ahead {
            let _ = printed.send(());
        }
        // It is left behind when the work ends early: nothing wakes it from waiting for standard input.
        thread::Builder::new()
            .name("prompts".to_owned())
            .spawn(move || {
                let _ = end.send(read(prompts, &to_engine, &announce, &permits));
            })
            .map_err(|error| Error::internal(format!("cannot start a thread to read prompts: {error}")))?;
        Ok(Self { requests, announced, printed, ended })
    }
}

fn read(
    mut prompts: Prompts,
    to_engine: &SyncSender<(u64, GenerateRequest)>,
    announce: &Sender<(u64, Announced)>,
    permits: &Receiver<()>,
) -> Result<()> {
    let mut number = 0;
    // A closed channel means that nobody wants more.
    while permits.recv().is_ok() {
        let Some(Asked { line, id, request }) = prompts.next()? else { break };
        let announced = Announced { line, id, seed: request.sampling.seed };
        if announce.send((number, announced)).is_err() || to_engine.send((number, request)).is_err() {
            break;
        }
        number += 1;
    }
    Ok(())
}

/// Puts results out.
struct Results<'a> {
    context: &'a Context,
    hide_thinking: bool,
    in_order: bool,
    announced: Receiver<(u64, Announced)>,
    printed: Sender<()>,
    /// Prompts that are not answered yet.
    waiting: BTreeMap<u64, Announced>,
    /// Results before which others are to be printed.
    ended: BTreeMap<u64, BatchResult>,
    /// The number of the next to be printed.
    next: u64,
    tally: Tally,
    report: BatchReport,
}

impl Results<'_> {
    fn take(&mut self, number: u64, answer: Result<Generation>) -> Result<()> {
        let result = self.result(number, answer)?;
        if !self.in_order {
            return self.put(result);
        }
        self.ended.insert(number, result);
        while let Some(result) = self.ended.remove(&self.next) {
            self.next += 1;
            self.put(result)?;
        }
        Ok(())
    }
    /// The line that a prompt gets.
    fn result(&mut self, number: u64, answer: Result<Generation>) -> Result<BatchResult> {
        self.waiting.extend(self.announced.try_iter());
        let Some(Announced { line, id, seed }) = self.waiting.remove(&number) else {
            return Err(Error::internal("an answer to a prompt that nobody has read"));
        };
        self.report.count += 1;
        let mut generation = match answer {
            Ok(generation) => generation,
            // What is wrong with this prompt alone.
            Err(error) if matches!(error.code(), Code::InvalidRequest | Code::CapabilityMissing) => {
                self.report.failed += 1;
                return Ok(BatchResult {
                    line,
                    id,
                    text: None,
                    reasoning: None,
                    finish_reason: None,
                    logprobs: Vec::new(),
                    usage: Usage::default(),
                    seed,
                    error: Some(ErrorReport::from(&error)),
                });
            }
            Err(error) => return Err(error.context(format!("line {line}")).detail("line", line)),
        };
        self.tally.add(&generation);
        self.report.prompt_tokens += generation.usage.prompt_tokens as u64;
        self.report.generated_tokens += generation.usage.generated_tokens as u64;
        if self.hide_thinking {
            generation.reasoning.clear();
        }
        Ok(BatchResult {
            line,
            id,
            text: Some(generation.text),
            reasoning: some(generation.reasoning),
            finish_reason: Some(generation.finish_reason),
            logprobs: generation.logprobs,
            usage: generation.usage,
            seed,
            error: None,
        })
    }

    fn put(&mut self, result: BatchResult) -> Result<()> {
        // Nobody reads further when the reader has ended.
        let _ = self.printed.send(());
        if self.context.output.is_json() {
            self.report.results.push(result);
            return Ok(());
        }
        self.context.output.event(&result)
    }
}
