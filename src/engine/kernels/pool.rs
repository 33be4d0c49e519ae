//! The threads of the kernels: one fork-join pool.
//!
//! Whoever calls [`run`], in practice MLX's stream thread, works itself; helpers join it. Chunks are
//! claimed one by one, so a helper that comes late or never costs nothing. Idle helpers spin for some
//! hundred microseconds, which covers the pauses between the operations of a token, then park.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Spins before an idle helper parks.
const IDLE_SPINS: u32 = 20_000;
/// Spins before the caller, waiting for the last chunks, offers its core to whoever holds them.
const WAIT_SPINS: u32 = 2_000;
/// Waiting longer than this, and than [`STALL_CHUNKS`] chunks take, means that a helper lost its core in
/// the middle of a chunk.
const STALL: Duration = Duration::from_micros(200);
const STALL_CHUNKS: u32 = 4;
/// Jobs without helpers after a first stall and after many.
const FIRST_PENALTY: u32 = 4;
const LAST_PENALTY: u32 = 1024;
/// Jobs without a stall that halve the penalty of the next one.
const FORGIVEN_AFTER: u32 = 64;

static POOL: OnceLock<Pool> = OnceLock::new();

/// Chooses how many threads compute, the caller included. Only the first choice counts, and only before
/// the first kernel runs; afterwards the answer is whether `threads` is what there is.
pub fn set_threads(threads: usize) -> bool {
    POOL.get_or_init(|| Pool::new(threads)).threads() == threads.max(1)
}

/// How many threads compute, the caller included: by default one for each physical core.
pub fn threads() -> usize {
    global().threads()
}

/// Runs `work` for every index below `count`, in parallel, and returns when all are done. Called within
/// `work`, or while another thread's call is under way, it runs on the calling thread alone.
///
/// # Panics
/// When `work` panics, after every other chunk has ended.
pub fn run(count: usize, work: &(dyn Fn(usize) + Sync)) {
    global().run(count, work);
}

fn global() -> &'static Pool {
    POOL.get_or_init(|| Pool::new(default_threads()))
}

fn default_threads() -> usize {
    // What this process may use (affinity, cgroup) bounds the cores that exist.
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    sysinfo::System::physical_core_count().map_or(allowed, |cores| cores.min(allowed))
}

/// Keeps what is written by one thread and read by others off its neighbours' cache lines.
#[repr(align(128))]
struct Apart<T>(T);

type Work<'a> = dyn Fn(usize) + Sync + 'a;

