//! A process that ends at any step of apply or undo: the next command finishes or rolls back.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mlx_cache::dedupe::{self, Wanted, Watch};
use mlx_cache::error::Result;
use mlx_cache::store::Store;

use super::ground::{Ground, Quiet, Shown, shown};
use crate::sandbox::Sandbox;

/// Tells the child what to do: store, root, strategy, step at which it ends, `apply` or `undo`.
const ORDER: &str = "MLX_CACHE_TEST_ORDER";

/// Ends the process, as a crash does: nothing is cleaned up.
struct Dying {
    after: usize,
    steps: AtomicUsize,
}

impl Watch for Dying {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn step(&self, _: &'static str, _: &Path) {
        if self.steps.fetch_add(1, Ordering::SeqCst) == self.after {
            std::process::abort();
        }
    }
}

/// The process that ends. It is this test program, started by the tests below.
#[test]
#[ignore = "the other tests start it"]
fn child() {
    let order = std::env::var(ORDER).expect("an order");
    let [base, wanted, after, what] = order.split('\n').collect::<Vec<_>>()[..] else { panic!("{order}") };
    let watch = Dying { after: after.parse().expect("a number"), steps: AtomicUsize::new(0) };
    let ground = Ground::at(Path::new(base));
    match what {
        "undo" => drop(ground.undo(&watch)),
        _ => drop(ground.apply(&[ground.path("root")], strategy(wanted), &watch)),
    }
}

fn strategy(word: &str) -> Wanted {
    [Wanted::Symlink, Wanted::Hardlink, Wanted::Reflink, Wanted::Auto]
        .into_iter()
        .find(|wanted| wanted.as_str() == word)
        .expect("a strategy")
}

/// Lets a child work until a step; whether it came to its end before.
fn work_until(ground: &Ground, wanted: Wanted, after: usize, what: &str) -> bool {
    let base = ground.path("");
    let order = format!("{}\n{}\n{after}\n{what}", base.to_str().expect("UTF-8"), wanted.as_str());
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "dedupe::crashes::child", "--ignored", "--nocapture"])
        .env(ORDER, order)
        .output()
        .expect("the child starts");
    assert_ne!(output.status.code(), Some(101), "{}", String::from_utf8_lossy(&output.stderr));
    output.status.success()
}

fn settle(store: &Store) {
    let mut registry = store.create().expect("a store");
    let settled = dedupe::settle(store, &mut registry).expect("settled");
    assert!(settled.open.is_empty(), "{:?}", settled.open);
    assert!(registry.unfinished_links().expect("links").is_empty());
}

/// Equal files with modes and times of their own, one of them with two names.
fn place(ground: &Ground) {
    let content = vec![5; 30_000];
    for (at, (name, mode)) in [("a/one.gguf", 0o640), ("a/two.gguf", 0o644)].into_iter().enumerate() {
        let path = ground.write(&format!("root/{name}"), &content);
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
        let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000 + at as u64);
        fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(time)).expect("a time");
    }
    fs::hard_link(ground.path("root/a/two.gguf"), ground.path("root/three.gguf")).expect("a hard link");
}

fn assert_same_content(before: &BTreeMap<PathBuf, Shown>, ground: &Ground, what: &str) {
    let now = shown(&ground.path("root"));
    assert!(now.keys().eq(before.keys()), "{what}: {:?}", now.keys());
    for (path, shown) in before {
        assert!(now[path].content() == shown.content(), "{what}: {}", path.display());
    }
}

/// A process ends at every step of applying: all reads the same, settling leaves nothing over, and the
/// work can be done again and undone.
#[test]
fn ended_at_any_step_of_applying_nothing_is_lost() {
    for wanted in [Wanted::Symlink, Wanted::Hardlink, Wanted::Auto] {
        for after in 0.. {
            let what = format!("{wanted:?}, step {after}");
            let ground = Ground::new();
            place(&ground);
            let before = shown(&ground.path("root"));
            let is_over = work_until(&ground, wanted, after, "apply");
            assert_same_content(&before, &ground, &what);
            settle(&ground.store);
            assert_same_content(&before, &ground, &what);
            assert!(ground.is_stage_empty(), "{what}");
            // Every file is as it was, or a link that is known.
            for (path, shown) in shown(&ground.path("root")) {
                let known = ground.store.create().expect("a store").link_at(&path).expect("a look").is_some();
                assert!(
                    known || shown == before[&path] || wanted != Wanted::Symlink,
                    "{what}: {}",
                    path.display()
                );
            }
            ground.apply(&[ground.path("root")], wanted, &Quiet);
            assert_same_content(&before, &ground, &what);
            assert!(ground.plan(&[ground.path("root")], wanted).0.is_empty(), "{what}");
            ground.undo(&Quiet);
            assert_eq!(shown(&ground.path("root")), before, "{what}");
            assert_eq!(ground.leftovers(), Vec::<PathBuf>::new(), "{what}");
            if is_over {
                assert!(after >= 5, "{wanted:?}: only {after} steps");
                break;
            }
        }
    }
}

