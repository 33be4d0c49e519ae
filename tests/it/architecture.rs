//! The house: who may know whom, where printing and `unsafe` live, how long a file may be.

use std::fs;
use std::path::Path;

use walkdir::WalkDir;

/// A module at the top of the crate and the ones it may name. Arrows point down only.
const ARROWS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("cancel", &["error"]),
    ("ids", &["error"]),
    ("fs", &["cancel", "error", "ids"]),
    ("registry", &["cancel", "error", "fs", "ids"]),
    ("store", &["cancel", "error", "fs", "ids", "registry"]),
    ("hub", &["cancel", "error", "fs", "ids"]),
    ("sources", &["cancel", "error", "fs", "ids"]),
    ("dedupe", &["cancel", "error", "fs", "ids", "registry", "sources", "store"]),
    ("engine", &["cancel", "error", "fs", "ids"]),
    ("verify", &["cancel", "engine", "error", "fs", "ids", "registry", "sources", "store"]),
    ("settings", &["engine", "error", "fs", "ids"]),
    ("report", &["engine", "error", "ids"]),
    ("output", &["error", "ids", "report"]),
    ("context", &["cancel", "error", "output", "settings"]),
    ("cli", &["engine", "error", "ids", "settings"]),
    (
        "commands",
        &[
            "cancel", "cli", "context", "dedupe", "engine", "error", "fs", "hub", "ids", "output",
            "registry", "report", "settings", "sources", "store", "verify",
        ],
    ),
    ("usage", &["cli", "error", "output", "settings"]),
    ("lib", &["cancel", "cli", "commands", "context", "error", "output", "report", "settings", "usage"]),
    ("main", &[]),
];

/// Libraries that only one part of the house knows.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("clap", &["cli", "usage", "lib"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("rusqlite", &["registry"]),
    ("reqwest", &["hub"]),
    ("hf_hub", &["hub"]),
    ("tokio", &["hub"]),
    ("mlx_rs", &["engine"]),
    ("mlx_sys", &["engine"]),
    ("tokenizers", &["engine"]),
    ("minijinja", &["engine"]),
    ("comfy_table", &["output"]),
    ("indicatif", &["output"]),
    ("plotters", &["output"]),
    ("anyhow", &[]),
];

const LONGEST: usize = 600;

/// What a file does against the rules.
fn offences(path: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let parts: Vec<&str> = path.trim_end_matches(".rs").split('/').filter(|part| *part != "mod").collect();
    let module = parts.first().copied().unwrap_or_default();
    let mut found = Vec::new();

    match ARROWS.iter().find(|(name, _)| *name == module) {
        None => found.push(format!("the module {module} has no place in the house")),
        Some((_, allowed)) => {
            for named in named_modules(&code, parts.len()) {
                let known = ARROWS.iter().any(|(name, _)| *name == named);
                if known && named != module && !allowed.contains(&named.as_str()) {
                    found.push(format!("{module} must not know {named}"));
                }
            }
        }
    }
    for (library, homes) in LIBRARIES {
        if words(&code).any(|word| word == *library) && !homes.contains(&module) {
            found.push(format!("{module} must not know the library {library}"));
        }
    }
    let unsafe_is_allowed =
        ["fs/", "engine/ffi/", "engine/kernels/"].iter().any(|home| path.starts_with(home));
    if !unsafe_is_allowed && words(&code).any(|word| word == "unsafe" || word == "unsafe_code") {
        found.push("unsafe is for fs, engine/ffi and engine/kernels".to_owned());
    }
    if module != "output" {
        for printing in ["println!", "eprintln!", "print!", "eprint!", "dbg!", "stdout()", "stderr()"] {
            let mut places = code.match_indices(printing).map(|(at, _)| &code[..at]);
            if places.any(|before| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')) {
                found.push(format!("{printing} is for output"));
            }
        }
    }
    let lines = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().lines().count();
    let is_tests = parts.contains(&"tests");
    if lines > LONGEST && !is_tests {
        found.push(format!("{lines} lines are more than {LONGEST}"));
    }
    if ["utils", "util", "helpers", "misc", "common"].iter().any(|name| parts.contains(name)) {
        found.push("the name says nothing".to_owned());
    }
    found
}

