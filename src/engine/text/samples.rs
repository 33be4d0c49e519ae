//! Small tokenizers for the tests of this module.

use std::path::Path;

use serde_json::{Value as Json, json};

use crate::engine::format::metadata::{Metadata, Value};

/// The alphabet of byte-level BPE, by byte.
fn alphabet() -> Vec<String> {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 0x100;
    (0..=255u8)
        .map(|byte| {
            let code = if printable(byte) { u32::from(byte) } else { next };
            next += u32::from(!printable(byte));
            char::from_u32(code).unwrap().to_string()
        })
        .collect()
}

/// Tokens and merges: 0 `<|endoftext|>`, 1 `<|im_start|>`, 2 `<|im_end|>`, 3 two spaces as one user-defined token,
/// then 256 bytes, then merges.
fn byte_level_parts() -> (Vec<String>, Vec<String>) {
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "Ã ©", "ð Ł", "1 2"].map(str::to_owned).to_vec();
    let mut tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "  "].map(str::to_owned).to_vec();
    tokens.extend(alphabet());
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    (tokens, merges)
}

pub(super) fn metadata(values: &[(&str, Value)]) -> Metadata {
    Metadata(values.iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value.clone())).collect())
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

/// Byte-level BPE as a GGUF file has it.
pub(super) fn byte_level() -> Metadata {
    let (tokens, merges) = byte_level_parts();
    let mut kinds = vec![1; tokens.len()];
    kinds[..4].copy_from_slice(&[3, 3, 3, 4]);
    metadata(&[
        ("model", Value::Text("gpt2".to_owned())),
        ("pre", Value::Text("gpt-2".to_owned())),
        ("tokens", Value::Texts(tokens)),
        ("token_type", Value::Integers(kinds)),
        ("merges", Value::Texts(merges)),
        ("bos_token_id", Value::Unsigned(1)),
        ("eos_token_id", Value::Unsigned(0)),
    ])
}

/// SentencePiece as a GGUF file has it: `<unk>`, `<s>`, `</s>`, 256 bytes, a user-defined token, pieces.
pub(super) fn sentence_piece() -> Metadata {
    let mut tokens = texts(&["<unk>", "<s>", "</s>"]);
    tokens.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    tokens.push("<|turn|>".to_owned());
    let pieces = ["▁", "e", "h", "l", "o", "w", "he", "ll", "hell", "▁w", "▁hello", "hello", "▁▁", "é"];
    tokens.extend(texts(&pieces));
    let mut kinds = vec![1; tokens.len()];
    kinds[..3].copy_from_slice(&[2, 3, 3]);
    kinds[3..259].fill(6);
    kinds[259] = 4;
    let scores = (0..tokens.len()).map(|id| if id < 260 { 0.0 } else { id as f32 }).collect();
    metadata(&[
        ("model", Value::Text("llama".to_owned())),
        ("tokens", Value::Texts(tokens)),
        ("token_type", Value::Integers(kinds)),
        ("scores", Value::Floats(scores)),
    ])
}

/// The same byte-level BPE as `tokenizer.json` has it.
pub(super) fn byte_level_json() -> Json {
    let (tokens, merges) = byte_level_parts();
    let vocab: serde_json::Map<_, _> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    let added = |id: usize, special: bool| {
        json!({"id": id, "content": tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special})
    };
    json!({
        "version": "1.0",
        "added_tokens": [added(0, true), added(1, true), added(2, true), added(3, false)],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    })
}

/// WordPiece, whose decoding is the library's own.
pub(super) fn word_piece_json() -> Json {
    let words = ["[UNK]", "[CLS]", "[SEP]", "hello", "world", "##s", "##é", ",", "!"];
    let vocab: serde_json::Map<_, _> =
        words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
    let special = |id: usize| {
        json!({"id": id, "content": words[id], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    json!({
        "version": "1.0",
        "added_tokens": [special(0), special(1), special(2)],
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]},
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    })
}

/// A folder with these files.
pub(super) fn folder(files: &[(&str, &Json)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, json) in files {
        write(folder.path(), name, &json.to_string());
    }
    folder
}

pub(super) fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}
