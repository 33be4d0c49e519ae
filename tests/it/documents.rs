//! Documents that are made from the source: `UPDATE_DOCS=1 cargo test --test it documents` writes them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use mlx_cache::cli::Cli;
use mlx_cache::cli::completions::{Shell, script};
use mlx_cache::cli::man::pages;
use mlx_cache::commands::run::chat::saved::SavedChat;
use mlx_cache::engine::encoders;
use mlx_cache::engine::format::affine;
use mlx_cache::engine::format::ggml_type::GgmlType;
use mlx_cache::engine::format::sizes::{Storage, WeightSizes};
use mlx_cache::engine::format::unpack::Form;
use mlx_cache::engine::format::weight::FloatType;
use mlx_cache::engine::models::{self, ARCHITECTURES};
use mlx_cache::error::Code;
use mlx_cache::report::export::RegistryFile;
use mlx_cache::report::{Report, envelope_schema, event_schemas, schema_of};
use mlx_cache::settings::file::KEYS;
use mlx_cache::settings::variables;
use serde_json::Value;

const HOW: &str = "UPDATE_DOCS=1 cargo test --test it documents";

/// Compares a document with what it should be, or writes it if asked to.
fn check(path: &str, expected: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(file.parent().expect("a folder")).expect("the folder");
        fs::write(&file, expected).expect("the document");
        return;
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == expected, "{path} is not what the source makes: run {HOW}");
}

fn pretty(schema: &schemars::Schema) -> String {
    serde_json::to_string_pretty(schema).expect("a schema is JSON") + "\n"
}

/// The schemas beside those of the commands: events, and files that users keep.
fn other_schemas() -> Vec<(&'static str, schemars::Schema)> {
    let mut schemas = event_schemas();
    schemas.push(("chat", schema_of::<SavedChat>()));
    schemas.push(("registry", schema_of::<RegistryFile>()));
    schemas
}

#[test]
fn schemas_are_current() {
    check("docs/json/envelope.schema.json", &pretty(&envelope_schema()));
    for (command, schema) in Report::schemas().into_iter().chain(other_schemas()) {
        check(&format!("docs/json/{command}.schema.json"), &pretty(&schema));
    }
}

#[test]
fn no_schema_is_left_over() {
    let known: Vec<_> = Report::schemas()
        .iter()
        .chain(&other_schemas())
        .map(|(name, _)| format!("{name}.schema.json"))
        .collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json");
    for entry in fs::read_dir(folder).expect("docs/json") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        assert!(name == "envelope.schema.json" || known.contains(&name), "{name} belongs to no command");
    }
}

#[test]
fn every_command_has_a_schema_and_the_other_way_round() {
    let mut commands: Vec<_> = Cli::command().get_subcommands().map(|it| it.get_name().to_owned()).collect();
    let mut reports: Vec<_> = Report::schemas().iter().map(|(command, _)| (*command).to_owned()).collect();
    commands.sort();
    reports.sort();
    assert_eq!(commands, reports);
}

#[test]
fn completions_are_current() {
    for shell in Shell::ALL {
        check(&format!("completions/{}", shell.file_name()), &script(shell).expect("a script"));
    }
}

#[test]
fn examples_stand_on_lines_of_their_own() {
    let mut program = Cli::command();
    program.build();
    for subcommand in program.get_subcommands_mut() {
        let help = subcommand.render_long_help().to_string();
        for line in help.lines().filter(|line| line.starts_with(' ')) {
            assert!(
                line.contains('|') || line.matches("mlx-cache ").count() < 2,
                "{}: {line}",
                subcommand.get_name()
            );
        }
    }
}

#[test]
fn manual_pages_are_current() {
    let pages = pages().expect("pages");
    for page in &pages {
        check(&format!("man/{}", page.file_name), &page.text);
    }
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("man")).expect("man") {
        let name = entry.expect("an entry").file_name();
        assert!(
            pages.iter().any(|page| *page.file_name == *name),
            "{} belongs to no command",
            name.display()
        );
    }
}

