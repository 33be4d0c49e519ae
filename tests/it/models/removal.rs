//! `rm`: what goes, what stays, and what is asked.

use super::*;

#[test]
fn an_adopted_model_is_forgotten_and_its_files_stay() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "tiny");
    add(&sandbox, &model, &[]);
    let before = fs::read_dir(&model).expect("a folder").count();
    let removed = data(&sandbox, &["rm", "tiny", "--yes"]);
    assert_eq!(removed["removed"][0]["reference"], "local/tiny");
    assert_eq!(removed["bytes_freed"], 0);
    assert_eq!(removed["kept"][0]["reference"], "local/tiny");
    assert!(
        removed["kept"][0]["reason"].as_str().expect("a reason").contains(model.to_str().expect("UTF-8"))
    );
    assert_eq!(fs::read_dir(&model).expect("a folder").count(), before);
    assert!(listed(&sandbox).is_empty());
}

#[test]
fn a_copy_goes_but_for_what_others_use() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "one");
    let bytes = add(&sandbox, &model, &["--copy"])["bytes"].as_u64().expect("a size");
    let other = place(&sandbox, "llama_tied", "two");
    fs::write(other.join("tokenizer_config.json"), "{}").expect("written");
    add(&sandbox, &other, &["--copy"]);
    let own = fs::metadata(model.join("tokenizer_config.json")).expect("a file").len();
    assert_eq!(blobs(&sandbox).len(), 5);

    let plan = data(&sandbox, &["rm", "one", "--dry-run"]);
    assert_eq!((&plan["dry_run"], &plan["bytes_freed"]), (&true.into(), &own.into()));
    assert_eq!(plan["kept"][0]["reference"], "local/one");
    assert_eq!(names(&listed(&sandbox)), ["local/one", "local/two"]);

    let removed = data(&sandbox, &["rm", "one", "-y"]);
    assert_eq!(removed["bytes_freed"], own);
    assert_eq!(blobs(&sandbox).len(), 4);
    assert_eq!(data(&sandbox, &["show", "two"])["runnable"], true);
    let removed = data(&sandbox, &["rm", "two", "--yes"]);
    assert_eq!(removed["bytes_freed"], bytes - own + 2);
    assert!(blobs(&sandbox).is_empty());
    assert_eq!(fs::read_dir(sandbox.store().join("models")).expect("a folder").count(), 0);
}

#[test]
fn without_a_terminal_it_must_be_said_beforehand() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "tiny");
    add(&sandbox, &model, &["--copy"]);
    let outcome = sandbox.run(&["rm", "tiny"]);
    assert_eq!(outcome.status, 2, "{outcome:?}");
    assert!(outcome.stderr.contains("would delete local/tiny"), "{outcome:?}");
    assert!(outcome.stderr.contains("--yes"), "{outcome:?}");
    refused(&sandbox, &["rm", "tiny"], "INVALID_REQUEST", "terminal");
    assert_eq!(listed(&sandbox).len(), 1);
}

#[test]
fn a_name_means_all_its_revisions_and_a_revision_only_itself() {
    let sandbox = Sandbox::new();
    let commits = [COMMIT.to_owned(), COMMIT.replace("12f", "22f"), COMMIT.replace("12f", "32f")];
    for (fixture, commit) in ["llama_tied", "llama_untied", "llama_gqa"].into_iter().zip(&commits) {
        let snapshot = place_in_hub(&sandbox, fixture, "models--org--tiny", commit);
        add(&sandbox, &snapshot, &["--copy"]);
    }
    data(&sandbox, &["rm", "org/tiny@22fd25f", "--yes"]);
    let listed_revisions: Vec<_> = listed(&sandbox).iter().map(|model| model["revision"].clone()).collect();
    assert_eq!(listed_revisions, [commits[2].as_str(), commits[0].as_str()]);
    let removed = data(&sandbox, &["rm", "tiny", "--yes"]);
    assert_eq!(removed["removed"].as_array().expect("a list").len(), 2);
    assert!(listed(&sandbox).is_empty() && blobs(&sandbox).is_empty());
}

