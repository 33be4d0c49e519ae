//! The engine: gets paths, returns tokens. It knows no network, no database and no store.
//!
//! The way of a run: [`probe`] (headers only) → [`policy`] (device, dtype, memory) → load → generate.

pub mod format;
pub mod outcome;
pub mod request;
pub mod sample;
pub mod session;
pub mod text;
