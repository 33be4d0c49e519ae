//! `verify --repair`: exact bytes from a good copy on this machine, or nothing.

use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::thread;
use std::time::Instant;

use super::foreign::{gguf_of, in_hub, in_ollama, snapshot};
use super::*;
use crate::models::{blobs, refused, sha256};

const WEIGHTS: &str = "model.safetensors";

/// What lies below a folder: each path with its content, or where its link leads.
fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found: Vec<_> = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| !entry.file_type().is_dir())
        .map(|entry| {
            let content = if entry.path_is_symlink() {
                fs::read_link(entry.path()).expect("a link").into_os_string().into_encoded_bytes()
            } else {
                fs::read(entry.path()).expect("a file")
            };
            (entry.into_path(), content)
        })
        .collect();
    found.sort();
    found
}

/// Content and links of the store, without what only we read.
fn store_of(sandbox: &Sandbox) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = tree(&sandbox.store().join("blobs"));
    found.extend(tree(&sandbox.store().join("models")));
    found
}

/// Repairs; fails unless everything is good afterwards. What was done.
fn repaired(sandbox: &Sandbox, args: &[&str]) -> Vec<Value> {
    let report = is_sound(sandbox, &[args, &["--repair", "--yes"]].concat());
    let repairs = report["repairs"].as_array().expect("a list").clone();
    assert!(repairs.iter().all(|repair| repair["done"] == true), "{report}");
    is_sound(sandbox, args);
    let left = fs::read_dir(sandbox.store().join("incomplete")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "unfinished files");
    repairs
}

#[test]
fn the_store_is_repaired_from_the_folder_that_a_model_came_from() {
    type Spoil = fn(&Path, &Path);
    let cases: [(Spoil, &str); 8] = [
        (|blob, _| flip(blob), "copy"),
        (|blob, _| cut(blob), "copy"),
        (|blob, _| write(blob, ""), "copy"),
        (|blob, _| point(blob), "copy"),
        (|blob, _| fs::remove_file(blob).expect("removed"), "copy"),
        (|_, link| fs::remove_file(link).expect("removed"), "link"),
        (
            |_, link| {
                fs::remove_file(link).expect("removed");
                symlink("/etc/hostname", link).expect("linked");
            },
            "link",
        ),
        (|blob, _| fs::set_permissions(blob, Permissions::from_mode(0o666)).expect("a mode"), "mode"),
    ];
    for (damage, action) in cases {
        let sandbox = Sandbox::new();
        let source = place(&sandbox, "llama_tied", "tiny");
        let added = add(&sandbox, &source, &["--copy"]);
        // Where it came from is known only as a folder of its own.
        add(&sandbox, &source, &["--name", "org/source"]);
        let model = PathBuf::from(added["path"].as_str().expect("a path"));
        let before = store_of(&sandbox);
        damage(&content_of(&model, WEIGHTS), &model.join(WEIGHTS));
        let repairs = repaired(&sandbox, &["local/tiny"]);
        assert_eq!(repairs.len(), 1, "{repairs:?}");
        assert_eq!(repairs[0]["action"], action);
        assert_eq!(store_of(&sandbox), before);
        let mode = fs::metadata(model.join(WEIGHTS)).expect("a blob").permissions().mode() & 0o777;
        assert_eq!(mode, 0o444);
    }
}

