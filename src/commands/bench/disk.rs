//! `bench --store`: what the store's disk and the registry on it do in a second. All that is made for it
//! lies in the store's own folder of unfinished things and goes afterwards.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::environment;
use super::rounds::Rounds;
use super::samples::result;
use crate::cli::bench::BenchArgs;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::fs::{
    Copy, FileLock, FileStamp, TempFile, copy_hashed, create_private_dir, forget_pages, hash_file,
};
use crate::ids::Digest;
use crate::output::progress::{Progress, Unit};
use crate::registry::{Registry, Remembered};
use crate::report::bench::{BenchEnvironment, BenchModel, BenchResult};
use crate::store::Store;

/// The name under which the results are kept.
pub const NAME: &str = "store";

/// Content that is written, hashed and copied, in bytes.
const CONTENT: usize = 64 << 20;
/// It is written in pieces of this size, of which the first bytes differ: no filesystem packs it to nothing.
const PIECE: usize = 1 << 20;
/// Links of a sample.
const LINKS: usize = 250;
/// Rows of a sample: files that the registry remembers.
const ROWS: u64 = 2500;

/// A folder for one measurement at a time. What one that was killed has left goes first.
struct Scratch {
    folder: PathBuf,
    _lock: FileLock,
}

impl Scratch {
    fn new(store: &Store) -> Result<Self> {
        let lock = FileLock::acquire(&store.locks().join("bench.lock"), Duration::ZERO)?;
        let folder = store.incomplete().join("bench");
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|error| Error::io("remove", &folder, error))?;
        }
        create_private_dir(&folder)?;
        Ok(Self { folder, _lock: lock })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot go now goes before the next measurement.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The samples of a test.
struct Test {
    name: &'static str,
    unit: &'static str,
    samples: Vec<f64>,
}

/// Measures all of it in rounds, one test after the other.
pub fn run(args: &BenchArgs, context: &Context) -> Result<(BenchEnvironment, BenchModel, Vec<BenchResult>)> {
    let environment = environment::of_disk()?;
    let store = Store::at(&context.settings.home.value);
    store.create()?;
    let scratch = Scratch::new(&store)?;
    let mut bench = Disk::new(&store, &scratch.folder, context)?;
    let mut rounds = Rounds::new(args);
    let bar = context.output.progress("the store", Some(u64::from(rounds.most())), Unit::Items);
    let mut tests: Vec<Test> = Vec::new();
    while let Some(counts) = rounds.begin() {
        for (name, unit, value) in bench.round(&bar)? {
            if !counts {
                continue;
            }
            match tests.iter_mut().find(|test| test.name == name) {
                Some(test) => test.samples.push(value),
                None => tests.push(Test { name, unit, samples: vec![value] }),
            }
        }
        bar.advance(1);
    }
    drop(bar);
    rounds.end(context);
    let results = tests.into_iter().map(|test| result(NAME, test.name, test.unit, test.samples)).collect();
    let model = BenchModel {
        reference: NAME.to_owned(),
        revision: None,
        digest: None,
        architecture: None,
        parameters: None,
        quantization: None,
        bytes: CONTENT as u64,
    };
    Ok((environment, model, results))
}

struct Disk<'a> {
    folder: &'a Path,
    incomplete: PathBuf,
    registry: Registry,
    content: Vec<u8>,
    stamps: Vec<(FileStamp, Remembered)>,
    context: &'a Context,
}

type Sample = (&'static str, &'static str, f64);

impl<'a> Disk<'a> {
    fn new(store: &Store, folder: &'a Path, context: &'a Context) -> Result<Self> {
        let mut content = vec![0; PIECE];
        fastrand::Rng::with_seed(1).fill(&mut content);
        let row = |inode| {
            let stamp = FileStamp { device: 1, inode, bytes: inode, modified_ns: 1, changed_ns: 1 };
            (stamp, Remembered { ends: Some(inode), digest: Some(Digest::from_bytes([1; 32])) })
        };
        Ok(Self {
            folder,
            incomplete: store.incomplete(),
            registry: Registry::create(folder)?,
            content,
            stamps: (0..ROWS).map(row).collect(),
            context,
        })
    }

