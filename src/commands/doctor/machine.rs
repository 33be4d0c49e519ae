//! The machine and the libraries that compute on it.

use std::env::consts::{ARCH, OS};
use std::thread::available_parallelism;

use crate::engine::device::Blas;
use crate::engine::policy::Machine;
use crate::engine::request::DeviceChoice;
use crate::output::units;

use super::{Subject, Verdict};

/// Below this much free memory hardly a model fits, in bytes.
const LITTLE_MEMORY: u64 = 1_000_000_000;

pub(super) fn platform(_: &Subject<'_>) -> Verdict {
    let system = sysinfo::System::long_os_version().unwrap_or_else(|_| OS.to_owned());
    let detail = format!("{system}, {ARCH}, mlx-cache {}", env!("CARGO_PKG_VERSION"));
    if OS == "macos" && ARCH != "aarch64" {
        return Verdict::fail(detail, "use a Mac with Apple silicon: MLX has no other");
    }
    Verdict::ok(detail)
}

pub(super) fn device(subject: &Subject<'_>) -> Verdict {
    let settings = &subject.context.settings;
    let cores = settings.threads.value.or_else(|| available_parallelism().ok().map(usize::from));
    let cpu = subject.engine.cpu.as_deref().unwrap_or("CPU");
    let cpu = format!("{cpu}, {} threads", cores.unwrap_or(1));
    match (&subject.engine.gpu, settings.device.value) {
        (Some(gpu), DeviceChoice::Auto | DeviceChoice::Gpu) => Verdict::ok(format!("GPU: {gpu}")),
        (Some(gpu), DeviceChoice::Cpu) => {
            Verdict::ok(format!("CPU: {cpu}; the GPU {gpu} is not used, as set"))
        }
        (None, DeviceChoice::Gpu) => Verdict::fail(
            format!("the GPU is set as device, but MLX finds none; CPU: {cpu}"),
            "run `mlx-cache config set device auto`, or unset MLX_CACHE_DEVICE",
        ),
        (None, _) if OS == "macos" => {
            Verdict::warn(format!("MLX finds no GPU; CPU: {cpu}"), "run it outside of a virtual machine")
        }
        (None, _) => Verdict::ok(format!("CPU: {cpu}; no GPU")),
    }
}

pub(super) fn mlx(subject: &Subject<'_>) -> Verdict {
    match (&subject.engine.mlx, subject.engine.wheel) {
        (Some(version), Some(wheel)) => Verdict::ok(format!("MLX {version}, from the package {wheel}")),
        (Some(version), None) => Verdict::ok(format!("MLX {version}")),
        (None, _) => Verdict::fail("the MLX library does not tell its version", "install mlx-cache again"),
    }
}

pub(super) fn blas(subject: &Subject<'_>) -> Verdict {
    match &subject.engine.blas {
        Blas::OpenBlas(config) => Verdict::ok(config),
        Blas::Accelerate => Verdict::ok("Accelerate"),
        Blas::Other(file) => Verdict::warn(
            format!("matrix products come from {file}, which may be slow"),
            "install OpenBLAS (Debian and Ubuntu: libopenblas0)",
        ),
        Blas::Unknown => Verdict::warn("no BLAS is found", "install mlx-cache again"),
    }
}

pub(super) fn memory(subject: &Subject<'_>) -> Verdict {
    let machine = match Machine::detect(subject.engine.gpu.is_some()) {
        Ok(machine) => machine,
        Err(error) => return Verdict::warn(error.message(), error.hint_text().unwrap_or("report this")),
    };
    let limit = subject.context.settings.memory_limit.value;
    let mut detail =
        format!("{} of {} free", units::bytes(machine.free_memory), units::bytes(machine.total_memory));
    if let Some(limit) = limit {
        detail = format!("{detail}, models may take {}", units::bytes(limit));
        if limit > machine.total_memory {
            return Verdict::warn(detail, "lower memory_limit: it is more than the machine has");
        }
    }
    if machine.free_memory < LITTLE_MEMORY {
        return Verdict::warn(detail, "close other programs before running a model");
    }
    Verdict::ok(detail)
}
