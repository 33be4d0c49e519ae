//! A tokenizer from a tiktoken file: a line a token, its bytes in base64 and its rank, which is its id.
//!
//! tiktoken takes a word that is a token as it is; else it merges the two neighbours whose joined token has the
//! lowest rank, the leftmost of equals. The `tokenizers` library does the same with merges that are all the ways
//! to put a token together of two others, in the order of the tokens' ranks, as transformers makes them. (Where
//! one token could be made at two overlapping places in different ways, it takes the way that is listed first.)
//!
//! The file says neither how text is cut into words nor which tokens are special: the class that
//! `tokenizer_config.json` names does, or the file's own name.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper};

use super::config::{TokenizerConfig, broken};
use super::split;
use super::tokenizer::{Decoding, Tokenizer, Vocabulary, alphabet, guard};
use super::tokenizer_json::{Failure, add, complete};
use crate::error::{Code, Error, Result};

/// Bytes looked at to find the halves of tokens, twenty times what the largest vocabularies take.
const MAX_WORK: usize = 1 << 30;
/// Ids between the ranks and the last token that the configuration adds.
const MAX_RESERVED: u32 = 1 << 16;

/// What the models of a family have in common beside their ranks.
#[derive(Default)]
struct Family {
    /// How words are cut, by its name in GGUF files.
    pre: &'static str,
    /// Whether text is composed (NFC) first.
    composes: bool,
    /// Special tokens in the order of their ids, which follow the ranks.
    special: Vec<String>,
    /// How many ids after the ranks are tokens, named or not.
    reserved: u32,
    /// What every text begins with.
    bos: Option<&'static str>,
}

pub(super) fn load(path: &Path, content: Vec<u8>, config: TokenizerConfig) -> Result<Tokenizer> {
    let text = String::from_utf8(content).map_err(|error| broken(path, error))?;
    let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let ranks = ranks(&text).map_err(|reason| Failure::Broken(reason).of(path))?;
    let added = config.added_tokens()?;
    let family = family(config.class()?, file, ranks.len(), added.is_empty())?;
    let added = added_tokens(ranks.len() as u32, &family, &added).map_err(|failure| failure.of(path))?;
    build(&ranks, &family, &added, config).map_err(|failure| failure.of(path))
}

/// The tokens of a file in the order of their ranks, which are 0, 1, 2, …; all single bytes among them.
fn ranks(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty()) {
        let wrong = || format!("line {number} is no token in base64 with its rank");
        let (token, rank) = line.split_once(' ').ok_or_else(wrong)?;
        let rank: u32 = rank.trim_end().parse().map_err(|_| wrong())?;
        let token = STANDARD.decode(token).ok().filter(|token| !token.is_empty()).ok_or_else(wrong)?;
        lines.push((rank, token));
    }
    lines.sort_by_key(|(rank, _)| *rank);
    for (expected, (rank, _)) in (0..).zip(&lines) {
        if *rank < expected {
            return Err(format!("two tokens have the rank {rank}"));
        }
        if *rank > expected {
            return Err(format!("no token has the rank {expected}"));
        }
    }
    let mut is_there = [false; 256];
    for (_, token) in &lines {
        if let [byte] = token[..] {
            is_there[usize::from(byte)] = true;
        }
    }
    match is_there.iter().position(|there| !there) {
        Some(byte) => Err(format!("no token is the byte {byte:#04x} alone")),
        None => Ok(lines.into_iter().map(|(_, token)| token).collect()),
    }
}

