//! Folders held open, so that what is done in them cannot be led elsewhere: a path is walked one name at a
//! time from a root, links are not followed, and whoever renames a folder or puts a link in its place
//! afterwards changes nothing for those who hold it.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT};

use super::FileStamp;
use crate::error::{Code, Error, Result};

/// What has a name in a folder; a link is a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub kind: EntryKind,
    pub stamp: FileStamp,
    /// Permission bits.
    pub mode: u32,
    pub owner: u32,
    /// How many names it has.
    pub names: u64,
}

/// The user who runs this program: asked for once, since there may be very many files to compare it with.
pub fn own_user() -> u32 {
    static USER: LazyLock<u32> = LazyLock::new(|| rustix::process::geteuid().as_raw());
    *USER
}

impl Entry {
    /// Whether it belongs to the user who runs this program.
    pub fn is_own(&self) -> bool {
        self.owner == own_user()
    }

    pub fn of(metadata: &Metadata) -> Self {
        let kind = metadata.file_type();
        Self {
            kind: if kind.is_file() {
                EntryKind::File
            } else if kind.is_symlink() {
                EntryKind::Link
            } else if kind.is_dir() {
                EntryKind::Folder
            } else {
                EntryKind::Other
            },
            stamp: FileStamp::of(metadata),
            mode: metadata.mode() & 0o7777,
            owner: metadata.uid(),
            names: metadata.nlink(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Link,
    Folder,
    /// A device, pipe or socket.
    Other,
}

/// A folder that is held open.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// A name in a folder that is held open.
#[derive(Debug)]
pub struct Place {
    pub dir: Dir,
    pub name: OsString,
}

impl Place {
    /// The place of a path below `root`, which holds no link itself. A path that leads out of the root
    /// by a link, by `..` or through a mount point is BOUNDARY_VIOLATION.
    pub fn find(root: &Path, path: &Path) -> Result<Self> {
        let outside = || violation(path, &format!("does not lie in {}", root.display()));
        let below = path.strip_prefix(root).map_err(|_| outside())?;
        let name = below.file_name().ok_or_else(outside)?.to_owned();
        let mut dir = Dir::open(root)?;
        let mount = dir.mount()?;
        for part in below.parent().unwrap_or(Path::new("")).components() {
            let Component::Normal(part) = part else { return Err(outside()) };
            dir = dir.enter(part)?;
            if dir.mount()? != mount {
                return Err(violation(&dir.path, "is another filesystem, mounted inside of the folder"));
            }
        }
        Ok(Self { dir, name })
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path.join(&self.name)
    }

    /// What is there now.
    pub fn entry(&self) -> Result<Option<Entry>> {
        self.dir.entry(&self.name)
    }
}

impl Dir {
    /// Opens a folder. If its own name is a link, that is BOUNDARY_VIOLATION; the path above it is
    /// followed as it is.
    pub fn open(path: &Path) -> Result<Self> {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::DIRECTORY | OFlags::NOFOLLOW).bits() as i32)
            .open(path);
        match opened {
            Ok(file) => Ok(Self { fd: file.into(), path: path.to_owned() }),
            Err(error) => Err(not_entered(path, error)),
        }
    }

    /// A folder in this one.
    pub fn enter(&self, name: &OsStr) -> Result<Self> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path }),
            Err(error) => Err(not_entered(&path, error.into())),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The filesystem that the folder lies in.
    pub fn device(&self) -> Result<u64> {
        let stat = rustix::fs::fstat(&self.fd).map_err(|error| self.failed("read", error))?;
        Ok(entry_of(&stat).stamp.device)
    }

    /// What tells one mount from another, where the system tells: of one filesystem there may be several.
    fn mount(&self) -> Result<(u64, u64)> {
        let device = self.device()?;
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{StatxFlags, statx};
            if let Ok(found) = statx(&self.fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
                && found.stx_mask & StatxFlags::MNT_ID.bits() != 0
            {
                return Ok((device, found.stx_mnt_id));
            }
        }
        Ok((device, 0))
    }

    /// What has this name; nothing if nothing has.
    pub fn entry(&self, name: &OsStr) -> Result<Option<Entry>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(entry_of(&stat))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io("read", &self.path.join(name), error.into())),
        }
    }

    /// Opens a file for reading. A link is an error, a pipe no wait.
    pub fn open_file(&self, name: &OsStr) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::empty())
            .map(File::from)
            .map_err(|error| self.failed_at("read", name, error))
    }

    /// Makes a new file that only its owner may read.
    pub fn create_file(&self, name: &OsStr) -> Result<File> {
        self.create(name).map_err(|error| self.failed_at("create", name, error))
    }

    fn create(&self, name: &OsStr) -> rustix::io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
    }

    /// Makes a new file that shares the blocks of another; an error where the filesystem cannot.
    pub fn clone_file(&self, source: &File, name: &OsStr) -> io::Result<File> {
        #[cfg(target_vendor = "apple")]
        {
            rustix::fs::fclonefileat(source, &self.fd, name, rustix::fs::CloneFlags::empty())?;
            let opened = rustix::fs::openat(
                &self.fd,
                name,
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            );
            Ok(opened?.into())
        }
        #[cfg(not(target_vendor = "apple"))]
        {
            let file = self.create(name)?;
            if let Err(error) = rustix::fs::ioctl_ficlone(&file, source) {
                // Nothing is in it.
                let _ = self.remove(name);
                return Err(error.into());
            }
            Ok(file)
        }
    }

    /// Whether files in this folder can share the blocks of this one. Nothing becomes visible.
    pub fn can_clone(&self, source: &File) -> bool {
        #[cfg(target_vendor = "apple")]
        {
            let _ = source;
            // APFS alone has clones.
            rustix::fs::fstatfs(&self.fd).is_ok_and(|found| {
                let name = found.f_fstypename.map(|c| c as u8);
                name.starts_with(b"apfs\0")
            })
        }
        #[cfg(not(target_vendor = "apple"))]
        {
            let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
            rustix::fs::openat(&self.fd, ".", flags, Mode::RUSR | Mode::WUSR)
                .is_ok_and(|nameless| rustix::fs::ioctl_ficlone(nameless, source).is_ok())
        }
    }

    /// What a link holds.
    pub fn read_link(&self, name: &OsStr) -> Result<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        rustix::fs::readlinkat(&self.fd, name, Vec::new())
            .map(|target| PathBuf::from(OsString::from_vec(target.into_bytes())))
            .map_err(|error| self.failed_at("read", name, error))
    }

    /// Makes a link that looks as old as `modified_ns` says.
    pub fn symlink(&self, target: &Path, name: &OsStr, modified_ns: i64) -> Result<()> {
        rustix::fs::symlinkat(target, &self.fd, name)
            .and_then(|()| {
                let times = modified_at(modified_ns);
                rustix::fs::utimensat(&self.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            })
            .map_err(|error| self.failed_at("link", name, error))
    }

    /// Gives a file in another folder a name in this one too. A link is linked, not what it leads to.
    pub fn hard_link(&self, name: &OsStr, from: &Dir, from_name: &OsStr) -> Result<()> {
        rustix::fs::linkat(&from.fd, from_name, &self.fd, name, AtFlags::empty())
            .map_err(|error| self.failed_at("link", name, error))
    }

    /// Lets two names change places, at once and as a whole.
    pub fn exchange(&self, name: &OsStr, other: &Dir, other_name: &OsStr) -> Result<()> {
        rustix::fs::renameat_with(&self.fd, name, &other.fd, other_name, RenameFlags::EXCHANGE)
            .map_err(|error| self.failed_at("replace", name, error))
    }

    /// Renames a file in this folder, replacing what has the new name.
    pub fn rename(&self, name: &OsStr, to: &Dir, to_name: &OsStr) -> Result<()> {
        rustix::fs::renameat(&self.fd, name, &to.fd, to_name)
            .map_err(|error| to.failed_at("write", to_name, error))
    }

    /// Removes a name; whether it was there.
    pub fn remove(&self, name: &OsStr) -> Result<bool> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(self.failed_at("remove", name, error)),
        }
    }

    /// Makes the names in the folder survive a power failure.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::fsync(self.fd.as_fd()).map_err(|error| self.failed("sync", error))
    }

    fn failed(&self, action: &str, error: rustix::io::Errno) -> Error {
        Error::io(action, &self.path, error.into())
    }

    fn failed_at(&self, action: &str, name: &OsStr, error: rustix::io::Errno) -> Error {
        Error::io(action, &self.path.join(name), error.into())
    }
}

