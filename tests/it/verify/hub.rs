//! Repairs from the hub, and caches that the real client made.

use std::process::Command;
use std::thread;

use super::*;
use crate::hub::{Hub, Repository, noise};
use crate::models::{blobs, listed};
use crate::python;
use crate::sandbox::json as run_json;

const WEIGHTS: &str = "model.safetensors";

/// The program, told of the hub and allowed to use the network.
fn online(sandbox: &Sandbox, hub: &Hub, args: &[&str]) -> Command {
    let mut command = sandbox.cmd(args);
    command
        .env_remove("MLX_CACHE_OFFLINE")
        .env("HF_ENDPOINT", hub.endpoint())
        .env("MLX_CACHE_HTTP_TIMEOUT", "1")
        .arg("--json");
    command
}

fn done(sandbox: &Sandbox, hub: &Hub, args: &[&str]) -> Value {
    let (status, envelope) = run_json(&mut online(sandbox, hub, args));
    assert_eq!(status, 0, "{args:?}: {envelope}");
    envelope["data"].clone()
}

/// A model of small and large files, and a sandbox that pulled it.
fn pulled() -> (Sandbox, Hub, Repository) {
    let repository = Repository::tiny("org/tiny").large("extra.bin", noise(5, 3_000_000));
    let (sandbox, hub) = (Sandbox::new(), Hub::with(repository.clone()));
    done(&sandbox, &hub, &["pull", "org/tiny", "--all-files"]);
    hub.forget();
    (sandbox, hub, repository)
}

fn same(model: &Path, repository: &Repository) {
    for path in repository.paths() {
        assert!(fs::read(model.join(&path)).expect("a file") == repository.content(&path), "{path}");
    }
}

#[test]
fn what_no_copy_has_comes_from_the_hub() {
    let (sandbox, hub, repository) = pulled();
    let model = PathBuf::from(listed(&sandbox)[0]["path"].as_str().expect("a path"));
    is_sound(&sandbox, &[]);
    flip(&content_of(&model, "config.json"));
    cut(&content_of(&model, WEIGHTS));
    fs::remove_file(content_of(&model, "extra.bin")).expect("removed");
    // Offline there is no way.
    let (status, report) = verify(&sandbox, &["--repair", "--yes"]);
    assert_eq!(status, 4, "{report}");
    let report = done(&sandbox, &hub, &["verify", "--repair", "--yes"]);
    let repairs = report["repairs"].as_array().expect("a list");
    assert_eq!(repairs.len(), 3, "{report}");
    for repair in repairs {
        assert_eq!((&repair["action"], &repair["done"]), (&"fetch".into(), &true.into()), "{report}");
        assert!(repair["from"].as_str().expect("a place").starts_with("org/tiny@"), "{report}");
    }
    same(&model, &repository);
    is_sound(&sandbox, &[]);
    for folder in ["incomplete", "locks"] {
        assert_eq!(fs::read_dir(sandbox.store().join(folder)).expect("a folder").count(), 0, "{folder}");
    }
    assert!(
        blobs(&sandbox)
            .iter()
            .all(|blob| { fs::metadata(blob).expect("a blob").permissions().mode() & 0o777 == 0o444 })
    );
}

#[test]
fn a_hub_that_has_other_content_now_repairs_nothing() {
    let (sandbox, hub, repository) = pulled();
    let model = PathBuf::from(listed(&sandbox)[0]["path"].as_str().expect("a path"));
    flip(&content_of(&model, "config.json"));
    let damaged = fs::read(model.join("config.json")).expect("a file");
    drop(hub);
    let hub = Hub::with(Repository::tiny("org/other"));
    let (status, envelope) = run_json(&mut online(&sandbox, &hub, &["verify", "--repair", "--yes"]));
    assert_eq!(status, 4, "{envelope}");
    let repair = &envelope["data"]["repairs"][0];
    assert!(repair["reason"].is_string() && repair["done"] == false, "{envelope}");
    assert!(fs::read(model.join("config.json")).expect("a file") == damaged);
    assert!(repository.content("config.json") != damaged);
}

#[test]
fn a_copy_that_is_not_what_it_says_gives_way_to_the_hub() {
    let (sandbox, hub, repository) = pulled();
    let model = PathBuf::from(listed(&sandbox)[0]["path"].as_str().expect("a path"));
    let blob = content_of(&model, WEIGHTS);
    let name = blob.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    let other = sandbox.home().join(".ollama/models/blobs").join(format!("sha256-{name}"));
    fs::create_dir_all(other.parent().expect("a folder")).expect("folders");
    fs::write(&other, vec![0; fs::metadata(&blob).expect("a blob").len() as usize]).expect("written");
    flip(&blob);
    let report = done(&sandbox, &hub, &["verify", "--repair", "--yes"]);
    assert_eq!(report["repairs"][0]["action"], "fetch", "{report}");
    same(&model, &repository);
}

#[test]
fn a_pulled_model_is_rebuilt_as_one() {
    let (sandbox, hub, _) = pulled();
    let before = listed(&sandbox)[0].clone();
    fs::write(sandbox.store().join("registry.db"), "no database").expect("written");
    let (status, envelope) = sandbox.json(&["doctor", "--fix"]);
    assert_eq!(status, 0, "{envelope}");
    let after = listed(&sandbox)[0].clone();
    for field in ["reference", "revision", "origin", "path", "bytes", "files", "kind", "quantization"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    flip(&content_of(Path::new(after["path"].as_str().expect("a path")), "config.json"));
    done(&sandbox, &hub, &["verify", "--repair", "--yes"]);
}

#[test]
fn damage_in_a_cache_of_the_real_client_is_found_and_repaired() {
    let cases: [(&str, Damage); 5] = [
        ("config.json", ("changed", flip)),
        (WEIGHTS, ("changed", flip)),
        (WEIGHTS, ("truncated", cut)),
        (WEIGHTS, ("lfs_pointer", point)),
        (WEIGHTS, ("dangling_link", |path| fs::remove_file(path).expect("removed"))),
    ];
    let repository = Repository::tiny("org/tiny");
    thread::scope(|scope| {
        for release in python::RELEASES {
            let repository = repository.clone();
            scope.spawn(move || {
                let (sandbox, hub) = (Sandbox::new(), Hub::with(repository.clone()));
                let folder = python::download(&sandbox, release, &hub.endpoint(), "org/tiny");
                is_sound(&sandbox, &["--source", "hf"]);
                let lists = folder.ancestors().nth(2).expect("the repository").join("trees").exists();
                for (file, (kind, damage)) in cases {
                    // Without a listing no size is on record: the file's own header tells.
                    let kind = if kind == "truncated" && !lists { "broken_header" } else { kind };
                    damage(&content_of(&folder, file));
                    finds(&sandbox, &["--source", "hf"], &[(file, kind)]);
                    let report = done(&sandbox, &hub, &["verify", "--source", "hf", "--repair", "--yes"]);
                    assert_eq!(report["repairs"][0]["action"], "fetch", "{release}: {report}");
                    same(&folder, &repository);
                }
                let left = walkdir::WalkDir::new(sandbox.home().join(".cache"))
                    .into_iter()
                    .filter_map(Result::ok)
                    .filter(|entry| entry.file_name().to_string_lossy().ends_with(".tmp"))
                    .count();
                assert_eq!(left, 0, "{release}");
            });
        }
    });
}
