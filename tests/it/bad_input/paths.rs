//! Things that are no model at all, or may not be read.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;

use super::*;
use crate::sandbox::make_fifo;

/// Makes something in a folder and gives its path.
type Make = fn(&Path) -> PathBuf;

#[test]
fn what_is_no_model_is_told_by_its_path() {
    let cases: [(&str, Make, &str); 9] = [
        ("nothing", |folder| folder.join("nothing"), "MODEL_NOT_FOUND"),
        (
            "an empty folder",
            |folder| made(folder.join("empty"), |path| fs::create_dir(path)),
            "FILE_NOT_FOUND",
        ),
        (
            "a folder of texts",
            |folder| {
                made(folder.join("texts"), |path| {
                    fs::create_dir(path).and_then(|()| fs::write(path.join("a.txt"), "a"))
                })
            },
            "FILE_NOT_FOUND",
        ),
        (
            "an empty file",
            |folder| made(folder.join("empty.gguf"), |path| fs::write(path, "")),
            "INTEGRITY_FAILED",
        ),
        (
            "a text",
            |folder| made(folder.join("thesis.txt"), |path| fs::write(path, "years of work")),
            "INTEGRITY_FAILED",
        ),
        (
            "a folder with a model's name",
            |folder| made(folder.join("model.gguf"), |path| fs::create_dir(path)),
            "FILE_NOT_FOUND",
        ),
        (
            "a link to nothing",
            |folder| made(folder.join("model.gguf"), |path| symlink("nothing", path)),
            "MODEL_NOT_FOUND",
        ),
        (
            "a link to itself",
            |folder| made(folder.join("model.gguf"), |path| symlink("model.gguf", path)),
            "MODEL_NOT_FOUND",
        ),
        (
            "a fifo",
            |folder| {
                made(folder.join("model.gguf"), |path| {
                    make_fifo(path);
                    Ok(())
                })
            },
            "INTEGRITY_FAILED",
        ),
    ];
    for (name, make, code) in cases {
        let sandbox = Sandbox::new();
        let path = make(sandbox.home());
        let file = path.file_name().and_then(OsStr::to_str).expect("a name");
        refused(&ask(&sandbox, &path), name, code, file);
    }
}

fn made(path: PathBuf, make: impl FnOnce(&Path) -> std::io::Result<()>) -> PathBuf {
    make(&path).expect("made");
    path
}

#[test]
fn names_that_are_no_names() {
    let sandbox = Sandbox::new();
    for name in [
        "",
        " ",
        "..",
        "../../etc/passwd",
        "/etc/passwd",
        "org/../../etc",
        "org/name@../x",
        "a\nb",
        "a\u{1b}[2Jb",
        "ollama:../../x",
        "hf.co/../..",
        "org/name:../x",
        "~root",
        "\u{202e}cod",
    ] {
        let output = ask(&sandbox, Path::new(name));
        let envelope: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let code = envelope["error"]["code"].as_str().unwrap_or_else(|| panic!("{name:?}: {envelope}"));
        let allowed = [
            "INVALID_REQUEST",
            "MODEL_NOT_FOUND",
            "INTEGRITY_FAILED",
            "BOUNDARY_VIOLATION",
            "FILE_NOT_FOUND",
        ];
        assert!(allowed.contains(&code), "{name:?}: {envelope}");
        assert_eq!(output.status.code(), Some(exit_status(code)), "{name:?}");
        let message = envelope["error"]["message"].as_str().expect("a message");
        assert!(!message.chars().any(char::is_control), "{name:?}: {message:?}");
    }
}

#[test]
fn arguments_that_are_not_utf8_are_refused() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.cmd::<&str>(&[]);
    command.args([
        OsStr::new("run"),
        OsStr::from_bytes(b"mod\xffel"),
        OsStr::new("Hi"),
        OsStr::new("--json"),
    ]);
    refused(&ended(&mut command), "a name that is not UTF-8", "INVALID_REQUEST", "UTF-8");
}

/// Somebody who is not the owner. As root only such a child can be refused a file.
pub const NOBODY: u32 = 65534;

#[test]
fn files_that_may_not_be_read_are_told_by_their_path() {
    for (fixture, file) in
        [("llama_tied", "model.safetensors"), ("llama_tied", "config.json"), ("llama_tied", "tokenizer.json")]
    {
        let sandbox = Sandbox::new();
        let model = copy_of(fixture, &sandbox);
        fs::set_permissions(model.join(file), fs::Permissions::from_mode(0o000)).expect("closed");
        let mut command = sandbox.cmd::<&str>(&[]);
        command.arg("run").arg(&model).args(["Hi", "-n", "2", "--json"]);
        if rustix::process::geteuid().is_root() {
            open_to_all(sandbox.home());
            command.uid(NOBODY).gid(NOBODY).env("MLX_CACHE_HOME", sandbox.home().join("none"));
        }
        let error = refused(&ended(&mut command), file, "IO_ERROR", file);
        assert!(error["hint"].as_str().expect("a hint").contains("permissions"), "{error}");
    }
}

/// Lets others into a folder, as far as it is ours.
fn open_to_all(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("open");
}
