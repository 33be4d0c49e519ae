//! `add`: adopting, copying, names.

use super::*;

#[test]
fn an_adopted_folder_stays_where_it_is() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_sharded", "tiny");
    let added = add(&sandbox, &model, &[]);
    assert_eq!(added["reference"], "local/tiny");
    assert_eq!(added["origin"], "folder");
    assert_eq!(added["path"], model.to_str().expect("UTF-8"));
    assert_eq!(added["files"], 7);
    assert_eq!(added["already_known"], false);
    assert!(blobs(&sandbox).is_empty());

    let listed = listed(&sandbox);
    assert_eq!(listed[0]["kind"], "generation");
    assert_eq!(listed[0]["architecture"], "llama");
    assert_eq!(listed[0]["status"], "ok");
    assert_eq!(listed[0]["bytes"], added["bytes"]);
    assert!(listed[0]["last_used"].is_null());
}

#[test]
fn a_copy_needs_its_original_no_more() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "tiny");
    let weights = fs::read(model.join("model.safetensors")).expect("weights");
    let added = add(&sandbox, &model, &["--copy", "--name", "me/tiny"]);
    assert_eq!((&added["reference"], &added["origin"]), (&"me/tiny".into(), &"copied".into()));
    fs::remove_dir_all(&model).expect("gone");

    let path = PathBuf::from(succeeded(sandbox.run(&["path", "me/tiny"])).trim_end());
    assert!(path.starts_with(sandbox.store().join("models/local/me/tiny")), "{}", path.display());
    assert_eq!(fs::read(path.join("model.safetensors")).expect("weights"), weights);
    let link = fs::read_link(path.join("model.safetensors")).expect("a link");
    assert!(link.is_relative());
    assert!(link.ends_with(Path::new(&sha256(&weights)[..2]).join(sha256(&weights))));
    assert_eq!(data(&sandbox, &["show", "me/tiny"])["runnable"], true);
}

#[test]
fn a_gguf_is_a_model_of_one_file() {
    let sandbox = Sandbox::new();
    let file = place(&sandbox, "gguf/llama_Q4_0.gguf", "models/llama Q4_0.gguf");
    let added = add(&sandbox, &file, &[]);
    assert_eq!(added["reference"], "local/llama-Q4_0");
    assert_eq!(added["path"], file.to_str().expect("UTF-8"));
    let copied = add(&sandbox, &file, &["--copy", "--name", "me/copy"]);
    assert!(copied["path"].as_str().expect("a path").ends_with("/llama Q4_0.gguf"));
    assert_eq!(listed(&sandbox)[1]["quantization"], "Q4_0");

    // A folder that holds nothing else means the file.
    let folder = place(&sandbox, "gguf/llama_Q8_0.gguf", "one/llama.gguf");
    let added = add(&sandbox, folder.parent().expect("a folder"), &[]);
    assert_eq!(added["reference"], "local/one");
    assert_eq!(added["path"], folder.to_str().expect("UTF-8"));
    assert_eq!(data(&sandbox, &["show", "one"])["reference"], "local/one");
    assert_eq!(data(&sandbox, &["show", "./one"])["reference"], "local/one");
}

#[test]
fn a_gguf_in_parts_is_one_model() {
    let sandbox = Sandbox::new();
    let folder = place(&sandbox, "gguf/split", "split");
    let part = |number: usize| folder.join(format!("llama_Q8_0-0000{number}-of-00003.gguf"));
    let bytes: u64 = (1..=3).map(|number| fs::metadata(part(number)).expect("a part").len()).sum();
    let first = part(1).to_str().expect("UTF-8").to_owned();
    let by_file = add(&sandbox, &part(1), &[]);
    assert_eq!(by_file["reference"], "local/llama_Q8_0");
    let by_folder = add(&sandbox, &folder, &["--name", "me/split"]);
    let copy = add(&sandbox, &part(1), &["--copy", "--name", "me/copy"]);
    for added in [&by_file, &by_folder, &copy] {
        assert_eq!((&added["files"], &added["bytes"]), (&3.into(), &bytes.into()), "{added}");
    }
    assert_eq!((&by_file["path"], &by_folder["path"]), (&first.clone().into(), &first.into()));
    assert_eq!(listed(&sandbox).iter().filter(|row| row["bytes"] == bytes).count(), 3);

    for reference in ["local/llama_Q8_0", "me/split", "me/copy", "me/copy:Q8_0", "split"] {
        let shown = data(&sandbox, &["show", reference]);
        assert_eq!((&shown["runnable"], &shown["quantization"]), (&true.into(), &"Q8_0".into()), "{shown}");
    }
    let answer = |reference: &str| {
        let args = ["run", reference, "Hi", "-n", "4", "--temp", "0"];
        data(&sandbox, &args)["text"].as_str().expect("a text").to_owned()
    };
    let whole = place(&sandbox, "gguf/llama_Q8_0.gguf", "whole.gguf");
    let expected = answer(whole.to_str().expect("UTF-8"));
    assert_eq!(answer("me/copy"), expected);
    assert_eq!(answer("me/split"), expected);
    data(&sandbox, &["bench", "me/copy", "-p", "8", "-g", "2", "-r", "1"]);
    succeeded(sandbox.run(&["verify", "me/copy"]));

    let second = part(2).to_str().expect("UTF-8").to_owned();
    refused(&sandbox, &["add", &second], "MODEL_UNSUPPORTED", "part 2 of 3");
    fs::remove_file(part(2)).expect("gone");
    refused(&sandbox, &["run", "me/split", "Hi"], "INTEGRITY_FAILED", "00002-of-00003.gguf is missing");
    let (status, report) = sandbox.json(&["verify", "me/split"]);
    assert!(status != 0 && report.to_string().contains("00002-of-00003.gguf"), "{report}");
    // The copy has its own.
    assert_eq!(answer("me/copy"), expected);
}

