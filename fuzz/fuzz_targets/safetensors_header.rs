//! Eight bytes of how long the rest of the file would be, then a safetensors header.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mlx_cache::engine::format::safetensors::Header;

fuzz_target!(|input: &[u8]| {
    let Some((body, json)) = input.split_first_chunk::<8>() else {
        return;
    };
    // Small enough for the positions below not to overflow, as file sizes are.
    let body = u64::from_le_bytes(*body) >> 2;
    if let Ok(header) = Header::parse(json, body, Path::new("fuzz")) {
        let end = 8 + json.len() as u64 + body;
        assert!(header.tensors.values().all(|tensor| tensor.offset + tensor.bytes <= end));
    }
});
