//! Folders to dedupe, and what they look like before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mlx_cache::cancel::Cancel;
use mlx_cache::dedupe::{self, Applied, Filesystems, Plan, Selection, UndoneLink, Wanted, Watch};
use mlx_cache::error::Result;
use mlx_cache::fs::{Dir, entry_at};
use mlx_cache::registry::Registry;
use mlx_cache::sources;
use mlx_cache::store::Store;
use walkdir::WalkDir;

/// A store and folders beside it, in memory where the system has such a place and `TMPDIR` names no other:
/// what is tested here does not hang on a disk, and disks are slow to sync.
pub struct Ground {
    folder: PathBuf,
    pub store: Store,
    /// Goes when dropped.
    _temporary: Option<tempfile::TempDir>,
}

/// Watches and says nothing.
pub struct Quiet;

impl Watch for Quiet {
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// What a path shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    Folder,
    /// Content, permission bits, time of the last change in nanoseconds.
    File(Vec<u8>, u32, i64),
    /// Target of the link, and what is read through it.
    Link(PathBuf, Option<Vec<u8>>),
    Other,
}

impl Ground {
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        // A filesystem that was chosen on purpose is the one to test on: one with clones, say.
        let chosen = std::env::var_os("TMPDIR").is_some() || !memory.is_dir();
        let folder = if chosen { tempfile::tempdir() } else { tempfile::tempdir_in(memory) };
        let folder = folder.expect("a folder");
        let real = folder.path().canonicalize().expect("a path");
        Self { _temporary: Some(folder), ..Self::at(&real) }
    }

    /// The one that another process works on.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), store: Store::at(&folder.join("store")), _temporary: None }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file and the folders above it.
    pub fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(&path, content).expect("a file");
        path
    }

    /// The plan for these folders, and the registry it was made with.
    pub fn plan(&self, roots: &[PathBuf], wanted: Wanted) -> (Plan, Registry) {
        let mut registry = self.store.create().expect("a store");
        let sources: Vec<_> = roots.iter().map(|root| sources::folder(root, self.store.home())).collect();
        let look =
            dedupe::look(&sources, &[], &self.store, true, &Cancel::default(), &Quiet).expect("a look");
        let equals = dedupe::find_equal(&look.files, 0, Some(&mut registry), &Quiet).expect("a comparison");
        let device = entry_at(&self.store.blobs()).expect("the store").stamp.device;
        let mut filesystems = Filesystems { store: device, ..Filesystems::default() };
        filesystems.cloned = dedupe::cloned(&registry).expect("clones");
        for file in &look.files {
            let (folder, name) =
                (file.path.parent().expect("a parent"), file.path.file_name().expect("a name"));
            let dir = Dir::open(folder).expect("a folder");
            if dir.open_file(name).is_ok_and(|file| dir.can_clone(&file)) {
                filesystems.clones.insert(file.entry.stamp.device);
            }
        }
        (dedupe::plan(&look.files, &equals, wanted, &filesystems), registry)
    }

    /// Plans and applies.
    pub fn apply(&self, roots: &[PathBuf], wanted: Wanted, watch: &dyn Watch) -> (Plan, Applied) {
        let (plan, mut registry) = self.plan(roots, wanted);
        let applied = dedupe::apply(&plan, &self.store, &mut registry, watch).expect("applied");
        (plan, applied)
    }

    /// Undoes everything.
    pub fn undo(&self, watch: &dyn Watch) -> Vec<UndoneLink> {
        let mut registry = self.store.create().expect("a store");
        let plan = dedupe::plan_undo(&self.store, &registry, &Selection::All).expect("a plan");
        dedupe::undo(&self.store, &mut registry, &plan, watch).expect("undone")
    }

    /// Content of the store, names in links/, and what waits in the stage.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let below = |folder: PathBuf| WalkDir::new(folder).into_iter().flatten();
        below(self.store.blobs())
            .chain(below(self.store.links()))
            .filter(|entry| !entry.file_type().is_dir())
            .map(walkdir::DirEntry::into_path)
            .collect()
    }

    /// Whether nothing waits in the stage.
    pub fn is_stage_empty(&self) -> bool {
        fs::read_dir(self.store.staging()).map_or(true, |mut found| found.next().is_none())
    }

    /// The sizes of all files of the folders and of the store's content, each counted once.
    pub fn used(&self) -> u64 {
        let mut seen = BTreeSet::new();
        WalkDir::new(&self.folder)
            .into_iter()
            .flatten()
            .filter(|entry| entry.file_type().is_file())
            .filter(|entry| entry.path().parent() != Some(self.store.home()))
            .filter_map(|entry| entry.metadata().ok())
            .filter(|found| seen.insert((found.dev(), found.ino())))
            .map(|found| found.len())
            .sum()
    }
}

/// Everything below a folder.
pub fn shown(folder: &Path) -> BTreeMap<PathBuf, Shown> {
    WalkDir::new(folder)
        .min_depth(1)
        .into_iter()
        .map(|entry| entry.expect("a folder that can be read"))
        .map(|entry| (entry.path().to_owned(), shown_at(entry.path())))
        .collect()
}

pub fn shown_at(path: &Path) -> Shown {
    let found = fs::symlink_metadata(path).expect("it is there");
    if found.is_dir() {
        Shown::Folder
    } else if found.is_file() {
        let time = found.mtime() * 1_000_000_000 + found.mtime_nsec();
        Shown::File(fs::read(path).expect("readable"), found.permissions().mode() & 0o7777, time)
    } else if found.is_symlink() {
        let through = fs::metadata(path).ok().filter(fs::Metadata::is_file);
        let content = through.map(|_| fs::read(path).expect("readable"));
        Shown::Link(fs::read_link(path).expect("a link"), content)
    } else {
        Shown::Other
    }
}

impl Shown {
    /// What a program reads there.
    pub fn content(&self) -> Option<&[u8]> {
        match self {
            Self::File(content, ..) | Self::Link(_, Some(content)) => Some(content),
            _ => None,
        }
    }
}
