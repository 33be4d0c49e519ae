//! The terminal's side of a chat: line editing and history.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::termios::{self, OptionalActions, Termios};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};

use crate::cancel::Cancel;
use crate::error::{Code, Error, Result};

/// Lines that the history keeps.
const HISTORY: usize = 1000;
/// How soon a termination signal is seen at the prompt.
const WATCH: Duration = Duration::from_millis(100);

/// What came from the keyboard.
#[derive(Debug)]
pub enum Line {
    /// A line, or several pasted ones.
    Text(String),
    /// Ctrl-C, which cleared the line.
    Interrupt,
    /// Ctrl-D.
    End,
}

/// A line editor on the terminal.
pub struct Terminal {
    editor: Editor<(), FileHistory>,
    /// Where the history is kept, unless only in memory.
    history: Option<PathBuf>,
    /// Whether a line is being typed.
    reading: Arc<AtomicBool>,
}

impl Terminal {
    /// An editor with the history of this file, if it is there.
    pub fn new(history: Option<PathBuf>, cancel: &Cancel) -> Result<Self> {
        let config = Config::builder()
            .max_history_size(HISTORY)
            .and_then(|config| config.history_ignore_dups(true))
            .map_err(unusable)?
            .history_ignore_space(true)
            .auto_add_history(false)
            .build();
        let mut editor = Editor::with_config(config).map_err(unusable)?;
        // No history is no reason not to chat: it begins anew.
        if let Some(history) = &history {
            let _ = editor.load_history(history);
        }
        let reading = Arc::new(AtomicBool::new(false));
        restore_on_termination(Arc::clone(&reading), cancel.clone())?;
        Ok(Self { editor, history, reading })
    }

    /// Reads one line.
    pub fn read(&mut self, prompt: &str) -> Result<Line> {
        self.reading.store(true, Ordering::Relaxed);
        let line = self.editor.readline(prompt);
        self.reading.store(false, Ordering::Relaxed);
        match line {
            Ok(line) => Ok(Line::Text(line)),
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(ReadlineError::Interrupted) => Ok(Line::Interrupt),
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Err(Error::new(Code::InvalidRequest, "that line is not UTF-8"))
            }
            Err(error) => Err(unusable(error)),
        }
    }

    /// Puts an input into the history, in memory and in the file. After a failure it stays in memory.
    pub fn remember(&mut self, input: &str) -> Result<()> {
        let added = self.editor.add_history_entry(input).map_err(unusable)?;
        let Some(history) = self.history.take_if(|_| added) else { return Ok(()) };
        self.editor.append_history(&history).map_err(|error| {
            Error::new(Code::IoError, format!("cannot keep the history in {}: {error}", history.display()))
        })?;
        self.history = Some(history);
        Ok(())
    }
}

/// While a line is edited the terminal is in raw mode. A termination signal must not leave it so, and
/// the editor does not wake from one: this thread puts the terminal right and ends the process.
fn restore_on_termination(reading: Arc<AtomicBool>, cancel: Cancel) -> Result<()> {
    let stdin = io::stdin();
    let cooked: Termios = termios::tcgetattr(&stdin)
        .map_err(|error| Error::new(Code::IoError, format!("cannot read the terminal's mode: {error}")))?;
    let watch = move || loop {
        thread::sleep(WATCH);
        if reading.load(Ordering::Relaxed) && cancel.is_set() {
            // The process ends in any case.
            let _ = termios::tcsetattr(&stdin, OptionalActions::Now, &cooked);
            signal_hook::low_level::exit(i32::from(Code::Interrupted.exit_status()));
        }
    };
    match thread::Builder::new().name("terminal".to_owned()).spawn(watch) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::new(Code::IoError, format!("cannot start a thread: {error}"))),
    }
}

fn unusable(error: impl std::fmt::Display) -> Error {
    Error::new(Code::IoError, format!("cannot read from the terminal: {error}"))
        .hint("pass the prompt as an argument or on standard input")
}
