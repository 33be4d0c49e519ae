//! Requests: the token, redirects, timeouts. One request, one answer; trying again is for others.

use std::error::Error as _;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::header::{self, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Response, Url};
use tokio::time::timeout;

use super::patience::Patience;
use super::{HubOptions, address};
use crate::error::{Code, Error, Result};

pub(super) const USER_AGENT: &str = concat!("mlx-cache/", env!("CARGO_PKG_VERSION"));
/// As many as browsers follow in half their patience; the hub needs one or two.
const REDIRECTS: usize = 10;
/// Connecting takes moments or fails.
const CONNECT: Duration = Duration::from_secs(10);
/// What to do where no connection comes about.
const NETWORK_HINT: &str =
    "check the network, HTTPS_PROXY and HF_ENDPOINT, or work offline with MLX_CACHE_OFFLINE=1";

/// The hub's access token. Nothing shows it.
#[derive(Clone)]
pub struct Secret(HeaderValue);

impl Secret {
    /// INVALID_REQUEST if no header can hold the token.
    pub fn new(token: &str) -> Result<Self> {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
            Error::new(Code::InvalidRequest, "the hub's token holds characters that no token has")
                .hint("write it anew with `hf auth login`, or give --token")
        })?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// The token itself, for a library that makes its own requests to the hub.
    pub(super) fn expose(&self) -> &str {
        self.0.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).unwrap_or_default()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Why there is no usable answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It may pass: the same request may be answered later, if the server says so after a while.
    Passing(Error, Option<Duration>),
    /// The server has other content than its own listing says.
    Mismatch(Error),
    Final(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// Makes requests to the hub and wherever it redirects to.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    hub: Url,
    token: Option<Secret>,
    pub(super) timeout: Duration,
    pub(super) patience: Patience,
    /// Connections that fetch content at the same time: those there may be, and those there are.
    pub(super) connections: usize,
    pub(super) active: AtomicUsize,
    /// Whether anything was ever answered.
    answered: AtomicBool,
}

impl Client {
    pub(super) fn new(options: &HubOptions) -> Result<Self> {
        Ok(Self {
            http: http(options.timeout.min(CONNECT))?,
            hub: address::parse(&options.endpoint)?,
            token: options.token.clone(),
            timeout: options.timeout,
            patience: Patience::new(options.retries, options.timeout),
            connections: options.connections.max(1),
            active: AtomicUsize::new(0),
            answered: AtomicBool::new(false),
        })
    }

    pub(super) fn hub(&self) -> &Url {
        &self.hub
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// How patient to be: where nothing was ever answered there is probably no network.
    pub(super) fn patience(&self) -> Patience {
        if self.answered.load(Ordering::Relaxed) { self.patience } else { self.patience.short() }
    }

    /// Asks for `url`, from byte `range.start` to before `range.end` if a range is given, and follows
    /// redirects. The token goes to the hub's own server and to no other.
    pub(super) async fn get(
        &self,
        url: Url,
        range: Option<&std::ops::Range<u64>>,
    ) -> Result<Response, Trouble> {
        let mut url = url;
        for _ in 0..=REDIRECTS {
            let mut request = self.http.get(url.clone()).header(header::ACCEPT_ENCODING, "identity");
            if let (Some(token), true) = (&self.token, address::same_origin(&url, &self.hub)) {
                request = request.header(header::AUTHORIZATION, token.0.clone());
            }
            if let Some(range) = range {
                request = request
                    .header(header::RANGE, format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
            }
            let response = match timeout(self.timeout, request.send()).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => return Err(self.broken(&url, error)),
                Err(_) => return Err(self.silent(&url)),
            };
            self.answered.store(true, Ordering::Relaxed);
            match redirection(&response, &url)? {
                Some(target) => url = target,
                None => return Ok(response),
            }
        }
        let message = format!("{} redirects in circles", address::shown(&self.hub));
        Err(Error::new(Code::HubUnavailable, message).hint("check HF_ENDPOINT, or try again later").into())
    }

    /// The next piece of an answer's body; nothing at its end.
    pub(super) async fn next(
        &self,
        response: &mut Response,
    ) -> Result<Option<impl AsRef<[u8]> + use<>>, Trouble> {
        match timeout(self.timeout, response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(self.broken(response.url(), error)),
            Err(_) => Err(self.silent(response.url())),
        }
    }

    fn broken(&self, url: &Url, error: reqwest::Error) -> Trouble {
        let server = address::shown(url);
        let message = if error.is_connect() || !self.answered.load(Ordering::Relaxed) {
            format!("cannot reach {server}: {}", reason(error))
        } else {
            format!("the connection to {server} broke: {}", reason(error))
        };
        Trouble::Passing(Error::new(Code::NetworkError, message).hint(NETWORK_HINT), None)
    }

    fn silent(&self, url: &Url) -> Trouble {
        let message = format!("{} sent nothing for {} s", address::shown(url), self.timeout.as_secs_f64());
        Trouble::Passing(
            Error::new(Code::NetworkError, message)
                .hint("try again, or be more patient with MLX_CACHE_HTTP_TIMEOUT (seconds)"),
            None,
        )
    }
}

/// Connections as we want them. One stream each (HTTP/1.1): ranges in parallel are there to have
/// several. Proxies come from the environment, certificates from the platform.
pub(super) fn http(connect: Duration) -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(Policy::none())
        .http1_only()
        .connect_timeout(connect)
        .tcp_nodelay(true)
        .build()
        .map_err(|error| Error::internal(format!("cannot prepare for the network: {}", reason(error))))
}

/// Where an answer sends us, if anywhere.
fn redirection(response: &Response, from: &Url) -> Result<Option<Url>, Trouble> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let wrong = |why: &str| {
        let message = format!("{} redirects {why}", address::shown(from));
        Trouble::Final(
            Error::new(Code::HubUnavailable, message).hint("check HF_ENDPOINT, or try again later"),
        )
    };
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let target = location.and_then(|location| from.join(location).ok()).ok_or_else(|| wrong("to nowhere"))?;
    match (from.scheme(), target.scheme()) {
        ("https", "https") | ("http", "http" | "https") => Ok(Some(target)),
        ("https", "http") => Err(wrong("to an address without encryption")),
        _ => Err(wrong("to something that is not on the web")),
    }
}

/// What went wrong, without the address: it may hold a signature, and it is told anyway.
pub(super) fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut innermost: &dyn std::error::Error = &error;
    let mut seen = 0;
    while let Some(source) = innermost.source()
        && seen < 16
    {
        innermost = source;
        seen += 1;
    }
    if error.source().is_none() { error.to_string() } else { innermost.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        let secret = Secret::new("hf_secret").expect("a token");
        assert!(!format!("{secret:?}").contains("hf_"));
        assert_eq!(secret.expose(), "hf_secret");
        let error = Secret::new("hf_a\nX-Evil: 1").expect_err("no header holds a line end");
        assert!(!error.message().contains("hf_"));
    }
}