#[test]
fn a_copy_in_any_tools_folder_will_do() {
    let sandbox = Sandbox::new();
    let blobs_of_ollama = in_ollama(&sandbox);
    let gguf = gguf_of(&blobs_of_ollama);
    let whole = fs::read(&gguf).expect("a GGUF");
    let plain = sandbox.home().join(".lmstudio/models/someone/tiny/tiny.Q4_0.gguf");
    fs::create_dir_all(plain.parent().expect("a folder")).expect("folders");
    fs::copy(&gguf, &plain).expect("copied");
    let added = add(&sandbox, &plain, &["--copy", "--name", "org/tiny"]);
    let stored = PathBuf::from(added["path"].as_str().expect("a path"));

    // Ours from Ollama's, by its name.
    flip(&fs::canonicalize(&stored).expect("a blob"));
    fs::remove_file(&plain).expect("removed");
    let repairs = repaired(&sandbox, &["org/tiny"]);
    assert_eq!(repairs[0]["from"], gguf.to_str().expect("UTF-8"));
    // Ollama's from ours.
    fs::remove_file(&gguf).expect("removed");
    repaired(&sandbox, &["--source", "ollama"]);
    assert!(fs::read(&gguf).expect("a GGUF") == whole);
    assert_eq!(fs::read_dir(&blobs_of_ollama).expect("a folder").count(), 3, "nothing else is there");
    let mode = fs::metadata(&gguf).expect("a blob").permissions().mode() & 0o777;
    assert_eq!(mode, 0o644);
    // Both from LM Studio's, of which nobody says what it holds.
    fs::write(&plain, &whole).expect("written");
    cut(&gguf);
    flip(&fs::canonicalize(&stored).expect("a blob"));
    let (status, report) = verify(&sandbox, &["--source", "store,ollama", "--repair", "--yes"]);
    assert_eq!((status, report["repairs"].as_array().expect("a list").len()), (0, 2), "{report}");
    assert!(fs::read(&gguf).expect("a GGUF") == whole && fs::read(&stored).expect("a GGUF") == whole);
}

#[test]
fn a_hugging_face_cache_is_repaired_where_names_are_checksums() {
    for listing in [true, false] {
        let sandbox = Sandbox::new();
        let repository = in_hub(&sandbox, "models--org--tiny", listing);
        let folder = snapshot(&repository);
        add(&sandbox, &folder, &["--copy"]);
        let before = tree(&repository);
        flip(&content_of(&folder, "config.json"));
        fs::remove_file(content_of(&folder, WEIGHTS)).expect("removed");
        let template = content_of(&folder, "tokenizer.json");
        if template.exists() {
            cut(&template);
        }
        repaired(&sandbox, &["--source", "hf"]);
        assert_eq!(tree(&repository), before);
    }
}

#[test]
fn without_a_good_copy_nothing_changes() {
    let sandbox = Sandbox::new();
    let repository = in_hub(&sandbox, "models--org--tiny", true);
    let weights = content_of(&snapshot(&repository), WEIGHTS);
    flip(&weights);
    // Of the same size, but of other content.
    let other = sandbox.home().join(".lmstudio/models/someone/other/model.safetensors");
    fs::create_dir_all(other.parent().expect("a folder")).expect("folders");
    fs::copy(&weights, &other).expect("copied");
    flip(&other);
    write(&other, [&[1], &fs::read(&other).expect("a file")[1..]].concat());
    let before = tree(&repository);
    let (status, report) = verify(&sandbox, &["--source", "hf", "--repair", "--yes"]);
    assert_eq!((status, &report["repairs"][0]["done"]), (4, &false.into()), "{report}");
    assert!(report["repairs"][0]["reason"].is_string(), "{report}");
    assert_eq!(problems(&report), [(WEIGHTS.to_owned(), "changed".to_owned())]);
    assert_eq!(tree(&repository), before);
    fs::remove_file(&other).expect("removed");
    let (status, report) = verify(&sandbox, &["--source", "hf", "--repair"]);
    assert_eq!(status, 4, "there is nothing to ask about");
    assert!(report["repairs"][0]["reason"].as_str().expect("a reason").contains("no good copy"), "{report}");
}

#[test]
fn the_plan_is_shown_and_nothing_is_done_without_a_yes() {
    let sandbox = Sandbox::new();
    let source = place(&sandbox, "llama_tied", "tiny");
    let added = add(&sandbox, &source, &["--copy"]);
    add(&sandbox, &source, &["--name", "org/source"]);
    let blob = content_of(Path::new(added["path"].as_str().expect("a path")), WEIGHTS);
    flip(&blob);
    let damaged = fs::read(&blob).expect("a blob");
    let outcome = sandbox.run(&["verify", "--repair"]);
    assert_eq!(outcome.status, 2, "{outcome:?}");
    for text in ["would copy", blob.to_str().expect("UTF-8"), "--yes"] {
        assert!(outcome.stderr.contains(text), "{text}: {outcome:?}");
    }
    refused(&sandbox, &["verify", "--repair"], "INVALID_REQUEST", "terminal");
    assert!(fs::read(&blob).expect("a blob") == damaged);
    // Where nothing is wrong there is nothing to ask.
    assert_eq!(sandbox.run(&["verify", "org/source", "--repair"]).status, 0);
    assert_eq!(sandbox.error(&["verify", "--yes"]).0, 2);
    assert_eq!(sandbox.error(&["verify", "--repair", "--quick"]).0, 2);
}

