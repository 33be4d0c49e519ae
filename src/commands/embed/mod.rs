//! `embed`: vectors of texts.

mod compare;
mod input;
mod part;
mod sink;
mod stream;
mod vectors;

use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;

use self::input::Input;
use self::sink::Sink;
use self::stream::{Reader, Window};
use self::vectors::VectorWriter;
use crate::cli::embed::{EmbedArgs, Format, VectorType};
use crate::commands::loading::{self, WORTH_A_BAR};
use crate::commands::pull::auto::resolve_or_pull;
use crate::commands::resolve::Resolved;
use crate::commands::session;
use crate::context::Context;
use crate::engine::embed::{EmbedOptions, Embedder, Prompt};
use crate::engine::request::LoadOptions;
use crate::error::{Code, Error, Result};
use crate::output::embed::figures;
use crate::output::progress::{Progress, Unit};
use crate::registry::NewSession;
use crate::report::embed::{EmbedReport, EmbedTimings, EmbedUsage, OutputReport};
use crate::report::run::MemoryReport;
use crate::store::Store;

pub fn run(args: &EmbedArgs, context: &Context) -> Result<EmbedReport> {
    let format = check(args, context)?;
    let mut input = Input::open(args)?;
    let model = resolve_or_pull(&args.model, args.engine.yes, context)?;
    let started_at = Timestamp::now();
    let embedder = load(args, &model, context)?;
    let begun = Instant::now();
    let mut run = Run {
        bar: Bar::new(input.bytes.take(), context),
        model,
        embedder,
        context,
        usage: EmbedUsage::default(),
        peak_bytes: 0,
        count: 0,
        computed: EmbedUsage::default(),
    };
    let mut report = run.make(args, format, input)?;
    let seconds = begun.elapsed().as_secs_f64();
    run.bar.clear();
    report.timings = EmbedTimings {
        load_s: run.embedder.load_seconds(),
        embed_s: seconds,
        total_s: run.embedder.load_seconds() + seconds,
        texts_per_s: run.count as f64 / seconds,
        tokens_per_s: run.computed.tokens as f64 / seconds,
    };
    run.record(started_at, &report);
    if context.output.is_verbose() {
        context.output.detail(figures(&report));
    }
    Ok(report)
}

/// Finds flags that contradict each other before anything is loaded; the format to write.
fn check(args: &EmbedArgs, context: &Context) -> Result<Format> {
    let output = &args.output;
    let refused = |message: &str, hint: &str| Err(Error::new(Code::InvalidRequest, message).hint(hint));
    let to_file = output.output.is_some();
    let compares = args.tools.similarity.is_some() || args.tools.nearest.is_some();
    let chosen = output.format.is_some() || output.dtype != VectorType::F32;
    if compares && (to_file || chosen) {
        return refused(
            "comparing prints what it finds, no vectors",
            "leave --output, --format and --dtype out, or run the command once more without comparing",
        );
    }
    if args.tools.nearest == Some(0) {
        return refused("the 0 nearest vectors are none", "ask for at least one with --nearest");
    }
    if args.engine.batch_size == Some(0) {
        return refused("batches of 0 texts never end", "ask for at least one text with --batch-size");
    }
    let format = output.format.unwrap_or_else(|| by_ending(output.output.as_deref()));
    if format == Format::F32 && output.dtype != VectorType::F32 {
        return refused("--format f32 is nothing but float32", "choose --format npy for other types");
    }
    if context.output.is_json() && chosen && !to_file {
        return refused(
            "--json prints vectors inside the report, as numbers",
            "leave --format and --dtype out, or write vectors to a file with --output",
        );
    }
    let is_binary = !matches!(format, Format::Json | Format::Jsonl | Format::Csv);
    if is_binary && !to_file && !compares && !context.output.is_json() && context.output.is_terminal() {
        return refused(
            "a terminal shows no binary formats",
            "write to a file with --output, or choose --format json",
        );
    }
    Ok(format)
}

fn by_ending(path: Option<&Path>) -> Format {
    match path.and_then(Path::extension).and_then(|ending| ending.to_str()) {
        Some("jsonl" | "ndjson") => Format::Jsonl,
        Some("csv") => Format::Csv,
        Some("npy") => Format::Npy,
        Some("npz") => Format::Npz,
        Some("safetensors") => Format::Safetensors,
        Some("f32" | "bin" | "raw") => Format::F32,
        _ => Format::Json,
    }
}