#[test]
fn ended_at_any_step_of_undoing_nothing_is_lost() {
    for wanted in [Wanted::Symlink, Wanted::Hardlink] {
        for after in 0.. {
            let what = format!("{wanted:?}, step {after}");
            let ground = Ground::new();
            place(&ground);
            let before = shown(&ground.path("root"));
            ground.apply(&[ground.path("root")], wanted, &Quiet);
            let is_over = work_until(&ground, wanted, after, "undo");
            assert_same_content(&before, &ground, &what);
            settle(&ground.store);
            assert_same_content(&before, &ground, &what);
            assert!(ground.is_stage_empty(), "{what}");
            ground.undo(&Quiet);
            assert_eq!(shown(&ground.path("root")), before, "{what}");
            // Content without a user may be left; it is garbage, and collected as such.
            let leftovers = ground.leftovers();
            assert!(
                leftovers.iter().all(|path| path.starts_with(ground.store.blobs())),
                "{what}: {leftovers:?}"
            );
            if is_over {
                assert!(after >= 5, "{wanted:?}: only {after} steps");
                break;
            }
        }
    }
}

#[test]
fn any_command_that_changes_the_store_settles_first() {
    let sandbox = Sandbox::new();
    let ground = Ground::at(&sandbox.home().canonicalize().expect("a path"));
    place(&ground);
    let before = shown(&ground.path("root"));
    // Changed places, but not yet done.
    assert!(!work_until(&ground, Wanted::Symlink, 5, "apply"));
    assert!(!ground.is_stage_empty());
    let mut command = sandbox.cmd(&["gc", "--yes"]);
    command.env("MLX_CACHE_HOME", ground.store.home());
    let outcome = crate::sandbox::finish(&mut command);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert!(outcome.stderr.contains("1 finished"), "{outcome:?}");
    assert!(ground.is_stage_empty());
    assert_same_content(&before, &ground, "settled");
}

#[test]
fn killed_at_any_moment_it_loses_nothing() {
    let sandbox = Sandbox::new();
    let folder = sandbox.home().join("models");
    fs::create_dir(&folder).expect("a folder");
    let content = |at: usize| vec![(at % 5) as u8; 100_000];
    let path = |at: usize| folder.join(format!("{at}.gguf"));
    for at in 0..30 {
        fs::write(path(at), content(at)).expect("a file");
    }
    let apply = ["dedupe", "--path", "models", "--apply", "--yes"];
    let started = Instant::now();
    let whole = |args: &[&str]| assert_eq!(sandbox.run(args).status, 0);
    whole(&apply);
    let time = started.elapsed();
    whole(&["dedupe", "--undo", "--yes"]);

    let mut cut_short = 0;
    for step in 0..12_u32 {
        let args: &[&str] = if step % 3 == 2 { &["dedupe", "--undo", "--yes"] } else { &apply };
        let mut child =
            sandbox.cmd(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        thread::sleep(time * (step * 5 % 12) / 11);
        child.kill().expect("killed");
        cut_short += i32::from(!child.wait().expect("ended").success());
        for at in 0..30 {
            assert!(fs::read(path(at)).expect("a file") == content(at), "{at} after step {step}");
        }
        let names: Vec<OsString> =
            fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names.len(), 30, "{names:?}");
    }
    assert!(cut_short >= 3, "only {cut_short} were cut short");
    whole(&apply);
    whole(&["dedupe", "--undo", "--yes"]);
    for at in 0..30 {
        assert!(matches!(super::ground::shown_at(&path(at)), Shown::File(found, ..) if found == content(at)));
    }
    let links = Store::at(&sandbox.store()).links();
    let left: Vec<_> =
        walkdir::WalkDir::new(links).into_iter().flatten().filter(|it| !it.file_type().is_dir()).collect();
    assert!(left.is_empty(), "{left:?}");
}
