//! The Homebrew formula: its syntax, what it says, its own test, and how a release fills it in.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;

use super::{bare, installation, root};
use crate::sandbox::{Sandbox, finish};

const SYSTEMS: [(&str, &str); 3] =
    [("macos-arm64", "source"), ("linux-x86_64", "linux-x86_64"), ("linux-aarch64", "linux-aarch64")];

/// What the formula says to Homebrew on this system.
fn said(sandbox: &Sandbox, formula: &Path, system: &str) -> Value {
    let mut ruby = bare("ruby", sandbox);
    let outcome = finish(ruby.arg(root().join("tests/it/handout/formula.rb")).arg(formula).arg(system));
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    serde_json::from_str(&outcome.stdout).expect("JSON")
}

#[test]
fn the_formula_is_ruby_without_a_warning() {
    let sandbox = Sandbox::new();
    let outcome = finish(bare("ruby", &sandbox).args(["-w", "-c"]).arg(root().join("Formula/mlx-cache.rb")));
    assert_eq!((outcome.status, outcome.stdout.trim(), outcome.stderr.as_str()), (0, "Syntax OK", ""));
}

#[test]
fn the_test_of_the_formula_passes_with_what_is_installed() {
    let sandbox = Sandbox::new();
    // Homebrew's shell_output gets a line for a shell, and its prefixes have no spaces.
    let prefix = sandbox.home().join("prefix");
    symlink(installation(), &prefix).expect("a link");
    let folder = sandbox.home().join("test");
    fs::create_dir(&folder).expect("a folder");
    let mut ruby = bare("ruby", &sandbox);
    ruby.arg(root().join("tests/it/handout/formula.rb")).arg(root().join("Formula/mlx-cache.rb"));
    let outcome = finish(ruby.arg("linux-x86_64").arg(prefix).arg(folder));
    assert_eq!(outcome.status, 0, "{outcome:?}");
}

#[test]
fn a_release_fills_in_its_version_and_checksums() {
    let sandbox = Sandbox::new();
    let folder = sandbox.home().join("Formula");
    fs::create_dir(&folder).expect("a folder");
    for file in ["mlx-cache.rb", "update.sh"] {
        fs::copy(root().join("Formula").join(file), folder.join(file)).expect("a copy");
    }
    let formula = folder.join("mlx-cache.rb");
    assert_eq!(said(&sandbox, &formula, "linux-x86_64")["version"], env!("CARGO_PKG_VERSION"));

    let sums = sandbox.home().join("SHA256SUMS");
    let checksum = |digit: usize| digit.to_string().repeat(64);
    let line = |(at, (_, part)): (usize, &(&str, &str))| {
        format!("{}  mlx-cache-2.3.4-{part}.tar.gz\n", checksum(at + 1))
    };
    let lines: Vec<String> = SYSTEMS.iter().enumerate().map(line).collect();
    fs::write(&sums, lines.concat()).expect("checksums");
    let update =
        |version: &str| finish(bare("bash", &sandbox).arg(folder.join("update.sh")).arg(version).arg(&sums));
    assert_eq!(update("2.3.4").status, 0);
    for (at, (system, part)) in SYSTEMS.into_iter().enumerate() {
        let said = said(&sandbox, &formula, system);
        assert_eq!((&said["version"], &said["sha256"]), (&"2.3.4".into(), &checksum(at + 1).into()));
        let url = said["url"].as_str().expect("an address");
        assert!(url.ends_with(&format!("/v2.3.4/mlx-cache-2.3.4-{part}.tar.gz")), "{url}");
    }
    let before = fs::read(&formula).expect("the formula");
    assert_ne!(update("2.4.0").status, 0, "there are no checksums of it");
    assert_ne!(update("two").status, 0);
    assert_eq!(fs::read(&formula).expect("the formula"), before);
}