fn load(args: &EmbedArgs, model: &Resolved, context: &Context) -> Result<Embedder> {
    let settings = &context.settings;
    let options = LoadOptions {
        device: args.engine.device.unwrap_or(settings.device.value),
        memory_limit: args.engine.memory_limit.or(settings.memory_limit.value),
        force: args.engine.force,
        threads: args.engine.threads.or(settings.threads.value),
        ..LoadOptions::default()
    };
    let vectors = &args.vectors;
    let embedding = EmbedOptions {
        prompt: match (&vectors.prompt, &vectors.prompt_text) {
            (_, Some(text)) => Prompt::Text(text.clone()),
            (Some(name), None) => Prompt::Named(name.clone()),
            (None, None) => Prompt::Default,
        },
        pooling: vectors.pooling,
        dimensions: vectors.dimensions,
        normalize: match (vectors.normalize, vectors.no_normalize) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        truncate: vectors.truncate,
        max_tokens: vectors.max_length,
        batch_size: args.engine.batch_size,
        // What comes from a file or a pipe is not known yet.
        lengths: (!args.texts.is_empty() && args.texts != ["-"])
            .then(|| args.texts.iter().map(String::len).collect()),
    };
    let mut bar = loading::bar(&model.reference, context);
    let embedder = Embedder::load(&model.path, &options, &embedding, &mut bar)?;
    drop(bar);
    context.cancel.check()?;
    for warning in &embedder.policy().warnings {
        context.output.warn(warning);
    }
    for warning in embedder.warnings() {
        context.output.warn(warning);
    }
    Ok(embedder)
}

/// One run of the command, with the model loaded.
struct Run<'a> {
    model: Resolved,
    embedder: Embedder,
    context: &'a Context,
    bar: Bar<'a>,
    /// Of the whole result.
    usage: EmbedUsage,
    /// Vectors that this process made, and their tokens.
    count: u64,
    computed: EmbedUsage,
    peak_bytes: u64,
}

