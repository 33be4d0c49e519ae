//! Other programs that change a file while it is being replaced: at every step, and at any moment.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mlx_cache::dedupe::{Wanted, Watch};
use mlx_cache::error::Result;

use super::ground::{Ground, Quiet, Shown, shown_at};
use crate::sandbox::Sandbox;

/// What another program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Renames a new file over the old one.
    Replace,
    /// Writes into the file.
    Write,
    Truncate,
    Delete,
    /// Puts a link to another folder in place of the file's folder.
    SwapFolder,
}

const DEEDS: [Deed; 5] = [Deed::Replace, Deed::Write, Deed::Truncate, Deed::Delete, Deed::SwapFolder];

/// Does the deed when a step is reached with a file.
struct Meddler {
    step: &'static str,
    victim: PathBuf,
    deed: Deed,
    done: AtomicBool,
    /// A program that opens a file for writing waits until dedupe lets go of it.
    writer: Mutex<Option<JoinHandle<()>>>,
}

const NEW: &[u8] = b"what the other program wrote";

impl Watch for Meddler {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn step(&self, step: &'static str, path: &Path) {
        if step != self.step || path != self.victim || self.done.swap(true, Ordering::SeqCst) {
            return;
        }
        let victim = self.victim.clone();
        match self.deed {
            Deed::Replace => {
                let new = victim.with_extension("new");
                fs::write(&new, NEW).expect("a file");
                fs::rename(&new, &victim).expect("renamed");
            }
            Deed::Delete => fs::remove_file(&victim).expect("removed"),
            Deed::SwapFolder => {
                let folder = victim.parent().expect("a parent");
                fs::rename(folder, folder.with_extension("moved")).expect("renamed");
                symlink(folder.with_file_name("outside"), folder).expect("a link");
            }
            Deed::Write | Deed::Truncate => {
                let truncates = self.deed == Deed::Truncate;
                let (begun, wait) = std::sync::mpsc::channel();
                let writer = thread::spawn(move || {
                    begun.send(()).expect("told");
                    let file = fs::File::options().write(true).truncate(truncates).open(&victim);
                    if !truncates {
                        use std::io::Write;
                        file.expect("open").write_all(NEW).expect("written");
                    }
                });
                wait.recv().expect("begun");
                // Enough to reach the call that waits; if it is not, the writer comes later, as it may.
                thread::sleep(Duration::from_millis(30));
                *self.writer.lock().expect("a lock") = Some(writer);
            }
        }
    }
}

#[test]
fn a_file_that_another_program_changes_is_never_written_over() {
    let content = vec![7; 30_000];
    for wanted in [Wanted::Symlink, Wanted::Hardlink] {
        for step in ["planned", "named", "staged file", "staged"] {
            if step == "named" && wanted == Wanted::Hardlink {
                continue;
            }
            for deed in DEEDS {
                let what = format!("{wanted:?} {step} {deed:?}");
                let ground = Ground::new();
                let first = ground.write("root/a/one.gguf", &content);
                let victim = ground.write("root/b/two.gguf", &content);
                let outside = ground.write("root/outside/two.gguf", b"not this one");
                let roots = [ground.path("root")];
                let watch = Meddler {
                    step,
                    victim: victim.clone(),
                    deed,
                    done: AtomicBool::new(false),
                    writer: Mutex::default(),
                };
                let (_, applied) = ground.apply(&roots, wanted, &watch);
                assert!(watch.done.load(Ordering::SeqCst), "{what}: the step was not reached");
                if let Some(writer) = watch.writer.lock().expect("a lock").take() {
                    writer.join().expect("written");
                }
                assert_eq!(fs::read(&first).expect("the other file"), content, "{what}");
                assert_eq!(fs::read(&outside).expect("outside"), b"not this one", "{what}");
                assert!(ground.is_stage_empty(), "{what}");
                let replaced: Vec<_> = applied
                    .groups
                    .iter()
                    .flat_map(|group| &group.replaced)
                    .map(|path| path.to_path_buf())
                    .collect();
                if deed == Deed::SwapFolder {
                    // The folder that was held is the one that was acted on, under its new name.
                    let moved = ground.path("root/b.moved/two.gguf");
                    assert_eq!(fs::read(&moved).expect("the file"), content, "{what}");
                    assert_eq!(fs::read(&victim).expect("outside"), b"not this one", "{what}");
                    continue;
                }
                assert!(!replaced.contains(&victim), "{what}: {replaced:?}");
                let reason = applied.skipped.iter().find(|skipped| *skipped.path == *victim);
                let reason = &reason.unwrap_or_else(|| panic!("{what}: no reason")).reason;
                assert!(reason.contains("meanwhile") || reason.contains("moment"), "{what}: {reason}");
                match deed {
                    Deed::Delete => assert!(!victim.exists(), "{what}"),
                    Deed::Truncate => assert_eq!(fs::read(&victim).expect("the file"), b"", "{what}"),
                    Deed::Replace => assert_eq!(fs::read(&victim).expect("the file"), NEW, "{what}"),
                    _ => assert!(fs::read(&victim).expect("the file").starts_with(NEW), "{what}"),
                }
                ground.undo(&Quiet);
                assert!(matches!(shown_at(&first), Shown::File(..)), "{what}");
                assert_eq!(ground.leftovers(), Vec::<PathBuf>::new(), "{what}");
            }
        }
    }
}

