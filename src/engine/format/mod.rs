//! Model files: their headers, read and checked by ourselves before anything trusts them.

pub mod adapter;
pub mod affine;
pub mod block_float;
pub mod checkpoint;
pub mod file;
pub mod ggml_type;
pub mod gguf;
pub mod inventory;
pub mod layout;
pub mod metadata;
pub mod parts;
pub mod quantize;
pub mod rows;
pub mod safetensors;
pub mod sizes;
pub mod tensors;
pub mod unpack;
pub mod weight;

#[cfg(test)]
pub(in crate::engine) mod samples;
#[cfg(test)]
mod tests;