/// The family of a class of tokenizers, or of a file's name where no class is given. `count` is how many ranks
/// there are, `bare` whether the configuration names no added tokens.
///
/// # Errors
/// `MODEL_UNSUPPORTED` for one that is not known: any guess would give the model wrong tokens.
fn family(class: Option<&str>, file: &str, count: usize, bare: bool) -> Result<Family> {
    let numbered = |names: &[&str], name: &str, numbers: std::ops::Range<usize>| -> Vec<String> {
        let names = names.iter().map(ToString::to_string);
        names.chain(numbers.map(|number| format!("<|{name}_{number}|>"))).collect()
    };
    Ok(match (class, file) {
        (Some("QWenTokenizer"), _) | (None, "qwen.tiktoken") => {
            let special = numbered(&["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "extra", 0..205);
            Family { pre: "qwen2", composes: true, special, ..Family::default() }
        }
        // Hunyuan's.
        (Some("HYTokenizer"), _) | (None, "hy.tiktoken") => {
            let named = ["<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>"];
            let special = numbered(&named, "extra", 0..205);
            Family { pre: "hunyuan", composes: true, special, ..Family::default() }
        }
        // Kimi's, named in the configuration.
        (Some("TikTokenTokenizer"), _) => Family { pre: "kimi-k2", reserved: 256, ..Family::default() },
        // What transformers takes every other file for: Llama 3's way, with the tokens that are configured.
        (
            Some(
                "PreTrainedTokenizer"
                | "PreTrainedTokenizerFast"
                | "TokenizersBackend"
                | "LlamaTokenizer"
                | "LlamaTokenizerFast",
            ),
            _,
        )
        | (None, "tokenizer.model") => {
            let mut family = Family { pre: "llama-bpe", ..Family::default() };
            if bare && count == LLAMA3_RANKS {
                family.special = numbered(&LLAMA3_SPECIAL, "reserved_special_token", 2..247);
                family.bos = Some(LLAMA3_SPECIAL[0]);
            }
            family
        }
        (class, file) => {
            let name = class.unwrap_or(file);
            return Err(Error::new(
                Code::ModelUnsupported,
                format!("how the tokenizer \"{name}\" cuts words, and its special tokens, are not known"),
            )
            .hint("use a version of the model that has a tokenizer.json")
            .detail("tokenizer", name));
        }
    })
}

const LLAMA3_RANKS: usize = 128_000;
/// Those of Llama 3.1 and later; 3.0 has the same ids for all that it names.
const LLAMA3_SPECIAL: [&str; 11] = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
];

/// The tokens after `count` ranks: the family's, and the configuration's in their stead. Ids without a name get
/// one, as in transformers, so that the ids have no holes.
fn added_tokens(
    count: u32,
    family: &Family,
    configured: &[(u32, &str, bool)],
) -> Result<Vec<(u32, AddedToken)>, Failure> {
    let token = |text: &str, special| AddedToken::from(text, special).normalized(false);
    let special = (count..).zip(&family.special).map(|(id, text)| (id, token(text, true)));
    let mut added: BTreeMap<u32, AddedToken> = special.collect();
    for &(id, text, special) in configured {
        if !(count..count.saturating_add(MAX_RESERVED)).contains(&id) {
            return Err(Failure::Broken(format!(
                "there are {count} ranks, after which {text:?} cannot have the id {id} that the configuration gives"
            )));
        }
        added.retain(|_, named| named.content != text);
        added.insert(id, token(text, special));
    }
    let last = added.keys().next_back().map_or(count, |last| last + 1);
    for id in count..last.max(count + family.reserved) {
        added.entry(id).or_insert_with(|| token(&format!("<|reserved_token_{id}|>"), true));
    }
    Ok(added.into_iter().collect())
}

fn build(
    ranks: &[Vec<u8>],
    family: &Family,
    added: &[(u32, AddedToken)],
    mut config: TokenizerConfig,
) -> Result<Tokenizer, Failure> {
    let rules = split::rules(family.pre)?;
    let alphabet = alphabet();
    let spelled = |token: &[u8]| token.iter().map(|&byte| alphabet[usize::from(byte)]).collect::<String>();
    let merges = merges(ranks).map_err(Failure::Broken)?;
    let merges: Merges = merges.into_iter().map(|[left, right]| (spelled(left), spelled(right))).collect();
    let mut vocabulary: Vocab = (0..).zip(ranks).map(|(rank, token)| (spelled(token), rank)).collect();
    for (id, token) in added {
        vocabulary.entry(token.content.clone()).or_insert(*id);
    }
    let model = guard(|| BPE::builder().vocab_and_merges(vocabulary, merges).ignore_merges(true).build())??;
    let mut library = tokenizers::Tokenizer::new(model);
    if family.composes {
        library.with_normalizer(Some(NormalizerWrapper::NFC(NFC)))?;
    }
    library.with_pre_tokenizer(Some(rules.pre_tokenizer()?));
    library.with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::default())));
    add(&mut library, added)?;
    if let Some(bos) = family.bos {
        config.default_token("bos_token", bos);
    }
    let prefix = family.bos.and_then(|bos| library.token_to_id(bos)).into_iter().collect();
    complete(Vocabulary::Library(Box::new(library)), Decoding::ByteLevel, &config, (prefix, Vec::new()))
}