#[test]
fn every_field_of_a_schema_is_described() {
    for (command, schema) in Report::schemas().into_iter().chain(other_schemas()) {
        undescribed(command, schema.as_value());
    }
}

fn undescribed(place: &str, value: &Value) {
    if let Some(properties) = value.get("properties").and_then(Value::as_object) {
        for (name, property) in properties {
            // A type of ours carries its own description.
            let is_ours = |it: &Value| it.get("$ref").is_some();
            let described = property.get("description").is_some()
                // The name of a variant, which is described as a whole.
                || property.get("const").is_some()
                || is_ours(property)
                || property["anyOf"].as_array().is_some_and(|kinds| kinds.iter().any(is_ours));
            assert!(described, "{place}: {name} has no description");
        }
    }
    match value {
        Value::Object(fields) => fields.values().for_each(|field| undescribed(place, field)),
        Value::Array(items) => items.iter().for_each(|item| undescribed(place, item)),
        _ => {}
    }
}

#[test]
fn the_table_of_errors_is_current() {
    let mut text = format!(
        "# Errors\n\n<!-- Made from src/error.rs: {HOW} -->\n\n\
         A command that fails says what failed, why, and what to do next. With `--json` the same is the \
         `error` of the one object on stdout, with one of these codes. The exit status does not depend on `--json`.\n\n\
         A code is *retryable* if the same command may succeed later with nothing changed.\n\n\
         | code | exit status | retryable | meaning |\n| --- | --- | --- | --- |\n"
    );
    for code in Code::ALL {
        let retryable = if code.retryable() { "yes" } else { "no" };
        writeln!(text, "| `{code}` | {} | {retryable} | {} |", code.exit_status(), code.meaning())
            .expect("text");
    }
    text.push_str(
        "\nTwo more ends have no code. When the reader of the output goes away (`| head`), the program ends without \
         a word and with 141, as a program that SIGPIPE ended. `doctor` ends with 1 when a check failed: it did \
         its work, so its `status` is `ok`.\n",
    );
    check("docs/errors.md", &text);
}

