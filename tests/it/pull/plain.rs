//! Pulls without trouble.

use super::*;
use crate::hub::{Host, On, noise};

#[test]
fn a_model_is_here_as_the_hub_has_it() {
    let (sandbox, repository) =
        (Sandbox::new(), Repository::tiny("org/tiny").file("1_Pooling/config.json", "{}"));
    let hub = Hub::with(repository.clone());
    let before = surroundings(&sandbox);
    let pulled = pull_one(&sandbox, &hub, &["org/tiny"]);
    assert_eq!(surroundings(&sandbox), before);
    assert_eq!(pulled["reference"], "org/tiny");
    assert_eq!(pulled["revision"], repository.main());
    assert_eq!(number(&pulled, "bytes_total"), repository.bytes());
    assert_eq!(number(&pulled, "bytes_downloaded"), repository.bytes());
    assert_eq!(number(&pulled, "bytes_reused"), 0);
    assert_eq!(hub.traffic(), repository.bytes());
    assert!(hub.seen().iter().all(|seen| matches!(seen.method.as_str(), "GET" | "HEAD")));
    let place = sandbox.store().join("models/huggingface.co/org/tiny").join(repository.main());
    assert_eq!(folder(&pulled), place);
    assert_all(&place, &repository);

    let listed = sandbox.json(&["list"]).1["data"]["models"][0].clone();
    assert_eq!((&listed["reference"], &listed["origin"]), (&"org/tiny".into(), &"hub".into()));
    assert_eq!((&listed["architecture"], &listed["kind"]), (&"llama".into(), &"generation".into()));
    let shown = sandbox.json(&["show", "org/tiny", "--files"]).1["data"].clone();
    assert_eq!(shown["runnable"], true, "{shown}");
    for file in shown["files"].as_array().expect("a list") {
        let content = repository.content(file["path"].as_str().expect("a path"));
        assert_eq!(
            file["digest"].as_str().expect("a digest").trim_start_matches("sha256:"),
            sha256(&content),
            "{file}"
        );
    }
    let answered = sandbox.run(&["run", "org/tiny", "hello", "--max-tokens", "2"]);
    assert_eq!(answered.status, 0, "{answered:?}");
}

#[test]
fn a_second_pull_fetches_nothing() {
    let (sandbox, repository) = (Sandbox::new(), Repository::tiny("org/tiny"));
    let hub = Hub::with(repository.clone());
    let first = pull_one(&sandbox, &hub, &["org/tiny"]);
    hub.forget();
    let second = pull_one(&sandbox, &hub, &["org/tiny"]);
    assert_eq!(second["snapshot_path"], first["snapshot_path"]);
    assert_eq!(number(&second, "bytes_downloaded"), 0);
    assert_eq!(hub.traffic(), 0);
    assert!(hub.seen().len() <= 3, "{:?}", hub.seen());
}

#[test]
fn force_fetches_everything_again() {
    let (sandbox, repository) = (Sandbox::new(), Repository::tiny("org/tiny"));
    let hub = Hub::with(repository.clone());
    let first = pull_one(&sandbox, &hub, &["org/tiny"]);
    // Damage that only a look at the content shows.
    let blob = folder(&first).join("model.safetensors").canonicalize().expect("a blob");
    let content = noise(9, repository.content("model.safetensors").len());
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).expect("changed");
    fs::write(&blob, content).expect("damaged");
    hub.forget();
    let again = pull_one(&sandbox, &hub, &["org/tiny", "--force"]);
    assert_eq!(number(&again, "bytes_downloaded"), repository.bytes());
    assert_eq!(hub.traffic(), repository.bytes());
    assert_all(&folder(&again), &repository);
}

