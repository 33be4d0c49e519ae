//! Memory that this process has used.

/// The most memory in bytes that the process has held at one time: its resident peak on Linux, MLX's
/// own allocations elsewhere (on a Mac they are nearly all of it, and live in unified memory).
pub fn peak_bytes() -> u64 {
    resident_peak().unwrap_or(0).max(mlx_rs::memory::peak_memory().unwrap_or(0) as u64)
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
