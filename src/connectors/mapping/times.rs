//! Times as apps write them.
//!
//! Always true: a time without a zone is UTC, since the formats that allow it say so (Adobe Commerce stores and answers
//! `YYYY-MM-DD HH:MM:SS` in UTC, magento/magento2#24985). Not here: the zone of an account (`zones`).

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;

use crate::domain::time::Millis;

/// How an app writes its times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TimeFormat {
    /// `2026-01-31T12:00:00.000Z`; offsets with or without a colon are read, `Z` with milliseconds is written.
    #[default]
    Rfc3339,
    /// As `Rfc3339`, written without milliseconds.
    Rfc3339Seconds,
    /// Seconds since 1970, as number or text.
    UnixSeconds,
    /// Milliseconds since 1970, as number or text.
    UnixMillis,
    /// `2026-01-31 12:00:00`, UTC.
    SqlUtc,
    /// `2026-01-31`, its start in UTC.
    Date,
    /// A pattern with `%`, as strftime has them; without an offset in it: UTC.
    Pattern(String),
}

/// What a text says by itself.
pub(super) enum Wall {
    /// It names its offset.
    Exact(Timestamp),
    /// It is local to a place that it does not name.
    Local(DateTime),
}

impl TimeFormat {
    /// Whether its texts name no zone, nor does it.
    pub(super) fn takes_zone(&self) -> bool {
        matches!(self, Self::Date | Self::Pattern(_))
    }
    /// Reads a text of a format that takes a zone.
    pub(super) fn read_wall(&self, text: &str) -> Option<Wall> {
        match self {
            Self::Date => text.parse::<Date>().ok().map(|date| Wall::Local(date.at(0, 0, 0, 0))),
            Self::Pattern(pattern) => match Timestamp::strptime(pattern, text) {
                Ok(stamp) => Some(Wall::Exact(stamp)),
                Err(_) => DateTime::strptime(pattern, text).ok().map(Wall::Local),
            },
            _ => None,
        }
    }
    /// Writes a local time; of use for formats that take a zone.
    pub(super) fn write_wall(&self, wall: DateTime) -> String {
        let pattern = if let Self::Pattern(pattern) = self { pattern } else { "%Y-%m-%d" };
        wall.strftime(pattern).to_string()
    }
    /// Reads the format's name, or a pattern.
    pub fn parse(name: &str) -> Result<Self, String> {
        Ok(match name {
            "rfc3339" => Self::Rfc3339,
            "rfc3339-seconds" => Self::Rfc3339Seconds,
            "unix-seconds" => Self::UnixSeconds,
            "unix-millis" => Self::UnixMillis,
            "sql-utc" => Self::SqlUtc,
            "date" => Self::Date,
            pattern if pattern.contains('%') => Self::Pattern(pattern.to_owned()),
            other => {
                return Err(format!(
                    "{other:?} is not a time format; use rfc3339, rfc3339-seconds, unix-seconds, unix-millis, sql-utc, \
                     date, or a pattern such as %d.%m.%Y %H:%M"
                ));
            }
        })
    }
    /// Reads a time. None if it is not one, or before 1970.
    pub fn read(&self, text: &str) -> Option<Millis> {
        let text = text.trim();
        let stamp = match self {
            Self::Rfc3339 | Self::Rfc3339Seconds => rfc3339(text)?,
            Self::UnixSeconds => return unix(text, 1_000),
            Self::UnixMillis => return unix(text, 1),
            Self::SqlUtc => at_utc(text.parse::<DateTime>().ok()?)?,
            Self::Date => at_utc(text.parse::<Date>().ok()?.at(0, 0, 0, 0))?,
            Self::Pattern(pattern) => match Timestamp::strptime(pattern, text) {
                Ok(stamp) => stamp,
                Err(_) => at_utc(DateTime::strptime(pattern, text).ok()?)?,
            },
        };
        millis(stamp)
    }
    /// Writes a time as the app wants to be asked.
    pub fn write(&self, time: Millis) -> String {
        let stamp = || stamp(time);
        match self {
            Self::Rfc3339 => time.rfc3339_millis(),
            Self::Rfc3339Seconds => time.rfc3339_seconds(),
            Self::UnixSeconds => time.seconds().to_string(),
            Self::UnixMillis => time.0.to_string(),
            Self::SqlUtc => stamp().strftime("%Y-%m-%d %H:%M:%S").to_string(),
            Self::Date => stamp().strftime("%Y-%m-%d").to_string(),
            Self::Pattern(pattern) => stamp().strftime(pattern).to_string(),
        }
    }
}

