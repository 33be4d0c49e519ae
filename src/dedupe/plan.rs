//! What would be done, as data: nothing here looks at the disk.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::{Equal, Equals, File, LINK_COST, Skipped};
use crate::ids::{Bytes, Digest};
use crate::registry::{Identity, LinkStrategy};

/// How copies are to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Symlink,
    Hardlink,
    Reflink,
    /// Clones where the filesystem has them, else hard links.
    Auto,
}

impl Wanted {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Symlink => LinkStrategy::Symlink.as_str(),
            Self::Hardlink => LinkStrategy::Hardlink.as_str(),
            Self::Reflink => LinkStrategy::Reflink.as_str(),
            Self::Auto => "auto",
        }
    }
}

/// What is known of the filesystems.
#[derive(Debug, Clone, Default)]
pub struct Filesystems {
    /// The one that the store lies in, or will.
    pub store: u64,
    /// Those where files can share blocks.
    pub clones: HashSet<u64>,
    /// Files that are known to share blocks already.
    pub cloned: HashSet<Identity>,
}

/// Everything that would be done.
#[derive(Debug, Clone)]
pub struct Plan {
    pub wanted: Wanted,
    pub groups: Vec<Group>,
    pub skipped: Vec<Skipped>,
    /// Files that are links or clones already.
    pub linked: u64,
}

/// Equal files, of which one copy stays.
#[derive(Debug, Clone)]
pub struct Group {
    pub digest: Digest,
    /// Of one copy.
    pub bytes: u64,
    pub keep: Keep,
    pub replace: Vec<Replacement>,
    /// Disk space that this gives back: of each file once, however many names it has.
    pub reclaims: Bytes,
}

/// The copy that stays.
#[derive(Debug, Clone)]
pub enum Keep {
    /// Content that is in the store already.
    Stored(Arc<File>),
    /// It moves into the store, without being copied.
    Moves(Arc<File>),
    /// It is copied into the store, which lies on another filesystem.
    Copies(Arc<File>),
    /// It stays where it is.
    Stays(Arc<File>),
}

impl Keep {
    pub fn file(&self) -> &File {
        match self {
            Self::Stored(file) | Self::Moves(file) | Self::Copies(file) | Self::Stays(file) => file,
        }
    }
}

/// A file that is replaced.
#[derive(Debug, Clone)]
pub struct Replacement {
    pub file: Arc<File>,
    pub how: LinkStrategy,
}

impl Plan {
    /// Disk space that all of it gives back.
    pub fn reclaims(&self) -> Bytes {
        self.groups.iter().map(|group| group.reclaims).sum()
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// One file of a group with its names.
#[derive(Clone, Copy)]
struct Copy<'a> {
    first: &'a Arc<File>,
    /// Positions in the list of files, that of the first among them.
    names: &'a [u32],
    files: &'a [Arc<File>],
}

impl<'a> Copy<'a> {
    fn new(names: &'a [u32], files: &'a [Arc<File>]) -> Option<Self> {
        Some(Self { first: files.get(*names.first()? as usize)?, names, files })
    }

    fn names(&self) -> impl Iterator<Item = &'a Arc<File>> + use<'a> {
        let files = self.files;
        self.names.iter().filter_map(|at| files.get(*at as usize))
    }

    fn device(&self) -> u64 {
        self.first.entry.stamp.device
    }

    fn is_stored(&self) -> bool {
        self.names().any(|name| name.is_stored())
    }

    /// Why the file cannot be given up: all of its names must be replaced, or nothing is gained.
    fn bound(&self) -> Option<String> {
        if let Some(reason) = self.names().find_map(|name| name.replaceable.as_ref().err()) {
            return Some(reason.to_string());
        }
        let names = self.first.entry.names;
        match names.cmp(&(self.names.len() as u64)) {
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(format!(
                "it has {} more names outside of the folders that are looked through, so that nothing would be gained",
                names - self.names.len() as u64
            )),
            std::cmp::Ordering::Less => Some("it is one file seen under several paths".to_owned()),
        }
    }
}

/// The plan for equal files.
pub fn plan(files: &[Arc<File>], equals: &Equals, wanted: Wanted, filesystems: &Filesystems) -> Plan {
    let mut plan = Plan { wanted, groups: Vec::new(), skipped: Vec::new(), linked: 0 };
    for equal in &equals.groups {
        let mut copies: Vec<Copy<'_>> =
            equals.inodes(equal).filter_map(|names| Copy::new(names, files)).collect();
        // The store's own first: it stays.
        copies.sort_by_key(|copy| (!copy.is_stored(), copy.first.path.as_os_str()));
        let maker = Maker { equal, filesystems, plan: &mut plan };
        maker.make(&copies);
    }
    plan.groups.sort_by(|a, b| b.reclaims.cmp(&a.reclaims).then_with(|| a.digest.cmp(&b.digest)));
    plan.skipped.sort_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
    plan
}

struct Maker<'a> {
    equal: &'a Equal,
    filesystems: &'a Filesystems,
    plan: &'a mut Plan,
}

