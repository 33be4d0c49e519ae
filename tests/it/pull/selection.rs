//! Which files of a repository a pull brings.

use super::*;
use crate::hub::noise;

/// A repository as they are: with weights in several formats, code, pictures and words.
fn crowded() -> Repository {
    let mut repository = Repository::tiny("org/crowded");
    for path in [
        "README.md",
        ".gitattributes",
        "LICENSE",
        "modeling_custom.py",
        "configuration_custom.py",
        "picture.png",
        "generation_config.json",
        "special_tokens_map.json",
        "vocab.json",
        "merges.txt",
        "vocab.txt",
        "chat_template.jinja",
        "1_Pooling/config.json",
        "modules.json",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
    ] {
        repository = repository.file(path, format!("{{\"this is\": \"{path}\"}}"));
    }
    for path in [
        "pytorch_model.bin",
        "tf_model.h5",
        "flax_model.msgpack",
        "rust_model.ot",
        "training_args.bin",
        "tokenizer.model",
    ] {
        repository = repository.large(path, format!("the content of {path}"));
    }
    repository
}

/// The files of a model as it is pulled with these flags.
fn pulled(repository: &Repository, args: &[&str]) -> Vec<String> {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(repository.clone()));
    let model = pull_one(&sandbox, &hub, args);
    let folder = folder(&model);
    let folder = if folder.is_file() { folder.parent().expect("a folder").to_owned() } else { folder };
    let paths: Vec<String> = files_of(&folder).into_keys().collect();
    assert_exact(&folder, repository, &paths.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(number(&model, "files"), paths.len() as u64, "{model}");
    let wanted: u64 = paths.iter().map(|path| repository.content(path).len() as u64).sum();
    assert_eq!(number(&model, "bytes_total"), wanted, "{model}");
    assert_eq!(hub.traffic(), wanted, "more was fetched than is here");
    paths
}

#[test]
fn by_default_it_is_what_running_the_model_needs() {
    let repository = crowded();
    let paths = pulled(&repository, &["org/crowded"]);
    let has = |path: &str| paths.iter().any(|own| own == path);
    for path in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "generation_config.json",
        "special_tokens_map.json",
        "vocab.json",
        "merges.txt",
        "vocab.txt",
        "chat_template.jinja",
        "1_Pooling/config.json",
        "modules.json",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
    ] {
        assert!(has(path), "{path} is missing");
    }
    for path in [
        "modeling_custom.py",
        "configuration_custom.py",
        "pytorch_model.bin",
        "tf_model.h5",
        "flax_model.msgpack",
        "rust_model.ot",
        "training_args.bin",
        "picture.png",
        ".gitattributes",
        "README.md",
    ] {
        assert!(!has(path), "{path} is not needed");
    }
}

#[test]
fn everything_is_everything() {
    let repository = crowded();
    assert_eq!(pulled(&repository, &["org/crowded", "--all-files"]), repository.paths());
}

#[test]
fn globs_choose() {
    let repository = crowded().file("onnx/config.json", "{}").large("onnx/model.onnx", noise(1, 5000));
    for (flags, wanted) in [
        (
            &["--include", "*.json", "--exclude", "*config*"][..],
            &["modules.json", "special_tokens_map.json", "tokenizer.json", "vocab.json"][..],
        ),
        (&["--include", "onnx/*"], &["onnx/config.json", "onnx/model.onnx"]),
        (
            &["--include", "config.json", "--include", "tokenizer.*"],
            &["config.json", "tokenizer.json", "tokenizer.model"],
        ),
        (&["--include", "README.md"], &["README.md"]),
        (&["--include", "*_custom.py"], &["configuration_custom.py", "modeling_custom.py"]),
    ] {
        let mut paths = pulled(&repository, &[&["org/crowded"], flags].concat());
        if flags[0] == "--include" && flags[1] == "*.json" {
            // As in the shell and in hf, a star may stand for folders too.
            paths.retain(|path| !path.contains('/'));
        }
        assert_eq!(paths, wanted, "{flags:?}");
    }
    let without =
        pulled(&repository, &["org/crowded", "--exclude", "*.safetensors", "--exclude", "1_Pooling/*"]);
    assert!(
        without.iter().all(|path| !path.ends_with(".safetensors") && !path.starts_with("1_Pooling")),
        "{without:?}"
    );
    assert!(without.iter().any(|path| path == "config.json"));
    let (sandbox, hub) = (Sandbox::new(), Hub::with(repository));
    for bad in ["[", "a{b", "***/["] {
        refused(&sandbox, &hub, &["org/crowded", "--include", bad], &["INVALID_REQUEST"]);
    }
    assert_eq!(hub.traffic(), 0);
}

#[test]
fn weights_come_in_one_format() {
    // What nobody here can load is not fetched without being asked for.
    let repository =
        Repository::new("org/old").file("config.json", "{}").large("pytorch_model.bin", noise(1, 4000));
    let (sandbox, hub) = (Sandbox::new(), Hub::with(repository.clone()));
    refused(&sandbox, &hub, &["org/old"], &["MODEL_UNSUPPORTED"]);
    assert_eq!(hub.traffic(), 0);
    assert_eq!(pulled(&repository, &["org/old", "--all-files"]), ["config.json", "pytorch_model.bin"]);
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    let repository = Repository::new("org/sharded")
        .file("config.json", "{}")
        .file("model.safetensors.index.json", index)
        .large("model-00001-of-00002.safetensors", noise(1, 4000))
        .large("model-00002-of-00002.safetensors", noise(2, 4000))
        .file("pytorch_model.bin.index.json", "{\"weight_map\": {}}")
        .large("pytorch_model-00001-of-00001.bin", noise(3, 4000))
        .large("consolidated.safetensors", noise(4, 8000));
    let paths = pulled(&repository, &["org/sharded"]);
    assert!(paths.iter().any(|path| path == "model-00002-of-00002.safetensors"), "{paths:?}");
    assert!(!paths.iter().any(|path| ends(path, "bin")), "{paths:?}");
}

