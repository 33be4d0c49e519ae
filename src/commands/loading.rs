//! How a command's flags and the settings say a model is to be loaded.

use crate::cli::run::EngineArgs;
use crate::engine::cache::{CacheOptions, KvQuantization};
use crate::engine::config::Packing;
use crate::engine::request::LoadOptions;
use crate::error::Result;
use crate::settings::Settings;

/// The flags before the settings.
pub(super) fn options(args: &EngineArgs, settings: &Settings) -> Result<LoadOptions> {
    let quantization = args.kv_bits.map(|bits| KvQuantization::new(bits, args.kv_group_size)).transpose()?;
    let quantize = args.quantize.as_deref().map(|name| Packing::asked(name, args.quantize_group_size));
    Ok(LoadOptions {
        quantize: quantize.transpose()?,
        device: args.device.unwrap_or(settings.device.value),
        context: args.context,
        memory_limit: args.memory_limit.or(settings.memory_limit.value),
        force: args.force,
        adapter: args.adapter.clone(),
        draft: None,
        threads: args.threads.or(settings.threads.value),
        cache: CacheOptions {
            quantization,
            quantized_from: args.kv_start,
            most_tokens: args.max_kv_size,
            // Attention rests on the first tokens, whatever they say (Xiao et al., arXiv:2309.17453).
            keep: if args.max_kv_size.is_some() { args.keep } else { 0 },
            ..CacheOptions::default()
        },
    })
}
