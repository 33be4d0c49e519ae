use super::*;
use crate::fs::FileStamp;
use crate::ids::{Bytes, Digest, Host, ModelName, SnapshotPath};

fn path(text: &str) -> SnapshotPath {
    text.parse().expect("a path")
}

fn digest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

fn stamp(inode: u64) -> FileStamp {
    FileStamp { device: u64::MAX, inode, bytes: 10, modified_ns: -5, changed_ns: i64::MAX }
}

/// A snapshot of files `f0`, `f1`… with these contents, ten bytes each.
fn model(home: &Path, name: &str, origin: Origin, contents: &[u8]) -> NewSnapshot {
    let files: Vec<_> = contents
        .iter()
        .enumerate()
        .map(|(at, &byte)| FileRecord {
            path: path(&format!("f{at}")),
            digest: digest(byte),
            bytes: 10,
            stamp: Some(stamp(byte.into())),
        })
        .collect();
    NewSnapshot {
        name: ModelName::parse_pair(Host::Local, name).expect("a name"),
        revision: crate::ids::Revision::of_content(files.iter().map(|file| (&file.path, &file.digest))),
        origin,
        root: if origin.is_stored() { home.join("models/x") } else { "/elsewhere/x".into() },
        entry: Some(path("f0")),
        facts: Facts {
            kind: Kind::Generation,
            architecture: Some("llama".to_owned()),
            parameters: Some(135_000_000),
            quantization: None,
            context_length: Some(8192),
        },
        files,
    }
}

fn new_registry() -> (tempfile::TempDir, Registry) {
    let home = tempfile::tempdir().expect("a folder");
    let registry = Registry::create(home.path()).expect("a registry");
    (home, registry)
}

#[test]
fn nothing_is_made_by_looking() {
    let home = tempfile::tempdir().expect("a folder");
    assert!(Registry::open(home.path()).expect("no error").is_none());
    assert!(Registry::open(&home.path().join("absent")).expect("no error").is_none());
    assert_eq!(fs::read_dir(home.path()).expect("list").count(), 0);
}

#[test]
fn what_is_registered_is_read_back() {
    let (home, mut registry) = new_registry();
    let stored = model(home.path(), "org/stored", Origin::Copied, &[1, 2]);
    let adopted = model(home.path(), "org/adopted", Origin::Folder, &[1]);
    registry.register(&stored, &[]).expect("register");
    registry.register(&adopted, &[]).expect("register");
    drop(registry);

    let registry = Registry::open(home.path()).expect("open").expect("a registry");
    let snapshots = registry.snapshots().expect("snapshots");
    assert_eq!(
        snapshots.iter().map(|s| s.name.to_string()).collect::<Vec<_>>(),
        ["org/adopted", "org/stored"]
    );
    for (snapshot, new) in snapshots.iter().zip([&adopted, &stored]) {
        assert_eq!(snapshot.revision, new.revision);
        assert_eq!(snapshot.origin, new.origin);
        assert_eq!(snapshot.root, new.root);
        assert_eq!(snapshot.facts, new.facts);
        assert_eq!(snapshot.path(), new.root.join("f0"));
        assert_eq!(snapshot.bytes, Bytes(10 * new.files.len() as u64));
        assert_eq!(registry.files(snapshot.id).expect("files"), new.files);
    }
    let counts = registry.counts().expect("counts");
    assert_eq!(counts, Counts { models: 2, snapshots: 2, blobs: 2, blob_bytes: Bytes(20) });
    assert!(registry.problems().expect("check").is_empty());
}

#[test]
fn registering_again_replaces_and_letters_of_either_case_are_one_name() {
    let (home, mut registry) = new_registry();
    registry.register(&model(home.path(), "org/a", Origin::Copied, &[1]), &[]).expect("register");
    registry.register(&model(home.path(), "ORG/A", Origin::Copied, &[1]), &[]).expect("again");
    let first = registry.snapshots().expect("snapshots");
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].name.to_string(), "org/a");
    let asked = ModelName::parse_pair(Host::HuggingFace, "Org/a").expect("a name");
    assert_eq!(registry.known_name(&asked).expect("look"), Some(first[0].name.clone()));
    let other = model(home.path(), "org/a", Origin::Copied, &[2]);
    registry.register(&other, &[]).expect("another revision");
    assert_eq!(registry.snapshots().expect("snapshots").len(), 2);
    registry.register(&other, &[first[0].id]).expect("in place of the first");
    assert_eq!(registry.snapshots().expect("snapshots").len(), 1);
}

