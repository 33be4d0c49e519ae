//! Extended attributes of files.

use std::fs::File;
use std::io;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// Larger ones are resource forks, and no model has one.
const LARGEST: usize = 64 << 10;

/// The attributes that the owner set or may set. Where there are none by the filesystem's nature, none.
pub fn attributes(file: &File) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut list = vec![0; LARGEST];
    let length = match rustix::fs::flistxattr(file, &mut list[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in list.get(..length).unwrap_or_default().split(|byte| *byte == 0) {
        let Ok(name) = std::str::from_utf8(name) else {
            return Err(io::Error::other("an extended attribute has a name that is not UTF-8"));
        };
        if name.is_empty() || !is_kept(name) {
            continue;
        }
        let mut value = vec![0; LARGEST];
        let length = rustix::fs::fgetxattr(file, name, &mut value[..])?;
        value.truncate(length);
        found.push((name.to_owned(), value));
    }
    found.sort();
    Ok(found)
}

/// Sets attributes; others stay.
pub fn set_attributes(file: &File, attributes: &[(String, Vec<u8>)]) -> io::Result<()> {
    for (name, value) in attributes {
        rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Whether the attribute is the owner's: what the system or its security policy sets is theirs.
fn is_kept(name: &str) -> bool {
    if cfg!(target_vendor = "apple") {
        !matches!(name, "com.apple.provenance" | "com.apple.rootless" | "com.apple.lastuseddate#PS")
    } else {
        name.starts_with("user.") || name == "system.posix_acl_access"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read() {
        // Temporary folders may lie in memory, where files have no attributes.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
        let file = File::create(folder.path().join("file")).expect("create");
        assert!(attributes(&file).expect("read").is_empty());
        let set = [("user.a".to_owned(), vec![0, 255]), ("user.b".to_owned(), Vec::new())];
        set_attributes(&file, &set).expect("set");
        assert_eq!(attributes(&file).expect("read"), set);
    }
}
