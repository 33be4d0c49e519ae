//! Work on many files at once.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::error::Result;

/// Beyond this many threads disks get slower, not faster.
const MOST_THREADS: usize = 8;

/// Applies `work` to each item, several at a time, and keeps their order. After an error no further
/// item is begun; the error of the first item in order that failed is returned.
pub fn try_map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    try_map_on(default_threads(), items, work)
}

/// Threads that work on files unless somebody says how many.
pub fn default_threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS)
}

/// As [`try_map`], at most this many at a time.
pub fn try_map_on<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let threads = threads.max(1).min(items.len());
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let keep = |at, result| done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
                    let result = work(item);
                    if result.is_err() {
                        next.store(items.len(), Ordering::Relaxed);
                    }
                    keep(at, result);
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Error};

    #[test]
    fn results_come_in_order() {
        let items: Vec<u32> = (0..100).collect();
        let doubled = try_map(&items, |item| Ok(item * 2)).expect("no error");
        assert!(doubled.iter().zip(&items).all(|(double, item)| *double == item * 2));
        assert!(try_map(&[] as &[u32], |_| Ok(())).expect("nothing to do").is_empty());
    }

    #[test]
    fn an_error_ends_the_work() {
        let begun = AtomicUsize::new(0);
        let items: Vec<u32> = (0..10_000).collect();
        let result = try_map(&items, |item| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *item == 3 { Err(Error::new(Code::IoError, "three")) } else { Ok(()) }
        });
        assert_eq!(result.expect_err("an error").message(), "three");
        assert!(begun.into_inner() < items.len());
    }
}
