//! A config.json and a generation_config.json, with a zero byte between them.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mlx_cache::engine::config::{ConfigFiles, Outline, from_config_json};

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |&byte| byte == 0);
    let config = parts.next().unwrap_or_default();
    let Ok(files) = ConfigFiles::parse(Path::new("fuzz"), config, parts.next()) else {
        return;
    };
    let _ = Outline::from_config(&files.config);
    if let Ok(config) = from_config_json(&files, false, None) {
        assert!(config.heads % config.kv_heads == 0 && config.rope.dims <= config.head_dim);
    }
});
