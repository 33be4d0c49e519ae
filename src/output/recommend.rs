//! `recommend`, and `mlx-cache` alone, as text.

use crate::report::recommend::{Device, MachineReport, RecommendReport, RecommendedReport, Use};

use super::page::{Human, Page};
use super::units;

impl Human for RecommendReport {
    fn human(&self, page: &mut Page) {
        if self.store.models == 0 {
            page.line(format!("There is no model in {} yet. This machine has:", self.store.path));
            page.line("");
        }
        let machine = &self.machine;
        let mut rows = vec![
            ("device", device(machine)),
            (
                "memory",
                format!(
                    "{} free of {}",
                    units::bytes(machine.free_memory_bytes),
                    units::bytes(machine.total_memory_bytes)
                ),
            ),
            ("disk", format!("{} free", units::bytes(machine.free_disk_bytes))),
        ];
        for source in &self.sources {
            let models = if source.models == 1 { "model" } else { "models" };
            let size = units::bytes(source.bytes);
            rows.push((&source.name, format!("{} {models}, {size}: {}", source.models, source.path)));
        }
        if self.reclaimable_bytes > 0 {
            let twice = units::bytes(self.reclaimable_bytes);
            rows.push(("twice", format!("about {twice}: `mlx-cache dedupe` shows what could be reclaimed")));
        }
        page.pairs(rows);
        page.line("");
        if self.models.is_empty() {
            page.line("No model of the list fits: `mlx-cache recommend --all` shows what each takes.");
        } else {
            page.table(
                ["MODEL", "FOR", "PARAMETERS", "SIZE", "MEMORY", "REPOSITORY"],
                &[2, 3, 4],
                self.models.iter().map(|model| {
                    [
                        model.name.clone(),
                        purpose(model.purpose).to_owned(),
                        units::count(model.parameters),
                        units::bytes(model.bytes),
                        units::bytes(model.memory_bytes),
                        format!("{}{}", model.reference, remark(model)),
                    ]
                }),
            );
        }
        for (at, command) in self.next.iter().enumerate() {
            if at == 0 {
                page.line("");
            }
            page.line(format!("{:<5} {command}", if at == 0 { "Next:" } else { "or:" }));
        }
    }
}

fn device(machine: &MachineReport) -> String {
    let device = match machine.device {
        Device::Gpu => "GPU",
        Device::Cpu => "CPU",
    };
    match &machine.device_name {
        Some(name) => format!("{device} ({name})"),
        None => device.to_owned(),
    }
}

fn purpose(purpose: Use) -> &'static str {
    match purpose {
        Use::Quick => "quick",
        Use::Chat => "chat",
        Use::Code => "code",
        Use::Embed => "embed",
    }
}

fn remark(model: &RecommendedReport) -> &'static str {
    match (model.fits, model.slow) {
        (true, false) => "",
        (false, _) => " (too large now)",
        (true, true) => " (slow on a CPU)",
    }
}
