//! Our own store, and adopted models.

use std::os::unix::fs::symlink;

use super::*;
use crate::models::blobs;

const WEIGHTS: &str = "model.safetensors";

/// A store with one copied model; the folder that shows it.
fn with_model() -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::new();
    let source = place(&sandbox, "llama_tied", "tiny");
    let added = add(&sandbox, &source, &["--copy"]);
    (sandbox, PathBuf::from(added["path"].as_str().expect("a path")))
}

#[test]
fn a_sound_store_is_ok_and_a_quick_look_remembers() {
    let (sandbox, _) = with_model();
    let report = is_sound(&sandbox, &[]);
    let checked = &report["checked"][0];
    assert_eq!(checked["reference"], "local/tiny");
    assert_eq!((&checked["status"], &checked["source"]), (&"ok".into(), &"store".into()));
    let bytes: u64 = blobs(&sandbox).iter().map(|blob| fs::metadata(blob).expect("a blob").len()).sum();
    assert_eq!(report["bytes_hashed"], bytes);
    assert_eq!(report["summary"]["ok"], 1);

    let quick = is_sound(&sandbox, &["--quick"]);
    assert_eq!((&quick["bytes_hashed"], &quick["checked"][0]["status"]), (&0.into(), &"ok".into()));
    assert_eq!(quick["checked"][0]["files_ok"], checked["files_ok"]);
}

#[test]
fn each_kind_of_damage_to_content_is_found_and_nothing_else() {
    let cases: [Damage; 7] = [
        ("changed", flip),
        ("truncated", cut),
        ("truncated", |path| write(path, "")),
        ("lfs_pointer", point),
        ("broken_header", spoil_header),
        ("missing", |path| fs::remove_file(path).expect("removed")),
        ("not_a_file", |path| {
            fs::remove_file(path).expect("removed");
            fs::create_dir(path).expect("a folder");
        }),
    ];
    for (kind, damage) in cases {
        let (sandbox, model) = with_model();
        damage(&content_of(&model, WEIGHTS));
        let report = finds(&sandbox, &[], &[(WEIGHTS, kind)]);
        let status = if kind == "missing" { "incomplete" } else { "damaged" };
        assert_eq!(report["checked"][0]["status"], status, "{report}");
        finds(&sandbox, &["tiny"], &[(WEIGHTS, kind)]);
        // What a look without reading can tell, it tells; the rest it remembers from the reading before.
        if kind == "changed" {
            let report = is_sound(&sandbox, &["--quick"]);
            assert_eq!(report["checked"][0]["status"], "unknown", "{report}");
            assert_eq!(report["checked"][0]["files_unverified"], 1, "{report}");
        } else {
            finds(&sandbox, &["--quick"], &[(WEIGHTS, kind)]);
        }
    }
}

#[test]
fn content_that_grew_or_is_that_of_another_name_is_told() {
    let (sandbox, model) = with_model();
    let config = content_of(&model, "config.json");
    let mut content = fs::read(&config).expect("a file");
    content.push(b'\n');
    write(&config, content);
    finds(&sandbox, &[], &[("config.json", "changed")]);

    let (sandbox, model) = with_model();
    let (a, b) = (content_of(&model, "config.json"), content_of(&model, "tokenizer_config.json"));
    let (a_content, b_content) = (fs::read(&a).expect("a"), fs::read(&b).expect("b"));
    // Sizes must agree, else that is told first.
    let length = a_content.len().max(b_content.len());
    assert_ne!(a_content.len(), b_content.len(), "the fixture's files differ in size: {length}");
    fs::rename(&a, a.with_extension("old")).expect("renamed");
    fs::rename(&b, &a).expect("renamed");
    fs::rename(a.with_extension("old"), &b).expect("renamed");
    let (status, report) = verify(&sandbox, &[]);
    assert_eq!(status, 4);
    let mut kinds: Vec<_> = problems(&report).into_iter().map(|(_, kind)| kind).collect();
    kinds.sort();
    assert_eq!(kinds, ["changed", "truncated"], "{report}");
}

#[test]
fn two_contents_that_changed_names_are_told() {
    let sandbox = Sandbox::new();
    let source = place(&sandbox, "llama_tied", "tiny");
    fs::write(source.join("one.txt"), "1111").expect("written");
    fs::write(source.join("two.txt"), "2222").expect("written");
    let added = add(&sandbox, &source, &["--copy"]);
    let model = PathBuf::from(added["path"].as_str().expect("a path"));
    let (one, two) = (content_of(&model, "one.txt"), content_of(&model, "two.txt"));
    write(&one, "2222");
    write(&two, "1111");
    finds(&sandbox, &[], &[("one.txt", "wrong_name"), ("two.txt", "wrong_name")]);
}

