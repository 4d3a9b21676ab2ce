//! When to try again: schedules, jitter, and what a `Retry-After` says.
//!
//! Always true: what another party tells us to wait is followed up to a limit; a schedule has an end. Not here: what counts as a failure
//! (`domain::delivery`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Millis;

/// The most attempts a schedule can ask for.
pub const STEPS_MAX: usize = 100;
/// The longest single wait a schedule can ask for, in seconds: a week.
pub const STEP_MAX_SECONDS: u32 = 7 * 24 * 3600;
/// The longest a schedule can last, in seconds: as long as events are kept by default.
pub const TOTAL_MAX_SECONDS: u64 = 30 * 24 * 3600;
/// A number in a `Retry-After` that does not fit is taken for a year.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Seconds to wait before each attempt; the first is usually 0. As many attempts as entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule(Vec<u32>);

impl Default for Schedule {
    /// The table that Standard Webhooks advises, about 75 hours.
    fn default() -> Self {
        Self(vec![0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400])
    }
}

/// Why a list of seconds is no schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotASchedule {
    #[error("a retry schedule has 1 to {STEPS_MAX} waits")]
    Length,
    #[error("a wait of a retry schedule is at most {STEP_MAX_SECONDS} seconds (7 days)")]
    Step,
    #[error("a retry schedule lasts at most {TOTAL_MAX_SECONDS} seconds (30 days)")]
    Total,
}

impl Schedule {
    /// A schedule of these waits in seconds.
    pub fn new(seconds: Vec<u32>) -> Result<Self, NotASchedule> {
        if seconds.is_empty() || seconds.len() > STEPS_MAX {
            return Err(NotASchedule::Length);
        }
        if seconds.iter().any(|s| *s > STEP_MAX_SECONDS) {
            return Err(NotASchedule::Step);
        }
        if seconds.iter().map(|s| u64::from(*s)).sum::<u64>() > TOTAL_MAX_SECONDS {
            return Err(NotASchedule::Total);
        }
        Ok(Self(seconds))
    }

    /// The waits in seconds.
    pub fn seconds(&self) -> &[u32] {
        &self.0
    }

    /// The wait, before jitter, once `tries` attempts have failed. None: that was the last.
    pub fn wait(&self, tries: u32) -> Option<Duration> {
        let index = usize::try_from(tries).ok()?;
        self.0.get(index).map(|s| Duration::from_secs(u64::from(*s)))
    }
}

/// A schedule with the node's own settings about waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    pub schedule: Schedule,
    /// How far a wait may be moved, either way, so that lanes do not come back together.
    pub jitter_percent: u8,
    /// The longest `Retry-After` that is followed.
    pub retry_after_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { schedule: Schedule::default(), jitter_percent: 20, retry_after_max: Duration::from_secs(24 * 3600) }
    }
}

impl Pace {
    /// `wait`, moved by up to the jitter either way.
    pub fn jittered(&self, wait: Duration, rng: &mut fastrand::Rng) -> Duration {
        let jitter = self.jitter();
        wait.mul_f64(1.0 - jitter + 2.0 * jitter * rng.f64())
    }

    /// What another party told us to wait: never shorter, longer by up to the jitter, and never longer than the limit.
    pub fn told(&self, wait: Duration, rng: &mut fastrand::Rng) -> Duration {
        wait.min(self.retry_after_max).mul_f64(1.0 + self.jitter() * rng.f64()).min(self.retry_after_max)
    }

    fn jitter(&self) -> f64 {
        f64::from(self.jitter_percent.min(100)) / 100.0
    }
}

/// Reads a `Retry-After` (RFC 9110, section 10.2.3): seconds, or an HTTP date. A date in the past is no wait. None if it
/// is neither.
pub fn parse_retry_after(value: &str, now: Millis) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are still a number: the long wait.
        return Some(value.parse().map_or(YEAR, Duration::from_secs).min(YEAR));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    let date = u64::try_from(date.as_millisecond()).map_or(Millis(0), Millis);
    Some(date.since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_schedule_is_the_contracts_and_lasts_about_75_hours() {
        let schedule = Schedule::default();
        assert_eq!(schedule.seconds().len(), 10);
        assert_eq!(schedule.wait(0), Some(Duration::ZERO));
        assert_eq!(schedule.wait(2), Some(Duration::from_secs(300)));
        assert_eq!(schedule.wait(9), Some(Duration::from_secs(24 * 3600)));
        assert_eq!(schedule.wait(10), None);
        let hours = schedule.seconds().iter().map(|s| u64::from(*s)).sum::<u64>() / 3600;
        assert_eq!(hours, 75);
    }

    #[test]
    fn a_schedule_has_limits() {
        assert_eq!(Schedule::new(vec![]), Err(NotASchedule::Length));
        assert_eq!(Schedule::new(vec![0; STEPS_MAX + 1]), Err(NotASchedule::Length));
        assert_eq!(Schedule::new(vec![0, STEP_MAX_SECONDS + 1]), Err(NotASchedule::Step));
        assert_eq!(Schedule::new(vec![STEP_MAX_SECONDS; 5]), Err(NotASchedule::Total));
        assert!(Schedule::new(vec![1, 1, 1]).is_ok());
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        // 1994-11-06T08:49:00Z
        let now = Millis(784_111_740_000);
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(parse_retry_after("120", now), seconds(120));
        assert_eq!(parse_retry_after(" 0 ", now), seconds(0));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), seconds(37));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), seconds(0));
        assert_eq!(parse_retry_after("999999999", now), Some(YEAR));
        assert_eq!(parse_retry_after("99999999999999999999999999", now), Some(YEAR));
        for nonsense in ["", "soon", "-1", "1.5", "12 s"] {
            assert_eq!(parse_retry_after(nonsense, now), None, "{nonsense:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn jitter_stays_within_its_bounds(seconds in 0u64..100_000, seed: u64) {
            let (pace, mut rng) = (Pace::default(), fastrand::Rng::with_seed(seed));
            let (wait, max) = (Duration::from_secs(seconds), Duration::from_secs(24 * 3600));
            let near = pace.jittered(wait, &mut rng).as_secs_f64();
            proptest::prop_assert!(near >= seconds as f64 * 0.8 - 1e-6 && near <= seconds as f64 * 1.2 + 1e-6);
            let later = pace.told(wait, &mut rng);
            proptest::prop_assert!(later >= wait.min(max) && later <= max.min(wait.mul_f64(1.2) + Duration::from_nanos(2)));
        }
    }
}
