//! Content that only the hub has.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use crate::commands::pull::{SMALL, connect};
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::fs::{Part, TempFile, create_private_dir, unique_path};
use crate::hub::{Hub, Remote, Watch};
use crate::ids::RevisionSpec;
use crate::output::progress::{Progress, Unit};
use crate::store::Store;
use crate::verify::HubFile;

/// Connections at the same time.
const CONNECTIONS: u8 = 4;

/// Fetches single files; the hub is prepared for when it is first needed.
pub(super) struct Fetcher<'a> {
    context: &'a Context,
    store: &'a Store,
    hub: Option<Hub>,
}

/// A file that was fetched; it goes when dropped.
pub(super) struct Fetched(PathBuf);

impl Fetched {
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        // What cannot be removed is unfinished, and found as that.
        let _ = fs::remove_file(&self.0);
    }
}

impl<'a> Fetcher<'a> {
    pub fn new(store: &'a Store, context: &'a Context) -> Self {
        Self { context, store, hub: None }
    }

    /// Whether the network may be used.
    pub fn may_ask(&self) -> bool {
        !self.context.settings.offline.value
    }

    /// Brings a file into the store's folder for what is unfinished: it is what the hub says that it is.
    /// A download that is cut short is resumed the next time.
    pub fn fetch(&mut self, wanted: &HubFile) -> Result<Fetched> {
        let hub = match &self.hub {
            Some(hub) => hub,
            None => self.hub.insert(connect(None, CONNECTIONS, self.context)?),
        };
        let check = || self.context.cancel.check();
        let revision: RevisionSpec = wanted.revision.as_str().parse()?;
        let listing = hub.list(&wanted.name, Some(&revision), &check)?;
        let file = listing.files.iter().find(|file| file.path == wanted.path).ok_or_else(|| {
            Error::new(Code::FileNotFound, format!("{} of {} is not at the hub", wanted.path, wanted.name))
        })?;
        create_private_dir(&self.store.incomplete())?;
        create_private_dir(&self.store.locks())?;
        let _right = self.store.lock_content(&file.checksum, &mut || check())?;
        let remote = Remote { model: &wanted.name, commit: &listing.commit, file };
        let watch = Watcher {
            context: self.context,
            bar: self.context.output.progress(
                &format!("fetching {}", wanted.path),
                Some(file.bytes),
                Unit::Bytes,
            ),
        };
        let place = unique_path(&self.store.incomplete());
        if file.bytes <= SMALL {
            let (content, _) = hub.bring_small(&remote, &watch, &check)?;
            let mut temp = TempFile::create_in(&self.store.incomplete())?;
            temp.file().write_all(&content).map_err(|error| Error::io("write", &place, error))?;
            temp.publish(&place, 0o600)?;
        } else {
            let part = Part::open(&self.store.part_path(&file.checksum), file.bytes)?;
            hub.bring_large(&remote, &part, &watch, &check)?;
            part.publish(&place, 0o600)?;
        }
        Ok(Fetched(place))
    }
}

struct Watcher<'a> {
    context: &'a Context,
    bar: Progress,
}

impl Watch for Watcher<'_> {
    fn received(&self, bytes: u64) {
        self.bar.advance(bytes);
    }

    fn retrying(&self, why: &Error, pause: Duration) {
        self.context.output.detail(format!("{}: again in {:.0} s", why.message(), pause.as_secs_f64()));
    }
}
