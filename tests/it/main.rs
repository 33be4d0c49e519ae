//! Tests through the program, as a user runs it, and through the library where only it can tell.

mod architecture;
mod bad_input;
mod bench;
mod config;
mod contract;
mod dedupe;
mod doctor;
mod documents;
mod embed;
mod gc;
mod golden;
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
mod text;
mod verify;
