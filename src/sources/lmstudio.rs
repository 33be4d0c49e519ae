//! LM Studio's models: `<models>/<publisher>/<name>/<files>`.

use std::path::{Path, PathBuf};

use super::bounds::Bounds;
use super::plain;
use super::scan::Scan;
use super::walk::{Answer, What, walk};
use super::{ANOTHER_USERS, Source};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::ids::{Host, ModelName};

/// A `models` folder.
#[derive(Debug, Clone)]
pub struct LmStudio {
    root: PathBuf,
    store: PathBuf,
}

impl LmStudio {
    /// The models in `root`, some of whose files may be links into `store`.
    pub fn at(root: &Path, store: &Path) -> Self {
        Self { root: root.to_owned(), store: store.to_owned() }
    }
}

impl Source for LmStudio {
    fn name(&self) -> &'static str {
        "lmstudio"
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn scan(&self, cancel: &Cancel) -> Result<Scan> {
        self.walk(&self.root, 0, cancel)
    }

    fn find(&self, name: &ModelName, cancel: &Cancel) -> Result<Scan> {
        let publisher = self.root.join(name.org());
        let folder = publisher.join(name.name());
        let is_folder = |path: &Path| path.symlink_metadata().is_ok_and(|found| found.is_dir());
        if name.host() != Host::LmStudio || !is_folder(&publisher) || !is_folder(&folder) {
            return Ok(Scan::default());
        }
        let mut scan = self.walk(&folder, 2, cancel)?;
        scan.models.retain(|model| model.name == *name);
        Ok(scan)
    }
}

impl LmStudio {
    /// Looks at everything below `start`, which lies so many folders below the root.
    fn walk(&self, start: &Path, depth: usize, cancel: &Cancel) -> Result<Scan> {
        let bounds = Bounds::new(&self.root, &self.store);
        let refused = (!self.is_own()).then_some(ANOTHER_USERS);
        let walked = walk(start, &self.store, depth, cancel, |depth, seen| match &seen.what {
            What::Folder if seen.name.as_encoded_bytes().starts_with(b".") => Answer::pass("a hidden folder"),
            What::Folder => Answer::Enter(depth + 1),
            What::Link(_) if depth < 2 => Answer::pass("a link in the place of a folder"),
            _ if depth < 2 && seen.name == ".DS_Store" => Answer::Ignore,
            _ if depth < 2 => Answer::pass("no part of a model"),
            _ => plain::judge(seen, &bounds, refused),
        })?;
        Ok(plain::assemble(&self.root, walked, |folder| name_of(folder.strip_prefix(&self.root).ok()?)))
    }
}

/// Publisher and name; a model in a folder further below has that folder's name too.
fn name_of(below: &Path) -> Option<ModelName> {
    let mut parts = below.iter().map(|part| part.to_str());
    let (publisher, name) = (parts.next()??, parts.next()??);
    let rest = parts.collect::<Option<Vec<_>>>()?;
    let name = [&[name], rest.as_slice()].concat().join("-");
    ModelName::new(Host::LmStudio, publisher, &name).ok()
}
