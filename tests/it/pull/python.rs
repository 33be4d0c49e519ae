//! Python's tools and ours read each other's models.

use super::*;
use crate::hub::noise;
use crate::python::{self, program, succeeded};

#[test]
fn transformers_and_mlx_lm_load_what_path_prints() {
    let (sandbox, repository) =
        (Sandbox::new(), Repository::tiny("org/tiny").file("special_tokens_map.json", "{}"));
    let hub = Hub::with(repository.clone());
    pull(&sandbox, &hub, &["org/tiny"]);
    let path = sandbox.run(&["path", "org/tiny"]);
    let code = "
import sys
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoTokenizer
import mlx_lm
path = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(path)
print(AutoConfig.from_pretrained(path).model_type, tokenizer.decode(tokenizer('Hello')['input_ids'], skip_special_tokens=True))
print(len(load_file(path + '/model.safetensors')) > 0)
model, tokenizer = mlx_lm.load(path)
ids = tokenizer.encode('Hello')
text = [response.token for response in mlx_lm.stream_generate(model, tokenizer, ids, max_tokens=3)]
print(len(text))
";
    let mut command = program(&sandbox, python::NEWEST, "python3");
    command.env("HF_HUB_OFFLINE", "1").args(["-c", code, path.stdout.trim_end()]);
    let told = succeeded(run(&mut command));
    let lines: Vec<&str> = told.lines().collect();
    assert!(matches!(lines[..], ["llama Hello", "True", "3" | "2" | "1"]), "{told}");
}

#[test]
fn what_the_real_client_has_is_not_fetched_again() {
    let repository =
        Repository::tiny("org/tiny").large("model-00002-of-00002.safetensors", noise(1, 500_000));
    thread::scope(|scope| {
        for release in python::RELEASES {
            let repository = repository.clone();
            scope.spawn(move || {
                let (sandbox, hub) = (Sandbox::new(), Hub::with(repository.clone()));
                python::download(&sandbox, release, &hub.endpoint(), "org/tiny");
                let before = surroundings(&sandbox);
                hub.forget();
                let pulled = pull_one(&sandbox, &hub, &["org/tiny"]);
                assert_all(&folder(&pulled), &repository);
                assert_eq!(
                    (number(&pulled, "bytes_reused"), hub.traffic()),
                    (repository.bytes(), 0),
                    "{release}"
                );
                assert_eq!(surroundings(&sandbox), before, "{release}: the cache was changed");
            });
        }
    });
}

#[test]
fn the_real_client_verifies_and_reads_its_cache_after_ours_took_from_it() {
    let repository = Repository::tiny("org/tiny");
    let (sandbox, hub) = (Sandbox::new(), Hub::with(repository.clone()));
    python::download(&sandbox, python::NEWEST, &hub.endpoint(), "org/tiny");
    pull(&sandbox, &hub, &["org/tiny"]);
    let code = "
import huggingface_hub as h
info = h.scan_cache_dir()
print(len(info.repos), len(info.warnings), info.size_on_disk)
print(h.snapshot_download('org/tiny', local_files_only=True))
";
    let mut command = program(&sandbox, python::NEWEST, "python3");
    let told = succeeded(run(command.args(["-c", code])));
    let (first, rest) = told.split_once('\n').expect("two lines");
    assert_eq!(first, format!("1 0 {}", repository.bytes()));
    assert_all(Path::new(rest.trim_end()), &repository);
}