/// Sets the time of a file's last change, and leaves that of its last reading.
pub fn set_modified(file: &File, modified_ns: i64) -> io::Result<()> {
    Ok(rustix::fs::futimens(file, &modified_at(modified_ns))?)
}

fn modified_at(nanoseconds: i64) -> Timestamps {
    const SECOND: i64 = 1_000_000_000;
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: nanoseconds.div_euclid(SECOND),
            tv_nsec: nanoseconds.rem_euclid(SECOND) as _,
        },
    }
}

#[allow(clippy::unnecessary_cast)] // The fields have other types on other systems.
fn entry_of(stat: &rustix::fs::Stat) -> Entry {
    let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    let kind = match FileType::from_raw_mode(stat.st_mode as _) {
        FileType::RegularFile => EntryKind::File,
        FileType::Symlink => EntryKind::Link,
        FileType::Directory => EntryKind::Folder,
        _ => EntryKind::Other,
    };
    Entry {
        kind,
        stamp: FileStamp {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            bytes: stat.st_size as u64,
            modified_ns: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed_ns: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        },
        mode: stat.st_mode as u32 & 0o7777,
        owner: stat.st_uid as u32,
        names: stat.st_nlink as u64,
    }
}

/// What has a path, followed as it is up to the last name.
pub fn entry_at(path: &Path) -> io::Result<Entry> {
    Ok(entry_of(&rustix::fs::lstat(path)?))
}

