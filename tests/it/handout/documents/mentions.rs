//! Commands, flags and links in lines of text.

use clap::error::ErrorKind;
use mlx_cache::cli::help::command;

/// Checks the code in these lines: whatever begins with `mlx-cache` must be a command that the program takes,
/// placeholders aside, and whatever begins with `--` a flag of some command. Returns how many there were.
pub fn check(page: &str, lines: &[&str]) -> usize {
    let flags = flags();
    let mut checked = 0;
    for code in code(lines) {
        for part in code.split(" | ") {
            if let Some(line) = part.trim().strip_prefix("mlx-cache ") {
                parses(page, line);
                checked += 1;
            }
        }
        if let Some(flag) = code.strip_prefix("--") {
            let name = flag.split([' ', '=']).next().unwrap_or_default();
            assert!(flags.iter().any(|known| known == name), "{page}: no command takes --{name}");
            checked += 1;
        }
    }
    checked
}

/// What stands between backticks. A bar is written with a backslash in tables.
fn code(lines: &[&str]) -> Vec<String> {
    let text = lines.join("\n");
    text.split('`').skip(1).step_by(2).map(|code| code.replace("\\|", "|").replace('\n', " ")).collect()
}

/// Targets of links.
pub fn links(lines: &[&str]) -> Vec<String> {
    let text = lines.join("\n");
    let ends = text.split("](").skip(1);
    ends.filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect()
}

fn flags() -> Vec<String> {
    let mut program = command();
    program.build();
    let mut flags = Vec::new();
    let mut left = vec![&program];
    while let Some(command) = left.pop() {
        flags.extend(command.get_arguments().filter_map(|it| it.get_long()).map(str::to_owned));
        let aliases = command.get_arguments().filter_map(clap::Arg::get_visible_aliases).flatten();
        flags.extend(aliases.map(str::to_owned));
        left.extend(command.get_subcommands());
    }
    flags
}

/// Fails unless the program knows the command and its flags. A line of text may leave arguments out, or have
/// words such as MODEL in their place.
fn parses(page: &str, line: &str) {
    let line = line.trim_end_matches(['…', ' ']);
    let words = words(line);
    if let Err(error) = command().try_get_matches_from([vec!["mlx-cache".to_owned()], words].concat()) {
        let left_out = matches!(
            error.kind(),
            ErrorKind::MissingRequiredArgument
                | ErrorKind::MissingSubcommand
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                | ErrorKind::DisplayHelp
                | ErrorKind::DisplayVersion
                | ErrorKind::TooFewValues
        );
        let placeholder = line.split(' ').any(|word| word.len() > 1 && word == word.to_uppercase());
        let stands_in = placeholder
            && matches!(
                error.kind(),
                ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::InvalidSubcommand
            );
        assert!(left_out || stands_in, "{page}: `mlx-cache {line}`: {error}");
    }
}

/// The words of a line, quoted ones as one.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(mark), c) if mark == c => quote = None,
            (None, ' ') => words.push(std::mem::take(&mut word)),
            _ => word.push(c),
        }
    }
    words.push(word);
    words.into_iter().filter(|word| !word.is_empty()).collect()
}
