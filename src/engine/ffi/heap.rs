//! How the C library's heap keeps what was freed.

/// Has memory that is freed stay with the process, so that activations, which are made and freed for each
/// operation, lie in pages that are there already. By default glibc gives every thread heaps of 64 MiB of its
/// own, larger pieces come from `mmap`, and both go back to the system as soon as they are free: handing out
/// and clearing their pages took a quarter of the time of embedding. To be called before the threads start.
pub fn keep_freed_memory() {
    // What the C library refuses only costs time. Pieces beyond 32 MiB, its limit, are still mapped alone.
    // SAFETY: these calls take numbers, and change how much is kept, not what is.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 16 << 20);
    }
}

/// Gives memory back that is free, such as what loading took.
pub fn give_back() {
    // SAFETY: the call has no argument that could be wrong, and touches only what is free.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}