#[test]
fn the_tables_of_models_are_current() {
    let mut text = format!(
        "# Models\n\n<!-- Made from src/engine: {HOW} -->\n\n\
         What runs: folders with `config.json` (as transformers 4 and 5 and mlx-lm write it) and safetensors, or a GGUF \
         file. `mlx-cache show MODEL` says whether a model runs and, if not, why.\n\n\
         ## Architectures\n\n\
         Each is checked with tiny random models: the logits of a prompt and of eight cached steps must be those that \
         `transformers` computes in float32 from the same weights, to 1e-4 of their range, with MLX's own operations and \
         with the kernels of the Linux CPU; the prompt at once, token by token, and in two pieces. A case in bold was \
         also read from a GGUF file. Where several types have one name in GGUF files, the file's keys and tensors tell which \
         of them it is.\n\n\
         | `model_type` | architecture of GGUF files | cases |\n| --- | --- | --- |\n"
    );
    let cases = cases_by_architecture();
    for architecture in ARCHITECTURES {
        let types: Vec<_> = architecture.model_types.iter().map(|name| format!("`{name}`")).collect();
        let ggufs = architecture.gguf.as_ref().map_or(&[][..], |gguf| gguf.names);
        let ggufs: Vec<_> = ggufs.iter().map(|name| format!("`{name}`")).collect();
        let cases = cases.get(architecture.name).map(|cases| cases.join(", ")).unwrap_or_default();
        writeln!(text, "| {} | {} | {cases} |", types.join(", "), ggufs.join(", ")).expect("text");
    }
    text.push_str(
        "\nThe text part of a multimodal checkpoint (`gemma3`, `gemma4`, `qwen2_vl`, `qwen2_5_vl`, `qwen3_vl`, \
         `qwen3_vl_moe`, `qwen3_5`, `qwen3_5_moe`, `kimi_k25`) runs alone, and so does that of `mistral3`, `pixtral`, \
         `llava`, `kimi_vl` and `lfm2_vl`, which is of the type that its `text_config` says. A warning tells so; \
         images and sounds are refused.\n\n\
         ## Embedding models\n\n\
         `embed` runs encoders, and decoders that were made into embedding models (any of the above whose attention \
         is not capped and not over latents, except Gemma 4; from both sides where the configuration says so). Each is checked with tiny random models from \
         texts to vectors: these must be within 2e-5 of what sentence-transformers computes in float32, prompts, \
         truncation and pooling included, and hidden states by MLX's own operations within 1e-4 of those by the \
         kernels. A case in bold was also read from a GGUF file.\n\n\
         | `model_type` | cases |\n| --- | --- |\n",
    );
    for (model_type, cases) in embedding_cases() {
        writeln!(text, "| `{model_type}` | {} |", cases.join(", ")).expect("text");
    }
    text.push_str(
        "\nAs these: `camembert` as `roberta`; GGUF files of `bert` and `nomic-bert` (WordPiece tokenizers), of decoders, and \
         `gemma-embedding`. Of pipelines, the modules Transformer, Pooling (cls, max, mean, mean_sqrt_len_tokens, \
         weightedmean, lasttoken, or several joined), Dense, LayerNorm, Normalize and Dropout are known; one that needs \
         another is refused with its name.\n\n\
         ## Weights of GGUF files\n\n\
         Blocks are unpacked to the values that the Python package `gguf` gives, bit for bit, and kept in a form that the \
         device computes with. The kernels of the Linux CPU keep every value. MLX's own operations (Macs, NVIDIA) \
         have no groups of 16: two of them become one of 32 with more bits, rounded to the nearest step. Where both span \
         the same range, that step is a fifth of the file's for Q2_K (3 of 15), 0.23 of it for Q3_K (7 of 31) and a quarter \
         for Q6_K (63 of 255), so that it moves a number by at most an eighth of a step; the finer one of two very unequal \
         groups loses more. Sizes are bits an element, scales included, with float16 scales where MLX computes.\n\n\
         | type | in the file | kernels | MLX | MLX's values |\n| --- | --- | --- | --- | --- |\n",
    );
    for kind in (0..64).filter_map(GgmlType::from_number) {
        let Some(form) = Form::of(kind) else { continue };
        let mut sizes = WeightSizes::default();
        sizes.add_matrix(1024, 1024, Some(Storage::Blocks(form)));
        let bits = |bytes: u64| bytes as f64 * 8.0 / 1024.0 / 1024.0;
        let file = kind.block_bytes() as f64 * 8.0 / kind.block_elements() as f64;
        let (kernels, mlx) =
            (bits(sizes.bytes(true, FloatType::F32, 0)), bits(sizes.bytes(false, FloatType::F16, 0)));
        let values = match form {
            Form::Nested { bits, group: 16, .. } => format!("rounded to {} bits", affine::widened(bits)),
            _ => "the same".to_owned(),
        };
        writeln!(text, "| {} | {file:.2} | {kernels:.2} | {mlx:.2} | {values} |", kind.name()).expect("text");
    }
    text.push_str(
        "\nF32, F16 and BF16 are kept as they are by the kernels, and take the computing type with MLX.\n\n\
         ## Weights of safetensors\n\n\
         float32, float16 and bfloat16; MLX's affine quantization with 2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 \
         or 128, and its small floats mxfp4, mxfp8 and nvfp4, with other packings for single layers; gpt-oss's own \
         files (mxfp4 in `_blocks` and `_scales`); originals in eight-bit floats (e4m3) with scales for blocks \
         (`weight_scale_inv`, as DeepSeek-V3 and Qwen3's FP8 models have them), rows or whole matrices \
         (`weight_scale`), which take 9 bits an element, or 32 where blocks are no whole groups of 32 or experts lie \
         transposed. Experts one by one, stacked, or with gate and up in one matrix. Both \
         ways to compute keep every value, but for eight-bit floats whose scales are no powers of two: MLX has no \
         operations for them, and they are rounded to the nearest of 256 steps for each 32. Activations are not \
         rounded. Originals can be quantized while they are loaded (`--quantize`).\n\n\
         ## Tokenizers\n\n\
         `tokenizer.json`; what GGUF files carry (`gpt2` with the name of its way to cut words, `llama`, `gemma4`, `bert`); \
         SentencePiece's `tokenizer.model`, BPE and unigram; and tiktoken's files (`*.tiktoken`, `tiktoken.model`, `tokenizer.model`) of Qwen's first generation, Hunyuan, Kimi and \
         Llama 3, or with the special tokens that `tokenizer_config.json` adds. The first of these in a folder is taken. \
         Checked token by token against the packages `sentencepiece` and `tiktoken` on texts of many scripts, digits, \
         spaces and special tokens.\n\n\
         ## Rope\n\n\
         default, linear, dynamic, llama3, yarn, longrope and proportional, for a part of each head, by layer type. What changes with \
         the length of the text (dynamic, longrope) is fixed by the context that the model is loaded for, since keys \
         stay in the cache as they were rotated.\n",
    );
    check("docs/models.md", &text);
}

