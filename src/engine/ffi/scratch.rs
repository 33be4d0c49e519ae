//! Working memory of a thread, kept from one operation to the next: fresh pages cost more than what is
//! computed on them.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

/// A cache line, one AVX-512 vector.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE_FLOATS]);

// SAFETY: floats without padding.
unsafe impl Zeroable for Line {}
// SAFETY: as above.
unsafe impl Pod for Line {}

/// Floats of a cache line.
pub const LINE_FLOATS: usize = 16;

/// Buffers larger than this many lines (64 MiB) are not kept.
const KEPT_LINES: usize = 1 << 20;

thread_local! {
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Aligned floats, given back to the thread when dropped. Their values are left over from earlier uses.
pub struct Scratch {
    lines: Vec<Line>,
    count: usize,
}

impl Scratch {
    pub fn new(count: usize) -> Self {
        let mut lines = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        let needed = count.div_ceil(LINE_FLOATS);
        if lines.len() < needed {
            lines.resize(needed, Line([0.0; LINE_FLOATS]));
        }
        Self { lines, count }
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.count]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.count]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if lines.len() <= KEPT_LINES {
            FREE.with_borrow_mut(|free| free.push(lines));
        }
    }
}
