//! That the hub is one: the real clients take it for theirs.

use std::fs;

use super::{Host, Hub, Repository, noise};
use crate::python;
use crate::sandbox::{Sandbox, finish};

const TOKEN: &str = "hf_abcdefghijklmnopqrstuvwxyzabcdefgh";

#[test]
fn real_clients_download_from_it() {
    let repository = Repository::tiny("org/tiny")
        .file("1_Pooling/a name.json", "{}")
        .large("big.safetensors", noise(1, 3_000_000));
    std::thread::scope(|scope| {
        for release in python::RELEASES {
            let repository = repository.clone();
            scope.spawn(move || {
                let (sandbox, hub) = (Sandbox::new(), Hub::with(repository.clone()));
                hub.page(3);
                let folder = python::download(&sandbox, release, &hub.endpoint(), "org/tiny");
                for path in repository.paths() {
                    let found = fs::read(folder.join(&path)).expect("a file");
                    assert!(found == repository.content(&path), "{release}: {path}");
                }
                assert!(folder.ends_with(repository.main()), "{}", folder.display());
                assert!(hub.seen().iter().any(|seen| seen.host == Host::Storage && seen.sent() > 0));
            });
        }
    });
}

#[test]
fn real_clients_understand_its_refusals() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/gated").gated(TOKEN)));
    hub.put(Repository::tiny("org/private").private(TOKEN));
    hub.put(Repository::tiny("org/open"));
    let code = "
import sys, huggingface_hub as h
def told(*args, **more):
    try:
        return h.hf_hub_download(*args, **more)
    except Exception as error:
        return type(error).__name__
token = sys.argv[1]
print(told('org/gated', 'config.json'))
print(told('org/gated', 'config.json', token='hf_other'))
print(told('org/gated', 'config.json', token=token))
print(told('org/private', 'config.json'))
print(told('org/private', 'config.json', token='hf_other'))
print(told('org/private', 'config.json', token=token))
print(told('org/none', 'config.json'))
print(told('org/open', 'none.json'))
print(told('org/open', 'config.json', revision='none'))
";
    let mut command = python::program(&sandbox, python::NEWEST, "python3");
    command.env("HF_ENDPOINT", hub.endpoint()).args(["-c", code, TOKEN]);
    let told = python::succeeded(finish(&mut command));
    let told: Vec<&str> =
        told.lines().map(|line| if line.starts_with('/') { "a file" } else { line }).collect();
    assert_eq!(
        told,
        [
            "GatedRepoError",
            "GatedRepoError",
            "a file",
            "RepositoryNotFoundError",
            "RepositoryNotFoundError",
            "a file",
            "RepositoryNotFoundError",
            "RemoteEntryNotFoundError",
            "RevisionNotFoundError",
        ]
    );
    let leaked = hub
        .seen()
        .into_iter()
        .find(|seen| seen.host == Host::Storage && seen.header("authorization").is_some());
    assert!(leaked.is_none(), "{leaked:?}");
}
