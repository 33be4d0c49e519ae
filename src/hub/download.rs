//! Bringing one file: in one go or in parallel ranges, hashed on the way.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use reqwest::Url;

use super::client::{Client, Trouble};
use super::listing::RemoteFile;
use super::stream::Segment;
use super::{Check, Hub, address};
use crate::error::{Code, Error, Result};
use crate::fs::{ContentHasher, ContentHashes, PIECE, Part, Settled};
use crate::ids::{ModelName, Revision};

/// How often it is looked at whether more connections would help.
const TICK: Duration = Duration::from_millis(300);
/// A connection that brings more in a second is not what slows us down.
const FAST: u64 = 150 << 20;
/// Less than this is not worth a connection of its own.
const WORTH_SPLITTING: u64 = 16 << 20;

/// A file at the hub.
#[derive(Debug, Clone, Copy)]
pub struct Remote<'a> {
    pub model: &'a ModelName,
    pub commit: &'a Revision,
    pub file: &'a RemoteFile,
}

/// Who wants to know how it goes; called from the thread that waits.
pub trait Watch: Sync {
    /// So many bytes of a file have come over the network.
    fn received(&self, bytes: u64);
    /// Something failed and is tried again after a pause.
    fn retrying(&self, why: &Error, pause: Duration);
}

impl Hub {
    /// Brings a small file into memory.
    pub fn bring_small(
        &self,
        remote: &Remote<'_>,
        watch: &dyn Watch,
        check: Check<'_>,
    ) -> Result<(Vec<u8>, ContentHashes)> {
        twice(remote, watch, |_| {
            let url = address::file(self.client.hub(), remote.model, remote.commit, &remote.file.path);
            let mut content = Vec::with_capacity(remote.file.bytes as usize);
            let segment = Segment::new(0..remote.file.bytes);
            let mut sink = |piece: &[u8]| {
                content.extend_from_slice(piece);
                Ok(())
            };
            self.finished(check, self.client.bring(remote, &url, &segment, &mut sink, watch))?;
            let mut hasher = ContentHasher::new(&remote.file.checksum, remote.file.bytes);
            hasher.update(&content);
            Ok((content, hasher.finish()))
        })
    }

    /// Brings what is missing of a large file, and hashes all of it meanwhile.
    ///
    /// The part is complete afterwards. After an error it keeps what arrived, except after
    /// INTEGRITY_FAILED.
    pub fn bring_large(
        &self,
        remote: &Remote<'_>,
        part: &Part,
        watch: &dyn Watch,
        check: Check<'_>,
    ) -> Result<ContentHashes> {
        let brought = twice(remote, watch, |again| {
            if again {
                part.reset()?;
            }
            self.bring_hashed(remote, part, watch, check).map(|hashes| ((), hashes))
        });
        if brought.as_ref().is_err_and(|error| error.code() == Code::IntegrityFailed) {
            part.reset()?;
        }
        brought.map(|((), hashes)| hashes)
    }

    fn bring_hashed(
        &self,
        remote: &Remote<'_>,
        part: &Part,
        watch: &dyn Watch,
        check: Check<'_>,
    ) -> Result<ContentHashes, Trouble> {
        thread::scope(|scope| {
            let hasher = scope.spawn(|| part.hash(&remote.file.checksum, &|_| check()));
            let fetched = self.bring_missing(remote, part, watch, check);
            part.close();
            let hashed = hasher.join().map_err(|_| Error::internal("hashing a file failed"))?;
            fetched?;
            hashed?.ok_or_else(|| Error::internal("a file was fetched but not hashed").into())
        })
    }

    /// Fetches until nothing is missing and nobody hashes any more.
    fn bring_missing(
        &self,
        remote: &Remote<'_>,
        part: &Part,
        watch: &dyn Watch,
        check: Check<'_>,
    ) -> Result<(), Trouble> {
        loop {
            let missing = part.missing();
            if !missing.is_empty() {
                let rest = if self.xet.is_for(remote.file) {
                    self.finished(check, self.xet.bring(remote, part, missing, watch))?
                } else {
                    missing
                };
                self.finished(check, self.client.bring_ranges(remote, part, rest, watch))?;
            }
            if part.settle() == Settled::Done {
                return Ok(());
            }
        }
    }

    /// Waits for work whose trouble is told apart.
    fn finished<T>(
        &self,
        check: Check<'_>,
        work: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        self.wait(check, async { Ok(work.await) })?
    }
}

