//! Values as SQL literals.
//!
//! Always true: a literal means the same under every `sql_mode`, so nothing in a value can end it: text with a backslash
//! or a control letter is written in hexadecimal, other text in quotes with `'` doubled. A literal has no line end.
//! Not here: which column a value stands in (`request`).

use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::destinations::rows::Cell;

/// Digits before and after the point of `DECIMAL(65,30)`.
const WHOLE_DIGITS: usize = 35;
const FRACTION_DIGITS: usize = 30;
/// The years that DATE and DATETIME hold (MySQL manual, "The DATE, DATETIME, and TIMESTAMP Types").
const YEARS: std::ops::RangeInclusive<i16> = 1000..=9999;

/// Appends a value; false: its column cannot hold it, and nothing is appended.
pub(super) fn push(cell: &Cell, out: &mut String) -> bool {
    match cell {
        Cell::Null => out.push_str("NULL"),
        Cell::Text(text) | Cell::Json(text) => push_text(text, out),
        Cell::Integer(number) => _ = write!(out, "{number}"),
        Cell::Number(number) => match decimal(number) {
            Some(plain) => out.push_str(&plain),
            None => return false,
        },
        Cell::Boolean(is) => out.push(if *is { '1' } else { '0' }),
        Cell::Time(at) => match time(*at) {
            Some(text) => _ = write!(out, "'{text}'"),
            None => return false,
        },
        Cell::Date(date) if YEARS.contains(&date.year()) => _ = write!(out, "'{date}'"),
        Cell::Date(_) => return false,
    }
    true
}

/// Appends text as a literal.
pub(super) fn push_text(text: &str, out: &mut String) {
    if text.bytes().any(|byte| byte == b'\\' || byte < 0x20) {
        out.push_str("_utf8mb4 X'");
        out.push_str(&hex::encode_upper(text));
        out.push('\'');
        return;
    }
    out.push('\'');
    for (place, part) in text.split('\'').enumerate() {
        if place > 0 {
            out.push_str("''");
        }
        out.push_str(part);
    }
    out.push('\'');
}

/// A name of a table or column, quoted.
pub(super) fn name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// To the microsecond, in UTC.
fn time(at: Timestamp) -> Option<String> {
    let at = TimeZone::UTC.to_datetime(at);
    YEARS.contains(&at.year()).then(|| format!("{} {}.{:06}", at.date(), hms(at), at.subsec_nanosecond() / 1_000))
}

fn hms(at: jiff::civil::DateTime) -> String {
    format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second())
}

/// A JSON number written out, if `DECIMAL(65,30)` holds it exactly: `1.25e2` as `125`.
fn decimal(number: &str) -> Option<String> {
    let (negative, number) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (number, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let leading = digits.len() - digits.trim_start_matches('0').len();
    let significant = digits.trim_matches('0');
    if significant.is_empty() {
        return Some("0".to_owned());
    }
    // Where the point stands, counted from the first significant digit.
    let point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?.checked_sub(i64::try_from(leading).ok()?)?;
    let count = i64::try_from(significant.len()).ok()?;
    let after = count.checked_sub(point)?.max(0);
    if point > i64::try_from(WHOLE_DIGITS).ok()? || after > i64::try_from(FRACTION_DIGITS).ok()? {
        return None;
    }
    let zeros = |n: i64| "0".repeat(usize::try_from(n.max(0)).unwrap_or_default());
    let plain = match usize::try_from(point) {
        Ok(at) if at > 0 && at < significant.len() => format!("{}.{}", significant.get(..at)?, significant.get(at..)?),
        Ok(at) if at > 0 => format!("{significant}{}", zeros(point - count)),
        _ => format!("0.{}{significant}", zeros(-point)),
    };
    Some(if negative { format!("-{plain}") } else { plain })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(cell: Cell) -> Option<String> {
        let mut out = String::new();
        push(&cell, &mut out).then_some(out)
    }

    #[test]
    fn nothing_in_a_text_ends_its_literal() {
        let text = |text: &str| literal(Cell::Text(text.to_owned())).unwrap();
        assert_eq!(text("O'Neil"), "'O''Neil'");
        assert_eq!(text("x\\"), "_utf8mb4 X'785C'");
        assert_eq!(text("a\0b"), "_utf8mb4 X'610062'");
        assert_eq!(text("a\nb"), "_utf8mb4 X'610A62'");
        assert_eq!(text("é🦀\"`"), "'é🦀\"`'");
        assert_eq!(text("''"), "''''''");
        assert_eq!(name("a`b"), "`a``b`");
    }

    #[test]
    fn numbers_are_exact_or_refused() {
        for (number, plain) in [
            ("12.50", Some("12.5")),
            ("-0.07", Some("-0.07")),
            ("1e3", Some("1000")),
            ("1.25E2", Some("125")),
            ("12.5e1", Some("125")),
            ("1e-3", Some("0.001")),
            ("-0", Some("0")),
            ("0.30000000000000004", Some("0.30000000000000004")),
            ("123456789012345678901234567890", Some("123456789012345678901234567890")),
            ("1e34", Some("10000000000000000000000000000000000")),
            ("1e35", None),
            ("1e-30", Some("0.000000000000000000000000000001")),
            ("1e-31", None),
            ("1e999999999999999999999", None),
            ("1e9223372036854775807", None),
        ] {
            assert_eq!(decimal(number).as_deref(), plain, "{number}");
        }
    }

    #[test]
    fn times_before_1970_are_written_and_those_no_column_holds_refused() {
        let time = |text: &str| literal(Cell::Time(text.parse().unwrap()));
        assert_eq!(time("1912-06-23T01:02:03.0000045Z").as_deref(), Some("'1912-06-23 01:02:03.000004'"));
        assert_eq!(time("0999-12-31T23:59:59Z"), None);
        assert_eq!(literal(Cell::Date(jiff::civil::date(2026, 3, 1))).as_deref(), Some("'2026-03-01'"));
        assert_eq!(literal(Cell::Date(jiff::civil::date(-5, 3, 1))), None);
    }

    proptest::proptest! {
        #[test]
        fn a_quoted_literal_has_an_even_number_of_quotes_and_no_line_end(text in ".*") {
            let mut out = String::new();
            push_text(&text, &mut out);
            proptest::prop_assert_eq!(out.matches('\'').count() % 2, 0);
            proptest::prop_assert!(!out.contains(['\n', '\r', '\\']));
        }
    }
}
