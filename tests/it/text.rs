//! Tokenizers and chat templates of real models, and those of the tiny ones from both formats.

use std::fs;
use std::path::{Path, PathBuf};

use mlx_cache::engine::format::checkpoint::Checkpoint;
use mlx_cache::engine::request::Message;
use mlx_cache::engine::text::{ChatTemplate, Detokenizer, Tokenizer};
use serde_json::Value;

use crate::sandbox::{minilm, smollm2};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("id") as u32).collect()
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = Detokenizer::new(tokenizer, false);
    let mut text: String = ids.iter().filter_map(|&id| stream.push(id).expect("text")).collect();
    text.extend(stream.finish().expect("text"));
    text
}

#[test]
fn smollm2_tokenizes_and_renders_as_transformers_does() {
    let golden = fs::read_to_string(fixture("tokenizer_golden.json")).expect("golden file");
    let golden: Value = serde_json::from_str(&golden).expect("golden JSON");
    let checkpoint = Checkpoint::open(&smollm2()).expect("checkpoint");
    let metadata = checkpoint.metadata().expect("metadata");
    let tokenizer = Tokenizer::from_gguf(metadata).expect("tokenizer");
    for case in golden["strings"].as_array().expect("strings") {
        let text = case["text"].as_str().expect("text");
        let expected = ids(&case["ids"]);
        assert_eq!(tokenizer.encode(text, true).expect("ids"), expected, "{text:?}");
        let decoded = tokenizer.decode(&expected, false).expect("text");
        assert_eq!(decoded, case["decoded"].as_str().expect("decoded"));
        assert_eq!(streamed(&tokenizer, &expected), decoded);
    }
    let template = ChatTemplate::from_gguf(metadata, tokenizer.special_tokens()).expect("template");
    for case in golden["chats"].as_array().expect("chats") {
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).expect("messages");
        let begin = case["add_generation_prompt"].as_bool().expect("flag");
        let rendered = template.render(&messages, begin).expect("rendered");
        assert_eq!(rendered, case["rendered"].as_str().expect("rendered"));
    }
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.vocab_size()), (Some(1), Some(2), 49_152));
    assert_eq!(tokenizer.end_tokens(), [0, 2]);
}

#[test]
fn minilm_tokenizes_as_transformers_does() {
    let tokenizer = Tokenizer::from_directory(&minilm()).expect("tokenizer");
    for (text, expected) in [
        ("Hello, World!", &[101, 7592, 1010, 2088, 999, 102][..]),
        ("naïve café résumé", &[101, 15743, 7668, 13746, 102]),
        (
            "unbelievably  tokenised\n你好 🙂",
            &[101, 4895, 8671, 2666, 3567, 6321, 19204, 5084, 100, 100, 100, 102],
        ),
        ("", &[101, 102]),
    ] {
        assert_eq!(tokenizer.encode(text, true).expect("ids"), expected, "{text}");
    }
    let plain = tokenizer.encode("Hello, World!", false).expect("ids");
    assert_eq!(tokenizer.decode(&plain, true).expect("text"), "hello, world!");
    assert_eq!(streamed(&tokenizer, &plain), "hello, world!");
    assert!(ChatTemplate::from_directory(&minilm(), tokenizer.special_tokens()).expect("files").is_none());
}

#[test]
fn tiktoken_files_tokenize_as_tiktoken_does() {
    let golden = fs::read_to_string(fixture("tiktoken/golden.json")).expect("golden file");
    let golden: Value = serde_json::from_str(&golden).expect("golden JSON");
    let texts: Vec<&str> = golden["texts"]
        .as_array()
        .expect("texts")
        .iter()
        .map(|text| text.as_str().expect("a text"))
        .collect();
    let families = golden["families"].as_array().expect("families");
    assert_eq!((families.len(), texts.len()), (4, 163));
    for family in families {
        let folder = tempfile::tempdir().expect("a folder");
        let file = family["file"].as_str().expect("a name");
        fs::copy(fixture("tiktoken/ranks.tiktoken"), folder.path().join(file)).expect("a copy");
        let config = folder.path().join("tokenizer_config.json");
        fs::write(config, family["config"].to_string()).expect("written");
        let tokenizer = Tokenizer::from_directory(folder.path()).expect("tokenizer");
        for (text, expected) in texts.iter().zip(family["ids"].as_array().expect("ids")) {
            let expected = ids(expected);
            assert_eq!(tokenizer.encode(text, false).expect("ids"), expected, "{file}: {text:?}");
            let decoded = tokenizer.decode(&expected, false).expect("text");
            // Some families compose letters and their accents first.
            assert_eq!(tokenizer.encode(&decoded, false).expect("ids"), expected, "{file}: {text:?}");
            assert!(decoded == *text || file.ends_with(".tiktoken"), "{file}: {text:?}");
        }
        assert_eq!(tokenizer.vocab_size() as u64, family["size"].as_u64().expect("a size"), "{file}");
        let eos = family["config"]["eos_token"].as_str();
        assert_eq!(tokenizer.eos(), eos.and_then(|eos| tokenizer.token_to_id(eos)), "{file}");
        assert!(tokenizer.end_tokens().iter().all(|&id| tokenizer.is_special(id)), "{file}");
    }
}