#[test]
fn a_file_that_did_not_change_needs_no_second_hash() {
    let (home, mut registry) = new_registry();
    registry.register(&model(home.path(), "org/a", Origin::Folder, &[7]), &[]).expect("register");
    assert_eq!(registry.remembered_digest(&stamp(7)).expect("look"), Some(digest(7)));
    for changed in [
        FileStamp { device: 1, ..stamp(7) },
        FileStamp { inode: 8, ..stamp(7) },
        FileStamp { bytes: 11, ..stamp(7) },
        FileStamp { modified_ns: 0, ..stamp(7) },
        FileStamp { changed_ns: 0, ..stamp(7) },
    ] {
        assert_eq!(registry.remembered_digest(&changed).expect("look"), None, "{changed:?}");
    }
}

#[test]
fn removal_frees_what_nothing_else_uses() {
    let (home, mut registry) = new_registry();
    registry.register(&model(home.path(), "org/a", Origin::Copied, &[1, 2]), &[]).expect("register");
    registry.register(&model(home.path(), "org/b", Origin::Copied, &[2, 3]), &[]).expect("register");
    // The same content outside the store does not need the blob.
    registry.register(&model(home.path(), "org/c", Origin::Folder, &[1]), &[]).expect("register");
    let ids: Vec<_> = registry.snapshots().expect("snapshots").iter().map(|s| s.id).collect();
    let expected = vec![(digest(1), Bytes(10))];
    assert_eq!(registry.blobs_only_of(&ids[..1]).expect("plan"), expected);
    assert_eq!(registry.blobs_only_of(&ids[2..]).expect("plan"), []);
    assert_eq!(registry.remove(&ids[..1]).expect("remove"), expected);
    assert_eq!(registry.unused(&[digest(1), digest(2)]).expect("unused"), [digest(1)]);
    let counts = registry.counts().expect("counts");
    assert_eq!((counts.models, counts.blobs), (2, 2));
    assert_eq!(registry.remove(&ids[1..]).expect("remove"), [(digest(2), Bytes(10)), (digest(3), Bytes(10))]);
    assert_eq!(registry.counts().expect("counts"), Counts::default());
}

#[test]
fn sessions_say_when_a_model_was_last_used() {
    let (home, mut registry) = new_registry();
    registry.register(&model(home.path(), "org/a", Origin::Folder, &[1]), &[]).expect("register");
    let id = registry.snapshots().expect("snapshots")[0].id;
    let mut session = NewSession {
        snapshot: Some(id),
        reference: "org/a",
        command: "run",
        started_at: jiff::Timestamp::from_second(1_000).expect("a time"),
        prompt_tokens: 3,
        cached_tokens: 0,
        generated_tokens: 4,
        load_s: 0.1,
        ttft_s: 0.2,
        total_s: 0.3,
    };
    registry.record_session(&session).expect("record");
    session.started_at = jiff::Timestamp::from_second(500).expect("a time");
    registry.record_session(&session).expect("an older one");
    session.snapshot = None;
    registry.record_session(&session).expect("of a model that is not registered");
    let last = registry.snapshots().expect("snapshots")[0].last_used;
    assert_eq!(last.map(jiff::Timestamp::as_second), Some(1_000));
}

#[test]
fn a_newer_schema_is_refused_by_name_and_nothing_changes() {
    let (home, registry) = new_registry();
    let statements = "PRAGMA user_version = 99; UPDATE meta SET value = '7.8.9' WHERE key = 'written_by'";
    registry.connection.execute_batch(statements).expect("update");
    drop(registry);
    let file = home.path().join(FILE_NAME);
    let before = fs::read(&file).expect("read");
    for result in [Registry::open(home.path()).map(|_| ()), Registry::create(home.path()).map(|_| ())] {
        let error = result.expect_err("newer");
        assert_eq!(error.code(), Code::InvalidRequest);
        assert!(error.message().contains("mlx-cache 7.8.9"), "{error}");
    }
    assert_eq!(fs::read(&file).expect("read"), before);
}