impl<'de> serde::Deserialize<'de> for TimeFormat {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// None before 1970.
pub(super) fn millis(stamp: Timestamp) -> Option<Millis> {
    u64::try_from(stamp.as_millisecond()).ok().map(Millis)
}

pub(super) fn stamp(time: Millis) -> Timestamp {
    let millis = i64::try_from(time.0).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

fn at_utc(time: DateTime) -> Option<Timestamp> {
    Offset::UTC.to_timestamp(time).ok()
}

/// RFC 3339, also `2026-05-01T07:25:37.000+0000` (Salesforce) and without an offset (taken as UTC).
fn rfc3339(text: &str) -> Option<Timestamp> {
    (text.parse().ok())
        .or_else(|| Timestamp::strptime("%Y-%m-%dT%H:%M:%S%.f%z", text).ok())
        .or_else(|| at_utc(text.parse().ok()?))
}

/// Unix times, whole or with a fraction, without going through a float.
fn unix(text: &str, to_millis: u64) -> Option<Millis> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: u64 = whole.parse().ok()?;
    let millis = whole.checked_mul(to_millis)?;
    if to_millis == 1 || fraction.is_empty() {
        return Some(Millis(millis));
    }
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    millis.checked_add(digits.parse().ok()?).map(Millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_read() {
        let time = Millis(1_769_860_800_000);
        for (format, value) in [
            ("rfc3339", "2026-01-31T12:00:00Z"),
            ("rfc3339", "2026-01-31T13:00:00.000+01:00"),
            ("rfc3339", "2026-01-31T12:00:00.000+0000"),
            ("rfc3339", "2026-01-31T12:00:00"),
            ("unix-seconds", "1769860800"),
            ("unix-seconds", "1769860800.000"),
            ("unix-millis", "1769860800000"),
            ("sql-utc", "2026-01-31 12:00:00"),
            ("%d.%m.%Y %H:%M", "31.01.2026 12:00"),
            ("%d.%m.%Y %H:%M %z", "31.01.2026 14:00 +0200"),
        ] {
            assert_eq!(TimeFormat::parse(format).unwrap().read(value), Some(time), "{format} {value}");
        }
        assert_eq!(TimeFormat::Date.read("1970-01-02"), Some(Millis(86_400_000)));
        assert_eq!(TimeFormat::UnixSeconds.read("1.5"), Some(Millis(1_500)));
    }

    #[test]
    fn what_is_not_a_time_is_none() {
        for value in ["", "0000-00-00 00:00:00", "soon", "-5"] {
            for format in [TimeFormat::SqlUtc, TimeFormat::Rfc3339, TimeFormat::UnixMillis, TimeFormat::Date] {
                assert_eq!(format.read(value), None, "{format:?} {value}");
            }
        }
        assert!(TimeFormat::parse("iso").unwrap_err().contains("rfc3339"));
    }

    #[test]
    fn times_are_written_as_the_app_asks() {
        let time = Millis(1_769_860_800_123);
        assert_eq!(TimeFormat::SqlUtc.write(time), "2026-01-31 12:00:00");
        assert_eq!(TimeFormat::UnixMillis.write(time), "1769860800123");
        assert_eq!(TimeFormat::Rfc3339.write(time), "2026-01-31T12:00:00.123Z");
        assert_eq!(TimeFormat::parse("%d/%m/%Y").unwrap().write(time), "31/01/2026");
    }
}