#[test]
fn several_go_at_once_or_none() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "one");
    add(&sandbox, &model, &["--name", "org/a"]);
    add(&sandbox, &model, &["--name", "org/b", "--copy"]);
    refused(&sandbox, &["rm", "org/a", "org/absent", "--yes"], "MODEL_NOT_FOUND", "org/absent");
    refused(&sandbox, &["rm", "./one/config.json", "--yes"], "MODEL_NOT_FOUND", "config.json");
    assert_eq!(listed(&sandbox).len(), 2);
    let removed = data(&sandbox, &["rm", "org/a", "org/b", "ORG/A", "--yes"]);
    assert_eq!(removed["removed"].as_array().expect("a list").len(), 2);
    refused(&sandbox, &["rm", "org/a", "--yes"], "MODEL_NOT_FOUND", "org/a");
    assert!(model.join("model.safetensors").exists());
}

#[test]
fn content_that_other_tools_files_lead_to_is_not_taken_from_them() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "tiny");
    add(&sandbox, &model, &["--copy", "--name", "org/a"]);
    let weights = sha256(&fs::read(model.join("model.safetensors")).expect("a file"));
    let path = sandbox.home().join("other-tool/model.safetensors");
    let database = rusqlite::Connection::open(sandbox.store().join("registry.db")).expect("a database");
    database
        .execute(
            "INSERT INTO links (source, root, path, digest, bytes, strategy, state, changed_at)
             VALUES ('folder', ?1, ?2, ?3, 5, 'symlink', 'done', 0)",
            [sandbox.home().to_str(), path.to_str(), Some(weights.as_str())],
        )
        .expect("a link");
    let error = refused(&sandbox, &["rm", "org/a", "--yes"], "LOCKED", "other-tool");
    assert!(error["hint"].as_str().expect("a hint").contains("--restore-links"), "{error}");
    assert_eq!(sandbox.error(&["rm", "org/a", "--yes"]).0, 9);
    assert_eq!(listed(&sandbox).len(), 1);
    // Another model has the content too: nobody loses it.
    add(&sandbox, &model, &["--copy", "--name", "org/b"]);
    data(&sandbox, &["rm", "org/a", "--yes"]);
    refused(&sandbox, &["rm", "org/b", "--yes"], "LOCKED", "other-tool");
    // What only the link uses stays whatever gc removes.
    database.execute("DELETE FROM models", []).expect("forgotten");
    fs::remove_dir_all(sandbox.store().join("models/local")).expect("removed");
    data(&sandbox, &["gc", "--yes"]);
    let left: Vec<_> = blobs(&sandbox);
    assert_eq!(left.len(), 1);
    assert!(left[0].ends_with(&weights));
}

#[test]
fn links_are_given_back_before_content_goes_when_asked_for() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "tiny");
    add(&sandbox, &model, &["--name", "org/source"]);
    let stored = PathBuf::from(
        add(&sandbox, &model, &["--copy", "--name", "org/a"])["path"].as_str().expect("a path"),
    );
    let folder = place(&sandbox, "llama_tied", ".lmstudio/models/someone/tiny");
    let weights = folder.join("model.safetensors");
    let whole = fs::read(&weights).expect("a file");
    data(&sandbox, &["dedupe", "--apply", "--yes", "--strategy", "symlink", "--min-size", "1"]);
    assert!(fs::symlink_metadata(&weights).expect("a link").is_symlink());
    data(&sandbox, &["verify", "--source", "store,lmstudio"]);

    let plan = data(&sandbox, &["rm", "org/a", "--restore-links", "--dry-run"]);
    assert!(plan["restored"].as_array().expect("a list").contains(&weights.to_str().into()), "{plan}");
    refused(&sandbox, &["rm", "org/a", "--yes"], "LOCKED", "tiny");
    // The content is damaged and repaired: the other tool's link leads to the good one.
    let blob = fs::canonicalize(stored.join("model.safetensors")).expect("a blob");
    fs::set_permissions(&blob, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("writable");
    fs::write(&blob, "damaged").expect("written");
    assert_eq!(fs::read(&weights).expect("a link"), b"damaged");
    let (status, _) = sandbox.json(&["verify", "--source", "lmstudio"]);
    assert_eq!(status, 4);
    data(&sandbox, &["verify", "--repair", "--yes"]);
    assert!(fs::read(&weights).expect("a link") == whole);

    let removed = data(&sandbox, &["rm", "org/a", "--restore-links", "--yes"]);
    assert!(removed["restored"].as_array().expect("a list").contains(&weights.to_str().into()), "{removed}");
    assert!(fs::symlink_metadata(&weights).expect("a file").is_file());
    assert!(fs::read(&weights).expect("a file") == whole);
    assert_eq!(names(&listed(&sandbox)), ["org/source"]);
    assert!(blobs(&sandbox).is_empty());
}
