//! Files that the kernels read where the system's page cache has them.
//!
//! What such a file loses while it is mapped (somebody cuts it short) can no longer be read: the system answers
//! with SIGBUS, which would end the process without a word. A handler puts pages of zeros there instead, and
//! [`check`], which whoever hands out a result asks first, tells that the file is not what it was.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::SystemTime;

use memmap2::Mmap;
use rustix::param::page_size;

use crate::error::{Code, Error, Result};

/// Files at a time that are mapped; of more, weights are copied.
const MOST: usize = 256;

/// Where each mapped file begins and ends, for the signal's handler: it may neither wait nor allocate.
static PLACES: [[AtomicUsize; 2]; MOST] = [const { [const { AtomicUsize::new(0) }; 2] }; MOST];

static MAPPED: Mutex<Vec<Weak<Mapping>>> = Mutex::new(Vec::new());

/// What was done at SIGBUS before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// A whole file, mapped for reading.
#[derive(Debug)]
pub struct Mapping {
    map: Mmap,
    place: usize,
    file: File,
    path: PathBuf,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Mapping {
    /// Maps the first `bytes` of a file, which are all of it; `None` where the system, or this one, does not.
    pub fn new(file: &File, path: &Path, bytes: u64) -> Option<Arc<Self>> {
        let file = file.try_clone().ok()?;
        let now = file.metadata().ok().filter(|now| now.len() == bytes && bytes > 0)?;
        if !handle_bus_errors() {
            return None;
        }
        // SAFETY: whoever writes the file changes numbers that a model computes with, on which no code depends, and
        // `check` tells of it.
        let map = unsafe { Mmap::map(&file) }.ok()?;
        let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
        let place = PLACES.iter().position(|[start, _]| start.load(Ordering::Relaxed) == 0)?;
        let [start, end] = &PLACES[place];
        end.store(map.as_ptr_range().end.addr().next_multiple_of(page_size()), Ordering::Relaxed);
        start.store(map.as_ptr().addr(), Ordering::Release);
        let (path, modified) = (path.to_owned(), now.modified().ok());
        let mapping = Arc::new(Self { map, place, file, path, bytes, modified });
        mapped.retain(|other| other.strong_count() > 0);
        mapped.push(Arc::downgrade(&mapping));
        Some(mapping)
    }

    fn is_unchanged(&self) -> bool {
        let now = self.file.metadata();
        now.is_ok_and(|now| now.len() == self.bytes && now.modified().ok() == self.modified)
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        PLACES[self.place][0].store(0, Ordering::Release);
    }
}

/// Whether all files that are mapped are what they were.
///
/// # Errors
/// INTEGRITY_FAILED for one that was changed, or cut.
pub fn check() -> Result<()> {
    let mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
    for mapping in mapped.iter().filter_map(Weak::upgrade) {
        if !mapping.is_unchanged() {
            let path = mapping.path.display();
            return Err(Error::new(Code::IntegrityFailed, format!("{path} was changed while it was in use"))
                .hint("what was computed since may be wrong: run it again when the file is whole")
                .detail("path", path.to_string()));
        }
    }
    Ok(())
}

/// Whether SIGBUS is looked after, from the first call on.
fn handle_bus_errors() -> bool {
    static HANDLED: OnceLock<bool> = OnceLock::new();
    *HANDLED.get_or_init(|| {
        // SAFETY: all zeros is a value of this type, of which the system fills in all that it has.
        let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: only asks.
        if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut before) } != 0 {
            return false;
        }
        let mut handler = BEFORE.get_or_init(|| before).to_owned();
        let on_bus_error: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_bus_error;
        handler.sa_sigaction = on_bus_error as libc::sighandler_t;
        handler.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler calls nothing that a handler may not.
        unsafe { libc::sigaction(libc::SIGBUS, &raw const handler, std::ptr::null_mut()) == 0 }
    })
}

/// A page that a mapped file no longer has becomes one of zeros; of other addresses the earlier handler decides.
extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system hands a handler of this kind what the signal is about.
    let address = unsafe { (*info).si_addr() }.addr();
    let is_mapped = PLACES.iter().any(|[start, end]| {
        let start = start.load(Ordering::Acquire);
        start != 0 && (start..end.load(Ordering::Relaxed)).contains(&address)
    });
    let size = page_size();
    let page = std::ptr::without_provenance_mut(address / size * size);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: a page of a mapping of this process that cannot be read; the mapping's end takes this one along.
    if is_mapped && unsafe { libc::mmap(page, size, libc::PROT_READ, flags, -1, 0) } == page {
        return;
    }
    let Some(before) = BEFORE.get() else { return };
    match before.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: the default ends the process when the instruction is tried again.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the flag says that it is a function of this kind.
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: without the flag it is one of this kind.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}
