//! A loaded embedding model, on a [thread of its own](crate::engine::thread).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

use mlx_rs::Dtype;

use super::EmbedOptions;
use super::modules::{Pipeline, Warning};
use super::states::{StateFiles, States};
use super::text::{TextEncoder, Tokens, tokenizer};
use crate::engine::ffi::check_results;
use crate::engine::format::layout::Layout;
#[cfg(target_os = "linux")]
use crate::engine::kernels;
use crate::engine::layers::Backend;
use crate::engine::layers::sequences::Batch;
use crate::engine::measure::{Synthetic, Trial};
use crate::engine::memory::peak_bytes;
use crate::engine::policy::{self, Device, Machine, Policy};
use crate::engine::probe::Steps;
use crate::engine::request::LoadOptions;
use crate::engine::runtime;
use crate::engine::thread::{ModelThread, thread_lost};
use crate::error::{Code, Error, Result};

/// More special tokens than any model puts around a text, for the memory gate. Other tokens have a byte at least.
const SPECIAL: usize = 4;
/// So many times the tokens are computed at once where little of each is in memory at the same time.
const GROUPED: usize = 4;

/// A loaded model, ready to embed.
pub struct Embedder {
    thread: ModelThread<Job>,
    loaded: Loaded,
}

/// What loading found out.
#[derive(Debug, Clone)]
struct Loaded {
    text: Arc<TextEncoder>,
    policy: Policy,
    dimensions: usize,
    pooling: String,
    normalized: bool,
    warnings: Vec<Warning>,
    /// Tokens that the model knows.
    vocabulary: usize,
}

struct Job {
    texts: Vec<Tokens>,
    cancel: Arc<AtomicBool>,
    answers: Sender<Answer>,
}

enum Answer {
    Progress(usize),
    Done(Result<Embedded>),
}

/// Vectors of some texts.
#[derive(Debug, Clone, Default)]
pub struct Embedded {
    /// One after the other, in the order of the texts.
    pub vectors: Vec<f32>,
    /// Largest memory in bytes so far: MLX's allocations, the process's resident peak.
    pub peak_bytes: u64,
}

impl Embedder {
    /// Loads the model at `path` (a folder or a .gguf file). `progress` gets (done, total) bytes.
    pub fn load(
        path: &Path,
        options: &LoadOptions,
        embedding: &EmbedOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let (path, options, embedding) = (path.to_owned(), options.clone(), embedding.clone());
        let load = move |progress: &mut dyn FnMut(u64, u64)| load(&path, &options, &embedding, progress);
        let (thread, loaded) = ModelThread::start(load, work, progress)?;
        Ok(Self { thread, loaded })
    }

    /// What makes tokens, to be used on other threads.
    pub fn text(&self) -> Arc<TextEncoder> {
        Arc::clone(&self.loaded.text)
    }

    /// Numbers in a vector.
    pub fn dimensions(&self) -> usize {
        self.loaded.dimensions
    }

    /// Names of the ways in which tokens become one vector.
    pub fn pooling(&self) -> &str {
        &self.loaded.pooling
    }

    /// Whether vectors have the length 1.
    pub fn is_normalized(&self) -> bool {
        self.loaded.normalized
    }

    pub fn warnings(&self) -> &[Warning] {
        &self.loaded.warnings
    }

    pub fn policy(&self) -> &Policy {
        &self.loaded.policy
    }

    /// Seconds that loading took.
    pub fn load_seconds(&self) -> f64 {
        self.thread.load_seconds()
    }

    /// The most memory in bytes that the process has held.
    pub fn peak_bytes(&self) -> u64 {
        peak_bytes()
    }

