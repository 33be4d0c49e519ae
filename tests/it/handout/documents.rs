//! Every command line in the documents runs here.
//!
//! The rule, for README.md, CONTRIBUTING.md and everything below docs/:
//! - a block fenced as `sh` is a script; its commands run in order and all of them succeed;
//! - a block fenced as `console` has commands after `$ ` and what they print; where output is shown, it must be
//!   what is printed, numbers that vary aside; a line with `…` alone stands for any lines;
//! - the blocks of a page share one home, with the models that the documents speak of (see [`machine`]);
//! - a block that cannot run has a comment before it, `<!-- not run: why -->`, and is counted in [`NOT_RUN`];
//! - other fences hold no commands, and code that is only indented does not exist;
//! - a command named in a line of text must be one that the program takes, with those flags.

pub mod blocks;
mod machine;
pub mod mentions;

use std::fs;
use std::path::PathBuf;

use self::blocks::{Block, Language, blocks};
use self::machine::Machine;
use super::root;

/// How many blocks of a page have a reason not to run.
const NOT_RUN: &[(&str, usize)] = &[
    ("CONTRIBUTING.md", 1),
    ("README.md", 2),
    ("docs/cookbook.md", 2),
    ("docs/homebrew.md", 3),
    ("docs/performance.md", 2),
];

/// The documents, by their paths in the repository.
fn pages() -> Vec<(String, String)> {
    let mut paths = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    let below = walkdir::WalkDir::new(root().join("docs")).sort_by_file_name();
    paths.extend(below.into_iter().map(|entry| entry.expect("an entry").into_path()));
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let name = |path: &PathBuf| path.strip_prefix(root()).expect("in it").to_str().expect("UTF-8").to_owned();
    paths
        .iter()
        .filter(|path| is_page(path))
        .map(|path| (name(path), fs::read_to_string(path).expect("a page")))
        .collect()
}

/// Runs the blocks of these pages.
fn run(wanted: impl Fn(&str) -> bool) -> usize {
    let mut run = 0;
    for (page, text) in pages().into_iter().filter(|(page, _)| wanted(page)) {
        let blocks: Vec<Block> = blocks(&page, &text).into_iter().filter(Block::runs).collect();
        if !blocks.is_empty() {
            let machine = Machine::new();
            for block in &blocks {
                machine.run(block);
            }
        }
        run += blocks.len();
    }
    run
}

#[test]
fn the_commands_of_the_readme_run() {
    assert!(run(|page| page == "README.md") > 0);
}

#[test]
fn the_commands_of_the_cookbook_run() {
    assert!(run(|page| page == "docs/cookbook.md") > 5);
}

#[test]
fn the_commands_of_all_other_pages_run() {
    assert!(run(|page| page != "README.md" && page != "docs/cookbook.md") > 3);
}

#[test]
fn what_does_not_run_is_known_and_says_why() {
    let mut found = Vec::new();
    for (page, text) in pages() {
        let reasons: Vec<_> = blocks(&page, &text).into_iter().filter_map(|block| block.not_run).collect();
        assert!(reasons.iter().all(|reason| reason.len() > 10), "{page}: {reasons:?}");
        if !reasons.is_empty() {
            found.push((page, reasons.len()));
        }
    }
    found.sort();
    let known: Vec<_> = NOT_RUN.iter().map(|(page, count)| ((*page).to_owned(), *count)).collect();
    assert_eq!(found, known);
}

#[test]
fn commands_stand_in_blocks_that_run() {
    for (page, text) in pages() {
        for block in blocks(&page, &text).iter().filter(|block| block.language == Language::Other) {
            let command =
                block.lines.iter().find(|line| line.starts_with("mlx-cache ") || line.starts_with("$ "));
            assert_eq!(command, None, "{page}:{}: fence it as sh or console", block.line);
        }
        let outside = blocks::outside(&text);
        let indented = outside.iter().find(|line| line.starts_with("    ") && line.contains("mlx-cache "));
        assert_eq!(indented, None, "{page}: fence it as sh or console");
    }
}

#[test]
fn commands_and_flags_that_the_text_mentions_exist() {
    let mut mentioned = 0;
    for (page, text) in pages() {
        mentioned += mentions::check(&page, &blocks::outside(&text));
    }
    assert!(mentioned > 50, "{mentioned}");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut links = 0;
    for (page, text) in pages() {
        let folder = root().join(&page).parent().expect("a folder").to_owned();
        for target in mentions::links(&blocks::outside(&text)) {
            if !target.contains("://") && !target.starts_with('#') {
                let path = target.split('#').next().unwrap_or_default();
                assert!(folder.join(path).exists(), "{page}: {target} is not there");
                links += 1;
            }
        }
    }
    assert!(links > 10, "{links}");
}

#[test]
fn an_example_that_is_wrong_would_be_seen() {
    let wrong = |text: &str| {
        let block = blocks("page", text).remove(0);
        std::panic::catch_unwind(|| Machine::new().run(&block)).is_err()
    };
    assert!(wrong("```sh\nmlx-cache list --no-such-flag\n```\n"));
    assert!(wrong("```sh\nmlx-cache path no-such-model\ntrue\n```\n"));
    assert!(wrong("```sh\nmlx-cache path no-such-model | cat\n```\n"));
    assert!(wrong("```console\n$ mlx-cache --version\nmlx-cache 77\n```\n"));
    assert!(!wrong("```console\n$ mlx-cache --version\n…\n$ mlx-cache list --format names\n…\n```\n"));
}
