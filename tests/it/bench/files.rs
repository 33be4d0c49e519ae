//! `--export` and `--plot`: files that hold what was measured.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{bench, with_tiny};
use crate::sandbox::{Sandbox, assert_valid};

const QUICK: [&str; 6] = ["-p", "8", "-g", "4", "-r", "2"];

fn read(sandbox: &Sandbox, name: &str) -> String {
    fs::read_to_string(sandbox.home().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn names(sandbox: &Sandbox) -> Vec<String> {
    let entries = fs::read_dir(sandbox.home()).expect("the home folder");
    let mut names: Vec<String> =
        entries.map(|it| it.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// The texts of a drawing; a panic if its tags do not nest, or if markup stands where there should be text.
fn texts(svg: &str) -> Vec<String> {
    let mut open: Vec<&str> = Vec::new();
    let mut texts = Vec::new();
    let mut rest = svg.trim();
    while let Some(tag) = rest.strip_prefix('<') {
        let (inside, after) = tag.split_once('>').expect("the end of a tag");
        assert_eq!(inside.matches('"').count() % 2, 0, "<{inside}>");
        if let Some(name) = inside.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !inside.ends_with('/') {
            open.push(inside.split_whitespace().next().expect("a name"));
        }
        let (text, _) = after.split_at(after.find('<').unwrap_or(after.len()));
        assert!(!text.contains('>') && !text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        if open.last() == Some(&"text") {
            texts.push(text.trim().to_owned());
        }
        rest = &after[text.len()..];
    }
    assert!(open.is_empty() && rest.is_empty() && svg.starts_with("<svg "), "{open:?} {rest}");
    texts
}

/// A model in a folder of this name, which no store knows.
fn copy_tiny(sandbox: &Sandbox, name: &str) {
    let folder = sandbox.home().join(name);
    fs::create_dir(&folder).expect("a folder");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny/llama_mha");
    for entry in fs::read_dir(model).expect("the model") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), folder.join(entry.file_name())).expect("copied");
    }
}

#[test]
fn a_run_is_drawn_and_written_in_each_form() {
    let sandbox = with_tiny();
    let before = names(&sandbox);
    let args = [&["tiny"], &QUICK[..], &["--export", "a.json", "--plot", "a.svg"]].concat();
    let data = bench(&sandbox, &args);
    let exported: Value = serde_json::from_str(&read(&sandbox, "a.json")).expect("JSON");
    assert_valid(&exported, "bench");
    assert_eq!(exported["data"], data);
    let svg = read(&sandbox, "a.svg");
    let shown = texts(&svg);
    for text in ["some/tiny", "pp8", "tg4", "ttft8", "load", "prompt (tokens/s)", "memory (bytes)"] {
        assert!(shown.iter().any(|it| it == text), "{text}: {shown:?}");
    }
    for name in ["a.csv", "a.MD"] {
        assert_eq!(
            bench(&sandbox, &[&["tiny"], &QUICK[..], &["--export", name]].concat())["peers"],
            Value::Array(vec![])
        );
    }
    assert!(read(&sandbox, "a.csv").starts_with("model,test,unit,"));
    assert!(read(&sandbox, "a.MD").contains("| some/tiny | tg4 |"));
    // Nothing else is left, and they replace what was there.
    let mut after: Vec<String> =
        before.into_iter().chain(["a.MD", "a.csv", "a.json", "a.svg"].map(str::to_owned)).collect();
    after.sort();
    assert_eq!(names(&sandbox), after);
    bench(&sandbox, &args);
    assert_eq!(names(&sandbox), after);
    // What was exported can be compared with.
    let data = bench(&sandbox, &[&["tiny"], &QUICK[..], &["--compare", "a.json"]].concat());
    assert!(data["baseline"]["changes"].as_array().is_some_and(|changes| changes.len() >= 5), "{data}");
}

#[test]
fn depths_are_lines() {
    let sandbox = with_tiny();
    let args = ["tiny", "-p", "8", "-g", "0", "-r", "2", "--depth", "0,5,11", "--plot", "depth.svg"];
    bench(&sandbox, &args);
    let svg = read(&sandbox, "depth.svg");
    assert!(texts(&svg).contains(&"pp8".to_owned()), "the legend names the line");
    assert!(svg.matches("<circle").count() >= 6, "three depths of pp8 and of ttft8");
    assert!(svg.contains("<polyline"));
}

#[test]
fn all_that_is_kept_is_written_and_drawn_over_time() {
    let sandbox = with_tiny();
    for _ in 0..3 {
        bench(&sandbox, &[&["tiny"], &QUICK[..]].concat());
    }
    copy_tiny(&sandbox, "other");
    bench(&sandbox, &[&["./other"], &QUICK[..]].concat());

    let data = bench(&sandbox, &["--history", "--export", "all.json", "--plot", "all.svg"]);
    assert_eq!(data["history"].as_array().map(Vec::len), Some(4));
    let exported: Value = serde_json::from_str(&read(&sandbox, "all.json")).expect("JSON");
    assert_eq!(exported["data"], data);
    let svg = read(&sandbox, "all.svg");
    assert!(texts(&svg).iter().any(|text| text == "some/tiny pp8"), "{:?}", texts(&svg));

    bench(&sandbox, &["--history", "tiny", "--export", "tiny.csv"]);
    let csv = read(&sandbox, "tiny.csv");
    let mut lines = csv.lines();
    assert!(lines.next().is_some_and(|head| head.starts_with("number,measured_at,model,test")));
    let numbers: Vec<&str> =
        lines.clone().filter(|line| line.contains(",pp8,")).filter_map(|it| it.split(',').next()).collect();
    assert_eq!(numbers, ["3", "2", "1"]);
    assert!(lines.all(|line| line.split(',').count() == 13), "{csv}");

    // The newest result of a test counts.
    let compared = bench(&sandbox, &[&["tiny"], &QUICK[..], &["--compare", "all.json"]].concat());
    let changes = compared["baseline"]["changes"].as_array().expect("changes");
    let before = &changes.iter().find(|it| it["test"] == "pp8").expect("pp8")["before"];
    let newest = data["history"][1]["results"].as_array().expect("results");
    assert_eq!(data["history"][1]["model"]["reference"], "some/tiny");
    assert_eq!(before, &newest.iter().find(|it| it["test"] == "pp8").expect("pp8")["mean"]);
}

#[test]
fn a_hostile_name_is_text_in_every_file() {
    let sandbox = Sandbox::new();
    let name = "x<script>&\"'|\u{1b}[31m";
    copy_tiny(&sandbox, name);
    let model = format!("./{name}");
    let args = ["bench", &model, "-p", "4", "-g", "0", "-r", "1", "--warmup", "0"];
    for file in ["h.svg", "h.csv", "h.md"] {
        let flag = if file == "h.svg" { "--plot" } else { "--export" };
        let outcome = sandbox.run(&[&args[..], &[flag, file]].concat());
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        assert!(!read(&sandbox, file).contains('\u{1b}'), "{file}");
    }
    let svg = read(&sandbox, "h.svg");
    assert!(texts(&svg).iter().any(|text| text.contains("x&lt;script&gt;&amp;&quot;")), "{svg}");
    assert!(read(&sandbox, "h.csv").contains("<script>&\"\"'|"));
    assert!(read(&sandbox, "h.md").contains("'\\|"));
}
