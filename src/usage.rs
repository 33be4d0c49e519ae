//! Around the command line: how to print, help, and arguments that make no sense.

use std::ffi::OsString;

use clap::CommandFactory;
use clap::error::ErrorKind;

use crate::cli::{self, Cli, ColorWhen, Command};
use crate::error::{Code, Error};
use crate::output::{ColorChoice, Output, Style};
use crate::settings::variables::{CLICOLOR_FORCE, Environment, NO_COLOR, TERM};

/// How to print, as the flags and the environment say.
pub fn style(cli: &Cli, environment: &Environment) -> Style {
    let global = &cli.global;
    Style {
        json: global.json || cli.command.as_ref().is_some_and(Command::prints_json),
        color: color(if global.no_color { ColorWhen::Never } else { global.color }, environment),
        quiet: global.quiet,
        verbose: global.verbose,
    }
}

/// How to print when the arguments as a whole make no sense.
fn lenient_style(args: &[OsString], environment: &Environment) -> Style {
    let flags = || args.iter().skip(1).map(|arg| arg.to_string_lossy()).take_while(|arg| arg != "--");
    let no_color = flags().any(|flag| flag == "--no-color").then_some(ColorWhen::Never);
    let when = flags().zip(flags().skip(1).chain(["".into()])).find_map(|(flag, value)| {
        let value = if flag == "--color" { value } else { flag.strip_prefix("--color=")?.to_owned().into() };
        <ColorWhen as clap::ValueEnum>::from_str(&value, false).ok()
    });
    let json_form = flags().zip(flags().skip(1)).any(|(flag, value)| flag == "--format" && value == "json")
        || flags().any(|flag| flag == "--format=json");
    Style {
        json: json_form || flags().any(|flag| flag == "--json" || flag == "--stream-json"),
        color: color(no_color.or(when).unwrap_or_default(), environment),
        quiet: false,
        verbose: false,
    }
}

/// The flag, then NO_COLOR, CLICOLOR_FORCE and TERM; what they leave open depends on the terminal.
fn color(flag: ColorWhen, environment: &Environment) -> ColorChoice {
    match flag {
        ColorWhen::Always => ColorChoice::Always,
        ColorWhen::Never => ColorChoice::Never,
        ColorWhen::Auto if environment.raw(NO_COLOR).is_some() => ColorChoice::Never,
        ColorWhen::Auto if environment.raw(CLICOLOR_FORCE).is_some_and(|value| value != "0") => {
            ColorChoice::Always
        }
        ColorWhen::Auto if environment.raw(TERM).is_some_and(|value| value == "dumb") => ColorChoice::Never,
        ColorWhen::Auto => ColorChoice::Auto,
    }
}

/// Answers what clap did not turn into arguments: a request for help or the version, or an error.
/// Returns the exit status.
pub fn answer(args: &[OsString], environment: &Environment, error: &clap::Error) -> u8 {
    let output = Output::new(lenient_style(args, environment));
    let text = error.render();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return output.help(&text.to_string(), &text.ansi().to_string());
    }
    let command = named_command(args);
    output.error(command.as_deref(), &from_clap(&text.to_string(), command.as_deref()))
}

/// Answers `mlx-cache` alone on a machine with models: short help.
pub fn no_command(output: &Output) -> u8 {
    let help = cli::help::command().render_help();
    output.help(&help.to_string(), &help.ansi().to_string())
}

/// The first argument that is a subcommand's name.
fn named_command(args: &[OsString]) -> Option<String> {
    let cli = Cli::command();
    args.iter().skip(1).find_map(|arg| Some(cli.find_subcommand(arg)?.get_name().to_owned()))
}

/// Clap's text in our form: its paragraphs are the error, tips, the usage and where to read on.
fn from_clap(text: &str, command: Option<&str>) -> Error {
    let mut message = String::new();
    let mut hints = Vec::new();
    for paragraph in text.split("\n\n").map(one_line) {
        if let Some(what) = paragraph.strip_prefix("error: ") {
            what.clone_into(&mut message);
        } else if let Some(tip) = paragraph.strip_prefix("tip: ") {
            hints.push(tip.to_owned());
        } else if let Some(usage) = paragraph.strip_prefix("Usage: ") {
            hints.push(format!("usage: {usage}"));
        } else if paragraph.starts_with('[') {
            // The allowed values of an argument.
            message = format!("{message} {paragraph}");
        }
    }
    if hints.is_empty() {
        let command = command.map(|name| format!("{name} ")).unwrap_or_default();
        hints.push(format!("see `mlx-cache {command}--help`"));
    }
    Error::new(Code::InvalidRequest, message).hint(hints.join("; "))
}

fn one_line(paragraph: &str) -> String {
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn refused(args: &[&str]) -> Error {
        let error = Cli::try_parse_from(args).expect_err("a usage error");
        from_clap(&error.render().to_string(), None)
    }

    #[test]
    fn a_usage_error_is_one_line_with_a_usage_as_hint() {
        let error = refused(&["mlx-cache", "config", "--colour"]);
        assert_eq!(error.code(), Code::InvalidRequest);
        assert_eq!(error.message(), "unexpected argument '--colour' found");
        let hint = error.hint_text().expect("a hint");
        assert!(
            hint.contains("similar argument exists: '--color'") && hint.contains("usage: mlx-cache config"),
            "{hint}"
        );
        let error = refused(&["mlx-cache", "--color", "blue"]);
        assert!(error.message().contains("[possible values: auto, always, never]"), "{}", error.message());
    }

    #[test]
    fn json_after_two_dashes_is_not_a_flag() {
        let style = |args: &[&str]| {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            lenient_style(&args, &Environment::default())
        };
        assert!(style(&["mlx-cache", "--nonsense", "--json"]).json);
        assert!(!style(&["mlx-cache", "--nonsense", "--", "--json"]).json);
        assert_eq!(style(&["mlx-cache", "--nonsense", "--color=always"]).color, ColorChoice::Always);
        assert_eq!(style(&["mlx-cache", "--color", "never", "--nonsense"]).color, ColorChoice::Never);
    }

    #[test]
    fn the_flag_wins_over_the_environment() {
        let environment = Environment::from([(NO_COLOR, "1"), (CLICOLOR_FORCE, "1")]);
        assert_eq!(color(ColorWhen::Always, &environment), ColorChoice::Always);
        assert_eq!(color(ColorWhen::Auto, &environment), ColorChoice::Never);
        assert_eq!(color(ColorWhen::Auto, &Environment::from([(CLICOLOR_FORCE, "0")])), ColorChoice::Auto);
    }
}
