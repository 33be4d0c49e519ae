//! `dedupe`: equal files become one, nothing is lost, and it can be undone.

mod boundaries;
mod command;
mod crashes;
mod ground;
mod hub_cache;
mod ollama;
mod properties;
mod races;
