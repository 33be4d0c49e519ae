//! Safetensors files: truncated, random, hostile.

use serde_json::json;

use super::*;

const FILE: &str = "model.safetensors";

/// Replaces the header by what `change` makes of it; the data stays.
fn header(model: &Path, change: impl FnOnce(&mut Value)) {
    let bytes = fs::read(model.join(FILE)).expect("a file");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let mut header = serde_json::from_slice(&bytes[8..8 + length]).expect("JSON");
    change(&mut header);
    raw(model, header.to_string().as_bytes(), &bytes[8 + length..]);
}

fn raw(model: &Path, header: &[u8], data: &[u8]) {
    let length = (header.len() as u64).to_le_bytes();
    whole(model, [&length, header, data].concat());
}

/// Replaces the whole file.
fn whole(model: &Path, bytes: impl AsRef<[u8]>) {
    fs::write(model.join(FILE), bytes).expect("written");
}

/// Gives a tensor a name that no model asks for.
fn rename(model: &Path) {
    header(model, |h| {
        let norm = h.as_object_mut().expect("an object").remove(NORM).expect("there");
        h["model.nrom.weight"] = norm;
    });
}

const NORM: &str = "model.norm.weight";

#[test]
fn a_file_cut_off_anywhere_is_damaged() {
    let sandbox = Sandbox::new();
    let model = copy_of("llama_tied", &sandbox);
    let whole = fs::read(model.join(FILE)).expect("a file");
    let length = u64::from_le_bytes(whole[..8].try_into().expect("8 bytes")) as usize;
    let data = 8 + length;
    let offsets = [0, 1, 7, 8, 9, 8 + length / 3, data - 1, data, data + 1, data + 4096]
        .into_iter()
        .chain((1..8).map(|eighth| whole.len() * eighth / 8))
        .chain([whole.len() - 4, whole.len() - 1]);
    for offset in offsets {
        fs::write(model.join(FILE), &whole[..offset]).expect("written");
        refused(&ask(&sandbox, &model), &format!("cut off at {offset}"), "INTEGRITY_FAILED", FILE);
    }
}

/// Numbers that are none cannot be seen in a header: they turn up in the logits.
#[test]
fn weights_that_are_not_numbers_end_greedy_and_sampled_answers() {
    for (number, temperature) in [(f32::NAN, "0"), (f32::NAN, "1"), (f32::INFINITY, "0")] {
        let sandbox = Sandbox::new();
        let model = copy_of("llama_tied", &sandbox);
        let mut bytes = fs::read(model.join(FILE)).expect("a file");
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("JSON");
        let offsets = &header[NORM]["data_offsets"];
        let at = |end: usize| 8 + length + offsets[end].as_u64().expect("an offset") as usize;
        for element in bytes[at(0)..at(1)].chunks_exact_mut(4) {
            element.copy_from_slice(&number.to_le_bytes());
        }
        whole(&model, bytes);
        let mut command = sandbox.cmd(&["run"]);
        command.arg(&model).args(["Hi", "-n", "2", "--temp", temperature, "--json"]);
        let name = format!("{number} at temperature {temperature}");
        refused(&ended(&mut command), &name, "INTEGRITY_FAILED", "not numbers");
    }
}

