//! The commands of a chat, each a line that begins with a slash.

use std::path::PathBuf;

use crate::error::{Code, Error, Result};

/// What `/help` prints.
pub const HELP: &str = "\
/help                 this list
/system TEXT          set the system message; without TEXT, remove it
/set PARAM VALUE      change a parameter, such as temp, seed or max_tokens
/show [WHAT]          show model, parameters, system or usage; without WHAT, all
/clear                forget the conversation; the system message stays
/save FILE            write the conversation to a JSON file
/load FILE            go on with a saved conversation
/exit, /bye           leave (or Ctrl-D)

\"\"\"                   begins and ends a message of several lines
\\                     at the end of a line continues it on the next one
Ctrl-C                stops the answer, or clears the line
A message that begins with a slash goes between \"\"\" or after a space.";

/// What `/show` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    All,
    Model,
    Parameters,
    System,
    Usage,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Help,
    /// `None` removes the system message.
    System(Option<String>),
    Set(String, String),
    Show(Topic),
    Clear,
    Save(PathBuf),
    Load(PathBuf),
    Exit,
}

/// Reads a line that begins with a slash.
pub fn parse(line: &str) -> Result<Command> {
    let (name, value) = match line.split_once(char::is_whitespace) {
        Some((name, value)) => (name, value.trim()),
        None => (line, ""),
    };
    match name {
        "/help" | "/?" => Ok(Command::Help),
        "/exit" | "/bye" | "/quit" => Ok(Command::Exit),
        "/clear" => Ok(Command::Clear),
        "/system" => Ok(system(value)),
        "/set" => match value.split_once(char::is_whitespace) {
            Some(("system", text)) => Ok(system(text.trim())),
            Some((parameter, value)) => Ok(Command::Set(parameter.to_owned(), unquoted(value.trim()))),
            None if value.is_empty() => Ok(Command::Show(Topic::Parameters)),
            None => Err(misused("/set takes a parameter and a value", "try: /set temp 0.5")),
        },
        "/show" => topic(value).map(Command::Show),
        "/save" => file(name, value).map(Command::Save),
        "/load" => file(name, value).map(Command::Load),
        _ => Err(misused(
            &format!("there is no command {name}"),
            "try /help; a message that begins with a slash goes after a space",
        )),
    }
}

fn system(text: &str) -> Command {
    Command::System((!text.is_empty()).then(|| text.to_owned()))
}

fn topic(value: &str) -> Result<Topic> {
    Ok(match value {
        "" | "all" => Topic::All,
        "model" | "info" => Topic::Model,
        "parameters" => Topic::Parameters,
        "system" => Topic::System,
        "usage" => Topic::Usage,
        _ => {
            return Err(misused(
                &format!("/show knows nothing about '{value}'"),
                "try: /show model, parameters, system or usage",
            ));
        }
    })
}

fn file(name: &str, value: &str) -> Result<PathBuf> {
    if value.is_empty() {
        return Err(misused(&format!("{name} takes a file"), &format!("try: {name} chat.json")));
    }
    // A shell would have expanded it; here the user types the same path.
    match (value.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => Ok(home.join(rest)),
        _ => Ok(PathBuf::from(value)),
    }
}

/// A value without the double quotes around it, which a stop text with a space at its end needs.
fn unquoted(value: &str) -> String {
    value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .map_or_else(|| value.to_owned(), |inner| inner.replace("\\n", "\n"))
}

fn misused(message: &str, hint: &str) -> Error {
    Error::new(Code::InvalidRequest, message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_with_their_values() {
        let some = |text: &str| Some(text.to_owned());
        for (line, command) in [
            ("/help", Command::Help),
            ("/bye", Command::Exit),
            ("/exit ", Command::Exit),
            ("/clear", Command::Clear),
            ("/system  Be brief. ", Command::System(some("Be brief."))),
            ("/system Be\nbrief.", Command::System(some("Be\nbrief."))),
            ("/system", Command::System(None)),
            ("/set system Be brief.", Command::System(some("Be brief."))),
            ("/set temp 0.5", Command::Set("temp".to_owned(), "0.5".to_owned())),
            ("/set stop \"User: \"", Command::Set("stop".to_owned(), "User: ".to_owned())),
            ("/set stop \"\\n\"", Command::Set("stop".to_owned(), "\n".to_owned())),
            ("/set", Command::Show(Topic::Parameters)),
            ("/show", Command::Show(Topic::All)),
            ("/show usage", Command::Show(Topic::Usage)),
            ("/save my chat.json", Command::Save(PathBuf::from("my chat.json"))),
            ("/load /tmp/a.json", Command::Load(PathBuf::from("/tmp/a.json"))),
        ] {
            assert_eq!(parse(line).expect(line), command, "{line}");
        }
    }

    #[test]
    fn what_is_no_command_is_told_with_a_way_on() {
        for (line, told) in [
            ("/hlep", "no command /hlep"),
            ("/", "no command /"),
            ("/usr/bin/env", "no command /usr/bin/env"),
            ("/set temp", "/set takes a parameter and a value"),
            ("/show everything", "'everything'"),
            ("/save", "/save takes a file"),
            ("/load  ", "/load takes a file"),
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.code(), Code::InvalidRequest);
            assert!(error.message().contains(told), "{line}: {}", error.message());
            assert!(error.hint_text().is_some());
        }
    }

    #[test]
    fn help_names_every_command() {
        for name in ["/help", "/system", "/set", "/show", "/clear", "/save", "/load", "/exit", "/bye"] {
            assert!(HELP.contains(name), "{name}");
        }
    }
}
