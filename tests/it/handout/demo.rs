//! `make demo`: it runs through, and what README.md shows of it is what it prints.

use std::os::unix::fs::symlink;
use std::process::Command;

use super::documents::blocks::{Block, Step, blocks, matches};
use super::{fresh, root};
use crate::sandbox::{finish, smollm2};

/// The steps of the demo, from what it printed.
fn steps(printed: &str) -> Vec<Step> {
    let lines = printed.lines().map(str::to_owned).skip_while(|line| !line.starts_with("$ "));
    let console = "```console\n".to_owned() + &lines.collect::<Vec<_>>().join("\n") + "\n```\n";
    blocks("the demo", &console).remove(0).steps()
}

#[test]
fn the_readme_shows_what_the_demo_prints() {
    let target = fresh("demo");
    let models = smollm2().parent().and_then(|folder| folder.parent()).expect("a folder").to_owned();
    symlink(models, target.join("models")).expect("a link");
    let mut demo = Command::new("bash");
    demo.arg(root().join("tests/demo.sh"))
        .arg(env!("CARGO_BIN_EXE_mlx-cache"))
        .arg(&target)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        // The same test of speed, shorter.
        .env("DEMO_BENCH", "-p 4 -g 2 -r 1");
    let outcome = finish(&mut demo);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    let done = steps(&outcome.stdout);
    assert!(done.len() >= 12, "{done:?}");

    let page = std::fs::read_to_string(root().join("README.md")).expect("the page");
    let shown: Vec<Block> = blocks("README.md", &page).into_iter().filter(|block| block.demo).collect();
    assert_eq!(shown.len(), 1, "README.md shows the demo in one block");
    let shown = shown[0].steps();
    assert!(shown.len() >= 4, "{shown:?}");
    for step in shown {
        let done = done.iter().find(|done| done.command == step.command);
        let done = done.unwrap_or_else(|| panic!("the demo does not run `{}`", step.command));
        let lines =
            |step: &Step| step.output.iter().filter(|line| !line.is_empty()).cloned().collect::<Vec<_>>();
        assert!(
            matches(&lines(&step), &lines(done)),
            "`{}` prints\n{}",
            step.command,
            done.output.join("\n")
        );
    }
    std::fs::remove_dir_all(target).expect("gone");
}
