use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;

/// SHA-256 and git's SHA-1 of nothing: any digest would do.
const SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const SHA1: &str = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
const COMMIT: &str = "12fd25f77366fa6b3b4b768ec3050bf629380bac";

fn write(root: &Path, path: &str, bytes: usize) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
    fs::write(path, vec![0; bytes]).expect("file");
}

fn link(root: &Path, path: &str, target: impl AsRef<Path>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
    symlink(target, path).expect("link");
}

fn manifest(root: &Path, place: &str, digests: &[&str]) {
    let layers: Vec<_> = digests
        .iter()
        .map(|digest| {
            serde_json::json!({"mediaType": "application/vnd.ollama.image.model",
                               "digest": format!("sha256:{digest}"), "size": 5})
        })
        .collect();
    write(root, place, 0);
    let text = serde_json::json!({"schemaVersion": 2, "layers": layers}).to_string();
    fs::write(root.join(place), text).expect("a manifest");
}

fn look(source: &dyn Source) -> Scan {
    let scan = source.scan(&Cancel::default()).expect("a scan");
    // Every content that a file has is among the payloads.
    for file in scan.models.iter().flat_map(|model| &model.files) {
        assert!(file.content.as_ref().map_or(true, |path| scan.payload(path).is_some()), "{file:?}");
    }
    scan
}

/// A cache and a store beside it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        fs::create_dir(place.root()).expect("a folder");
        fs::create_dir(place.store()).expect("a folder");
        place
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    fn hf(&self) -> Scan {
        look(&HuggingFace::at(&self.root(), &self.store()))
    }

    fn ollama(&self) -> Scan {
        look(&Ollama::at(&self.root(), &self.store()))
    }

    fn lm_studio(&self) -> Scan {
        look(&LmStudio::at(&self.root(), &self.store()))
    }

    fn folder(&self) -> Scan {
        look(folder(&self.root(), &self.store()).as_ref())
    }

    /// Paths below the root, and whether they may be replaced.
    fn payloads(&self, scan: &Scan) -> Vec<(String, bool)> {
        let below = |path: &Path| path.strip_prefix(self.root()).expect("below").display().to_string();
        scan.payloads.iter().map(|one| (below(&one.path), one.replaceable.is_ok())).collect()
    }

    fn reason(&self, scan: &Scan, path: &str) -> String {
        let path = self.root().join(path);
        let passed = scan.passed_over.iter().find(|passed| passed.path == path);
        passed.map(|passed| passed.reason.to_string()).unwrap_or_default()
    }
}

/// Path and what it leads to, of the first model.
fn files(scan: &Scan) -> Vec<(String, Result<(), Fault>)> {
    let files = scan.models.first().map(|model| &model.files).into_iter().flatten();
    files.map(|file| (file.path.to_string(), file.content.clone().map(|_| ()))).collect()
}

