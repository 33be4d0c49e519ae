//! Input that is wrong in every way we could think of: each ends with its code and exit status, says
//! what is wrong with which file or model, and never with a panic.

mod configuration;
mod gguf;
mod paths;
mod safetensors;
mod store;
mod system;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sandbox::{Sandbox, finish};

/// A case: its name, how it spoils a model, the code, and what the message must say.
type Case = (&'static str, fn(&Path), &'static str, &'static str);

/// Copies a tiny model, spoils it and asks it something, once for each case.
fn refuse_each(fixture: &str, cases: &[Case]) {
    let wrong = cases.iter().filter_map(|(name, spoil, code, told)| {
        let sandbox = Sandbox::new();
        let model = copy_of(fixture, &sandbox);
        spoil(&model);
        refusal(&ask(&sandbox, &model), code, told).err().map(|reason| format!("{name}: {reason}"))
    });
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A copy of a tiny model, named `model` or `model.gguf`.
fn copy_of(fixture: &str, sandbox: &Sandbox) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny").join(fixture);
    if from.is_file() {
        let to = sandbox.home().join("model.gguf");
        fs::copy(&from, &to).expect("copied");
        return to;
    }
    let to = sandbox.home().join("model");
    fs::create_dir(&to).expect("a folder");
    for entry in fs::read_dir(&from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.expect("an entry");
        if entry.file_name() == "golden.safetensors" {
            continue;
        }
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
    to
}

/// Asks a model for two tokens.
fn ask(sandbox: &Sandbox, model: &Path) -> Output {
    let mut command = sandbox.cmd(&["run"]);
    command.arg(model).args(["Hi", "-n", "2", "--temp", "0", "--json"]);
    ended(&mut command)
}

/// Runs a command, but not for ever.
fn ended(command: &mut Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mlx-cache runs");
    let started = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if started.elapsed() > Duration::from_mins(1) {
            let _ = child.kill();
            panic!("{command:?} goes on");
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().expect("a child")
}

/// Asserts that a command failed as it should; returns the error.
fn refused(output: &Output, name: &str, code: &str, told: &str) -> Value {
    refusal(output, code, told).unwrap_or_else(|reason| panic!("{name}: {reason}"))
}

/// The error of a command that failed as it should, else what is wrong about it.
fn refusal(output: &Output, code: &str, told: &str) -> Result<Value, String> {
    let shown = String::from_utf8_lossy(&output.stdout);
    let envelope: Value = serde_json::from_str(&shown).map_err(|error| format!("{error}: {output:?}"))?;
    let error = envelope["error"].clone();
    let message = error["message"].as_str().unwrap_or_default();
    if error["code"] != code {
        Err(format!("not {code}: {shown}"))
    } else if output.status.code() != Some(exit_status(code)) {
        Err(format!("status {:?}: {shown}", output.status.code()))
    } else if !message.contains(told) {
        Err(format!("no '{told}' in: {message}"))
    } else if message.ends_with('.') || message.contains("panicked") {
        Err(format!("a bad message: {message}"))
    } else if !output.stderr.is_empty() {
        Err(format!("on stderr: {}", String::from_utf8_lossy(&output.stderr)))
    } else {
        Ok(error)
    }
}

/// The contract's table, written down a second time on purpose.
fn exit_status(code: &str) -> i32 {
    match code {
        "IO_ERROR" => 1,
        "INVALID_REQUEST" => 2,
        "MODEL_NOT_FOUND" | "MODEL_AMBIGUOUS" | "FILE_NOT_FOUND" => 3,
        "INTEGRITY_FAILED" => 4,
        "INSUFFICIENT_MEMORY" | "INSUFFICIENT_DISK" => 5,
        "MODEL_UNSUPPORTED" => 7,
        "BOUNDARY_VIOLATION" => 8,
        "LOCKED" => 9,
        _ => panic!("no input ends with {code}"),
    }
}

/// Changes a JSON file of a model.
fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON");
    change(&mut value);
    fs::write(path, value.to_string()).expect("written");
}

/// Bytes that look like nothing, always the same.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}
