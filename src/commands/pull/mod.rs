//! `pull`: plan, show, fetch, register.

pub mod auto;
mod fetch;
mod here;
mod plan;
mod request;
mod reuse;
mod selection;
mod tracker;

use std::sync::atomic::Ordering;
use std::time::Instant;

use self::fetch::Fetch;
pub(super) use self::plan::SMALL;
use self::plan::{Found, Item, Plan, check_space};
use self::request::Wanted;
use self::reuse::Elsewhere;
use self::tracker::Tracker;
use super::facts;
use crate::cli::pull::PullArgs;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::hub::{Hub, HubOptions, Secret};
use crate::ids::{SnapshotPath, leader};
use crate::registry::{Facts, FileRecord, Kind, NewSnapshot, Origin, Registry, Snapshot};
use crate::report::pull::{Action, ActionReport, PullReport, PulledReport};
use crate::settings::value::Token;
use crate::store::Store;

/// Files at the same time, where nobody says how many.
const JOBS: u8 = 8;

/// How often to begin anew when another process removes content that was counted on.
const TRIES: usize = 4;

/// How to pull.
#[derive(Debug, Clone)]
struct Manner {
    token: Option<Token>,
    jobs: u8,
    dry_run: bool,
    force: bool,
    events: bool,
}

pub fn run(args: &PullArgs, context: &Context) -> Result<PullReport> {
    let wanted = request::of_arguments(args, context)?;
    let manner = Manner {
        token: args.token.clone(),
        jobs: args.jobs,
        dry_run: args.dry_run,
        force: args.force,
        events: args.progress_json,
    };
    Ok(PullReport { dry_run: args.dry_run, models: pull(&wanted, &manner, context)? })
}

/// Pulls models: all are planned before anything of the first is fetched.
fn pull(wanted: &[Wanted], manner: &Manner, context: &Context) -> Result<Vec<PulledReport>> {
    let store = Store::at(&context.settings.home.value);
    let mut work = Work { store, manner, context, hub: None };
    let prepared = work.prepare(wanted)?;
    let plans = prepared.iter().filter_map(|prepared| match prepared {
        Prepared::Here(_) => None,
        Prepared::Planned(plan, _) => Some(&**plan),
    });
    check_space(plans, &work.store)?;
    prepared
        .into_iter()
        .map(|prepared| match prepared {
            Prepared::Here(report) => Ok(*report),
            Prepared::Planned(plan, started) if manner.dry_run => Ok(work.planned(&plan, started)),
            Prepared::Planned(plan, started) => work.carry_out(*plan, started),
        })
        .collect()
}

/// What is known of a model before anything is fetched.
enum Prepared {
    /// It is here, and nobody needs to be asked.
    Here(Box<PulledReport>),
    Planned(Box<Plan>, Instant),
}

struct Work<'a> {
    store: Store,
    manner: &'a Manner,
    context: &'a Context,
    /// Made when it is first needed.
    hub: Option<Hub>,
}

