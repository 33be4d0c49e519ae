//! Whether the hub answers.

use std::time::{Duration, Instant};

use super::client::{http, reason};
use super::patience::unavailable;
use super::{address, runtime};
use crate::error::{Code, Error, Result};

/// Long enough for a slow line, short enough to wait for.
const PATIENCE: Duration = Duration::from_secs(5);

/// An answer of the hub.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reached {
    /// The HTTP status.
    pub status: u16,
    pub seconds: f64,
}

/// Asks for the hub's front page, without a token and without reading it. An answer is an answer,
/// wherever it points.
///
/// # Errors
/// NETWORK_ERROR if nothing answers, HUB_UNAVAILABLE if a server does but cannot serve.
pub fn reach(endpoint: &str) -> Result<Reached> {
    let url = address::parse(endpoint)?;
    let server = address::shown(&url);
    let request = http(PATIENCE)?.head(url).timeout(PATIENCE);
    let start = Instant::now();
    // Sending sets a timer, which only a runtime has.
    let answer = runtime(1)?.block_on(async { request.send().await }).map_err(|error| {
        Error::new(Code::NetworkError, format!("cannot reach {server}: {}", reason(error)))
            .hint("check the network, HTTPS_PROXY and HF_ENDPOINT, or work offline with MLX_CACHE_OFFLINE=1")
    })?;
    let status = answer.status().as_u16();
    if status >= 500 {
        return Err(unavailable(&server, status));
    }
    Ok(Reached { status, seconds: start.elapsed().as_secs_f64() })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A server that gives one answer.
    fn answering(status: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let _ = stream.read(&mut [0; 1024]);
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        });
        format!("http://{address}")
    }

    #[test]
    fn any_answer_but_a_server_error_is_reached() {
        assert_eq!(reach(&answering("200 OK")).expect("reached").status, 200);
        assert_eq!(reach(&answering("403 Forbidden")).expect("reached").status, 403);
        assert_eq!(reach(&answering("503 Busy")).expect_err("unavailable").code(), Code::HubUnavailable);
    }

    #[test]
    fn where_nobody_listens_is_a_network_error() {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        assert_eq!(reach(&format!("http://{free}")).expect_err("closed").code(), Code::NetworkError);
    }
}
