use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;
use crate::error::Code;
use crate::ids::{Host, ModelName, ModelRef, Revision};
use crate::registry::{Facts, Kind, NewSnapshot, Origin};

const FACTS: Facts = Facts {
    kind: Kind::Other,
    architecture: None,
    parameters: None,
    quantization: None,
    context_length: None,
};

struct Fixture {
    folder: tempfile::TempDir,
    store: Store,
    registry: Registry,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(&folder.path().join("store"));
        let registry = store.create().expect("a store");
        Self { folder, store, registry }
    }

    /// Copies files with these contents into the store as a model.
    fn add(&mut self, name: &str, files: &[(&str, &str)]) -> NewSnapshot {
        let incoming: Vec<_> = files
            .iter()
            .enumerate()
            .map(|(at, (path, content))| {
                let source = self.folder.path().join(format!("{}-{at}", name.replace('/', "-")));
                fs::write(&source, content).expect("write");
                Incoming { path: path.parse().expect("a path"), source, bytes: content.len() as u64 }
            })
            .collect();
        let ingestion = self.store.ingest(&self.registry, &incoming, &|_| Ok(())).expect("ingest");
        let revision = Revision::of_content(ingestion.files.iter().map(|file| (&file.path, &file.digest)));
        let mut new = NewSnapshot {
            name: ModelName::parse_pair(Host::Local, name).expect("a name"),
            revision,
            origin: Origin::Copied,
            root: PathBuf::new(),
            entry: None,
            facts: FACTS,
            files: ingestion.files,
        };
        let lock = self.store.lock().expect("lock");
        self.store.register(&lock, &mut self.registry, &mut new, &[]).expect("register");
        new
    }

    fn blobs(&self) -> usize {
        walkdir::WalkDir::new(self.store.blobs())
            .into_iter()
            .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_type().is_file()))
            .count()
    }
}

#[test]
fn a_model_is_a_folder_of_relative_links_to_read_only_content() {
    let mut fixture = Fixture::new();
    let new = fixture.add("org/a", &[("model.safetensors", "weights"), ("1_Pooling/config.json", "{}")]);
    let store = &fixture.store;
    assert_eq!(new.root, store.home().join("models/local/org/a").join(new.revision.as_str()));
    assert_eq!(fs::read(new.root.join("model.safetensors")).expect("read"), b"weights");
    let link = fs::read_link(new.root.join("1_Pooling/config.json")).expect("a link");
    assert!(link.starts_with("../../../../../../blobs/sha256"), "{}", link.display());
    for file in &new.files {
        let mode = fs::metadata(store.blob(&file.digest)).expect("a blob").permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
    }
    let mode = fs::metadata(store.home()).expect("the store").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(fs::read_dir(store.incomplete()).expect("list").count(), 0);
    assert_eq!(fs::read_dir(store.locks()).expect("list").count(), 0);
}

#[test]
fn equal_content_is_kept_once_and_goes_with_its_last_user() {
    let mut fixture = Fixture::new();
    fixture.add("org/a", &[("x", "same"), ("y", "only a")]);
    fixture.add("org/b", &[("x", "same")]);
    assert_eq!(fixture.blobs(), 2);
    let Fixture { store, registry, .. } = &mut fixture;
    let [a, b] = &registry.snapshots().expect("snapshots")[..] else { panic!("two models") };

    let plan = RemovalPlan::new(registry, vec![a.clone()]).expect("a plan");
    assert_eq!((plan.bytes(), plan.shared.as_slice()), (Bytes(6), &[Bytes(4)][..]));
    assert_eq!(store.remove(registry, &plan).expect("remove"), Bytes(6));
    assert!(!a.root.exists());
    assert_eq!(fs::read(b.root.join("x")).expect("the other model"), b"same");

    let plan = RemovalPlan::new(registry, vec![b.clone()]).expect("a plan");
    assert_eq!(store.remove(registry, &plan).expect("remove"), Bytes(4));
    assert_eq!(fs::read_dir(store.models()).expect("list").count(), 0);
    assert_eq!(fixture.blobs(), 0);
}

#[test]
fn a_failed_ingestion_leaves_only_what_was_there() {
    let mut fixture = Fixture::new();
    fixture.add("org/a", &[("x", "kept")]);
    let source = |name: &str, content: &str| {
        let path = fixture.folder.path().join(name);
        fs::write(&path, content).expect("write");
        Incoming { path: name.parse().expect("a path"), source: path, bytes: content.len() as u64 }
    };
    let mut files = vec![source("k", "kept"), source("n", "new")];
    files.push(Incoming { source: fixture.folder.path().join("absent"), ..files[0].clone() });
    let error = fixture.store.ingest(&fixture.registry, &files, &|_| Ok(())).expect_err("one is absent");
    assert_eq!(error.code(), Code::FileNotFound);
    assert_eq!(fixture.blobs(), 1);
    assert_eq!(fs::read_dir(fixture.store.incomplete()).expect("list").count(), 0);
}