impl Work<'_> {
    fn prepare(&mut self, wanted: &[Wanted]) -> Result<Vec<Prepared>> {
        let registry = self.store.registry()?;
        let mut elsewhere = Elsewhere::new(self.context);
        let mut prepared = Vec::new();
        for wanted in wanted {
            let started = Instant::now();
            if !self.manner.force
                && let Some(report) =
                    here::find(wanted, &self.store, registry.as_ref(), self.context, started)?
            {
                prepared.push(Prepared::Here(Box::new(report)));
                continue;
            }
            let hub = if let Some(hub) = &self.hub {
                hub
            } else {
                let hub = connect(self.manner.token.as_ref(), self.manner.jobs, self.context)
                    .map_err(|error| error.context(format!("{} is not here whole", wanted.name)))?;
                self.hub.insert(hub)
            };
            let force = self.manner.force;
            let plan =
                Plan::new(wanted, hub, &self.store, registry.as_ref(), &mut elsewhere, force, self.context)?;
            prepared.push(Prepared::Planned(Box::new(plan), started));
        }
        Ok(prepared)
    }

    /// What would be done.
    fn planned(&self, plan: &Plan, started: Instant) -> PulledReport {
        let here = |is: fn(&Found) -> bool| {
            plan.items.iter().filter(|item| is(&item.found)).map(|item| item.file.bytes).sum::<u64>()
        };
        let reused = here(|found| matches!(found, Found::InStore(_) | Found::Elsewhere(_)));
        let mut report = self.report(plan, &plan.name, started);
        report.bytes_downloaded = plan.to_download();
        report.bytes_reused = reused;
        report.bytes_resumed = plan.bytes() - plan.to_download() - reused;
        report
    }

    /// Does it, and what another process undoes meanwhile a second and third time.
    fn carry_out(&self, mut plan: Plan, started: Instant) -> Result<PulledReport> {
        let mut registry = self.store.create()?;
        // Nobody takes away what is here until it is registered.
        let _writing = self.store.writing()?;
        let Some(hub) = &self.hub else {
            return Err(Error::internal("a model was planned without the hub"));
        };
        for _ in 1..TRIES {
            match self.try_to(&plan, hub, &mut registry, started) {
                Err(error) if error.code() == Code::Locked => {
                    plan.look_again(&self.store, &registry, &mut Elsewhere::new(self.context))?;
                }
                result => return result,
            }
        }
        self.try_to(&plan, hub, &mut registry, started)
    }

    fn try_to(
        &self,
        plan: &Plan,
        hub: &Hub,
        registry: &mut Registry,
        started: Instant,
    ) -> Result<PulledReport> {
        let tracker = Tracker::new(plan, self.manner.events, self.context);
        let jobs = usize::from(self.manner.jobs);
        let fetch =
            Fetch { plan, hub, store: &self.store, tracker: &tracker, jobs, force: self.manner.force };
        let files = fetch.run()?;
        let snapshot = self.register(plan, files, registry)?;
        let mut report = self.report(plan, &snapshot.name, started);
        report.bytes_downloaded = tracker.downloaded.load(Ordering::Relaxed);
        report.bytes_reused = tracker.reused.load(Ordering::Relaxed);
        report.bytes_resumed = tracker.resumed.load(Ordering::Relaxed);
        report.snapshot_path = snapshot.root.display().to_string();
        Ok(report)
    }

    /// Makes the files a snapshot, together with those of the same commit that were there before.
    fn register(&self, plan: &Plan, files: Vec<FileRecord>, registry: &mut Registry) -> Result<NewSnapshot> {
        let lock = self.store.lock()?;
        let mut known = registry.snapshots_of(&plan.name)?.into_iter();
        let known = known.find(|known| known.revision == plan.commit && known.origin.is_stored());
        let entry = entry(&files);
        let mut all = files;
        if let Some(known) = &known {
            let there = |file: &FileRecord| all.iter().any(|own| own.path == file.path);
            let before = registry.files(known.id)?;
            let more: Vec<_> = before
                .into_iter()
                .filter(|file| !there(file) && self.store.has_blob(&file.digest, file.bytes))
                .map(|file| FileRecord { stamp: None, ..file })
                .collect();
            all.extend(more);
        }
        let leader = entry.as_ref().and_then(|_| leader(&all, |file| file.path.as_str()));
        let leader = leader.map(|file| file.path.clone());
        let mut new = NewSnapshot {
            name: plan.name.clone(),
            revision: plan.commit.clone(),
            origin: Origin::Hub,
            root: std::path::PathBuf::new(),
            entry: leader,
            facts: UNKNOWN,
            files: all,
        };
        self.store.place(&lock, registry, &mut new)?;
        // Of several GGUF files that are here, the one that was asked for now tells what the model is.
        new.facts = match new.entry.as_ref().or(entry.as_ref()) {
            Some(file) => facts::at(&new.root.join(file)),
            None => facts::at(&new.root),
        };
        registry.register(&new, &[])?;
        let branch = (plan.requested != plan.commit.as_str()).then_some(plan.requested.as_str());
        registry.note_pull(&new.name, &new.revision, branch, &plan.choice)?;
        Ok(new)
    }

    fn report(&self, plan: &Plan, name: &crate::ids::ModelName, started: Instant) -> PulledReport {
        let already_present = plan.items.iter().all(|item| matches!(item.found, Found::InStore(_)));
        let mut actions: Vec<ActionReport> = plan.items.iter().flat_map(actions).collect();
        actions.sort_by(|a, b| a.path.cmp(&b.path));
        PulledReport {
            reference: name.to_string(),
            revision: plan.commit.to_string(),
            requested_revision: plan.requested.clone(),
            endpoint: self.context.settings.hf_endpoint.value.clone(),
            snapshot_path: self.store.snapshot(name, &plan.commit).display().to_string(),
            files: plan.files.len() as u64,
            bytes_total: plan.bytes(),
            bytes_downloaded: 0,
            bytes_reused: 0,
            bytes_resumed: 0,
            seconds: started.elapsed().as_secs_f64(),
            already_present,
            actions,
        }
    }
}

