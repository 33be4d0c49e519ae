//! Whatever the folders hold: every path reads the same afterwards, nothing grows, nothing outside
//! changes, a second run has nothing to do, and undoing brings back what was there.

use std::ffi::OsString;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mlx_cache::dedupe::Wanted;
use mlx_cache::registry::LinkStrategy;
use proptest::prelude::*;

use super::ground::{Ground, Quiet, Shown, shown};
use crate::sandbox::make_fifo;

/// One thing in a folder. Numbers choose among what there is so far.
#[derive(Debug, Clone)]
enum Thing {
    /// Content, permission bits, and days since it was changed.
    File {
        content: usize,
        mode: u32,
        days: u64,
    },
    /// Another name for an earlier file.
    HardLink(usize),
    /// A second name for a file, outside of the roots.
    NameOutside(usize),
    Link(Target),
    Pipe,
}

#[derive(Debug, Clone)]
enum Target {
    Earlier(usize),
    Nothing,
    Itself,
    Outside,
    FolderOutside,
}

const MODES: [u32; 5] = [0o644, 0o600, 0o444, 0o664, 0o000];

/// Contents: sizes below, at and above what is compared by its ends, alike but for their middle or end.
fn contents() -> Vec<Vec<u8>> {
    let mut contents = vec![Vec::new(), vec![1; 100], vec![1; 8192], vec![1; 8193], vec![2; 20_000]];
    for at in [0, 20_000, 39_999] {
        let mut content = vec![3; 40_000];
        content[at] = 4;
        contents.push(content);
    }
    contents
}

fn thing() -> impl Strategy<Value = Thing> {
    let content = 0..contents().len();
    prop_oneof![
        8 => (content, 0..MODES.len(), 0..900_u64)
            .prop_map(|(content, mode, days)| Thing::File { content, mode: MODES[mode], days }),
        2 => any::<prop::sample::Index>().prop_map(|at| Thing::HardLink(at.index(1000))),
        1 => any::<prop::sample::Index>().prop_map(|at| Thing::NameOutside(at.index(1000))),
        2 => prop_oneof![
            any::<prop::sample::Index>().prop_map(|at| Target::Earlier(at.index(1000))),
            Just(Target::Nothing),
            Just(Target::Itself),
            Just(Target::Outside),
            Just(Target::FolderOutside),
        ]
        .prop_map(Thing::Link),
        1 => Just(Thing::Pipe),
    ]
}

fn strategy() -> impl Strategy<Value = Wanted> {
    prop_oneof![
        3 => Just(Wanted::Symlink),
        2 => Just(Wanted::Hardlink),
        2 => Just(Wanted::Auto),
        1 => Just(Wanted::Reflink),
    ]
}

/// Odd names, all with an end that makes them weights.
fn name(at: usize) -> OsString {
    let name: &[u8] = match at % 6 {
        0 => b"plain",
        1 => b"with space",
        2 => b"-dash\n",
        3 => "größe-模型".as_bytes(),
        4 => b"not utf-8 \xff",
        _ => b"PLAIN",
    };
    OsString::from_vec([name, at.to_string().as_bytes(), b".gguf"].concat())
}

fn build(ground: &Ground, things: &[(usize, Thing)]) -> Vec<PathBuf> {
    let roots = [ground.path("one"), ground.path("two"), ground.path("two/inner")];
    let folders = [roots[0].join("a/b"), roots[0].clone(), roots[1].clone(), roots[2].clone()];
    for folder in folders.iter().chain(&[ground.path("outside/folder")]) {
        fs::create_dir_all(folder).expect("folders");
    }
    fs::write(ground.path("outside/file.gguf"), vec![2; 20_000]).expect("a file");
    fs::write(ground.path("outside/folder/file.gguf"), vec![2; 20_000]).expect("a file");
    let contents = contents();
    let mut files: Vec<PathBuf> = Vec::new();
    for (at, (folder, thing)) in things.iter().enumerate() {
        let path = folders[folder % folders.len()].join(name(at));
        let earlier = |number: usize| files.get(number % files.len().max(1));
        match thing {
            Thing::File { content, mode, days } => {
                fs::write(&path, &contents[*content]).expect("a file");
                let file = File::options().write(true).open(&path).expect("open");
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000 + days * 86_400);
                file.set_times(FileTimes::new().set_modified(time)).expect("a time");
                file.set_permissions(Permissions::from_mode(*mode)).expect("a mode");
                files.push(path);
            }
            Thing::HardLink(number) => {
                if let Some(file) = earlier(*number) {
                    fs::hard_link(file, &path).expect("a hard link");
                }
            }
            Thing::NameOutside(number) => {
                if let Some(file) = earlier(*number) {
                    fs::hard_link(file, ground.path("outside").join(name(at))).expect("a hard link");
                }
            }
            Thing::Link(target) => {
                let target = match target {
                    Target::Earlier(number) => earlier(*number).cloned().unwrap_or_else(|| "x".into()),
                    Target::Nothing => "/nowhere/at/all".into(),
                    Target::Itself => path.clone(),
                    Target::Outside => ground.path("outside/file.gguf"),
                    Target::FolderOutside => ground.path("outside/folder"),
                };
                symlink(target, &path).expect("a link");
            }
            Thing::Pipe => make_fifo(&path),
        }
    }
    // Roots inside one another, and one named twice, once through a link.
    symlink(&roots[0], ground.path("link")).expect("a link");
    [&roots[..], &[ground.path("link").canonicalize().expect("a path")]].concat()
}