#[test]
fn a_file_of_the_users_in_the_place_of_a_link_stays() {
    let sandbox = Sandbox::new();
    let source = place(&sandbox, "llama_tied", "tiny");
    let added = add(&sandbox, &source, &["--copy"]);
    let link = Path::new(added["path"].as_str().expect("a path")).join("config.json");
    let content = fs::read(&link).expect("a file");
    fs::remove_file(&link).expect("removed");
    fs::write(&link, "my own changes").expect("written");
    let (status, report) = verify(&sandbox, &["--repair", "--yes"]);
    assert_eq!((status, &report["repairs"][0]["done"]), (4, &false.into()), "{report}");
    assert_eq!(fs::read(&link).expect("a file"), b"my own changes");
    // A plain copy of what the link leads to can be a link again.
    fs::write(&link, content).expect("written");
    repaired(&sandbox, &[]);
    assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
}

#[test]
fn a_link_in_the_way_is_not_followed_out_of_a_cache() {
    let sandbox = Sandbox::new();
    let repository = in_hub(&sandbox, "models--org--tiny", true);
    let folder = snapshot(&repository);
    add(&sandbox, &folder, &["--copy"]);
    fs::remove_file(content_of(&folder, WEIGHTS)).expect("removed");
    // The folder of blobs is somewhere else now.
    let elsewhere = sandbox.home().join("elsewhere");
    fs::rename(repository.join("blobs"), &elsewhere).expect("moved");
    symlink(&elsewhere, repository.join("blobs")).expect("linked");
    let before = tree(&elsewhere);
    let (status, _) = verify(&sandbox, &["--source", "hf", "--repair", "--yes"]);
    assert_eq!(status, 4);
    assert_eq!(tree(&elsewhere), before);
}

#[test]
fn killed_at_any_moment_it_leaves_the_old_content_or_the_good_one() {
    let sandbox = Sandbox::new();
    let source = place(&sandbox, "llama_tied", "large");
    for file in 0..4 {
        let content: Vec<u8> = (0..6_000_000).map(|at: usize| (at * (file + 3)) as u8).collect();
        fs::write(source.join(format!("extra-{file}.txt")), content).expect("written");
    }
    add(&sandbox, &source, &["--copy"]);
    add(&sandbox, &source, &["--name", "org/source"]);
    let good = store_of(&sandbox);
    let damage = || {
        for blob in blobs(&sandbox) {
            flip(&blob);
        }
    };
    damage();
    let damaged = store_of(&sandbox);
    let repair = ["verify", "local/large", "--repair", "--yes"];
    let started = Instant::now();
    assert_eq!(sandbox.run(&repair).status, 0);
    let whole = started.elapsed();
    assert_eq!(store_of(&sandbox), good);

    let mut cut_short = 0;
    for step in 0..10 {
        damage();
        let mut child =
            sandbox.cmd(&repair).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
        thread::sleep(whole * step / 9);
        child.kill().expect("killed");
        cut_short += i32::from(!child.wait().expect("ended").success());
        for ((path, now), ((_, good), (_, bad))) in store_of(&sandbox).iter().zip(good.iter().zip(&damaged)) {
            assert!(now == good || now == bad, "{} is neither the old nor the new", path.display());
        }
        assert_eq!(sandbox.run(&repair).status, 0);
        assert_eq!(store_of(&sandbox), good);
    }
    assert!(cut_short >= 3, "only {cut_short} were cut short");
    data(&sandbox, &["gc", "--yes"]);
    assert_eq!(fs::read_dir(sandbox.store().join("incomplete")).expect("a folder").count(), 0);
    assert!(blobs(&sandbox).iter().all(|blob| {
        let name = blob.file_name().and_then(|name| name.to_str()).expect("a name");
        sha256(&fs::read(blob).expect("a blob")) == name
    }));
}
