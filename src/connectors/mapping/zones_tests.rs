//! Zones over both clock changes.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const SQL: &str = "%Y-%m-%d %H:%M:%S";
const HOUR: u64 = 3_600_000;

fn local(zone: &str) -> Local {
    Times::new(TimeFormat::parse(SQL).unwrap(), zone).unwrap().local(&Value::Null).unwrap()
}

fn at(text: &str) -> Millis {
    Millis::parse_rfc3339(text).unwrap()
}

/// What an app in that zone shows of a time.
fn shown(zone: &str, time: Millis) -> String {
    named(zone).unwrap().to_datetime(times::stamp(time)).strftime(SQL).to_string()
}

#[test]
fn a_text_is_read_and_written_in_its_zone() {
    let pacific = local("America/Los_Angeles");
    let time = at("2026-06-01T04:15:00Z");
    assert_eq!(pacific.read("2026-05-31 21:15:00", None), Some(time));
    assert_eq!(pacific.lower(time), Bound { text: "2026-05-31 21:15:00".into(), moved: false });
    assert_eq!(pacific.upper(time).text, "2026-05-31 21:15:00");
    assert_eq!(pacific.read("soon", None), None);
    assert_eq!(pacific.read("5", None), None);
}

#[test]
fn a_zone_may_come_from_a_parameter_and_must_be_one() {
    let times: Times =
        crate::connectors::yaml::read("spec.yml", "{pattern: '%Y-%m-%d %H:%M:%S', zone: $parameters.timeZone}")
            .unwrap();
    assert!(times.has_zone());
    let berlin = times.local(&json!({"timeZone": "Europe/Berlin"})).unwrap();
    assert_eq!(berlin.read("2026-01-31 13:00:00", None), Some(at("2026-01-31T12:00:00Z")));
    assert!(times.local(&json!({"timeZone": "Mars/Olympus"})).unwrap_err().contains("America/Los_Angeles"));
    assert!(times.local(&json!({})).unwrap_err().contains("timeZone is not set"));
    for (text, part) in [
        ("{pattern: sql-utc, zone: Europe/Berlin}", "say theirs"),
        ("{pattern: date, zone: Nowhere}", "not a time zone"),
        ("{pattern: date, zone: $record.zone}", "$parameters"),
        ("{pattern: iso, zone: UTC}", "not a time format"),
        ("{pattern: date}", "zone"),
    ] {
        let error = crate::connectors::yaml::read::<Times>("spec.yml", text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn the_repeated_hour_is_read_as_the_latest_time_that_had_passed() {
    let pacific = local("America/Los_Angeles");
    let text = "2026-11-01 01:30:00";
    let (first, second) = (at("2026-11-01T08:30:00Z"), at("2026-11-01T09:30:00Z"));
    assert_eq!(pacific.read(text, Some(at("2026-11-01T08:31:00Z"))), Some(first));
    assert_eq!(pacific.read(text, Some(at("2026-11-01T09:30:00Z"))), Some(second));
    assert_eq!(pacific.read(text, None), Some(first));
    // Half past two of the spring night is on no clock there.
    assert_eq!(pacific.read("2026-03-08 02:30:00", None), Some(at("2026-03-08T10:30:00Z")));
}

#[test]
fn a_bound_in_the_repeated_hour_takes_in_all_of_it() {
    let pacific = local("America/Los_Angeles");
    for time in ["2026-11-01T08:00:00Z", "2026-11-01T08:59:59Z", "2026-11-01T09:00:00Z", "2026-11-01T09:59:59Z"] {
        assert_eq!(pacific.lower(at(time)), Bound { text: "2026-11-01 00:59:59".into(), moved: true }, "{time}");
        assert_eq!(pacific.upper(at(time)).text, "2026-11-01 02:00:00", "{time}");
    }
    assert_eq!(pacific.lower(at("2026-11-01T10:00:00Z")).text, "2026-11-01 02:00:00");
    assert_eq!(pacific.lower(at("2026-11-01T07:59:59Z")).text, "2026-11-01 00:59:59");
}

/// Moments around both clock changes, in zones north and south, and in one whose change is half an hour.
fn moments() -> impl Strategy<Value = (&'static str, u64)> {
    let nights = vec![
        ("America/Los_Angeles", "2026-11-01T09:00:00Z"),
        ("America/Los_Angeles", "2026-03-08T10:00:00Z"),
        ("Europe/Berlin", "2026-10-25T01:00:00Z"),
        ("Europe/Berlin", "2026-03-29T01:00:00Z"),
        ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
        ("Australia/Sydney", "2026-10-03T16:00:00Z"),
    ];
    prop::sample::select(nights).prop_map(|(zone, change)| (zone, at(change).0 - 4 * HOUR))
}

/// How an app may read a local text that it compares with its times.
fn instants(zone: &str, text: &str) -> Vec<Timestamp> {
    let wall = DateTime::strptime(SQL, text).unwrap();
    let both = named(zone).unwrap().to_ambiguous_timestamp(wall);
    vec![both.earlier().unwrap(), both.later().unwrap()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_later_change_is_below_a_lower_bound_and_no_earlier_one_above_an_upper(
        (zone, start) in moments(), bound in 0..8 * HOUR, later in 0..8 * HOUR,
    ) {
        let (local, bound) = (local(zone), Millis(start + bound));
        let change = Millis(bound.0 + later);
        let (lower, upper) = (local.lower(bound).text, local.upper(change).text);
        // Apps that compare what they show:
        let texts = |time| shown(zone, time);
        prop_assert!(texts(change) >= lower, "{} < {lower}", texts(change));
        prop_assert!(texts(bound) <= upper, "{} > {upper}", texts(bound));
        // … and apps that make a time of the text first, whichever of the two:
        prop_assert!(instants(zone, &lower).into_iter().all(|lower| lower <= times::stamp(change)));
        let second = Millis(bound.0 - bound.0 % 1_000);
        prop_assert!(instants(zone, &upper).into_iter().all(|upper| upper >= times::stamp(second)));
    }

    #[test]
    fn a_change_made_after_another_was_seen_is_never_read_as_the_earlier(
        (zone, start) in moments(), first in 0..6 * 3_600_u64, seen in 0..7_200_u64, next in 1..7_200_u64, again in 0..7_200_u64,
    ) {
        let local = local(zone);
        let first = Millis(start + first * 1_000);
        let seen = Millis(first.0 + seen * 1_000);
        let second = Millis(seen.0 + next * 1_000);
        let again = Millis(second.0 + again * 1_000);
        let read = |change, seen_at| local.read(&shown(zone, change), Some(seen_at)).unwrap();
        prop_assert!(read(first, seen) < read(second, again));
        prop_assert!(read(first, seen) >= first && read(first, seen) <= seen);
    }
}