#[test]
fn two_revisions_share_blobs_and_know_their_checksums() {
    let place = Place::new();
    let (root, repository) = (place.root(), "models--org--name");
    write(&root, &format!("{repository}/blobs/{SHA256}"), 100);
    write(&root, &format!("{repository}/blobs/{SHA1}"), 7);
    write(&root, &format!("{repository}/blobs/{SHA256}.1234abcd.incomplete"), 9);
    write(&root, &format!("{repository}/refs/main"), 40);
    write(&root, &format!("{repository}/.no_exist/{COMMIT}/a"), 0);
    write(&root, &format!(".locks/{repository}/{SHA1}.lock"), 0);
    write(&root, "CACHEDIR.TAG", 4);
    write(&root, "datasets--org--data/blobs/cc", 5000);
    for commit in [COMMIT, "second"] {
        let folder = format!("{repository}/snapshots/{commit}");
        link(&root, &format!("{folder}/model.safetensors"), format!("../../blobs/{SHA256}"));
        link(&root, &format!("{folder}/1_Pooling/config.json"), format!("../../../blobs/{SHA1}"));
    }
    let tree = serde_json::json!({"format_version": 1, "files": {
        "model.safetensors": {"size": 134, "blob_id": "0", "lfs_sha256": SHA256, "lfs_size": 100},
        "1_Pooling/config.json": {"size": 7, "blob_id": SHA1}}});
    write(&root, &format!("{repository}/trees/{COMMIT}.json"), 0);
    fs::write(root.join(format!("{repository}/trees/{COMMIT}.json")), tree.to_string()).expect("written");

    let scan = place.hf();
    let names: Vec<_> = scan.models.iter().map(|model| model.name.to_string()).collect();
    assert_eq!(names, ["org/name", "org/name"]);
    assert_eq!(
        files(&scan),
        [("1_Pooling/config.json".to_owned(), Ok(())), ("model.safetensors".to_owned(), Ok(()))]
    );
    let expected = scan.models[0].files[1].expected;
    assert_eq!(expected, Expected { checksum: Checksum::of_name(SHA256), bytes: Some(100) });
    assert_eq!(scan.models[0].files[0].expected.checksum, Checksum::of_name(SHA1));
    // Without a listing the names still tell.
    assert_eq!(
        scan.models[1].files[1].expected,
        Expected { checksum: Checksum::of_name(SHA256), bytes: None }
    );
    assert_eq!(scan.payloads.iter().filter_map(|one| one.claimed).count(), 2);
    let blob = |name: &str| (format!("{repository}/blobs/{name}"), true);
    assert_eq!(place.payloads(&scan), [blob(SHA256), blob(SHA1)]);
    let passed: Vec<_> =
        scan.passed_over.iter().map(|passed| passed.path.file_name().expect("a name")).collect();
    assert_eq!(passed, ["datasets--org--data", &format!("{SHA256}.1234abcd.incomplete")]);
    assert_eq!(scan.survey(), Survey { models: 1, bytes: 107, unreadable: 0 });
}

#[test]
fn links_of_a_hub_cache_lead_to_content_or_have_a_fault() {
    let place = Place::new();
    let (root, snapshot) = (place.root(), "models--org--name/snapshots/c1");
    let blobs = "models--org--name/blobs";
    let kept = place.store().join(format!("links/hf/7/{SHA256}"));
    write(&place.store(), &format!("links/hf/7/{SHA256}"), 100);
    write(place.0.path(), "secret", 3);
    write(&root, &format!("{blobs}/plain"), 1);
    write(&root, "models--org--other/blobs/other", 2);
    link(&root, &format!("{blobs}/{SHA256}"), &kept);
    link(&root, &format!("{blobs}/out"), place.0.path().join("secret"));
    link(&root, &format!("{blobs}/circle"), "circle");
    for (name, target) in [
        ("a-linked", &*format!("../../blobs/{SHA256}")),
        ("b-gone", "../../blobs/gone"),
        ("c-out", "../../blobs/out"),
        ("d-circle", "../../blobs/circle"),
        ("e-escaping", "../../../../secret"),
        ("f-folder", "../../blobs"),
        ("g-other", "../../../models--org--other/blobs/other"),
        ("h-absolute", root.join(blobs).join("plain").to_str().expect("UTF-8")),
        ("i-detour", "../../snapshots/../blobs/plain"),
        ("j-passwd", "/etc/passwd"),
    ] {
        link(&root, &format!("{snapshot}/{name}"), target);
    }
    write(&root, &format!("{snapshot}/k-file"), 4);
    link(&root, &format!("{snapshot}/l-straight"), &kept);

    let scan = place.hf();
    let circle = Err(Fault::Unreadable("the link goes round in a circle".to_owned()));
    let name = |name: &str| name.to_owned();
    assert_eq!(
        files(&scan),
        [
            (name("a-linked"), Ok(())),
            (name("b-gone"), Err(Fault::Dangling(root.join(blobs).join("gone")))),
            (name("c-out"), Err(Fault::Escaping(place.0.path().join("secret")))),
            (name("d-circle"), circle),
            (name("e-escaping"), Err(Fault::Escaping("../../../../secret".into()))),
            (name("f-folder"), Err(Fault::NotAFile)),
            (name("g-other"), Ok(())),
            (name("h-absolute"), Ok(())),
            (name("i-detour"), Ok(())),
            (name("j-passwd"), Err(Fault::Escaping("/etc/passwd".into()))),
            (name("k-file"), Ok(())),
            (name("l-straight"), Ok(())),
        ]
    );
    let linked = scan.payload(&root.join(blobs).join(SHA256)).expect("a payload");
    assert_eq!((linked.linked_to.as_deref(), linked.entry.stamp.bytes), (Some(kept.as_path()), 100));
    assert_eq!((linked.replaceable, linked.claimed), (Ok(()), Checksum::of_name(SHA256)));
    for entry in ["k-file", "l-straight"] {
        let payload = scan.payload(&root.join(snapshot).join(entry)).expect("a payload");
        assert!(payload.replaceable.is_err(), "{entry}: tools delete through snapshots");
    }
    assert!(place.reason(&scan, &format!("{blobs}/out")).contains("out of the cache"));
}

