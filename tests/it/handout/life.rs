//! The program in the shells, terminals and homes that people have.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use super::tiny;
use crate::models::{COMMIT, place_in_hub};
use crate::sandbox::{Sandbox, finish, json};
use crate::terminal::Terminal;

const ESCAPE: char = '\u{1b}';
/// Somebody who is not the owner. As root only such a child can be refused a file.
const NOBODY: u32 = 65534;

fn tiny_model() -> String {
    tiny().to_str().expect("UTF-8").to_owned()
}

/// A home with models in the store and in other tools' caches.
fn lived_in() -> Sandbox {
    let sandbox = Sandbox::new();
    place_in_hub(&sandbox, "llama_untied", "models--some--other", COMMIT);
    assert_eq!(sandbox.run(&["add", &tiny_model(), "--copy", "--name", "some/tiny"]).status, 0);
    sandbox
}

/// What shows tables, texts and sentences.
const TELLING: &[&[&str]] = &[
    &[],
    &["-h"],
    &["list", "--source", "all"],
    &["show", "some/tiny"],
    &["status"],
    &["doctor"],
    &["verify"],
    &["dedupe", "--min-size", "0"],
    &["config"],
    &["recommend", "--all"],
    &["rm", "some/tiny", "--dry-run"],
    &["run", "some/tiny", "Hi", "-n", "4", "--temp", "0"],
];

#[test]
fn a_locale_changes_nothing() {
    let sandbox = lived_in();
    for args in
        [&["list", "--source", "all"][..], &["config"], &["run", "some/tiny", "Hi", "-n", "8", "--temp", "0"]]
    {
        let with = |locale: Option<&str>| {
            let mut command = sandbox.cmd(args);
            if let Some(locale) = locale {
                command.env("LC_ALL", locale).env("LANG", locale);
            }
            let outcome = finish(&mut command);
            assert_eq!(outcome.status, 0, "{args:?} with {locale:?}: {outcome:?}");
            outcome.stdout
        };
        let plain = with(None);
        for locale in ["C", "POSIX", "de_DE.ISO-8859-1", "zh_CN.GB18030", "no_SUCH.locale"] {
            assert_eq!(with(Some(locale)), plain, "{args:?} with {locale}");
        }
    }
}

#[test]
fn terminals_may_be_narrow_or_tell_no_size() {
    let sandbox = lived_in();
    for args in TELLING {
        for columns in [0, 1, 7, 20] {
            let mut command = sandbox.cmd(args);
            command.env("TERM", "xterm");
            let (shown, status) = Terminal::start(command, 24, columns).end();
            assert_eq!(status, Some(0), "{args:?} in {columns} columns: {shown}");
            assert!(!shown.is_empty() && !shown.contains("panicked"), "{args:?}: {shown}");
        }
    }
}

#[test]
fn a_dumb_terminal_gets_no_escapes() {
    let sandbox = lived_in();
    for args in TELLING {
        let show = |variables: &[(&str, &str)], flags: &[&str]| {
            let mut command = sandbox.cmd(args);
            command.envs(variables.iter().copied()).args(flags);
            let (shown, status) = Terminal::start(command, 24, 80).end();
            assert_eq!(status, Some(0), "{args:?}: {shown}");
            shown
        };
        assert!(!show(&[("TERM", "dumb")], &[]).contains(ESCAPE), "{args:?} on a dumb terminal");
        // A bar that is drawn and taken away moves the cursor, which is no colour.
        let colours = |shown: &str| {
            shown.contains("\u{1b}[1m") || shown.contains("\u{1b}[3") || shown.contains("\u{1b}[0m")
        };
        assert!(!colours(&show(&[("TERM", "xterm"), ("NO_COLOR", "1")], &[])), "{args:?} with NO_COLOR");
        assert!(!colours(&show(&[("TERM", "xterm")], &["--no-color"])), "{args:?} with --no-color");
        assert!(!colours(&show(&[("TERM", "xterm")], &["--color", "never"])), "{args:?} with --color never");
    }
    let mut command = sandbox.cmd(&["-h"]);
    let (shown, _) = Terminal::start(
        {
            command.env("TERM", "xterm");
            command
        },
        24,
        80,
    )
    .end();
    assert!(shown.contains(ESCAPE), "this test could see a colour: {shown:?}");
}

