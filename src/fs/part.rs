//! A large file that arrives in pieces, in any order, and outlives the process that fetches it.
//!
//! ```text
//! 0 … size                 the content, with holes where nothing has arrived
//! size … size + 8 n        one record for each of the n pieces: 0, or 2^32 + the piece's CRC-32
//! ```
//!
//! Records are written after the pieces, without waiting for the disk: a killed process loses only the
//! pieces that it was in the middle of. After a power failure a record may be there without its piece;
//! the CRC shows that when the content is read to be hashed, and the piece is fetched again. What the
//! whole must be is told by a cryptographic digest, which every byte goes through before the file counts.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::dir::sync_dir;
use super::hash::{ContentHasher, ContentHashes, Progress};
use super::lock::is_named;
use crate::error::{Code, Error, Result};
use crate::ids::Checksum;

/// Bytes of a piece. Small, because a killed process loses one for each connection; large, because each
/// has a record.
pub const PIECE: u64 = 256 << 10;
const RECORD: u64 = 8;
const ARRIVED: u64 = 1 << 32;
/// What is read at once to be hashed.
const BUFFER: usize = 1 << 20;
/// Another process looks at such a file only for a moment.
const PATIENCE: Duration = Duration::from_secs(5);

/// An unfinished file. It is locked as long as it is open.
#[derive(Debug)]
pub struct Part {
    path: PathBuf,
    file: File,
    size: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    pieces: Vec<Piece>,
    /// The first piece that has not arrived.
    front: usize,
    /// Bytes that the hasher is through with.
    hashed: u64,
    /// Nobody hashes any more: all is hashed, hashing failed, or the fetching ended.
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Missing,
    /// Another process wrote down that it arrived, with this CRC-32.
    Recorded(u32),
    Arrived,
}

/// How far the hasher came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Nobody hashes any more.
    Done,
    /// A recorded piece is not what was recorded and has to be fetched.
    Missing,
}

impl Part {
    /// Opens what an earlier process left of a file of `size` bytes, or begins it. The caller sees to
    /// it that one process at a time does this.
    pub fn open(path: &Path, size: u64) -> Result<Self> {
        let file = open_locked(path)?;
        let pieces = size.div_ceil(PIECE) as usize;
        let part = Self {
            path: path.to_owned(),
            file,
            size,
            state: Mutex::new(State {
                pieces: vec![Piece::Missing; pieces],
                front: 0,
                hashed: 0,
                closed: false,
            }),
            changed: Condvar::new(),
        };
        let length = part.file.metadata().map_err(|error| part.failure("read", error))?.len();
        if length == size {
            // All had arrived, and the records were cut off.
            part.state().pieces.fill(Piece::Arrived);
        } else if length == part.whole_length() {
            part.read_records()?;
        } else {
            part.begin()?;
        }
        part.state().advance();
        Ok(part)
    }

    /// Bytes that an earlier process left of a file of `size` bytes, by its records.
    pub fn left_over(path: &Path, size: u64) -> u64 {
        let pieces = size.div_ceil(PIECE);
        let Ok(file) = File::open(path) else { return 0 };
        match file.metadata() {
            Ok(found) if found.len() == size => return size,
            Ok(found) if found.len() == size.saturating_add(pieces * RECORD) => {}
            _ => return 0,
        }
        let mut records = vec![0; (pieces * RECORD) as usize];
        if file.read_exact_at(&mut records, size).is_err() {
            return 0;
        }
        let arrived =
            records.chunks_exact(RECORD as usize).filter(|record| record.get(4) == Some(&1)).count();
        (arrived as u64 * PIECE).min(size)
    }

    /// Forgets everything that arrived.
    pub fn reset(&self) -> Result<()> {
        self.begin()?;
        let mut state = self.state();
        state.pieces.fill(Piece::Missing);
        (state.front, state.hashed, state.closed) = (0, 0, false);
        Ok(())
    }

    /// Bytes of the whole file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are here.
    pub fn present(&self) -> u64 {
        self.size - self.missing().iter().map(|range| range.end - range.start).sum::<u64>()
    }

