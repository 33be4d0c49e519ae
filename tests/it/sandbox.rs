//! The program in an environment of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// A user's folder that nobody else knows, with a store in it.
pub struct Sandbox {
    folder: TempDir,
}

impl Sandbox {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The store, whether it exists or not.
    pub fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// `mlx-cache`, without arguments.
    pub fn command(&self) -> Command {
        self.cleared(env!("CARGO_BIN_EXE_mlx-cache"))
    }

    /// A shell script.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = self.cleared("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn cleared(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.path()).env("MLX_CACHE_HOME", self.store());
        command.env("PATH", "/usr/bin:/bin").current_dir(self.path());
        command
    }

    /// Runs a command that must succeed.
    pub fn run_ok(&self, args: &[&str]) {
        let output = self.command().args(args).output().expect("mlx-cache runs");
        assert!(output.status.success(), "{args:?}: {output:?}");
    }

    /// Runs a command and reads what it prints.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.command().args(args).output().expect("mlx-cache runs");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

/// SmolLM2-135M-Instruct as GGUF.
pub fn smollm2() -> PathBuf {
    let models = std::env::var_os("MLX_CACHE_TEST_MODELS")
        .expect("MLX_CACHE_TEST_MODELS names the folder with the real models; `make test` sets it");
    let path = PathBuf::from(models).join("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(path.is_file(), "{} is not there: run `make test`, which fetches it", path.display());
    path
}
