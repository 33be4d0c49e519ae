//! The engine: gets paths, returns tokens. It knows no network, no database and no store.
//!
//! The way of a run: probe (headers only) → policy (device, type, memory) → load → generate.

pub mod cache;
pub mod config;
mod constrain;
pub mod device;
pub mod embed;
pub mod encoders;
mod failure;
pub mod ffi;
pub mod format;
mod generate;
#[cfg(target_os = "linux")]
pub mod kernels;
pub mod layers;
pub mod measure;
pub mod memory;
pub mod models;
pub mod outcome;
pub mod policy;
pub mod probe;
pub mod request;
pub mod runtime;
pub mod sample;
pub mod session;
pub mod text;
mod thread;
