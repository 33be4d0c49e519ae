mod bad_input;
mod golden;
mod run;
mod sandbox;
mod smollm2;
