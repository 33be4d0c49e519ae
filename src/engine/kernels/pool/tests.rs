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
fn stalls_keep_helpers_away_the_longer_the_sooner_they_return() {
    let (start, cost) = (Instant::now(), 3 * MOST_BORNE);
    let mut strain = Strain::new(start);
    strain.stalled(cost, start);
    assert_eq!(strain.alone_until, Some(start + 4 * cost));
    let soon = start + 5 * cost;
    strain.stalled(cost, soon);
    assert_eq!(strain.alone_until, Some(soon + 8 * cost));
    let late = soon + 100 * cost;
    strain.stalled(cost, late);
    assert_eq!(strain.alone_until, Some(late + 4 * cost));
    strain.stalled(Duration::from_secs(9), late);
    assert_eq!(strain.alone_until, Some(late + LONGEST_PENALTY));
}

#[test]
fn stalls_that_cost_little_of_the_time_are_borne() {
    let mut now = Instant::now();
    let mut strain = Strain::new(now);
    let token = Duration::from_millis(3);
    for _ in 0..1000 {
        now += token;
        strain.stalled(token / 5, now);
    }
    assert_eq!(strain.alone_until, None);
    // Half of the time is too much, before long.
    for _ in 0..8 {
        now += token;
        strain.stalled(token / 2, now);
    }
    assert!(strain.alone_until.is_some());
}

#[test]
fn the_caller_works_alone_after_a_stall() {
    let pool = Pool::new(2);
    // SAFETY: no job is under way.
    unsafe { (*pool.strain.get()).alone_until = Some(Instant::now() + Duration::from_mins(1)) };
    let me = std::thread::current().id();
    for _ in 0..20 {
        pool.run(40, &|_| assert_eq!(std::thread::current().id(), me));
    }
}
