//! `mlx-cache man`, and the manual's pages.

use std::io;
use std::path::PathBuf;

use clap::{Args, CommandFactory, ValueHint};
use clap_mangen::Man;
use roff::{Roff, bold, roman};

use super::Cli;
use crate::error::{Code, Error, Result};
use crate::settings::variables;

/// Write the manual's pages into a folder
///
///     mlx-cache man ~/.local/share/man/man1
///     man mlx-cache-run
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct ManArgs {
    /// The folder, which is made if it is not there
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
}

/// One page of the manual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManPage {
    /// Such as `mlx-cache-run.1`.
    pub file_name: String,
    /// In the markup of roff.
    pub text: String,
}

/// Every page: of the program and of each subcommand.
pub fn pages() -> Result<Vec<ManPage>> {
    let mut program = Cli::command();
    program.build();
    let mut commands = vec![program.clone()];
    for subcommand in program.get_subcommands().filter(|it| !it.is_hide_set()) {
        commands.push(subcommand.clone());
        // The subcommands of a subcommand, as `config set`.
        commands.extend(subcommand.get_subcommands().filter(|it| !it.is_hide_set()).cloned());
    }
    commands.into_iter().map(page).collect()
}

fn page(command: clap::Command) -> Result<ManPage> {
    let is_program = command.get_name() == "mlx-cache";
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let command = command.name(name.clone()).disable_help_subcommand(true);
    let has_subcommands = command.has_subcommands();
    let man = Man::new(command)
        .title(name.to_uppercase())
        .date(" ")
        .source(concat!("mlx-cache ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    let render = |text: &mut Vec<u8>| -> io::Result<()> {
        man.render_title(text)?;
        man.render_name_section(text)?;
        man.render_synopsis_section(text)?;
        man.render_description_section(text)?;
        man.render_options_section(text)?;
        if has_subcommands {
            man.render_subcommands_section(text)?;
        }
        exit_status().to_writer(text)?;
        environment().to_writer(text)?;
        if is_program {
            files().to_writer(text)?;
        } else {
            see_also().to_writer(text)?;
        }
        Ok(())
    };
    render(&mut text)
        .and_then(|()| String::from_utf8(text).map_err(io::Error::other))
        .map(|text| ManPage { file_name: format!("{name}.1"), text })
        .map_err(|error| Error::internal(format!("no manual for {name}: {error}")))
}

fn section(title: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    roff
}

/// A term and what it means.
fn entry(roff: &mut Roff, term: &str, meaning: impl Into<String>) {
    roff.control("TP", []).text([bold(term)]).text([roman(meaning)]);
}

fn exit_status() -> Roff {
    let mut roff = section("EXIT STATUS");
    let mut statuses: Vec<u8> = Code::ALL.iter().map(|code| code.exit_status()).collect();
    statuses.sort_unstable();
    statuses.dedup();
    entry(&mut roff, "0", "The command did its work.");
    for status in statuses {
        let codes: Vec<String> = Code::ALL
            .iter()
            .filter(|code| code.exit_status() == status)
            .map(|code| format!("{} ({})", code.name(), code.meaning()))
            .collect();
        entry(&mut roff, &status.to_string(), format!("{}.", codes.join("; ")));
    }
    roff
}

fn environment() -> Roff {
    let mut roff = section("ENVIRONMENT");
    for variable in variables::ALL {
        entry(&mut roff, variable.name, format!("{}.", variable.meaning.replace('`', "")));
    }
    roff
}

fn files() -> Roff {
    let mut roff = section("FILES");
    entry(&mut roff, "~/.mlx-cache", "The store: content, models, and the registry that knows them.");
    entry(&mut roff, "~/.mlx-cache/config.toml", "Settings; mlx-cache config shows and changes them.");
    roff
}

fn see_also() -> Roff {
    let mut roff = section("SEE ALSO");
    roff.text([bold("mlx-cache"), roman("(1), for the files")]);
    roff
}
