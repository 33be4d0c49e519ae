//! The manual, as `man` shows it.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use mlx_cache::cli::Cli;
use mlx_cache::error::Code;
use mlx_cache::settings::variables;

use super::{bare, installation};
use crate::sandbox::{Outcome, Sandbox, finish};

/// Renders a page, with everything that groff has to say about it on stderr.
fn rendered(sandbox: &Sandbox, page: &Path) -> Outcome {
    let mut man = bare("man", sandbox);
    if cfg!(target_os = "linux") {
        man.args(["--warnings=w,mac,break", "-l"]);
    }
    finish(man.arg(page).env("MANPAGER", "cat").env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8"))
}

#[test]
fn every_page_renders_without_a_warning() {
    let sandbox = Sandbox::new();
    let mut pages = 0;
    for entry in fs::read_dir(installation().join("share/man/man1")).expect("pages") {
        let path = entry.expect("an entry").path();
        let Outcome { status, stdout, stderr } = rendered(&sandbox, &path);
        assert_eq!((status, stderr.as_str()), (0, ""), "{}", path.display());
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT"] {
            assert!(
                stdout.lines().any(|line| line == section),
                "{} has no {section}:\n{stdout}",
                path.display()
            );
        }
        pages += 1;
    }
    assert!(pages > Cli::command().get_subcommands().count(), "{pages} pages");
}

#[test]
#[cfg(target_os = "linux")]
fn a_page_that_is_wrong_would_be_seen() {
    let sandbox = Sandbox::new();
    let page = sandbox.home().join("wrong.1");
    fs::write(&page, ".TH WRONG 1\n.SH NAME\nwrong \\- has a macro that does not exist\n.NOSUCH x\n")
        .expect("a page");
    assert!(rendered(&sandbox, &page).stderr.contains("NOSUCH"));
}

#[test]
fn man_finds_the_pages_and_they_tell_statuses_and_variables() {
    let sandbox = Sandbox::new();
    let mut man = bare("man", &sandbox);
    man.env("MANPATH", installation().join("share/man")).env("MANPAGER", "cat").env("MANWIDTH", "400");
    let page = finish(man.arg("mlx-cache").env("LC_ALL", "C.UTF-8"));
    assert_eq!(page.status, 0, "{page:?}");
    for code in Code::ALL {
        assert!(page.stdout.contains(code.name()), "no {code}");
    }
    for variable in variables::ALL {
        assert!(page.stdout.contains(variable.name), "no {}", variable.name);
    }
}
