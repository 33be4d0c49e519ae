//! Amounts of data.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number of bytes. In JSON the integer; displayed in decimal units, `1.2 GB`, with one digit after
/// the point below 100.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
        if self.0 < 1000 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut value = self.0 as f64 / 1000.0;
        let mut unit = UNITS[0];
        for next in &UNITS[1..] {
            // 999.5 kB would be rounded to 1000 kB.
            if value < 999.5 {
                break;
            }
            value /= 1000.0;
            unit = next;
        }
        let digits = usize::from(value < 99.95);
        f.pad(&format!("{value:.digits$} {unit}"))
    }
}

impl Add for Bytes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self(0), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        let shown = |bytes| Bytes(bytes).to_string();
        assert_eq!(shown(0), "0 B");
        assert_eq!(shown(999), "999 B");
        assert_eq!(shown(1000), "1.0 kB");
        assert_eq!(shown(99_940), "99.9 kB");
        assert_eq!(shown(999_499), "999 kB");
        assert_eq!(shown(999_500), "1.0 MB");
        assert_eq!(shown(1_234_567_890), "1.2 GB");
        assert_eq!(shown(145_000_000), "145 MB");
        assert_eq!(shown(u64::MAX), "18.4 EB");
        assert_eq!(format!("{:>10}", Bytes(5)), "       5 B");
    }
}
