//! A model of Ollama's, measured by the counters of its server.

use fastrand::Rng;

use crate::commands::bench::trials::name;
use crate::context::Context;
use crate::engine::measure::{Trial, Work};
use crate::error::{Code, Error, Result};
use crate::hub::ollama::{Counters, Generate, Ollama};
use crate::settings::variables::OLLAMA_HOST;

/// Common English words, most of them one token in the vocabularies of today's models.
const WORDS: [&str; 32] = [
    "the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not",
    "he", "this", "are", "or", "his", "from", "at", "which", "but", "have", "an", "had", "they", "you",
    "were", "one",
];
/// Words of the first prompt, which loads the model and tells how many tokens a word is.
const FIRST: usize = 64;
/// Words before an answer where no depth is asked for.
const BEGINNING: usize = 8;
/// Answers whose tokens count together at most: a model may end each of them soon, and its end cannot be ignored.
const ANSWERS: usize = 16;

/// A model that a server has.
#[derive(Debug)]
pub struct Served {
    server: Ollama,
    model: String,
    /// Tokens of context in all requests: another number would load the model anew.
    context: usize,
    threads: Option<usize>,
    tokens_per_word: f64,
    /// Unseeded: it keeps what it computed for beginnings that it has seen, in earlier runs too.
    random: Rng,
    load: Option<f64>,
    has_warned: bool,
}

/// Whether its counters can tell what the trial measures.
pub fn takes(trial: Trial) -> bool {
    trial.depth == 0 || matches!(trial.work, Work::Generate(_))
}

impl Served {
    /// Finds the server and the model, and has it loaded; with what the server says of both.
    ///
    /// # Errors
    /// INVALID_REQUEST if no server answers, MODEL_NOT_FOUND if it has no such model.
    pub fn find(
        model: &str,
        trials: &[Trial],
        threads: Option<usize>,
        context: &Context,
    ) -> Result<(Self, String)> {
        let check = || context.cancel.check();
        let host = context.environment.text(OLLAMA_HOST);
        let server = Ollama::new(host.as_deref(), context.settings.offline.value)?;
        let version = server.version(&check).map_err(|error| match error.code() {
            Code::ServerCrashed => Error::new(Code::InvalidRequest, error.message())
                .detail("server", server.address())
                .hint("start it with `ollama serve`, or say with OLLAMA_HOST where it is"),
            _ => error,
        })?;
        let quantization = server.quantization(model, &check)?;
        let about = match quantization {
            Some(level) => format!("Ollama {version}, {level}"),
            None => format!("Ollama {version}"),
        };
        for trial in trials.iter().filter(|trial| trial.batch == 1 && !takes(**trial)) {
            context.output.warn(format!(
                "Ollama does not tell how fast it reads a prompt beyond a filled cache: {} is not held against it",
                name(*trial)
            ));
        }
        let longest = trials.iter().map(Trial::tokens).max().unwrap_or_default();
        let was_loaded = server.has_loaded(model, &check)?;
        let mut served = Self {
            server,
            model: model.to_owned(),
            // Words are not exactly tokens.
            context: longest + longest / 4 + 2 * FIRST,
            threads,
            tokens_per_word: 1.0,
            random: Rng::new(),
            load: None,
            has_warned: false,
        };
        let bar = context.output.progress(
            &format!("loading ollama:{model}"),
            None,
            crate::output::progress::Unit::Items,
        );
        let counters = served.ask(FIRST, 1, context)?;
        drop(bar);
        served.load = (!was_loaded && counters.load_duration > 0).then(|| seconds(counters.load_duration));
        Ok((served, about))
    }

    pub fn take_load(&mut self) -> Option<f64> {
        self.load.take()
    }

    /// Does the work once; tokens per second.
    ///
    /// # Errors
    /// SERVER_CRASHED if the server stops, or tells no speed.
    pub fn measure(&mut self, trial: Trial, context: &Context) -> Result<f64> {
        let (wanted, count, duration) = match trial.work {
            Work::Prompt(tokens) | Work::Embed(tokens) => {
                let counters = self.ask(tokens, 1, context)?;
                (tokens, counters.prompt_eval_count, counters.prompt_eval_duration)
            }
            Work::Generate(tokens) => {
                // To read a long beginning again would take longer than what is measured.
                let answers = if trial.depth > BEGINNING { 1 } else { ANSWERS };
                let (mut count, mut duration) = (0_u64, 0_u64);
                for _ in 0..answers {
                    let missing = tokens.saturating_sub(count as usize);
                    let counters = self.ask(trial.depth.max(BEGINNING), missing, context)?;
                    count = count.saturating_add(counters.eval_count);
                    duration = duration.saturating_add(counters.eval_duration);
                    if counters.eval_count == 0 || count >= tokens as u64 {
                        break;
                    }
                }
                (tokens, count, duration)
            }
        };
        if count == 0 || duration == 0 {
            let message = format!("Ollama told no speed of {} for {}", self.model, name(trial));
            return Err(Error::new(Code::ServerCrashed, message).hint("look at what Ollama says in its log"));
        }
        if count < wanted as u64 / 2 && !self.has_warned {
            self.has_warned = true;
            context.output.warn(format!(
                "ollama:{} did {count} of {wanted} tokens in {}: its speed is that of fewer",
                self.model,
                name(trial)
            ));
        }
        Ok(count as f64 / seconds(duration))
    }

    /// One request with a prompt of about so many tokens, which begins as no other did.
    fn ask(&mut self, prompt: usize, generate: usize, context: &Context) -> Result<Counters> {
        let words = ((prompt as f64 / self.tokens_per_word).round() as usize).max(1);
        let mut text = format!("{:08x}", self.random.u32(..));
        for _ in 0..words {
            text.push(' ');
            text.push_str(self.random.choice(WORDS).unwrap_or("the"));
        }
        let request = Generate {
            model: &self.model,
            prompt: &text,
            tokens: generate,
            context: self.context,
            threads: self.threads,
        };
        let counters = self.server.generate(request, &|| context.cancel.check())?;
        if words >= FIRST && counters.prompt_eval_count > 0 {
            // Bounds against a count that is of something else.
            self.tokens_per_word = (counters.prompt_eval_count as f64 / words as f64).clamp(0.5, 4.0);
        }
        Ok(counters)
    }
}

/// Of nanoseconds.
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