impl Client {
    /// Fetches these parts of a file. It begins with one connection, and takes more as long as each is
    /// slow: then it is the network, or the server, that holds each of them back.
    async fn bring_ranges(
        &self,
        remote: &Remote<'_>,
        part: &Part,
        missing: Vec<Range<u64>>,
        watch: &dyn Watch,
    ) -> Result<(), Trouble> {
        let url = address::file(self.hub(), remote.model, remote.commit, &remote.file.path);
        let received = Cell::new(0);
        let work = Work { client: self, remote, url: &url, part, watch, received: &received };
        let mut waiting: Vec<Range<u64>> = missing.into_iter().rev().collect();
        let segments: RefCell<Vec<std::rc::Rc<Segment>>> = RefCell::default();
        let mut running = FuturesUnordered::new();
        let mut wanted = 1;
        let begin = |range| {
            let segment = std::rc::Rc::new(Segment::new(range));
            segments.borrow_mut().push(std::rc::Rc::clone(&segment));
            work.bring(segment)
        };
        loop {
            while running.len() < wanted && (running.is_empty() || self.has_room()) {
                let next = waiting.pop().or_else(|| split(&segments.borrow()));
                let Some(range) = next else { break };
                running.push(begin(range));
            }
            if running.is_empty() {
                return Ok(());
            }
            let before = received.get();
            match select(running.next(), std::pin::pin!(tokio::time::sleep(TICK))).await {
                Either::Left((Some(result), _)) => {
                    result?;
                    segments.borrow_mut().retain(|segment| segment.left() > 0);
                }
                Either::Left((None, _)) => return Ok(()),
                Either::Right(_) => {
                    let each = (received.get() - before) / running.len().max(1) as u64;
                    // Where ranges are ignored each connection would bring everything.
                    let ignored = segments.borrow().iter().any(|segment| segment.ignored.get());
                    if !ignored && each * 1000 / TICK.as_millis() as u64 <= FAST {
                        wanted = (running.len() * 2).min(self.connections);
                    }
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.active.load(Ordering::Relaxed) < self.connections
    }
}

/// What all connections of one file share.
#[derive(Clone, Copy)]
struct Work<'a> {
    client: &'a Client,
    remote: &'a Remote<'a>,
    url: &'a Url,
    part: &'a Part,
    watch: &'a dyn Watch,
    received: &'a Cell<u64>,
}

impl Work<'_> {
    async fn bring(self, segment: std::rc::Rc<Segment>) -> Result<(), Trouble> {
        let _counted = Counted::new(self.client);
        let mut writer = self.part.writer(segment.at.get());
        let mut sink = |piece: &[u8]| {
            self.received.set(self.received.get() + piece.len() as u64);
            writer.write(piece)
        };
        self.client.bring(self.remote, self.url, &segment, &mut sink, self.watch).await
    }
}

/// A connection that counts as active as long as this lives.
struct Counted<'a>(&'a Client);

impl<'a> Counted<'a> {
    fn new(client: &'a Client) -> Self {
        client.active.fetch_add(1, Ordering::Relaxed);
        Self(client)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes the second half of what the segment with the most left has to bring.
fn split(segments: &[std::rc::Rc<Segment>]) -> Option<Range<u64>> {
    let longest = segments.iter().max_by_key(|segment| segment.left())?;
    if longest.left() < 2 * WORTH_SPLITTING {
        return None;
    }
    // Connections begin where a piece begins.
    let middle = (longest.at.get() + longest.left() / 2).next_multiple_of(PIECE);
    let end = longest.end.replace(middle);
    Some(middle..end)
}

/// Does something that ends with content, and once more if the content is wrong.
fn twice<T>(
    remote: &Remote<'_>,
    watch: &dyn Watch,
    mut bring: impl FnMut(bool) -> Result<(T, ContentHashes), Trouble>,
) -> Result<(T, ContentHashes)> {
    let mut wrong = None;
    for again in [false, true] {
        let error = match bring(again) {
            Ok((value, hashes)) if hashes.are(&remote.file.checksum) => return Ok((value, hashes)),
            Ok((_, hashes)) => damaged(remote, &hashes),
            Err(Trouble::Mismatch(error)) => named(error, remote),
            Err(Trouble::Final(error) | Trouble::Passing(error, _)) => return Err(named(error, remote)),
        };
        if !again {
            watch.retrying(&error, Duration::ZERO);
        }
        wrong = Some(error);
    }
    Err(wrong
        .unwrap_or_else(|| Error::internal("nothing was fetched"))
        .hint("the hub, or something between, sends other content than it lists: try again later"))
}

/// The error with the name of the file that it befell.
fn named(error: Error, remote: &Remote<'_>) -> Error {
    let path = &remote.file.path;
    let told = error.code() == Code::Interrupted || error.message().contains(path.as_str());
    if told { error } else { error.context(path).detail("path", path.to_string()) }
}

fn damaged(remote: &Remote<'_>, hashes: &ContentHashes) -> Error {
    let actual = match hashes.git {
        Some(git) => crate::ids::Checksum::GitSha1(git).to_string(),
        None => hashes.digest.to_string(),
    };
    Error::new(Code::IntegrityFailed, format!("{} arrived damaged: its checksum is wrong", remote.file.path))
        .detail("path", remote.file.path.to_string())
        .detail("expected", remote.file.checksum.to_string())
        .detail("actual", actual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_segment_gives_its_second_half_away_at_a_piece() {
        let segments: Vec<_> = [0..3 * WORTH_SPLITTING, (9 << 30)..(9 << 30) + 9 * WORTH_SPLITTING + 5]
            .map(|range| std::rc::Rc::new(Segment::new(range)))
            .into();
        let taken = split(&segments).expect("long enough");
        assert_eq!(taken.end, (9 << 30) + 9 * WORTH_SPLITTING + 5);
        assert_eq!(taken.start % PIECE, 0);
        assert_eq!(segments[1].end.get(), taken.start);
        assert!(segments[1].left().abs_diff(taken.end - taken.start) <= 2 * PIECE);
        assert_eq!(segments[0].left(), 3 * WORTH_SPLITTING);
        assert!(split(&[std::rc::Rc::new(Segment::new(0..WORTH_SPLITTING))]).is_none());
    }
}
