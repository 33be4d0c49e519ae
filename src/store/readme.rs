//! A word to whoever finds the store's folder and wonders whether it may go.

use super::Store;
use crate::error::Result;
use crate::fs::write_atomic;

const NAME: &str = "README.txt";

const TEXT: &str = "\
This folder belongs to mlx-cache. It holds AI models, each file once.

BEFORE YOU DELETE IT: files of other tools may point here. After `mlx-cache dedupe`
the caches of Hugging Face (~/.cache/huggingface), Ollama (~/.ollama) or LM Studio
(~/.lmstudio) hold symbolic links to names under links/ instead of files of their own.
If this folder goes, those tools lose these models.

To give every tool its own files back first:

    mlx-cache dedupe --undo

It needs as much free disk space as the files that are linked take. To see which files
those are:

    find ~/.cache/huggingface ~/.ollama ~/.lmstudio -type l -lname '*/links/*'

What is in here:

    blobs/        the content, named by its SHA-256
    links/        one name for each file of another tool that points here
    models/       the models as folders that other programs can load
    registry.db   what is known about them; `mlx-cache doctor --fix` can make it again
    incomplete/   unfinished downloads
";

impl Store {
    /// Writes the file if it is not there.
    pub(super) fn place_readme(&self) -> Result<()> {
        let path = self.home.join(NAME);
        if path.exists() {
            return Ok(());
        }
        write_atomic(&path, TEXT.as_bytes(), 0o644)
    }
}
