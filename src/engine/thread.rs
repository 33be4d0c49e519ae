//! A model in memory: one dedicated thread owns every MLX value, callers talk to it by messages.
//! (MLX's streams are bound to a thread; a lazy array built on one fails on another.)

use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

#[cfg(target_os = "linux")]
use crate::engine::ffi::end_sharing;
use crate::engine::ffi::heap;
use crate::error::{Error, Result};

/// A thread that has loaded a model and does jobs of the type `J` with it, until this is dropped.
pub(super) struct ModelThread<J> {
    jobs: Option<Sender<J>>,
    thread: Option<JoinHandle<()>>,
    load_seconds: f64,
}

enum Loading<T> {
    Progress { done: u64, total: u64 },
    Done(Result<(T, f64)>),
}

impl<J: Send + 'static> ModelThread<J> {
    /// Starts it. `load` makes the model `M`, which never leaves the thread, and what is told of it; `work`
    /// does a job. `progress` gets (done, total) bytes.
    pub fn start<M, T: Send + 'static>(
        load: impl FnOnce(&mut dyn FnMut(u64, u64)) -> Result<(M, T)> + Send + 'static,
        work: impl Fn(&mut M, J) + Send + 'static,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Self, T)> {
        heap::keep_freed_memory();
        let (jobs, inbox) = channel();
        let (reports, loading) = channel();
        let run = move || {
            let started = Instant::now();
            // A closed channel means that the caller is gone: the loop below then ends at once.
            let loaded = load(&mut |done, total| {
                let _ = reports.send(Loading::Progress { done, total });
            });
            #[cfg(target_os = "linux")]
            end_sharing();
            let mut model = match loaded {
                Ok((model, told)) => {
                    heap::give_back();
                    let _ = reports.send(Loading::Done(Ok((told, started.elapsed().as_secs_f64()))));
                    model
                }
                Err(error) => {
                    let _ = reports.send(Loading::Done(Err(error)));
                    return;
                }
            };
            while let Ok(job) = inbox.recv() {
                work(&mut model, job);
            }
        };
        let thread = thread::Builder::new()
            .name("engine".to_owned())
            .spawn(run)
            .map_err(|error| Error::internal(format!("cannot start the engine's thread: {error}")))?;
        loop {
            match loading.recv() {
                Ok(Loading::Progress { done, total }) => progress(done, total),
                Ok(Loading::Done(loaded)) => {
                    let (told, load_seconds) = loaded?;
                    return Ok((Self { jobs: Some(jobs), thread: Some(thread), load_seconds }, told));
                }
                Err(_) => return Err(thread_lost()),
            }
        }
    }

    /// Seconds that loading took.
    pub fn load_seconds(&self) -> f64 {
        self.load_seconds
    }

    /// Hands a job over.
    pub fn send(&self, job: J) -> Result<()> {
        self.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or_else(thread_lost)
    }
}

impl<J> Drop for ModelThread<J> {
    fn drop(&mut self) {
        // The thread ends when its inbox closes; its MLX values must go before the library does.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic over there was reported as a lost thread already.
            let _ = thread.join();
        }
    }
}

/// The thread does not answer any more.
pub(super) fn thread_lost() -> Error {
    Error::internal("the engine's thread ended unexpectedly")
}
