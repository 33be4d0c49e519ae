//! The machine that the documents speak of, small: models of every tool, a hub, another machine, other programs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::root;
use super::blocks::{Block, matches};
use crate::hub::{Hub, Repository};
use crate::models::{COMMIT, place, place_in_hub, succeeded};
use crate::sandbox::{Sandbox, finish};
use crate::sources::OllamaTree;

/// Between the outputs of commands; not even the tiny models, which answer with noise, print it.
const MARK: &str = "<<the next command>>";

pub struct Machine {
    sandbox: Sandbox,
    hub: Hub,
}

impl Machine {
    pub fn new() -> Self {
        let sandbox = Sandbox::new();
        let home = sandbox.home();
        // What the hub has; every one of these is a tiny model that runs.
        let gguf = fs::read(root().join("fixtures/tiny/gguf/llama_Q4_1.gguf")).expect("a fixture");
        let hub = Hub::new();
        hub.put(Repository::tiny("org/name"));
        hub.put(Repository::tiny("HuggingFaceTB/SmolLM2-135M-Instruct"));
        hub.put(Repository::new("org/name-GGUF").large("name-Q4_K_M.gguf", gguf.clone()));
        // What the other tools have.
        place_in_hub(&sandbox, "llama_untied", "models--org--other", COMMIT);
        let lmstudio = home.join(".lmstudio/models/publisher/name/name.gguf");
        fs::create_dir_all(lmstudio.parent().expect("a parent")).expect("folders");
        fs::write(&lmstudio, &gguf).expect("a model");
        let ollama = OllamaTree(&sandbox);
        let layer = ollama.layer("model", &gguf);
        ollama.manifest("registry.ollama.ai/library/smollm2/135m", &[layer]);
        // What lies around.
        place(&sandbox, "gguf/llama_Q4_1.gguf", "model.gguf");
        place(&sandbox, "gguf/llama_Q4_1.gguf", "downloads/model.gguf");
        fs::write(home.join("lines.txt"), "Good morning\nGood night\n").expect("a file");
        let article = r#"{"id": 7, "body": "Cats eat fish."}"#;
        fs::write(home.join("articles.jsonl"), format!("{article}\n")).expect("a file");
        fs::create_dir(home.join("other-machine")).expect("a folder");
        programs(&home.join("bin"));
        let machine = Self { sandbox, hub };
        let encoder = root().join("fixtures/embed/bert_mean_normalized");
        let add = format!(
            "mlx-cache add '{}' --copy --name sentence-transformers/all-MiniLM-L6-v2",
            encoder.display()
        );
        succeeded(finish(&mut machine.bash(&add)));
        let set_up = "mlx-cache pull org/name HuggingFaceTB/SmolLM2-135M-Instruct
            git init -q . && git config user.name me && git config user.email me@example.org
            echo 'one line' >notes.txt && git add notes.txt";
        succeeded(finish(&mut machine.bash(set_up)));
        machine
    }

    /// Runs a block's commands in one shell. Fails unless all succeed and print what the page shows.
    pub fn run(&self, block: &Block) {
        let place = format!("{}:{}", block.page, block.line);
        let steps = block.steps();
        let script: Vec<_> = steps.iter().map(|step| format!("{}\nprintf '{MARK}'", step.command)).collect();
        let outcome = finish(self.bash(&script.join("\n")).stdin(Stdio::null()));
        assert_eq!(outcome.status, 0, "{place}: {}\n{}", outcome.stdout, outcome.stderr);
        let printed: Vec<&str> = outcome.stdout.split(MARK).collect();
        assert_eq!(printed.len(), steps.len() + 1, "{place}: {}", outcome.stdout);
        for (step, printed) in steps.iter().zip(printed) {
            let lines =
                |text: &mut dyn Iterator<Item = String>| text.filter(|it| !it.is_empty()).collect::<Vec<_>>();
            let expected = lines(&mut step.output.iter().cloned());
            let printed = lines(&mut printed.lines().map(str::to_owned));
            assert!(
                expected.is_empty() || matches(&expected, &printed),
                "{place}: `{}` prints\n{}",
                step.command,
                printed.join("\n")
            );
        }
    }

    /// A script that ends at the first command that fails, whichever of a pipe it is.
    fn bash(&self, script: &str) -> Command {
        let mut bash = Command::new("bash");
        let home = self.sandbox.home();
        bash.args(["--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script])
            .env_clear()
            .env("HOME", home)
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", home.join("bin").display()))
            .env("LC_ALL", "C.UTF-8")
            .env("HF_ENDPOINT", self.hub.endpoint())
            .env("MLX_CACHE_TEST_PYTHON", std::env::var_os("MLX_CACHE_TEST_PYTHON").unwrap_or_default())
            .current_dir(home);
        bash
    }
}

/// Our program, and others where the documents use them.
fn programs(folder: &Path) {
    fs::create_dir(folder).expect("a folder");
    symlink(env!("CARGO_BIN_EXE_mlx-cache"), folder.join("mlx-cache")).expect("a link");
    let write = |name: &str, script: &str| {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    };
    // The other machine is another home.
    write("ssh", "shift\nHOME=\"$HOME/other-machine\" exec \"$@\"");
    // mlx_lm itself, from `make test`.
    write(
        "mlx_lm.generate",
        "exec \"$MLX_CACHE_TEST_PYTHON/hf-2.4.0/bin/python3\" -m mlx_lm generate \"$@\"",
    );
}
