//! When to try again, and when to give up.

use std::time::{Duration, SystemTime};

use reqwest::header::{self, HeaderMap};

use super::client::Trouble;
use crate::error::{Code, Error, Result};

/// Who asks for a longer pause than this is not waited for.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// So many bytes are progress: fewer may come each time from a server that will never be done.
const PROGRESS: u64 = 4096;
/// The first pause is this part of the timeout; the longest is the timeout.
const FIRST_PAUSE: u32 = 60;

/// How much failure is put up with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    retries: u32,
    timeout: Duration,
}

impl Patience {
    pub(super) fn new(retries: u32, timeout: Duration) -> Self {
        Self { retries, timeout }
    }

    /// For the first request of all.
    pub(super) fn short(self) -> Self {
        Self { retries: self.retries.min(2), ..self }
    }

    /// The pause before try number `failed`: twice as long each time, and varied so that many who
    /// failed together do not come back together. `chance` is from 0 to 1.
    fn pause(self, failed: u32, chance: f64) -> Duration {
        let doubled = 2_u32.saturating_pow(failed.saturating_sub(1).min(16));
        let pause = (self.timeout / FIRST_PAUSE).saturating_mul(doubled).min(self.timeout);
        pause.mul_f64(0.75 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

/// What happened so far.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// In a row, without progress in between.
    failed: u32,
    received: u64,
}

impl Tries {
    /// Something arrived: enough of it makes up for what failed before.
    pub(super) fn progress(&mut self, bytes: u64) {
        self.received += bytes;
        if self.received >= PROGRESS {
            (self.failed, self.received) = (0, 0);
        }
    }

    /// How long to wait before the next try, or the error to give up with.
    pub(super) fn pause_after(
        &mut self,
        trouble: Trouble,
        patience: Patience,
    ) -> Result<(Duration, Error), Trouble> {
        let Trouble::Passing(error, asked) = trouble else { return Err(trouble) };
        self.failed += 1;
        if self.failed > patience.retries {
            let tried = self.failed;
            return Err(Trouble::Final(error.detail("tries", tried)));
        }
        match asked {
            Some(asked) if asked > LONGEST_PAUSE => {
                let seconds = asked.as_secs();
                Err(Trouble::Final(
                    error.detail("retry_after_seconds", seconds).hint(format!("try again in {seconds} s")),
                ))
            }
            Some(asked) => Ok((asked + patience.pause(1, fastrand::f64()), error)),
            None => Ok((patience.pause(self.failed, fastrand::f64()), error)),
        }
    }
}

/// What `Retry-After` asks for: seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// The error for a server that is out of order.
pub(super) fn unavailable(server: &str, status: u16) -> Error {
    Error::new(Code::HubUnavailable, format!("{server} answers with status {status}"))
        .detail("status", status)
        .hint("try again later: what has arrived is kept")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing() -> Trouble {
        Trouble::Passing(Error::new(Code::NetworkError, "broke"), None)
    }

    #[test]
    fn pauses_double_up_to_the_timeout_and_vary() {
        let patience = Patience::new(5, Duration::from_secs(30));
        for (failed, middle) in [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (60, 30.0)] {
            let pause = patience.pause(failed, 0.5).as_secs_f64();
            assert!((pause - middle).abs() < 1e-9, "{failed}: {pause}");
            assert!((patience.pause(failed, 0.0).as_secs_f64() - middle * 0.75).abs() < 1e-9);
            assert!((patience.pause(failed, 1.0).as_secs_f64() - middle * 1.25).abs() < 1e-9);
        }
    }

    #[test]
    fn patience_ends_and_progress_renews_it() {
        let (mut tries, patience) = (Tries::default(), Patience::new(2, Duration::from_secs(1)));
        tries.pause_after(failing(), patience).expect("first");
        tries.pause_after(failing(), patience).expect("second");
        tries.progress(PROGRESS);
        tries.pause_after(failing(), patience).expect("first again");
        tries.progress(1);
        tries.pause_after(failing(), patience).expect("second again");
        assert!(matches!(tries.pause_after(failing(), patience), Err(Trouble::Final(_))));
    }

    #[test]
    fn a_server_that_says_when_is_waited_for_within_reason() {
        let (mut tries, patience) = (Tries::default(), Patience::new(5, Duration::from_secs(6)));
        let limited = |seconds| {
            Trouble::Passing(Error::new(Code::QuotaExceeded, "slow"), Some(Duration::from_secs(seconds)))
        };
        let (pause, _) = tries.pause_after(limited(7), patience).expect("a pause");
        assert!((7.0..7.2).contains(&pause.as_secs_f64()), "{pause:?}");
        assert!(matches!(tries.pause_after(limited(3600), patience), Err(Trouble::Final(_))));
    }

    #[test]
    fn when_to_come_back_is_a_number_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for (text, seconds) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sun, 09 Sep 2001 01:46:50 GMT", Some(10)),
            ("Sun, 09 Sep 2001 01:46:30 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().expect("a header"));
            assert_eq!(retry_after(&headers, now).map(|pause| pause.as_secs()), seconds, "{text}");
        }
    }
}
