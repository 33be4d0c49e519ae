//! Large files from Xet storage, by the hub's own library: it knows how to put them together from
//! chunks that come from many places at once. What it delivers is checked as everything else is; when
//! it fails, the file comes over plain HTTP, as it does from hubs without encryption, such as mirrors in a
//! local network.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use hf_hub::HFClient;
use tokio::time::timeout;

use super::HubOptions;
use super::client::{Trouble, USER_AGENT};
use super::download::{Remote, Watch};
use super::listing::RemoteFile;
use crate::error::{Code, Error, Result};
use crate::fs::Part;

/// Asking Xet what a file is made of takes longer than fetching less than this.
const WORTH_IT: u64 = 16 << 20;

/// Access to Xet storage.
#[derive(Debug)]
pub(super) struct Xet {
    options: HubOptions,
    /// Made when it is first needed; nothing if that failed.
    client: OnceLock<Option<HFClient>>,
    /// It failed once: the rest comes over HTTP.
    failed: AtomicBool,
}

impl Xet {
    pub(super) fn new(options: &HubOptions) -> Self {
        let usable = options.xet && options.endpoint.starts_with("https://");
        Self { options: options.clone(), client: OnceLock::new(), failed: AtomicBool::new(!usable) }
    }

    /// Whether a file is to come this way.
    pub(super) fn is_for(&self, file: &RemoteFile) -> bool {
        file.xet && file.bytes >= WORTH_IT && !self.failed.load(Ordering::Relaxed)
    }

    /// Fetches what it can of these parts; returns what is left for HTTP.
    pub(super) async fn bring(
        &self,
        remote: &Remote<'_>,
        part: &Part,
        missing: Vec<Range<u64>>,
        watch: &dyn Watch,
    ) -> Result<Vec<Range<u64>>, Trouble> {
        for range in &missing {
            match self.bring_range(remote, part, range.clone(), watch).await {
                Ok(()) => {}
                Err(Broken::Ours(error)) => return Err(error.into()),
                Err(Broken::Theirs(why)) => {
                    self.failed.store(true, Ordering::Relaxed);
                    let error = Error::new(Code::HubUnavailable, format!("Xet storage fails: {why}"));
                    watch.retrying(&error, Duration::ZERO);
                    return Ok(part.missing());
                }
            }
        }
        Ok(part.missing())
    }

    async fn bring_range(
        &self,
        remote: &Remote<'_>,
        part: &Part,
        range: Range<u64>,
        watch: &dyn Watch,
    ) -> Result<(), Broken> {
        let client = self.client.get_or_init(|| client(&self.options)).as_ref();
        let client = client.ok_or_else(|| Broken::Theirs("it cannot be prepared".to_owned()))?;
        let repository = client.model(remote.model.org(), remote.model.name());
        let asked = repository
            .download_file_stream()
            .filename(remote.file.path.as_str())
            .revision(remote.commit.as_str())
            .range(range.clone())
            .send();
        let (_, mut stream) =
            self.patiently(asked).await?.map_err(|error| Broken::Theirs(error.to_string()))?;
        let mut writer = part.writer(range.start);
        let mut left = range.end - range.start;
        while left > 0 {
            let piece = match self.patiently(stream.next()).await? {
                Some(Ok(piece)) => piece,
                Some(Err(error)) => return Err(Broken::Theirs(error.to_string())),
                None => return Err(Broken::Theirs("it ends early".to_owned())),
            };
            watch.received(piece.len() as u64);
            // Too much is a sign that the range was ignored; the checksum of the whole tells.
            let wanted = piece.get(..left as usize).unwrap_or(&piece);
            writer.write(wanted).map_err(Broken::Ours)?;
            left -= wanted.len() as u64;
        }
        Ok(())
    }

    /// The library itself waits for ever.
    async fn patiently<T>(&self, work: impl Future<Output = T>) -> Result<T, Broken> {
        timeout(self.options.timeout, work).await.map_err(|_| Broken::Theirs("it sends nothing".to_owned()))
    }
}

/// What went wrong.
enum Broken {
    /// The disk, or the user who stopped it.
    Ours(Error),
    /// Anything else: there is another way.
    Theirs(String),
}

/// The library's client, told everything that it would otherwise take from the environment.
fn client(options: &HubOptions) -> Option<HFClient> {
    let mut builder = HFClient::builder()
        .endpoint(&options.endpoint)
        .user_agent(USER_AGENT)
        .retry_max_attempts(1)
        .cache_enabled(false);
    if let Some(token) = &options.token {
        builder = builder.token(token.expose());
    }
    builder.build().ok()
}
