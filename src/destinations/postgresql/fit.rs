//! Values that a column of PostgreSQL cannot hold though its type is right: numbers beyond NUMERIC, times before its era.
//!
//! Always true: such a value of a mirror goes to `_extra`, with a note, and its column is null; nothing of a log is
//! touched (it has only our own times and numbers). Not here: values of another type (`destinations::rows`).

use jiff::tz::Offset;
use serde_json::{Map, Value};

use crate::destinations::rows::{Cell, EXTRA, Row, Table};

/// Digits before the point, and behind it, of a NUMERIC (PostgreSQL's docs, table 8.2).
const NUMERIC_WHOLE_DIGITS: i64 = 131_072;
const NUMERIC_SCALE: i64 = 16_383;
/// The year before which PostgreSQL has no time and no date (table 8.9: 4713 BC, which is -4712; its first year is left out).
const YEAR_MIN: i16 = -4711;

/// Moves what its column cannot hold to `_extra`, and says so in `notes`.
pub(super) fn fit(table: &Table, row: &mut Row, note: &mut impl FnMut(String)) {
    let Some(extra) = table.columns.iter().position(|column| column.name == EXTRA) else { return };
    let mut moved = Map::new();
    for (column, cell) in table.columns.iter().zip(&mut row.cells) {
        let value = match cell {
            Cell::Number(digits) if !is_numeric(digits) => {
                serde_json::from_str(digits).unwrap_or_else(|_| Value::String(digits.clone()))
            }
            Cell::Time(time) if Offset::UTC.to_datetime(*time).year() < YEAR_MIN => Value::String(time.to_string()),
            Cell::Date(date) if date.year() < YEAR_MIN => Value::String(date.to_string()),
            _ => continue,
        };
        note(format!("{}.{}: PostgreSQL cannot hold the value, so it is kept in {EXTRA}", table.name, column.name));
        moved.insert(column.name.clone(), value);
        *cell = Cell::Null;
    }
    let Some(cell) = row.cells.get_mut(extra).filter(|_| !moved.is_empty()) else { return };
    let mut all: Map<String, Value> = match cell {
        Cell::Json(text) => serde_json::from_str(text).unwrap_or_default(),
        _ => Map::new(),
    };
    all.append(&mut moved);
    *cell = Cell::Json(Value::Object(all).to_string());
}

/// Whether NUMERIC holds this JSON number, to the last digit.
fn is_numeric(number: &str) -> bool {
    let (digits, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let Ok(exponent) = exponent.parse::<i64>() else { return false };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
    let before = length(whole.trim_start_matches('-')).saturating_add(exponent);
    let behind = length(fraction).saturating_sub(exponent);
    before <= NUMERIC_WHOLE_DIGITS && behind <= NUMERIC_SCALE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_held_to_the_last_digit_or_not_at_all() {
        for number in ["0", "-12.50", "1e131071", "1e-16383", "123456789012345678901234567890.5"] {
            assert!(is_numeric(number), "{number}");
        }
        for number in ["1e131072", "1.5e-16383", "1e-16384", "1e99999999999999999999"] {
            assert!(!is_numeric(number), "{number}");
        }
    }
}
