//! How the work of attention is shared out: by key head and by tokens where there are many, by key head
//! and parts of the context where there are few.

use std::ops::Range;

use super::Attention;
use super::heads::{Heads, Sums};
use super::rotary::Table;
use super::side::Side;
use crate::engine::ffi::SharedSlice;
use crate::engine::kernels::isa::{Isa, Task};
use crate::engine::kernels::lanes::{LANES, Lanes};
use crate::engine::kernels::pool;
use crate::engine::kernels::scratch::Scratch;

/// Tokens whose keys and values a worker appends at once.
const APPENDED: usize = 16;
/// Queries (tokens times heads of a group) of a chunk, when there are many tokens.
const QUERIES: usize = 96;
const MAX_TOKENS: usize = 48;
/// The context is split when there are fewer chunks a thread than this ...
const CHUNKS: usize = 6;
/// ... into parts of at least this many positions.
const MIN_PART: usize = 64;

pub(super) struct Job<'a> {
    pub(super) isa: Isa,
    pub(super) layer: Attention,
    pub(super) tokens: usize,
    pub(super) capacity: usize,
    pub(super) qkv: &'a [f32],
    pub(super) table: &'a Table,
    pub(super) query_weights: Option<&'a [f32]>,
    /// A score for each query head.
    pub(super) sinks: Option<&'a [f32]>,
    pub(super) out: SharedSlice<'a, f32>,
    pub(super) keys: Side<'a>,
    /// Where they are not in the keys.
    pub(super) values: Option<Side<'a>>,
}

impl Job<'_> {
    /// Floats of a token in `qkv`.
    pub(super) fn width(&self) -> usize {
        self.qkv.len() / self.tokens
    }

    /// Query heads that share a key head.
    pub(super) fn group(&self) -> usize {
        self.layer.heads / self.layer.kv_heads
    }

    /// The entries that a token sees, beside the first that are kept.
    pub(super) fn visible(&self, token: usize) -> Range<usize> {
        let end = self.layer.held + token + 1;
        self.layer.window.map_or(0, |window| end.saturating_sub(window))..end
    }

    /// All entries that some of these tokens see, and maybe others between.
    fn span(&self, tokens: &Range<usize>) -> Range<usize> {
        let first = if self.layer.keep > 0 { 0 } else { self.visible(tokens.start).start };
        first..self.visible(tokens.end - 1).end
    }

    /// Tokens whose queries are answered together, and how many runs of them there are.
    fn runs(&self) -> (usize, usize) {
        let together = (QUERIES / self.group()).clamp(1, MAX_TOKENS);
        (together, self.tokens.div_ceil(together))
    }

    /// Attention of one key head over one run of tokens.
    fn attend(&self, chunk: usize) {
        let (together, runs) = self.runs();
        // The last tokens see most: they go first, so that the short work comes at the end.
        let first = (runs - 1 - chunk / self.layer.kv_heads) * together;
        let tokens = first..self.tokens.min(first + together);
        let head = chunk % self.layer.kv_heads;
        let positions = self.span(&tokens);
        let heads = Heads { job: self, head, tokens, positions };
        let mut sums = Scratch::new(heads.sums_length());
        let sums = Sums::new(&heads, &mut sums);
        // SAFETY: the level was detected; these heads of these tokens are this worker's.
        unsafe {
            self.isa.run(heads.over(sums));
            self.isa.run(heads.ending(&[sums]));
        }
    }

    fn attend_in_parts(&self, parts: usize) {
        let all = self.span(&(0..self.tokens));
        let together = all.len().div_ceil(parts).next_multiple_of(LANES);
        let parts = all.len().div_ceil(together);
        let heads = |head: usize, part: usize| {
            let first = all.start + part * together;
            let positions = first..all.end.min(first + together);
            Heads { job: self, head, tokens: 0..self.tokens, positions }
        };
        let length = heads(0, 0).sums_length();
        let mut memory = Scratch::new(length * self.layer.kv_heads * parts);
        let shared = SharedSlice::new(&mut memory);
        // SAFETY: each chunk has memory of its own.
        let sums = |chunk: usize| unsafe { shared.slice(chunk * length, length) };
        pool::run(self.layer.kv_heads * parts, &|chunk| {
            let heads = heads(chunk / parts, chunk % parts);
            // SAFETY: the level was detected.
            unsafe { self.isa.run(heads.over(Sums::new(&heads, sums(chunk)))) };
        });
        for head in 0..self.layer.kv_heads {
            let heads = heads(head, 0);
            let sums: Vec<Sums> =
                (0..parts).map(|part| Sums::new(&heads, sums(head * parts + part))).collect();
            // SAFETY: the level was detected, and nobody else writes now.
            unsafe { self.isa.run(heads.ending(&sums)) };
        }
    }
}

