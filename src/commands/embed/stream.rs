//! Texts, read and cut into tokens on threads of their own while the engine computes the ones before.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::input::{Carried, Input, Located, Record};
use crate::cancel::Cancel;
use crate::engine::embed::{TextEncoder, Tokens};
use crate::error::{Code, Error, Result};
use crate::ids::Digest;

/// Texts of the first window: the engine gets something to do soon.
const FIRST: usize = 64;
/// Texts of a window at most: enough to find ones of like length among them.
const LARGEST: usize = 2048;
/// Bytes of a window's texts.
const BYTES: usize = 4 << 20;
/// Texts that are worth another thread.
const EACH: usize = 16;
/// How often a waiting program looks whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(50);

/// Some texts that follow each other.
#[derive(Debug, Default)]
pub struct Window {
    pub records: Vec<Record>,
    pub tokens: Vec<Tokens>,
    /// How far the input is read after them.
    pub read: Read,
}

/// How far an input is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// Texts, those left out included.
    pub records: u64,
    pub skipped: u64,
    /// SHA-256 of them, in hexadecimal.
    pub digest: String,
    /// Bytes of a file.
    pub position: u64,
}

/// Reads an input from one thread.
pub struct Reader {
    input: Input,
    digest: Sha256,
    read: Read,
}

impl Reader {
    pub fn new(input: Input) -> Self {
        Self { input, digest: Sha256::new(), read: Read::default() }
    }

    /// Reads again what an interrupted run had read.
    ///
    /// # Errors
    /// INVALID_REQUEST if it is not the same as then.
    pub fn skip(&mut self, records: u64, skipped: u64, digest: &str, cancel: &Cancel) -> Result<()> {
        while self.read.records < records {
            cancel.check()?;
            if self.next()?.is_none() {
                break;
            }
        }
        self.read.digest = self.digest();
        if (self.read.records, self.read.skipped) == (records, skipped) && self.read.digest == digest {
            return Ok(());
        }
        Err(Error::new(Code::InvalidRequest, "the texts are not those that the interrupted run had read")
            .hint("give the same input, or run the command without --resume to begin anew"))
    }

    /// Reads and cuts on another thread; windows come in order, at most two ahead.
    pub fn start(mut self, encoder: Arc<TextEncoder>) -> Result<Windows> {
        let (sender, windows) = sync_channel(1);
        thread::Builder::new()
            .name("texts".to_owned())
            .spawn(move || {
                let mut most = FIRST;
                loop {
                    let window = self.window(most, &encoder);
                    let done = !matches!(&window, Ok(Some(_)));
                    // Who listens no more needs no more windows.
                    if sender.send(window).is_err() || done {
                        return;
                    }
                    most = (most * 4).min(LARGEST);
                }
            })
            .map_err(|error| Error::internal(format!("cannot start a thread for the texts: {error}")))?;
        Ok(Windows(windows))
    }

    /// SHA-256 of the texts so far, in hexadecimal.
    fn digest(&self) -> String {
        Digest::from_bytes(self.digest.clone().finalize().into()).to_string()
    }

    /// The next text, with `true` if it is left out.
    fn next(&mut self) -> Result<Option<(Record, bool)>> {
        let Some((record, skipped)) = self.input.next()? else { return Ok(None) };
        self.digest.update((record.text.len() as u64).to_le_bytes());
        self.digest.update(&record.text);
        match &record.carried {
            Carried::Nothing => {}
            Carried::Object(text) => self.digest.update(text),
            Carried::Row { values, .. } => values.iter().for_each(|value| self.digest.update(value)),
        }
        self.read.records += 1;
        self.read.skipped += u64::from(skipped);
        Ok(Some((record, skipped)))
    }

    fn window(&mut self, most: usize, encoder: &TextEncoder) -> Result<Option<Window>> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        let before = self.read.records;
        let mut ended = false;
        while records.len() < most && bytes < BYTES {
            match self.next()? {
                Some((record, false)) => {
                    bytes += record.text.len();
                    records.push(record);
                }
                Some((_, true)) => {}
                None => {
                    ended = true;
                    break;
                }
            }
        }
        // Texts that are left out at the end are counted by a window without any.
        if ended && self.read.records == before {
            return Ok(None);
        }
        self.read.digest = self.digest();
        self.read.position = self.input.position();
        let tokens = tokens(&records, encoder, &self.input.located())?;
        Ok(Some(Window { records, tokens, read: self.read.clone() }))
    }
}

/// Windows that another thread prepares.
pub struct Windows(Receiver<Result<Option<Window>>>);

impl Windows {
    /// The next one; `None` at the end.
    pub fn next(&self, cancel: &Cancel) -> Result<Option<Window>> {
        loop {
            cancel.check()?;
            match self.0.recv_timeout(PATIENCE) {
                Ok(window) => return window,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::internal("the thread that reads texts ended unexpectedly"));
                }
            }
        }
    }
}

/// The tokens of all texts; the first error in their order.
fn tokens(records: &[Record], encoder: &TextEncoder, located: &Located) -> Result<Vec<Tokens>> {
    let cut = |records: &[Record]| -> Result<Vec<Tokens>> {
        let one =
            |record: &Record| encoder.encode(&record.text).map_err(|error| located.error(record, error));
        records.iter().map(one).collect()
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(records.len().div_ceil(EACH));
    if threads < 2 {
        return cut(records);
    }
    let each = records.len().div_ceil(threads);
    thread::scope(|scope| {
        let parts: Vec<_> = records.chunks(each).map(|part| scope.spawn(move || cut(part))).collect();
        let mut all = Vec::with_capacity(records.len());
        for part in parts {
            all.extend(part.join().unwrap_or_else(|_| Err(Error::internal("the tokenizer panicked")))?);
        }
        Ok(all)
    })
}
