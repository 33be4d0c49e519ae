//! Stand-in.
use crate::error::{Code, Error, Result};
use std::path::PathBuf;
pub struct Resolved {
    pub reference: String,
    pub path: PathBuf,
    pub snapshot: Option<i64>,
}
pub fn resolve(reference: &str, _context: &crate::context::Context) -> Result<Resolved> {
    let path = PathBuf::from(reference);
    if path.exists() {
        return Ok(Resolved { reference: reference.to_owned(), path, snapshot: None });
    }
    Err(Error::new(Code::ModelNotFound, format!("no model matches '{reference}'")))
}
