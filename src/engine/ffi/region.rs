//! Bytes that lie where somebody else has put them, for kernels to read.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

/// Part of a longer run of bytes that stays alive, and in its place, as long as the part does.
#[derive(Clone)]
pub struct Region {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Region {
    /// These bytes of the owner's; `None` where it has fewer.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Option<Self> {
        (*owner).as_ref().get(range.clone())?;
        Some(Self { owner, range })
    }

    /// Asks the system to bring pages of a file, and to return when they are there. Where it does not know how,
    /// they come when they are read.
    pub fn fetch(&self, range: Range<usize>) {
        let bytes = &self[range];
        let before = bytes.as_ptr().addr() % page_size();
        let start = bytes.as_ptr().cast_mut().wrapping_sub(before);
        // SAFETY: it changes nothing in memory; the page that holds the first byte is mapped as a whole.
        let _ = unsafe { madvise(start.cast(), bytes.len() + before, Advice::LinuxPopulateRead) };
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Region").field(&self.range).finish()
    }
}
