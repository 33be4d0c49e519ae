//! Whether another program has a file open for writing.

use std::fs::File;
use std::io;
use std::path::Path;

/// As long as it is held and [`unbroken`](Self::is_unbroken), nobody has opened the file for writing.
#[derive(Debug)]
pub struct Unwritten {
    /// The same open file under another number.
    file: File,
    /// Whether the system watches; some filesystems cannot tell.
    watched: bool,
}

impl Unwritten {
    /// Watches a file that is open for reading only; nothing if another program may be writing it.
    pub fn watch(file: &File, path: &Path) -> io::Result<Option<Self>> {
        let file = file.try_clone()?;
        Ok(system::watch(&file, path).map(|watched| Self { file, watched }))
    }

    /// Whether nobody has tried to open it for writing meanwhile.
    pub fn is_unbroken(&self) -> bool {
        !self.watched || system::is_unbroken(&self.file)
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        if self.watched {
            system::release(&self.file);
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    //! A read lease: the kernel grants it only when nobody has the file open for writing, and lets
    //! whoever opens it then wait until the lease is given back.

    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::path::Path;

    use rustix::io::Errno;

    /// From linux/fcntl.h; the libc crate does not have it everywhere.
    const F_SETSIG: libc::c_int = 10;

    pub(super) fn watch(file: &File, _path: &Path) -> Option<bool> {
        // The signal that tells of a breaking lease ends a process that does not expect it; this one is
        // ignored by default.
        if control(file, F_SETSIG, libc::SIGURG).is_err() {
            return Some(false);
        }
        match control(file, libc::F_SETLEASE, libc::F_RDLCK) {
            Ok(_) => Some(true),
            Err(Errno::AGAIN) => None,
            // No leases on this filesystem.
            Err(_) => Some(false),
        }
    }

    pub(super) fn is_unbroken(file: &File) -> bool {
        control(file, libc::F_GETLEASE, 0) == Ok(libc::F_RDLCK)
    }

    pub(super) fn release(file: &File) {
        // Closing the file releases it too.
        let _ = control(file, libc::F_SETLEASE, libc::F_UNLCK);
    }

    #[expect(unsafe_code, reason = "no crate in use wraps these")]
    fn control(file: &File, command: libc::c_int, argument: libc::c_int) -> Result<libc::c_int, Errno> {
        // SAFETY: the descriptor is open as long as `file` lives, and these three commands take an
        // integer and touch no memory of ours.
        let answer = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
        if answer < 0 {
            Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
        } else {
            Ok(answer)
        }
    }
}

#[cfg(target_vendor = "apple")]
mod system {
    //! There are no leases; the system lists the processes that have a file open, for whatever purpose.

    use std::ffi::CString;
    use std::fs::File;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    /// From libproc.h and sys/proc_info.h.
    const PROC_ALL_PIDS: u32 = 1;
    const PROC_LISTPIDSPATH_EXCLUDE_EVTONLY: u32 = 2;

    #[expect(unsafe_code, reason = "a function of the system's own library")]
    unsafe extern "C" {
        fn proc_listpidspath(
            kind: u32,
            kind_info: u32,
            path: *const libc::c_char,
            flags: u32,
            buffer: *mut libc::c_void,
            buffer_size: libc::c_int,
        ) -> libc::c_int;
    }

    pub(super) fn watch(_file: &File, path: &Path) -> Option<bool> {
        let path = CString::new(path.as_os_str().as_bytes()).ok()?;
        let mut pids: [libc::pid_t; 64] = [0; 64];
        #[expect(unsafe_code, reason = "a function of the system's own library")]
        // SAFETY: the path ends with a zero, and the buffer is as long as is said.
        let bytes = unsafe {
            proc_listpidspath(
                PROC_ALL_PIDS,
                0,
                path.as_ptr(),
                PROC_LISTPIDSPATH_EXCLUDE_EVTONLY,
                pids.as_mut_ptr().cast(),
                size_of_val(&pids) as libc::c_int,
            )
        };
        let count = usize::try_from(bytes).unwrap_or_default() / size_of::<libc::pid_t>();
        let own = std::process::id() as libc::pid_t;
        pids.iter().take(count).all(|pid| *pid == own || *pid == 0).then_some(false)
    }

    pub(super) fn is_unbroken(_file: &File) -> bool {
        true
    }

    pub(super) fn release(_file: &File) {}
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
mod system {
    use std::fs::File;
    use std::path::Path;

    pub(super) fn watch(_file: &File, _path: &Path) -> Option<bool> {
        Some(false)
    }

    pub(super) fn is_unbroken(_file: &File) -> bool {
        true
    }

    pub(super) fn release(_file: &File) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::OpenOptions;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_writer_is_seen_and_one_that_comes_breaks_the_watch() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        std::fs::write(&path, "x").expect("write");
        let file = File::open(&path).expect("open");
        let writer = OpenOptions::new().append(true).open(&path).expect("open");
        let watched = |file| Unwritten::watch(file, &path).expect("no error");
        assert!(watched(&file).is_none());
        drop(writer);

        let watch = watched(&file).expect("nobody writes");
        assert!(watch.is_unbroken());
        drop(File::open(&path).expect("readers do not count"));
        assert!(watch.is_unbroken());
        let (opened, tell) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                OpenOptions::new().append(true).open(&path).expect("open, in the end");
                opened.send(()).expect("told");
            });
            while watch.is_unbroken() {
                std::thread::yield_now();
            }
            assert!(tell.try_recv().is_err(), "the writer waits");
            drop(watch);
            tell.recv().expect("the writer goes on");
        });
        assert!(watched(&file).is_some());
    }
}
