//! Changing config.toml: one key at a time, keeping the user's comments and order.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use toml_edit::{DocumentMut, Item, Table, TableLike, Value, value};

use super::file::{ConfigFile, KEYS};
use super::value::{parse_auto_pull, parse_bool, parse_bytes, parse_device, parse_name, parse_threads};
use crate::error::{Code, Error, Result};
use crate::fs::{FileLock, create_private_dir, write_atomic};

/// How long to wait for another process that changes the file; it takes moments.
const PATIENCE: Duration = Duration::from_secs(10);

/// A key of config.toml with a value that it may have.
#[derive(Debug, Clone)]
pub struct Assignment {
    key: KeyName,
    value: Value,
}

/// The name of a key that config.toml may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyName {
    /// A key at the top.
    Top(&'static str),
    /// A key of the table `aliases`.
    Alias(String),
}

impl KeyName {
    /// Reads `default_model` or `aliases.NAME`.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(name) = text.strip_prefix("aliases.") {
            let fits = (1..=100).contains(&name.len())
                && name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
            if fits {
                return Ok(Self::Alias(name.to_owned()));
            }
            let message = format!("'{}' is not a short name", name.escape_debug());
            return Err(Error::new(Code::InvalidRequest, message)
                .hint("use letters, digits, '-', '_' and '.', and begin with a letter or digit"));
        }
        if let Some(key) = KEYS.iter().find(|key| key.name == text) {
            return Ok(Self::Top(key.name));
        }
        let known: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        Err(Error::new(Code::InvalidRequest, format!("config.toml has no setting '{}'", text.escape_debug()))
            .hint(format!("the settings are {}", known.join(", "))))
    }
}

impl Assignment {
    /// Checks that the key may have this value.
    pub fn parse(key: &str, text: &str) -> Result<Self> {
        let name = KeyName::parse(key)?;
        let value = match &name {
            KeyName::Alias(_) | KeyName::Top("default_model") => parse_name(text).map(Value::from),
            KeyName::Top("memory_limit") => parse_bytes(text).map(|_| Value::from(text.trim())),
            KeyName::Top("offline") => parse_bool(text).map(Value::from),
            KeyName::Top("auto_pull") => parse_auto_pull(text).map(|choice| choice.as_str().into()),
            KeyName::Top("device") => parse_device(text).map(|_| text.to_ascii_lowercase().into()),
            KeyName::Top("threads") => parse_threads(text).map(|threads| Value::from(threads as i64)),
            KeyName::Top(other) => Err(Error::internal(format!("the setting {other} has no form"))),
        };
        Ok(Self { key: name, value: value.map_err(|error| error.context(key))? })
    }
}

/// Writes one value into the file, which need not exist.
pub fn set(file: &Path, assignment: &Assignment) -> Result<()> {
    change(file, |document| {
        let (table, key) = match &assignment.key {
            KeyName::Top(key) => (document.as_table_mut() as &mut dyn TableLike, *key),
            KeyName::Alias(name) => {
                let aliases = document.entry("aliases").or_insert_with(|| Item::Table(Table::new()));
                let Some(table) = aliases.as_table_like_mut() else {
                    return Err(Error::internal("aliases in config.toml is not a table"));
                };
                (table, name.as_str())
            }
        };
        match table.get_mut(key).and_then(Item::as_value_mut) {
            Some(old) => {
                // The comment behind the value stays.
                let decor = old.decor().clone();
                *old = assignment.value.clone();
                *old.decor_mut() = decor;
            }
            None => {
                table.insert(key, value(assignment.value.clone()));
            }
        }
        Ok(true)
    })
    .map(|_| ())
}

/// Takes one key out of the file; whether it was there.
pub fn unset(file: &Path, key: &KeyName) -> Result<bool> {
    change(file, |document| {
        let removed = match key {
            KeyName::Top(key) => document.remove(key),
            KeyName::Alias(name) => document
                .get_mut("aliases")
                .and_then(Item::as_table_like_mut)
                .and_then(|aliases| aliases.remove(name)),
        };
        Ok(removed.is_some())
    })
}

