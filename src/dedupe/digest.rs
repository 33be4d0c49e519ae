//! Which files are equal: by size, then by what their names claim or what is remembered, then by their
//! beginning and end, then by all of their bytes. Each file is read once, however many names it has.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::OFlags;

use super::{File, Skipped, Watch, reason};
use crate::error::{Code, Error, Result};
use crate::fs::{ENDS, FileStamp, hash_ends, hash_sparse, try_map};
use crate::ids::Digest;
use crate::registry::{Registry, Remembered};

/// Files of which no more is kept in memory than this many, until what they hold is written down.
const PORTION: usize = 16 << 10;

/// Files that hold the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equal {
    pub digest: Digest,
    pub bytes: u64,
    /// Where the names of each file stand in the list of names; two at least, in no order.
    inodes: Vec<Range<u32>>,
}

/// What the comparison found.
#[derive(Debug, Default)]
pub struct Equals {
    /// By digest.
    pub groups: Vec<Equal>,
    pub skipped: Vec<Skipped>,
    /// Content that was read.
    pub bytes_read: u64,
    /// Of each file the content, if it is known: claimed, remembered or read.
    pub known: Vec<Option<Digest>>,
    /// Positions in the list of files, those of one file next to each other.
    names: Vec<u32>,
}

impl Equals {
    /// The files of a group as the filesystem counts them: of each the names that are known, by path, as
    /// positions in the list of files.
    pub fn inodes(&self, group: &Equal) -> impl Iterator<Item = &[u32]> {
        group.inodes.iter().map(|names| names_of(names, &self.names))
    }
}

/// One file with its names.
struct Inode {
    stamp: FileStamp,
    /// Where its names stand in the list of names; at least one.
    names: Range<u32>,
    ends: Option<u64>,
    digest: Option<Digest>,
    failed: bool,
}

/// Finds the equal ones among files of at least so many bytes. What was read is remembered in the registry,
/// if there is one.
pub fn find_equal(
    files: &[Arc<File>],
    min_bytes: u64,
    registry: Option<&mut Registry>,
    watch: &dyn Watch,
) -> Result<Equals> {
    let mut found = Equals::default();
    let (mut inodes, names) = inodes(files, min_bytes.max(1));
    if let Some(registry) = registry.as_deref() {
        let unknown: Vec<usize> = (0..inodes.len()).filter(|at| inodes[*at].digest.is_none()).collect();
        let stamps: Vec<FileStamp> = unknown.iter().map(|at| inodes[*at].stamp).collect();
        for (at, known) in unknown.into_iter().zip(registry.remembered(&stamps)?) {
            inodes[at].ends = known.ends;
            inodes[at].digest = known.digest;
        }
    }
    Reader { files, names: &names, watch, found: &mut found, registry }.read_all(&mut inodes)?;

    found.known = vec![None; files.len()];
    let mut known: Vec<(Digest, usize)> = Vec::with_capacity(inodes.len());
    for (at, inode) in inodes.iter().enumerate() {
        let Some(digest) = inode.digest else { continue };
        known.push((digest, at));
        for name in names_of(&inode.names, &names) {
            found.known[*name as usize] = Some(digest);
        }
    }
    known.sort_unstable();
    for equal in known.chunk_by(|a, b| a.0 == b.0) {
        let (digest, bytes) = (equal[0].0, inodes[equal[0].1].stamp.bytes);
        // A claim of a wrong size is found out before it misleads.
        let same = equal.iter().map(|(_, at)| &inodes[*at]).filter(|inode| inode.stamp.bytes == bytes);
        let group = Equal { digest, bytes, inodes: same.map(|inode| inode.names.clone()).collect() };
        if group.inodes.len() > 1 {
            found.groups.push(group);
        }
    }
    found.names = names;
    Ok(found)
}

/// The part of the list of names that is one file's.
fn names_of<'a>(of_one: &Range<u32>, names: &'a [u32]) -> &'a [u32] {
    names.get(of_one.start as usize..of_one.end as usize).unwrap_or_default()
}

/// Files by size, only where there are several of one size, and the list of their names.
fn inodes(files: &[Arc<File>], min_bytes: u64) -> (Vec<Inode>, Vec<u32>) {
    // What is compared stands side by side: there may be very many files.
    let mut order: Vec<(u64, u64, u64, u32)> = (0..)
        .zip(files)
        .filter(|(_, file)| file.entry.stamp.bytes >= min_bytes)
        .map(|(at, file)| (file.entry.stamp.bytes, file.entry.stamp.device, file.entry.stamp.inode, at))
        .collect();
    order.sort_unstable();
    let (mut inodes, mut names) = (Vec::with_capacity(order.len()), Vec::with_capacity(order.len()));
    for class in order.chunk_by(|a, b| a.0 == b.0) {
        let of_one = class.chunk_by(|a, b| (a.1, a.2) == (b.1, b.2));
        if of_one.clone().nth(1).is_none() {
            continue;
        }
        for same in of_one {
            let start = names.len();
            names.extend(same.iter().map(|(.., at)| *at));
            let own = &mut names[start..];
            own.sort_by_key(|at| files[*at as usize].path.as_os_str());
            let first = &files[own[0] as usize];
            inodes.push(Inode {
                stamp: first.entry.stamp,
                digest: own.iter().find_map(|at| files[*at as usize].claimed),
                names: start as u32..names.len() as u32,
                ends: None,
                failed: false,
            });
        }
    }
    (inodes, names)
}

