mod checkpoint;
mod experts;
mod gguf;
mod golden;
mod parts;
mod safetensors;
mod unpack;

use crate::engine::format::samples;
use crate::error::{Code, Result};

/// The result failed with this code, and its message has all of these words.
#[track_caller]
fn fails<T>(result: Result<T>, code: Code, words: &[&str]) {
    let Err(error) = result else {
        panic!("no error, but {code} {words:?} was expected");
    };
    let message = error.message();
    assert_eq!(error.code(), code, "{message}");
    for word in words {
        assert!(message.contains(word), "{message:?} does not have {word:?}");
    }
}
