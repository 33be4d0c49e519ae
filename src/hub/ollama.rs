//! Ollama's server: how fast it answers, by its own counters. The API is that of Ollama's docs/api.md.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::{Response, Url, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::client::{USER_AGENT, reason};
use super::{Check, address, runtime, wait};
use crate::error::{Code, Error, Result};

/// Where it listens if nothing else is said.
const HOST: &str = "127.0.0.1";
const PORT: u16 = 11434;
const CONNECT: Duration = Duration::from_secs(5);
/// A large model on a slow disk takes minutes to load; longer than this is a server that hangs.
const PATIENCE: Duration = Duration::from_mins(10);
/// The longest answer that is read: one of ours is a few kilobytes.
const LONGEST: usize = 16 << 20;
/// How much of a message of the server's is quoted.
const QUOTED: usize = 200;

/// A server.
#[derive(Debug)]
pub struct Ollama {
    http: reqwest::Client,
    url: Url,
    runtime: Runtime,
}

/// What is to be generated.
#[derive(Debug, Clone, Copy)]
pub struct Generate<'a> {
    pub model: &'a str,
    /// The text as it is, without a template.
    pub prompt: &'a str,
    /// Most tokens to generate.
    pub tokens: usize,
    /// Tokens of context. A request with another number loads the model anew.
    pub context: usize,
    /// Threads that compute; its own choice without it.
    pub threads: Option<usize>,
}

/// What it says of an answer: tokens, and nanoseconds. What it leaves out is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Counters {
    pub load_duration: u64,
    pub prompt_eval_count: u64,
    pub prompt_eval_duration: u64,
    pub eval_count: u64,
    pub eval_duration: u64,
}

impl Ollama {
    /// Prepares for use of the server that `OLLAMA_HOST` names; nothing is asked yet.
    ///
    /// # Errors
    /// INVALID_REQUEST if that is no address, OFFLINE if the network must not be used and it is on another
    /// machine.
    pub fn new(host: Option<&str>, offline: bool) -> Result<Self> {
        let url = parse(host.unwrap_or_default())?;
        let builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT);
        let builder = if is_here(&url) {
            // No proxy leads to this machine.
            builder.no_proxy()
        } else if offline {
            let message = format!("Ollama at {} is needed, but offline mode is on", address::shown(&url));
            return Err(Error::new(Code::Offline, message)
                .hint("unset MLX_CACHE_OFFLINE and HF_HUB_OFFLINE, or measure an Ollama on this machine"));
        } else {
            builder
        };
        let http = builder
            .build()
            .map_err(|error| Error::internal(format!("cannot prepare for Ollama: {}", reason(error))))?;
        Ok(Self { http, url, runtime: runtime(1)? })
    }

    /// The server as messages name it.
    pub fn address(&self) -> String {
        address::shown(&self.url)
    }

    /// Its version.
    pub fn version(&self, check: Check<'_>) -> Result<String> {
        #[derive(Deserialize)]
        struct Answer {
            version: String,
        }
        Ok(self.ask::<Answer>("api/version", None, check)?.version)
    }

    /// How the weights of a model are packed, such as `Q4_K_M`.
    ///
    /// # Errors
    /// MODEL_NOT_FOUND if it has no such model.
    pub fn quantization(&self, model: &str, check: Check<'_>) -> Result<Option<String>> {
        #[derive(Deserialize)]
        struct Answer {
            details: Option<Details>,
        }
        #[derive(Deserialize)]
        struct Details {
            quantization_level: Option<String>,
        }
        let answer: Answer = self.ask("api/show", Some(json!({ "model": model })), check)?;
        Ok(answer.details.and_then(|details| details.quantization_level).filter(|level| !level.is_empty()))
    }

    /// Whether a model is in its memory.
    pub fn has_loaded(&self, model: &str, check: Check<'_>) -> Result<bool> {
        #[derive(Deserialize)]
        struct Answer {
            models: Option<Vec<Loaded>>,
        }
        #[derive(Deserialize)]
        struct Loaded {
            name: String,
        }
        let answer: Answer = self.ask("api/ps", None, check)?;
        let full = if model.contains(':') { model.to_owned() } else { format!("{model}:latest") };
        Ok(answer.models.unwrap_or_default().iter().any(|loaded| loaded.name == full))
    }

    /// Generates greedily, and tells what that took.
    pub fn generate(&self, request: Generate<'_>, check: Check<'_>) -> Result<Counters> {
        let mut options =
            json!({ "num_predict": request.tokens, "num_ctx": request.context, "temperature": 0 });
        if let (Some(threads), Some(options)) = (request.threads, options.as_object_mut()) {
            options.insert("num_thread".to_owned(), threads.into());
        }
        let body = json!({
            "model": request.model, "prompt": request.prompt, "raw": true, "stream": false, "options": options
        });
        self.ask("api/generate", Some(body), check)
    }

    /// One request, a POST if it has a body.
    fn ask<T: DeserializeOwned>(&self, path: &str, body: Option<Value>, check: Check<'_>) -> Result<T> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.split('/'));
        }
        let request = match body {
            None => self.http.get(url),
            Some(body) => {
                self.http.post(url).header(header::CONTENT_TYPE, "application/json").body(body.to_string())
            }
        };
        let exchange = async {
            let mut response = request.send().await.map_err(|error| self.broken(&reason(error)))?;
            let bytes = self.body(&mut response).await?;
            Ok((response.status().as_u16(), bytes))
        };
        let (status, bytes) = wait(&self.runtime, check, async {
            timeout(PATIENCE, exchange).await.unwrap_or_else(|_| {
                let message =
                    format!("Ollama at {} did not answer for {} s", self.address(), PATIENCE.as_secs());
                Err(Error::new(Code::Timeout, message).hint("look whether it still works: `ollama ps`"))
            })
        })?;
        if status != 200 {
            return Err(self.refused(status, &bytes));
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            self.broken(&format!("its answer to /{path} is not what Ollama's API says: {error}"))
        })
    }

    async fn body(&self, response: &mut Response) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.broken(&reason(error)))? {
            if bytes.len() + piece.len() > LONGEST {
                return Err(self.broken("its answer has no end"));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    fn broken(&self, why: &str) -> Error {
        Error::new(Code::ServerCrashed, format!("Ollama at {} does not answer: {why}", self.address()))
            .detail("server", self.address())
            .hint("start it with `ollama serve`, or say with OLLAMA_HOST where it is")
    }

    /// What another status than 200 means.
    fn refused(&self, status: u16, bytes: &[u8]) -> Error {
        #[derive(Deserialize)]
        struct Answer {
            error: String,
        }
        let said = serde_json::from_slice::<Answer>(bytes).map_or_else(|_| String::new(), |it| it.error);
        let said: String = said.chars().take(QUOTED).flat_map(char::escape_debug).collect();
        let (code, hint) = match status {
            404 => (Code::ModelNotFound, "`ollama list` shows the models that it has"),
            400..=499 => {
                (Code::InvalidRequest, "check the model's name and what it can do: `ollama show NAME`")
            }
            _ => (Code::ServerCrashed, "look at what Ollama says in its log"),
        };
        Error::new(code, format!("Ollama at {} answers with status {status}: {said}", self.address()))
            .detail("status", status)
            .hint(hint)
    }
}

/// Reads `OLLAMA_HOST` as Ollama does: `host`, `host:port`, `:port`, or an address with `http://` or
/// `https://`, which then has that scheme's port. The address of all interfaces, at which a server listens,
/// means this machine.
fn parse(text: &str) -> Result<Url> {
    let text = text.trim().trim_matches(['"', '\'']);
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = match host {
        "" => HOST.to_owned(),
        port if port.starts_with(':') && !port.starts_with("::") => format!("{HOST}{port}"),
        bare if bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) => format!("[{bare}]"),
        host => host.to_owned(),
    };
    let wrong = || {
        let shown = text.escape_debug();
        Error::new(Code::InvalidRequest, format!("OLLAMA_HOST '{shown}' is not the address of a server"))
            .hint("write it as 127.0.0.1:11434 or http://host:port")
    };
    let address = format!("{}://{host}/{path}", scheme.unwrap_or("http"));
    let mut url = Url::parse(&address).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong());
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if scheme.is_none() && !has_port {
        url.set_port(Some(PORT)).map_err(|()| wrong())?;
    }
    if ip(&url).is_some_and(|ip| ip.is_unspecified()) {
        url.set_host(Some(HOST)).map_err(|_| wrong())?;
    }
    Ok(url)
}