#[test]
fn a_link_that_its_tool_rewrites_while_it_is_undone_is_left_to_it() {
    let content = vec![7; 30_000];
    for step in ["undoing", "staged file"] {
        for deed in [Deed::Replace, Deed::Delete] {
            let ground = Ground::new();
            ground.write("root/one.gguf", &content);
            let victim = ground.write("root/two.gguf", &content);
            ground.apply(&[ground.path("root")], Wanted::Symlink, &Quiet);
            let watch = Meddler {
                step,
                victim: victim.clone(),
                deed,
                done: AtomicBool::new(false),
                writer: Mutex::default(),
            };
            ground.undo(&watch);
            assert!(watch.done.load(Ordering::SeqCst), "{step} {deed:?}");
            match deed {
                Deed::Replace => assert_eq!(fs::read(&victim).expect("the file"), NEW),
                _ => assert!(victim.symlink_metadata().is_err()),
            }
            ground.undo(&Quiet);
            assert_eq!(fs::read(ground.path("root/one.gguf")).expect("the other"), content);
            assert_eq!(ground.leftovers(), Vec::<PathBuf>::new(), "{step} {deed:?}");
        }
    }
}

#[test]
fn a_program_that_replaces_files_all_the_time_finds_its_last_one() {
    let sandbox = Sandbox::new();
    let folder = sandbox.home().join("models");
    fs::create_dir(&folder).expect("a folder");
    let paths: Vec<PathBuf> = (0..4).map(|at| folder.join(format!("{at}.gguf"))).collect();
    // Few contents, so that there is always something to dedupe.
    let content = |round: usize| vec![(round % 3) as u8; 200_000];
    for path in &paths {
        fs::write(path, content(0)).expect("a file");
    }
    // Files that nobody else touches, so that there is always something that works.
    for round in 0..3 {
        fs::write(folder.join(format!("quiet-{round}-a.gguf")), content(round)).expect("a file");
        fs::write(folder.join(format!("quiet-{round}-b.gguf")), content(round)).expect("a file");
    }
    let over = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicUsize::new(0));
    let writer = thread::spawn({
        let (over, written, paths) = (Arc::clone(&over), Arc::clone(&written), paths.clone());
        move || {
            let mut last = vec![content(0); paths.len()];
            for round in 0.. {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let at = round % paths.len();
                last[at] = content(round / paths.len());
                let new = paths[at].with_extension("part");
                if round % 7 == 0 {
                    fs::remove_file(&paths[at]).expect("removed");
                }
                fs::write(&new, &last[at]).expect("a file");
                fs::rename(&new, &paths[at]).expect("renamed");
                written.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(7));
            }
            last
        }
    });
    let mut replaced = 0;
    for _ in 0..8 {
        let (status, envelope) =
            sandbox.json(&["dedupe", "--path", "models", "--apply", "--yes", "--min-size", "0"]);
        assert_eq!(status, 0, "{envelope}");
        let groups = envelope["data"]["groups"].as_array().expect("groups");
        let files = groups.iter().flat_map(|group| group["replace"].as_array().expect("files"));
        replaced += files.filter(|file| file["done"] == true).count();
    }
    over.store(true, Ordering::SeqCst);
    let last = writer.join().expect("the writer");
    assert!(written.load(Ordering::SeqCst) > 10 && replaced > 0, "{replaced} replaced: nothing was tried");
    for (path, last) in paths.iter().zip(&last) {
        assert!(fs::read(path).expect("a file") == *last, "{}", path.display());
    }
    let names: Vec<_> = fs::read_dir(&folder).expect("a folder").flatten().map(|it| it.file_name()).collect();
    assert_eq!(names.len(), paths.len() + 6, "{names:?}");
}

#[test]
fn two_at_once_do_it_once() {
    let sandbox = Sandbox::new();
    let folder = sandbox.home().join("models");
    fs::create_dir(&folder).expect("a folder");
    for at in 0..12 {
        fs::write(folder.join(format!("{at}.gguf")), vec![(at % 2) as u8; 100_000]).expect("a file");
    }
    let start = || {
        let mut command = sandbox.cmd(&["dedupe", "--path", "models", "--apply", "--yes"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    };
    let children: Vec<_> = (0..3).map(|_| start()).collect();
    for child in children {
        let output = child.wait_with_output().expect("ended");
        assert!(output.status.success(), "{output:?}");
    }
    for at in 0..12 {
        let path = folder.join(format!("{at}.gguf"));
        assert_eq!(fs::read(&path).expect("a file"), vec![(at % 2) as u8; 100_000]);
        assert!(path.is_symlink(), "{}", path.display());
    }
    let (_, envelope) = sandbox.json(&["dedupe", "--path", "models"]);
    assert_eq!(envelope["data"]["linked"], 12, "{envelope}");
}
