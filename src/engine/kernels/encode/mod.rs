//! What encoders need beside products and norms: attention within each of many sequences that lie one
//! after the other without padding.

mod attention;
mod sequence;

pub use attention::{SequenceAttention, sequence_attention};