#[test]
fn links_that_are_not_what_they_should_be_are_told() {
    type Spoil = fn(&Path, &Path);
    let cases: [(&str, Spoil); 6] = [
        ("missing", |link, _| fs::remove_file(link).expect("removed")),
        ("dangling_link", |link, _| relink(link, Path::new("../nothing"))),
        ("escaping_link", |link, _| relink(link, Path::new("/etc/hostname"))),
        ("escaping_link", |link, outside| relink(link, outside)),
        ("wrong_link", |link, _| {
            let other = fs::read_link(link.with_file_name("config.json")).expect("a link");
            relink(link, &other);
        }),
        ("not_a_file", |link, _| {
            let content = fs::read(link).expect("a file");
            fs::remove_file(link).expect("removed");
            fs::write(link, content).expect("written");
        }),
    ];
    for (kind, damage) in cases {
        let (sandbox, model) = with_model();
        let outside = sandbox.home().join("tiny").join(WEIGHTS);
        damage(&model.join(WEIGHTS), &outside);
        let report = finds(&sandbox, &[], &[(WEIGHTS, kind)]);
        let code = if kind == "escaping_link" { "BOUNDARY_VIOLATION" } else { "INTEGRITY_FAILED" };
        assert_eq!(report["checked"][0]["problems"][0]["code"], code, "{report}");
        finds(&sandbox, &["--quick"], &[(WEIGHTS, kind)]);
    }
}

fn relink(link: &Path, target: &Path) {
    fs::remove_file(link).expect("removed");
    symlink(target, link).expect("linked");
}

#[test]
fn links_that_nobody_put_there_and_a_folder_that_leads_out_are_told() {
    let (sandbox, model) = with_model();
    symlink("/etc", model.join("extra")).expect("linked");
    symlink("nothing", model.join("other")).expect("linked");
    finds(&sandbox, &[], &[("extra", "escaping_link"), ("other", "dangling_link")]);

    let (sandbox, model) = with_model();
    let elsewhere = sandbox.home().join("elsewhere");
    fs::rename(&model, &elsewhere).expect("moved");
    symlink(&elsewhere, &model).expect("linked");
    finds(&sandbox, &[], &[(".", "escaping_link")]);
}

#[test]
fn modes_that_are_too_open_are_told() {
    let (sandbox, model) = with_model();
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    mode(&content_of(&model, WEIGHTS), 0o644);
    finds(&sandbox, &[], &[(WEIGHTS, "wrong_mode")]);
    mode(&content_of(&model, WEIGHTS), 0o444);
    is_sound(&sandbox, &[]);
    mode(&sandbox.store(), 0o755);
    finds(&sandbox, &["--quick"], &[(".", "wrong_mode")]);
}

#[test]
fn an_index_names_shards_that_must_be_there() {
    let sandbox = Sandbox::new();
    let source = place(&sandbox, "llama_tied", "tiny");
    fs::rename(source.join(WEIGHTS), source.join("model-00001-of-00001.safetensors")).expect("renamed");
    let weights = source.join("model-00001-of-00001.safetensors");
    let names = tensor_names(&weights);
    let index = |shard: &str| {
        let map: serde_json::Map<String, Value> =
            names.iter().map(|name| (name.clone(), shard.into())).collect();
        serde_json::json!({ "metadata": {}, "weight_map": map }).to_string()
    };
    fs::write(source.join("model.safetensors.index.json"), index("model-00001-of-00001.safetensors"))
        .expect("written");
    let added = add(&sandbox, &source, &["--copy"]);
    let model = PathBuf::from(added["path"].as_str().expect("a path"));
    is_sound(&sandbox, &[]);
    // In the model, the shard is missing; for a folder that nobody registered, the index tells.
    fs::remove_file(model.join("model-00001-of-00001.safetensors")).expect("removed");
    finds(&sandbox, &[], &[("model-00001-of-00001.safetensors", "missing")]);

    let adopted = place(&sandbox, "llama_tied", "plain");
    add(&sandbox, &adopted, &[]);
    fs::write(adopted.join("model.safetensors.index.json"), index("model-00002.safetensors"))
        .expect("written");
    // The index is left over from another form of the model, since the whole file is there.
    is_sound(&sandbox, &["plain"]);
    fs::write(adopted.join("model.safetensors.index.json"), {
        let mut map = index("model.safetensors");
        map = map.replacen("model.safetensors\"", "model-00002.safetensors\"", 1);
        map
    })
    .expect("written");
    finds(&sandbox, &["plain"], &[("model-00002.safetensors", "missing_shard")]);
    fs::write(adopted.join("model.safetensors.index.json"), "{").expect("written");
    finds(&sandbox, &["plain"], &[("model.safetensors.index.json", "broken_header")]);
    fs::write(adopted.join("model.safetensors.index.json"), index("../model.safetensors")).expect("written");
    finds(&sandbox, &["plain"], &[("model.safetensors.index.json", "escaping_link")]);
}

