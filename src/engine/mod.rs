//! The engine: gets paths, returns tokens. It knows no network, no database and no store.
//!
//! The way of a run: [`probe`] (headers only) → [`policy`] (device, dtype, memory) → load → generate.

pub mod config;
#[cfg(target_os = "linux")]
pub mod ffi;
pub mod format;
#[cfg(target_os = "linux")]
pub mod kernels;
pub mod outcome;
pub mod policy;
pub mod probe;
pub mod request;
pub mod sample;
pub mod session;
pub mod text;
