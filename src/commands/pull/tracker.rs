//! How it goes: bars on a terminal, lines of JSON, and counts for the report.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::plan::{Plan, SMALL};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::hub::Watch;
use crate::output::progress::{Progress, Unit};
use crate::report::pull::{FileState, PullEvent};

/// Between two events of progress.
const PAUSE: Duration = Duration::from_millis(250);
/// The rate is that of so long a time.
const WINDOW: Duration = Duration::from_secs(3);

/// What happens to one model.
pub struct Tracker<'a> {
    context: &'a Context,
    reference: String,
    bytes_total: u64,
    events: bool,
    total: Progress,
    pub downloaded: AtomicU64,
    pub reused: AtomicU64,
    pub resumed: AtomicU64,
    state: Mutex<State>,
}

struct State {
    /// When progress was last told, and how much had come by then.
    told: VecDeque<(Instant, u64)>,
    /// Nobody reads the events any more.
    failure: Option<Error>,
}

impl<'a> Tracker<'a> {
    pub fn new(plan: &Plan, events: bool, context: &'a Context) -> Self {
        let bytes_total = plan.bytes();
        let tracker = Self {
            context,
            reference: plan.name.to_string(),
            bytes_total,
            events,
            total: context.output.progress(&format!("pulling {}", plan.name), Some(bytes_total), Unit::Bytes),
            downloaded: AtomicU64::new(0),
            reused: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            state: Mutex::new(State { told: VecDeque::from([(Instant::now(), 0)]), failure: None }),
        };
        tracker.tell(|| PullEvent::Plan {
            reference: plan.name.to_string(),
            revision: plan.commit.to_string(),
            files: plan.files.len() as u64,
            bytes_total,
            bytes_to_download: plan.to_download(),
        });
        tracker
    }

    /// An error once the work is to end.
    pub fn check(&self) -> Result<()> {
        self.context.cancel.check()?;
        self.state().failure.take().map_or(Ok(()), Err)
    }

    /// Something begins or ends for a file.
    pub fn file(&self, path: &str, state: FileState) {
        self.tell(|| PullEvent::File { reference: self.reference.clone(), path: path.to_owned(), state });
    }

    pub fn note(&self, message: &str) {
        self.context.output.note(message);
    }

    /// Watches over one file of so many bytes.
    pub fn watch(&'a self, path: &'a str, bytes: u64) -> FileWatch<'a> {
        let bar = (bytes > SMALL).then(|| self.context.output.progress(path, Some(bytes), Unit::Bytes));
        FileWatch { tracker: self, path, bar, counted: AtomicU64::new(0), bytes }
    }

    /// Something was copied.
    pub fn copied(&self, bytes: u64) {
        self.reused.fetch_add(bytes, Ordering::Relaxed);
        self.moved(bytes);
    }

    /// So much was here before.
    pub fn was_there(&self, bytes: u64, resumed: bool) {
        let count = if resumed { &self.resumed } else { &self.reused };
        count.fetch_add(bytes, Ordering::Relaxed);
        self.moved(bytes);
    }

    fn moved(&self, bytes: u64) {
        self.total.advance(bytes);
        if !self.events {
            return;
        }
        let downloaded = self.downloaded.load(Ordering::Relaxed);
        let now = Instant::now();
        let rate = {
            let mut state = self.state();
            if state.told.back().is_some_and(|(last, _)| now - *last < PAUSE) {
                return;
            }
            state.told.push_back((now, downloaded));
            while state.told.len() > 2 && state.told.get(1).is_some_and(|(then, _)| now - *then >= WINDOW) {
                state.told.pop_front();
            }
            state.told.front().map_or(0.0, |(then, before)| {
                (downloaded - before) as f64 / (now - *then).as_secs_f64().max(1e-9)
            })
        };
        let done = downloaded + self.reused.load(Ordering::Relaxed) + self.resumed.load(Ordering::Relaxed);
        self.tell(|| PullEvent::Progress {
            reference: self.reference.clone(),
            bytes_done: done.min(self.bytes_total),
            bytes_total: self.bytes_total,
            bytes_per_second: rate as u64,
        });
    }

    fn tell(&self, event: impl FnOnce() -> PullEvent) {
        if self.events
            && let Err(error) = self.context.output.event(&event())
        {
            self.state().failure.get_or_insert(error);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happens to one file.
pub struct FileWatch<'a> {
    tracker: &'a Tracker<'a>,
    path: &'a str,
    bar: Option<Progress>,
    /// What came and counts as the file's: of what comes twice, only once.
    counted: AtomicU64,
    bytes: u64,
}

impl FileWatch<'_> {
    /// So many bytes of the file are here from before.
    pub fn begin_at(&self, bytes: u64) {
        self.counted.fetch_add(bytes, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set(bytes);
        }
    }
}

impl Watch for FileWatch<'_> {
    fn received(&self, bytes: u64) {
        self.tracker.downloaded.fetch_add(bytes, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.advance(bytes);
        }
        let before = self.counted.fetch_add(bytes, Ordering::Relaxed);
        self.tracker.moved(bytes.min(self.bytes.saturating_sub(before)));
    }

    fn retrying(&self, why: &Error, pause: Duration) {
        let tracker = self.tracker;
        tracker.context.output.detail(format!(
            "{}: {}; trying again in {:.1} s",
            self.path,
            why.message(),
            pause.as_secs_f64()
        ));
        tracker.tell(|| PullEvent::Retry {
            reference: tracker.reference.clone(),
            path: self.path.to_owned(),
            reason: why.message().to_owned(),
            seconds: pause.as_secs_f64(),
        });
    }
}
