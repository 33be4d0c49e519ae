//! A whole GGUF file.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mlx_cache::engine::format::gguf::Header;

fuzz_target!(|file: &[u8]| {
    if let Ok(header) = Header::parse(file, file.len() as u64, Path::new("fuzz")) {
        let end = file.len() as u64;
        assert!(header.tensors.values().all(|tensor| tensor.offset + tensor.bytes <= end));
    }
});
