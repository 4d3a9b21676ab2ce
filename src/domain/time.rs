//! Points in time: milliseconds since the Unix epoch inside, RFC 3339 UTC outside.
//!
//! Not here: what time it is (a `Clock` comes in through constructors, see `crate::clock`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// This point in time, `by` later.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
    /// This point in time, `by` earlier; not before the epoch.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
    /// Whole seconds since the epoch.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }
    /// `2024-04-19T16:57:18.020Z`.
    pub fn rfc3339_millis(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%S%.3fZ")
    }
    /// `2023-12-22T10:23:34Z`.
    pub fn rfc3339_seconds(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%SZ")
    }
    fn format(self, pattern: &str) -> String {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        let stamp = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        stamp.strftime(pattern).to_string()
    }
    /// Reads RFC 3339 with any offset, down to milliseconds. None if it is not, or before the epoch.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let stamp: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(stamp.as_millisecond()).ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_as_they_were_written() {
        let time = Millis(1_713_545_838_020);
        assert_eq!(time.rfc3339_millis(), "2024-04-19T16:57:18.020Z");
        assert_eq!(time.rfc3339_seconds(), "2024-04-19T16:57:18Z");
        assert_eq!(Millis::parse_rfc3339("2024-04-19T18:57:18.020+02:00"), Some(time));
        assert_eq!(Millis::parse_rfc3339("yesterday"), None);
    }
}