/// Names of the tiny embedding models of each architecture; those with a GGUF file in bold.
fn embedding_cases() -> BTreeMap<String, Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/embed");
    let ggufs: Vec<String> = fs::read_dir(folder.join("gguf"))
        .expect("fixtures")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    let mut cases: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for kind in encoders::TYPES.iter().filter(|kind| !["camembert", "nomic-bert"].contains(kind)) {
        cases.insert((*kind).to_owned(), Vec::new());
    }
    for entry in fs::read_dir(folder).expect("fixtures") {
        let path = entry.expect("an entry").path();
        let Ok(config) = fs::read(path.join("config.json")) else { continue };
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let has_gguf = ggufs.iter().any(|file| file.starts_with(&format!("{name}_")));
        let name = if has_gguf { format!("**{name}**") } else { name };
        cases.entry(config["model_type"].as_str().expect("a type").to_owned()).or_default().push(name);
    }
    for (kind, cases) in &mut cases {
        assert!(!cases.is_empty(), "no model of the type {kind}");
        cases.sort_by_key(|name| name.replace('*', ""));
    }
    cases
}

/// Names of the tiny models of each architecture; those with a GGUF file in bold.
fn cases_by_architecture() -> BTreeMap<&'static str, Vec<String>> {
    let mut cases: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for folder in ["fixtures/architectures", "fixtures/tiny"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in fs::read_dir(folder).expect("fixtures") {
            let path = entry.expect("an entry").path();
            let Ok(config) = fs::read(path.join("config.json")) else { continue };
            let config: Value = serde_json::from_slice(&config).expect("JSON");
            let kind = config.as_object().and_then(models::of_config).expect("an architecture");
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let name = if path.join("model.gguf").exists() { format!("**{name}**") } else { name };
            // Quantized ones are Llamas too, and checked for their weights.
            if !name.starts_with("quant_") {
                cases.entry(kind.name).or_default().push(name);
            }
        }
    }
    cases.entry("llama").or_default().push("**gguf**".to_owned());
    for cases in cases.values_mut() {
        cases.sort_by_key(|name| name.replace('*', ""));
    }
    cases
}

#[test]
fn the_tables_of_settings_are_current() {
    let mut text = format!(
        "# Settings\n\n<!-- Made from src/settings: {HOW} -->\n\n\
         A flag comes before the environment, the environment before `config.toml`, and that before the default. \
         `mlx-cache config` shows each value in effect and where it comes from.\n\n\
         ## config.toml\n\n\
         In the store (`~/.mlx-cache/config.toml`). `mlx-cache config set KEY VALUE` and `mlx-cache config unset KEY` edit \
         it and keep its comments.\n\n| key | value | meaning |\n| --- | --- | --- |\n"
    );
    for key in KEYS {
        writeln!(text, "| `{}` | {} | {} |", key.name, key.form, key.meaning).expect("text");
    }
    text.push_str(
        "\n## Environment\n\nA variable that is set but empty counts as not set.\n\n\
         | variable | meaning |\n| --- | --- |\n",
    );
    for variable in variables::ALL {
        writeln!(text, "| `{}` | {} |", variable.name, variable.meaning).expect("text");
    }
    check("docs/settings.md", &text);
}