#[test]
fn what_is_gone_or_short_is_fetched_again() {
    let (sandbox, repository) = (Sandbox::new(), Repository::tiny("org/tiny"));
    let hub = Hub::with(repository.clone());
    let first = pull_one(&sandbox, &hub, &["org/tiny"]);
    let blob = folder(&first).join("model.safetensors").canonicalize().expect("a blob");
    fs::remove_file(&blob).expect("gone");
    hub.forget();
    assert_all(&folder(&pull_one(&sandbox, &hub, &["org/tiny"])), &repository);
    let size = repository.content("model.safetensors").len() as u64;
    assert_eq!(hub.traffic(), size);

    fs::remove_file(&blob).expect("gone");
    fs::write(&blob, "short").expect("written");
    assert_all(&folder(&pull_one(&sandbox, &hub, &["org/tiny"])), &repository);

    fs::remove_file(folder(&first).join("config.json")).expect("gone");
    hub.forget();
    assert_all(&folder(&pull_one(&sandbox, &hub, &["org/tiny"])), &repository);
    assert_eq!(hub.traffic(), 0, "only a link was missing");
}

#[test]
fn equal_files_are_fetched_once() {
    let content = noise(4, 900_000);
    let repository = Repository::tiny("org/tiny")
        .large("a.safetensors", content.clone())
        .large("b.safetensors", content.clone())
        .file("x/config.json", "{\"a\": 1}")
        .file("y/config.json", "{\"a\": 1}");
    let (sandbox, hub) = (Sandbox::new(), Hub::with(repository.clone()));
    let pulled = pull_one(&sandbox, &hub, &["org/tiny", "--all-files"]);
    assert_all(&folder(&pulled), &repository);
    assert_eq!(hub.traffic(), repository.bytes() - content.len() as u64 - 8);
    assert_eq!(number(&pulled, "bytes_total"), hub.traffic());
    assert_eq!(stored(&sandbox), hub.traffic());
}

#[test]
fn two_thousand_small_files_in_pages() {
    let mut repository = Repository::tiny("org/tiny");
    for at in 0..2000 {
        repository =
            repository.file(&format!("experts/{}/{at}.json", at % 20), format!("{{\"expert\": {at}}}"));
    }
    let (sandbox, hub) = (Sandbox::new(), Hub::with(repository.clone()));
    hub.page(300);
    let pulled = pull_one(&sandbox, &hub, &["org/tiny", "--all-files"]);
    assert_all(&folder(&pulled), &repository);
    assert_eq!(number(&pulled, "files"), repository.paths().len() as u64);
    assert_eq!(hub.traffic(), repository.bytes());
    assert!(hub.requests(&On::Tree) >= 7);
}

#[test]
fn revisions_stand_beside_each_other_and_share_what_is_the_same() {
    let repository =
        Repository::tiny("org/tiny").commit_as("v1").file("config.json", "{}").commit_as("refs/pr/3");
    let first = Repository::tiny("org/tiny");
    let (sandbox, hub) = (Sandbox::new(), Hub::with(repository.clone()));
    let old = pull_one(&sandbox, &hub, &["org/tiny@v1"]);
    assert_all(&folder(&old), &first);
    assert_ne!(old["revision"], repository.main());
    hub.forget();
    let new = pull_one(&sandbox, &hub, &["org/tiny"]);
    assert_eq!(hub.traffic(), 2, "only the new file");
    assert_eq!(number(&new, "bytes_reused"), repository.bytes() - 2);
    assert_all(&folder(&new), &repository);
    let other = pull_one(&sandbox, &hub, &["org/tiny", "--revision", "refs/pr/3"]);
    assert_ne!(other["revision"], new["revision"]);
    // By the commit, whole or in part.
    let commit = old["revision"].as_str().expect("a commit");
    for reference in [format!("org/tiny@{commit}"), format!("org/tiny@{}", &commit[..10])] {
        assert_eq!(pull_one(&sandbox, &hub, &[&reference])["revision"], commit);
    }
    let listed = sandbox.json(&["list"]).1["data"]["models"].as_array().expect("a list").len();
    assert_eq!(listed, 3);
}

