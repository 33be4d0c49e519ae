//! Tests through the program, as a user runs it, and through the library where only it can tell.

mod architecture;
mod bad_input;
mod bench;
mod config;
mod contract;
mod doctor;
mod documents;
mod embed;
mod gc;
mod golden;
mod models;
mod run;
mod sandbox;
mod shell;
mod smollm2;
mod status;
mod text;
mod verify;
