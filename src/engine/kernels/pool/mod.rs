//! The threads of the kernels: one fork-join pool.
//!
//! Whoever calls [`run`], in practice MLX's stream thread, works itself; helpers join it. Each thread has a
//! range of neighbouring chunks of its own, so that it reads memory in one stream and claims chunks without asking
//! others. Who has done its own takes chunks of others, so a helper that comes late or never costs nothing. Idle
//! helpers spin for a while, which covers the pauses between the operations of a token, then park. When other programs take
//! the cores away in the middle of a chunk, which everybody has to wait for, and that costs more than helpers
//! are worth, the caller does without them for some time.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long an idle helper spins before it parks, and how often it looks at the clock.
const IDLE: Duration = Duration::from_micros(250);
const SPINS_A_LOOK: u32 = 64;
/// Spins before the caller, waiting for the last chunks, offers its core to whoever holds them.
const WAIT_SPINS: u32 = 2_000;
/// Waiting longer than this, and than [`STALL_CHUNKS`] chunks take, means that a helper lost its core in
/// the middle of a chunk.
const STALL: Duration = Duration::from_micros(100);
const STALL_CHUNKS: u32 = 4;
/// Stalls are put up with as long as they cost less than one part of so many of the time, a little ahead or
/// behind: this process has other threads, which take a core for a moment at every token.
const BORNE: u32 = 4;
const MOST_BORNE: Duration = Duration::from_millis(4);
/// After a stall that is not, the caller works alone for so many times what it cost, and twice as long as the last
/// time when sharing went well for no more than so many times that.
const PENALTY: u32 = 4;
const LONGEST_PENALTY: Duration = Duration::from_secs(1);

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

/// The same, however much of the helpers' time other threads take: for work during which this process has threads that
/// will soon be done.
///
/// # Panics
/// When `work` panics, after every other chunk has ended.
pub fn run_patiently(count: usize, work: &(dyn Fn(usize) + Sync)) {
    global().run_with(count, work, true);
}

fn global() -> &'static Pool {
    #[cfg(test)]
    if let Some(forced) = forced::get() {
        return forced;
    }
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
    /// For each thread, the caller first, its chunks of the current job: where they end in the upper half, the next
    /// one in the lower half. Claims beyond the end are harmless.
    ranges: Box<[Apart<AtomicU64>]>,
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
struct Strain {
    /// What stalls may cost from now on, as of then.
    borne: Duration,
    reckoned: Instant,
    /// Until when there is to be no sharing.
    alone_until: Option<Instant>,
    penalty: Duration,
}

