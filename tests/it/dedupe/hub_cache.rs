//! Real releases of huggingface_hub on a cache that was deduped: our payload survives whatever they do,
//! and their own answers stay right. Run as root this shows more: then no mode of a file protects it.

use std::fs;
use std::thread;

use crate::hub::{Hub, Repository, noise};
use crate::python::{RELEASES, program, succeeded};
use crate::sandbox::{Sandbox, finish};

const SCRIPT: &str = include_str!("hub_cache.py");

#[test]
fn caches_of_real_releases_survive_and_so_does_our_content() {
    thread::scope(|scope| {
        for strategy in ["symlink", "auto"] {
            for release in RELEASES {
                scope.spawn(move || live_with(release, strategy));
            }
        }
    });
}

fn live_with(release: &str, strategy: &str) {
    let sandbox = Sandbox::new();
    let (old, shared, new) = (noise(1, 200_000), noise(2, 300_000), noise(3, 100_000));
    let one = Repository::new("org/one")
        .file("config.json", "{}")
        .large("old.safetensors", old.clone())
        .large("model.safetensors", shared.clone())
        .commit_as("older")
        .large("old.safetensors", new.clone());
    let older = {
        // The commit that the branch names is the one before.
        let before = Repository::new("org/one");
        before.main()
    };
    let two =
        Repository::new("org/two").file("config.json", "{ }").large("model.safetensors", shared.clone());
    let commits = [older, one.main(), two.main()];
    let studio = sandbox.home().join(".lmstudio/models/publisher/name");
    fs::create_dir_all(&studio).expect("folders");
    for (name, content) in
        [("old.safetensors", &old), ("shared.safetensors", &shared), ("new.safetensors", &new)]
    {
        fs::write(studio.join(name), content).expect("a file");
    }
    let hub = Hub::with(one);
    hub.put(two);
    let mut command = program(&sandbox, release, "python3");
    command
        .env("HF_ENDPOINT", hub.endpoint())
        .args(["-c", SCRIPT, env!("CARGO_BIN_EXE_mlx-cache"), strategy])
        .args(commits);
    let outcome = finish(&mut command);
    assert_eq!(outcome.status, 0, "{release} {strategy}: {}{}", outcome.stdout, outcome.stderr);
    assert!(succeeded(outcome).contains("all of it held"));
}
