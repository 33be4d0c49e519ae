//! Documents that are made from the source: `UPDATE_DOCS=1 cargo test --test it documents` writes them.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use mlx_cache::cli::Cli;
use mlx_cache::cli::completions::{Shell, script};
use mlx_cache::cli::man::pages;
use mlx_cache::commands::run::chat::saved::SavedChat;
use mlx_cache::error::Code;
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
