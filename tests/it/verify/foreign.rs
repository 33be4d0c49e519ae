//! Other tools' caches: a Hugging Face cache and Ollama's models, built to the rules of their sources, and
//! folders of plain files.

use std::os::unix::fs::symlink;

use serde_json::json;
use sha1::Digest as _;

use super::*;
use crate::models::{COMMIT, sha256};

const WEIGHTS: &str = "model.safetensors";

fn git_sha1(content: &[u8]) -> String {
    use std::fmt::Write;
    let mut hasher = sha1::Sha1::new();
    hasher.update(format!("blob {}\0", content.len()));
    hasher.update(content);
    hasher.finalize().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("text");
        text
    })
}

/// A model in the sandbox's Hugging Face cache as `huggingface_hub` lays it out: weights named by SHA-256,
/// the rest as git names it, with the listing of the commit. The repository's folder.
pub fn in_hub(sandbox: &Sandbox, repository: &str, listing: bool) -> PathBuf {
    let plain = place(sandbox, "llama_tied", "plain");
    let repository = sandbox.home().join(".cache/huggingface/hub").join(repository);
    let snapshot = snapshot(&repository);
    fs::create_dir_all(repository.join("blobs")).expect("a folder");
    fs::create_dir_all(&snapshot).expect("a folder");
    fs::create_dir_all(repository.join("refs")).expect("a folder");
    fs::write(repository.join("refs/main"), COMMIT).expect("written");
    let mut files = serde_json::Map::new();
    for entry in fs::read_dir(&plain).expect("a model") {
        let entry = entry.expect("an entry");
        let content = fs::read(entry.path()).expect("a file");
        let name = entry.file_name().into_string().expect("UTF-8");
        let is_large = name == WEIGHTS;
        let blob = if is_large { sha256(&content) } else { git_sha1(&content) };
        let mut listed = json!({ "size": content.len(), "blob_id": git_sha1(&content) });
        if is_large {
            listed["blob_id"] = git_sha1(b"a pointer").into();
            listed["lfs_sha256"] = blob.clone().into();
            listed["lfs_size"] = content.len().into();
        }
        files.insert(name, listed);
        fs::rename(entry.path(), repository.join("blobs").join(&blob)).expect("moved");
        symlink(Path::new("../../blobs").join(&blob), snapshot.join(entry.file_name())).expect("linked");
    }
    // Never fetched, which is nobody's fault.
    files.insert("onnx/model.onnx".to_owned(), json!({ "size": 5, "blob_id": git_sha1(b"onnx!") }));
    if listing {
        let trees = repository.join("trees");
        fs::create_dir(&trees).expect("a folder");
        let content = json!({ "format_version": 1, "files": files }).to_string();
        fs::write(trees.join(format!("{COMMIT}.json")), content).expect("written");
    }
    fs::remove_dir(plain).expect("empty");
    repository
}

pub fn snapshot(repository: &Path) -> PathBuf {
    repository.join("snapshots").join(COMMIT)
}

const HF: &[&str] = &["--source", "hf"];

#[test]
fn a_sound_hugging_face_cache_is_ok() {
    for listing in [true, false] {
        let sandbox = Sandbox::new();
        in_hub(&sandbox, "models--org--tiny", listing);
        let report = is_sound(&sandbox, HF);
        let checked = &report["checked"][0];
        assert_eq!(
            (&checked["reference"], &checked["status"]),
            (&"org/tiny".into(), &"ok".into()),
            "{report}"
        );
        assert_eq!((&checked["revision"], &checked["source"]), (&COMMIT.into(), &"hf".into()));
        assert_eq!(checked["files_absent"], u64::from(listing));
        // By its name, without its source being said.
        assert_eq!(is_sound(&sandbox, &["org/tiny"])["checked"][0]["files_ok"], checked["files_ok"]);
        assert_eq!(is_sound(&sandbox, &["org/tiny@12fd25f"])["summary"]["ok"], 1);
        assert_eq!(sandbox.error(&["verify", "org/tiny@ffffffff"]).0, 3);
        assert!(!sandbox.store().exists(), "looking makes no store");
    }
}