    /// What has not arrived, in order.
    pub fn missing(&self) -> Vec<Range<u64>> {
        let state = self.state();
        let mut missing: Vec<Range<u64>> = Vec::new();
        for (at, _) in state.pieces.iter().enumerate().filter(|(_, piece)| **piece == Piece::Missing) {
            let range = self.bounds(at);
            match missing.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => missing.push(range),
            }
        }
        missing
    }

    /// Takes in what arrives from `at` on, which is the beginning of a piece.
    pub fn writer(&self, at: u64) -> Writer<'_> {
        Writer { part: self, at, crc: crc32fast::Hasher::new() }
    }

    /// Hashes the content from its beginning while it arrives, until all is hashed; nothing if the
    /// fetching ended before. To be called from one thread, while others fetch.
    pub fn hash(&self, checksum: &Checksum, progress: Progress<'_>) -> Result<Option<ContentHashes>> {
        let result = self.hash_all(ContentHasher::new(checksum, self.size), progress);
        self.close();
        result
    }

    fn hash_all(&self, mut hasher: ContentHasher, progress: Progress<'_>) -> Result<Option<ContentHashes>> {
        let mut buffer = vec![0; BUFFER.min(self.size as usize)];
        let mut at = 0;
        while at < self.size {
            let Some((end, recorded)) = self.wait_for(at, buffer.len() as u64) else { return Ok(None) };
            let piece = buffer.get_mut(..(end - at) as usize).unwrap_or_default();
            self.file.read_exact_at(piece, at).map_err(|error| self.failure("read", error))?;
            if recorded.is_some_and(|crc| crc32fast::hash(piece) != crc) {
                self.lose(at)?;
                continue;
            }
            hasher.update(piece);
            progress(end - at)?;
            at = end;
            self.state().hashed = at;
        }
        Ok(Some(hasher.finish()))
    }

    /// Waits for content at `at`: where what is there ends, and its CRC-32 if it is one recorded piece.
    fn wait_for(&self, at: u64, most: u64) -> Option<(u64, Option<u32>)> {
        let mut state = self.state();
        let first = (at / PIECE) as usize;
        while state.front <= first {
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(Piece::Recorded(crc)) = state.pieces.get(first) {
            return Some((self.bounds(first).end, Some(*crc)));
        }
        let pieces = (most / PIECE).max(1) as usize;
        let fresh = state.pieces.iter().take(state.front).skip(first).take(pieces);
        let count = fresh.take_while(|piece| **piece == Piece::Arrived).count();
        Some((self.bounds(first + count.max(1) - 1).end, None))
    }

    /// Waits until the hasher is done or has found that something is missing. To be called when all
    /// that was missing has been fetched.
    pub fn settle(&self) -> Settled {
        let mut state = self.state();
        loop {
            if state.closed {
                return Settled::Done;
            }
            if state.front < state.pieces.len() {
                return Settled::Missing;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the hashing of what does not come any more.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Makes the whole file what has the name `target`: nothing but the content, and safe from power
    /// failures when this returns.
    pub fn publish(self, target: &Path, mode: u32) -> Result<()> {
        self.file
            .set_len(self.size)
            .and_then(|()| self.file.set_permissions(Permissions::from_mode(mode)))
            .and_then(|()| self.file.sync_all())
            .and_then(|()| std::fs::rename(&self.path, target))
            .map_err(|error| Error::io("write", target, error))?;
        target.parent().map_or(Ok(()), sync_dir)
    }

    fn arrived(&self, piece: usize, crc: u32) -> Result<()> {
        self.record(piece, ARRIVED | u64::from(crc))?;
        let mut state = self.state();
        if let Some(known) = state.pieces.get_mut(piece) {
            *known = Piece::Arrived;
        }
        let before = state.front;
        state.advance();
        if state.front != before {
            drop(state);
            self.changed.notify_all();
        }
        Ok(())
    }

    fn lose(&self, at: u64) -> Result<()> {
        let piece = (at / PIECE) as usize;
        self.record(piece, 0)?;
        let mut state = self.state();
        if let Some(known) = state.pieces.get_mut(piece) {
            *known = Piece::Missing;
        }
        state.front = state.front.min(piece);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    fn record(&self, piece: usize, value: u64) -> Result<()> {
        let at = self.size + piece as u64 * RECORD;
        self.file.write_all_at(&value.to_le_bytes(), at).map_err(|error| self.failure("write", error))
    }

    fn read_records(&self) -> Result<()> {
        let mut state = self.state();
        let mut records = vec![0; state.pieces.len() * RECORD as usize];
        self.file.read_exact_at(&mut records, self.size).map_err(|error| self.failure("read", error))?;
        for (piece, record) in state.pieces.iter_mut().zip(records.chunks_exact(RECORD as usize)) {
            let value = record.try_into().map_or(0, u64::from_le_bytes);
            if value >> 32 == 1 {
                *piece = Piece::Recorded(value as u32);
            }
        }
        Ok(())
    }

    /// An empty file with empty records, all of it a hole.
    fn begin(&self) -> Result<()> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.set_len(self.whole_length()))
            .map_err(|error| self.failure("write", error))
    }

    fn whole_length(&self) -> u64 {
        self.size.saturating_add(self.size.div_ceil(PIECE) * RECORD)
    }

    fn bounds(&self, piece: usize) -> Range<u64> {
        let start = piece as u64 * PIECE;
        start..(start + PIECE).min(self.size)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self, action: &str, error: io::Error) -> Error {
        Error::io(action, &self.path, error)
    }
}

impl State {
    fn advance(&mut self) {
        while self.pieces.get(self.front).is_some_and(|piece| *piece != Piece::Missing) {
            self.front += 1;
        }
    }
}

/// Writes consecutive bytes of a part.
#[derive(Debug)]
pub struct Writer<'a> {
    part: &'a Part,
    at: u64,
    /// Of the piece so far.
    crc: crc32fast::Hasher,
}

impl Writer<'_> {
    /// Writes the next bytes; what goes beyond the file's end is not written.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() && self.at < self.part.size {
            let piece = (self.at / PIECE) as usize;
            let end = self.part.bounds(piece).end;
            let (now, later) = bytes.split_at(bytes.len().min((end - self.at) as usize));
            self.part.file.write_all_at(now, self.at).map_err(|error| self.part.failure("write", error))?;
            self.crc.update(now);
            self.at += now.len() as u64;
            if self.at == end {
                let crc = std::mem::take(&mut self.crc).finalize();
                self.part.arrived(piece, crc)?;
            }
            bytes = later;
        }
        Ok(())
    }
}

