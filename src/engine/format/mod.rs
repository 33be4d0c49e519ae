//! Model files: their headers, read and checked by ourselves before anything trusts them.

pub mod metadata;
pub mod weight;
