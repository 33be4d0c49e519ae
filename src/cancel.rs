//! Stopping early: Ctrl-C and termination signals, as a flag that long work polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Code, Error, Result};

/// Whether the user asked to stop. Clones share one state.
///
/// The first signal sets the flag, so that work ends at its next poll and cleans up; a second one
/// ends the process at once. Nothing on disk depends on the clean-up: publication is atomic.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    set: Arc<AtomicBool>,
    at_once: Arc<AtomicBool>,
}

impl Cancel {
    /// A flag that the process's signals set.
    pub fn on_signals() -> Result<Self> {
        let cancel = Self::default();
        let status = i32::from(Code::Interrupted.exit_status());
        for signal in [SIGINT, SIGTERM] {
            // Handlers run in the order of registration: the shutdowns look at the flags before
            // this signal sets one.
            flag::register_conditional_shutdown(signal, status, Arc::clone(&cancel.set))
                .and_then(|_| {
                    flag::register_conditional_shutdown(signal, status, Arc::clone(&cancel.at_once))
                })
                .and_then(|_| flag::register(signal, Arc::clone(&cancel.set)))
                .map_err(|error| Error::internal(format!("cannot listen to signals: {error}")))?;
        }
        Ok(cancel)
    }

    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }

    /// An error once the user asked to stop: `cancel.check()?` in every long loop.
    pub fn check(&self) -> Result<()> {
        if self.is_set() {
            return Err(Error::new(Code::Interrupted, "interrupted"));
        }
        Ok(())
    }

    /// Asks to stop, as a signal does.
    pub fn set(&self) {
        self.set.store(true, Ordering::Relaxed);
    }

    /// Forgets the request: a chat that stopped one answer goes on with the next.
    pub fn reset(&self) {
        self.set.store(false, Ordering::Relaxed);
    }

    /// Waits in a call that a signal does not wake, such as reading a line from the terminal:
    /// meanwhile the first signal already ends the process, with the status of an interruption.
    pub fn while_waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.at_once.store(true, Ordering::Relaxed);
        let value = wait();
        self.at_once.store(false, Ordering::Relaxed);
        value
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_request_to_stop_is_seen_by_every_clone_until_it_is_reset() {
        let cancel = Cancel::default();
        let other = cancel.clone();
        assert!(other.check().is_ok());
        cancel.set();
        assert_eq!(other.check().expect_err("set").code(), Code::Interrupted);
        other.reset();
        assert!(!cancel.is_set());
    }

    #[test]
    fn a_signal_is_a_request_to_stop() {
        let cancel = Cancel::on_signals().expect("handlers");
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT)
            .expect("signal");
        // Another thread may be the one that takes it.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !cancel.is_set() {
            assert!(Instant::now() < deadline, "no signal came");
            std::thread::yield_now();
        }
    }
}
