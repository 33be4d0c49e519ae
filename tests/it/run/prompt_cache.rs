//! Prompt caches in files.

use std::fs;

use super::*;

const BEGIN: &str = "the cat is in the rain and not on the train. ";

fn answer(home: &Sandbox, model: &str, prompt: &str, args: &[&str]) -> Value {
    data(&run(home, &[&[model, prompt, "--raw", "--temp", "0", "-n", "12", "--json"], args].concat()))
}

#[test]
fn a_prompt_is_computed_once_and_its_answer_stays_the_same() {
    let home = Sandbox::new();
    // A name alone, in the current folder.
    let path = home.home().join("prompt.cache");
    let kept = ["--prompt-cache", "prompt.cache"];
    for model in [tiny(), tiny().replace("llama_tied", "mistral_window")] {
        let _ = fs::remove_file(&path);
        let (first, second) = (format!("{BEGIN}where is the cat"), format!("{BEGIN}why"));
        let plain = answer(&home, &model, &first, &[]);
        let cold = answer(&home, &model, &first, &kept);
        assert_eq!((&cold["text"], &cold["usage"]["cached_tokens"]), (&plain["text"], &serde_json::json!(0)));
        let warm = answer(&home, &model, &first, &kept);
        assert_eq!(warm["text"], plain["text"], "{model}");
        // All but the last token: its logits are needed.
        let tokens = warm["usage"]["prompt_tokens"].as_u64().expect("a count");
        assert_eq!(warm["usage"]["cached_tokens"].as_u64(), Some(tokens - 1), "{model}");
        // Another prompt that begins alike goes on from where they differ.
        let other = answer(&home, &model, &second, &kept);
        assert_eq!(other["text"], answer(&home, &model, &second, &[])["text"], "{model}");
        assert!(other["usage"]["cached_tokens"].as_u64() > Some(10), "{other}");
    }
}

#[test]
fn caches_of_fewer_bits_are_kept_as_they_are() {
    let home = Sandbox::new();
    let model = tiny().replace("llama_tied", "llama_head_dim");
    let mut sizes = Vec::new();
    for flags in
        [&["--kv-bits", "32"][..], &["--kv-bits", "16"], &["--kv-bits", "8", "--kv-group-size", "32"]]
    {
        let path = home.home().join(format!("prompt.{}", flags[1]));
        let kept = [flags, &["--prompt-cache", path.to_str().expect("UTF-8")]].concat();
        let cold = answer(&home, &model, BEGIN, &kept);
        let warm = answer(&home, &model, BEGIN, &kept);
        assert_eq!(warm["text"], cold["text"], "{flags:?}");
        assert_eq!(warm["text"], answer(&home, &model, BEGIN, flags)["text"], "{flags:?}");
        assert!(warm["usage"]["cached_tokens"].as_u64() > Some(5));
        sizes.push(fs::metadata(&path).expect("a cache").len());
    }
    assert!(sizes[1] < sizes[0] * 6 / 10 && sizes[2] < sizes[1] * 8 / 10, "{sizes:?}");
    // A cache of other bits is other settings.
    let path = home.home().join("prompt.32");
    let kept = ["--kv-bits", "16", "--prompt-cache", path.to_str().expect("UTF-8")];
    let args = [&[&*model, BEGIN, "--raw", "--json"], &kept[..]].concat();
    assert_eq!(error(&run(&home, &args), 2)["code"], "INVALID_REQUEST");
}

#[test]
fn half_floats_leave_greedy_answers_as_they_are() {
    let home = Sandbox::new();
    for name in ["llama_tied", "mistral_window", "llama_head_dim", "quant_mixed"] {
        let model = tiny().replace("llama_tied", name);
        for flags in [&[][..], &["--max-kv-size", "12"], &["--draft", "lookup"]] {
            let of = |bits| answer(&home, &model, BEGIN, &[&["--kv-bits", bits], flags].concat());
            assert_eq!(of("16")["text"], of("32")["text"], "{name} {flags:?}");
        }
    }
}

#[test]
fn a_cache_of_another_model_or_other_settings_is_refused_and_stays() {
    let home = Sandbox::new();
    let (model, path) = (tiny(), home.home().join("prompt.cache"));
    let file = path.to_str().expect("UTF-8");
    answer(&home, &model, BEGIN, &["--prompt-cache", file]);
    let before = fs::read(&path).expect("a cache");
    let adapter = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/adapters/mlx");
    let adapter = adapter.to_str().expect("UTF-8");
    let other = tiny().replace("llama_tied", "llama_untied");
    for (name, args) in [
        ("another model", vec![other.as_str()]),
        ("an adapter", vec![&model, "--adapter", adapter]),
        ("other settings", vec![&model, "--max-kv-size", "64"]),
    ] {
        let args = [&args[..1], &[BEGIN, "--raw", "--json", "--prompt-cache", file], &args[1..]].concat();
        let error = error(&run(&home, &args), 2);
        assert_eq!(error["code"], "INVALID_REQUEST", "{name}");
        assert!(error["message"].as_str().expect("a text").contains("prompt.cache"), "{name}: {error}");
        assert_eq!(fs::read(&path).expect("still there"), before, "{name}");
    }
}

#[test]
fn what_is_no_cache_is_refused_and_not_replaced() {
    let home = Sandbox::new();
    let (model, path) = (tiny(), home.home().join("prompt.cache"));
    let file = path.to_str().expect("UTF-8");
    let weights = format!("{model}/model.safetensors");
    answer(&home, &model, BEGIN, &["--prompt-cache", file]);
    let whole = fs::read(&path).expect("a cache");
    let mut swapped = whole.clone();
    let at = whole.windows(5).position(|window| window == b"F16\",").expect("a type");
    swapped[at..at + 3].copy_from_slice(b"I16");
    for (name, content) in [
        ("a text", b"years of work".to_vec()),
        ("nothing", Vec::new()),
        ("weights", fs::read(weights).expect("weights")),
        ("half a cache", whole[..whole.len() / 2].to_vec()),
        ("another type", swapped),
    ] {
        fs::write(&path, &content).expect("written");
        let output = run(&home, &[&model, BEGIN, "--raw", "--json", "--prompt-cache", file]);
        let status = output.status.code().expect("a status");
        assert!(status == 2 || status == 4, "{name}: {output:?}");
        assert!(
            error(&output, status)["message"].as_str().expect("a text").contains("prompt.cache"),
            "{name}"
        );
        assert_eq!(fs::read(&path).expect("still there"), content, "{name}");
    }
}
