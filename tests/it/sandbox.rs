//! The program in surroundings of its own: a home folder, an empty environment, no network.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// A home folder with a store in it. It goes when dropped.
pub struct Sandbox(tempfile::TempDir);

/// What the program did.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status; 128 + n after signal n, as a shell shows it.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Sandbox {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn home(&self) -> &Path {
        self.0.path()
    }

    /// Where the store is, or will be.
    pub fn store(&self) -> PathBuf {
        self.home().join(".mlx-cache")
    }

    /// The program with these arguments, ready to be changed and started.
    pub fn cmd<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mlx-cache"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.home())
            .env("MLX_CACHE_OFFLINE", "1")
            .current_dir(self.home())
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Outcome {
        finish(&mut self.cmd(args))
    }

    /// Runs it with `--json` and checks the output against its schema: exit status and envelope.
    pub fn json(&self, args: &[&str]) -> (i32, Value) {
        json(self.cmd(args).arg("--json"))
    }

    /// The error that a run with `--json` ends with: exit status and error object.
    pub fn error(&self, args: &[&str]) -> (i32, Value) {
        let (status, envelope) = self.json(args);
        assert_eq!(envelope["status"], "error", "{args:?}: {envelope}");
        (status, envelope["error"].clone())
    }

    /// Writes the store's config.toml.
    pub fn config(&self, text: &str) {
        std::fs::create_dir_all(self.store()).expect("the store's folder");
        std::fs::write(self.store().join("config.toml"), text).expect("config.toml");
    }
}

/// A pipe with a name. By the command: macOS has no call for it that the tests' library knows.
pub fn make_fifo(path: &Path) {
    let made = finish(Command::new("mkfifo").arg(path));
    assert_eq!(made.status, 0, "{made:?}");
}

/// Runs a prepared program to its end.
pub fn finish(command: &mut Command) -> Outcome {
    use std::os::unix::process::ExitStatusExt;
    let output = command.output().expect("the program starts");
    let status = output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal));
    Outcome {
        status: status.expect("a status or a signal"),
        stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}

/// Runs a program that was prepared with `--json`: exit status and envelope.
pub fn json(command: &mut Command) -> (i32, Value) {
    let outcome = finish(command);
    (outcome.status, envelope(&outcome.stdout))
}

/// What a program printed with `--json`: one line, valid under its schema.
pub fn envelope(stdout: &str) -> Value {
    let line = stdout.strip_suffix('\n').unwrap_or_else(|| panic!("no line of JSON: {stdout:?}"));
    let envelope: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {stdout:?}"));
    assert_valid(&envelope, envelope["command"].as_str().unwrap_or("envelope"));
    let ok = envelope["status"] == "ok";
    assert!(envelope["data"].is_null() != ok && envelope["error"].is_null() == ok, "{envelope}");
    envelope
}

/// Checks a value against a schema of docs/json.
pub fn assert_valid(value: &Value, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/json/{name}.schema.json"));
    let schema = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let schema: Value = serde_json::from_str(&schema).expect("a schema is JSON");
    if let Err(error) = jsonschema::validate(&schema, value) {
        panic!("{error} in {value}");
    }
}

/// A real model, fetched by `make test`.
pub fn smollm2() -> PathBuf {
    real_model("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// A real embedding model, fetched by `make test`: the folder of all-MiniLM-L6-v2.
pub fn minilm() -> PathBuf {
    real_model("all-MiniLM-L6-v2")
}

fn real_model(name: &str) -> PathBuf {
    let models = std::env::var_os("MLX_CACHE_TEST_MODELS").expect("MLX_CACHE_TEST_MODELS: run `make test`");
    let path = Path::new(&models).join(name);
    assert!(path.exists(), "{} is not there: run `make test`", path.display());
    path
}