#[test]
fn one_path_cannot_be_a_file_and_a_folder() {
    let mut fixture = Fixture::new();
    let mut new = fixture.add("org/a", &[("x", "1"), ("y", "2")]);
    new.name = ModelName::parse_pair(Host::Local, "org/b").expect("a name");
    new.files[1].path = "x/y".parse().expect("a path");
    let lock = fixture.store.lock().expect("lock");
    let error =
        fixture.store.register(&lock, &mut fixture.registry, &mut new, &[]).expect_err("two of one name");
    assert_eq!(error.code(), Code::IntegrityFailed);
    assert!(!fixture.store.snapshot(&new.name, &new.revision).exists());
}

#[test]
fn content_that_is_gone_is_not_registered() {
    let mut fixture = Fixture::new();
    let mut new = fixture.add("org/a", &[("x", "1")]);
    fs::remove_file(fixture.store.blob(&new.files[0].digest)).expect("remove");
    let lock = fixture.store.lock().expect("lock");
    let result = fixture.store.register(&lock, &mut fixture.registry, &mut new, &[]);
    assert_eq!(result.expect_err("gone").code(), Code::Locked);
}

#[test]
fn the_registry_can_be_made_again_from_the_folders() {
    let mut fixture = Fixture::new();
    let a = fixture.add("org/a", &[("model.safetensors", "weights"), ("1_Pooling/config.json", "{}")]);
    let b = fixture.add("org/b", &[("model.gguf", "gguf")]);
    let c = fixture.add("org/c", &[("x", "incomplete soon")]);
    let d = fixture.add("org/d", &[("x", "hostile soon")]);
    let mut adopted = a.clone();
    adopted.name = ModelName::parse_pair(Host::Local, "org/adopted").expect("a name");
    adopted.origin = Origin::Folder;
    adopted.root = fixture.folder.path().to_owned();
    fixture.registry.register(&adopted, &[]).expect("register");
    fs::remove_file(fixture.store.blob(&c.files[0].digest)).expect("remove");
    fs::remove_file(d.root.join("x")).expect("remove");
    std::os::unix::fs::symlink("/etc/passwd", d.root.join("x")).expect("link");

    let rebuilt = fixture.store.rebuild(&|_| FACTS).expect("rebuild");
    assert!(rebuilt.kept.is_some_and(|kept| kept.exists()));
    assert_eq!((rebuilt.stored, rebuilt.adopted, rebuilt.adopted_complete), (2, 1, true));
    let mut skipped: Vec<_> = rebuilt.skipped.into_iter().map(|(path, _)| path).collect();
    skipped.sort();
    assert_eq!(skipped, [c.root, d.root]);

    let registry = fixture.store.registry().expect("open").expect("a registry");
    let snapshots = registry.snapshots().expect("snapshots");
    let names: Vec<_> = snapshots.iter().map(|snapshot| snapshot.name.to_string()).collect();
    assert_eq!(names, ["org/a", "org/adopted", "org/b"]);
    assert_eq!(snapshots[2].path(), b.root.join("model.gguf"));
    let digests = |files: Vec<crate::registry::FileRecord>| {
        files
            .into_iter()
            .map(|file| (file.path, file.digest, file.bytes))
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(digests(registry.files(snapshots[0].id).expect("files")), digests(a.files));
}

#[test]
fn leftovers_are_those_of_dead_processes() {
    let fixture = Fixture::new();
    let alive = crate::fs::TempFile::create_in(&fixture.store.incomplete()).expect("create");
    let dead = fixture.store.incomplete().join(".1-0.tmp");
    fs::write(&dead, "half").expect("write");
    let leftovers = fixture.store.leftovers().expect("leftovers");
    assert_eq!(leftovers, [Leftover { path: dead, bytes: Bytes(4) }]);
    assert!(alive.path().exists());
}

proptest! {
    /// Hostile or not, a name that parses names a folder below models/.
    #[test]
    fn no_reference_leads_out_of_the_store(
        text in "(ollama:|lmstudio:|hf\\.co/)?[a-zA-Z./:~\\\\%\\-_ \u{0}]{1,24}/[a-zA-Z./:~\\\\%\\-_ \u{0}]{1,24}",
        revision in "[a-z0-9./~ -]{1,12}",
    ) {
        let store = Store::at(Path::new("/store"));
        if let (Ok(ModelRef::Named { name, .. }), Ok(revision)) = (text.parse(), revision.parse::<Revision>()) {
            let folder = store.snapshot(&name, &revision);
            prop_assert!(folder.starts_with("/store/models"));
            prop_assert_eq!(folder.components().count(), 7);
            prop_assert!(folder.components().skip(1).all(|part| matches!(part, std::path::Component::Normal(_))));
        }
    }
}
