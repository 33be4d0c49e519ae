//! How models are found by what people write.

use super::*;

fn shown(sandbox: &Sandbox, reference: &str) -> String {
    data(sandbox, &["show", reference])["reference"].as_str().expect("a name").to_owned()
}

#[test]
fn a_full_name_comes_before_names_that_hold_it() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "gguf/llama_Q4_0.gguf", "m.gguf");
    for name in ["local/tiny", "local/tiny-2", "org/tiny-3"] {
        add(&sandbox, &model, &["--name", name]);
    }
    for (reference, name) in [
        ("local/tiny", "local/tiny"),
        ("LOCAL/Tiny", "local/tiny"),
        ("tiny", "local/tiny"),
        ("TINY-2", "local/tiny-2"),
        ("org/", "org/tiny-3"),
        ("y-3", "org/tiny-3"),
        ("g/tiny", "org/tiny-3"),
        ("tiny:Q4_0@", ""),
    ] {
        if name.is_empty() {
            refused(&sandbox, &["show", reference], "INVALID_REQUEST", reference);
        } else {
            assert_eq!(shown(&sandbox, reference), name, "{reference}");
        }
    }
    for reference in ["local/", "iny", "-"] {
        let error = refused(&sandbox, &["show", reference], "MODEL_AMBIGUOUS", reference);
        assert!(error["details"]["matches"].as_array().expect("a list").len() >= 2, "{error}");
    }
    let error = refused(&sandbox, &["show", "tinny"], "MODEL_NOT_FOUND", "tinny");
    assert!(error["hint"].as_str().expect("a hint").contains("local/tiny"), "{error}");
}

#[test]
fn a_tag_or_revision_narrows_a_name() {
    let sandbox = Sandbox::new();
    let file = place(&sandbox, "gguf/llama_Q4_0.gguf", "llama-Q4_0.gguf");
    let added = add(&sandbox, &file, &["--name", "org/m"]);
    let revision = added["revision"].as_str().expect("a revision");
    for reference in ["org/m:Q4_0", "m:q4_0", "hf.co/org/m:Q4_0", "m:llama-Q4_0.gguf"] {
        assert_eq!(shown(&sandbox, reference), "org/m", "{reference}");
    }
    assert_eq!(shown(&sandbox, &format!("org/m@{}", &revision[..7])), "org/m");
    assert_eq!(shown(&sandbox, &format!("https://huggingface.co/org/m/tree/{revision}")), "org/m");
    for reference in ["org/m:Q8_0", "org/m:Q4_K_M", "org/m@1234567"] {
        refused(&sandbox, &["show", reference], "MODEL_NOT_FOUND", reference);
    }
    // A folder whose files are not those of one GGUF knows only its own.
    let folder = place(&sandbox, "llama_tied", "folder");
    add(&sandbox, &folder, &[]);
    refused(&sandbox, &["path", "local/folder:Q4_0"], "FILE_NOT_FOUND", "Q4_0");
}

#[test]
fn aliases_of_the_user_come_before_everything() {
    let sandbox = Sandbox::new();
    let file = place(&sandbox, "gguf/llama_Q4_0.gguf", "m.gguf");
    let folder = place(&sandbox, "llama_tied", "models/folder");
    sandbox.config(
        "[aliases]\nmine = 'org/real'\nplace = '~/models/folder'\ngone = 'org/absent'\nsmollm2 = 'org/real:m.gguf'\n",
    );
    add(&sandbox, &file, &["--name", "org/real"]);
    add(&sandbox, &file, &["--name", "org/mine"]);
    assert_eq!(shown(&sandbox, "mine"), "org/real");
    assert_eq!(shown(&sandbox, "smollm2"), "org/real");
    assert_eq!(shown(&sandbox, "place"), folder.to_str().expect("UTF-8"));
    refused(&sandbox, &["show", "gone"], "MODEL_NOT_FOUND", "gone");
}

#[test]
fn short_names_that_everybody_knows_find_their_model() {
    let sandbox = Sandbox::new();
    let file = place(&sandbox, "gguf/llama_Q4_0.gguf", "m.gguf");
    add(&sandbox, &file, &["--name", "HuggingFaceTB/SmolLM2-135M-Instruct"]);
    add(&sandbox, &file, &["--name", "other/smollm2-135m-instruct-finetuned"]);
    assert_eq!(shown(&sandbox, "smollm2"), "HuggingFaceTB/SmolLM2-135M-Instruct");
    refused(&sandbox, &["show", "smollm"], "MODEL_AMBIGUOUS", "smollm");
}

#[test]
fn paths_work_whether_they_are_known_or_not() {
    let sandbox = Sandbox::new();
    let folder = place(&sandbox, "llama_tied", "models/folder");
    let path = folder.to_str().expect("UTF-8");
    let forms = ["models/folder", "./models/folder/", "models/../models/./folder", "~/models/folder", path];
    for form in forms {
        assert_eq!(succeeded(sandbox.run(&["path", form])).trim_end(), path, "{form}");
        assert_eq!(data(&sandbox, &["show", form])["origin"], "path");
    }
    add(&sandbox, Path::new("models/../models/folder/"), &[]);
    assert_eq!(listed(&sandbox)[0]["path"], path);
    for form in forms {
        assert_eq!(shown(&sandbox, form), "local/folder", "{form}");
    }
    for absent in ["./absent", "/absent/model.gguf", "absent.gguf", "~/absent"] {
        refused(&sandbox, &["show", absent], "MODEL_NOT_FOUND", absent);
    }
}

#[test]
fn a_path_needs_no_registry() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "tiny");
    add(&sandbox, &model, &["--copy"]);
    let registry = sandbox.store().join("registry.db");
    let database = rusqlite::Connection::open(&registry).expect("a database");
    database.pragma_update(None, "user_version", 999).expect("changed");
    drop(database);
    let full = model.to_str().expect("UTF-8");
    for reference in ["./tiny", full] {
        assert_eq!(shown(&sandbox, reference), full);
    }
    refused(&sandbox, &["show", "tiny"], "INVALID_REQUEST", "999");
    fs::write(&registry, "no database").expect("written");
    assert_eq!(shown(&sandbox, full), full);
    refused(&sandbox, &["show", "local/tiny"], "INTEGRITY_FAILED", "registry.db");
}
