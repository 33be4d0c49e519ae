//! One connection that brings consecutive bytes of a file, for as long as it takes.

use std::cell::Cell;
use std::ops::Range;

use reqwest::Url;

use super::answer::begins_at;
use super::client::{Client, Trouble};
use super::download::{Remote, Watch};
use super::patience::Tries;
use super::refusal::Asked;
use crate::error::{Code, Error, Result};

/// What a connection is to bring. The end comes nearer when another takes over a part of it.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) at: Cell<u64>,
    pub(super) end: Cell<u64>,
    /// Whether the server sent something before what was asked for, as those do that ignore ranges.
    pub(super) ignored: Cell<bool>,
}

impl Segment {
    pub(super) fn new(range: Range<u64>) -> Self {
        Self { at: Cell::new(range.start), end: Cell::new(range.end), ignored: Cell::new(false) }
    }

    pub(super) fn left(&self) -> u64 {
        self.end.get().saturating_sub(self.at.get())
    }
}

/// Takes what arrives, in order.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

impl Client {
    /// Brings all of a segment, trying again as long as patience lasts. It is renewed by progress.
    pub(super) async fn bring(
        &self,
        remote: &Remote<'_>,
        url: &Url,
        segment: &Segment,
        sink: Sink<'_>,
        watch: &dyn Watch,
    ) -> Result<(), Trouble> {
        let mut tries = Tries::default();
        while segment.left() > 0 {
            let before = segment.at.get();
            let result = self.attempt(remote, url, segment, &mut *sink, watch).await;
            tries.progress(segment.at.get() - before);
            if let Err(trouble) = result {
                let (pause, error) = tries.pause_after(trouble, self.patience())?;
                watch.retrying(&error, pause);
                tokio::time::sleep(pause).await;
            }
        }
        Ok(())
    }

    /// One request for what is left of a segment.
    async fn attempt(
        &self,
        remote: &Remote<'_>,
        url: &Url,
        segment: &Segment,
        sink: Sink<'_>,
        watch: &dyn Watch,
    ) -> Result<(), Trouble> {
        let (size, range) = (remote.file.bytes, segment.at.get()..segment.end.get());
        let whole = range == (0..size);
        let mut response = self.get(url.clone(), (!whole).then_some(&range)).await?;
        if !matches!(response.status().as_u16(), 200 | 206) {
            return Err(self.refusal(&response, remote.model, Asked::File(&remote.file.path)));
        }
        // A server that ignores ranges begins before what was asked for.
        let mut place = begins_at(&response, size)?;
        if place > segment.at.get() {
            return Err(early_end(remote, "another part than was asked for"));
        }
        segment.ignored.set(place < segment.at.get());
        while segment.left() > 0 {
            let Some(piece) = self.next(&mut response).await? else {
                return Err(early_end(remote, "less than was asked for"));
            };
            let piece = piece.as_ref();
            watch.received(piece.len() as u64);
            let known = (segment.at.get() - place).min(piece.len() as u64) as usize;
            let wanted = piece.get(known..).unwrap_or_default();
            let wanted = wanted.get(..segment.left() as usize).unwrap_or(wanted);
            sink(wanted)?;
            segment.at.set(segment.at.get() + wanted.len() as u64);
            place += piece.len() as u64;
        }
        Ok(())
    }
}

fn early_end(remote: &Remote<'_>, what: &str) -> Trouble {
    Trouble::Passing(
        Error::new(Code::NetworkError, format!("the server sent {what} of {}", remote.file.path))
            .hint("try again: what has arrived is kept"),
        None,
    )
}