#[test]
fn adding_twice_changes_nothing() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "tiny");
    for flags in [&[][..], &["--copy"]] {
        let first = add(&sandbox, &model, flags);
        let before = listed(&sandbox);
        let second = add(&sandbox, &model, flags);
        assert_eq!((&first["already_known"], &second["already_known"]), (&false.into(), &true.into()));
        assert_eq!(first["revision"], second["revision"]);
        assert_eq!(listed(&sandbox), before);
    }
    // The copy stays when the original is added in place again.
    let again = add(&sandbox, &model, &[]);
    assert_eq!((&again["origin"], &again["already_known"]), (&"copied".into(), &true.into()));
    assert_eq!(listed(&sandbox).len(), 1);
}

#[test]
fn a_damaged_copy_is_whole_again_after_another_add() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "tiny");
    let path = PathBuf::from(add(&sandbox, &model, &["--copy"])["path"].as_str().expect("a path"));
    let blob = fs::canonicalize(path.join("model.safetensors")).expect("a blob");
    fs::remove_file(&blob).expect("gone");
    fs::write(&blob, "short").expect("written");
    fs::remove_file(path.join("config.json")).expect("gone");
    add(&sandbox, &model, &["--copy"]);
    for file in ["model.safetensors", "config.json"] {
        assert_eq!(fs::read(path.join(file)).expect(file), fs::read(model.join(file)).expect(file));
    }
}

#[test]
fn a_model_that_changed_in_its_place_is_followed() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "tiny");
    let before = add(&sandbox, &model, &[]);
    let config = fs::read_to_string(model.join("config.json")).expect("config.json");
    fs::write(model.join("config.json"), config + "\n").expect("written");
    let after = add(&sandbox, &model, &[]);
    assert_ne!(before["revision"], after["revision"]);
    assert_eq!(listed(&sandbox).len(), 1);
}

#[test]
fn a_name_is_taken_once_whatever_the_case_of_its_letters() {
    let sandbox = Sandbox::new();
    let one = place(&sandbox, "llama_tied", "one");
    let other = place(&sandbox, "gguf/llama_Q4_0.gguf", "other.gguf");
    add(&sandbox, &one, &["--name", "me/model", "--copy"]);
    for name in ["me/model", "Me/MODEL"] {
        for flags in [&[][..], &["--copy"]] {
            let args = [&["add", other.to_str().expect("UTF-8"), "--name", name], flags].concat();
            let error = refused(&sandbox, &args, "INVALID_REQUEST", name);
            assert!(error["hint"].as_str().expect("a hint").contains("--name"), "{error}");
        }
    }
    assert_eq!(names(&listed(&sandbox)), ["me/model"]);
    // Nothing of the refused copies stays.
    assert_eq!(blobs(&sandbox).len(), 4);
    let again = add(&sandbox, &one, &["--name", "ME/model", "--copy"]);
    assert_eq!((&again["reference"], &again["already_known"]), (&"me/model".into(), &true.into()));
}

#[test]
fn a_hugging_face_snapshot_brings_its_name_and_commit() {
    let sandbox = Sandbox::new();
    let first = place_in_hub(&sandbox, "llama_tied", "models--org--tiny-model", COMMIT);
    let added = add(&sandbox, &first, &[]);
    assert_eq!(added["reference"], "org/tiny-model");
    assert_eq!(added["revision"], COMMIT);
    assert_eq!(added["origin"], "hf");
    // Another commit of the same repository stands beside it, and comes first.
    let other = COMMIT.replace("12f", "22f");
    let second = place_in_hub(&sandbox, "llama_untied", "models--org--tiny-model", &other);
    add(&sandbox, &second, &[]);
    assert_eq!(names(&listed(&sandbox)), ["org/tiny-model", "org/tiny-model"]);
    assert_eq!(data(&sandbox, &["show", "org/tiny-model"])["revision"], other.as_str());
    assert_eq!(data(&sandbox, &["show", "org/tiny-model@12fd25f"])["revision"], COMMIT);
    refused(&sandbox, &["show", "org/tiny-model@32fd25f"], "MODEL_NOT_FOUND", "org/tiny-model@32fd25f");
    let listed = data(&sandbox, &["list", "--source", "hf"]);
    assert_eq!(listed["models"].as_array().expect("a list").len(), 2);

    let copied = add(&sandbox, &first, &["--copy"]);
    let place = sandbox.store().join("models/huggingface.co/org/tiny-model").join(COMMIT);
    assert_eq!(copied["path"], place.to_str().expect("UTF-8"));
    assert!(fs::symlink_metadata(first.join("config.json")).expect("still there").is_symlink());
}

