//! That the hub is one: the real clients take it for theirs.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{Fault, Host, Hub, On, Repository, noise};
use crate::python;
use crate::sandbox::{Sandbox, finish};

const TOKEN: &str = "hf_abcdefghijklmnopqrstuvwxyzabcdefgh";

#[test]
fn real_clients_download_from_it() {
    let repository = Repository::tiny("org/tiny")
        .file("1_Pooling/a name.json", "{}")
        .large("big.safetensors", noise(1, 3_000_000));
    std::thread::scope(|scope| {
        for release in python::RELEASES {
            let repository = repository.clone();
            scope.spawn(move || {
                let (sandbox, hub) = (Sandbox::new(), Hub::with(repository.clone()));
                hub.page(3);
                let folder = python::download(&sandbox, release, &hub.endpoint(), "org/tiny");
                for path in repository.paths() {
                    let found = fs::read(folder.join(&path)).expect("a file");
                    assert!(found == repository.content(&path), "{release}: {path}");
                }
                assert!(folder.ends_with(repository.main()), "{}", folder.display());
                assert!(hub.seen().iter().any(|seen| seen.host == Host::Storage && seen.sent() > 0));
            });
        }
    });
}

#[test]
fn real_clients_understand_its_refusals() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/gated").gated(TOKEN)));
    hub.put(Repository::tiny("org/private").private(TOKEN));
    hub.put(Repository::tiny("org/open"));
    let code = "
import sys, huggingface_hub as h
def told(*args, **more):
    try:
        return h.hf_hub_download(*args, **more)
    except Exception as error:
        return type(error).__name__
token = sys.argv[1]
print(told('org/gated', 'config.json'))
print(told('org/gated', 'config.json', token='hf_other'))
print(told('org/gated', 'config.json', token=token))
print(told('org/private', 'config.json'))
print(told('org/private', 'config.json', token='hf_other'))
print(told('org/private', 'config.json', token=token))
print(told('org/none', 'config.json'))
print(told('org/open', 'none.json'))
print(told('org/open', 'config.json', revision='none'))
";
    let mut command = python::program(&sandbox, python::NEWEST, "python3");
    command.env("HF_ENDPOINT", hub.endpoint()).args(["-c", code, TOKEN]);
    let told = python::succeeded(finish(&mut command));
    let told: Vec<&str> =
        told.lines().map(|line| if line.starts_with('/') { "a file" } else { line }).collect();
    assert_eq!(
        told,
        [
            "GatedRepoError",
            "GatedRepoError",
            "a file",
            "RepositoryNotFoundError",
            "RepositoryNotFoundError",
            "a file",
            "RepositoryNotFoundError",
            "RemoteEntryNotFoundError",
            "RevisionNotFoundError",
        ]
    );
    let leaked = hub
        .seen()
        .into_iter()
        .find(|seen| seen.host == Host::Storage && seen.header("authorization").is_some());
    assert!(leaked.is_none(), "{leaked:?}");
}

/// Sends a request as it is and reads what comes until the answer is whole or nothing more comes: head and body.
fn ask(url: &str, target: &str, headers: &str) -> (String, Vec<u8>) {
    let address = url.strip_prefix("http://").expect("an address").replace("localhost", "127.0.0.1");
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    write!(stream, "GET {target} HTTP/1.1\r\nHost: hub\r\n{headers}\r\n").expect("sent");
    let (mut came, mut piece) = (Vec::new(), vec![0; 1 << 14]);
    loop {
        let end = came.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8(came[..end].to_vec()).expect("a head");
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
            if length.is_some_and(|length: usize| came.len() >= end + 4 + length) || came.len() > 1 << 20 {
                return (head, came[end + 4..].to_vec());
            }
        }
        if let Ok(length @ 1..) = stream.read(&mut piece) {
            came.extend_from_slice(&piece[..length]);
        } else {
            let end = end.map_or(came.len(), |end| end + 4);
            return (String::from_utf8_lossy(&came[..end]).into_owned(), came[end..].to_vec());
        }
    }
}