fn ip(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

/// Whether it is this machine.
fn is_here(url: &Url) -> bool {
    url.host_str() == Some("localhost") || ip(url).is_some_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_read_as_ollama_reads_it() {
        for (text, url) in [
            ("", "http://127.0.0.1:11434/"),
            ("example.org", "http://example.org:11434/"),
            ("example.org:80", "http://example.org/"),
            (":8080", "http://127.0.0.1:8080/"),
            ("0.0.0.0", "http://127.0.0.1:11434/"),
            ("0.0.0.0:1234", "http://127.0.0.1:1234/"),
            ("[::]:1234", "http://127.0.0.1:1234/"),
            ("::1", "http://[::1]:11434/"),
            ("[::1]", "http://[::1]:11434/"),
            (" \"localhost:99\" ", "http://localhost:99/"),
            ("http://example.org", "http://example.org/"),
            ("https://example.org/ollama", "https://example.org/ollama"),
        ] {
            assert_eq!(parse(text).expect(text).as_str(), url, "{text}");
        }
        for text in ["ftp://example.org", "a b", "host:port", "http://"] {
            match parse(text) {
                Err(error) => assert_eq!(error.code(), Code::InvalidRequest, "{text}"),
                Ok(url) => assert_eq!((text, url.as_str()), ("http://", "http://127.0.0.1/")),
            }
        }
    }

    #[test]
    fn offline_mode_forbids_other_machines_only() {
        assert!(Ollama::new(None, true).is_ok() && Ollama::new(Some("localhost"), true).is_ok());
        assert_eq!(Ollama::new(Some("example.org"), true).expect_err("offline").code(), Code::Offline);
        assert!(Ollama::new(Some("example.org"), false).is_ok());
    }
}