struct Reader<'a> {
    files: &'a [Arc<File>],
    names: &'a [u32],
    watch: &'a dyn Watch,
    found: &'a mut Equals,
    registry: Option<&'a mut Registry>,
}

impl Reader<'_> {
    fn read_all(&mut self, inodes: &mut [Inode]) -> Result<()> {
        // Where the digest of only some of a size is known, the others are compared with them by their ends.
        let classes = classes(inodes);
        let mut to_read: Vec<usize> = classes
            .iter()
            .filter(|class| inodes[class.start..class.end].iter().any(|inode| inode.digest.is_none()))
            .flat_map(Clone::clone)
            .filter(|at| {
                inodes[*at].ends.is_none() && !(is_small(&inodes[*at]) && inodes[*at].digest.is_some())
            })
            .collect();
        // Near each other on disk.
        to_read.sort_unstable_by_key(|at| (inodes[*at].stamp.device, inodes[*at].stamp.inode));
        self.read(inodes, &to_read, is_small)?;

        let mut to_hash: Vec<usize> = Vec::new();
        for class in classes {
            let members = &inodes[class.clone()];
            let mut counts: HashMap<u64, u32> = HashMap::new();
            for ends in members.iter().filter(|inode| !inode.failed).filter_map(|inode| inode.ends) {
                *counts.entry(ends).or_default() += 1;
            }
            to_hash.extend(class.filter(|at| {
                let inode = &inodes[*at];
                let shared = inode.ends.is_some_and(|ends| counts.get(&ends).is_some_and(|count| *count > 1));
                inode.digest.is_none() && !inode.failed && shared
            }));
        }
        // The largest first, so that no thread is left alone with one at the end.
        to_hash.sort_by_key(|at| std::cmp::Reverse(inodes[*at].stamp.bytes));
        self.watch.expect(to_hash.iter().map(|at| inodes[*at].stamp.bytes).sum());
        self.read(inodes, &to_hash, |_| true)
    }

    /// Reads files, several at a time: wholly those that `whole` chooses, else their ends.
    fn read(
        &mut self,
        inodes: &mut [Inode],
        these: &[usize],
        whole: impl Fn(&Inode) -> bool + Sync,
    ) -> Result<()> {
        these.chunks(PORTION).try_for_each(|portion| self.read_portion(inodes, portion, &whole))
    }

    fn read_portion(
        &mut self,
        inodes: &mut [Inode],
        these: &[usize],
        whole: &(impl Fn(&Inode) -> bool + Sync),
    ) -> Result<()> {
        let (files, names, watch) = (self.files, self.names, self.watch);
        let (learned, shared) = (Mutex::new(Vec::with_capacity(these.len())), &*inodes);
        let read = try_map(these, |at| {
            let inode = &shared[*at];
            let path = &files[names[inode.names.start as usize] as usize].path;
            match read_one(path, inode, whole(inode), watch) {
                Err(error) if error.code() == Code::Interrupted => Err(error),
                Err(error) => Ok(Err(error)),
                Ok(known) => {
                    learned.lock().unwrap_or_else(PoisonError::into_inner).push((inode.stamp, known));
                    Ok(Ok(known))
                }
            }
        });
        // What was read before the user asked to stop need not be read again.
        if let Some(registry) = &mut self.registry {
            registry.remember(&learned.into_inner().unwrap_or_else(PoisonError::into_inner))?;
        }
        for (at, read) in these.iter().zip(read?) {
            let inode = &mut inodes[*at];
            match read {
                Ok(known) => {
                    let whole = known.digest.is_some();
                    self.found.bytes_read += if whole { inode.stamp.bytes } else { 2 * ENDS };
                    inode.ends = inode.ends.or(known.ends);
                    inode.digest = inode.digest.or(known.digest);
                }
                Err(error) => {
                    inode.failed = true;
                    for name in names_of(&inode.names, names) {
                        self.found.skipped.push(Skipped::new(&files[*name as usize].path, reason(&error)));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The ranges of one size.
fn classes(inodes: &[Inode]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    for class in inodes.chunk_by(|a, b| a.stamp.bytes == b.stamp.bytes) {
        ranges.push(start..start + class.len());
        start += class.len();
    }
    ranges
}

/// Whether its ends are all of it.
fn is_small(inode: &Inode) -> bool {
    inode.stamp.bytes <= 2 * ENDS
}

fn read_one(path: &Path, inode: &Inode, whole: bool, watch: &dyn Watch) -> Result<Remembered> {
    watch.check()?;
    let fail = |error| Error::io("read", path, error);
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path).map_err(fail)?;
    if FileStamp::of(&file.metadata().map_err(fail)?) != inode.stamp {
        return Err(Error::new(Code::IntegrityFailed, format!("{} changed meanwhile", path.display())));
    }
    if !whole {
        let ends = hash_ends(&file, inode.stamp.bytes).map_err(fail)?;
        return Ok(Remembered { ends: Some(ends), digest: None });
    }
    // What is done later is done by what is read then.
    let hashed = hash_sparse(&file, path, &|bytes| {
        watch.read(bytes);
        watch.check()
    })?;
    Ok(Remembered { ends: inode.ends, digest: Some(hashed.digest) })
}
