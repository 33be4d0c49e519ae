//! Python programs that share models with ours: huggingface_hub, transformers, mlx_lm. `make test` fetches them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sandbox::{Outcome, Sandbox, finish};

/// The releases of huggingface_hub that are there, oldest first.
pub const RELEASES: [&str; 4] = ["0.36.0", "1.31.0", "1.33.0", NEWEST];
pub const NEWEST: &str = "2.4.0";

/// A program of an environment with this release of huggingface_hub: `python3` or `hf`. It has the sandbox's
/// home, no network but what is added to its environment, and nothing else of ours.
pub fn program(sandbox: &Sandbox, release: &str, name: &str) -> Command {
    let folder = std::env::var_os("MLX_CACHE_TEST_PYTHON").expect("MLX_CACHE_TEST_PYTHON: run `make test`");
    let path = PathBuf::from(folder).join(format!("hf-{release}/bin")).join(name);
    assert!(path.exists(), "{} is not there: run `make test`", path.display());
    let mut command = Command::new(path);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", sandbox.home())
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env("HF_HUB_DISABLE_UPDATE_CHECK", "1")
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        .current_dir(sandbox.home());
    command
}

/// Downloads a model into the sandbox's Hugging Face cache with the real client; the snapshot's folder.
pub fn download(sandbox: &Sandbox, release: &str, endpoint: &str, repository: &str) -> PathBuf {
    let mut command = program(sandbox, release, "python3");
    let code = "import sys, huggingface_hub as h; print(h.snapshot_download(sys.argv[1]))";
    command.env("HF_ENDPOINT", endpoint).args(["-c", code, repository]);
    let folder = succeeded(finish(&mut command));
    Path::new(folder.trim_end()).to_owned()
}

/// What a Python program printed.
pub fn succeeded(outcome: Outcome) -> String {
    assert_eq!(outcome.status, 0, "{}{}", outcome.stdout, outcome.stderr);
    outcome.stdout
}