#[test]
fn each_kind_of_damage_in_a_hugging_face_cache_is_found_and_nothing_else() {
    let cases: [(&str, &str, Spoil); 10] = [
        (WEIGHTS, "changed", flip),
        (WEIGHTS, "truncated", cut),
        (WEIGHTS, "lfs_pointer", point),
        (WEIGHTS, "broken_header", spoil_header),
        (WEIGHTS, "dangling_link", |path| fs::remove_file(path).expect("removed")),
        ("config.json", "changed", flip),
        ("config.json", "truncated", cut),
        (WEIGHTS, "not_a_file", |path| {
            fs::remove_file(path).expect("removed");
            fs::create_dir(path).expect("a folder");
        }),
        (WEIGHTS, "escaping_link", |path| {
            let outside = path.ancestors().nth(6).expect("the home").join("outside");
            fs::rename(path, &outside).expect("moved");
            symlink(outside, path).expect("linked");
        }),
        ("config.json", "unfinished", |path| {
            let partial = path.with_file_name(format!(
                "{}.0123abcd.incomplete",
                path.file_name().and_then(|name| name.to_str()).expect("a name")
            ));
            fs::rename(path, partial).expect("renamed");
        }),
    ];
    for (file, kind, damage) in cases {
        let sandbox = Sandbox::new();
        let repository = in_hub(&sandbox, "models--org--tiny", true);
        damage(&content_of(&snapshot(&repository), file));
        finds(&sandbox, HF, &[(file, kind)]);
        finds(&sandbox, &["--source", "all"], &[(file, kind)]);
        finds(&sandbox, &["org/tiny"], &[(file, kind)]);
    }
}

#[test]
fn links_of_a_snapshot_are_followed_no_further_than_the_cache() {
    let cases: [Damage; 2] = [
        ("escaping_link", |link| {
            fs::remove_file(link).expect("removed");
            symlink("/etc/hostname", link).expect("linked");
        }),
        ("dangling_link", |link| {
            fs::remove_file(link).expect("removed");
            symlink("../../blobs/nothing", link).expect("linked");
        }),
    ];
    for (kind, damage) in cases {
        let sandbox = Sandbox::new();
        let repository = in_hub(&sandbox, "models--org--tiny", true);
        damage(&snapshot(&repository).join("config.json"));
        let report = finds(&sandbox, HF, &[("config.json", kind)]);
        let code = if kind == "escaping_link" { "BOUNDARY_VIOLATION" } else { "INTEGRITY_FAILED" };
        let problems = report["checked"]
            .as_array()
            .expect("a list")
            .iter()
            .flat_map(|checked| checked["problems"].as_array().expect("a list"));
        assert!(problems.into_iter().all(|problem| problem["code"] == code), "{report}");
    }
}

#[test]
fn a_download_that_was_begun_and_shards_that_an_index_names_are_missed() {
    let sandbox = Sandbox::new();
    let repository = in_hub(&sandbox, "models--org--tiny", true);
    let weights = content_of(&snapshot(&repository), WEIGHTS);
    let name = weights.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    fs::remove_file(snapshot(&repository).join(WEIGHTS)).expect("removed");
    // Without a download that was begun, nobody wanted the file.
    fs::rename(&weights, weights.with_file_name("other.incomplete")).expect("renamed");
    assert_eq!(is_sound(&sandbox, HF)["checked"][0]["files_absent"], 2);
    fs::write(weights.with_file_name(format!("{name}.incomplete")), "half").expect("written");
    let report = finds(&sandbox, HF, &[(WEIGHTS, "unfinished")]);
    assert_eq!(report["checked"][0]["status"], "incomplete");

    fs::remove_file(weights.with_file_name(format!("{name}.incomplete"))).expect("removed");
    let index = json!({ "weight_map": { "a": "model-00001-of-00002.safetensors" } }).to_string();
    let blob = repository.join("blobs").join(git_sha1(index.as_bytes()));
    fs::write(&blob, &index).expect("written");
    let link = snapshot(&repository).join("model.safetensors.index.json");
    symlink(Path::new("../../blobs").join(blob.file_name().expect("a name")), link).expect("linked");
    finds(&sandbox, HF, &[("model-00001-of-00002.safetensors", "missing_shard")]);
}

#[test]
fn blobs_that_no_snapshot_uses_are_checked_by_their_names() {
    let sandbox = Sandbox::new();
    let repository = in_hub(&sandbox, "models--org--tiny", false);
    let name = "ab".repeat(32);
    fs::write(repository.join("blobs").join(&name), "not of this name").expect("written");
    finds(&sandbox, HF, &[(&format!("models--org--tiny/blobs/{name}"), "changed")]);
    is_sound(&sandbox, &["org/tiny"]);
}