impl Maker<'_> {
    fn make(mut self, copies: &[Copy<'_>]) {
        if self.plan.wanted == Wanted::Symlink {
            self.symlinks(copies);
            return;
        }
        // Links of these kinds stay within a filesystem.
        let mut by_device: BTreeMap<u64, Vec<&Copy<'_>>> = BTreeMap::new();
        for copy in copies {
            by_device.entry(copy.device()).or_default().push(copy);
        }
        let several = by_device.len() > 1;
        for (device, copies) in by_device {
            let clones = self.filesystems.clones.contains(&device);
            match copies.as_slice() {
                [alone] if several => self.skip(
                    alone,
                    "its equals lie on another filesystem: only --strategy symlink links across",
                ),
                [_] | [] => {}
                _ => match self.plan.wanted {
                    Wanted::Reflink if !clones => {
                        for copy in &copies {
                            self.skip(copy, "its filesystem cannot share blocks between files");
                        }
                    }
                    Wanted::Auto if clones => self.clones(&copies),
                    Wanted::Reflink => self.clones(&copies),
                    _ => self.hard_links(&copies),
                },
            }
        }
    }

    fn symlinks(&mut self, copies: &[Copy<'_>]) {
        if self.equal.bytes <= LINK_COST {
            return;
        }
        let stored = copies.iter().find(|copy| copy.is_stored());
        let mut free = Vec::new();
        for copy in copies.iter().filter(|copy| !copy.is_stored()) {
            match copy.bound() {
                None => free.push(copy),
                Some(reason) => self.skip(copy, &reason),
            }
        }
        let store = self.filesystems.store;
        let moves = free.iter().find(|copy| copy.device() == store);
        let (keep, spent) = match (stored, moves, free.first()) {
            (Some(stored), _, Some(_)) => (Keep::Stored(stored.first.clone()), 0),
            (None, Some(first), _) if free.len() > 1 => (Keep::Moves(first.first.clone()), 1),
            (None, None, Some(first)) if free.len() > 1 => (Keep::Copies(first.first.clone()), 1),
            _ => return,
        };
        // Whose content moves in comes first.
        free.sort_by_key(|copy| copy.first.path != keep.file().path);
        let replace = names(&free, LinkStrategy::Symlink);
        self.group(keep, replace, free.len() as u64 - spent);
    }

    fn hard_links(&mut self, copies: &[&Copy<'_>]) {
        let mut free = Vec::new();
        for copy in copies.iter().filter(|copy| !copy.is_stored()) {
            match copy.bound() {
                None => free.push(*copy),
                Some(reason) => self.skip(copy, &reason),
            }
        }
        let keep = match copies.iter().find(|copy| copy.is_stored()) {
            Some(stored) => Keep::Stored(stored.first.clone()),
            None if free.len() > 1 => {
                // The one with the most names, so that the fewest are replaced; of these the one that
                // the most may read.
                let best = free.iter().enumerate().max_by_key(|(at, copy)| {
                    let readers = (copy.first.entry.mode & 0o444).count_ones();
                    (copy.names.len(), readers, std::cmp::Reverse(*at))
                });
                let Some((at, _)) = best else { return };
                Keep::Stays(free.remove(at).first.clone())
            }
            None => return,
        };
        let readers = keep.file().entry.mode & 0o444;
        free.retain(|copy| {
            let stays = copy.first.entry.mode & 0o444 & !readers == 0;
            if !stays {
                self.skip(copy, "more users may read it than the copy that stays");
            }
            stays
        });
        let replace = names(&free, LinkStrategy::Hardlink);
        self.group(keep, replace, free.len() as u64);
    }

    fn clones(&mut self, copies: &[&Copy<'_>]) {
        let known =
            |copy: &Copy<'_>| self.filesystems.cloned.contains(&Identity::of(&copy.first.entry.stamp));
        // A clone of what was cloned before shares the same blocks.
        let keep = copies.iter().find(|copy| copy.is_stored());
        let keep = keep.or_else(|| copies.iter().find(|copy| known(copy))).or_else(|| copies.first());
        let Some(keep) = keep else { return };
        let mut free = Vec::new();
        for copy in copies {
            if copy.is_stored() || copy.first.path == keep.first.path {
                continue;
            }
            if known(copy) {
                self.plan.linked += copy.names.len() as u64;
            } else {
                match copy.bound() {
                    None => free.push(*copy),
                    Some(reason) => self.skip(copy, &reason),
                }
            }
        }
        let file = Arc::clone(keep.first);
        let keep = if file.is_stored() { Keep::Stored(file) } else { Keep::Stays(file) };
        let replace = names(&free, LinkStrategy::Reflink);
        self.group(keep, replace, free.len() as u64);
    }

    fn group(&mut self, keep: Keep, replace: Vec<Replacement>, freed: u64) {
        if replace.is_empty() {
            return;
        }
        let Equal { digest, bytes, .. } = *self.equal;
        let reclaims = Bytes(bytes.saturating_mul(freed));
        self.plan.groups.push(Group { digest, bytes, keep, replace, reclaims });
    }

    fn skip(&mut self, copy: &Copy<'_>, reason: &str) {
        // That its own content stays in the store needs no word.
        for name in copy.names().filter(|name| !name.is_stored()) {
            self.plan.skipped.push(Skipped::new(&name.path, reason.to_owned()));
        }
    }
}

fn names<'a, C: std::borrow::Borrow<Copy<'a>>>(copies: &[C], how: LinkStrategy) -> Vec<Replacement> {
    let names = copies.iter().flat_map(|copy| copy.borrow().names());
    names.map(|name| Replacement { file: Arc::clone(name), how }).collect()
}
