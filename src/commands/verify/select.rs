//! What is to be checked.

use std::path::Path;

use crate::cli::verify::{SourceChoice, VerifyArgs};
use crate::commands::resolve::registered;
use crate::commands::status::present_sources;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::fs::plain_path;
use crate::ids::{ModelName, ModelRef, RevisionSpec};
use crate::registry::{Origin, Registry, Snapshot};
use crate::sources::{ForeignModel, Source, folder};
use crate::store::Store;
use crate::verify::{self, Cache, Verification};

/// What a command line asks to check.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// These registered snapshots.
    snapshots: Vec<Snapshot>,
    /// The store's own folder and what no snapshot uses.
    rest_of_store: bool,
    /// These folders of other tools.
    caches: Vec<Chosen>,
}

/// A folder of another tool.
#[derive(Debug)]
struct Chosen {
    source: Box<dyn Source>,
    models: Models,
}

/// Which models of a foreign folder.
#[derive(Debug, Clone, PartialEq)]
enum Models {
    /// All, and what belongs to none.
    All,
    /// Those with one of these names.
    Named(Vec<(ModelName, Option<RevisionSpec>)>),
    /// Those that the registry knows: their caches tell more of them than the registry.
    Adopted,
}

impl Selection {
    pub fn new(args: &VerifyArgs, context: &Context) -> Result<Self> {
        let mut selection = Self::default();
        for path in &args.path {
            selection.add_folder(path, context)?;
        }
        if args.model.is_empty() {
            if args.path.is_empty() || !args.source.is_empty() {
                selection.add_sources(&args.source, context)?;
            }
        } else {
            for reference in &args.model {
                selection.add_model(reference, &args.source, context)?;
            }
        }
        selection.add_caches_of_adopted(context);
        Ok(selection)
    }

    /// A folder that the user names.
    fn add_folder(&mut self, path: &Path, context: &Context) -> Result<()> {
        let path = plain_path(path).map_err(|error| Error::io("resolve", path, error))?;
        let metadata = std::fs::metadata(&path).map_err(|error| Error::io("read", &path, error))?;
        if !metadata.is_dir() {
            let message = format!("{} is not a folder", path.display());
            return Err(Error::new(Code::InvalidRequest, message).hint("name the folder that the file is in"));
        }
        let source = folder(&path, &context.settings.home.value);
        self.caches.push(Chosen { source, models: Models::All });
        Ok(())
    }

    /// Everything of these kinds; of no kind: what the registry knows.
    fn add_sources(&mut self, kinds: &[SourceChoice], context: &Context) -> Result<()> {
        let all = kinds.contains(&SourceChoice::All);
        let wants = |kind| all || kinds.contains(&kind);
        let registered = kinds.is_empty() || all;
        self.snapshots = Store::at(&context.settings.home.value).snapshots()?;
        self.snapshots.retain(|snapshot| registered || wants(kind_of(snapshot.origin)));
        self.rest_of_store = kinds.is_empty() || wants(SourceChoice::Store);
        for source in present_sources(&context.settings) {
            let kind = match source.name() {
                "hf" => SourceChoice::Hf,
                "ollama" => SourceChoice::Ollama,
                _ => SourceChoice::Lmstudio,
            };
            if wants(kind) {
                self.caches.push(Chosen { source, models: Models::All });
            }
        }
        Ok(())
    }

    /// A model that the registry knows, else one of another tool's cache.
    fn add_model(&mut self, reference: &str, kinds: &[SourceChoice], context: &Context) -> Result<()> {
        let all = kinds.is_empty() || kinds.contains(&SourceChoice::All);
        let fits = |snapshot: &Snapshot| all || kinds.contains(&kind_of(snapshot.origin));
        let unknown = match registered(reference, context) {
            Ok(snapshots) => {
                let known = self.snapshots.len();
                for snapshot in snapshots.into_iter().filter(fits) {
                    if !self.snapshots.iter().any(|known| known.id == snapshot.id) {
                        self.snapshots.push(snapshot);
                    }
                }
                if self.snapshots.len() > known || all {
                    return Ok(());
                }
                Error::new(Code::ModelNotFound, format!("{reference} is not registered from there"))
                    .hint("mlx-cache list shows where models come from")
            }
            Err(error) if error.code() == Code::ModelNotFound => error,
            Err(error) => return Err(error),
        };
        match reference.parse() {
            Ok(ModelRef::Named { name, revision, .. }) => {
                self.add_named(&name, revision.as_ref(), kinds, unknown, context)
            }
            Ok(ModelRef::Path(path)) if path.is_dir() => self.add_folder(&path, context),
            _ => Err(unknown),
        }
    }

