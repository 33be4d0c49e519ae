//! Which part of a file an answer is.

use reqwest::Response;
use reqwest::header;

use super::address;
use super::client::Trouble;
use crate::error::{Code, Error, Result};

/// Where the body of an answer begins in a file of `size` bytes; 200 is the whole file, whatever was
/// asked for.
pub(super) fn begins_at(response: &Response, size: u64) -> Result<u64, Trouble> {
    let server = address::shown(response.url());
    let (start, total) = match response.status().as_u16() {
        206 => {
            let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
            range.and_then(content_range).ok_or_else(|| {
                Trouble::Passing(
                    Error::new(Code::HubUnavailable, format!("{server} sends a part but does not say which"))
                        .hint("try again later"),
                    None,
                )
            })?
        }
        _ => (0, response.content_length()),
    };
    match total {
        Some(total) if total != size => {
            let message = format!("{server} sends a file of {total} bytes where its list says {size}");
            Err(Trouble::Mismatch(
                Error::new(Code::IntegrityFailed, message)
                    .detail("expected_bytes", size)
                    .detail("actual_bytes", total),
            ))
        }
        _ => Ok(start),
    }
}

/// First byte and whole length in `bytes 0-99/1000` (RFC 9110, section 14.4); a length may be unknown.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    (first <= last && total.is_none_or(|total| last < total)).then_some((first, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_says_where_it_begins_and_how_long_the_whole_is() {
        for (text, range) in [
            ("bytes 0-99/1000", Some((0, Some(1000)))),
            ("bytes 5-5/6", Some((5, Some(6)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes 5-4/9", None),
            ("bytes 5-9/9", None),
            ("bytes */9", None),
            ("bytes 1-2", None),
            ("items 1-2/3", None),
            ("bytes -1-2/3", None),
            ("bytes 99999999999999999999-2/3", None),
        ] {
            assert_eq!(content_range(text), range, "{text}");
        }
    }
}