struct Shared {
    /// The chunks of the current job: how many in the upper half, the next one in the lower half. Claims
    /// beyond the end are harmless.
    ticket: Apart<AtomicU64>,
    /// Chunks that helpers have ended.
    done: Apart<AtomicUsize>,
    /// Written by the caller while no chunk can be claimed, read by whoever has claimed one.
    work: Apart<UnsafeCell<*const Work<'static>>>,
    sleepers: Apart<AtomicUsize>,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `work` is the only part that is not `Sync` or `Send` by itself; its protocol is above.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

struct Helper {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<Arc<Helper>>,
    /// Held during a job. It also guards `strain`.
    busy: AtomicBool,
    strain: UnsafeCell<Strain>,
}

// SAFETY: `strain` is touched only by the thread that holds `busy`.
unsafe impl Sync for Pool {}

/// How the machine's other work gets in the way.
#[derive(Default)]
struct Strain {
    /// Jobs still to be run without helpers.
    alone: u32,
    penalty: u32,
    clean: u32,
}

impl Pool {
    fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            ticket: Apart(AtomicU64::new(0)),
            done: Apart(AtomicUsize::new(0)),
            work: Apart(UnsafeCell::new(std::ptr::from_ref::<Work<'_>>(&|_| ()))),
            sleepers: Apart(AtomicUsize::new(0)),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut helpers = Vec::new();
        for _ in 1..threads {
            let helper = Arc::new(Helper { asleep: AtomicBool::new(false), thread: OnceLock::new() });
            let (mine, theirs) = (Arc::clone(&helper), Arc::clone(&shared));
            let spawned =
                std::thread::Builder::new().name("kernel".to_owned()).spawn(move || theirs.serve(&mine));
            // With fewer threads than asked for the work is done all the same.
            let Ok(spawned) = spawned else { break };
            let _ = helper.thread.set(spawned.thread().clone());
            helpers.push(helper);
        }
        Self { shared, helpers, busy: AtomicBool::new(false), strain: UnsafeCell::default() }
    }

    fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    fn run(&self, count: usize, work: &Work<'_>) {
        if count < 2 || self.helpers.is_empty() || self.busy.swap(true, Ordering::Acquire) {
            (0..count).for_each(work);
            return;
        }
        // SAFETY: this thread holds `busy`.
        let strain = unsafe { &mut *self.strain.get() };
        let panic = if strain.alone > 0 || u32::try_from(count).is_err() {
            strain.alone = strain.alone.saturating_sub(1);
            catch_unwind(AssertUnwindSafe(|| (0..count).for_each(work))).err()
        } else {
            self.share(count as u32, work, strain);
            self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        self.busy.store(false, Ordering::Release);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn share(&self, count: u32, work: &Work<'_>, strain: &mut Strain) {
        let start = Instant::now();
        let shared = &*self.shared;
        // SAFETY: the previous job's chunks are all claimed and done, so nobody reads the cell. The
        // borrow of `work` outlives its use: this function returns only when every chunk of it is done.
        unsafe { *shared.work.0.get() = std::mem::transmute::<&Work<'_>, &Work<'static>>(work) };
        shared.done.0.store(0, Ordering::Relaxed);
        // Sequentially consistent, as are the sleepers' flags: either a helper on its way to sleep sees
        // this job, or it is seen here.
        shared.ticket.0.store(u64::from(count) << 32, Ordering::SeqCst);
        if shared.sleepers.0.load(Ordering::SeqCst) > 0 {
            self.wake(count as usize - 1);
        }
        let mut mine = 0;
        while shared.work_once() {
            mine += 1;
        }
        let own = start.elapsed();
        let others = count as usize - mine;
        let mut spins = 0;
        while shared.done.0.load(Ordering::Acquire) < others {
            spins += 1;
            if spins < WAIT_SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        strain.note(
            spins >= WAIT_SPINS && {
                let waited = start.elapsed().saturating_sub(own);
                waited > STALL && waited > own / (mine.max(1) as u32) * STALL_CHUNKS
            },
        );
    }

    fn wake(&self, mut wanted: usize) {
        for helper in &self.helpers {
            if wanted == 0 {
                return;
            }
            wanted -= 1;
            if helper.asleep.swap(false, Ordering::SeqCst) {
                self.shared.sleepers.0.fetch_sub(1, Ordering::SeqCst);
                if let Some(thread) = helper.thread.get() {
                    thread.unpark();
                }
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.wake(usize::MAX);
    }
}

impl Strain {
    fn note(&mut self, stalled: bool) {
        if stalled {
            self.penalty = (self.penalty * 2).clamp(FIRST_PENALTY, LAST_PENALTY);
            self.alone = self.penalty;
            self.clean = 0;
            return;
        }
        self.clean += 1;
        if self.clean == FORGIVEN_AFTER {
            self.penalty /= 2;
            self.clean = 0;
        }
    }
}

impl Shared {
    fn serve(&self, me: &Helper) {
        let mut idle = 0;
        loop {
            if self.has_work() && self.help() {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle < IDLE_SPINS {
                std::hint::spin_loop();
                continue;
            }
            idle = 0;
            self.sleepers.0.fetch_add(1, Ordering::SeqCst);
            me.asleep.store(true, Ordering::SeqCst);
            if !self.has_work() && !self.stop.load(Ordering::SeqCst) {
                std::thread::park();
            }
            if me.asleep.swap(false, Ordering::SeqCst) {
                self.sleepers.0.fetch_sub(1, Ordering::SeqCst);
            }
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    fn has_work(&self) -> bool {
        let ticket = self.ticket.0.load(Ordering::SeqCst);
        (ticket as u32) < (ticket >> 32) as u32
    }

    fn help(&self) -> bool {
        let worked = self.work_once();
        if worked {
            self.done.0.fetch_add(1, Ordering::Release);
        }
        worked
    }

    /// Claims and runs one chunk of the current job.
    fn work_once(&self) -> bool {
        let ticket = self.ticket.0.fetch_add(1, Ordering::AcqRel);
        let (index, count) = (ticket as u32, (ticket >> 32) as u32);
        if index >= count {
            return false;
        }
        // SAFETY: this chunk is claimed and not done, so the job's caller still waits: the cell holds its
        // work, which is alive.
        let work = unsafe { &**self.work.0.get() };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(index as usize))) {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum_of(pool: &Pool, count: usize) -> usize {
        let sum = AtomicUsize::new(0);
        pool.run(count, &|index| {
            sum.fetch_add(index + 1, Ordering::Relaxed);
        });
        sum.into_inner()
    }

    #[test]
    fn every_chunk_runs_once_with_any_number_of_threads() {
        for threads in [1, 2, 3, 4, 8] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for round in 0..2_000 {
                let count = round % 37;
                assert_eq!(sum_of(&pool, count), count * (count + 1) / 2, "{threads} threads");
            }
        }
    }

    #[test]
    fn parked_helpers_come_back() {
        let pool = Pool::new(4);
        for _ in 0..3 {
            assert_eq!(sum_of(&pool, 100), 5050);
            let asleep = || pool.shared.sleepers.0.load(Ordering::SeqCst);
            let start = Instant::now();
            while asleep() < 3 {
                assert!(start.elapsed() < Duration::from_secs(20), "helpers do not park");
                std::thread::sleep(Duration::from_millis(1));
            }
            let seen = Mutex::new(std::collections::HashSet::new());
            // Long chunks, so that woken helpers find some even on one core.
            pool.run(8, &|_| {
                std::thread::sleep(Duration::from_millis(5));
                seen.lock().unwrap().insert(std::thread::current().id());
            });
            assert!(seen.into_inner().unwrap().len() > 1, "nobody woke up");
        }
    }

    #[test]
    fn nested_and_concurrent_calls_run_on_their_own_thread() {
        let pool = Pool::new(3);
        let sum = AtomicUsize::new(0);
        pool.run(10, &|_| {
            sum.fetch_add(sum_of(&pool, 4), Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 100);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        assert_eq!(sum_of(&pool, 9), 45);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_working() {
        let pool = Pool::new(4);
        for _ in 0..20 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(16, &|index| assert!(index != 7, "chunk seven"));
            }));
            let panic = outcome.unwrap_err();
            assert!(panic.downcast_ref::<&str>().is_some_and(|text| text.contains("seven")));
            assert_eq!(sum_of(&pool, 16), 136);
        }
    }

    #[test]
    fn stalls_keep_helpers_away_for_a_while_and_are_forgiven() {
        let mut strain = Strain::default();
        strain.note(true);
        assert_eq!((strain.alone, strain.penalty), (FIRST_PENALTY, FIRST_PENALTY));
        for _ in 0..20 {
            strain.note(true);
        }
        assert_eq!(strain.alone, LAST_PENALTY);
        for _ in 0..20 * FORGIVEN_AFTER {
            strain.note(false);
        }
        assert_eq!(strain.penalty, 0);
    }

    #[test]
    fn jobs_without_helpers_count_down_the_penalty() {
        let pool = Pool::new(2);
        // SAFETY: no job is under way.
        unsafe { (*pool.strain.get()).alone = 2 };
        let me = std::thread::current().id();
        for _ in 0..2 {
            pool.run(4, &|_| assert_eq!(std::thread::current().id(), me));
        }
        // SAFETY: as above.
        assert_eq!(unsafe { (*pool.strain.get()).alone }, 0);
    }
}