    /// A model that only its tool knows; `unknown` is the error if no tool does.
    fn add_named(
        &mut self,
        name: &ModelName,
        revision: Option<&RevisionSpec>,
        kinds: &[SourceChoice],
        unknown: Error,
        context: &Context,
    ) -> Result<()> {
        let all = kinds.is_empty() || kinds.contains(&SourceChoice::All);
        let mut found = false;
        for source in present_sources(&context.settings) {
            let wanted = all || kinds.iter().any(|kind| word(*kind) == source.name());
            let is_there =
                wanted && source.scan(&context.cancel)?.models.iter().any(|model| model.name.is_same(name));
            if is_there {
                found = true;
                let models = Models::Named(vec![(name.clone(), revision.cloned())]);
                self.caches.push(Chosen { source, models });
            }
        }
        if found { Ok(()) } else { Err(unknown) }
    }

    /// The caches where chosen adopted models lie.
    fn add_caches_of_adopted(&mut self, context: &Context) {
        for source in present_sources(&context.settings) {
            let is_chosen = self.caches.iter().any(|chosen| chosen.source.root() == source.root());
            let holds_adopted = self
                .snapshots
                .iter()
                .any(|snapshot| !snapshot.origin.is_stored() && snapshot.root.starts_with(source.root()));
            if holds_adopted && !is_chosen {
                self.caches.push(Chosen { source, models: Models::Adopted });
            }
        }
    }

    /// The subjects as they are now.
    pub fn subjects(
        &self,
        store: &Store,
        registry: Option<&Registry>,
        context: &Context,
    ) -> Result<Verification> {
        let mut verification = Verification::default();
        let mut adopted: Vec<&Snapshot> = Vec::new();
        for snapshot in &self.snapshots {
            context.cancel.check()?;
            match registry {
                Some(registry) if snapshot.origin.is_stored() => verification.subjects.push(verify::stored(
                    store,
                    registry,
                    snapshot,
                    &mut verification.contents,
                )?),
                _ => adopted.push(snapshot),
            }
        }
        for chosen in &self.caches {
            let told = chosen.subjects(registry, &adopted, &mut verification, context)?;
            adopted.retain(|snapshot| !told.contains(&snapshot.id));
        }
        if let Some(registry) = registry {
            for snapshot in adopted {
                verification.subjects.push(verify::adopted(registry, snapshot, &mut verification.contents)?);
            }
        }
        if self.rest_of_store {
            verification.subjects.extend(verify::rest_of_store(store, registry, &mut verification.contents)?);
        }
        Ok(verification)
    }
}

impl Chosen {
    /// Adds the chosen models of the cache; gives back the adopted snapshots that are among them.
    fn subjects(
        &self,
        registry: Option<&Registry>,
        adopted: &[&Snapshot],
        verification: &mut Verification,
        context: &Context,
    ) -> Result<Vec<i64>> {
        let bar = context.output.progress(
            &format!("looking at {}", self.source.root().display()),
            None,
            crate::output::progress::Unit::Items,
        );
        let scan = self.source.scan(&context.cancel)?;
        drop(bar);
        let cache = Cache::new(self.source.as_ref(), &scan, registry);
        let mut told = Vec::new();
        for model in &scan.models {
            context.cancel.check()?;
            let own: Vec<&Snapshot> =
                adopted.iter().copied().filter(|snapshot| is_of(snapshot, model)).collect();
            if self.models.includes(model, &own) {
                told.extend(own.iter().map(|snapshot| snapshot.id));
                verification.subjects.push(cache.model(model, &own, &mut verification.contents)?);
            }
        }
        if self.models == Models::All {
            verification.subjects.extend(cache.rest(&mut verification.contents)?);
        }
        Ok(told)
    }
}

impl Models {
    fn includes(&self, model: &ForeignModel, adopted: &[&Snapshot]) -> bool {
        match self {
            Self::All => true,
            Self::Adopted => !adopted.is_empty(),
            Self::Named(names) => names.iter().any(|(name, revision)| {
                let has_revision = |wanted: &RevisionSpec| {
                    model.revision.as_ref().is_some_and(|revision| revision.matches(wanted))
                };
                model.name.is_same(name) && revision.as_ref().is_none_or(has_revision)
            }),
        }
    }
}

/// Whether a snapshot was adopted from this foreign model: its files are the model's.
fn is_of(snapshot: &Snapshot, model: &ForeignModel) -> bool {
    if snapshot.root != model.root {
        return false;
    }
    match &snapshot.entry {
        None => true,
        Some(entry) => model.files.iter().any(|file| *file.place == *snapshot.root.join(entry)),
    }
}

fn kind_of(origin: Origin) -> SourceChoice {
    match word_of(origin) {
        "store" => SourceChoice::Store,
        "hf" => SourceChoice::Hf,
        "ollama" => SourceChoice::Ollama,
        "lmstudio" => SourceChoice::Lmstudio,
        // Adopted from any folder: asked for with everything only.
        _ => SourceChoice::All,
    }
}

fn word_of(origin: Origin) -> &'static str {
    if origin.is_stored() { "store" } else { origin.as_str() }
}

fn word(kind: SourceChoice) -> &'static str {
    match kind {
        SourceChoice::Store => "store",
        SourceChoice::Hf => "hf",
        SourceChoice::Ollama => "ollama",
        SourceChoice::Lmstudio => "lmstudio",
        SourceChoice::All => "all",
    }
}
