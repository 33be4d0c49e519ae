//! GGUF files: truncated, random, hostile.

use super::*;

const FIXTURE: &str = "gguf/llama_Q4_0.gguf";
const FILE: &str = "model.gguf";

/// Where the header's fields lie.
const VERSION: usize = 4;
const TENSORS: usize = 8;
const KEYS: usize = 16;
const FIRST_KEY: usize = 24;

/// Replaces the whole file.
fn whole(model: &Path, bytes: impl AsRef<[u8]>) {
    fs::write(model, bytes).expect("written");
}

fn put(model: &Path, at: usize, value: &[u8]) {
    let mut bytes = fs::read(model).expect("a file");
    bytes[at..at + value.len()].copy_from_slice(value);
    fs::write(model, bytes).expect("written");
}

/// Puts a value right after the name of a key or tensor.
fn put_after(model: &Path, name: &str, skip: usize, value: &[u8]) {
    let bytes = fs::read(model).expect("a file");
    let at = bytes.windows(name.len()).position(|window| window == name.as_bytes()).expect(name);
    put(model, at + name.len() + skip, value);
}

#[test]
fn a_file_cut_off_anywhere_is_damaged() {
    let sandbox = Sandbox::new();
    let model = copy_of(FIXTURE, &sandbox);
    let whole = fs::read(&model).expect("a file");
    let offsets = [0, 1, 3, 4, 7, 8, 15, 16, 23, 24, 31, 32, 40, 60, 100, 1000]
        .into_iter()
        .chain((1..16).map(|part| whole.len() * part / 16))
        .chain([whole.len() - 1]);
    for offset in offsets {
        fs::write(&model, &whole[..offset]).expect("written");
        refused(&ask(&sandbox, &model), &format!("cut off at {offset}"), "INTEGRITY_FAILED", FILE);
    }
}

#[test]
fn files_that_are_no_gguf() {
    refuse_each(
        FIXTURE,
        &[
            ("noise", |model| whole(model, noise(100_000)), "INTEGRITY_FAILED", FILE),
            (
                "noise after the magic",
                |model| whole(model, [b"GGUF\x03\0\0\0".to_vec(), noise(100_000)].concat()),
                "INTEGRITY_FAILED",
                FILE,
            ),
            ("another magic", |model| put(model, 0, b"GGML"), "INTEGRITY_FAILED", FILE),
            ("version 99", |model| put(model, VERSION, &99_u32.to_le_bytes()), "MODEL_UNSUPPORTED", "99"),
            (
                "big-endian",
                |model| put(model, VERSION, &3_u32.to_be_bytes()),
                "MODEL_UNSUPPORTED",
                "big-endian",
            ),
        ],
    );
}

#[test]
fn headers_that_lie() {
    refuse_each(
        FIXTURE,
        &[
            (
                "2^64 - 1 tensors",
                |model| put(model, TENSORS, &u64::MAX.to_le_bytes()),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "a billion tensors",
                |model| put(model, TENSORS, &1_000_000_000_u64.to_le_bytes()),
                "INTEGRITY_FAILED",
                FILE,
            ),
            ("2^64 - 1 keys", |model| put(model, KEYS, &u64::MAX.to_le_bytes()), "INTEGRITY_FAILED", FILE),
            (
                "a key of 2^63 bytes",
                |model| put(model, FIRST_KEY, &(1_u64 << 63).to_le_bytes()),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "a key that is not UTF-8",
                |model| put(model, FIRST_KEY + 8, b"\xff\xfe"),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "a value of an unknown type",
                |model| put_after(model, "general.architecture", 0, &77_u32.to_le_bytes()),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "a list of 2^60 tokens",
                |model| put_after(model, "tokenizer.ggml.tokens", 8, &(1_u64 << 60).to_le_bytes()),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "no heads",
                |model| put_after(model, "llama.attention.head_count", 4, &0_u32.to_le_bytes()),
                "INTEGRITY_FAILED",
                "0 heads",
            ),
            (
                "a billion layers",
                |model| put_after(model, "llama.block_count", 4, &1_000_000_000_u32.to_le_bytes()),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "an unknown architecture",
                |model| put_after(model, "general.architecture", 12, b"lamas"),
                "MODEL_UNSUPPORTED",
                "lamas",
            ),
            (
                "a tensor of 99 dimensions",
                |model| put_after(model, "output_norm.weight", 0, &99_u32.to_le_bytes()),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "a tensor of 2^62 numbers",
                |model| put_after(model, "output_norm.weight", 4, &(1_u64 << 62).to_le_bytes()),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "an unknown type of tensor",
                |model| put_after(model, "output_norm.weight", 12, &4242_u32.to_le_bytes()),
                "MODEL_UNSUPPORTED",
                "output_norm.weight",
            ),
            (
                "a type we lack",
                |model| put_after(model, "blk.0.attn_q.weight", 20, &31_u32.to_le_bytes()),
                "MODEL_UNSUPPORTED",
                "self_attn.q_proj.weight\" of type Q4_0_4_4",
            ),
            (
                "data beyond the end",
                |model| put_after(model, "output_norm.weight", 16, &(1_u64 << 40).to_le_bytes()),
                "INTEGRITY_FAILED",
                FILE,
            ),
            (
                "data that is not aligned",
                |model| put_after(model, "output_norm.weight", 16, &1_u64.to_le_bytes()),
                "INTEGRITY_FAILED",
                FILE,
            ),
        ],
    );
}
