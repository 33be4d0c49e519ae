//! The two hosts: they accept, answer and remember.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::answers::{Asked, PAGE};
use super::connection::{Line, Request};
use super::fault::{Fault, Host, On, Rule, Seen};
use super::repository::Repository;

/// A small buffer in the system, so that what counts as sent has nearly arrived.
const SEND_BUFFER: usize = 1 << 15;

/// A hub that listens until it is dropped.
pub struct Hub(Arc<State>);

pub(super) struct State {
    repositories: Mutex<BTreeMap<String, Repository>>,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
    page: AtomicUsize,
    /// Bytes a second for each connection, 0 for as fast as it goes.
    rate: AtomicU64,
    doors: [Door; 2],
    is_over: AtomicBool,
}

/// Where one host listens.
struct Door {
    address: SocketAddr,
    /// Until when it refuses connections.
    closed_until: Mutex<Option<Instant>>,
    is_closed: AtomicBool,
}

impl Hub {
    /// A hub without repositories.
    pub fn new() -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
        let doors = [0, 1].map(|at: usize| Door {
            address: listeners[at].local_addr().expect("an address"),
            closed_until: Mutex::default(),
            is_closed: AtomicBool::new(false),
        });
        let state = Arc::new(State {
            repositories: Mutex::default(),
            rules: Mutex::default(),
            seen: Mutex::default(),
            page: AtomicUsize::new(PAGE),
            rate: AtomicU64::new(0),
            doors,
            is_over: AtomicBool::new(false),
        });
        for (host, listener) in [Host::Hub, Host::Storage].into_iter().zip(listeners) {
            let state = Arc::clone(&state);
            thread::spawn(move || listen(&state, host, listener));
        }
        Self(state)
    }

    /// A hub with one repository.
    pub fn with(repository: Repository) -> Self {
        let hub = Self::new();
        hub.put(repository);
        hub
    }

    /// Adds or replaces a repository.
    pub fn put(&self, repository: Repository) {
        self.0.repositories().insert(repository.name.clone(), repository);
    }

    /// For `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        self.0.url(Host::Hub)
    }

    /// The address of the second host.
    pub fn storage(&self) -> String {
        self.0.url(Host::Storage)
    }

    /// Lets this go wrong with the next requests of a kind, so many times.
    pub fn fault(&self, on: On, times: u32, fault: Fault) {
        self.fault_after(0, on, times, fault);
    }

    /// The same once `skip` such requests have gone well.
    pub fn fault_after(&self, skip: u32, on: On, times: u32, fault: Fault) {
        lock(&self.0.rules).push(Rule { on, skip, times, fault });
    }

    /// From now on everything goes well.
    pub fn heal(&self) {
        lock(&self.0.rules).clear();
    }

    /// Both hosts refuse connections and drop those they have, for this long.
    pub fn refuse_for(&self, time: Duration) {
        for door in &self.0.doors {
            *lock(&door.closed_until) = Some(Instant::now() + time);
            // Wakes the thread up, which waits for somebody to come.
            let _ = TcpStream::connect(door.address);
            while !door.is_closed.load(Ordering::Acquire) && lock(&door.closed_until).is_some() {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// How many entries a page of a tree has.
    pub fn page(&self, entries: usize) {
        self.0.page.store(entries, Ordering::Relaxed);
    }

    /// How many bytes a second each connection gets.
    pub fn rate(&self, bytes: u64) {
        self.0.rate.store(bytes, Ordering::Relaxed);
    }

    /// Every request since the beginning or since the last `forget`.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.0.seen).clone()
    }

    /// How many requests there were of a kind.
    pub fn requests(&self, on: &On) -> usize {
        lock(&self.0.seen).iter().filter(|seen| on.meets(&seen.on)).count()
    }

    /// Bytes of files that went out.
    pub fn traffic(&self) -> u64 {
        lock(&self.0.seen).iter().filter(|seen| seen.is_payload()).map(Seen::sent).sum()
    }

    pub fn forget(&self) {
        lock(&self.0.seen).clear();
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        for door in &self.0.doors {
            let _ = TcpStream::connect(door.address);
        }
    }
}

impl State {
    pub(super) fn repositories(&self) -> MutexGuard<'_, BTreeMap<String, Repository>> {
        lock(&self.repositories)
    }

    pub(super) fn page(&self) -> usize {
        self.page.load(Ordering::Relaxed)
    }

    /// The hub is called by its number and the storage by its name, so that they are two hosts.
    pub(super) fn url(&self, host: Host) -> String {
        let port = self.door(host).address.port();
        match host {
            Host::Hub => format!("http://127.0.0.1:{port}"),
            Host::Storage => format!("http://localhost:{port}"),
        }
    }

    fn door(&self, host: Host) -> &Door {
        &self.doors[usize::from(host == Host::Storage)]
    }

    /// What is to go wrong with this request.
    fn fault_for(&self, on: &On, is_head: bool) -> Option<Fault> {
        // Answers to HEAD have no bodies in which something could go wrong.
        let fits = |fault: &Fault| {
            !is_head
                || matches!(fault, Fault::Answer { .. } | Fault::Wait(_) | Fault::NoEtag | Fault::Commit(_))
        };
        for rule in lock(&self.rules).iter_mut().filter(|rule| rule.on.meets(on) && fits(&rule.fault)) {
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.times > 0 {
                rule.times -= u32::from(rule.times != super::ALWAYS);
                return Some(rule.fault.clone());
            }
        }
        None
    }
}