const UNKNOWN: Facts = Facts {
    kind: Kind::Other,
    architecture: None,
    parameters: None,
    quantization: None,
    context_length: None,
};

/// The file that is the model, if one of these is: a GGUF, or the first part of a split one.
fn entry(files: &[FileRecord]) -> Option<SnapshotPath> {
    let mut ggufs = files.iter().filter(|file| file.path.has_extension("gguf"));
    let first = ggufs.next()?;
    let has_weights = files.iter().any(|file| file.path.has_extension("safetensors"));
    (!has_weights).then(|| first.path.clone())
}

fn actions(item: &Item) -> impl Iterator<Item = ActionReport> + '_ {
    let (action, from) = match &item.found {
        Found::InStore(_) => (Action::Present, None),
        Found::Elsewhere(places) => (Action::Reuse, places.first().map(|place| place.display().to_string())),
        Found::Kept(_) | Found::Partly(_) => (Action::Resume, None),
        Found::Nowhere => (Action::Download, None),
    };
    item.paths.iter().map(move |path| ActionReport {
        path: path.to_string(),
        bytes: item.file.bytes,
        action,
        from: from.clone(),
    })
}

/// The hub, as the settings say.
pub(super) fn connect(token: Option<&Token>, jobs: u8, context: &Context) -> Result<Hub> {
    let settings = &context.settings;
    let token = token.or(settings.hf_token.value.as_ref());
    if token.is_some_and(|token| !token.is_well_formed()) {
        return Err(Error::new(Code::InvalidRequest, "the hub's token holds characters that no token has")
            .hint("write it anew with `hf auth login`, or correct HF_TOKEN or --token"));
    }
    Hub::new(&HubOptions {
        endpoint: settings.hf_endpoint.value.clone(),
        token: token.map(|token| Secret::new(token.expose())).transpose()?,
        offline: settings.offline.value,
        timeout: settings.http_timeout.value,
        retries: settings.http_retries.value,
        connections: usize::from(jobs),
        xet: !settings.hf_disable_xet.value,
    })
}

/// The snapshot's files, if all are there.
fn whole_files(snapshot: &Snapshot, store: &Store, registry: &Registry) -> Result<Option<Vec<FileRecord>>> {
    let files = registry.files(snapshot.id)?;
    let is_there = |file: &FileRecord| {
        if snapshot.origin.is_stored() {
            store.has_blob(&file.digest, file.bytes) && snapshot.root.join(&file.path).exists()
        } else {
            std::fs::metadata(snapshot.root.join(&file.path)).is_ok_and(|found| found.len() == file.bytes)
        }
    };
    Ok(files.iter().all(is_there).then_some(files))
}
