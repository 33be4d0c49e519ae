//! What `-h` and `--help` say beyond the definitions: the short form fits a screen of 24 lines with 80
//! columns, the long form has everything, commands in groups.

use std::fmt::Write;

use clap::builder::Styles;
use clap::{Command, CommandFactory, Subcommand};

use super::Cli;

/// Every command, by what it is for.
pub const GROUPS: &[(&str, &[&str])] = &[
    ("Use models", &["run", "embed", "bench"]),
    ("Get them, find them", &["pull", "add", "list", "show", "path"]),
    ("Keep the disk in order", &["dedupe", "verify", "rm", "gc", "link"]),
    ("This machine and others", &["recommend", "status", "doctor", "config", "export", "import"]),
    ("The shell", &["completions", "man"]),
];

/// Commands that the program's short help explains; it names the others.
const MAIN: &[&str] =
    &["run", "embed", "pull", "add", "list", "show", "rm", "dedupe", "verify", "status", "doctor"];

/// Options of a command's short help where not all of them fit.
const SHORT: &[(&str, &[&str])] = &[
    ("run", &["system", "max_tokens", "temp", "context"]),
    ("embed", &["input", "output", "nearest"]),
    ("bench", &["prompt_tokens", "generate_tokens", "repeat", "compare", "history"]),
    ("pull", &["revision", "include", "dry_run", "force"]),
];

const EXAMPLES: &str = "    mlx-cache run smollm2 \"What is the capital of France?\"
    git diff | mlx-cache run smollm2 \"Write a commit message:\"
    mlx-cache list --source all
    mlx-cache dedupe";

const FOOTER: &str = "Every command takes --json, --quiet, --verbose and --color.";

/// The command line with its help.
pub fn command() -> Command {
    let short = format!("{}\n\n{}", listed(MAIN), also());
    Cli::command()
        // The list of commands is ours: clap knows no groups.
        .help_template(format!(
            "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{{before-help}}{}\n{{options}}{{after-help}}",
            heading("Options:")
        ))
        .before_help(short)
        .before_long_help(in_groups())
        .after_help("")
        .after_long_help(format!("{}\n{EXAMPLES}", heading("Examples:")))
        .mut_args(|argument| argument.hide_short_help(true))
        .mut_subcommands(shortened)
}

/// A subcommand whose short help leaves out what would not fit.
fn shortened(subcommand: Command) -> Command {
    let shown = SHORT.iter().find(|(name, _)| *name == subcommand.get_name()).map(|(_, shown)| *shown);
    let long = subcommand.get_long_about().or(subcommand.get_about()).map(ToString::to_string);
    subcommand
        .long_about(flowing(&long.unwrap_or_default()))
        .mut_args(|argument| {
            let hidden = shown.is_some_and(|shown| {
                !argument.is_positional() && !shown.contains(&argument.get_id().as_str())
            });
            if hidden { argument.hide_short_help(true) } else { argument }
        })
        .mut_subcommands(shortened)
        .after_help(FOOTER)
        .after_long_help("")
}

/// The text with each paragraph on one line, which clap breaks where the terminal ends: breaks of the source would
/// stand beside those. Lines that begin with blanks are examples and stay.
fn flowing(text: &str) -> String {
    let mut flowing = String::with_capacity(text.len());
    let mut before = "";
    for line in text.lines() {
        let goes_on = ![before, line].iter().any(|line| line.is_empty() || line.starts_with(' '));
        flowing.push_str(if goes_on { " " } else { "\n" });
        flowing.push_str(line);
        before = line;
    }
    flowing.trim_start_matches('\n').to_owned()
}

/// Lines of names and what the commands do.
fn listed(names: &[&str]) -> String {
    let commands = super::Command::augment_subcommands(Command::new("commands"));
    let style = Styles::styled();
    let literal = style.get_literal();
    let mut lines = String::new();
    for name in names {
        let about = commands.find_subcommand(name).and_then(Command::get_about);
        let about = about.map(ToString::to_string).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "  {literal}{name:<11}{literal:#}  {about}");
    }
    lines.trim_end().to_owned()
}

/// The commands that the short help does not explain.
fn also() -> String {
    let names: Vec<_> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
    let others: Vec<_> = names.into_iter().filter(|name| !MAIN.contains(name)).collect();
    format!("And {}: `mlx-cache COMMAND -h` says more.", others.join(", "))
}

fn in_groups() -> String {
    let groups: Vec<_> = GROUPS
        .iter()
        .map(|(title, names)| format!("{}\n{}", heading(&format!("{title}:")), listed(names)))
        .collect();
    groups.join("\n\n")
}

fn heading(text: &str) -> String {
    let styles = Styles::styled();
    let style = styles.get_header();
    format!("{style}{text}{style:#}")
}