/// Opens the file and locks it, so that others can tell it from what a dead process left.
fn open_locked(path: &Path) -> Result<File> {
    let fail = |error| Error::io("open", path, error);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(path)
            .map_err(fail)?;
        match file.try_lock() {
            Ok(()) if is_named(&file, path) => return Ok(file),
            // Filesystems without locks only lose the distinction.
            Err(TryLockError::Error(_)) => return Ok(file),
            Ok(()) | Err(TryLockError::WouldBlock) => {}
        }
        if Instant::now() >= deadline {
            return Err(Error::new(Code::Locked, format!("another process works on {}", path.display()))
                .detail("path", path.display().to_string())
                .hint("wait until the other mlx-cache is done, then try again"));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(size: u64) -> Vec<u8> {
        (0..size).map(|at| (at * 31 + at / 251) as u8).collect()
    }

    const GIT: Checksum = Checksum::GitSha1([0; 20]);

    fn hashes(part: &Part) -> ContentHashes {
        part.hash(&GIT, &|_| Ok(())).expect("hash").expect("all of it")
    }

    fn hashes_of(all: &[u8]) -> ContentHashes {
        let mut hasher = ContentHasher::new(&GIT, all.len() as u64);
        hasher.update(all);
        hasher.finish()
    }

    fn only(range: Range<u64>) -> Vec<Range<u64>> {
        vec![range]
    }

    fn write(part: &Part, range: Range<u64>, all: &[u8]) {
        part.writer(range.start).write(&all[range.start as usize..range.end as usize]).expect("write");
    }

    #[test]
    fn pieces_may_come_in_any_order_and_the_next_process_has_those_that_were_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("part");
        let size = 5 * PIECE + 7;
        let all = content(size);
        {
            let part = Part::open(&path, size).expect("begin");
            write(&part, 4 * PIECE..size, &all);
            write(&part, 0..PIECE + 9, &all);
            assert_eq!(part.missing(), only(PIECE..4 * PIECE));
        }
        assert_eq!(Part::left_over(&path, size), 3 * PIECE);
        let part = Part::open(&path, size).expect("resume");
        assert_eq!(part.missing(), only(PIECE..4 * PIECE));
        assert_eq!(part.present(), size - 3 * PIECE);
        thread::scope(|scope| {
            let hasher = scope.spawn(|| hashes(&part));
            write(&part, PIECE..4 * PIECE, &all);
            assert_eq!(part.settle(), Settled::Done);
            assert_eq!(hasher.join().expect("hasher"), hashes_of(&all));
        });
        let target = dir.path().join("whole");
        part.publish(&target, 0o600).expect("publish");
        assert_eq!(std::fs::read(&target).expect("read"), all);
        assert!(!path.exists());
        // As after a crash between cutting the records off and renaming: all that is left is to hash.
        let part = Part::open(&target, size).expect("whole");
        assert!(part.missing().is_empty());
        assert_eq!(hashes(&part), hashes_of(&all));
    }

    #[test]
    fn a_recorded_piece_that_is_not_there_is_fetched_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("part");
        let size = 3 * PIECE;
        let all = content(size);
        write(&Part::open(&path, size).expect("begin"), 0..size, &all);
        // As after a power failure: the records reached the disk, a piece did not.
        let file = OpenOptions::new().write(true).open(&path).expect("open");
        file.write_all_at(&vec![0; PIECE as usize], PIECE).expect("write");
        let part = Part::open(&path, size).expect("resume");
        assert!(part.missing().is_empty());
        thread::scope(|scope| {
            let hasher = scope.spawn(|| hashes(&part));
            assert_eq!(part.settle(), Settled::Missing);
            assert_eq!(part.missing(), only(PIECE..2 * PIECE));
            write(&part, PIECE..2 * PIECE, &all);
            assert_eq!(part.settle(), Settled::Done);
            assert_eq!(hasher.join().expect("hasher"), hashes_of(&all));
        });
    }

    #[test]
    fn a_file_of_another_length_is_begun_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("part");
        std::fs::write(&path, vec![1; 100]).expect("write");
        let part = Part::open(&path, PIECE + 1).expect("begin");
        assert_eq!(part.missing(), only(0..PIECE + 1));
        part.close();
        assert_eq!(part.hash(&GIT, &|_| Ok(())).expect("no error"), None);
    }
}