/// Puts the keys, rotated, and the values of the new tokens into the caches.
pub(super) fn append(jobs: &[Job<'_>]) {
    let chunks = |job: &Job<'_>| job.tokens.div_ceil(APPENDED);
    share_out(jobs, chunks, |job, chunk| {
        let tokens = chunk * APPENDED..job.tokens.min((chunk + 1) * APPENDED);
        // SAFETY: each token is one worker's; the level was detected.
        unsafe { job.isa.run(Append { job, tokens }) };
    });
}

/// Attention of all new tokens; their keys and values are in the caches.
pub(super) fn attend(jobs: &[Job<'_>]) {
    let chunks = |job: &Job<'_>| job.runs().1 * job.layer.kv_heads;
    if let [job] = jobs {
        let wanted = pool::threads() * CHUNKS;
        let seen = job.span(&(0..job.tokens)).len();
        let parts = (seen / MIN_PART).min(wanted.div_ceil(chunks(job))).max(1);
        if parts > 1 && job.runs().1 == 1 {
            return job.attend_in_parts(parts);
        }
    }
    share_out(jobs, chunks, Job::attend);
}

/// Does the chunks of all jobs, each of which has so many.
fn share_out<'a>(
    jobs: &[Job<'a>],
    chunks: impl Fn(&Job<'a>) -> usize,
    work: impl Fn(&Job<'a>, usize) + Sync,
) {
    let mut ends = Vec::with_capacity(jobs.len());
    for job in jobs {
        ends.push(ends.last().copied().unwrap_or(0) + chunks(job));
    }
    pool::run(ends.last().copied().unwrap_or(0), &|chunk| {
        let index = ends.partition_point(|&end| end <= chunk);
        let before = index.checked_sub(1).map_or(0, |last| ends[last]);
        work(&jobs[index], chunk - before);
    });
}

struct Append<'a> {
    job: &'a Job<'a>,
    tokens: Range<usize>,
}

impl Task for Append<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let job = self.job;
        let Attention { heads, kv_heads, head_dim, value_dim, held, traditional, .. } = job.layer;
        let mut scratch = Scratch::new(head_dim.max(value_dim));
        for token in self.tokens {
            let row = &job.qkv[token * job.width()..][..job.width()];
            let (keys, values) = row[heads * head_dim..].split_at(kv_heads * head_dim);
            for head in 0..kv_heads {
                let entry = head * job.capacity + held + token;
                let key = &keys[head * head_dim..][..head_dim];
                // SAFETY: new entries are only written, each by one worker.
                unsafe {
                    let rotate = |to: &mut [f32]| job.table.rotate(traditional, token, 1.0, key, to);
                    job.keys.set::<V>(entry, &mut scratch, rotate);
                }
                if let Some(side) = &job.values {
                    let value = &values[head * value_dim..][..value_dim];
                    // SAFETY: as above.
                    unsafe { side.set::<V>(entry, &mut scratch, |to| to.copy_from_slice(value)) };
                }
            }
        }
    }
}