#[test]
fn sentencepiece_files_tokenize_as_sentencepiece_does() {
    let golden = fs::read_to_string(fixture("sentencepiece/golden.json")).expect("golden file");
    let golden: Value = serde_json::from_str(&golden).expect("golden JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let texts = list(&golden["texts"]);
    let models = list(&golden["models"]);
    assert_eq!((texts.len(), models.len()), (159, 3));
    let load = |file: &str, config: &Value| {
        let folder = tempfile::tempdir().expect("a folder");
        fs::copy(fixture("sentencepiece").join(file), folder.path().join("tokenizer.model")).expect("a copy");
        fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).expect("written");
        Tokenizer::from_directory(folder.path()).expect("tokenizer")
    };
    for model in &models {
        let file = model["file"].as_str().expect("a name");
        let tokenizer = load(file, &serde_json::json!({}));
        assert_eq!(tokenizer.vocab_size() as u64, model["size"].as_u64().expect("a size"), "{file}");
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)), "{file}");
        let mut otherwise = 0;
        for (text, expected) in texts.iter().zip(list(&model["ids"])) {
            let (text, mut expected) = (text.as_str().expect("a text"), ids(&expected));
            let mut found = tokenizer.encode(text, false).expect("ids");
            if file == "bpe.model" {
                assert_eq!(tokenizer.decode(&expected, true).expect("text"), text, "{file}");
            } else if file == "unigram.model" && found != expected {
                // The same pieces in another order are as likely.
                otherwise += 1;
                found.sort_unstable();
                expected.sort_unstable();
            }
            assert_eq!(found, expected, "{file}: {text:?}");
        }
        assert!(otherwise < 5, "{file}: {otherwise} texts are cut otherwise");
        assert_eq!(tokenizer.encode("the", true).expect("ids")[0], 1, "{file}");
    }
    let turn = models[0]["size"].to_string();
    let marked = list(&golden["special"]["texts"]);
    for (name, legacy) in [("first", false), ("always", true)] {
        let config = serde_json::json!({"legacy": legacy, "add_bos_token": false,
            "added_tokens_decoder": {&turn: {"content": "<|turn|>", "special": true}}});
        let tokenizer = load("bpe.model", &config);
        for (text, expected) in marked.iter().zip(list(&golden["special"]["ids"][name])) {
            let text = text.as_str().expect("a text");
            assert_eq!(tokenizer.encode(text, true).expect("ids"), ids(&expected), "{name}: {text:?}");
        }
    }
}

#[test]
fn a_tiny_model_tokenizes_alike_from_its_folder_and_its_gguf() {
    let folder = fixture("tiny/llama_gqa");
    let from_folder = Tokenizer::from_directory(&folder).expect("tokenizer");
    let checkpoint = Checkpoint::open(&fixture("tiny/gguf/llama_F32.gguf")).expect("checkpoint");
    let metadata = checkpoint.metadata().expect("metadata");
    let from_gguf = Tokenizer::from_gguf(metadata).expect("tokenizer");
    let text = "the cat <|im_start|>sat on the mat<|im_end|> in 2026, naïvely 🙂";
    let expected = from_folder.encode(text, true).expect("ids");
    assert_eq!(from_gguf.encode(text, true).expect("ids"), expected);
    assert_eq!(from_gguf.decode(&expected, false).expect("text"), text);
    assert_eq!(from_folder.decode(&expected, false).expect("text"), text);
    assert_eq!(
        (from_gguf.bos(), from_gguf.eos(), from_gguf.end_tokens()),
        (from_folder.bos(), from_folder.eos(), from_folder.end_tokens())
    );

    let messages = [Message::new("user", "hi")];
    let render =
        |template: Option<ChatTemplate>| template.expect("template").render(&messages, true).expect("text");
    let expected =
        render(ChatTemplate::from_directory(&folder, from_folder.special_tokens()).expect("files"));
    assert_eq!(render(ChatTemplate::from_gguf(metadata, from_gguf.special_tokens())), expected);
}
