//! Help: its short form fits a screen, its long form has everything.

use mlx_cache::cli::help::{GROUPS, command};

use super::documents::mentions;
use crate::sandbox::{Sandbox, finish};

/// Of a screen of 24 lines the last one is the next prompt's.
const LINES: usize = 23;
const COLUMNS: usize = 80;

/// The words that lead to each command, the program's own among them.
fn commands() -> Vec<Vec<String>> {
    let mut paths = vec![Vec::new()];
    for subcommand in command().get_subcommands() {
        let name = subcommand.get_name().to_owned();
        paths.push(vec![name.clone()]);
        paths.extend(subcommand.get_subcommands().map(|it| vec![name.clone(), it.get_name().to_owned()]));
    }
    paths
}

fn help(path: &[String], form: &str) -> String {
    let sandbox = Sandbox::new();
    let mut command = sandbox.cmd(path);
    let outcome = finish(command.arg(form).env("COLUMNS", COLUMNS.to_string()));
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{path:?}");
    outcome.stdout
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

#[test]
fn the_short_form_fits_a_screen() {
    for path in commands() {
        let text = help(&path, "-h");
        let lines = text.lines().count();
        assert!(lines <= LINES, "{path:?} has {lines} lines:\n{text}");
        let wide = text.lines().find(|line| line.chars().count() > COLUMNS);
        assert_eq!(wide, None, "{path:?}");
        assert!(text.contains("more with '--help'"), "{path:?} does not say where the rest is");
    }
}

#[test]
fn the_long_form_has_an_example_and_every_flag() {
    for path in commands() {
        let text = help(&path, "--help");
        let examples: Vec<_> = text.lines().filter(|line| indent(line) == 4).collect();
        let quoted: Vec<_> = examples.iter().map(|line| format!("`{}`", line.trim())).collect();
        mentions::check(&path.join(" "), &quoted.iter().map(String::as_str).collect::<Vec<_>>());
        let wide = text.lines().find(|line| line.chars().count() > 120);
        assert_eq!(wide, None, "{path:?}");
        let prose: Vec<_> = text.lines().take_while(|line| !line.starts_with("Usage:")).collect();
        for pair in
            prose.windows(2).filter(|pair| pair.iter().all(|line| !line.is_empty() && indent(line) == 0))
        {
            let word = pair[1].split(' ').next().unwrap_or_default();
            let full = pair[0].chars().count() + 1 + word.chars().count() > COLUMNS;
            assert!(full, "{path:?} breaks a line early: {pair:?}");
        }
        let name = path.first().map_or("mlx-cache ".to_owned(), |name| format!("mlx-cache {name}"));
        let is_example = |line: &&str| line.contains(&name);
        assert!(examples.iter().any(is_example), "{path:?} has no example:\n{text}");
        for flag in ["--json", "--color", "--quiet", "--verbose"] {
            assert!(text.contains(flag), "{path:?} does not tell of {flag}");
        }
    }
}

#[test]
fn every_command_stands_in_one_group_and_is_explained_in_a_line() {
    let text = help(&[], "--help");
    for subcommand in command().get_subcommands() {
        let name = subcommand.get_name();
        let groups = GROUPS.iter().filter(|(_, names)| names.contains(&name)).count();
        assert_eq!(groups, 1, "{name}");
        let about = subcommand.get_about().expect("a line").to_string();
        assert!(text.lines().any(|line| line == format!("  {name:<11}  {about}")), "{name}:\n{text}");
        assert!(!about.ends_with('.') && about.starts_with(char::is_uppercase), "{about}");
    }
    for (_, names) in GROUPS {
        for name in *names {
            assert!(command().find_subcommand(name).is_some(), "{name} is no command");
        }
    }
}