/// Reads, changes and publishes the file while no other process does; `change` says whether there is
/// anything to write.
fn change(file: &Path, change: impl FnOnce(&mut DocumentMut) -> Result<bool>) -> Result<bool> {
    let home = file.parent().unwrap_or(Path::new("/"));
    let locks = home.join("locks");
    for folder in [home, &locks] {
        create_private_dir(folder)?;
    }
    let _lock = FileLock::acquire(&locks.join("config.lock"), PATIENCE)?;
    // People keep such files elsewhere and link to them: the link stays, its target is replaced.
    let target = match fs::canonicalize(file) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => file.to_owned(),
        Err(error) => return Err(Error::io("read", file, error)),
    };
    let (text, mode) = match fs::read_to_string(&target) {
        Ok(text) => {
            let metadata = fs::metadata(&target).map_err(|error| Error::io("read", &target, error))?;
            (text, metadata.permissions().mode() & 0o777)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), 0o600),
        Err(error) => return Err(Error::io("read", &target, error)),
    };
    // What is there already must be sound: an edit must not hide a mistake in another line.
    ConfigFile::parse(&text, file)?;
    let mut document: DocumentMut = text
        .parse()
        .map_err(|error| Error::internal(format!("config.toml was read once but not twice: {error}")))?;
    let changed = change(&mut document)?;
    if changed {
        write_atomic(&target, document.to_string().as_bytes(), mode)?;
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(before: &str, edit: impl FnOnce(&Path)) -> String {
        let home = tempfile::tempdir().expect("a temporary folder");
        let file = home.path().join("config.toml");
        fs::write(&file, before).expect("config.toml");
        edit(&file);
        fs::read_to_string(&file).expect("config.toml")
    }

    fn assign(key: &str, value: &str) -> Assignment {
        Assignment::parse(key, value).expect("a valid assignment")
    }

    #[test]
    fn comments_and_order_stay() {
        let before = "# mine\nthreads = 2 # two\ndevice = \"cpu\"\n\n[aliases]\na = \"b/c\" # short\n";
        let after = edited(before, |file| {
            set(file, &assign("threads", "4")).expect("set");
            set(file, &assign("aliases.a", "x/y")).expect("set");
            set(file, &assign("aliases.z.1", "z/1")).expect("set");
            set(file, &assign("offline", "yes")).expect("set");
        });
        assert_eq!(
            after,
            "# mine\nthreads = 4 # two\ndevice = \"cpu\"\noffline = true\n\n[aliases]\na = \"x/y\" # short\n\"z.1\" = \"z/1\"\n"
        );
        ConfigFile::parse(&after, Path::new("config.toml")).expect("what is written can be read");
    }

    #[test]
    fn unset_takes_the_line_and_says_whether_it_was_there() {
        let after = edited("threads = 2\noffline = true\n[aliases]\na = 'b/c'\n", |file| {
            assert!(unset(file, &KeyName::Top("threads")).expect("unset"));
            assert!(!unset(file, &KeyName::Top("threads")).expect("unset"));
            assert!(unset(file, &KeyName::Alias("a".to_owned())).expect("unset"));
        });
        assert_eq!(after, "offline = true\n[aliases]\n");
    }

    #[test]
    fn every_key_has_a_form() {
        for (key, value) in [
            ("default_model", "org/name"),
            ("memory_limit", "8GB"),
            ("offline", "true"),
            ("auto_pull", "Always"),
            ("device", "CPU"),
            ("threads", "3"),
            ("aliases.NAME", "org/name"),
        ] {
            assert!(KEYS.iter().any(|known| known.name == key));
            let after = edited("", |file| set(file, &assign(key, value)).expect("set"));
            ConfigFile::parse(&after, Path::new("config.toml")).expect("what is written can be read");
        }
        assert_eq!(KEYS.len(), 7);
    }

    #[test]
    fn what_is_no_key_or_no_value_is_refused() {
        for (key, value) in [
            ("home", "/x"),
            ("aliases.", "a/b"),
            ("aliases.../x", "a/b"),
            ("aliases.a", "../..\u{1b}"),
            ("threads", "0"),
            ("device", "tpu"),
            ("offline", "maybe"),
            ("memory_limit", "much"),
            ("", ""),
        ] {
            assert_eq!(Assignment::parse(key, value).expect_err(key).code(), Code::InvalidRequest, "{key}");
        }
    }

    #[test]
    fn a_link_to_the_file_stays_a_link() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let (real, link) = (home.path().join("real.toml"), home.path().join("config.toml"));
        fs::write(&real, "threads = 2\n").expect("config.toml");
        std::os::unix::fs::symlink(&real, &link).expect("link");
        set(&link, &assign("threads", "3")).expect("set");
        assert!(fs::symlink_metadata(&link).expect("link").is_symlink());
        assert_eq!(fs::read_to_string(&real).expect("config.toml"), "threads = 3\n");
    }

    #[test]
    fn a_broken_file_is_not_touched() {
        let before = "threads = 2\nwhat = 1\n";
        let after = edited(before, |file| {
            set(file, &assign("threads", "3")).expect_err("line 2 is broken");
        });
        assert_eq!(after, before);
    }
}
