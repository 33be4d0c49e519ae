//! `list`: what is known, in every order and form.

use super::*;

#[test]
fn nothing_is_an_empty_list_and_makes_nothing() {
    let sandbox = Sandbox::new();
    assert_eq!(data(&sandbox, &["list"]), serde_json::json!({"models": [], "total_bytes": 0}));
    assert!(succeeded(sandbox.run(&["list"])).contains("mlx-cache add PATH"));
    assert_eq!(succeeded(sandbox.run(&["list", "--format", "names"])), "");
    assert!(!sandbox.store().exists());
}

#[test]
fn order_and_filters() {
    let sandbox = Sandbox::new();
    let small = place(&sandbox, "gguf/llama_Q4_0.gguf", "b.gguf");
    let large = place(&sandbox, "llama_tied", "a");
    add(&sandbox, &small, &["--copy"]);
    add(&sandbox, &large, &[]);
    let listed = |flags: &[&str]| {
        let data = data(&sandbox, &[&["list"], flags].concat());
        names(data["models"].as_array().expect("a list")).join(" ")
    };
    assert_eq!(listed(&[]), "local/a local/b");
    assert_eq!(listed(&["--reverse"]), "local/b local/a");
    assert_eq!(listed(&["--sort", "size"]), "local/a local/b");
    assert_eq!(listed(&["--sort", "added"]), "local/a local/b");
    assert_eq!(listed(&["--sort", "added", "--reverse"]), "local/b local/a");
    assert_eq!(listed(&["--source", "store"]), "local/b");
    assert_eq!(listed(&["--source", "folder"]), "local/a");
    assert_eq!(listed(&["--source", "hf"]), "");
    assert_eq!(listed(&["--kind", "generation"]), "local/a local/b");
    assert_eq!(listed(&["--kind", "embedding"]), "");
}

#[test]
fn tables_names_and_comma_separated_values() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "gguf/llama_Q4_0.gguf", "comma, \"quote\"/tiny.gguf");
    let bytes = fs::metadata(&model).expect("a file").len();
    add(&sandbox, &model, &[]);
    let table = succeeded(sandbox.run(&["list"]));
    for part in ["MODEL", "local/tiny", "llama", "Q4_0", "53.0 kB", "never", "1 model"] {
        assert!(table.contains(part), "no {part} in {table}");
    }
    assert_eq!(succeeded(sandbox.run(&["list", "--format", "names"])), "local/tiny\n");
    let csv = succeeded(sandbox.run(&["list", "--format", "csv"]));
    let (head, row) = csv.trim_end().split_once('\n').expect("two lines");
    assert!(head.starts_with("reference,revision,kind"), "{head}");
    assert_eq!(head.split(',').count(), 13);
    assert!(row.starts_with("local/tiny,"), "{row}");
    assert!(row.contains(&format!(",{bytes},1,folder,ok,")), "{row}");
    assert!(row.ends_with("/comma, \"\"quote\"\"/tiny.gguf\""), "{row}");
}

#[test]
fn a_model_whose_files_are_gone_is_missing() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "tiny");
    add(&sandbox, &model, &[]);
    fs::remove_dir_all(model).expect("gone");
    assert_eq!(listed(&sandbox)[0]["status"], "missing");
    assert!(succeeded(sandbox.run(&["list"])).contains("local/tiny (missing)"));
    refused(&sandbox, &["path", "tiny"], "FILE_NOT_FOUND", "local/tiny");
    let shown = data(&sandbox, &["show", "tiny"]);
    assert_eq!((&shown["status"], &shown["runnable"]), (&"missing".into(), &false.into()));
}

#[test]
fn a_thousand_models_are_all_there() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "gguf/llama_Q4_0.gguf", "m.gguf");
    let bytes = add(&sandbox, &model, &["--name", "org/m0000"])["bytes"].as_u64().expect("a size");
    let database = rusqlite::Connection::open(sandbox.store().join("registry.db")).expect("a database");
    database
        .execute_batch(
            "BEGIN;
             WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 999)
             INSERT INTO models (reference, host, org, name)
                 SELECT printf('org/m%04d', i), 'local', 'org', printf('m%04d', i) FROM n;
             INSERT INTO snapshots SELECT NULL, m.id, s.revision, s.origin, s.stored, s.root, s.entry, s.kind,
                 s.architecture, s.parameters, s.quantization, s.context_length, s.bytes, s.file_count,
                 s.added_at, s.last_used_at
                 FROM models m, snapshots s WHERE m.id <> s.model_id;
             COMMIT",
        )
        .expect("a thousand rows");
    drop(database);
    let list = data(&sandbox, &["list"]);
    let models = list["models"].as_array().expect("a list");
    let expected: Vec<String> = (0..1000).map(|at| format!("org/m{at:04}")).collect();
    assert_eq!(names(models), expected);
    assert_eq!(list["total_bytes"], bytes * 1000);
    assert_eq!(data(&sandbox, &["show", "m0777"])["reference"], "org/m0777");
    let error = refused(&sandbox, &["show", "m07"], "MODEL_AMBIGUOUS", "and 92 more");
    assert_eq!(error["details"]["matches"].as_array().expect("a list").len(), 100);
}
