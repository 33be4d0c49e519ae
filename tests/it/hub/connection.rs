//! HTTP/1.1 as far as the hub needs it: requests are read, answers written, bodies disturbed on the way.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::content::Content;
use super::fault::Fault;

const LONGEST_LINE: u64 = 1 << 16;
/// A stalled connection ends after this, in case its client never does.
const LONGEST_STALL: Duration = Duration::from_secs(20);

pub(super) struct Request {
    pub method: String,
    /// As it was sent.
    pub target: String,
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The next request, or nothing when the client is done.
    pub(super) fn read(reader: &mut BufReader<TcpStream>) -> Option<Self> {
        let first = line(reader)?;
        let mut words = first.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = Vec::new();
        loop {
            let text = line(reader)?;
            if text.is_empty() {
                return Some(Self { method, target, headers });
            }
            let (name, value) = text.split_once(':')?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The token of `Authorization`.
    pub(super) fn token(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }

    pub(super) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// The path without the query, decoded.
    pub(super) fn path(&self) -> String {
        decode(self.target.split('?').next().unwrap_or_default())
    }

    /// A parameter of the query, decoded.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=').map(decode))
    }

    /// The bounds in `Range: bytes=…`, the second one excluded, for a file of this length; an error if no
    /// byte is in them.
    pub(super) fn range(&self, length: u64) -> Option<Result<(u64, u64), ()>> {
        let text = self.header("range")?.strip_prefix("bytes=")?;
        let (from, to) = text.split_once('-')?;
        let (from, to) = match (from.parse::<u64>(), to.parse::<u64>()) {
            (Ok(from), Ok(to)) => (from, to.saturating_add(1).min(length)),
            (Ok(from), Err(_)) => (from, length),
            (Err(_), Ok(last)) => (length.saturating_sub(last), length),
            (Err(_), Err(_)) => return None,
        };
        Some(if from < to { Ok((from, to)) } else { Err(()) })
    }
}

fn line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut text = String::new();
    let read = reader.by_ref().take(LONGEST_LINE).read_line(&mut text).ok()?;
    (read > 0 && text.ends_with('\n')).then(|| text.trim_end().to_owned())
}

/// `%41` becomes `A`.
fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = (*first == b'%').then(|| after.get(..2)).flatten();
        let code = escaped.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The opposite, keeping slashes.
pub(super) fn encode(path: &str) -> String {
    let keeps = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes()
        .map(|byte| if keeps(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

pub(super) enum Body {
    Bytes(Vec<u8>),
    /// The bytes of a file from one place up to another.
    File(Content, u64, u64),
    Endless {
        first: Vec<u8>,
        then: Vec<u8>,
    },
}

pub(super) struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

impl Answer {
    pub(super) fn new(status: u16, body: Body) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn length(&self) -> Option<u64> {
        match &self.body {
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::File(_, from, until) => Some(until - from),
            Body::Endless { .. } => None,
        }
    }
}

/// The way to one client.
pub(super) struct Line<'a> {
    pub stream: &'a TcpStream,
    /// Bytes of bodies that went out.
    pub sent: &'a AtomicU64,
    /// Bytes a second, or 0 for as fast as it goes.
    pub rate: u64,
}

impl Line<'_> {
    /// Sends an answer; an error means that the connection is over.
    pub(super) fn send(&self, answer: &Answer, is_head: bool, fault: Option<&Fault>) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} As-It-Is\r\n", answer.status);
        match answer.length() {
            Some(length) => head.push_str(&["Content-Length: ", &length.to_string(), "\r\n"].concat()),
            None => head += "Transfer-Encoding: chunked\r\n",
        }
        for (name, value) in &answer.headers {
            head.push_str(&[name, ": ", value, "\r\n"].concat());
        }
        let mut stream = self.stream;
        stream.write_all((head + "\r\n").as_bytes())?;
        if is_head {
            return Ok(());
        }
        match &answer.body {
            Body::Bytes(bytes) => self.file(&Content::from(bytes), 0, bytes.len() as u64, fault),
            Body::File(content, from, until) => self.file(content, *from, *until, fault),
            Body::Endless { first, then } => {
                let mut piece = first;
                loop {
                    write!(stream, "{:x}\r\n", piece.len())?;
                    stream.write_all(piece)?;
                    stream.write_all(b"\r\n")?;
                    self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    piece = then;
                }
            }
        }
    }

    fn file(&self, content: &Content, from: u64, until: u64, fault: Option<&Fault>) -> io::Result<()> {
        let mut stream = self.stream;
        let largest = if self.rate == 0 { 1 << 16 } else { (self.rate / 100).clamp(1, 1 << 16) };
        let end = match fault {
            Some(Fault::Cut(bytes) | Fault::Stall(bytes)) => until.min(from.saturating_add(*bytes)),
            _ => until,
        };
        let mut buffer = vec![0; largest as usize];
        let (started, mut at) = (Instant::now(), from);
        while at < end {
            let piece = &mut buffer[..largest.min(end - at) as usize];
            content.read(at, piece);
            if let Some(Fault::Corrupt(place)) = fault
                && (at..at + piece.len() as u64).contains(place)
            {
                piece[(place - at) as usize] ^= 1;
            }
            stream.write_all(piece)?;
            self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            at += piece.len() as u64;
            if self.rate > 0 {
                let due = Duration::from_secs_f64((at - from) as f64 / self.rate as f64);
                thread::sleep(due.saturating_sub(started.elapsed()));
            }
        }
        match fault {
            Some(Fault::Cut(_)) => Err(io::ErrorKind::ConnectionAborted.into()),
            Some(Fault::Stall(_)) => self.hold(),
            _ => Ok(()),
        }
    }

    /// Says nothing until the client gives up.
    pub(super) fn hold(&self) -> io::Result<()> {
        let started = Instant::now();
        self.stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        while started.elapsed() < LONGEST_STALL {
            let mut stream = self.stream;
            match stream.read(&mut [0; 64]) {
                Ok(0) => break,
                Err(error)
                    if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
                {
                    break;
                }
                _ => {}
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}
