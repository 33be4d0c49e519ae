//! One copy on disk: finding equal files in other tools' caches, and letting one of them serve all.
//!
//! ```text
//! look    what lies where, and what must be left alone      reads names only
//! digest  which of it is equal                              reads content
//! plan    what stays, what is replaced, and how             pure data, shown before anything is done
//! apply   file by file, by a journal in the registry        the only step that changes other tools' files
//! undo    a file of its own for each again                  the same, backwards
//! settle  what was cut short is finished or rolled back     at the next start
//! ```
//!
//! How a file is replaced, so that neither a crash nor another program loses a byte: what comes is made
//! ready in the store under `links/staged/`, and then *changes places* with the file in one step of the
//! filesystem. What came out is looked at; if it is not the very file that was compared, both change
//! back. Only then does it go. Nothing of ours ever has a name in the other tool's folder, except where
//! that lies on another filesystem.

mod apply;
mod content;
mod digest;
mod look;
mod new;
mod plan;
mod settle;
mod state;
mod swap;
mod undo;
mod usage;

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fs::Entry;
use crate::ids::Digest;

pub use apply::{Applied, AppliedGroup, apply};
pub use digest::{Equal, Equals, find_equal};
pub use look::{Look, Root, look};
pub use new::make_link;
pub use plan::{Filesystems, Group, Keep, Plan, Replacement, Wanted, plan};
pub use settle::{Settled, settle};
pub use state::{Condition, LinkCheck, check_links, cloned, forget};
pub use undo::{Selection, UndoPlan, Undone, UndoneLink, plan_undo, undo};
pub use usage::{estimate, record};

/// Files up to this size are not worth a link: a symlink, its name and the name's folder take as much.
pub const LINK_COST: u64 = 8 << 10;

/// Files below this size are left alone unless somebody asks for them: there is little to gain.
pub const MIN_BYTES: u64 = 64 << 10;

/// The word for our own store among the sources.
pub const STORE: &str = "store";

/// A file that may be one of several equal ones.
#[derive(Debug, Clone)]
pub struct File {
    /// `hf`, `ollama`, `lmstudio`, `folder` or `store`.
    pub source: &'static str,
    /// The folder that nothing done about the file may leave; without links in it.
    pub root: Arc<Path>,
    /// Absolute, below `root`.
    pub path: Arc<Path>,
    pub entry: Entry,
    /// The content that its name or a record claims. Never trusted for what is done.
    pub claimed: Option<Digest>,
    /// Whether it may be replaced, or why not.
    pub replaceable: Result<(), Cow<'static, str>>,
}

impl File {
    /// Whether it is content of our own store.
    pub fn is_stored(&self) -> bool {
        self.source == STORE
    }
}

/// A file that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    pub path: Arc<Path>,
    pub reason: Cow<'static, str>,
}

impl Skipped {
    pub(crate) fn new(path: &Arc<Path>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { path: Arc::clone(path), reason: reason.into() }
    }
}

/// A failure as the reason why a file was passed over: its path is told beside it.
fn reason(error: &Error) -> String {
    let path = error.details().get("path").and_then(serde_json::Value::as_str).unwrap_or_default();
    let message = error.message();
    message.replacen(path, "it", usize::from(!path.is_empty()))
}

/// Who watches the work, and may end it.
pub trait Watch: Sync {
    /// An error once the work is to stop.
    fn check(&self) -> Result<()>;

    /// So many bytes of content will be read.
    fn expect(&self, _bytes: u64) {}

    /// So many of them were read.
    fn read(&self, _bytes: u64) {}

    /// Something was done on disk: the name of the step, and to what.
    fn step(&self, _step: &'static str, _path: &Path) {}
}