impl Run<'_> {
    fn make(&mut self, args: &EmbedArgs, format: Format, input: Input) -> Result<EmbedReport> {
        let width = self.embedder.dimensions();
        let writer = VectorWriter::new(format, args.output.dtype, width, &args.output.output_field);
        let tools = &args.tools;
        if let Some(path) = &args.output.output {
            let sink = Sink::file(writer, path, self.made_with(args, format), args.output.resume)?;
            return self.write_file(args, path, format, sink, input);
        }
        if tools.similarity.is_none() && tools.nearest.is_none() && !self.context.output.is_json() {
            let store = Store::at(&self.context.settings.home.value);
            let mut sink = Sink::stdout(writer, &self.context.output, &store.incomplete())?;
            self.stream(Reader::new(input), &mut sink)?;
            sink.finish()?;
            return Ok(self.report());
        }
        let vectors = self.collect(Reader::new(input))?;
        let mut report = self.report();
        if let Some(how) = tools.similarity {
            report.similarity = Some(compare::similarity(&vectors, width, how)?);
        } else if let (Some(count), Some(file)) = (tools.nearest, &tools.against) {
            report.nearest = Some(compare::nearest(&vectors, width, count, file, &self.context.cancel)?);
        } else {
            report.embeddings = Some(vectors.chunks_exact(width).map(<[f32]>::to_vec).collect());
        }
        Ok(report)
    }

    fn write_file(
        &mut self,
        args: &EmbedArgs,
        path: &Path,
        format: Format,
        mut sink: Sink,
        input: Input,
    ) -> Result<EmbedReport> {
        let mut reader = Reader::new(input);
        let resumed = sink.reached().clone();
        if resumed.records > 0 {
            reader.skip(resumed.records, resumed.skipped, &resumed.texts, &self.context.cancel)?;
            self.context.output.note(format!("going on after {} vectors", resumed.rows));
        }
        if let Err(error) = self.stream(reader, &mut sink) {
            // What was written is worth going on with. The error that ended the run is the one to tell.
            let kept = sink.reached().rows > 0 && sink.save().is_ok();
            if kept && error.code() != Code::Internal {
                let begun = format!("{} vectors are kept in {}.part", sink.reached().rows, path.display());
                self.context.output.note(format!("{begun}: --resume goes on with them"));
            }
            return Err(error);
        }
        let reached = sink.reached().clone();
        let bytes = sink.finish()?;
        let mut report = self.report();
        report.count = reached.rows;
        report.usage =
            EmbedUsage { tokens: reached.tokens, truncated: reached.truncated, skipped: reached.skipped };
        report.output = Some(OutputReport {
            path: path.display().to_string(),
            format: format.name(),
            dtype: args.output.dtype.name(),
            bytes,
            resumed: resumed.rows,
        });
        Ok(report)
    }

    /// Everything that the content of a file depends on, besides the texts.
    fn made_with(&self, args: &EmbedArgs, format: Format) -> String {
        let text = self.embedder.text();
        format!(
            "{} {} bytes; {} {} {:?}; {} tokens {:?}; {} {} {} {:?}; {:?}",
            self.model.path.display(),
            self.embedder.policy().weights_bytes,
            self.embedder.pooling(),
            self.embedder.dimensions(),
            self.embedder.is_normalized(),
            text.max_tokens(),
            args.vectors.truncate,
            format.name(),
            args.output.dtype.name(),
            args.output.output_field,
            args.input.empty,
            text.prompt(),
        )
    }

    /// Embeds all texts, window by window.
    fn stream(&mut self, reader: Reader, sink: &mut Sink) -> Result<()> {
        let width = self.embedder.dimensions();
        let windows = reader.start(self.embedder.text())?;
        while let Some(window) = windows.next(&self.context.cancel)? {
            let (window, vectors, computed) = self.embed(window)?;
            sink.add(&window.records, &vectors, width, computed.tokens, computed.truncated, &window.read)?;
        }
        Ok(())
    }

    /// Embeds all texts into memory.
    fn collect(&mut self, reader: Reader) -> Result<Vec<f32>> {
        let windows = reader.start(self.embedder.text())?;
        let mut all = Vec::new();
        while let Some(window) = windows.next(&self.context.cancel)? {
            all.extend(self.embed(window)?.1);
        }
        Ok(all)
    }

    fn embed(&mut self, mut window: Window) -> Result<(Window, Vec<f32>, EmbedUsage)> {
        let tokens = std::mem::take(&mut window.tokens);
        let computed = EmbedUsage {
            tokens: tokens.iter().map(|text| text.ids.len() as u64).sum(),
            truncated: tokens.iter().filter(|text| text.truncated).count() as u64,
            skipped: 0,
        };
        let cancel = &self.context.cancel;
        let embedded = self.embedder.embed(tokens, &mut |_| !cancel.is_set())?;
        self.peak_bytes = embedded.peak_bytes;
        self.count += window.records.len() as u64;
        self.computed.tokens += computed.tokens;
        self.usage.tokens += computed.tokens;
        self.usage.truncated += computed.truncated;
        self.usage.skipped = window.read.skipped;
        self.bar.show(window.read.position);
        Ok((window, embedded.vectors, computed))
    }

    /// What is known so far; durations come last.
    fn report(&self) -> EmbedReport {
        EmbedReport {
            model: self.model.reference.clone(),
            dimensions: self.embedder.dimensions(),
            count: self.count,
            embeddings: None,
            similarity: None,
            nearest: None,
            output: None,
            pooling: self.embedder.pooling().to_owned(),
            normalized: self.embedder.is_normalized(),
            prompt: self.embedder.text().prompt().to_owned(),
            usage: self.usage,
            timings: EmbedTimings {
                load_s: 0.0,
                embed_s: 0.0,
                total_s: 0.0,
                texts_per_s: 0.0,
                tokens_per_s: 0.0,
            },
            memory: MemoryReport {
                peak_bytes: self.peak_bytes,
                estimate_bytes: self.embedder.policy().estimate_bytes,
            },
        }
    }

    /// Writes down that the model was used.
    fn record(&self, started_at: Timestamp, report: &EmbedReport) {
        let session = NewSession {
            snapshot: self.model.snapshot,
            reference: &self.model.reference,
            command: "embed",
            started_at,
            prompt_tokens: self.computed.tokens,
            cached_tokens: 0,
            generated_tokens: 0,
            load_s: report.timings.load_s,
            ttft_s: 0.0,
            total_s: report.timings.embed_s,
        };
        session::record(&session, self.context);
    }
}

/// A progress bar for work that takes long.
struct Bar<'a> {
    bytes: Option<u64>,
    context: &'a Context,
    started: Instant,
    shown: Option<Progress>,
}

impl<'a> Bar<'a> {
    fn new(bytes: Option<u64>, context: &'a Context) -> Self {
        Self { bytes, context, started: Instant::now(), shown: None }
    }

    fn show(&mut self, position: u64) {
        if self.started.elapsed() > WORTH_A_BAR {
            let output = &self.context.output;
            let bar = self.shown.get_or_insert_with(|| output.progress("embedding", self.bytes, Unit::Bytes));
            bar.set(position);
        }
    }

    fn clear(&mut self) {
        self.shown = None;
    }
}