#[test]
fn shared_blobs_count_once_and_stay_regular_files() {
    let place = Place::new();
    let root = place.root();
    write(&root, "blobs/.huggingface-shared-blobs", 2);
    write(&root, &format!("blobs/ab/{SHA256}"), 50);
    write(&root, &format!("blobs/ab/{SHA256}.refs"), 60);
    write(&root, &format!("blobs/ab/{SHA256}.lock"), 0);
    for repository in ["models--org--one", "models--org--two"] {
        link(&root, &format!("{repository}/blobs/{SHA1}"), format!("../../blobs/ab/{SHA256}"));
        link(&root, &format!("{repository}/snapshots/c/model.gguf"), format!("../../blobs/{SHA1}"));
    }
    let scan = place.hf();
    assert_eq!(place.payloads(&scan), [(format!("blobs/ab/{SHA256}"), false)]);
    // Its own name is a hash of another kind.
    assert_eq!(scan.payloads[0].claimed, Checksum::of_name(SHA1));
    assert_eq!(files(&scan), [("model.gguf".to_owned(), Ok(()))]);
    assert_eq!(scan.survey(), Survey { models: 2, bytes: 50, unreadable: 0 });
    // Without the marker it is somebody's folder.
    fs::remove_file(root.join("blobs/.huggingface-shared-blobs")).expect("gone");
    assert!(place.hf().payloads.is_empty());
}

#[test]
fn names_that_no_model_has_are_told() {
    let place = Place::new();
    let root = place.root();
    for repository in ["models--..--x", "models--a--b--c", "models--", "models--a--b c"] {
        write(&root, &format!("{repository}/snapshots/c/x"), 1);
        assert!(
            place.reason(&place.hf(), &format!("{repository}/snapshots/c")).contains("name"),
            "{repository}"
        );
    }
    write(&root, "models--gpt2/snapshots/c/x", 1);
    let odd = root.join("models--gpt2/snapshots/c").join(std::ffi::OsStr::from_bytes(b"\xff\n.gguf"));
    fs::write(&odd, "x").expect("written");
    link(&root, "models--org--linked", place.store());
    let scan = place.hf();
    assert_eq!(scan.models.len(), 1);
    assert_eq!(scan.models[0].name.to_string(), "local/gpt2");
    assert!(scan.passed_over.iter().any(|passed| passed.path == odd));
    assert!(place.reason(&scan, "models--org--linked").contains("link"));
}

