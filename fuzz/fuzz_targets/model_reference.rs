//! What a person may write for a model.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use mlx_cache::ids::{FileChoice, ModelRef};

fuzz_target!(|text: &str| {
    match text.parse::<ModelRef>() {
        Ok(reference) => {
            let shown = reference.to_string();
            assert!(!shown.chars().any(char::is_control));
            if let ModelRef::Named { name, file, .. } = reference {
                // Every part is one component of a path, and a file stays in its folder.
                for part in [name.host().as_str(), name.org(), name.name()] {
                    let mut components = Path::new(part).components();
                    assert!(matches!(components.next(), Some(Component::Normal(only)) if only == part));
                    assert!(components.next().is_none());
                }
                if let Some(FileChoice::Path(path)) = file {
                    assert!(path.as_path().components().all(|part| matches!(part, Component::Normal(_))));
                }
            }
        }
        Err(error) => assert!(!error.message().chars().any(char::is_control)),
    }
});