/// What an open file is.
pub fn entry_of_file(file: &File) -> io::Result<Entry> {
    Ok(entry_of(&rustix::fs::fstat(file)?))
}

fn not_entered(path: &Path, error: io::Error) -> Error {
    use rustix::io::Errno;
    match Errno::from_io_error(&error) {
        Some(Errno::LOOP | Errno::NOTDIR | Errno::MLINK) => {
            violation(path, "is not a folder: a link there may lead anywhere")
        }
        _ => Error::io("enter", path, error),
    }
}

fn violation(path: &Path, why: &str) -> Error {
    Error::new(Code::BoundaryViolation, format!("{} {why}", path.display()))
        .detail("path", path.display().to_string())
        .hint("nothing was changed there; look at the folders of the path")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    #[test]
    fn a_path_is_found_below_its_root_and_nowhere_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path").join("root");
        fs::create_dir_all(root.join("a/b")).expect("folders");
        fs::create_dir(folder.path().join("outside")).expect("a folder");
        fs::write(root.join("a/b/file"), "x").expect("a file");
        symlink("../../outside", root.join("a/out")).expect("a link");
        symlink("b", root.join("a/in")).expect("a link");
        symlink(&root, folder.path().join("link")).expect("a link");

        let place = Place::find(&root, &root.join("a/b/file")).expect("a place");
        assert_eq!(place.entry().expect("look").expect("a file").kind, EntryKind::File);
        assert_eq!(place.path(), root.join("a/b/file"));
        for path in ["a/out/file", "a/in/file", "a/../../outside/file", "../outside/file", "a/b/file/x"] {
            let error = Place::find(&root, &root.join(path)).expect_err(path);
            assert_eq!(error.code(), Code::BoundaryViolation, "{path}: {error}");
        }
        for (root, path) in
            [(root.clone(), root.clone()), (folder.path().join("link"), root.join("a/b/file"))]
        {
            assert_eq!(Place::find(&root, &path).expect_err("no place").code(), Code::BoundaryViolation);
        }
        let error =
            Place::find(&folder.path().join("link"), &folder.path().join("link/a")).expect_err("a link");
        assert_eq!(error.code(), Code::BoundaryViolation);
        assert_eq!(Place::find(&root, &root.join("c/x")).expect_err("absent").code(), Code::FileNotFound);
    }

    #[test]
    fn a_folder_that_is_held_stays_the_same_whoever_takes_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        for made in ["in", "out"] {
            fs::create_dir(root.join(made)).expect("a folder");
            fs::write(root.join(made).join("file"), made).expect("a file");
        }
        let place = Place::find(&root, &root.join("in/file")).expect("a place");
        fs::rename(root.join("in"), root.join("moved")).expect("renamed");
        symlink("out", root.join("in")).expect("a link");
        assert!(place.dir.remove(&place.name).expect("removed"));
        assert_eq!(fs::read_dir(root.join("moved")).expect("list").count(), 0);
        assert_eq!(fs::read(root.join("out/file")).expect("read"), b"out");
    }

    #[test]
    fn names_change_places_and_links_keep_their_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = Dir::open(folder.path()).expect("open");
        fs::write(folder.path().join("file"), "content").expect("a file");
        for time in [-1_500_000_001, 0, 1_700_000_000_123_456_789] {
            dir.symlink(Path::new("/nowhere"), name("link"), time).expect("a link");
            let link = dir.entry(name("link")).expect("look").expect("a link");
            assert_eq!((link.kind, link.stamp.modified_ns), (EntryKind::Link, time));
            dir.exchange(name("link"), &dir, name("file")).expect("exchanged");
            assert_eq!(dir.read_link(name("file")).expect("a link"), Path::new("/nowhere"));
            assert!(dir.open_file(name("file")).is_err(), "links are not followed");
            dir.exchange(name("file"), &dir, name("link")).expect("exchanged back");
            assert!(dir.remove(name("link")).expect("removed"));
        }
        assert!(!dir.remove(name("link")).expect("gone"));
        let before = dir.entry(name("file")).expect("look").expect("a file");
        dir.hard_link(name("second"), &dir, name("file")).expect("a hard link");
        let after = dir.entry(name("second")).expect("look").expect("a file");
        assert_eq!((after.stamp.inode, before.names, after.names), (before.stamp.inode, 1, 2));
        assert!(dir.create_file(name("file")).is_err(), "what is there is not written over");
    }

    #[test]
    fn a_clone_is_a_file_of_its_own_or_an_error_that_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = Dir::open(folder.path()).expect("open");
        fs::write(folder.path().join("file"), "content").expect("a file");
        let source = dir.open_file(name("file")).expect("open");
        let cloned = dir.clone_file(&source, name("clone"));
        assert_eq!(cloned.is_ok(), dir.can_clone(&source));
        if cloned.is_ok() {
            assert_eq!(fs::read(folder.path().join("clone")).expect("read"), b"content");
        } else {
            assert!(!folder.path().join("clone").exists());
        }
        assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1 + usize::from(cloned.is_ok()));
    }
}