#[test]
fn ollama_models_have_their_layers_as_files() {
    let place = Place::new();
    let root = place.root();
    let other = SHA256.replace('e', "f");
    write(&root, &format!("blobs/sha256-{SHA256}"), 5);
    write(&root, &format!("blobs/sha256-{SHA256}-partial-0"), 5);
    write(&root, "blobs/notes.txt", 5);
    manifest(&root, "manifests/registry.ollama.ai/library/smollm2/135m", &[SHA256, &other]);
    manifest(&root, "manifests/hf.co/org/name/Q4_0", &[SHA256]);
    manifest(&root, "manifests/registry.ollama.ai/library/bad/up", &["../../../etc/passwd"]);
    manifest(&root, "manifests/registry.ollama.ai/library/bad/na me", &[SHA256]);
    manifest(&root, "manifests/registry.ollama.ai/library/deep/er/tag", &[SHA256]);
    link(&root, "manifests/registry.ollama.ai/library/smollm2/linked", "135m");
    let scan = place.ollama();
    let names: Vec<_> = scan.models.iter().map(|model| model.name.to_string()).collect();
    assert_eq!(names, ["ollama:hf.co/org/name:Q4_0", "ollama:smollm2:135m"]);
    assert_eq!(scan.models[1].root, root.join("blobs"));
    let found: Vec<_> =
        scan.models[1].files.iter().map(|file| (file.path.as_str(), file.content.is_ok())).collect();
    assert_eq!(found, [("model-2.gguf", false), ("model.gguf", true)]);
    assert_eq!(
        scan.models[1].files[1].expected,
        Expected { checksum: Checksum::of_name(SHA256), bytes: Some(5) }
    );
    assert_eq!(place.payloads(&scan), [(format!("blobs/sha256-{SHA256}"), true)]);
    for (path, reason) in [
        (&*format!("blobs/sha256-{SHA256}-partial-0"), "not complete"),
        ("blobs/notes.txt", "no name"),
        ("manifests/registry.ollama.ai/library/bad/up", "SHA-256"),
        ("manifests/registry.ollama.ai/library/bad/na me", "no name"),
        ("manifests/registry.ollama.ai/library/deep/er", "too deep"),
        ("manifests/registry.ollama.ai/library/smollm2/linked", "a link"),
    ] {
        assert!(place.reason(&scan, path).contains(reason), "{path}: {:?}", place.reason(&scan, path));
    }
}

#[test]
fn lm_studio_has_a_model_for_each_folder_with_weights() {
    let place = Place::new();
    let root = place.root();
    write(&root, "publisher/one/a.gguf", 100);
    fs::hard_link(root.join("publisher/one/a.gguf"), root.join("publisher/one/b.gguf")).expect("hard link");
    write(&root, "publisher/one/config.json", 5);
    write(&root, "publisher/one/downloading_c.gguf.part", 5);
    write(&root, "publisher/two/sub/model.safetensors", 1);
    write(&root, "publisher/notes/readme.md", 5);
    link(&root, "publisher/one/c.gguf", "a.gguf");
    link(&root, "publisher/one/d.gguf", "../../../secret.gguf");
    link(&root, "linked", place.store());
    write(place.0.path(), "secret.gguf", 1);
    let scan = place.lm_studio();
    let names: Vec<_> = scan.models.iter().map(|model| model.name.to_string()).collect();
    assert_eq!(names, ["lmstudio:publisher/one", "lmstudio:publisher/two-sub"]);
    let found: Vec<_> = files(&scan).into_iter().map(|(path, content)| (path, content.is_ok())).collect();
    let expected =
        [("a.gguf", true), ("b.gguf", true), ("c.gguf", true), ("config.json", true), ("d.gguf", false)];
    assert_eq!(found, expected.map(|(path, ok)| (path.to_owned(), ok)));
    let payloads = [
        ("publisher/notes/readme.md", false),
        ("publisher/one/a.gguf", true),
        ("publisher/one/b.gguf", true),
        ("publisher/one/config.json", false),
        ("publisher/two/sub/model.safetensors", true),
    ];
    assert_eq!(place.payloads(&scan), payloads.map(|(path, own)| (path.to_owned(), own)));
    assert_eq!(scan.survey(), Survey { models: 2, bytes: 111, unreadable: 0 });
}