#[test]
fn an_adopted_snapshot_is_compared_with_its_cache_too() {
    let sandbox = Sandbox::new();
    let repository = in_hub(&sandbox, "models--org--tiny", true);
    add(&sandbox, &snapshot(&repository), &[]);
    let report = is_sound(&sandbox, &[]);
    assert_eq!(report["checked"].as_array().expect("a list").len(), 1, "{report}");
    assert_eq!(is_sound(&sandbox, &["--source", "all"])["checked"].as_array().expect("a list").len(), 1);
    assert_eq!(is_sound(&sandbox, &["--quick"])["checked"][0]["status"], "ok");
    let config = content_of(&snapshot(&repository), "config.json");
    flip(&config);
    finds(&sandbox, &[], &[("config.json", "changed")]);
    // A cache that is gone as a whole is missed by the registry alone.
    fs::remove_dir_all(&repository).expect("removed");
    let (status, report) = verify(&sandbox, &[]);
    assert_eq!(status, 4);
    assert!(problems(&report).iter().all(|(_, kind)| kind == "missing"), "{report}");
}

/// Ollama's models with one model, as `ollama pull` leaves them; the folder of blobs.
pub fn in_ollama(sandbox: &Sandbox) -> PathBuf {
    let models = sandbox.home().join(".ollama/models");
    let blobs = models.join("blobs");
    let manifest = models.join("manifests/registry.ollama.ai/library/tiny/latest");
    fs::create_dir_all(&blobs).expect("a folder");
    fs::create_dir_all(manifest.parent().expect("a folder")).expect("folders");
    let gguf = place(sandbox, "gguf/llama_Q4_0.gguf", "tiny.gguf");
    let layer = |media_type: &str, content: &[u8]| {
        let digest = sha256(content);
        fs::write(blobs.join(format!("sha256-{digest}")), content).expect("written");
        json!({
            "mediaType": format!("application/vnd.{media_type}"),
            "digest": format!("sha256:{digest}"),
            "size": content.len(),
        })
    };
    let manifest_of = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": layer("docker.container.image.v1+json", br#"{"model_format":"gguf"}"#),
        "layers": [
            layer("ollama.image.model", &fs::read(&gguf).expect("a GGUF")),
            layer("ollama.image.template", b"{{ .Prompt }}"),
        ],
    });
    fs::write(manifest, manifest_of.to_string()).expect("written");
    fs::remove_file(gguf).expect("removed");
    blobs
}

/// The largest blob: the model.
pub fn gguf_of(blobs: &Path) -> PathBuf {
    let entries = fs::read_dir(blobs).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.max_by_key(|path| fs::metadata(path).expect("a blob").len()).expect("a blob")
}

const OLLAMA: &[&str] = &["--source", "ollama"];

#[test]
fn each_kind_of_damage_in_ollamas_models_is_found_and_nothing_else() {
    let sandbox = Sandbox::new();
    in_ollama(&sandbox);
    let report = is_sound(&sandbox, OLLAMA);
    assert_eq!(report["checked"][0]["reference"], "ollama:tiny:latest", "{report}");
    assert_eq!(is_sound(&sandbox, &["ollama:tiny"])["checked"][0]["files_ok"], 3);

    let cases: [Damage; 7] = [
        ("changed", flip),
        ("truncated", cut),
        ("lfs_pointer", point),
        ("broken_header", spoil_header),
        ("missing", |path| fs::remove_file(path).expect("removed")),
        ("dangling_link", |path| {
            fs::remove_file(path).expect("removed");
            symlink("/nowhere", path).expect("linked");
        }),
        ("escaping_link", |path| {
            let outside = path.ancestors().nth(4).expect("the home").join("outside");
            fs::rename(path, &outside).expect("moved");
            symlink(outside, path).expect("linked");
        }),
    ];
    for (kind, damage) in cases {
        let sandbox = Sandbox::new();
        let blobs = in_ollama(&sandbox);
        damage(&gguf_of(&blobs));
        finds(&sandbox, OLLAMA, &[("model.gguf", kind)]);
    }
}