fn tensor_names(weights: &Path) -> Vec<String> {
    let content = fs::read(weights).expect("weights");
    let length = u64::from_le_bytes(content[..8].try_into().expect("eight bytes")) as usize;
    let header: serde_json::Map<String, Value> =
        serde_json::from_slice(&content[8..8 + length]).expect("a header");
    header.keys().filter(|name| *name != "__metadata__").cloned().collect()
}

#[test]
fn an_adopted_model_is_compared_with_what_it_was() {
    let cases: [Damage; 5] = [
        ("changed", flip),
        ("truncated", cut),
        ("lfs_pointer", point),
        ("missing", |path| fs::remove_file(path).expect("removed")),
        ("dangling_link", |path| relink(path, Path::new("nothing"))),
    ];
    for (kind, damage) in cases {
        let sandbox = Sandbox::new();
        let model = place(&sandbox, "llama_tied", "tiny");
        add(&sandbox, &model, &[]);
        is_sound(&sandbox, &[]);
        assert_eq!(is_sound(&sandbox, &["--quick"])["checked"][0]["status"], "ok");
        damage(&model.join(WEIGHTS));
        let report = finds(&sandbox, &[], &[(WEIGHTS, kind)]);
        let hint = report["checked"][0]["problems"][0]["hint"].as_str().expect("a hint");
        assert!(hint.contains("mlx-cache add"), "{hint}");
    }
}

#[test]
fn content_that_nothing_uses_is_checked_too() {
    let (sandbox, _) = with_model();
    let name = "ab".repeat(32);
    let stray = sandbox.store().join("blobs/sha256/ab").join(&name);
    fs::create_dir_all(stray.parent().expect("a folder")).expect("a folder");
    fs::write(&stray, "not of this name").expect("written");
    let path = format!("blobs/sha256/ab/{name}");
    let report = finds(&sandbox, &[], &[(&path, "changed")]);
    let of_store = report["checked"].as_array().expect("a list").last().expect("an entry").clone();
    assert_eq!(of_store["reference"], sandbox.store().to_str().expect("UTF-8"));
    assert!(of_store["problems"][0]["hint"].as_str().expect("a hint").contains("gc"), "{report}");
    fs::rename(&stray, sandbox.store().join("blobs/sha256/ab/stray")).expect("renamed");
    finds(&sandbox, &[], &[("blobs/sha256/ab/stray", "wrong_name")]);
}

#[test]
fn nothing_checked_is_no_success() {
    let sandbox = Sandbox::new();
    for args in [&["verify"][..], &["verify", "--quick"], &["verify", "--source", "store"]] {
        let (status, error) = sandbox.error(args);
        assert_eq!((status, error["code"].as_str()), (3, Some("MODEL_NOT_FOUND")), "{error}");
        assert!(error["message"].as_str().expect("a text").contains("nothing was checked"), "{error}");
        assert!(!sandbox.store().exists(), "verify makes no store");
    }
    let (status, error) = sandbox.error(&["verify", "absent"]);
    assert_eq!((status, error["code"].as_str()), (3, Some("MODEL_NOT_FOUND")));
}

#[test]
fn content_with_several_names_is_read_once() {
    let sandbox = Sandbox::new();
    let source = place(&sandbox, "llama_tied", "tiny");
    add(&sandbox, &source, &["--copy", "--name", "org/a"]);
    add(&sandbox, &source, &["--copy", "--name", "org/b"]);
    let report = is_sound(&sandbox, &["--jobs", "2"]);
    let bytes: u64 = blobs(&sandbox).iter().map(|blob| fs::metadata(blob).expect("a blob").len()).sum();
    assert_eq!((&report["bytes_hashed"], &report["summary"]["ok"]), (&bytes.into(), &2.into()));
}

#[test]
fn people_read_what_is_wrong_and_what_to_do() {
    let (sandbox, model) = with_model();
    flip(&content_of(&model, "config.json"));
    let outcome = sandbox.run(&["verify"]);
    assert_eq!(outcome.status, 4, "{outcome:?}");
    for text in ["damaged", "local/tiny", "config.json: has changed (expected sha256:", "1 damaged"] {
        assert!(outcome.stdout.contains(text), "{text}: {outcome:?}");
    }
    assert_eq!(outcome.stderr, "");
}

#[test]
fn a_registry_in_use_does_not_stop_it() {
    let (sandbox, _) = with_model();
    let _guard = data(&sandbox, &["list"]);
    is_sound(&sandbox, &["--jobs", "1"]);
    let (status, error) = sandbox.error(&["verify", "--jobs", "0"]);
    assert_eq!((status, error["code"].as_str()), (2, Some("INVALID_REQUEST")));
}