#[test]
fn migrations_run_in_order_after_a_copy() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join(FILE_NAME);
    let steps = [
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT); CREATE TABLE t (a); INSERT INTO t VALUES (1)",
        "ALTER TABLE t ADD COLUMN b; UPDATE t SET b = a + 1",
        "UPDATE t SET b = b * 10",
    ];
    let mut connection = Connection::open(&path).expect("open");
    schema::migrate(&mut connection, &path, 0, &steps[..1]).expect("from nothing");
    assert!(!home.path().join("registry.db.bak-0").exists(), "there was nothing to copy");
    schema::migrate(&mut connection, &path, 1, &steps).expect("two steps");
    let value: i64 = connection.query_row("SELECT b FROM t", [], |row| row.get(0)).expect("b");
    assert_eq!(value, 20);
    let version: u32 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).expect("version");
    assert_eq!(version, 3);

    let copy = Connection::open(home.path().join("registry.db.bak-1")).expect("the copy");
    assert!(copy.prepare("SELECT b FROM t").is_err(), "the copy has the old schema");
    let value: i64 = copy.query_row("SELECT a FROM t", [], |row| row.get(0)).expect("a");
    assert_eq!(value, 1);
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join(FILE_NAME);
    let first = "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT); CREATE TABLE t (a)";
    let mut connection = Connection::open(&path).expect("open");
    schema::migrate(&mut connection, &path, 0, &[first]).expect("from nothing");
    let broken = [first, "INSERT INTO t VALUES (1); INSERT INTO absent VALUES (1)"];
    assert!(schema::migrate(&mut connection, &path, 1, &broken).is_err());
    let rows: i64 = connection.query_row("SELECT COUNT(*) FROM t", [], |row| row.get(0)).expect("count");
    assert_eq!(rows, 0);
}

fn link(home: &Path, path: &str, byte: u8, strategy: LinkStrategy) -> NewLink {
    NewLink {
        source: "hf".to_owned(),
        root: home.join("hub"),
        path: home.join("hub").join(path),
        digest: digest(byte),
        bytes: 10,
        strategy,
        original: Some(Original {
            stamp: stamp(byte.into()),
            mode: 0o640,
            attributes: vec![("user.a".to_owned(), vec![0, 255])],
        }),
        kept: Some(Identity { device: u64::MAX, inode: 5, modified_ns: -1 }),
    }
}

#[test]
fn a_link_goes_from_planned_to_undone() {
    let (home, mut registry) = new_registry();
    let new = link(home.path(), "blobs/a", 1, LinkStrategy::Symlink);
    let names = |id: i64| {
        (Some(home.path().join(format!("links/hf/{id}/x"))), Some(home.path().join("links/staged/1")))
    };
    let planned = registry.plan_link(new.clone(), names).expect("plan");
    assert_eq!(planned.state, LinkState::Planned);
    assert_eq!(registry.unfinished_links().expect("links"), std::slice::from_ref(&planned));
    assert!(registry.plan_link(new.clone(), names).is_err(), "one path has one link");

    registry.set_link_state(planned.id, LinkState::Staged, None).expect("staged");
    registry.set_link_state(planned.id, LinkState::Done, Some(stamp(9))).expect("done");
    let done = registry.link_at(&new.path).expect("look").expect("a link");
    assert_eq!((done.state, done.placed), (LinkState::Done, Some(stamp(9))));
    assert_eq!((&done.new, &done.name), (&new, &planned.name));
    assert!(registry.unfinished_links().expect("links").is_empty());
    assert_eq!(registry.linked_digests().expect("digests"), [digest(1)]);
    assert_eq!(registry.links_of(&[digest(1), digest(2)]).expect("links"), [done]);

    registry.begin_undo(planned.id, &home.path().join("elsewhere")).expect("undo");
    let undoing = registry.unfinished_links().expect("links").pop().expect("one");
    assert_eq!(undoing.stage, Some(home.path().join("elsewhere")));
    registry.set_link_state(planned.id, LinkState::Undone, None).expect("undone");
    assert!(registry.links().expect("links").is_empty());
    assert!(registry.linked_digests().expect("digests").is_empty());
    let again = registry.plan_link(new, names).expect("again");
    assert!(again.id > planned.id, "numbers are not used twice");
    registry.forget_link(again.id).expect("forget");
    assert!(registry.links().expect("links").is_empty());
}