    /// Measures a piece of work on texts without a meaning: the seconds that it took.
    ///
    /// # Errors
    /// INVALID_REQUEST for texts that the model does not take, INTERRUPTED when `go_on` says no meanwhile.
    pub fn measure(&mut self, trial: Trial, go_on: &dyn Fn() -> bool) -> Result<f64> {
        let (length, longest) = (trial.work.tokens(), self.loaded.text.max_tokens());
        if !(1..=longest).contains(&length) {
            return Err(Error::new(
                Code::InvalidRequest,
                format!("texts of {length} tokens are not what the model takes: from 1 to {longest}"),
            )
            .hint("measure other lengths with -p"));
        }
        let mut synthetic = Synthetic::new(self.loaded.vocabulary);
        let text = |_| Tokens { ids: synthetic.tokens(length), truncated: false };
        let texts: Vec<Tokens> = (0..trial.batch).map(text).collect();
        let started = Instant::now();
        self.embed(texts, &mut |_| go_on())?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// The vectors of these texts. `progress` gets how many are done; when it gives `false`, the rest is
    /// not computed, and the answer is INTERRUPTED.
    pub fn embed(&mut self, texts: Vec<Tokens>, progress: &mut dyn FnMut(usize) -> bool) -> Result<Embedded> {
        let cancel = Arc::new(AtomicBool::new(false));
        let (answers, inbox) = channel();
        let job = Job { texts, cancel: Arc::clone(&cancel), answers };
        self.thread.send(job)?;
        loop {
            match inbox.recv() {
                Ok(Answer::Progress(done)) => {
                    if !progress(done) {
                        cancel.store(true, Ordering::Relaxed);
                    }
                }
                Ok(Answer::Done(result)) => return result,
                Err(_) => return Err(thread_lost()),
            }
        }
    }
}

/// What the engine's thread holds.
struct Worker {
    states: States,
    pipeline: Pipeline,
    backend: Backend,
    /// Tokens of a prompt that do not count in pooling.
    skipped: usize,
    dimensions: usize,
    batch_tokens: usize,
    batch_size: usize,
}

fn work(worker: &mut Worker, Job { texts, cancel, answers }: Job) {
    let result = worker.embed(&texts, &mut |done| {
        if answers.send(Answer::Progress(done)).is_err() {
            cancel.store(true, Ordering::Relaxed);
        }
        !cancel.load(Ordering::Relaxed)
    });
    let _ = answers.send(Answer::Done(result));
}

/// Pipeline, policy and weights. The tokenizer loads beside the weights.
fn load(
    path: &Path,
    options: &LoadOptions,
    embedding: &EmbedOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Worker, Loaded)> {
    let folder = match Layout::find(path) {
        // A folder with one GGUF file stands for that file.
        Ok(Layout::Gguf(_)) => None,
        // Without weights of its own, it may still name the folder that has them.
        _ => Some(path),
    };
    let (files, mut pipeline) = if let Some(folder) = folder {
        let pipeline = Pipeline::read(folder, embedding)?;
        (StateFiles::open(&pipeline.encoder)?, pipeline)
    } else {
        let files = StateFiles::open(path)?;
        let metadata = files.metadata().ok_or_else(|| Error::internal("a GGUF file without metadata"))?;
        let pipeline = Pipeline::of_gguf(path, metadata, files.tensors(), embedding)?;
        (files, pipeline)
    };
    if files.is_decoder() && pipeline.says_no_pooling {
        return Err(Error::new(
            Code::CapabilityMissing,
            format!("{} writes text and does not say how its tokens become a vector", path.display()),
        )
        .hint("use an embedding model, or say how with --pooling, such as last or mean"));
    }
    let machine = Machine::detect(runtime::has_gpu())?;
    let mut demand = files.demand()?;
    let longest = embedding.max_tokens.or(pipeline.max_tokens);
    demand.context = demand.context.min(longest.unwrap_or(usize::MAX));
    if let Some(lengths) = &embedding.lengths {
        let most = |bytes: &usize| (bytes + pipeline.prompt.len() + SPECIAL).min(demand.context);
        demand.working.steps = Steps::Texts(lengths.iter().map(most).sum());
    }
    let policy = policy::decide(&machine, options, &demand)?;
    runtime::select(policy.device);
    #[cfg(target_os = "linux")]
    if let Some(threads) = options.threads {
        kernels::pool::set_threads(threads);
    }
    let on_gpu = policy.device == Device::Gpu;
    let backend = Backend::of(on_gpu);
    let (states, tokenizer) = thread::scope(|scope| {
        let tokenizer = scope.spawn(|| tokenizer(&pipeline.encoder, files.metadata()));
        let states = files.load(backend, policy.dtype, progress);
        let lost = |_| Err(Error::internal("the tokenizer's thread panicked"));
        (states, tokenizer.join().unwrap_or_else(lost))
    });
    let (states, tokenizer) = (states?, tokenizer?);
    let folder = files.metadata().is_none().then_some(pipeline.encoder.as_path());
    let text = TextEncoder::new(
        tokenizer,
        &pipeline,
        folder,
        states.max_tokens(),
        embedding.max_tokens,
        embedding.truncate,
    )?;
    let dimensions = pipeline.fit(states.hidden())?;
    let loaded = Loaded {
        policy,
        dimensions,
        pooling: pipeline.pooling(),
        normalized: pipeline.normalizes(),
        warnings: pipeline.warnings.clone(),
        vocabulary: states.vocabulary(),
        text: Arc::new(text),
    };
    let worker = Worker {
        states,
        skipped: loaded.text.skipped,
        pipeline,
        backend,
        dimensions,
        batch_tokens: Steps::Texts(usize::MAX).longest(on_gpu),
        batch_size: embedding.batch_size.unwrap_or(usize::MAX).max(1),
    };
    Ok((worker, loaded))
}

impl Worker {
    /// The vectors of the texts, in their order. Texts of like length are computed together.
    fn embed(&mut self, texts: &[Tokens], progress: &mut dyn FnMut(usize) -> bool) -> Result<Embedded> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(texts[index].ids.len()));
        let mut vectors = vec![0.0; texts.len() * self.dimensions];
        let mut done = 0;
        while done < order.len() {
            let count = self.fitting(&order[done..], texts);
            let batch = &order[done..done + count];
            let ids: Vec<&[u32]> = batch.iter().map(|&index| texts[index].ids.as_slice()).collect();
            let found = self.compute(&ids)?;
            for (&index, vector) in batch.iter().zip(found.chunks_exact(self.dimensions)) {
                if !vector.iter().all(|value| value.is_finite()) {
                    return Err(Error::new(
                        Code::EmbeddingFailed,
                        "the vector of a text is not made of numbers",
                    )
                    .hint("the weights are damaged or not supported: get the model again")
                    .detail("text", index as u64));
                }
                vectors[index * self.dimensions..][..self.dimensions].copy_from_slice(vector);
            }
            done += count;
            if !progress(done) {
                return Err(Error::new(Code::Interrupted, "interrupted"));
            }
        }
        Ok(Embedded { vectors, peak_bytes: peak_bytes() })
    }

    /// How many of the next texts are computed together. They come longest first, and MLX's own operations
    /// pad all to the first one's length.
    fn fitting(&self, next: &[usize], texts: &[Tokens]) -> usize {
        let next = &next[..next.len().min(self.batch_size)];
        let length = |index: &usize| texts[*index].ids.len();
        let longest = next.first().map_or(1, length).max(1);
        let within = |most: usize| {
            let mut tokens = 0;
            let fit = next.iter().take_while(|index| {
                tokens += if self.backend == Backend::Kernels { length(index) } else { longest };
                tokens <= most
            });
            fit.count().max(1)
        };
        let many = within(self.batch_tokens * GROUPED);
        let tokens = next[..many].iter().map(length).sum();
        if self.states.computes_groups(self.backend, tokens, longest) {
            return many;
        }
        within(self.batch_tokens)
    }

    fn compute(&mut self, texts: &[&[u32]]) -> Result<Vec<f32>> {
        let batch = Batch::new(texts, self.backend)?;
        let states = self.states.forward(&batch)?.as_dtype(Dtype::Float32)?;
        states.eval()?;
        check_results()?;
        let states =
            states.try_as_slice::<f32>().map_err(|error| Error::internal(format!("states: {error}")))?;
        let hidden = self.states.hidden();
        let mut vectors = Vec::with_capacity(texts.len() * self.dimensions);
        let mut rest = states;
        for text in texts {
            let (own, others) = rest.split_at(text.len() * hidden);
            self.pipeline.vector(own, hidden, self.skipped, &mut vectors);
            rest = others;
        }
        Ok(vectors)
    }
}
