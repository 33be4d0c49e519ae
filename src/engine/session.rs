//! A loaded model that generates text, on a [thread of its own](super::thread).

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::engine::cache::KvCache;
use crate::engine::ffi::{array, heap};
use crate::engine::format::adapter::Adapter;
use crate::engine::format::checkpoint::Checkpoint;
use crate::engine::generate::draft::{DraftModel, Drafter, Source};
use crate::engine::generate::{Channel, Exchange, Generator, Identity, Next};
#[cfg(target_os = "linux")]
use crate::engine::kernels;
use crate::engine::layers::Backend;
use crate::engine::measure::Trial;
use crate::engine::outcome::{Event, Generation};
use crate::engine::policy::{self, Device, Machine, Policy, Warning};
use crate::engine::probe::{Demand, check_generating};
use crate::engine::request::{DraftOptions, GenerateRequest, LoadOptions};
use crate::engine::text::{ChatTemplate, Tokenizer};
use crate::engine::thread::{ModelThread, thread_lost};
use crate::engine::{memory, models, runtime};
use crate::error::{Code, Error, Result};

/// How often a long measurement looks whether it is to stop: rarely enough not to be measured.
const LOOK: Duration = Duration::from_millis(100);

/// A loaded model, ready to generate. Keeps the cache of the last conversation: a prompt that
/// begins with the same tokens is only computed from where it differs.
pub struct Engine {
    thread: ModelThread<Job>,
    policy: Policy,
}

enum Job {
    Generate {
        request: Box<GenerateRequest>,
        cancel: Arc<AtomicBool>,
        answers: Sender<Answer>,
    },
    Together {
        most: usize,
        requests: Receiver<(u64, GenerateRequest)>,
        cancel: Arc<AtomicBool>,
        answers: Sender<Together>,
    },
    Measure {
        trial: Trial,
        cancel: Arc<AtomicBool>,
        answers: Sender<Result<Option<f64>>>,
    },
    Clear,
    SaveCache {
        path: PathBuf,
        answers: Sender<Result<usize>>,
    },
    RestoreCache {
        path: PathBuf,
        answers: Sender<Result<usize>>,
    },
}

/// What comes of several requests.
enum Together {
    Answer(u64, Box<Result<Generation>>),
    End(Result<()>),
}

enum Answer {
    Event(Event),
    Done(Result<Generation>),
}

impl Engine {
    /// Loads the model at `path` (a folder or a .gguf file). `progress` gets (done, total) bytes.
    pub fn load(path: &Path, options: &LoadOptions, progress: &mut dyn FnMut(u64, u64)) -> Result<Self> {
        let (path, options) = (path.to_owned(), options.clone());
        let load = move |progress: &mut dyn FnMut(u64, u64)| load(&path, &options, progress);
        let (thread, policy) = ModelThread::start(load, work, progress)?;
        Ok(Self { thread, policy })
    }

    /// Seconds that loading took.
    pub fn load_seconds(&self) -> f64 {
        self.thread.load_seconds()
    }

    /// The most memory in bytes that the process has held.
    pub fn peak_bytes(&self) -> u64 {
        memory::peak_bytes()
    }

