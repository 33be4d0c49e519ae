//! Where a measurement was made, as far as the system tells.

use std::fs;
use std::path::Path;

use sysinfo::System;

use crate::cli::run::EngineArgs;
use crate::engine::cache::KV_BITS;
use crate::engine::device::{self, Blas};
use crate::engine::policy::{Device, Policy};
use crate::error::{Error, Result};
use crate::report::bench::BenchEnvironment;

/// The machine, and what a model is computed with on it.
pub fn of(policy: &Policy, threads: Option<usize>, args: &EngineArgs) -> Result<BenchEnvironment> {
    let facts = device::facts();
    let on_cpu = policy.device == Device::Cpu;
    let machine = of_disk()?;
    Ok(BenchEnvironment {
        cpu: facts.cpu,
        threads: if on_cpu { threads.or(machine.cores) } else { None },
        device: if on_cpu { "cpu".to_owned() } else { facts.gpu.unwrap_or_else(|| "gpu".to_owned()) },
        mlx: facts.mlx,
        blas: match facts.blas {
            Blas::OpenBlas(config) => Some(config),
            Blas::Accelerate => Some("Accelerate".to_owned()),
            Blas::Other(file) => Some(file),
            Blas::Unknown => None,
        },
        flags: flags(args),
        ..machine
    })
}

/// The flags that were given and that results may depend on, beside the device and the threads.
fn flags(args: &EngineArgs) -> Vec<String> {
    let number = |value: Option<usize>| value.map(|value| value.to_string());
    let with = |flag: Option<usize>, value: usize| number(flag.map(|_| value));
    let given = [
        ("--context", number(args.context)),
        ("--max-kv-size", number(args.max_kv_size)),
        ("--keep", with(args.max_kv_size, args.keep)),
        ("--kv-bits", number(Some(args.kv_bits).filter(|&bits| bits != KV_BITS))),
        ("--kv-group-size", number(args.kv_group_size)),
        ("--kv-start", number(args.kv_start)),
        ("--quantize", args.quantize.clone()),
        ("--quantize-group-size", number(args.quantize_group_size)),
        ("--adapter", args.adapter.as_ref().map(|path| path.display().to_string())),
        ("--memory-limit", args.memory_limit.map(|bytes| bytes.to_string())),
    ];
    given.into_iter().filter_map(|(flag, value)| Some(format!("{flag} {}", value?))).collect()
}

/// The machine, where no model is computed.
pub fn of_disk() -> Result<BenchEnvironment> {
    let failed = |error: sysinfo::Error| Error::internal(format!("cannot ask for the memory: {error}"));
    let mut system = System::new().map_err(failed)?;
    system.refresh_memory();
    Ok(BenchEnvironment {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cpu: None,
        arch: std::env::consts::ARCH.to_owned(),
        cores: System::physical_core_count().ok(),
        threads: None,
        memory_bytes: system.total_memory(),
        os: System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.to_owned()),
        device: "disk".to_owned(),
        mlx: None,
        blas: None,
        flags: Vec::new(),
        power: power(Path::new("/sys/class/power_supply")),
        temperature_c: temperature(Path::new("/sys/class/thermal")),
        load_average: System::load_average().map_or(0.0, |load| load.one),
    })
}

/// What feeds the machine, by Linux's power supply class (Documentation/ABI/testing/sysfs-class-power).
fn power(folder: &Path) -> Option<String> {
    let online = |kind: &str| {
        fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            (read("type").trim() == kind).then(|| read("online").trim() == "1" || kind == "Battery")
        })
    };
    match (online("Mains"), online("Battery")) {
        (Some(true), _) => Some("mains".to_owned()),
        (_, Some(true)) => Some("battery".to_owned()),
        _ => None,
    }
}

/// The hottest of Linux's thermal zones, which tell thousandths of a degree.
fn temperature(folder: &Path) -> Option<f64> {
    fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("temp")).ok()?.trim().parse::<f64>().ok())
        .map(|thousandths| thousandths / 1000.0)
        .max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supplies_and_sensors_are_read_where_there_are_any() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!((power(folder.path()), temperature(folder.path())), (None, None));
        let write = |name: &str, file: &str, text: &str| {
            fs::create_dir_all(folder.path().join(name)).expect("a folder");
            fs::write(folder.path().join(name).join(file), text).expect("written");
        };
        write("BAT0", "type", "Battery\n");
        assert_eq!(power(folder.path()).as_deref(), Some("battery"));
        write("AC", "type", "Mains\n");
        write("AC", "online", "0\n");
        assert_eq!(power(folder.path()).as_deref(), Some("battery"));
        write("AC", "online", "1\n");
        assert_eq!(power(folder.path()).as_deref(), Some("mains"));
        write("thermal_zone0", "temp", "41500\n");
        write("thermal_zone1", "temp", "38000\n");
        assert_eq!(temperature(folder.path()), Some(41.5));
    }
}
