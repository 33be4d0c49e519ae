//! Numbers as people read them.

use jiff::Timestamp;

use crate::ids::Bytes;

/// `1.2 GB`.
pub fn bytes(bytes: u64) -> String {
    Bytes(bytes).to_string()
}

/// `135M`, `7.2B`: a count of parameters.
pub fn count(count: u64) -> String {
    const UNITS: [&str; 4] = ["K", "M", "B", "T"];
    if count < 1000 {
        return count.to_string();
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if value < 9.95 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

/// `3 days ago`; a time to come is `just now`, since only clocks that disagree make one.
pub fn ago(time: Timestamp, now: Timestamp) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let seconds = now.as_second().saturating_sub(time.as_second());
    let (size, unit) = match seconds {
        ..MINUTE => return "just now".to_owned(),
        MINUTE..HOUR => (MINUTE, "minute"),
        HOUR..DAY => (HOUR, "hour"),
        DAY..2_592_000 => (DAY, "day"),
        2_592_000..31_536_000 => (30 * DAY, "month"),
        _ => (365 * DAY, "year"),
    };
    let number = seconds / size;
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_short() {
        for (number, text) in
            [(12, "12"), (134_515_008, "135M"), (7_241_732_096, "7.2B"), (999_999_999, "1.0B")]
        {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn ages_name_the_largest_whole_unit() {
        let now = Timestamp::from_second(1_800_000_000).expect("a valid time");
        for (seconds, text) in [
            (-5, "just now"),
            (59, "just now"),
            (60, "1 minute ago"),
            (7_300, "2 hours ago"),
            (3 * 86_400, "3 days ago"),
            (70 * 86_400, "2 months ago"),
            (800 * 86_400, "2 years ago"),
        ] {
            let time = Timestamp::from_second(now.as_second() - seconds).expect("a valid time");
            assert_eq!(ago(time, now), text);
        }
    }
}