/// The source without comments and without the contents of texts and characters.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
        } else if let Some(hashes) = raw_text(rest, &code) {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = &rest[hashes + 2..];
            rest = body.find(&end).map_or("", |at| &body[at + end.len()..]);
        } else if c == '"' {
            rest = after_text(&rest[1..]);
        } else if let Some(length) = character(rest) {
            rest = &rest[length..];
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    code
}

/// The number of hashes, if `rest` begins with a raw text.
fn raw_text(rest: &str, before: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    if before.ends_with(|c: char| c.is_alphanumeric() && c != 'b' && c != 'c' || c == '_') {
        return None;
    }
    let hashes = after.chars().take_while(|c| *c == '#').count();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn after_text(body: &str) -> &str {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return &body[at + 1..],
            _ => {}
        }
    }
    ""
}

/// The length of a character literal at the beginning; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('\'')?;
    let mut characters = body.char_indices();
    let (_, first) = characters.next()?;
    if first == '\\' {
        let (start, _) = characters.next()?;
        return body[start + 1..].find('\'').map(|end| start + 1 + end + 2);
    }
    let (end, quote) = characters.next()?;
    (quote == '\'').then_some(end + 2)
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// The modules at the top of the crate that the code names by `crate::` or by enough `super::`.
fn named_modules(code: &str, depth: usize) -> Vec<String> {
    let to_root = "super::".repeat(depth);
    let mut found = Vec::new();
    for start in ["crate::", to_root.as_str()] {
        for (at, _) in code.match_indices(start) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let named = &code[at + start.len()..];
            match named.strip_prefix('{') {
                Some(group) => found.extend(group_heads(group)),
                None => found.extend(words(named).next().map(str::to_owned)),
            }
        }
    }
    found
}

/// The first names in `a::{b, c}, d}`, that is `a` and `d`.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut item) = (0, Vec::new(), String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(std::mem::take(&mut item)),
            _ if depth == 0 => item.push(c),
            _ => {}
        }
    }
    heads.push(item);
    heads.iter().filter_map(|head| words(head).next().map(str::to_owned)).collect()
}

#[test]
fn the_house_is_in_order() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut files, mut found) = (0, Vec::new());
    for entry in WalkDir::new(&root).sort_by_file_name() {
        let entry = entry.expect("src can be read");
        if entry.path().extension().is_some_and(|end| end == "rs") {
            files += 1;
            let path = entry.path().strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
            let text = fs::read_to_string(entry.path()).expect("source is UTF-8");
            found.extend(offences(&path, &text).into_iter().map(|what| format!("{path}: {what}")));
        }
    }
    assert!(files > 50, "only {files} files were looked at");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn an_arrow_that_points_up_is_found() {
    for (path, text, what) in [
        ("store/mod.rs", "use crate::output::Output;", "store must not know output"),
        ("store/mod.rs", "use crate::{error::{Code, Error}, cli};", "store must not know cli"),
        ("store/blobs.rs", "use super::super::hub::reach;", "store must not know hub"),
        ("engine/a/b.rs", "fn f() { crate::store::open() }", "engine must not know store"),
        ("engine/mod.rs", "use rusqlite::Connection;", "engine must not know the library rusqlite"),
        ("store/mod.rs", "fn f() { println!(\"x\") }", "println! is for output"),
        ("store/mod.rs", "fn f() { io::stdout().lock() }", "stdout() is for output"),
        ("store/mod.rs", "fn f() { unsafe { g() } }", "unsafe is for fs, engine/ffi and engine/kernels"),
        ("new/mod.rs", "", "the module new has no place in the house"),
        ("store/utils.rs", "", "the name says nothing"),
    ] {
        assert_eq!(offences(path, text), [what], "{path}: {text}");
    }
    assert_eq!(offences("ids/x.rs", &"\n".repeat(601)).len(), 1);
}

#[test]
fn what_comments_and_texts_say_is_no_offence() {
    let text = r##"
        //! unsafe, println!, crate::output
        fn f<'a>(c: char) -> &'a str {
            if c == '"' || c == '\'' { "crate::output \" unsafe" } else { r#"println!("x") " unsafe"# } /* unsafe */
        }
        fn g() { writeln!(text, "x"); crate::error::f(); crate::store::g(); }
    "##;
    assert_eq!(offences("store/mod.rs", text), Vec::<String>::new());
}