/// All the ways to put a token together of two others: by the rank of the token, of the left part, of the right.
fn merges(ranks: &[Vec<u8>]) -> Result<Vec<[&[u8]; 2]>, String> {
    let mut of: HashMap<&[u8], u32> = HashMap::with_capacity(ranks.len());
    let mut work = 0usize;
    for (rank, token) in (0..).zip(ranks) {
        if let Some(first) = of.insert(token, rank) {
            return Err(format!("the ranks {first} and {rank} are of the same token"));
        }
        work = work.saturating_add(token.len().saturating_mul(token.len()));
    }
    if work > MAX_WORK {
        return Err("its tokens are too long for a vocabulary".to_owned());
    }
    let mut merges = Vec::new();
    for token in ranks {
        let halves = (1..token.len()).filter_map(|at| {
            let (left, right) = token.split_at(at);
            Some((*of.get(left)?, *of.get(right)?, left, right))
        });
        let mut halves: Vec<_> = halves.collect();
        halves.sort_unstable_by_key(|&(left, right, ..)| (left, right));
        merges.extend(halves.into_iter().map(|(.., left, right)| [left, right]));
    }
    Ok(merges)
}

#[cfg(test)]
mod tests {
    use super::super::samples::folder;
    use super::*;

    /// The bytes, then these tokens.
    fn file(tokens: &[&[u8]]) -> String {
        let bytes: Vec<[u8; 1]> = (0..=255).map(|byte| [byte]).collect();
        let all = bytes.iter().map(|byte| &byte[..]).chain(tokens.iter().copied());
        let lines =
            (0..).zip(all).map(|(rank, token): (u32, _)| format!("{} {rank}\n", STANDARD.encode(token)));
        lines.collect()
    }

    fn loaded(name: &str, text: &str, config: &serde_json::Value) -> Result<Tokenizer> {
        let folder = folder(&[("tokenizer_config.json", config)]);
        std::fs::write(folder.path().join(name), text).unwrap();
        Tokenizer::from_directory(folder.path())
    }

    #[test]
    fn lines_may_be_in_any_order_and_end_in_any_way() {
        let text = file(&[b"he", b"hel"]);
        let mut lines: Vec<&str> = text.lines().collect();
        lines.reverse();
        let text = lines.join("\r\n") + "\r\n\r\n";
        let tokenizer = loaded("qwen.tiktoken", &text, &serde_json::json!({})).unwrap();
        assert_eq!(tokenizer.encode("hel<|im_end|>he", false).unwrap(), [257, 260, 256]);
        assert_eq!(tokenizer.end_tokens(), [258, 260]);
    }

    #[test]
    fn llama_3_has_its_special_tokens_without_a_configuration() {
        let words: Vec<Vec<u8>> = (256..LLAMA3_RANKS).map(|n| format!("=={n}").into_bytes()).collect();
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let tokenizer = loaded("tokenizer.model", &file(&words), &serde_json::json!({})).unwrap();
        assert_eq!(tokenizer.encode("a<|eot_id|>", true).unwrap(), [128_000, 97, 128_009]);
        assert_eq!((tokenizer.bos(), tokenizer.vocab_size()), (Some(128_000), 128_256));
        assert_eq!(tokenizer.token_to_id("<|reserved_special_token_246|>"), Some(128_255));
        assert_eq!(tokenizer.end_tokens(), [128_001, 128_008, 128_009]);
    }

    #[test]
    fn holes_before_configured_tokens_are_filled() {
        let config = serde_json::json!({"tokenizer_class": "PreTrainedTokenizerFast",
            "added_tokens_decoder": {"258": {"content": "<x>", "special": true}}});
        let tokenizer = loaded("tokenizer.model", &file(&[b"he"]), &config).unwrap();
        assert_eq!(tokenizer.encode("<x>he<|reserved_token_257|>", true).unwrap(), [258, 256, 257]);
        assert_eq!(tokenizer.vocab_size(), 259);
    }

