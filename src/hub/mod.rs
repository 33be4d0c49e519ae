//! The Hugging Face Hub, over the network: what a repository holds, and its files' content.
//!
//! Nothing that a server says is believed: names are parsed before they are used, sizes are bounded,
//! and content counts only once its checksum is right. Everything waits for the network inside; callers
//! block. See docs/decisions/0004-hub-client.md for what the library `hf-hub` does of this.
//! Ollama's server is reached from here too: all use of the network is in this module.

mod address;
mod answer;
mod client;
mod download;
mod listing;
pub mod ollama;
mod patience;
mod reach;
mod refusal;
mod stream;
mod xet;

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::runtime::{Builder, Runtime};

use crate::error::{Code, Error, Result};

use self::client::Client;
use self::xet::Xet;

pub use client::Secret;
pub use download::{Remote, Watch};
pub use listing::{Listing, RemoteFile};
pub use reach::{Reached, reach};

/// Threads that wait for the network; whoever asks does the rest on its own.
const THREADS: usize = 2;
/// Between two looks at whether the user asked to stop.
const TICK: Duration = Duration::from_millis(50);

/// Called now and then; its error ends the work and is what the work ends with.
pub type Check<'a> = &'a (dyn Fn() -> Result<()> + Sync);

/// How the hub is to be used.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Its address, without a slash at the end.
    pub endpoint: String,
    pub token: Option<Secret>,
    /// Whether every use of the network is forbidden.
    pub offline: bool,
    /// How long to wait for a connection, for the first byte of an answer, and for the next one.
    pub timeout: Duration,
    /// How often in a row something is tried again that brings nothing new.
    pub retries: u32,
    /// Connections that fetch content at the same time, at most.
    pub connections: usize,
    /// Whether content may come from Xet storage by its own protocol.
    pub xet: bool,
}

/// The hub.
#[derive(Debug)]
pub struct Hub {
    client: Client,
    xet: Xet,
    runtime: Runtime,
}

impl Hub {
    /// Prepares for use; nothing is asked yet. OFFLINE if the network must not be used.
    pub fn new(options: &HubOptions) -> Result<Self> {
        if options.offline {
            return Err(Error::new(
                Code::Offline,
                format!("{} is needed, but offline mode is on", options.endpoint),
            )
            .hint("unset MLX_CACHE_OFFLINE and HF_HUB_OFFLINE, or `mlx-cache config unset offline`"));
        }
        let runtime = runtime(THREADS)?;
        Ok(Self { client: Client::new(options)?, xet: Xet::new(options), runtime })
    }

    /// Waits for work that may be stopped.
    fn wait<T>(&self, check: Check<'_>, work: impl Future<Output = Result<T>>) -> Result<T> {
        wait(&self.runtime, check, work)
    }
}

/// Waits for work that may be stopped.
fn wait<T>(runtime: &Runtime, check: Check<'_>, work: impl Future<Output = Result<T>>) -> Result<T> {
    runtime.block_on(async {
        let stopped = async {
            loop {
                tokio::time::sleep(TICK).await;
                if let Err(stop) = check() {
                    break stop;
                }
            }
        };
        match select(pin!(work), pin!(stopped)).await {
            Either::Left((result, _)) => result,
            Either::Right((stop, _)) => Err(stop),
        }
    })
}

fn runtime(threads: usize) -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("hub")
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| Error::internal(format!("cannot begin to use the network: {error}")))
}
