//! Times in the zone of an account: apps that write and compare `2026-11-01 01:30:00` without saying where.
//!
//! Always true: a lower bound never lies after a change that it must include, and an upper bound never before one, also in
//! the hour that a clock change repeats and however the app reads a text of that hour; of two changes that were seen one
//! after the other, the later one is never read as the earlier. Not here: formats (`times`).
//!
//! In the repeated hour a text stands for two times. Read as the latest one that had passed when it was seen, what changed
//! after it was seen is always later: it comes after that moment. Bounds in that hour are moved to its edge, so that all
//! of it is read again; reading twice is harmless.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::path::Path;
use super::times::{self, TimeFormat};
use crate::domain::time::Millis;

/// A time format, and the zone of texts that name none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    format: TimeFormat,
    zone: Zone,
}

/// Where a zone comes from.
#[derive(Clone, Debug, Default, PartialEq)]
enum Zone {
    #[default]
    Utc,
    Named(TimeZone),
    /// A parameter that holds its name.
    Parameter(Path),
}

/// The same with its zone known.
#[derive(Clone, Debug, PartialEq)]
pub struct Local {
    format: TimeFormat,
    /// None: UTC.
    zone: Option<TimeZone>,
}

/// A bound as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    pub text: String,
    /// It was moved: an id that belongs to the exact time no longer fits.
    pub moved: bool,
}

/// The zone of that name (IANA, as in `America/Los_Angeles`). The error is one sentence.
pub fn named(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name.trim()).map_err(|_| {
        format!("{name:?} is not a time zone; use a name such as America/Los_Angeles, Europe/Berlin or UTC")
    })
}

impl Times {
    /// A format without a zone of its own.
    pub fn utc(format: TimeFormat) -> Self {
        Self { format, zone: Zone::Utc }
    }
    /// Joins a format with `zone:`, a name or `$parameters.x`. The error is one sentence.
    pub fn new(format: TimeFormat, zone: &str) -> Result<Self, String> {
        if !format.takes_zone() {
            return Err("only `date` and patterns take a zone; the other formats say theirs".to_owned());
        }
        let zone = match zone.starts_with('$') {
            false => Zone::Named(named(zone)?),
            true => match Path::parse(zone)? {
                path if path.root == "parameters" && !path.steps.is_empty() => Zone::Parameter(path),
                _ => {
                    return Err(format!(
                        "{zone:?} is no zone: use a name, or a parameter such as $parameters.timeZone"
                    ));
                }
            },
        };
        Ok(Self { format, zone })
    }
    /// How a time is written, zone aside.
    pub fn format(&self) -> &TimeFormat {
        &self.format
    }
    /// Whether it has a zone other than that of the format.
    pub fn has_zone(&self) -> bool {
        self.zone != Zone::Utc
    }
    /// With the zone that these parameters name. The error is one sentence.
    pub fn local(&self, parameters: &Value) -> Result<Local, String> {
        let zone = match &self.zone {
            Zone::Utc => None,
            Zone::Named(zone) => Some(zone.clone()),
            Zone::Parameter(path) => {
                let name = path.find(parameters).and_then(Value::as_str);
                let name = name.ok_or_else(|| format!("{path} is not set: the time zone of the account"))?;
                Some(named(name)?)
            }
        };
        Ok(Local { format: self.format.clone(), zone })
    }
}

impl Local {
    /// RFC 3339, as scripts see times.
    pub fn rfc3339() -> Self {
        Self { format: TimeFormat::Rfc3339, zone: None }
    }
    /// Reads a time that was seen at that moment; of two that a text may stand for, the latest that had passed. Where it is
    /// not known when it was seen: the earlier, and in the hour that is left out, as if the clock had not been moved.
    pub fn read(&self, text: &str, seen_at: Option<Millis>) -> Option<Millis> {
        let Some(zone) = &self.zone else { return self.format.read(text) };
        let wall = match self.format.read_wall(text.trim())? {
            times::Wall::Exact(stamp) => return times::millis(stamp),
            times::Wall::Local(wall) => wall,
        };
        let both = zone.to_ambiguous_timestamp(wall);
        let stamp = match seen_at.filter(|_| both.is_ambiguous()) {
            None => both.compatible(),
            Some(seen_at) => match both.later() {
                Ok(later) if later <= times::stamp(seen_at) => Ok(later),
                _ => both.earlier(),
            },
        };
        times::millis(stamp.ok()?)
    }
    /// A bound that all times from this one on satisfy.
    pub fn lower(&self, time: Millis) -> Bound {
        self.bound(time, |hour| hour.start.saturating_sub(jiff::SignedDuration::from_secs(1)))
    }
    /// A bound that all times up to this one satisfy.
    pub fn upper(&self, time: Millis) -> Bound {
        self.bound(time, |hour| hour.end)
    }
    fn bound(&self, time: Millis, edge: impl Fn(Hour) -> DateTime) -> Bound {
        let Some(zone) = &self.zone else { return Bound { text: self.format.write(time), moved: false } };
        let wall = zone.to_datetime(times::stamp(time));
        match repeated(zone, wall) {
            None => Bound { text: self.format.write_wall(wall), moved: false },
            Some(hour) => Bound { text: self.format.write_wall(edge(hour)), moved: true },
        }
    }
}

/// The stretch of local time that a clock change repeats: from the first time that comes twice, to the first after.
struct Hour {
    start: DateTime,
    end: DateTime,
}

fn repeated(zone: &TimeZone, wall: DateTime) -> Option<Hour> {
    let both = zone.to_ambiguous_timestamp(wall);
    let AmbiguousOffset::Fold { before, after } = both.offset() else { return None };
    let first: Timestamp = both.earlier().ok()?;
    let change = zone.following(first).next()?.timestamp();
    Some(Hour { start: after.to_datetime(change), end: before.to_datetime(change) })
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TimesVisitor)
    }
}

/// A format's name or pattern, or `{pattern, zone}`.
struct TimesVisitor;

impl<'de> Visitor<'de> for TimesVisitor {
    type Value = Times;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time format, or a map with pattern and zone")
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Times, E> {
        TimeFormat::parse(text).map(Times::utc).map_err(E::custom)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Times, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            pattern: TimeFormat,
            zone: String,
        }
        let fields = Fields::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
        Times::new(fields.pattern, &fields.zone).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[path = "zones_tests.rs"]
mod tests;
