//! An output file under construction, which outlives its process.
//!
//! It grows as `FILE.part` beside its later name. From time to time its content is made durable, and then
//! `FILE.part.json` says how far that goes: bytes, rows, texts read, and a digest of these texts. A run that
//! goes on cuts the file to that length, reads as many texts again, and compares their digest, so that
//! nothing is doubled, lost or mixed. Under its own name the file appears once, whole.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::fs::{sync_dir, write_atomic};

/// The state's own format.
const VERSION: u32 = 1;

/// How far a file is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Bytes of the file that count.
    pub bytes: u64,
    /// Vectors in it.
    pub rows: u64,
    /// Texts read, those left out included.
    pub records: u64,
    /// SHA-256 of these texts.
    pub texts: String,
    /// CRC-32 of the vectors' bytes, and how many they are.
    pub checksum: u32,
    pub body_bytes: u64,
    pub tokens: u64,
    pub truncated: u64,
    pub skipped: u64,
}

#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    /// Everything that the file's content depends on, besides the texts.
    made_with: String,
    reached: Reached,
}

/// The unfinished file. Dropped without [`PartFile::publish`], it stays if something of it is durable.
#[derive(Debug)]
pub struct PartFile {
    target: PathBuf,
    path: PathBuf,
    state: PathBuf,
    made_with: String,
    file: File,
    keep: bool,
}

impl PartFile {
    /// Begins a file, or goes on with one. `made_with` says everything that the content depends on,
    /// besides the texts.
    ///
    /// # Errors
    /// LOCKED while another process writes the same file; INVALID_REQUEST if the unfinished file was made
    /// with other settings; INTEGRITY_FAILED if it is shorter than it says.
    pub fn open(target: &Path, made_with: String, resume: bool) -> Result<(Self, Option<Reached>)> {
        if fs::metadata(target).is_ok_and(|found| !found.is_file()) {
            return Err(Error::new(Code::InvalidRequest, format!("{} is not a file", target.display()))
                .hint("name a file; without --output, vectors go to standard output"));
        }
        let beside = |ending: &str| {
            let mut name = target.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        let (path, state) = (beside(".part"), beside(".part.json"));
        let file = open_locked(&path, target)?;
        // What cannot be gone on with now may still be with other settings.
        let mut part = Self { target: target.to_owned(), path, state, made_with, file, keep: resume };
        let reached = if resume { part.reached()? } else { None };
        if reached.is_none() {
            part.keep = false;
            part.forget_state()?;
        }
        part.cut(reached.as_ref().map_or(0, |reached| reached.bytes))?;
        Ok((part, reached))
    }

    /// Adds bytes at the end.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io("write", &self.path, error))
    }

