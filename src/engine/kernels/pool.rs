//! The threads of the kernels.

/// Runs `work` for every index below `count`.
pub fn run(count: usize, work: &(dyn Fn(usize) + Sync)) {
    (0..count).for_each(work);
}
