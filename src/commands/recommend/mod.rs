//! `recommend`, and what `mlx-cache` alone says while there is no model.

mod models;

use crate::cli::recommend::{Purpose, RecommendArgs};
use crate::cli::status::StatusArgs;
use crate::commands::status;
use crate::context::Context;
use crate::engine::device;
use crate::engine::policy::Machine;
use crate::engine::request::DeviceChoice;
use crate::error::Result;
use crate::report::recommend::{Device, MachineReport, RecommendReport, RecommendedReport, Use};
use crate::report::status::SourceStatus;

use self::models::{MODELS, Recommended};

pub fn run(args: &RecommendArgs, context: &Context) -> Result<RecommendReport> {
    report(context, |machine| {
        let shown = |model: &&Recommended| {
            args.purpose.is_none_or(|purpose| purpose == model.purpose) && (args.all || model.suits(machine))
        };
        MODELS.iter().filter(shown).copied().collect()
    })
}

/// What `mlx-cache` alone says: the machine, the best model for each purpose, the next command. Nothing on a
/// terminal once there is a model: help is wanted there.
pub fn first_run(context: &Context) -> Result<Option<RecommendReport>> {
    let report = report(context, |machine| {
        let best =
            |purpose| MODELS.iter().rfind(|model| model.purpose == purpose && model.suits(machine)).copied();
        [Purpose::Quick, Purpose::Chat, Purpose::Code].into_iter().filter_map(best).collect()
    })?;
    Ok((report.store.models == 0 || context.output.is_json()).then_some(report))
}

fn report(context: &Context, choose: impl FnOnce(&Machine) -> Vec<Recommended>) -> Result<RecommendReport> {
    let status = status::run(&StatusArgs {}, context)?;
    let facts = device::facts();
    let use_gpu = facts.gpu.is_some() && context.settings.device.value != DeviceChoice::Cpu;
    let mut machine = Machine::detect(use_gpu)?;
    if let Some(limit) = context.settings.memory_limit.value {
        machine.free_memory = machine.free_memory.min(limit);
    }
    let models = choose(&machine);
    let suitable: Vec<_> = models.iter().filter(|model| model.suits(&machine)).collect();
    let next = next(&suitable, &status.sources);
    Ok(RecommendReport {
        machine: MachineReport {
            device: if use_gpu { Device::Gpu } else { Device::Cpu },
            device_name: if use_gpu { facts.gpu } else { facts.cpu },
            free_memory_bytes: machine.free_memory,
            total_memory_bytes: machine.total_memory,
            free_disk_bytes: status.disk.free,
        },
        store: status.store,
        sources: status.sources,
        reclaimable_bytes: status.reclaimable_bytes,
        models: models.iter().map(|model| described(model, &machine)).collect(),
        next,
    })
}

fn described(model: &Recommended, machine: &Machine) -> RecommendedReport {
    RecommendedReport {
        name: model.alias.to_owned(),
        reference: model.repository.to_owned(),
        purpose: match model.purpose {
            Purpose::Quick => Use::Quick,
            Purpose::Chat => Use::Chat,
            Purpose::Code => Use::Code,
            Purpose::Embed => Use::Embed,
        },
        parameters: model.parameters,
        bytes: model.bytes(),
        memory_bytes: model.memory(machine),
        fits: model.fits(machine),
        slow: model.is_slow(machine),
    }
}

/// What to type next: models that other tools have cost nothing, a recommended one is one command away.
fn next(models: &[&Recommended], caches: &[SourceStatus]) -> Vec<String> {
    let adopted = caches.iter().filter(|cache| cache.models > 0);
    let mut next: Vec<String> = adopted.map(|cache| format!("mlx-cache add {}", cache.name)).collect();
    let chat = models.iter().rfind(|model| model.purpose == Purpose::Chat);
    if let Some(model) = chat.or(models.last()) {
        next.push(match model.purpose {
            Purpose::Embed => format!("mlx-cache embed {} \"A river is a stream of water\"", model.alias),
            _ => format!("mlx-cache run {} \"Name three rivers\"", model.alias),
        });
    }
    next
}
