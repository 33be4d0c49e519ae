//! Progress bars on a terminal's stderr.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// What a bar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    /// Files, checks, tokens: whatever the label says.
    Items,
}

/// One bar; dropping it clears its line.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(bars: &MultiProgress, label: &str, total: Option<u64>, unit: Unit) -> Self {
        if bars.is_hidden() {
            return Self(ProgressBar::hidden());
        }
        let bar = bars.add(total.map_or_else(ProgressBar::no_length, ProgressBar::new));
        let counts = match (unit, total) {
            (Unit::Bytes, Some(_)) => {
                "{wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}"
            }
            (Unit::Bytes, None) => "{spinner} {decimal_bytes} {decimal_bytes_per_sec}",
            (Unit::Items, Some(_)) => "{wide_bar} {human_pos}/{human_len} {eta}",
            (Unit::Items, None) => "{spinner}",
        };
        if let Ok(style) = ProgressStyle::with_template(&format!("{{msg}} {counts}")) {
            bar.set_style(style);
        }
        bar.set_message(super::page::printable(label));
        if total.is_none() {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self(bar)
    }

    /// Moves on by this many units.
    pub fn advance(&self, units: u64) {
        self.0.inc(units);
    }

    /// Moves to this many units.
    pub fn set(&self, units: u64) {
        self.0.set_position(units);
    }

    /// Begins at this many units: what was done before it says nothing about the speed.
    pub fn begin(&self, units: u64) {
        self.0.set_position(units);
        self.0.tick();
        self.0.reset_eta();
    }

    /// Says what is being worked on now.
    pub fn label(&self, label: &str) {
        self.0.set_message(super::page::printable(label));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
