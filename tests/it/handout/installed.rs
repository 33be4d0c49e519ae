//! `make install`, `make uninstall`, `make package`: what they make runs where nothing else is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{bare, fresh, installation, make, target, tiny};
use crate::sandbox::{Sandbox, finish};

/// Adds a model, verifies it, and lets it answer, with the program at this path and nothing around it.
fn works(program: &Path) {
    let sandbox = Sandbox::new();
    let run = |args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).env_clear().env("HOME", sandbox.home()).current_dir(sandbox.home());
        finish(command.env("MLX_CACHE_OFFLINE", "1"))
    };
    let tiny = tiny();
    for args in [
        &["doctor"][..],
        &["add", tiny.to_str().expect("UTF-8"), "--copy", "--name", "some/tiny"],
        &["verify"],
        &["run", "some/tiny", "Hi", "-n", "4", "--temp", "0"],
    ] {
        let outcome = run(args);
        assert_eq!(outcome.status, 0, "{args:?}: {outcome:?}");
    }
}

/// Every library that the program needs, below one of these folders.
#[cfg(target_os = "linux")]
fn assert_libraries(program: &Path, own: &Path) {
    let outcome = finish(Command::new("ldd").arg(program));
    let own = fs::canonicalize(own).expect("a folder");
    let mut found = std::collections::BTreeSet::new();
    for line in outcome.stdout.lines() {
        let Some((name, rest)) = line.trim().split_once(" => ") else { continue };
        let path = rest.split(" (").next().unwrap_or_default();
        let path = fs::canonicalize(path).unwrap_or_else(|error| panic!("{line}: {error}"));
        let of_system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"].iter().any(|it| path.starts_with(it));
        assert!(path.starts_with(&own) || of_system, "{name} is taken from {}", path.display());
        if path.starts_with(&own) {
            found.insert(name.split('.').next().unwrap_or_default().to_owned());
        }
    }
    assert!(found.contains("libmlx"), "brought along: {found:?}");
    // Loaded when a product needs it, or somebody asks about it.
    let loads = finish(Command::new(program).arg("doctor").env("LD_DEBUG", "libs"));
    let openblas: Vec<_> = loads
        .stderr
        .lines()
        .filter_map(|line| line.split_once("calling init: "))
        .filter(|(_, path)| path.contains("libopenblas"))
        .map(|(_, path)| fs::canonicalize(path).expect("a library"))
        .collect();
    assert!(matches!(&openblas[..], [path] if path.starts_with(&own)), "{openblas:?}: {}", loads.stdout);
    let dynamic = finish(Command::new("readelf").arg("-d").arg(program)).stdout;
    let paths: Vec<_> = dynamic.lines().filter(|line| line.contains("PATH)")).collect();
    assert!(
        matches!(paths[..], [line] if line.ends_with("[$ORIGIN/../lib/mlx-cache/mlx/lib]")),
        "libraries are looked for where others may write: {paths:?}"
    );
}

#[cfg(not(target_os = "linux"))]
fn assert_libraries(_program: &Path, _own: &Path) {}

#[test]
fn what_make_install_installs_runs_with_its_own_libraries() {
    let prefix = installation();
    works(&prefix.join("bin/mlx-cache"));
    assert_libraries(&prefix.join("bin/mlx-cache"), &prefix.join("lib"));
    for entry in walkdir::WalkDir::new(prefix) {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("metadata").permissions().mode();
        assert_eq!(mode & 0o022, 0, "others may write {}", entry.path().display());
        assert!(entry.file_type().is_symlink() || mode & 0o444 == 0o444, "{}", entry.path().display());
    }
}

#[test]
fn make_uninstall_leaves_no_file_behind() {
    let prefix = fresh("uninstalled");
    let variables = [format!("PREFIX={}", prefix.display())];
    fs::create_dir_all(prefix.join("bin")).expect("a folder");
    fs::write(prefix.join("bin/other"), "somebody else's").expect("a file");
    assert_eq!(finish(&mut make("install", &variables)).status, 0);
    assert_eq!(finish(&mut make("uninstall", &variables)).status, 0);
    let left: Vec<_> = walkdir::WalkDir::new(&prefix)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| !entry.file_type().is_dir())
        .map(walkdir::DirEntry::into_path)
        .collect();
    assert_eq!(left, [prefix.join("bin/other")]);
    fs::remove_dir_all(prefix).expect("gone");
}

#[test]
fn the_package_runs_where_it_is_unpacked() {
    let packages = fresh("packages");
    let outcome = finish(&mut make("package", &[format!("PACKAGES={}", packages.display())]));
    assert_eq!(outcome.status, 0, "{outcome:?}");
    let package = Path::new(outcome.stdout.trim()).to_owned();
    let name = package.file_name().and_then(|name| name.to_str()).expect("a name");
    let name = name.strip_suffix(".tar.gz").expect("a tarball").to_owned();
    assert!(name.starts_with(concat!("mlx-cache-", env!("CARGO_PKG_VERSION"), "-")), "{name}");

    let elsewhere = packages.join("else where");
    fs::create_dir(&elsewhere).expect("a folder");
    let unpacked = finish(Command::new("tar").arg("-xzf").arg(&package).arg("-C").arg(&elsewhere));
    assert_eq!(unpacked.status, 0, "{unpacked:?}");
    let folder = elsewhere.join(&name);
    assert_eq!(fs::read_dir(&elsewhere).expect("a folder").count(), 1, "one folder in the tarball");
    for file in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "share/man/man1/mlx-cache.1"] {
        assert!(folder.join(file).is_file(), "no {file}");
    }
    works(&folder.join("bin/mlx-cache"));
    assert_libraries(&folder.join("bin/mlx-cache"), &folder.join("lib"));
    fs::remove_dir_all(packages).expect("gone");
}

#[test]
fn nothing_of_the_installation_needs_the_home_to_be_there() {
    let sandbox = Sandbox::new();
    let mut version = bare("mlx-cache", &sandbox);
    let outcome = finish(version.arg("--version").env_remove("HOME"));
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    assert!(target().exists());
}