/// Users other than root cannot read what has no permissions at all; then there is nothing to compare.
fn readable(path: &Path) -> bool {
    !path.is_file() || File::open(path).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_nothing_grows_and_all_of_it_comes_back(
        things in prop::collection::vec((0..4_usize, thing()), 1..24),
        wanted in strategy(),
    ) {
        let ground = Ground::new();
        let roots = build(&ground, &things);
        prop_assume!(things.iter().enumerate().all(|(at, _)| {
            ["one", "one/a/b", "two", "two/inner"].iter().all(|folder| readable(&ground.path(folder).join(name(at))))
        }));
        let trees = ["one", "two"];
        let before: Vec<_> = trees.iter().map(|tree| shown(&ground.path(tree))).collect();
        let outside = shown(&ground.path("outside"));
        let used = ground.used();

        let (plan, applied) = ground.apply(&roots, wanted, &Quiet);
        for (tree, before) in trees.iter().zip(&before) {
            let after = shown(&ground.path(tree));
            prop_assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
            for (path, shown) in before {
                prop_assert_eq!(after[path].content(), shown.content(), "{}", path.display());
            }
        }
        prop_assert_eq!(&shown(&ground.path("outside")), &outside);
        let now = ground.used();
        // No system tells how much clones share.
        if plan.groups.iter().flat_map(|group| &group.replace).all(|file| file.how != LinkStrategy::Reflink) {
            prop_assert!(now <= used, "{} bytes became {}", used, now);
            prop_assert_eq!(used - now, applied.reclaimed().0, "{:?}", applied);
        }
        prop_assert_eq!(plan.reclaims(), applied.reclaimed(), "{:?}", applied.skipped);
        prop_assert!(ground.is_stage_empty());

        let (again, _) = ground.plan(&roots, wanted);
        prop_assert!(again.is_empty(), "{:?}", again.groups);
        prop_assert_eq!(ground.used(), now);

        let undone = ground.undo(&Quiet);
        prop_assert!(undone.iter().all(|link| link.outcome == mlx_cache::dedupe::Undone::Restored), "{:?}", undone);
        for (tree, before) in trees.iter().zip(&before) {
            prop_assert_eq!(&shown(&ground.path(tree)), before);
        }
        prop_assert_eq!(&shown(&ground.path("outside")), &outside);
        prop_assert_eq!(ground.leftovers(), Vec::<PathBuf>::new());
    }
}

#[test]
fn what_is_planned_is_what_there_is_to_gain() {
    let ground = Ground::new();
    let content = vec![7; 50_000];
    let first = ground.write("a/one.gguf", &content);
    ground.write("b/two.gguf", &content);
    fs::hard_link(&first, ground.path("b/three.gguf")).expect("a hard link");
    ground.write("b/other.gguf", &vec![8; 50_000]);
    let roots = [ground.path("a"), ground.path("b")];
    for (wanted, replaced) in [(Wanted::Symlink, 3), (Wanted::Hardlink, 1)] {
        let (plan, _) = ground.plan(&roots, wanted);
        let [group] = &plan.groups[..] else { panic!("{plan:?}") };
        assert_eq!((group.reclaims.0, group.replace.len()), (50_000, replaced), "{wanted:?}");
    }
    let Shown::File(..) = super::ground::shown_at(&first) else { panic!("a plan changes nothing") };
}