#[test]
fn a_folder_keeps_the_rules_of_the_cache_that_it_is_or_holds() {
    let place = Place::new();
    let root = place.root();
    write(&root, "model/tokenizer.json", 3);
    write(&root, "model/model.safetensors", 3);
    write(&root, "model/1_Pooling/config.json", 3);
    write(&root, ".hidden/model.safetensors", 3);
    write(&root, "deeper/models--a--b/snapshots/c/model.safetensors", 3);
    link(&root, "round", ".");
    let scan = place.folder();
    assert_eq!(scan.models.len(), 1);
    assert_eq!(scan.models[0].name.to_string(), "local/model");
    assert_eq!(files(&scan).len(), 3);
    let replaceable: Vec<_> = place.payloads(&scan).into_iter().map(|(_, replaceable)| replaceable).collect();
    assert_eq!(replaceable, [false, true, true]);
    assert!(place.reason(&scan, "deeper/models--a--b").contains("Hugging Face"));
    assert!(place.reason(&scan, ".hidden").contains("hidden"));

    let store = place.store();
    let named = |path: &Path| folder(path, &store);
    let snapshot = root.join("deeper/models--a--b/snapshots/c");
    assert!(look(named(&snapshot).as_ref()).payloads.iter().all(|one| one.replaceable.is_err()));
    assert_eq!(named(&root.join("deeper")).name(), "hf");
    write(&root, "o/blobs/x", 0);
    write(&root, "o/manifests/x", 0);
    assert_eq!(named(&root.join("o")).name(), "ollama");
    // The store is no foreign folder, wherever it is.
    write(&store, "blobs/model.gguf", 1);
    assert!(named(&store.join("blobs")).scan(&Cancel::default()).is_err());
    let around = look(named(place.0.path()).as_ref());
    assert!(around.payloads.iter().all(|one| !one.path.starts_with(&store)));
}

#[test]
fn what_cannot_be_read_is_told_and_an_interrupted_scan_ends() {
    let place = Place::new();
    let root = place.root();
    for number in 0..2000 {
        write(&root, &format!("publisher/many/{number}.gguf"), 1);
    }
    let scan = place.lm_studio();
    assert_eq!((scan.payloads.len(), files(&scan).len()), (2000, 2000));
    let cancel = Cancel::default();
    cancel.set();
    assert!(LmStudio::at(&root, &place.store()).scan(&cancel).is_err());
    fs::set_permissions(root.join("publisher/many"), fs::Permissions::from_mode(0o000)).expect("chmod");
    // Root may read everything.
    let readable = root.join("publisher/many").read_dir().is_ok();
    assert_eq!(place.lm_studio().survey().unreadable, u64::from(!readable));
    fs::set_permissions(root.join("publisher/many"), fs::Permissions::from_mode(0o700)).expect("chmod");
}

#[test]
fn only_what_exists_is_present() {
    let home = tempfile::tempdir().expect("folder");
    let at = |name: &str| home.path().join(name);
    let locations =
        Locations { hugging_face: at("hub"), ollama: at("ollama"), lm_studio: at("lm"), store: at("store") };
    let own = |sources: Vec<Box<dyn Source>>| {
        sources
            .iter()
            .filter(|found| found.root().starts_with(home.path()))
            .map(|found| found.name())
            .collect::<Vec<_>>()
    };
    assert!(own(present(&locations)).is_empty());
    fs::create_dir(at("lm")).expect("folder");
    let found = present(&locations);
    assert_eq!(own(present(&locations)), ["lmstudio"]);
    assert!(found.iter().all(|source| source.root() != at("lm") || source.is_own()));
}
