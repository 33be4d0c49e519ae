//! Memory that this process has used.

use crate::engine::ffi::heap;

/// The most memory in bytes that the process has held at one time: its resident peak on Linux, MLX's
/// own allocations elsewhere (on a Mac they are nearly all of it, and live in unified memory).
pub fn peak_bytes() -> u64 {
    resident_peak().unwrap_or(0).max(mlx_rs::memory::peak_memory().unwrap_or(0) as u64)
}

/// Has the peak begin anew with what the process holds now, after what is free was given back. Where the system
/// cannot, it stays that of the whole process.
pub fn restart_peak() {
    heap::give_back();
    let _ = mlx_rs::memory::clear_cache();
    // Documentation/filesystems/proc.rst: 5 resets the peak of the resident set.
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let _ = mlx_rs::memory::reset_peak_memory();
}

#[cfg(target_os = "linux")]
fn resident_peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(not(target_os = "linux"))]
fn resident_peak() -> Option<u64> {
    None
}