#[test]
fn files_that_are_no_safetensors() {
    refuse_each(
        "llama_tied",
        &[
            ("noise", |model| whole(model, noise(100_000)), "INTEGRITY_FAILED", FILE),
            ("zeros", |model| whole(model, [0; 4096]), "INTEGRITY_FAILED", FILE),
            (
                "text",
                |model| whole(model, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "an endless header",
                |model| whole(model, [&u64::MAX.to_le_bytes()[..], b"{}"].concat()),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "a header beyond the end",
                |model| whole(model, [&1000_u64.to_le_bytes()[..], b"{}"].concat()),
                "INTEGRITY_FAILED",
                FILE,
            ),
            ("a header that is no JSON", |model| raw(model, b"{broken", &[0; 64]), "INTEGRITY_FAILED", FILE),
            ("a header that is a list", |model| raw(model, b"[]", &[]), "INTEGRITY_FAILED", FILE),
            (
                "a header that is deep",
                |model| raw(model, "[".repeat(100_000).as_bytes(), &[]),
                "INTEGRITY_FAILED",
                FILE,
            ),
            ("no tensors", |model| raw(model, b"{}", &[]), "INTEGRITY_FAILED", "model"),
            (
                "a folder",
                |model| {
                    fs::remove_file(model.join(FILE)).expect("gone");
                    fs::create_dir(model.join(FILE)).expect("a folder");
                },
                "FILE_NOT_FOUND",
                "holds no safetensors",
            ),
        ],
    );
}

#[test]
fn headers_that_lie() {
    refuse_each(
        "llama_tied",
        &[
            (
                "data beyond the end",
                |model| header(model, |h| h[NORM]["data_offsets"] = json!([0, 1_u64 << 40])),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "data that ends before it begins",
                |model| header(model, |h| h[NORM]["data_offsets"] = json!([512, 256])),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "negative offsets",
                |model| header(model, |h| h[NORM]["data_offsets"] = json!([-256, 0])),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "overlapping data",
                |model| header(model, |h| h[NORM]["data_offsets"] = json!([0, 256])),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "a shape that does not match",
                |model| header(model, |h| h[NORM]["shape"] = json!([65])),
                "INTEGRITY_FAILED",
                NORM,
            ),
            (
                "a shape of 2^126",
                |model| header(model, |h| h[NORM]["shape"] = json!([1_u64 << 63, 1_u64 << 63])),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "a shape that overflows to the right size",
                |model| header(model, |h| h[NORM]["shape"] = json!([1_u64 << 32, 1_u64 << 32, 64])),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "a negative shape",
                |model| header(model, |h| h[NORM]["shape"] = json!([-64])),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "a shape in words",
                |model| header(model, |h| h[NORM]["shape"] = json!("64")),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "the same size in another shape",
                |model| header(model, |h| h[NORM]["shape"] = json!([8, 8])),
                "INTEGRITY_FAILED",
                NORM,
            ),
            (
                "an unknown type",
                |model| header(model, |h| h[NORM]["dtype"] = json!("F31")),
                "MODEL_UNSUPPORTED",
                "F31",
            ),
            (
                "a type of another size",
                |model| header(model, |h| h[NORM]["dtype"] = json!("BF16")),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "whole numbers",
                |model| header(model, |h| h[NORM]["dtype"] = json!("I32")),
                "MODEL_UNSUPPORTED",
                NORM,
            ),
            ("a tensor that is missing", rename, "INTEGRITY_FAILED", NORM),
            (
                "a tensor that is no object",
                |model| header(model, |h| h[NORM] = json!(1)),
                "INTEGRITY_FAILED",
                FILE,
            ),
        ],
    );
}

const INDEX: &str = "model.safetensors.index.json";

/// Lets the index say that a tensor lies elsewhere.
fn moved(model: &Path, shard: impl Into<Value>) {
    edit(&model.join(INDEX), |index| index["weight_map"][NORM] = shard.into());
}

#[test]
fn shards_that_are_missing_or_elsewhere() {
    const SHARD: &str = "model-00002-of-00003.safetensors";
    refuse_each(
        "llama_sharded",
        &[
            (
                "a missing shard",
                |model| fs::remove_file(model.join(SHARD)).expect("gone"),
                "INTEGRITY_FAILED",
                SHARD,
            ),
            (
                "half a shard",
                |model| {
                    let bytes = fs::read(model.join(SHARD)).expect("a file");
                    fs::write(model.join(SHARD), &bytes[..bytes.len() / 2]).expect("written");
                },
                "INTEGRITY_FAILED",
                SHARD,
            ),
            (
                "an index that is no JSON",
                |model| fs::write(model.join(INDEX), "{").expect("written"),
                "INTEGRITY_FAILED",
                INDEX,
            ),
            (
                "an index without a map",
                |model| fs::write(model.join(INDEX), "{}").expect("written"),
                "INTEGRITY_FAILED",
                INDEX,
            ),
            (
                "a shard outside the folder",
                |model| moved(model, "../../etc/passwd"),
                "BOUNDARY_VIOLATION",
                "../../etc/passwd",
            ),
            (
                "a shard at an absolute path",
                |model| moved(model, "/etc/passwd"),
                "BOUNDARY_VIOLATION",
                "/etc/passwd",
            ),
            ("a shard that is a number", |model| moved(model, 2), "INTEGRITY_FAILED", INDEX),
            (
                "a tensor in the wrong shard",
                |model| moved(model, "model-00001-of-00003.safetensors"),
                "INTEGRITY_FAILED",
                NORM,
            ),
        ],
    );
}