#[test]
fn manifests_that_say_nothing_or_wrong_sizes_are_told() {
    let sandbox = Sandbox::new();
    in_ollama(&sandbox);
    let manifest = sandbox.home().join(".ollama/models/manifests/registry.ollama.ai/library/tiny/latest");
    let text = fs::read_to_string(&manifest).expect("a manifest");
    let size = "\"size\":13";
    assert!(text.contains(size), "{text}");
    fs::write(&manifest, text.replace(size, "\"size\":14")).expect("written");
    finds(&sandbox, OLLAMA, &[("template", "broken_record")]);
    fs::write(&manifest, "{").expect("written");
    let path = "manifests/registry.ollama.ai/library/tiny/latest";
    finds(&sandbox, OLLAMA, &[(path, "broken_record")]);
    // Unfinished downloads are Ollama's own business; what is missing because of one is told as that.
    fs::write(&manifest, text).expect("written");
    let gguf = gguf_of(&sandbox.home().join(".ollama/models/blobs"));
    let partial = format!("{}-partial", gguf.display());
    fs::write(&partial, "half").expect("written");
    is_sound(&sandbox, OLLAMA);
    fs::remove_file(gguf).expect("removed");
    finds(&sandbox, OLLAMA, &[("model.gguf", "unfinished")]);
}

#[test]
fn a_folder_without_records_is_not_called_good() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "models/tiny");
    let folder = model.parent().expect("a folder").to_str().expect("UTF-8").to_owned();
    for args in [&["verify", "--path", &folder][..], &["verify", model.to_str().expect("UTF-8")]] {
        let (status, error) = sandbox.error(args);
        assert_eq!((status, error["code"].as_str()), (4, Some("INTEGRITY_FAILED")), "{error}");
        assert!(error["message"].as_str().expect("a text").contains("nothing was checked"), "{error}");
    }
    // What needs no record is told all the same.
    spoil_header(&model.join(WEIGHTS));
    finds(&sandbox, &["--path", &folder], &[(WEIGHTS, "broken_header")]);
    point(&model.join(WEIGHTS));
    finds(&sandbox, &["--path", &folder], &[(WEIGHTS, "lfs_pointer")]);
}

#[test]
fn a_folder_that_the_hub_client_filled_has_records() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "models/tiny");
    let records = model.join(".cache/huggingface/download");
    fs::create_dir_all(&records).expect("folders");
    for entry in fs::read_dir(&model).expect("a model") {
        let entry = entry.expect("an entry");
        if entry.path().is_file() {
            let content = fs::read(entry.path()).expect("a file");
            let name = entry.file_name().into_string().expect("UTF-8");
            let etag = if name == WEIGHTS { sha256(&content) } else { git_sha1(&content) };
            fs::write(records.join(format!("{name}.metadata")), format!("{COMMIT}\n{etag}\n1712656091.5\n"))
                .expect("written");
        }
    }
    let folder = model.parent().expect("a folder").to_str().expect("UTF-8").to_owned();
    let report = is_sound(&sandbox, &["--path", &folder]);
    assert_eq!(report["checked"][0]["status"], "ok", "{report}");
    flip(&model.join("config.json"));
    finds(&sandbox, &["--path", &folder], &[("config.json", "changed")]);
}

#[test]
fn lm_studio_models_are_compared_once_they_are_adopted() {
    let sandbox = Sandbox::new();
    let gguf = place(&sandbox, "gguf/llama_Q4_0.gguf", ".lmstudio/models/someone/tiny/tiny.Q4_0.gguf");
    let (status, error) = sandbox.error(&["verify", "--source", "lmstudio"]);
    assert_eq!((status, error["code"].as_str()), (4, Some("INTEGRITY_FAILED")), "{error}");
    add(&sandbox, &gguf, &[]);
    assert_eq!(is_sound(&sandbox, &["--source", "lmstudio"])["checked"][0]["status"], "ok");
    assert_eq!(is_sound(&sandbox, &["lmstudio:someone/tiny", "--quick"])["checked"][0]["status"], "ok");
    flip(&gguf);
    finds(&sandbox, &["--source", "lmstudio"], &[("tiny.Q4_0.gguf", "changed")]);
    fs::rename(&gguf, gguf.with_file_name("tiny-00001-of-00002.gguf")).expect("renamed");
    let (_, report) = verify(&sandbox, &["--source", "lmstudio"]);
    let found = problems(&report);
    assert!(found.contains(&("tiny-00002-of-00002.gguf".into(), "missing_shard".into())), "{report}");
    assert!(found.contains(&("tiny.Q4_0.gguf".into(), "missing".into())), "{report}");
}
