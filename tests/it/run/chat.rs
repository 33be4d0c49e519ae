//! The chat, driven on a pseudo terminal.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::terminal::Terminal;

/// A chat on a terminal.
fn start(home: &Sandbox, args: &[&str]) -> Terminal {
    let mut command = command(home, args);
    command.env("TERM", "xterm-256color").env("NO_COLOR", "1");
    Terminal::start(command, 24, 100)
}

const PROMPT: &str = ">>> ";

#[test]
fn a_chat_answers_remembers_and_leaves() {
    let home = Sandbox::new();
    let mut chat = start(&home, &[&smollm2(), "--temp", "0"]);
    chat.wait_for(PROMPT);
    chat.type_line("What is the capital of France?");
    chat.wait_for("Paris");
    chat.wait_for(PROMPT);
    // The second turn computes only its own text: the first one is in the cache.
    chat.type_line("And of Italy?");
    chat.wait_for("Rome");
    chat.wait_for(PROMPT);
    chat.type_line("/show usage");
    let usage = chat.wait_for("cached)");
    let cached = usage.rsplit_once('(').and_then(|(_, cached)| cached.strip_suffix(" cached)"));
    assert!(cached.and_then(|cached| cached.parse().ok()) > Some(20), "{usage}");
    chat.wait_for(PROMPT);
    chat.type_line("/bye");
    assert_eq!(chat.end().1, Some(0));
}

#[test]
fn commands_change_and_show_the_conversation() {
    let home = Sandbox::new();
    let saved = home.home().join("chat.json");
    let mut chat = start(&home, &[&tiny(), "--max-tokens", "4"]);
    chat.wait_for(PROMPT);
    chat.type_line("/help");
    chat.wait_for("/system TEXT");
    chat.wait_for(PROMPT);
    chat.type_line("/set temp 0");
    chat.wait_for("temp set to 0");
    chat.type_line("/set temp hot");
    chat.wait_for("error: ");
    chat.wait_for("'hot'");
    chat.type_line("/system \"\"\"Be");
    chat.wait_for("... ");
    chat.type_line("brief.\"\"\"");
    chat.wait_for("system message set");
    chat.type_line("/nonsense");
    chat.wait_for("no command /nonsense");
    chat.type_line("/usr/bin/env");
    chat.wait_for("no command /usr/bin/env");
    chat.wait_for(PROMPT);
    chat.type_line("Hello \\");
    chat.wait_for("... ");
    chat.type_line("there");
    chat.wait_for("max_tokens");
    chat.wait_for(PROMPT);
    chat.type_line(&format!("/save {}", saved.display()));
    chat.wait_for("saved to");
    chat.type_line("/clear");
    chat.wait_for("forgotten");
    chat.type_line("/show");
    chat.wait_for("brief.");
    chat.wait_for("turns     0");
    chat.wait_for(PROMPT);
    chat.type_line(&format!("/load {}", saved.display()));
    chat.wait_for("loaded 2 messages");
    chat.wait_for(PROMPT);
    chat.type_keys("\u{4}");
    assert_eq!(chat.end().1, Some(0));

    let saved: Value = serde_json::from_slice(&fs::read(&saved).expect("saved")).expect("JSON");
    sandbox::assert_valid(&saved, "chat");
    assert_eq!(saved["system"], "Be\nbrief.");
    assert_eq!(saved["messages"][0]["content"], "Hello \nthere");
    assert_eq!(saved["parameters"]["temperature"], 0.0);
}

#[test]
fn ctrl_c_stops_the_answer_and_clears_the_line_but_does_not_leave() {
    let home = Sandbox::new();
    let mut chat = start(&home, &[&smollm2(), "--temp", "0"]);
    chat.wait_for(PROMPT);
    chat.type_line("Write a very long story about a village and its people, at least twenty pages.");
    chat.wait_for("village and its people, at least twenty pages.");
    chat.wait_for("village");
    chat.type_keys("\u{3}");
    chat.wait_for(PROMPT);
    chat.type_keys("/exit is not what I want\u{3}");
    chat.wait_for(PROMPT);
    chat.type_keys("\u{3}");
    chat.wait_for("Ctrl-D or /bye leaves");
    chat.wait_for(PROMPT);
    chat.type_line("What is the capital of France?");
    chat.wait_for("Paris");
    chat.wait_for(PROMPT);
    chat.type_line("/exit");
    assert_eq!(chat.end().1, Some(0));
}