#[test]
fn content_that_links_point_at_stays_when_its_models_go() {
    let (home, mut registry) = new_registry();
    registry.register(&model(home.path(), "org/a", Origin::Copied, &[1, 2, 3]), &[]).expect("register");
    let id = registry.snapshots().expect("snapshots")[0].id;
    registry
        .plan_link(link(home.path(), "a", 1, LinkStrategy::Symlink), |_| (None, None))
        .expect("a symlink");
    // A hard link or a clone holds the content by itself.
    registry
        .plan_link(link(home.path(), "b", 2, LinkStrategy::Hardlink), |_| (None, None))
        .expect("a hard link");
    let freed = [(digest(2), Bytes(10)), (digest(3), Bytes(10))];
    assert_eq!(registry.blobs_only_of(&[id]).expect("plan"), freed);
    assert_eq!(registry.remove(&[id]).expect("remove"), freed);
    assert_eq!(registry.unused(&[digest(1), digest(2)]).expect("unused"), [digest(2)]);
}

#[test]
fn what_was_hashed_is_remembered_until_the_file_changes() {
    let (_home, mut registry) = new_registry();
    let ends = Remembered { ends: Some(u64::MAX), digest: None };
    let whole = Remembered { ends: None, digest: Some(digest(4)) };
    registry.remember(&[(stamp(1), ends), (stamp(2), whole)]).expect("remember");
    registry.remember(&[(stamp(1), whole)]).expect("more of the first");
    let both = Remembered { ends: Some(u64::MAX), digest: Some(digest(4)) };
    let none = Remembered::default();
    assert_eq!(registry.remembered(&[stamp(1), stamp(2), stamp(3)]).expect("look"), [both, whole, none]);
    assert_eq!(registry.remembered_digest(&stamp(2)).expect("look"), Some(digest(4)));
    let changed = FileStamp { changed_ns: 0, ..stamp(1) };
    assert_eq!(registry.remembered(&[changed]).expect("look"), [none]);
    registry.remember(&[(changed, ends)]).expect("anew");
    assert_eq!(registry.remembered(&[changed, stamp(1)]).expect("look"), [ends, none]);
}

#[test]
fn what_is_remembered_is_found_however_far_apart_it_lies() {
    let (_home, mut registry) = new_registry();
    let file = |device: u64, inode: u64| FileStamp { device, inode, ..stamp(1) };
    let known = |inode: u64| Remembered { ends: Some(inode), digest: None };
    // Numbers of either sign as the database sees them.
    let devices = [1, 2, u64::MAX];
    let rows: Vec<_> = devices
        .iter()
        .flat_map(|device| (0..200).map(|inode| (file(*device, inode), known(inode))))
        .collect();
    registry.remember(&rows).expect("remember");
    for step in [1, 2, 15, 16, 17, 18, 50, 199] {
        let mut asked: Vec<(FileStamp, Remembered)> = rows.iter().step_by(step).copied().rev().collect();
        asked.push((file(1, 1000), Remembered::default()));
        asked.push((file(3, 5), Remembered::default()));
        asked.push(asked[0]);
        let (stamps, answers): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        assert_eq!(registry.remembered(&stamps).expect("look"), answers, "every {step}th");
    }
}

#[test]
fn tools_are_known_by_what_they_use() {
    let (home, mut registry) = new_registry();
    let source = |app: &str, models| KnownSource {
        app: app.to_owned(),
        root: home.path().join(app),
        models,
        bytes: Bytes(20),
    };
    let used = |byte| Usage { digest: digest(byte), model: "org/m".to_owned(), path: "/x/y".into() };
    registry.record_source(&source("hf", 1), &[used(1), used(2), used(1)]).expect("record");
    registry.record_source(&source("ollama", 1), &[used(2)]).expect("record");
    let apps =
        |digests: &[Digest]| registry.apps_using(digests).expect("look").into_iter().collect::<Vec<_>>();
    assert_eq!(apps(&[digest(1)]), ["hf"]);
    assert_eq!(apps(&[digest(1), digest(2)]), ["hf", "ollama"]);
    assert!(apps(&[digest(3)]).is_empty());
    registry.record_source(&source("hf", 2), &[used(3)]).expect("record again");
    assert_eq!(registry.apps_using(&[digest(1)]).expect("look").len(), 0);
    assert_eq!(registry.known_sources().expect("sources"), [source("hf", 2), source("ollama", 1)]);
    registry.forget_source(&source("hf", 2).root).expect("forget");
    assert_eq!(registry.known_sources().expect("sources"), [source("ollama", 1)]);
}

