//! A Hugging Face Hub on the loopback: repositories held in memory, a second host for large files as the
//! real one has, faults on command, and a record of what was asked and sent.
//!
//! It answers what `huggingface_hub` and our own client ask: model information, trees in pages, files with
//! ranges, redirects and checksums, and refusals with the headers by which the real hub tells them apart.

mod answers;
mod connection;
mod content;
mod fault;
mod repository;
mod server;
#[cfg(test)]
mod tests;

pub use content::{Content, noise};
pub use fault::{ALWAYS, Fault, Host, On, Seen, unix_date};
pub use repository::Repository;
pub use server::Hub;