#[test]
fn a_conversation_longer_than_the_context_is_told_with_a_way_on() {
    let home = Sandbox::new();
    let mut chat = start(&home, &[&tiny(), "--temp", "0", "--context", "40"]);
    chat.wait_for(PROMPT);
    chat.type_line("Hello");
    chat.wait_for("the context is full: /clear");
    chat.wait_for(PROMPT);
    chat.type_line("Hello again");
    chat.wait_for("error: ");
    chat.wait_for("/clear");
    chat.wait_for(PROMPT);
    chat.type_line("/clear");
    chat.wait_for("forgotten");
    chat.type_line("Hello");
    chat.wait_for("the context is full: /clear");
    chat.wait_for(PROMPT);
    chat.type_line("/bye");
    assert_eq!(chat.end().1, Some(0));
}

#[test]
fn what_was_typed_is_kept_for_its_owner_only_and_comes_back() {
    let home = Sandbox::new();
    add(&home, &tiny(), "test/model");
    let mut chat = start(&home, &["test/model", "-n", "2"]);
    chat.wait_for(PROMPT);
    chat.type_line("/set seed 1234");
    chat.wait_for("seed set to 1234");
    chat.wait_for(PROMPT);
    chat.type_line("/bye");
    assert_eq!(chat.end().1, Some(0));
    let history = home.store().join("chat_history");
    assert_eq!(fs::metadata(&history).expect("a history").permissions().mode() & 0o777, 0o600);

    let mut chat = start(&home, &["test/model", "-n", "2"]);
    chat.wait_for(PROMPT);
    // The line before /bye.
    chat.type_keys("\u{1b}[A\u{1b}[A\r");
    chat.wait_for("seed set to 1234");
    chat.wait_for(PROMPT);
    chat.type_line("/bye");
    assert_eq!(chat.end().1, Some(0));
}

#[test]
fn pasted_lines_are_one_message() {
    let home = Sandbox::new();
    let saved = home.home().join("chat.json");
    let mut chat = start(&home, &[&tiny(), "-n", "2"]);
    chat.wait_for(PROMPT);
    chat.type_keys("\u{1b}[200~first\rsecond\u{1b}[201~\r");
    chat.wait_for("max_tokens");
    chat.wait_for(PROMPT);
    chat.type_line(&format!("/save {}", saved.display()));
    chat.wait_for("saved to");
    // The end of input counts only once the next line is being read.
    chat.wait_for(PROMPT);
    chat.type_keys("\u{4}");
    assert_eq!(chat.end().1, Some(0));
    let saved: Value = serde_json::from_slice(&fs::read(&saved).expect("saved")).expect("JSON");
    assert_eq!(saved["messages"][0]["content"], "first\nsecond");
}

#[test]
fn a_termination_signal_at_the_prompt_leaves_the_terminal_as_it_was() {
    use rustix::termios::{LocalModes, tcgetattr};

    let home = Sandbox::new();
    let mut chat = start(&home, &[&tiny()]);
    let keyboard = chat.handle();
    let cooked = || {
        let modes = tcgetattr(&keyboard).expect("a terminal").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    };
    chat.wait_for(PROMPT);
    assert!(!cooked());
    chat.signal(rustix::process::Signal::TERM);
    assert_eq!(chat.end().1, Some(130));
    assert!(cooked());
}

#[test]
fn without_a_terminal_there_is_no_chat() {
    let home = Sandbox::new();
    let output = run(&home, &[&tiny()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("the prompt is empty"));
}

#[test]
fn a_chat_has_no_json() {
    let home = Sandbox::new();
    for flag in ["--json", "--stream-json"] {
        let mut chat = start(&home, &[&tiny(), flag]);
        chat.wait_for("INVALID_REQUEST");
        assert_eq!(chat.end().1, Some(2));
    }
}

/// The weights are read where the file has them: what it loses must neither end the process nor go unnoticed.
#[cfg(target_os = "linux")]
#[test]
fn a_model_that_is_changed_while_it_is_in_use_is_told_of() {
    let home = Sandbox::new();
    let model = home.home().join("model");
    fs::create_dir(&model).unwrap();
    for file in fs::read_dir(tiny()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), model.join(file.file_name())).unwrap();
    }
    let weights = model.join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let open = || fs::File::options().write(true).open(&weights).unwrap();
    for cut in [true, false] {
        fs::write(&weights, &bytes).unwrap();
        let mut chat = start(&home, &[model.to_str().unwrap(), "--max-tokens", "4"]);
        chat.wait_for(PROMPT);
        chat.type_line("Hello");
        chat.wait_for(PROMPT);
        if cut {
            open().set_len(4096).unwrap();
        } else {
            std::thread::sleep(std::time::Duration::from_millis(20));
            open().write_all(&bytes).unwrap();
        }
        chat.type_line("Still there?");
        chat.wait_for("model.safetensors was changed while it was in use");
        chat.wait_for(PROMPT);
        chat.type_line("/bye");
        assert_eq!(chat.end().1, Some(0));
    }
}
