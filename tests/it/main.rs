//! Tests through the program, as a user runs it, and through the library where only it can tell.

mod architecture;
mod bad_input;
mod bench;
mod caches;
mod config;
mod contract;
mod dedupe;
mod doctor;
mod documents;
mod gc;
mod golden;
mod handout;
mod hub;
mod models;
mod moving;
mod pull;
mod python;
mod run;
mod sandbox;
mod shell;
mod smollm2;
mod sources;
mod status;
mod terminal;
mod text;
mod verify;