#[test]
fn a_registry_of_the_first_version_is_brought_up_to_date() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join(FILE_NAME);
    let mut connection = Connection::open(&path).expect("open");
    schema::migrate(&mut connection, &path, 0, &schema::MIGRATIONS[..1]).expect("the first version");
    let old = Registry { connection, home: home.path().to_owned() };
    let old_model = model(home.path(), "org/a", Origin::Folder, &[1]);
    let mut old = old;
    old.register(&old_model, &[]).expect("register");
    drop(old);
    // What is damaged before it is brought up to date tells of no links, and that is no loss.
    assert!(Salvaged::read(home.path()).complete);
    let registry = Registry::open(home.path()).expect("open").expect("a registry");
    assert_eq!(registry.schema_version().expect("version"), SCHEMA_VERSION);
    assert_eq!(registry.counts().expect("counts").models, 1);
    assert!(registry.links().expect("links").is_empty());
    assert!(home.path().join("registry.db.bak-1").exists());
}

#[test]
fn damage_has_a_code_and_what_is_readable_is_kept() {
    let (home, mut registry) = new_registry();
    let adopted = model(home.path(), "org/a", Origin::Folder, &[1, 2]);
    registry.register(&adopted, &[]).expect("register");
    registry.register(&model(home.path(), "org/b", Origin::Copied, &[3]), &[]).expect("register");
    let new = link(home.path(), "a", 7, LinkStrategy::Symlink);
    let link =
        registry.plan_link(new, |id| (Some(home.path().join(format!("links/{id}"))), None)).expect("link");
    registry.set_link_state(link.id, LinkState::Done, Some(stamp(3))).expect("done");
    let link = registry.links().expect("links").pop().expect("one");
    drop(registry);

    let salvaged = Salvaged::read(home.path());
    assert_eq!(salvaged.adopted, std::slice::from_ref(&adopted));
    assert_eq!(salvaged.links, std::slice::from_ref(&link));
    assert!(salvaged.complete);

    let text = b"not a database, but as long as the header of one, and then some more of the same";
    for damage in [text.repeat(3), vec![0; 4096]] {
        fs::write(home.path().join(FILE_NAME), &damage).expect("write");
        let error = Registry::open(home.path()).map(|_| ()).expect_err("damaged");
        assert_eq!(error.code(), Code::IntegrityFailed, "{error}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("doctor --fix")));
        assert!(!Salvaged::read(home.path()).complete);

        let kept = replace(home.path(), std::slice::from_ref(&adopted), std::slice::from_ref(&link))
            .expect("replace")
            .expect("there was one");
        assert_eq!(fs::read(kept).expect("the old one"), damage);
        let registry = Registry::open(home.path()).expect("open").expect("a new one");
        assert_eq!(registry.counts().expect("counts").models, 1);
        assert_eq!(registry.counts().expect("counts").blobs, 1, "what the link needs");
        assert_eq!(registry.links().expect("links"), std::slice::from_ref(&link));
    }
}

#[test]
fn a_lost_registry_is_noticed() {
    let home = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(home.path().join("models/local/org/name")).expect("folders");
    for make in [|_: &Path| (), |path: &Path| fs::write(path, "").expect("write")] {
        make(&home.path().join(FILE_NAME));
        let error = Registry::open(home.path()).map(|_| ()).expect_err("lost");
        assert_eq!(error.code(), Code::IntegrityFailed);
    }
}

#[test]
fn several_may_create_it_at_once() {
    let home = tempfile::tempdir().expect("a folder");
    std::thread::scope(|scope| {
        for at in 0..4_u8 {
            let home = home.path();
            scope.spawn(move || {
                let mut registry = Registry::create(home).expect("create");
                let new = model(home, &format!("org/m{at}"), Origin::Copied, &[at]);
                registry.register(&new, &[]).expect("register");
            });
        }
    });
    let registry = Registry::open(home.path()).expect("open").expect("a registry");
    assert_eq!(registry.counts().expect("counts").models, 4);
}
