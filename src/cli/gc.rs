//! `mlx-cache gc`

use std::time::Duration;

use clap::Args;

/// Remove what no model needs: content, unfinished files, folders
///
/// What would go is shown first. Downloads that a pull can resume stay until they are old.
///
///     mlx-cache gc --dry-run
///     mlx-cache gc --yes
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct GcArgs {
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,

    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,

    /// Downloads that were not touched for this long go too: 7d, 12h, 30m, 0s
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_duration)]
    pub older_than: Duration,
}

/// A whole number and its unit.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number and d, h, m or s, such as 7d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "d" => 24 * 60 * 60,
        "h" => 60 * 60,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, seconds) in [("7d", 604_800), ("12h", 43_200), ("30m", 1800), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "7", "d", "-1d", "1.5h", "99999999999999999d", "7ä", "7 d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