#[test]
fn faults_are_what_they_say() {
    let content = noise(3, 200_000);
    let repository = Repository::new("org/one").large("w.safetensors", &content).file("a b.json", "{}");
    let hub = Hub::with(repository.clone());
    let (storage, target) = (hub.storage(), format!("/org/one/{}/w.safetensors", repository.main()));
    let met = |fault: Fault, headers: &str| {
        hub.heal();
        hub.fault(On::Payload("w.safetensors".to_owned()), 1, fault);
        let first = ask(&storage, &target, headers);
        let (_, second) = ask(&storage, &target, "");
        assert!(second == content, "the fault comes once");
        first
    };
    let range = "Range: bytes=1000-1999\r\n";
    assert_eq!(met(Fault::Cut(70_000), "").1, &content[..70_000]);
    assert_eq!(met(Fault::Stall(5), "").1, &content[..5]);
    assert_eq!(met(Fault::Reset, ""), (String::new(), Vec::new()));
    assert_eq!(met(Fault::Silence, ""), (String::new(), Vec::new()));
    let (_, corrupt) = met(Fault::Corrupt(99_999), "");
    assert_eq!((0..content.len()).filter(|at| corrupt[*at] != content[*at]).collect::<Vec<_>>(), [99_999]);
    let (head, short) = met(Fault::Short(9), "");
    assert!(head.starts_with("HTTP/1.1 200") && short == content[..9], "{head}");
    assert_eq!(met(Fault::Longer(7), "").1.len(), content.len() + 7);
    assert_eq!(met(Fault::Instead(b"other".to_vec()), "").1, b"other");
    let (head, body) = met(Fault::IgnoreRange, range);
    assert!(head.starts_with("HTTP/1.1 200") && body == content, "{head}");
    let (head, body) = met(Fault::OtherRange(10), range);
    assert!(head.contains("Content-Range: bytes 990-1999/200000") && body == content[990..2000], "{head}");
    assert!(met(Fault::status(503), "").0.starts_with("HTTP/1.1 503"));
    assert!(met(Fault::too_many(7), "").0.contains("Retry-After: 7"));
    assert!(met(Fault::redirect("/x"), "").0.contains("Location: /x"));
    assert!(!met(Fault::NoEtag, "").0.contains("ETag"));
    let endless = met(Fault::Endless { first: b"[".to_vec(), then: vec![b'a'; 1000] }, "");
    assert!(endless.0.contains("chunked") && endless.1.len() > 500_000);
    // And without any.
    let (head, body) = ask(&storage, &target, range);
    assert!(head.starts_with("HTTP/1.1 206") && body == content[1000..2000], "{head}");
    assert!(ask(&storage, &target, "Range: bytes=200000-\r\n").0.starts_with("HTTP/1.1 416"));
    assert!(ask(&storage, &target, "Authorization: Bearer x\r\n").0.starts_with("HTTP/1.1 400"));
}

#[test]
fn it_counts_what_it_sends_and_closes_its_doors() {
    let hub = Hub::with(Repository::new("org/one").file("a b.json", "{}").large("w", noise(1, 1000)));
    let (head, body) = ask(&hub.endpoint(), "/org/one/resolve/main/a%20b.json", "");
    assert!(head.starts_with("HTTP/1.1 307") && !body.is_empty(), "{head}");
    assert_eq!(hub.traffic(), 0, "a redirect is no content");
    let target = head.lines().find_map(|line| line.strip_prefix("Location: ")).expect("a location");
    assert_eq!(ask(&hub.endpoint(), target, "X-Test: yes\r\n").1, b"{}");
    // What was sent is counted after it was sent: the client may be quicker.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while hub.traffic() < 2 && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!((hub.traffic(), hub.requests(&On::Payloads), hub.requests(&On::Everything)), (2, 1, 2));
    assert_eq!(hub.seen()[1].header("x-test"), Some("yes"));
    hub.forget();
    assert!(hub.seen().is_empty());

    hub.refuse_for(Duration::from_millis(150));
    let port = hub.endpoint().replace("http://", "");
    let refused = TcpStream::connect(&port).expect_err("refused");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    std::thread::sleep(Duration::from_millis(300));
    assert!(ask(&hub.endpoint(), "/", "").0.starts_with("HTTP/1.1 200"));

    hub.fault(On::Info, 1, Fault::MoveMain { path: "a b.json".to_owned(), content: b"[]".to_vec() });
    let sha = |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).expect("JSON")["sha"].clone();
    let (_, before) = ask(&hub.endpoint(), "/api/models/org/one", "");
    let (_, after) = ask(&hub.endpoint(), "/api/models/org/one/revision/main", "");
    let (_, old) = ask(&hub.endpoint(), "/api/models/org/one/revision/before", "");
    assert_ne!(sha(&before), sha(&after));
    assert_eq!(sha(&before), sha(&old));
}