    /// Makes what is written durable, and remembers how far that is.
    pub fn save(&mut self, reached: &Reached) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::io("write", &self.path, error))?;
        let state = State { version: VERSION, made_with: self.made_with.clone(), reached: reached.clone() };
        let text = serde_json::to_vec(&state).map_err(|error| Error::internal(format!("state: {error}")))?;
        write_atomic(&self.state, &text, 0o600)?;
        self.keep = true;
        Ok(())
    }

    /// Puts the final beginning in place and gives the file its name; its size in bytes.
    pub fn publish(mut self, beginning: &[u8]) -> Result<u64> {
        let fail = |error| Error::io("write", &self.target, error);
        self.file.write_all_at(beginning, 0).map_err(fail)?;
        self.file.sync_all().map_err(fail)?;
        let bytes = self.file.metadata().map_err(fail)?.len();
        // The state goes first: without it, what is left after a crash is begun anew, never doubled.
        self.keep = true;
        self.forget_state()?;
        fs::rename(&self.path, &self.target).map_err(fail)?;
        self.target.parent().map_or(Ok(()), sync_dir)?;
        Ok(bytes)
    }

    fn reached(&self) -> Result<Option<Reached>> {
        let text = match fs::read(&self.state) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &self.state, error)),
        };
        let again = "run the same command without --resume to begin anew";
        let state: State = serde_json::from_slice(&text)
            .ok()
            .filter(|state: &State| state.version == VERSION)
            .ok_or_else(|| {
                Error::new(Code::IntegrityFailed, format!("{} cannot be understood", self.state.display()))
                    .hint(again)
            })?;
        if state.made_with != self.made_with {
            return Err(Error::new(
                Code::InvalidRequest,
                format!("{} was begun with another model or other settings", self.path.display()),
            )
            .hint(format!("use the same ones, or {again}")));
        }
        let length = self.file.metadata().map_err(|error| Error::io("read", &self.path, error))?.len();
        if length < state.reached.bytes {
            return Err(Error::new(
                Code::IntegrityFailed,
                format!(
                    "{} has {length} bytes, fewer than the {} it had",
                    self.path.display(),
                    state.reached.bytes
                ),
            )
            .hint(again));
        }
        Ok(Some(state.reached))
    }

    fn cut(&mut self, bytes: u64) -> Result<()> {
        let cut = self.file.set_len(bytes).and_then(|()| self.file.seek(SeekFrom::Start(bytes)));
        cut.map(drop).map_err(|error| Error::io("write", &self.path, error))
    }

    fn forget_state(&self) -> Result<()> {
        match fs::remove_file(&self.state) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", &self.state, error)),
            _ => Ok(()),
        }
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing in it is worth going on with; if it stays, the next run begins anew all the same.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn open_locked(path: &Path, target: &Path) -> Result<File> {
    let fail = |error| Error::io("create", path, error);
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(fail)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(Code::Locked, format!("another process writes {}", target.display()))
                    .hint("wait until it is done, or choose another file"));
            }
            // Filesystems without locks only lose the protection.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // Its last writer may have given it its name after it was opened here.
        let own = file.metadata().map_err(fail)?;
        if fs::metadata(path).is_ok_and(|named| (named.dev(), named.ino()) == (own.dev(), own.ino())) {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(target: &Path, resume: bool) -> (PartFile, Option<Reached>) {
        PartFile::open(target, "settings".to_owned(), resume).expect("a part file")
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_saved_is_gone_on_with_and_the_rest_is_cut_off() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("out");
        let (mut first, none) = part(&target, true);
        assert_eq!(none, None);
        first.write(b"?abc").expect("write");
        let reached = Reached { bytes: 4, rows: 3, ..Reached::default() };
        first.save(&reached).expect("save");
        first.write(b"lost").expect("write");
        drop(first);
        assert_eq!(names(folder.path()), ["out.part", "out.part.json"]);

        let (mut second, found) = part(&target, true);
        assert_eq!(found, Some(reached));
        second.write(b"d").expect("write");
        assert_eq!(second.publish(b"!").expect("publish"), 5);
        assert_eq!(fs::read(&target).expect("read"), b"!abcd");
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn without_anything_durable_nothing_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut file, _) = part(&folder.path().join("out"), false);
        file.write(b"abc").expect("write");
        drop(file);
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn two_writers_and_other_settings_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("out");
        let (mut file, _) = part(&target, false);
        let open = |settings: &str| PartFile::open(&target, settings.to_owned(), true).map(drop);
        assert_eq!(open("settings").expect_err("locked").code(), Code::Locked);
        file.write(b"abc").expect("write");
        file.save(&Reached { bytes: 3, ..Reached::default() }).expect("save");
        drop(file);
        assert_eq!(open("others").expect_err("others").code(), Code::InvalidRequest);
        assert_eq!(names(folder.path()), ["out.part", "out.part.json"], "what is refused is not lost");
        fs::write(folder.path().join("out.part"), "a").expect("cut");
        assert_eq!(open("settings").expect_err("short").code(), Code::IntegrityFailed);
        fs::write(folder.path().join("out.part.json"), "{").expect("break");
        assert_eq!(open("settings").expect_err("broken").code(), Code::IntegrityFailed);
        let (file, begun) = part(&target, false);
        assert_eq!((begun, file.file.metadata().expect("stat").len()), (None, 0));
    }
}
