//! What encoders need beside products: attention within each of many sequences that lie one after the
//! other without padding, and layer normalisation.

mod attention;
mod norm;
mod sequence;

pub use attention::{SequenceAttention, sequence_attention};
pub use norm::layer_norm;