fn listen(state: &Arc<State>, host: Host, listener: TcpListener) {
    let mut listener = Some(listener);
    loop {
        let door = state.door(host);
        let Some(open) = &listener else {
            let until = *lock(&door.closed_until);
            if let Some(rest) = until.and_then(|until| until.checked_duration_since(Instant::now())) {
                thread::sleep(rest.min(Duration::from_millis(5)));
            } else if let Ok(bound) = TcpListener::bind(door.address) {
                listener = Some(bound);
                *lock(&door.closed_until) = None;
                door.is_closed.store(false, Ordering::Release);
            } else {
                thread::sleep(Duration::from_millis(5));
            }
            continue;
        };
        let accepted = open.accept();
        if state.is_over.load(Ordering::Relaxed) {
            return;
        }
        if lock(&door.closed_until).is_some() {
            listener = None;
            door.is_closed.store(true, Ordering::Release);
            continue;
        }
        if let Ok((stream, _)) = accepted {
            let state = Arc::clone(state);
            thread::spawn(move || serve(&state, host, &stream));
        }
    }
}

/// Answers one client's requests until either ends the connection.
fn serve(state: &State, host: Host, stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_send_buffer_size(stream, SEND_BUFFER);
    let Ok(copy) = stream.try_clone() else { return };
    let mut reader = BufReader::new(copy);
    while let Some(request) = Request::read(&mut reader) {
        if state.door(host).is_closed.load(Ordering::Acquire) || state.is_over.load(Ordering::Relaxed) {
            return;
        }
        let asked = Asked::new(host, &request);
        let fault = state.fault_for(&asked.on, request.is_head());
        let sent = Arc::new(AtomicU64::new(0));
        lock(&state.seen).push(Seen {
            host,
            method: request.method.clone(),
            target: request.target.clone(),
            headers: request.headers.clone(),
            on: asked.on.clone(),
            sent: Arc::clone(&sent),
        });
        let line = Line { stream, sent: &sent, rate: state.rate.load(Ordering::Relaxed) };
        match &fault {
            Some(Fault::Reset) => {
                let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
                return;
            }
            Some(Fault::Silence) => {
                let _ = line.hold();
                return;
            }
            Some(Fault::Wait(time)) => thread::sleep(*time),
            _ => {}
        }
        let answer = asked.answer(host, state, fault.as_ref());
        if let Some(Fault::MoveMain { path, content }) = &fault {
            for repository in state.repositories().values_mut() {
                let moved = repository.clone().commit_as("before").file(path, content);
                *repository = moved;
            }
        }
        if line.send(&answer, request.is_head(), fault.as_ref()).is_err() {
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