impl Pool {
    fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            ranges: (0..threads.max(1)).map(|_| Apart(AtomicU64::new(0))).collect(),
            done: Apart(AtomicUsize::new(0)),
            work: Apart(UnsafeCell::new(std::ptr::from_ref::<Work<'_>>(&|_| ()))),
            sleepers: Apart(AtomicUsize::new(0)),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut helpers = Vec::new();
        for index in 1..threads {
            let helper = Arc::new(Helper { asleep: AtomicBool::new(false), thread: OnceLock::new() });
            let (mine, theirs) = (Arc::clone(&helper), Arc::clone(&shared));
            let spawned = std::thread::Builder::new()
                .name("kernel".to_owned())
                .spawn(move || theirs.serve(index, &mine));
            // With fewer threads than asked for the work is done all the same.
            let Ok(spawned) = spawned else { break };
            let _ = helper.thread.set(spawned.thread().clone());
            helpers.push(helper);
        }
        Self {
            shared,
            helpers,
            busy: AtomicBool::new(false),
            strain: UnsafeCell::new(Strain::new(Instant::now())),
        }
    }

    fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    fn run(&self, count: usize, work: &Work<'_>) {
        self.run_with(count, work, false);
    }

    fn run_with(&self, count: usize, work: &Work<'_>, patient: bool) {
        if count < 2 || self.helpers.is_empty() || self.busy.swap(true, Ordering::Acquire) {
            (0..count).for_each(work);
            return;
        }
        let start = Instant::now();
        // SAFETY: this thread holds `busy`.
        let strain = if patient { &mut Strain::new(start) } else { unsafe { &mut *self.strain.get() } };
        let panic = if strain.alone_until.is_some_and(|until| start < until) || u32::try_from(count).is_err()
        {
            catch_unwind(AssertUnwindSafe(|| (0..count).for_each(work))).err()
        } else {
            self.share(count as u32, work, start, strain);
            self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        self.busy.store(false, Ordering::Release);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn share(&self, count: u32, work: &Work<'_>, start: Instant, strain: &mut Strain) {
        let shared = &*self.shared;
        // SAFETY: the previous job's chunks are all claimed and done, so nobody reads the cell. The
        // borrow of `work` outlives its use: this function returns only when every chunk of it is done.
        unsafe { *shared.work.0.get() = std::mem::transmute::<&Work<'_>, &Work<'static>>(work) };
        shared.done.0.store(0, Ordering::Relaxed);
        let parts = self.threads().min(count as usize);
        let end = |part: usize| u64::from(count) * part as u64 / parts as u64;
        for (part, range) in shared.ranges.iter().enumerate().take(parts).rev() {
            // Sequentially consistent, as are the sleepers' flags: either a helper on its way to sleep sees
            // this job, or it is seen here.
            range.0.store(end(part + 1) << 32 | end(part), Ordering::SeqCst);
        }
        if shared.sleepers.0.load(Ordering::SeqCst) > 0 {
            self.wake(parts - 1);
        }
        let mine = shared.work_from(0);
        let others = count as usize - mine;
        let all_done = || shared.done.0.load(Ordering::Acquire) >= others;
        for _ in 0..WAIT_SPINS {
            if all_done() {
                return;
            }
            std::hint::spin_loop();
        }
        let waiting = Instant::now();
        while !all_done() {
            std::thread::yield_now();
        }
        let (now, own) = (Instant::now(), waiting - start);
        let waited = now - waiting;
        if waited > STALL && waited > own / (mine.max(1) as u32) * STALL_CHUNKS {
            strain.stalled(waited, now);
        }
    }

    /// The first so many helpers.
    fn wake(&self, wanted: usize) {
        for helper in self.helpers.iter().take(wanted) {
            if helper.asleep.swap(false, Ordering::SeqCst) {
                self.shared.sleepers.0.fetch_sub(1, Ordering::SeqCst);
                if let Some(thread) = helper.thread.get() {
                    thread.unpark();
                }
            }
        }
    }
}

/// Whether a range has chunks that nobody has claimed.
fn is_left(range: u64) -> bool {
    (range as u32) < (range >> 32) as u32
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.wake(usize::MAX);
    }
}

impl Strain {
    fn new(now: Instant) -> Self {
        Self { borne: MOST_BORNE, reckoned: now, alone_until: None, penalty: Duration::ZERO }
    }

    fn stalled(&mut self, waited: Duration, now: Instant) {
        let earned = now.saturating_duration_since(self.reckoned) / BORNE;
        let borne = (self.borne + earned).min(MOST_BORNE);
        self.reckoned = now;
        self.borne = borne.saturating_sub(waited);
        if waited <= borne {
            return;
        }
        let again = self.alone_until.is_some_and(|until| now < until + self.penalty * PENALTY);
        let doubled = if again { self.penalty * 2 } else { Duration::ZERO };
        self.penalty = doubled.max(waited * PENALTY).min(LONGEST_PENALTY);
        self.alone_until = Some(now + self.penalty);
    }
}

impl Shared {
    fn serve(&self, index: usize, me: &Helper) {
        loop {
            self.help_while_there_is_work(index);
            self.sleepers.0.fetch_add(1, Ordering::SeqCst);
            me.asleep.store(true, Ordering::SeqCst);
            if !self.has_work(index) && !self.stop.load(Ordering::SeqCst) {
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

    /// Until nothing was to be done for [`IDLE`].
    fn help_while_there_is_work(&self, index: usize) {
        let mut last = Instant::now();
        let mut spins = 0;
        loop {
            if self.has_work(index) {
                self.help(index);
                spins = 0;
                continue;
            }
            std::hint::spin_loop();
            spins += 1;
            // The clock starts with the first look after some work.
            if spins == SPINS_A_LOOK {
                last = Instant::now();
            } else if spins % SPINS_A_LOOK == 0 && last.elapsed() > IDLE {
                return;
            }
        }
    }

    /// Whether chunks of this thread's own are left.
    fn has_work(&self, index: usize) -> bool {
        is_left(self.ranges[index].0.load(Ordering::SeqCst))
    }

    fn help(&self, index: usize) {
        // All of them are of one job, which does not end before they are counted here.
        let ended = self.work_from(index);
        if ended > 0 {
            self.done.0.fetch_add(ended, Ordering::Release);
        }
    }

    /// Runs chunks of this thread's own, then those that others have not come to; how many.
    fn work_from(&self, index: usize) -> usize {
        let (before, after) = self.ranges.split_at(index);
        let mut ended = 0;
        for range in after.iter().chain(before) {
            while self.work_once(&range.0) {
                ended += 1;
            }
        }
        ended
    }

    /// Claims and runs one chunk of a range.
    fn work_once(&self, range: &AtomicU64) -> bool {
        // A look before the claim leaves the line with its owner when there is nothing to be had.
        if !is_left(range.load(Ordering::Relaxed)) {
            return false;
        }
        let claimed = range.fetch_add(1, Ordering::AcqRel);
        if !is_left(claimed) {
            return false;
        }
        // SAFETY: this chunk is claimed and not done, so the job's caller still waits: the cell holds its
        // work, which is alive.
        let work = unsafe { &**self.work.0.get() };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(claimed as u32 as usize))) {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
        true
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) mod forced {
    use std::sync::atomic::{AtomicPtr, Ordering};

    use super::Pool;

    static FORCED: AtomicPtr<Pool> = AtomicPtr::new(std::ptr::null_mut());

    pub(super) fn get() -> Option<&'static Pool> {
        // SAFETY: pools in here are never freed.
        unsafe { FORCED.load(Ordering::Acquire).as_ref() }
    }

    /// Runs `f` once with so many threads each; other tests meanwhile have as many.
    pub(in crate::engine::kernels) fn each(counts: &[usize], mut f: impl FnMut(usize)) {
        for &threads in counts {
            FORCED.store(Box::leak(Box::new(Pool::new(threads))), Ordering::Release);
            f(threads);
        }
        FORCED.store(std::ptr::null_mut(), Ordering::Release);
    }
}
