//! What `link --to hf` makes, to the eyes of the real huggingface_hub.

use std::thread;

use super::*;
use crate::hub::{Hub, Repository};
use crate::models::{COMMIT, data, place_in_hub};
use crate::python::{self, program, succeeded};
use crate::sandbox::finish;

/// What a piece of Python prints, in lines.
fn lines(sandbox: &Sandbox, release: &str, endpoint: &str, code: &str) -> Vec<String> {
    let mut command = program(sandbox, release, "python3");
    command.env("HF_ENDPOINT", endpoint).args(["-c", code]);
    succeeded(finish(&mut command)).lines().map(str::to_owned).collect()
}

#[test]
fn every_release_takes_a_linked_model_for_its_own() {
    thread::scope(|scope| {
        for release in python::RELEASES {
            scope.spawn(move || {
                let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/tiny")));
                let mut pull = sandbox.cmd(&["pull", "org/tiny", "--all-files"]);
                pull.env_remove("MLX_CACHE_OFFLINE").env("HF_ENDPOINT", hub.endpoint());
                succeeded(finish(&mut pull));
                data(&sandbox, &["link", "org/tiny", "--to", "hf", "--yes"]);
                hub.forget();
                let code = "
import huggingface_hub as h
info = h.scan_cache_dir()
print(len(info.warnings), *sorted(f'{repo.repo_id} {repo.size_on_disk}' for repo in info.repos))
print(h.snapshot_download('org/tiny', local_files_only=True))
print(h.snapshot_download('org/tiny'))
";
                let told = lines(&sandbox, release, &hub.endpoint(), code);
                let bytes = Repository::tiny("org/tiny").bytes();
                assert_eq!(told[0], format!("0 org/tiny {bytes}"), "{release}");
                assert_eq!(told[1], told[2], "{release}");
                assert!(told[1].contains("models--org--tiny/snapshots"), "{release}: {told:?}");
                assert_eq!(hub.traffic(), 0, "{release}: content was fetched again");
                if release == python::NEWEST {
                    let mut verify = program(&sandbox, release, "hf");
                    verify.env("HF_ENDPOINT", hub.endpoint()).args(["cache", "verify", "org/tiny"]);
                    succeeded(finish(&mut verify));
                }
            });
        }
    });
}

#[test]
fn a_revision_that_python_deletes_takes_no_content_with_it() {
    thread::scope(|scope| {
        for release in python::RELEASES {
            scope.spawn(move || {
                let sandbox = Sandbox::new();
                let other = COMMIT.replace("12f", "22f");
                for (fixture, commit) in [("llama_tied", COMMIT), ("llama_untied", &*other)] {
                    let from = place_in_hub(&sandbox, fixture, "models--org--tiny", commit);
                    data(&sandbox, &["add", from.to_str().expect("UTF-8"), "--copy"]);
                    fs::remove_dir_all(sandbox.home().join(".cache")).expect("gone");
                }
                for reference in ["org/tiny@12fd25f", "org/tiny@22fd25f"] {
                    data(&sandbox, &["link", reference, "--to", "hf", "--yes"]);
                }
                let scan = "
import huggingface_hub as h
info = h.scan_cache_dir()
print(len(info.warnings), *sorted(revision.commit_hash for repo in info.repos for revision in repo.revisions))
";
                let delete = format!("{scan}\ninfo.delete_revisions('{other}').execute()\n");
                let both = lines(&sandbox, release, "http://127.0.0.1:9", &delete);
                assert_eq!(both, [format!("0 {COMMIT} {other}")], "{release}");
                assert_eq!(
                    lines(&sandbox, release, "http://127.0.0.1:9", scan),
                    [format!("0 {COMMIT}")],
                    "{release}"
                );
                let checked = data(&sandbox, &["verify", "--source", "store"])["checked"].clone();
                let checked = checked.as_array().expect("a list");
                assert_eq!(checked.len(), 2, "{release}");
                assert!(checked.iter().all(|model| model["status"] == "ok"), "{release}: {checked:?}");
                // What was deleted can be shown again.
                data(&sandbox, &["link", "org/tiny@22fd25f", "--to", "hf", "--yes"]);
                let again = lines(&sandbox, release, "http://127.0.0.1:9", scan);
                assert_eq!(again, [format!("0 {COMMIT} {other}")], "{release}");
            });
        }
    });
}
