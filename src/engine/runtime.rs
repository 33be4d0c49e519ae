//! The MLX library of this process: its devices and which of them computes.

use mlx_rs::{Device, Stream};

use crate::engine::policy;

/// Whether MLX has a GPU here: Metal on a Mac, CUDA where the library was built for it.
pub fn has_gpu() -> bool {
    Stream::try_default_on_device(&Device::gpu()).is_ok()
}

/// Makes a device the one that computes from now on.
pub fn select(device: policy::Device) {
    Device::set_default(&match device {
        policy::Device::Gpu => Device::gpu(),
        policy::Device::Cpu => Device::cpu(),
    });
}

/// Asks a Mac to keep so many bytes of the GPU's memory from being paged out while others need memory.
pub fn hold(bytes: u64) {
    if cfg!(target_os = "macos") {
        // A system that refuses, such as one before macOS 15, only loses speed.
        let _ = mlx_rs::memory::set_wired_limit(usize::try_from(bytes).unwrap_or(usize::MAX));
    }
}
