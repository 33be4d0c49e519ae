//! What may go wrong, when, and what was seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// As often as it is asked.
pub const ALWAYS: u32 = u32::MAX;

/// Which requests a fault meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum On {
    /// Information about a model or one of its revisions.
    Info,
    /// A page of a tree.
    Tree,
    /// The hub's own answer for a file: a redirect.
    Address(String),
    /// A file's content, wherever it is sent from.
    Payload(String),
    /// Every file's content.
    Payloads,
    Everything,
}

impl On {
    pub(super) fn meets(&self, request: &Self) -> bool {
        match self {
            Self::Everything => true,
            Self::Payloads => matches!(request, Self::Payload(_)),
            named => named == request,
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The connection ends after so many bytes of the body.
    Cut(u64),
    /// It ends without an answer, by a reset.
    Reset,
    /// Nothing more comes after so many bytes of the body, but the connection stays.
    Stall(u64),
    /// There is no answer, but the connection stays.
    Silence,
    /// The answer comes after a while.
    Wait(Duration),
    /// One bit of the file's byte at this place is another.
    Corrupt(u64),
    /// The answer is whole and honest about its length, but has only the file's first bytes.
    Short(u64),
    /// So many bytes more than the file has.
    Longer(u64),
    /// Another file's content altogether.
    Instead(Vec<u8>),
    /// 200 with the whole file when a range is asked for.
    IgnoreRange,
    /// 206 with a range that begins so many bytes before what was asked for, and says so.
    OtherRange(u64),
    NoEtag,
    /// The answer names this commit.
    Commit(String),
    /// Another answer.
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// A body in pieces that never ends: the beginning once, the rest again and again.
    Endless {
        first: Vec<u8>,
        then: Vec<u8>,
    },
    /// The answer is as it should be, and then `main` is another commit, which has this file changed.
    MoveMain {
        path: String,
        content: Vec<u8>,
    },
}

impl Fault {
    pub fn status(status: u16) -> Self {
        Self::Answer { status, headers: Vec::new(), body: b"{\"error\":\"as the test wants it\"}".to_vec() }
    }

    /// 429 with when to come back.
    pub fn too_many(retry_after: impl std::fmt::Display) -> Self {
        let headers = vec![("Retry-After", retry_after.to_string())];
        Self::Answer { status: 429, headers, body: b"{\"error\":\"Too Many Requests\"}".to_vec() }
    }

    pub fn redirect(location: impl Into<String>) -> Self {
        Self::Answer { status: 302, headers: vec![("Location", location.into())], body: Vec::new() }
    }

    pub fn body(body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("Content-Type", "application/json".to_owned())];
        Self::Answer { status: 200, headers, body: body.into() }
    }
}

/// The time so far from now as HTTP writes dates.
pub fn unix_date(from_now: Duration) -> String {
    httpdate::fmt_http_date(SystemTime::now() + from_now)
}

/// A fault that waits for its requests.
#[derive(Debug)]
pub(super) struct Rule {
    pub on: On,
    /// How many such requests go well before.
    pub skip: u32,
    pub times: u32,
    pub fault: Fault,
}

/// One of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    Hub,
    /// Where large files lie.
    Storage,
}

/// A request that was answered.
#[derive(Debug, Clone)]
pub struct Seen {
    pub host: Host,
    pub method: String,
    /// Path and query as they were sent.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub on: On,
    pub(super) sent: Arc<AtomicU64>,
}

impl Seen {
    /// Bytes of the body that went out.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn is_payload(&self) -> bool {
        matches!(self.on, On::Payload(_))
    }
}