    /// Each test once.
    fn round(&mut self, bar: &Progress) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        let per_second = |amount: f64, started: Instant| amount / started.elapsed().as_secs_f64().max(1e-9);
        let megabytes = CONTENT as f64 / 1e6;
        let check = |_| self.context.cancel.check();

        bar.label("writing");
        let started = Instant::now();
        let source = self.write()?;
        samples.push(("write", "MB/s", per_second(megabytes, started)));

        bar.label("hashing");
        let started = Instant::now();
        hash_file(source.path(), &check)?;
        samples.push(("hash", "MB/s", per_second(megabytes, started)));
        if forget_pages(source.path()) {
            let started = Instant::now();
            hash_file(source.path(), &check)?;
            samples.push(("hash-cold", "MB/s", per_second(megabytes, started)));
        }

        bar.label("copying");
        let copy = Copy { source: source.path(), temp_dir: &self.incomplete, still_needed: CONTENT as u64 };
        let started = Instant::now();
        drop(copy_hashed(copy, &check)?);
        samples.push(("copy", "MB/s", per_second(megabytes, started)));
        let file = fs::File::open(source.path()).map_err(|error| Error::io("open", source.path(), error))?;
        let started = Instant::now();
        if TempFile::clone_in(&self.incomplete, &file).is_some() {
            samples.push(("clone", "s", started.elapsed().as_secs_f64()));
        }

        bar.label("linking");
        samples.push(("link", "links/s", LINKS as f64 / self.link(source.path())?));

        bar.label("the registry");
        let started = Instant::now();
        self.registry.remember(&self.stamps)?;
        samples.push(("registry-write", "rows/s", per_second(ROWS as f64, started)));
        let asked: Vec<FileStamp> = self.stamps.iter().map(|(stamp, _)| *stamp).collect();
        let started = Instant::now();
        let found = self.registry.remembered(&asked)?;
        samples.push(("registry-read", "rows/s", per_second(ROWS as f64, started)));
        if found.iter().any(|found| found.digest.is_none()) {
            return Err(Error::internal("the registry forgot what it was just told"));
        }
        // The next round writes them anew rather than over what is there.
        for (stamp, _) in &mut self.stamps {
            stamp.inode += ROWS;
        }
        Ok(samples)
    }

    /// A file of content that is on disk.
    fn write(&mut self) -> Result<TempFile> {
        let mut temp = TempFile::create_in(&self.incomplete)?;
        let path = temp.path().to_owned();
        let fail = |error| Error::io("write", &path, error);
        for number in 0..(CONTENT / PIECE) as u64 {
            self.context.cancel.check()?;
            if let Some(first) = self.content.first_chunk_mut::<8>() {
                *first = number.to_le_bytes();
            }
            temp.file().write_all(&self.content).map_err(fail)?;
        }
        temp.file().sync_all().map_err(fail)?;
        Ok(temp)
    }

    /// Makes hard links to a file and a symlink to each, as `dedupe` does; the seconds that it took.
    fn link(&self, source: &Path) -> Result<f64> {
        let folder = self.folder.join("links");
        create_private_dir(&folder)?;
        let started = Instant::now();
        for number in 0..LINKS {
            let (hard, soft) = (folder.join(format!("{number}")), folder.join(format!("{number}.link")));
            let made = fs::hard_link(source, &hard).and_then(|()| symlink(&hard, &soft));
            made.map_err(|error| Error::io("link", &hard, error))?;
        }
        let seconds = started.elapsed().as_secs_f64().max(1e-9);
        fs::remove_dir_all(&folder).map_err(|error| Error::io("remove", &folder, error))?;
        Ok(seconds)
    }
}
