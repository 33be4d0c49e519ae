//! The Hugging Face Hub, over the network.

mod reach;

pub use reach::{Reached, reach};
