//! How failures of the MLX library become ours.

use mlx_rs::error::Exception;

use crate::error::{Code, Error};

/// A token beyond the rows of the table of embeddings.
pub(in crate::engine) fn no_embedding(id: u32, rows: usize) -> Error {
    Error::new(
        Code::IntegrityFailed,
        format!("the tokenizer gives the id {id}, but the model has only {rows} embeddings"),
    )
    .hint("tokenizer and weights do not belong together: get the model again")
}

impl From<Exception> for Error {
    /// MLX reports everything as text; running out of memory is the one case that a user can act on.
    fn from(exception: Exception) -> Self {
        let what = exception.what();
        if what.contains("malloc") || what.contains("out of memory") || what.contains("bad_alloc") {
            return Error::new(Code::InsufficientMemory, format!("MLX could not get memory: {what}"))
                .hint("close other programs, choose a smaller model, or lower --context");
        }
        Error::internal(format!("MLX: {what}"))
    }
}
