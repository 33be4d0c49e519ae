//! The only code that prints: reports as text or JSON, errors, warnings, progress, streamed answers.
//!
//! stdout is data, stderr is everything else. When the reader of stdout goes away (`| head`), printing
//! stops and the program ends without a word, with the status that a process has which SIGPIPE ended.

mod add;
pub mod bench;
pub mod chart;
mod completions;
mod config;
mod dedupe;
mod doctor;
pub mod embed;
mod export;
mod gc;
mod import;
mod link;
mod list;
mod man;
pub mod page;
mod path;
pub mod progress;
mod pull;
mod recommend;
mod rm;
pub mod run;
mod show;
mod status;
pub mod units;
mod verify;

use std::fmt::Display;
use std::io::{self, BufRead, BufWriter, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{MultiProgress, ProgressDrawTarget};
use serde::Serialize;

use crate::error::{Code, Error, Result};
use crate::report::{Envelope, Report};

use self::page::{Human, Page};
use self::progress::{Progress, Unit};

/// 128 + SIGPIPE: what a shell shows for coreutils in the same place.
const READER_GONE: u8 = 141;

/// As much as a pipe takes at once.
const BUFFER: usize = 64 << 10;

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ColorChoice {
    /// On terminals.
    #[default]
    Auto,
    Always,
    Never,
}

impl ColorChoice {
    fn for_stream(self, is_terminal: bool) -> bool {
        match self {
            Self::Auto => is_terminal,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// How to print; what the global flags say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    pub json: bool,
    pub color: ColorChoice,
    pub quiet: bool,
    pub verbose: bool,
}

/// The printer.
#[derive(Debug)]
pub struct Output {
    style: Style,
    stdout_color: bool,
    stderr_color: bool,
    reader_gone: AtomicBool,
    bars: MultiProgress,
}

impl Output {
    pub fn new(style: Style) -> Self {
        let draws = io::stderr().is_terminal() && !style.quiet && !style.json;
        let target = if draws { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self {
            style,
            stdout_color: !style.json && style.color.for_stream(io::stdout().is_terminal()),
            stderr_color: style.color.for_stream(io::stderr().is_terminal()),
            reader_gone: AtomicBool::new(false),
            bars: MultiProgress::with_draw_target(target),
        }
    }

    /// Whether stdout gets JSON and nothing else.
    pub fn is_json(&self) -> bool {
        self.style.json
    }

    /// Whether stdout is a terminal.
    pub fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    pub fn is_verbose(&self) -> bool {
        self.style.verbose
    }

    /// Prints a command's report: its text, or the envelope around it. Returns the exit status.
    pub fn report(&self, report: &Report) -> u8 {
        if self.style.json {
            // Never as a whole in memory: a report can be long.
            let written = self.write(|stdout| {
                serde_json::to_writer(&mut *stdout, &Envelope::ok(report))?;
                stdout.write_all(b"\n")
            });
            return self.done(written, report.exit_status());
        }
        let mut page = Page::for_stdout(self.stdout_color);
        human(report).human(&mut page);
        self.finish(&page.into_text(), report.exit_status())
    }

    /// Prints a failure: two lines on stderr, or the envelope. Returns the exit status.
    pub fn error(&self, command: Option<&str>, error: &Error) -> u8 {
        let status = error.code().exit_status();
        if self.reader_gone.load(Ordering::Relaxed) {
            return READER_GONE;
        }
        if self.style.json {
            return self.finish(&json_line(&Envelope::error(command, error)), status);
        }
        // Whoever presses Ctrl-C knows why the program ended.
        if error.code() != Code::Interrupted {
            let mut page = Page::for_stderr(self.stderr_color);
            page.labelled(page::ERROR, "error", error.message());
            if let Some(hint) = error.hint_text() {
                page.labelled(page::HINT, "hint", hint);
            }
            self.to_stderr(&page.into_text());
        }
        status
    }

    /// Prints text that stands for itself, such as help or the version. Returns the exit status.
    pub fn help(&self, plain: &str, colored: &str) -> u8 {
        let color = self.style.color.for_stream(io::stdout().is_terminal());
        self.finish(if color { colored } else { plain }, 0)
    }

    /// Something the user should know although the command goes on.
    pub fn warn(&self, message: impl Display) {
        if !self.style.quiet {
            let mut page = Page::for_stderr(self.stderr_color);
            page.labelled(page::WARNING, "warning", &message.to_string());
            self.to_stderr(&page.into_text());
        }
    }

    /// A remark that is not part of the data.
    pub fn note(&self, message: impl Display) {
        if !self.style.quiet {
            self.to_stderr(&format!("{message}\n"));
        }
    }

    /// A remark for `--verbose`.
    pub fn detail(&self, message: impl Display) {
        if self.style.verbose {
            self.to_stderr(&format!("{message}\n"));
        }
    }

    /// Shows on stderr what a command is about to do, so that [`Output::confirm`] can ask for it afterwards, or what it
    /// did before it failed.
    pub fn plan(&self, plan: &impl Human) {
        if !self.style.quiet && !self.style.json {
            let mut page = Page::for_stderr(self.stderr_color);
            plan.human(&mut page);
            self.to_stderr(&page.into_text());
        }
    }

    /// Asks a yes-or-no question on the terminal; anything but yes is no.
    ///
    /// Where nobody can answer it is an INVALID_REQUEST that asks for `--yes`. It blocks on the
    /// terminal: call it inside [`crate::cancel::Cancel::while_waiting`].
    pub fn confirm(&self, question: &str) -> Result<bool> {
        if !self.can_ask() {
            return Err(Error::new(
                Code::InvalidRequest,
                format!("cannot ask \"{question}\": there is no terminal to answer on"),
            )
            .hint("give --yes to agree beforehand"));
        }
        self.to_stderr(&format!("{question} [y/N] "));
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|error| Error::new(Code::IoError, format!("cannot read the answer: {error}")))?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }

    /// Whether somebody can answer a question.
    pub fn can_ask(&self) -> bool {
        !self.style.json && io::stdin().is_terminal()
    }

    /// A progress bar, drawn only on a terminal and gone when dropped.
    ///
    /// `total` is in `unit`s; without it a spinner turns.
    pub fn progress(&self, label: &str, total: Option<u64>, unit: Unit) -> Progress {
        Progress::new(&self.bars, label, total, unit)
    }

    /// Writes a piece of a streamed answer to stdout at once.
    ///
    /// The error means that nobody reads any more: stop and return it; it is not shown.
    pub fn stream(&self, text: &str) -> Result<()> {
        self.to_stdout(text)
    }

    /// Writes data to stdout as it is.
    ///
    /// The error is that of [`Output::stream`].
    pub fn bytes(&self, bytes: &[u8]) -> Result<()> {
        self.write(|stdout| stdout.write_all(bytes))
    }

    /// Writes a piece of a model's answer to stdout at once, on a terminal without what would steer it.
    ///
    /// The error is that of [`Output::stream`].
    pub fn answer(&self, piece: &str) -> Result<()> {
        if self.is_terminal() { self.stream(&run::for_terminal(piece)) } else { self.stream(piece) }
    }

    /// Writes a piece of a model's reasoning to stderr at once, faint where there are colours.
    pub fn reasoning(&self, piece: &str) {
        if !self.style.quiet && !self.style.json {
            let shown = run::for_terminal(piece);
            let faint = page::FAINT;
            self.to_stderr(&if self.stderr_color {
                format!("{faint}{shown}{faint:#}")
            } else {
                shown.into()
            });
        }
    }

    /// Writes one event of `--stream-json` or `--progress-json`: a line of JSON.
    pub fn event(&self, event: &impl Serialize) -> Result<()> {
        self.to_stdout(&json_line(event))
    }

    /// Whether nobody reads stdout any more.
    pub fn is_reader_gone(&self) -> bool {
        self.reader_gone.load(Ordering::Relaxed)
    }

    fn finish(&self, text: &str, status: u8) -> u8 {
        self.done(self.to_stdout(text), status)
    }

    fn done(&self, written: Result<()>, status: u8) -> u8 {
        match written {
            Ok(()) => status,
            Err(_) if self.reader_gone.load(Ordering::Relaxed) => READER_GONE,
            Err(error) => {
                let mut page = Page::for_stderr(self.stderr_color);
                page.labelled(page::ERROR, "error", error.message());
                self.to_stderr(&page.into_text());
                error.code().exit_status()
            }
        }
    }

    fn to_stdout(&self, text: &str) -> Result<()> {
        self.write(|stdout| stdout.write_all(text.as_bytes()))
    }

    fn write(&self, work: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        let mut stdout = BufWriter::with_capacity(BUFFER, io::stdout().lock());
        work(&mut stdout).and_then(|()| stdout.flush()).map_err(|error| {
            if error.kind() == io::ErrorKind::BrokenPipe {
                self.reader_gone.store(true, Ordering::Relaxed);
                return Error::new(Code::Interrupted, "the reader of the output is gone");
            }
            Error::io("write", std::path::Path::new("standard output"), error)
        })
    }

    fn to_stderr(&self, text: &str) {
        self.bars.suspend(|| {
            // When stderr is closed there is nobody left to tell.
            let _ = io::stderr().lock().write_all(text.as_bytes());
        });
    }
}

/// The text form of each report.
fn human(report: &Report) -> &dyn Human {
    match report {
        Report::Run(report) => report,
        Report::Chat => &(),
        Report::Embed(report) => report,
        Report::Bench(report) => report,
        Report::Pull(report) => report,
        Report::Add(report) => report,
        Report::List(report) => report,
        Report::Show(report) => report,
        Report::Path(report) => report,
        Report::Rm(report) => report,
        Report::Link(report) => report,
        Report::Dedupe(report) => report,
        Report::Verify(report) => report,
        Report::Gc(report) => report,
        Report::Export(report) => report,
        Report::Import(report) => report,
        Report::Recommend(report) => report,
        Report::Config(report) => report,
        Report::Doctor(report) => report,
        Report::Status(report) => report,
        Report::Completions(report) => report,
        Report::Man(report) => report,
    }
}

fn json_line(value: &impl Serialize) -> String {
    match serde_json::to_string(value) {
        Ok(text) => text + "\n",
        // Reports hold strings, numbers and lists: only a map with keys that are no strings can fail.
        Err(error) => format!(
            "{{\"schema\":1,\"status\":\"error\",\"command\":null,\"data\":null,\"error\":{{\"code\":\"INTERNAL\",\
             \"message\":{:?},\"hint\":null,\"retryable\":false,\"details\":{{}}}}}}\n",
            error.to_string()
        ),
    }
}
