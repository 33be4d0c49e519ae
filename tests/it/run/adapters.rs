//! LoRA adapters.

use std::fs;

use super::*;

fn adapter(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/adapters").join(name);
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn an_adapter_changes_the_answer_whichever_tool_has_saved_it() {
    let home = Sandbox::new();
    let model = tiny();
    let answer = |flags: &[&str]| {
        let args = [&model, "the cat", "--raw", "--temp", "0", "-n", "12", "--json"];
        data(&run(&home, &[&args[..], flags].concat()))["text"].as_str().expect("a text").to_owned()
    };
    let plain = answer(&[]);
    let adapted = answer(&["--adapter", &adapter("mlx")]);
    assert_ne!(plain, adapted);
    assert_eq!(adapted, answer(&["--adapter", &adapter("peft")]));
    assert_eq!(adapted, answer(&["--adapter", &format!("{}/adapters.safetensors", adapter("mlx"))]));
}

#[test]
fn an_adapter_of_another_model_or_none_is_told_by_its_path() {
    let home = Sandbox::new();
    let model = tiny();
    let refused =
        |path: &str, status: i32| error(&run(&home, &[&model, "Hi", "--adapter", path, "--json"]), status);
    let other = refused(&adapter("quantized"), 2);
    assert_eq!(other["code"], "INVALID_REQUEST");
    assert!(other["message"].as_str().expect("a text").contains("adapters/quantized"), "{other}");
    assert_eq!(refused(&adapter("none"), 3)["code"], "FILE_NOT_FOUND");
    assert_eq!(refused(&tiny(), 3)["code"], "FILE_NOT_FOUND");

    let copy = home.home().join("adapter");
    let path = copy.to_str().expect("UTF-8");
    let fresh = |change: &dyn Fn(&mut String)| {
        fs::create_dir_all(&copy).expect("a folder");
        fs::copy(format!("{}/adapters.safetensors", adapter("mlx")), copy.join("adapters.safetensors"))
            .expect("a copy");
        let mut config =
            fs::read_to_string(format!("{}/adapter_config.json", adapter("mlx"))).expect("a configuration");
        change(&mut config);
        fs::write(copy.join("adapter_config.json"), config).expect("written");
    };
    for (change, status) in [
        (("\"lora\"", "\"dora\""), 7),
        (("\"lora\"", "\"full\""), 7),
        (("\"scale\": 2.5", "\"alpha\": 2.5"), 4),
        (("2.5", "1e999"), 4),
        (("{", "["), 4),
    ] {
        fresh(&|config| *config = config.replacen(change.0, change.1, 1));
        refused(path, status);
    }
    fresh(&|_| ());
    let weights = fs::read(copy.join("adapters.safetensors")).expect("weights");
    fs::write(copy.join("adapters.safetensors"), &weights[..weights.len() / 2]).expect("cut");
    assert_eq!(refused(path, 4)["code"], "INTEGRITY_FAILED");
    // The first value of the last tensor becomes infinite.
    let mut broken = weights.clone();
    let end = broken.len();
    broken[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(copy.join("adapters.safetensors"), &broken).expect("broken");
    assert_eq!(refused(path, 4)["code"], "INTEGRITY_FAILED");
    let renamed = String::from_utf8_lossy(&weights[..3000]).replace("up_proj.lora_a", "up_prox.lora_a");
    assert!(renamed.contains("up_prox"));
    let mut broken = weights.clone();
    let at = weights.windows(14).position(|name| name == b"up_proj.lora_a").expect("there");
    broken[at + 6] = b'x';
    let at = weights.windows(14).position(|name| name == b"up_proj.lora_b").expect("there");
    broken[at + 6] = b'x';
    fs::write(copy.join("adapters.safetensors"), &broken).expect("broken");
    let unknown = refused(path, 2);
    assert!(unknown["message"].as_str().expect("a text").contains("up_prox"), "{unknown}");
}

#[test]
fn what_is_meant_for_experts_is_not_added_to_a_plain_matrix() {
    let home = Sandbox::new();
    let copy = home.home().join("adapter");
    fs::create_dir_all(&copy).expect("a folder");
    let from = PathBuf::from(adapter("mlx"));
    fs::copy(from.join("adapter_config.json"), copy.join("adapter_config.json")).expect("a copy");
    let file = fs::read(from.join("adapters.safetensors")).expect("an adapter");
    let (length, rest) = file.split_first_chunk().expect("a header");
    let (header, numbers) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: Value = serde_json::from_slice(header).expect("JSON");
    // As many numbers, of one expert.
    for (part, shape) in [("lora_a", [1, 4, 96]), ("lora_b", [1, 64, 4])] {
        header[format!("model.layers.0.mlp.down_proj.{part}")]["shape"] = Value::from(shape.to_vec());
    }
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    fs::write(copy.join("adapters.safetensors"), [&length, header.as_bytes(), numbers].concat())
        .expect("written");

    let told = error(&run(&home, &[&tiny(), "Hi", "--adapter", copy.to_str().expect("UTF-8"), "--json"]), 2);
    assert_eq!(told["code"], "INVALID_REQUEST");
    let message = told["message"].as_str().expect("a text");
    assert!(
        message.contains("down_proj is [64, 96], for which it has 1 times [64, 4] and [4, 96]"),
        "{message}"
    );
}