    /// Device, type, context and memory that were decided on.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Generates an answer. `on_event` sees text as it comes; `Break` ends generation with
    /// [`FinishReason::Interrupted`](crate::engine::outcome::FinishReason::Interrupted) and keeps what was computed.
    pub fn generate(
        &mut self,
        request: &GenerateRequest,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Generation> {
        let cancel = Arc::new(AtomicBool::new(false));
        let (answers, inbox) = channel();
        let job = Job::Generate { request: Box::new(request.clone()), cancel: Arc::clone(&cancel), answers };
        self.thread.send(job)?;
        loop {
            match inbox.recv() {
                Ok(Answer::Event(event)) => {
                    if on_event(event).is_break() {
                        cancel.store(true, Ordering::Relaxed);
                    }
                }
                Ok(Answer::Done(result)) => return result,
                Err(_) => return Err(thread_lost()),
            }
        }
    }

    /// Answers numbered requests as they come, at most `most` at once, until their channel is closed. `done`
    /// gets each answer, or what was wrong with its request, as soon as it has ended; an error of `done` ends
    /// the work, and so does `go_on` when it says no.
    ///
    /// # Errors
    /// That of `done`, INTERRUPTED, or what makes computing impossible.
    pub fn generate_together(
        &mut self,
        most: usize,
        requests: Receiver<(u64, GenerateRequest)>,
        done: &mut dyn FnMut(u64, Result<Generation>) -> Result<()>,
        go_on: &dyn Fn() -> bool,
    ) -> Result<()> {
        let cancel = Arc::new(AtomicBool::new(false));
        let (answers, inbox) = channel();
        self.thread.send(Job::Together { most, requests, cancel: Arc::clone(&cancel), answers })?;
        let outcome = loop {
            match inbox.recv_timeout(LOOK) {
                Ok(Together::Answer(number, answer)) => {
                    if let Err(error) = done(number, *answer) {
                        break Err(error);
                    }
                }
                Ok(Together::End(ended)) => break ended,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break Err(thread_lost()),
            }
            if !go_on() {
                break Err(Error::new(Code::Interrupted, "interrupted"));
            }
        };
        cancel.store(true, Ordering::Relaxed);
        outcome
    }

    /// Measures a piece of work: the seconds that it took, `None` if `go_on` said no meanwhile. The
    /// cached conversation is lost.
    pub fn measure(&mut self, trial: Trial, go_on: &dyn Fn() -> bool) -> Result<Option<f64>> {
        let cancel = Arc::new(AtomicBool::new(false));
        let (answers, inbox) = channel();
        self.thread.send(Job::Measure { trial, cancel: Arc::clone(&cancel), answers })?;
        loop {
            match inbox.recv_timeout(LOOK) {
                Ok(measured) => return measured,
                Err(RecvTimeoutError::Timeout) if go_on() => {}
                Err(RecvTimeoutError::Timeout) => cancel.store(true, Ordering::Relaxed),
                Err(RecvTimeoutError::Disconnected) => return Err(thread_lost()),
            }
        }
    }

    /// Forgets the cached conversation.
    pub fn clear(&mut self) -> Result<()> {
        self.thread.send(Job::Clear)
    }

    /// Writes what is remembered of the conversation to a file: how many tokens.
    pub fn save_cache(&mut self, path: &Path) -> Result<usize> {
        let (answers, inbox) = channel();
        self.thread.send(Job::SaveCache { path: path.to_owned(), answers })?;
        inbox.recv().map_err(|_| thread_lost())?
    }

    /// Goes on from what [`save_cache`](Self::save_cache) wrote: how many tokens.
    ///
    /// # Errors
    /// INVALID_REQUEST for a file of another model or other settings, INTEGRITY_FAILED for a damaged one.
    pub fn restore_cache(&mut self, path: &Path) -> Result<usize> {
        let (answers, inbox) = channel();
        self.thread.send(Job::RestoreCache { path: path.to_owned(), answers })?;
        inbox.recv().map_err(|_| thread_lost())?
    }
}

/// Does one job on the engine's thread. Who no longer waits for an answer needs none.
fn work(generator: &mut Generator, job: Job) {
    match job {
        Job::Clear => generator.clear(),
        Job::SaveCache { path, answers } => {
            let _ = answers.send(generator.save_cache(&path));
        }
        Job::RestoreCache { path, answers } => {
            let _ = answers.send(generator.restore_cache(&path));
        }
        Job::Measure { trial, cancel, answers } => {
            let measured = generator.measure(trial, &mut Channel { emit: &mut |_| (), cancel: &cancel });
            let _ = answers.send(measured);
        }
        Job::Together { most, requests, cancel, answers } => {
            let mut next = |wait: bool| next_of(&requests, wait, &cancel);
            let mut done = |number, answer| {
                if answers.send(Together::Answer(number, Box::new(answer))).is_err() {
                    cancel.store(true, Ordering::Relaxed);
                }
            };
            let mut exchange = Exchange { next: &mut next, done: &mut done, cancel: &cancel };
            let ended = generator.generate_together(most, &mut exchange);
            let _ = answers.send(Together::End(ended));
        }
        Job::Generate { request, cancel, answers } => {
            let mut emit = |event| {
                if answers.send(Answer::Event(event)).is_err() {
                    cancel.store(true, Ordering::Relaxed);
                }
            };
            let result = generator.generate(&request, &mut Channel { emit: &mut emit, cancel: &cancel });
            let _ = answers.send(Answer::Done(result));
        }
    }
}

/// The next request, waited for if that is wanted; none any more once it is cancelled.
fn next_of(requests: &Receiver<(u64, GenerateRequest)>, wait: bool, cancel: &AtomicBool) -> Next {
    loop {
        match requests.recv_timeout(if wait { LOOK } else { Duration::ZERO }) {
            Ok((number, request)) => return Next::Request(number, Box::new(request)),
            Err(RecvTimeoutError::Disconnected) => return Next::End,
            Err(RecvTimeoutError::Timeout) if cancel.load(Ordering::Relaxed) => return Next::End,
            Err(RecvTimeoutError::Timeout) if !wait => return Next::NotYet,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Probe, policy and weights. Tokenizer and template load beside the weights.
fn load(
    path: &Path,
    options: &LoadOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Generator, Policy)> {
    let mut checkpoint = Checkpoint::open(path)?;
    check_generating(&checkpoint)?;
    if let Some(packing) = options.quantize {
        checkpoint = checkpoint.quantized(packing)?;
    }
    let adapter = options.adapter.as_deref().map(Adapter::open).transpose()?;
    let machine = Machine::detect(runtime::has_gpu())?;
    let mut demand = Demand::of(&checkpoint);
    if let Some(adapter) = &adapter {
        demand.adapt(adapter, &checkpoint)?;
    }
    let draft_model = options.draft.as_ref().and_then(|draft| draft.model.as_deref());
    let draft_checkpoint = draft_model.map(Checkpoint::open).transpose()?;
    demand.draft = draft_checkpoint.as_ref().map(|draft| Box::new(Demand::of(draft)));
    let mut policy = policy::decide(&machine, options, &demand)?;
    if checkpoint.config.other_inputs {
        policy.warnings.push(Warning::TextOnly);
    }
    runtime::select(policy.device);
    if policy.device == Device::Gpu {
        runtime::hold(policy.estimate_bytes);
    }
    #[cfg(target_os = "linux")]
    if let Some(threads) = options.threads {
        kernels::pool::set_threads(threads);
    }
    let backend = Backend::of(policy.device == Device::Gpu);
    let (model, text) = thread::scope(|scope| {
        let text = scope.spawn(|| {
            let text = load_text(&checkpoint);
            // The weights are still to come: what making it took is not to be there beside them.
            heap::give_back();
            text
        });
        let dtype = array::dtype(policy.dtype);
        let model =
            models::load_adapted(&checkpoint, adapter.as_ref(), backend, dtype, policy.context, progress);
        (model, text.join().unwrap_or_else(|_| Err(Error::internal("the tokenizer's thread panicked"))))
    });
    let (model, (tokenizer, template)) = (model?, text?);
    let identity = Identity {
        model: checkpoint.digest(adapter.as_ref())?,
        settings: format!("{:?} {:?}", policy.dtype, options.cache),
    };
    let drafter = options
        .draft
        .as_ref()
        .map(|draft| drafter(draft, draft_checkpoint.as_ref(), &tokenizer, backend, &policy))
        .transpose()?;
    let mut end_of_turn = checkpoint.config.eos_token_ids.clone();
    end_of_turn.extend(tokenizer.end_tokens());
    let generator = Generator {
        vocabulary: checkpoint.config.vocab_size,
        context: policy.context,
        cache: KvCache::with_options(model.cache_shape(), &options.cache)?,
        cache_plan: policy.cache.clone(),
        cache_room: policy.cache_room,
        held: Vec::new(),
        last_prompt: None,
        drafter,
        identity,
        ahead: None,
        model,
        tokenizer: Arc::new(tokenizer),
        grammars: None,
        template,
        end_of_turn,
    };
    Ok((generator, policy))
}

/// What guesses tokens in advance: the model of this checkpoint, or what followed the same words before.
fn drafter(
    draft: &DraftOptions,
    checkpoint: Option<&Checkpoint>,
    tokenizer: &Tokenizer,
    backend: Backend,
    policy: &Policy,
) -> Result<Drafter> {
    let Some(checkpoint) = checkpoint else {
        return Ok(Drafter { source: Source::Lookup, most: draft.most });
    };
    let (own, _) = load_text(checkpoint)?;
    if let Some(id) = tokenizer.first_difference(&own) {
        return Err(Error::new(
            Code::InvalidRequest,
            format!("the draft model {} has other tokens, from {id} on", checkpoint.path().display()),
        )
        .hint("give a smaller model of the same family, with the same tokenizer, or --draft lookup"));
    }
    let context = checkpoint.config.max_position_embeddings.min(policy.context);
    let dtype = array::dtype(policy.dtype);
    let model = models::load(checkpoint, backend, dtype, context, &mut |_, _| ())?;
    let cache = KvCache::with_options(model.cache_shape(), &policy.cache.options.of_draft())?;
    let model = DraftModel { model, cache, held: Vec::new(), context };
    Ok(Drafter { source: Source::Model(Box::new(model)), most: draft.most })
}

/// Tokenizer and chat template, from a GGUF's metadata or the files of a folder.
fn load_text(checkpoint: &Checkpoint) -> Result<(Tokenizer, Option<ChatTemplate>)> {
    if let Some(metadata) = checkpoint.metadata() {
        let tokenizer = Tokenizer::from_gguf(metadata)?;
        let template = ChatTemplate::from_gguf(metadata, tokenizer.special_tokens());
        return Ok((tokenizer, template));
    }
    let folder = checkpoint.path();
    let tokenizer = Tokenizer::from_directory(folder)?;
    let template = ChatTemplate::from_directory(folder, tokenizer.special_tokens())?;
    Ok((tokenizer, template))
}