    #[test]
    fn damaged_files_are_errors_that_name_the_file() {
        let whole = file(&[b"he"]);
        let long = "a".repeat(100_000);
        for text in [
            String::new(),
            "AA== 0\n".to_owned(),
            whole.replace("aGU= 256", "aGU=256"),
            whole.replace("aGU= 256", "aG!= 256"),
            whole.replace("aGU= 256", "aGU 256"),
            whole.replace("aGU= 256", "aGU= x"),
            whole.replace("aGU= 256", "aGU= -1"),
            whole.replace("aGU= 256", "aGU= 256 7"),
            whole.replace("aGU= 256", " 256"),
            whole.replace("aGU= 256", "aGU= 257"),
            whole.replace("aGU= 256", "aGU= 255"),
            whole.replace("aGU= 256", "aGU= 4294967296"),
            whole.replace("aGU= 256", "AA== 256"),
            whole.replace("AA== 0", "aGE= 0"),
            file(&[long.as_bytes()]),
        ] {
            let error = loaded("qwen.tiktoken", &text, &serde_json::json!({})).unwrap_err();
            assert_eq!(error.code(), Code::IntegrityFailed, "{error}");
            assert!(error.message().contains("qwen.tiktoken"), "{error}");
        }
        let added = |id: u32, text: &str| {
            let config = serde_json::json!({"tokenizer_class": "TikTokenTokenizer",
                "added_tokens_decoder": {id.to_string(): {"content": text}}});
            loaded("tiktoken.model", &whole, &config).map(|tokenizer| tokenizer.vocab_size())
        };
        assert_eq!(added(257, "<x>").unwrap(), 257 + 256);
        assert_eq!(added(u32::MAX, "<x>").unwrap_err().code(), Code::IntegrityFailed);
        assert_eq!(added(3, "<x>").unwrap_err().code(), Code::IntegrityFailed);
        assert_eq!(added(300, "he").unwrap_err().code(), Code::IntegrityFailed);
    }

    #[test]
    fn an_unknown_class_is_named() {
        let config = serde_json::json!({"tokenizer_class": "BrandNewTokenizer"});
        let error = loaded("new.tiktoken", &file(&[]), &config).unwrap_err();
        assert_eq!(error.code(), Code::ModelUnsupported);
        assert!(error.message().contains("BrandNewTokenizer"));
        let error = loaded("new.tiktoken", &file(&[]), &serde_json::json!({})).unwrap_err();
        assert!(error.code() == Code::ModelUnsupported && error.message().contains("new.tiktoken"));
    }

    /// What tiktoken does with a word.
    fn merged(ranks: &[Vec<u8>], word: &[u8]) -> Vec<u32> {
        let of = |bytes: &[u8]| ranks.iter().position(|token| token == bytes);
        let mut parts: Vec<&[u8]> = of(word).map_or_else(|| word.chunks(1).collect(), |_| vec![word]);
        let mut ends: Vec<usize> = parts
            .iter()
            .scan(0, |end, part| {
                *end += part.len();
                Some(*end)
            })
            .collect();
        loop {
            let starts: Vec<usize> = [0].into_iter().chain(ends.iter().copied()).collect();
            let pair = |at: usize| of(&word[starts[at]..ends[at + 1]]).map(|rank| (rank, at));
            let Some((_, at)) = (0..ends.len().saturating_sub(1)).filter_map(pair).min() else { break };
            ends.remove(at);
        }
        let starts = [0].into_iter().chain(ends.iter().copied());
        parts = starts.zip(&ends).map(|(start, &end)| &word[start..end]).collect();
        parts.into_iter().map(|part| of(part).unwrap() as u32).collect()
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_file_or_an_error(text in "([A-Za-z0-9+/=]{0,8} ?[0-9-]{0,3}\n?){0,20}") {
            let _ = ranks(&text);
        }

        #[test]
        fn words_are_merged_by_rank(
            tokens in proptest::collection::btree_set("[ab]{1,2}[bc]{1,2}", 0..14),
            order in proptest::prelude::any::<u64>(),
            word in "[abc]{1,12}",
        ) {
            let mut tokens: Vec<&[u8]> = tokens.iter().map(String::as_bytes).collect();
            let middle = if tokens.is_empty() { 0 } else { order as usize % tokens.len() };
            tokens.rotate_left(middle);
            let text = file(&tokens);
            let ranks = ranks(&text).unwrap();
            let tokenizer = loaded("qwen.tiktoken", &text, &serde_json::json!({})).unwrap();
            proptest::prop_assert_eq!(tokenizer.encode(&word, false).unwrap(), merged(&ranks, word.as_bytes()));
        }
    }
}