/// A repository of GGUF files, as there are many.
fn quantized() -> Repository {
    let tiny = |name: &str| {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny/gguf").join(name))
            .expect("a fixture")
    };
    Repository::new("org/tiny-GGUF")
        .file("README.md", "words")
        .file("config.json", "{}")
        .large("tiny-Q4_0.gguf", tiny("llama_Q4_0.gguf"))
        .large("tiny-Q8_0.gguf", tiny("llama_Q8_0.gguf"))
        .large("tiny-F16.gguf", tiny("llama_F16.gguf"))
        .large("tiny-Q4_K_M.gguf", noise(1, 3000))
}

#[test]
fn a_tag_means_one_gguf_file() {
    for (reference, file) in [
        ("org/tiny-GGUF:Q4_0", "tiny-Q4_0.gguf"),
        ("org/tiny-GGUF:q8_0", "tiny-Q8_0.gguf"),
        ("hf.co/org/tiny-GGUF:F16", "tiny-F16.gguf"),
        ("org/tiny-GGUF:tiny-Q8_0.gguf", "tiny-Q8_0.gguf"),
        ("https://huggingface.co/org/tiny-GGUF/blob/main/tiny-Q4_0.gguf", "tiny-Q4_0.gguf"),
        ("https://huggingface.co/org/tiny-GGUF/resolve/main/tiny-Q4_0.gguf", "tiny-Q4_0.gguf"),
    ] {
        let paths = pulled(&quantized(), &[reference]);
        let weights: Vec<_> = paths.iter().filter(|path| ends(path, "gguf")).collect();
        assert_eq!(weights, [file], "{reference}");
        assert!(!paths.iter().any(|path| path == "README.md"));
    }
}

#[test]
fn two_tags_of_one_repository_stand_beside_each_other() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(quantized()));
    pull(&sandbox, &hub, &["org/tiny-GGUF:Q4_0"]);
    pull(&sandbox, &hub, &["org/tiny-GGUF:Q8_0"]);
    for tag in ["Q4_0", "Q8_0"] {
        let reference = format!("org/tiny-GGUF:{tag}");
        let outcome = sandbox.run(&["run", &reference, "hello", "--max-tokens", "1"]);
        assert_eq!(outcome.status, 0, "{reference}: {outcome:?}");
        let path = sandbox.run(&["path", &reference]).stdout;
        assert!(path.contains(&format!("tiny-{tag}.gguf")), "{reference}: {path}");
    }
}

#[test]
fn a_tag_means_all_parts_of_a_split_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny/gguf");
    let mut repository = Repository::new("org/split-GGUF")
        .file("config.json", "{}")
        .large("tiny-Q4_0.gguf", quantized().content("tiny-Q4_0.gguf"));
    for number in 1..=3 {
        let content = fs::read(folder.join(format!("split/llama_Q8_0-0000{number}-of-00003.gguf")));
        let path = format!("Q8_0/tiny-Q8_0-0000{number}-of-00003.gguf");
        repository = repository.large(&path, content.expect("a fixture"));
    }
    let (sandbox, hub) = (Sandbox::new(), Hub::with(repository));
    let reference = "org/split-GGUF:Q8_0";
    let model = pull_one(&sandbox, &hub, &[reference]);
    assert_eq!(number(&model, "files"), 3, "{model}");
    let works = || {
        let path = sandbox.run(&["path", reference]).stdout;
        assert!(path.trim_end().ends_with("Q8_0/tiny-Q8_0-00001-of-00003.gguf"), "{path}");
        let outcome = sandbox.run(&["run", reference, "hello", "--max-tokens", "1"]);
        assert_eq!(outcome.status, 0, "{outcome:?}");
    };
    works();
    assert_eq!(sandbox.run(&["run", "org/split-GGUF", "hello", "--max-tokens", "1"]).status, 0);
    // Beside another quantization the tag still means all parts.
    pull(&sandbox, &hub, &["org/split-GGUF:Q4_0"]);
    works();
}

#[test]
fn several_gguf_files_and_no_tag_are_a_question() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(quantized()));
    let outcome = run(&mut command(&sandbox, &hub, &["org/tiny-GGUF"]));
    let envelope = crate::sandbox::envelope(&outcome.stdout);
    if outcome.status == 0 {
        // One was chosen, not all of them.
        let folder = folder(&envelope["data"]["models"][0]);
        let folder = if folder.is_file() { folder.parent().expect("a folder").to_owned() } else { folder };
        let weights = files_of(&folder).into_keys().filter(|path| ends(path, "gguf")).count();
        assert_eq!(weights, 1);
    } else {
        let error = &envelope["error"];
        assert_eq!(error["code"], "MODEL_AMBIGUOUS", "{error}");
        assert!(error.to_string().contains("Q4_K_M") && error.to_string().contains("Q8_0"), "{error}");
    }
    in_order(&sandbox);
}

fn ends(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|own| own == extension)
}
