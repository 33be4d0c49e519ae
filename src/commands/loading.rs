//! How a command's flags and the settings say a model is to be loaded, and what is shown meanwhile.

use std::time::{Duration, Instant};

use crate::cli::run::EngineArgs;
use crate::context::Context;
use crate::engine::cache::CacheOptions;
use crate::engine::config::Packing;
use crate::engine::request::LoadOptions;
use crate::error::Result;
use crate::output::progress::Unit;
use crate::settings::Settings;

/// Work that takes no longer needs no progress bar.
pub(super) const WORTH_A_BAR: Duration = Duration::from_millis(300);

/// Takes (done, total) bytes while a model loads, and shows them if it takes long; the bar is gone when
/// this is dropped.
pub(super) fn bar<'a>(model: &'a str, context: &'a Context) -> impl FnMut(u64, u64) + 'a {
    let (started, mut bar) = (Instant::now(), None);
    move |done, total| {
        if started.elapsed() > WORTH_A_BAR {
            let label = format!("loading {model}");
            bar.get_or_insert_with(|| context.output.progress(&label, Some(total), Unit::Bytes)).set(done);
        }
    }
}

/// The flags before the settings.
pub(super) fn options(args: &EngineArgs, settings: &Settings) -> Result<LoadOptions> {
    let cache = CacheOptions {
        most_tokens: args.max_kv_size,
        // Attention rests on the first tokens, whatever they say (Xiao et al., arXiv:2309.17453).
        keep: if args.max_kv_size.is_some() { args.keep } else { 0 },
        ..CacheOptions::default()
    };
    let quantize = args.quantize.as_deref().map(|name| Packing::asked(name, args.quantize_group_size));
    Ok(LoadOptions {
        quantize: quantize.transpose()?,
        device: args.device.unwrap_or(settings.device.value),
        context: args.context,
        memory_limit: args.memory_limit.or(settings.memory_limit.value),
        force: args.force,
        adapter: args.adapter.clone(),
        draft: None,
        sequences: None,
        threads: args.threads.or(settings.threads.value),
        cache: cache.with_bits(args.kv_bits, args.kv_group_size, args.kv_start)?,
    })
}
