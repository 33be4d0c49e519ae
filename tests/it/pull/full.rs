//! Disks without room.

use std::os::unix::process::CommandExt;

use super::*;
use crate::hub::noise;

const LARGE: usize = 6_000_000;

fn model() -> Repository {
    Repository::tiny("org/tiny").large("model-00002-of-00002.safetensors", noise(1, LARGE))
}

/// The same command with a limit on the size of files, as `ulimit -f` sets it.
fn limited(command: &Command, blocks: u32) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell
        .arg("-c")
        .arg(format!("ulimit -f {blocks}; exec \"$0\" \"$@\""))
        .arg(command.get_program())
        .args(command.get_args());
    shell.env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell.current_dir(command.get_current_dir().expect("a folder")).stdin(std::process::Stdio::null());
    shell
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_the_rest_is_kept() {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    let command = command(&sandbox, &hub, &["org/tiny"]);
    // 2 MB in blocks of 512 bytes: the registry fits, the large file does not.
    fails(&sandbox, &mut limited(&command, 4096), &["INSUFFICIENT_DISK", "IO_ERROR"]);
    assert!(sandbox.json(&["list"]).1["data"]["models"].as_array().expect("a list").is_empty());
    let pulled = pull_one(&sandbox, &hub, &["org/tiny"]);
    assert_all(&folder(&pulled), &repository);
    assert_eq!(left_in(&sandbox, "incomplete"), [""; 0]);
}

#[cfg(target_os = "linux")]
/// A small filesystem in memory that goes when dropped.
struct SmallDisk(PathBuf);

#[cfg(target_os = "linux")]
impl SmallDisk {
    /// Nothing where this user may not mount one.
    fn new(at: &Path, bytes: usize) -> Option<Self> {
        fs::create_dir_all(at).expect("a folder");
        let options = std::ffi::CString::new(format!("size={bytes},mode=700")).expect("options");
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", at, "tmpfs", flags, options.as_c_str()).ok()?;
        Some(Self(at.to_owned()))
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).expect("unmounted");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_small_disk_is_too_small_at_once_or_becomes_full() {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    let Some(disk) = SmallDisk::new(&sandbox.store(), LARGE) else {
        // Without the right to mount only the announcement can be seen: more than any disk has.
        assert!(!rustix::process::geteuid().is_root() || fs::read("/proc/1/mountinfo").is_ok());
        hub.put(repository.large("model-00003-of-00003.safetensors", crate::hub::Content::claimed(1 << 60)));
        refused(&sandbox, &hub, &["org/tiny"], &["INSUFFICIENT_DISK"]);
        assert_eq!(hub.traffic(), 0);
        return;
    };
    let error = refused(&sandbox, &hub, &["org/tiny"], &["INSUFFICIENT_DISK"]);
    assert_eq!(hub.traffic(), 0, "something was fetched before the space was looked at");
    let needed = number(&error["details"], "bytes_needed");
    assert!((LARGE as u64..LARGE as u64 + 1_000_000).contains(&needed), "{error}");
    assert!(number(&error["details"], "bytes_free") < needed, "{error}");
    drop(disk);

    let disk = SmallDisk::new(&sandbox.store(), 3 * LARGE).expect("it could before");
    // Slowly, so that the disk is full long before the file is whole, however busy the machine is.
    hub.rate(1_000_000);
    let filler = disk.0.join("filler");
    thread::scope(|scope| {
        let pulling =
            scope.spawn(|| refused(&sandbox, &hub, &["org/tiny"], &["INSUFFICIENT_DISK", "IO_ERROR"]));
        while hub.traffic() < LARGE as u64 / 10 {
            thread::sleep(std::time::Duration::from_millis(2));
        }
        // Somebody else takes all the rest.
        let full = fs::write(&filler, vec![1; 4 * LARGE]).expect_err("more than there is");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        pulling.join().expect("refused");
    });
    fs::remove_file(&filler).expect("removed");
    hub.rate(0);
    let pulled = pull_one(&sandbox, &hub, &["org/tiny"]);
    assert_all(&folder(&pulled), &repository);
    assert_eq!(left_in(&sandbox, "incomplete"), [""; 0]);
}

#[test]
fn a_store_that_cannot_be_written_is_an_error() {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    pull(&sandbox, &hub, &["org/tiny"]);
    let (status, removed) = sandbox.json(&["rm", "org/tiny", "--yes"]);
    assert_eq!(status, 0, "{removed}");
    let set = |mode: u32| {
        for entry in walkdir::WalkDir::new(sandbox.store()).contents_first(true) {
            let entry = entry.expect("an entry");
            if entry.file_type().is_dir() {
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode)).expect("changed");
            }
        }
    };
    set(0o555);
    fs::set_permissions(sandbox.home(), fs::Permissions::from_mode(0o755)).expect("changed");
    let mut command = command(&sandbox, &hub, &["org/tiny"]);
    if rustix::process::geteuid().is_root() {
        // As root only somebody else can be refused.
        command.uid(65534).gid(65534);
    }
    let (status, envelope) = json(&mut command);
    set(0o700);
    assert_eq!((status, &envelope["error"]["code"]), (1, &"IO_ERROR".into()), "{envelope}");
    in_order(&sandbox);
}