#[test]
fn addresses_are_names() {
    let repository = Repository::tiny("org/tiny").commit_as("v1");
    let hub = Hub::with(repository.clone());
    for (reference, is_main) in [
        ("hf.co/org/tiny", true),
        ("https://huggingface.co/org/tiny", true),
        ("https://huggingface.co/org/tiny/tree/v1", false),
        ("https://huggingface.co/org/tiny/tree/main", true),
    ] {
        let sandbox = Sandbox::new();
        let pulled = pull_one(&sandbox, &hub, &[reference]);
        assert_eq!(pulled["revision"] == repository.main(), is_main, "{reference}: {pulled}");
    }
}

#[test]
fn several_are_pulled_in_the_order_they_are_named() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/one")));
    hub.put(Repository::tiny("org/two").file("generation_config.json", "{}"));
    hub.put(Repository::tiny("org/three"));
    let pulled = pull(&sandbox, &hub, &["org/three", "org/one", "org/two"]);
    let names: Vec<_> = pulled.iter().filter_map(|model| model["reference"].as_str()).collect();
    assert_eq!(names, ["org/three", "org/one", "org/two"]);
    // The same content under three names is fetched once.
    assert_eq!(hub.traffic(), Repository::tiny("org/one").bytes() + 2);

    let sandbox = Sandbox::new();
    let error = refused(&sandbox, &hub, &["org/one", "org/none", "org/two"], &["MODEL_NOT_FOUND"]);
    assert!(error["message"].as_str().expect("a text").contains("org/none"), "{error}");
}

#[test]
fn files_in_xet_storage_come_over_plain_http() {
    let repository = Repository::tiny("org/tiny").in_xet();
    let (sandbox, hub) = (Sandbox::new(), Hub::with(repository.clone()));
    let pulled = pull_one(&sandbox, &hub, &["org/tiny"]);
    assert_all(&folder(&pulled), &repository);
    assert!(hub.seen().iter().any(|seen| seen.host == Host::Storage));
}

#[test]
fn names_with_spaces_and_signs_are_asked_for_as_they_are() {
    let repository = Repository::tiny("org/tiny")
        .file("a folder/größe #1?.json", "{}")
        .file("100%.json", "{\"p\": 100}")
        .file("a+b&c=d;e.json", "{\"s\": 1}")
        .large("weights (v2) %41.safetensors", noise(5, 10_000));
    let (sandbox, hub) = (Sandbox::new(), Hub::with(repository.clone()));
    let pulled = pull_one(&sandbox, &hub, &["org/tiny", "--all-files"]);
    assert_all(&folder(&pulled), &repository);
}

#[test]
fn jobs_bound_what_happens_at_once() {
    let mut repository = Repository::tiny("org/tiny");
    for at in 0..6 {
        repository = repository.large(&format!("model-0000{at}-of-00006.safetensors"), noise(at, 300_000));
    }
    for jobs in ["1", "16"] {
        let (sandbox, hub) = (Sandbox::new(), Hub::with(repository.clone()));
        let pulled = pull_one(&sandbox, &hub, &["org/tiny", "--jobs", jobs]);
        assert_all(&folder(&pulled), &repository);
    }
    let (sandbox, hub) = (Sandbox::new(), Hub::with(repository));
    for jobs in ["0", "-1", "many", "100000"] {
        refused(&sandbox, &hub, &["org/tiny", &format!("--jobs={jobs}")], &["INVALID_REQUEST"]);
    }
}

#[test]
fn a_repository_without_files_is_told() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::new("org/empty")));
    hub.put(Repository::new("org/words").file("README.md", "hello"));
    for name in ["org/empty", "org/words"] {
        let error =
            refused(&sandbox, &hub, &[name], &["FILE_NOT_FOUND", "MODEL_UNSUPPORTED", "MODEL_NOT_FOUND"]);
        assert!(error["message"].as_str().expect("a text").contains(name), "{error}");
    }
}