#[test]
fn a_home_that_cannot_be_written_is_enough_to_look_and_to_run() {
    let sandbox = Sandbox::new();
    place_in_hub(&sandbox, "llama_untied", "models--some--other", COMMIT);
    for entry in walkdir::WalkDir::new(sandbox.home()).contents_first(true) {
        let entry = entry.expect("an entry");
        if !entry.file_type().is_symlink() {
            let mode = if entry.file_type().is_dir() { 0o555 } else { 0o444 };
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode)).expect("changed");
        }
    }
    let run = |args: &[&str]| {
        let mut command = sandbox.cmd(args);
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    let model = tiny_model();
    for args in [
        &[][..],
        &["list", "--source", "all"],
        &["status"],
        &["doctor"],
        &["dedupe"],
        &["show", &model],
        &["run", &model, "Hi", "-n", "4"],
        &["run", "some/other", "Hi", "-n", "4"],
        &["completions", "bash"],
    ] {
        let outcome = finish(&mut run(args));
        assert_eq!(outcome.status, 0, "{args:?}: {outcome:?}");
    }
    let (status, envelope) = json(run(&["add", &model]).arg("--json"));
    fs::set_permissions(sandbox.home(), fs::Permissions::from_mode(0o755)).expect("changed");
    let error = &envelope["error"];
    assert_eq!((status, &error["code"]), (1, &"IO_ERROR".into()), "{envelope}");
    let home = sandbox.home().to_str().expect("UTF-8");
    assert!(error["message"].as_str().is_some_and(|text| text.contains(home)), "{error}");
    for entry in walkdir::WalkDir::new(sandbox.home()) {
        let entry = entry.expect("an entry");
        if entry.file_type().is_dir() {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o755)).expect("changed");
        }
    }
}

#[test]
fn without_a_home_a_store_that_is_named_is_enough() {
    let sandbox = lived_in();
    for args in TELLING {
        let mut command = sandbox.cmd(args);
        let outcome = finish(command.env_remove("HOME").env("MLX_CACHE_HOME", sandbox.store()));
        assert_eq!(outcome.status, 0, "{args:?}: {outcome:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_store_may_be_on_another_filesystem() {
    let sandbox = Sandbox::new();
    let elsewhere = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let device =
        |path: &std::path::Path| std::os::unix::fs::MetadataExt::dev(&fs::metadata(path).expect("metadata"));
    assert_ne!(device(sandbox.home()), device(elsewhere.path()), "they are two filesystems");
    let store = elsewhere.path().join("store");
    place_in_hub(&sandbox, "llama_tied", "models--some--other", COMMIT);
    for args in [
        &["add", &tiny_model(), "--copy", "--name", "some/tiny"][..],
        &["verify"],
        &["run", "some/tiny", "Hi", "-n", "4"],
        &["dedupe", "--min-size", "0", "--apply", "--yes"],
        &["verify", "--source", "all"],
        &["dedupe", "--undo", "--yes"],
        &["rm", "some/tiny", "--yes"],
    ] {
        let outcome = finish(sandbox.cmd(args).env("MLX_CACHE_HOME", &store));
        assert_eq!(outcome.status, 0, "{args:?}: {outcome:?}");
    }
}

#[test]
fn folders_may_have_spaces_emojis_and_newlines() {
    let sandbox = Sandbox::new();
    for name in
        ["my models", "modèles 🦙", "two\nlines", "quote's \"and\" $dollar", "-dash", "tab\tand\\back"]
    {
        let home = sandbox.home().join(name);
        let model = home.join("models").join(name);
        fs::create_dir_all(&model).expect("folders");
        for file in fs::read_dir(tiny()).expect("a model") {
            let file = file.expect("an entry");
            if file.file_name() != "golden.safetensors" {
                fs::copy(file.path(), model.join(file.file_name())).expect("a copy");
            }
        }
        let run = |args: &[&str]| {
            let mut command = sandbox.cmd(args);
            command.env("HOME", &home).current_dir(&home);
            command
        };
        let path = model.to_str().expect("UTF-8");
        for args in [
            &["add", path, "--name", "some/tiny"][..],
            &["add", path, "--copy", "--name", "some/copied"],
            &["list"],
            &["show", "some/tiny"],
            &["verify"],
            &["status"],
            &["run", path, "Hi", "-n", "4"],
            &["dedupe", "--path", path, "--min-size", "0", "--apply", "--yes"],
            &["dedupe", "--undo", "--yes"],
        ] {
            let outcome = finish(&mut run(args));
            assert_eq!(outcome.status, 0, "{name:?}, {args:?}: {outcome:?}");
        }
        let (_, envelope) = json(run(&["path", "some/tiny"]).arg("--json"));
        assert_eq!(envelope["data"]["path"].as_str(), Some(path));
        // For programs, the very bytes.
        assert_eq!(finish(&mut run(&["path", "some/tiny"])).stdout, format!("{path}\n"));
        let list = finish(&mut run(&["list", "--source", "all"])).stdout;
        assert!(!list.contains("two\nlines") && !list.contains('\t'), "{list}");
    }
}

#[test]
fn a_models_name_does_not_steer_the_terminal() {
    let sandbox = Sandbox::new();
    let folder = sandbox.home().join(".lmstudio/models/pub\u{1b}[31mlisher/na\rme");
    fs::create_dir_all(&folder).expect("folders");
    let gguf = super::root().join("fixtures/tiny/gguf/llama_Q8_0.gguf");
    fs::copy(gguf, folder.join("x\u{7}.gguf")).expect("a model");
    for args in [
        &["list", "--source", "all"][..],
        &["status"],
        &["verify", "--source", "all"],
        &["doctor"],
        &["add", "lmstudio"],
    ] {
        let outcome = finish(&mut sandbox.cmd(args));
        let shown = outcome.stdout + &outcome.stderr;
        let steering = shown.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(steering, None, "{args:?}: {shown:?}");
    }
}