#[test]
fn a_folder_of_lm_studio_brings_its_name() {
    let sandbox = Sandbox::new();
    let file = place(&sandbox, "gguf/llama_Q8_0.gguf", ".lmstudio/models/pub/My Model/llama-Q8_0.gguf");
    let added = add(&sandbox, file.parent().expect("a folder"), &[]);
    assert_eq!(added["reference"], "lmstudio:pub/My Model");
    assert_eq!(added["origin"], "lmstudio");
    assert_eq!(data(&sandbox, &["show", "lmstudio:pub/my model"])["path"], file.to_str().expect("UTF-8"));
    let copied = add(&sandbox, &file, &["--copy"]);
    assert!(copied["path"].as_str().expect("a path").contains("models/lmstudio/pub/My Model/"), "{copied}");
}

#[test]
fn an_embedding_model_is_one() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "encoder");
    fs::write(model.join("modules.json"), r#"[{"path": ""}, {"path": "1_Pooling"}]"#).expect("written");
    fs::create_dir(model.join("1_Pooling")).expect("a folder");
    fs::write(model.join("1_Pooling/config.json"), "{}").expect("written");
    let added = add(&sandbox, &model, &["--copy"]);
    let path = Path::new(added["path"].as_str().expect("a path"));
    assert_eq!(fs::read(path.join("1_Pooling/config.json")).expect("a link"), b"{}");
    let shown = data(&sandbox, &["show", "encoder"]);
    assert_eq!(shown["kind"], "embedding");
    assert_eq!(shown["runnable"], false);
    let listed = data(&sandbox, &["list", "--kind", "embedding"]);
    assert_eq!(listed["models"].as_array().expect("a list").len(), 1);
}

#[test]
fn several_are_added_at_once_or_none() {
    let sandbox = Sandbox::new();
    place(&sandbox, "llama_tied", "one");
    place(&sandbox, "gguf/llama_Q4_0.gguf", "two.gguf");
    refused(&sandbox, &["add", "one", "absent", "two.gguf"], "FILE_NOT_FOUND", "absent");
    assert!(!sandbox.store().exists());
    refused(&sandbox, &["add", "one", "two.gguf", "--name", "me/x"], "INVALID_REQUEST", "one name");
    let added = data(&sandbox, &["add", "one", "two.gguf"]);
    assert_eq!(added["models"].as_array().expect("a list").len(), 2);
    assert_eq!(names(&listed(&sandbox)), ["local/one", "local/two"]);
}

#[test]
fn links_that_go_in_circles_or_nowhere_are_told() {
    let sandbox = Sandbox::new();
    for (target, told) in [("model.safetensors", "model.safetensors"), ("absent", "model.safetensors")] {
        let model = place(&sandbox, "llama_tied", told);
        fs::remove_file(model.join("model.safetensors")).expect("gone");
        symlink(target, model.join("model.safetensors")).expect("linked");
        let (status, error) = sandbox.error(&["add", model.to_str().expect("UTF-8")]);
        assert!(matches!(status, 1 | 3 | 4), "{error}");
        assert!(error["message"].as_str().expect("a text").contains("model.safetensors"), "{error}");
        fs::remove_dir_all(model).expect("gone");
    }
    let circle = sandbox.home().join("circle");
    symlink("circle", &circle).expect("linked");
    assert!(matches!(sandbox.error(&["add", "circle"]).0, 1 | 3));
    assert!(!sandbox.store().exists());
}

#[test]
fn a_link_that_leads_nowhere_among_a_models_files_is_told() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "tiny");
    fs::remove_file(model.join("tokenizer_config.json")).expect("gone");
    symlink("absent", model.join("tokenizer_config.json")).expect("linked");
    let outcome = sandbox.run(&["add", "tiny"]);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert!(outcome.stderr.starts_with("warning: "), "{outcome:?}");
    assert!(outcome.stderr.contains("tokenizer_config.json") && outcome.stderr.contains("leads nowhere"));
    assert_eq!(sandbox.run(&["add", "tiny", "--quiet"]).stderr, "");
}
