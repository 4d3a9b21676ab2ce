//! What the warehouses (`bigquery`, `snowflake`) have in common: rows as text, in parts of bounded size.
//!
//! Always true: the same batch gives the same parts; of several rows with one key in a part there is one, so a MERGE
//! never meets two for one target; a number that no column of a warehouse holds exactly stands in `_extra`. Not here:
//! the SQL and the jobs (the drivers).

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::driver::{Batch, Fault};
use super::rows::{self, Cell, EXTRA, Names, Row, Table, Written};
use crate::domain::destination::{Deletes, Shape};
use crate::domain::trouble::Trouble;

/// What a warehouse can hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Digits before and after the point of an exact number.
    pub whole_digits: usize,
    pub fraction_digits: usize,
    /// Bytes of one part's rows as JSON; a row above it is refused.
    pub part_bytes: usize,
}

/// Rows of one table that are written by one request.
#[derive(Debug)]
pub struct Slice {
    /// The topic of a mirror; None: the log.
    pub topic: Option<String>,
    pub table: Table,
    /// Each a JSON text, as `text` made it.
    pub rows: Vec<String>,
    /// When the earliest event of a log's slice was received: what is in the table from before is none of these.
    pub since: Option<Timestamp>,
    pub items: Vec<usize>,
}

/// A batch in slices.
#[derive(Debug, Default)]
pub struct Sliced {
    pub slices: Vec<Slice>,
    pub refused: Vec<(usize, Fault)>,
    pub notes: Vec<String>,
}

/// The rows of a batch, cut to size; `text` writes a row of a table as JSON.
pub fn sliced(batch: &Batch, names: &Names, bounds: Bounds, text: fn(&Table, &Row) -> String) -> Sliced {
    let Written { tables, refused, notes } = rows::written(batch, names);
    let mut out = Sliced { slices: Vec::new(), refused, notes };
    for (table, rows) in tables {
        let first = rows.first().and_then(|row| batch.items.get(*row.items.first()?));
        let topic = first.filter(|_| batch.shape != Shape::Append).map(|item| item.event.topic.clone());
        let mut open: Option<(Slice, usize)> = None;
        for mut row in once(&table, rows) {
            set_aside(&table, &mut row, bounds, topic.as_deref(), &mut out.notes);
            let json = text(&table, &row);
            if json.len() > bounds.part_bytes {
                let detail = format!("its row has {} bytes, a request takes {}", json.len(), bounds.part_bytes);
                out.refused
                    .extend(row.items.iter().map(|place| (*place, Fault::new(Trouble::TooLarge, detail.clone()))));
                continue;
            }
            let is_full = open.as_ref().is_some_and(|(_, bytes)| bytes + json.len() + 1 > bounds.part_bytes);
            if is_full && let Some((slice, _)) = open.take() {
                out.slices.push(slice);
            }
            let (slice, bytes) = open.get_or_insert_with(|| (blank(&topic, &table), 2));
            *bytes += json.len() + 1;
            slice.rows.push(json);
            let received = table.columns.iter().position(|column| column.name == "received_at");
            if let Some(Cell::Time(at)) = received.and_then(|place| row.cells.get(place)) {
                slice.since = Some(slice.since.map_or(*at, |since| since.min(*at)));
            }
            slice.items.append(&mut row.items);
        }
        out.slices.extend(open.map(|(slice, _)| slice));
    }
    out
}

/// The table of a slice, known by its topic again.
pub fn table(topic: Option<&str>, names: &Names) -> Table {
    match topic {
        None => rows::table(Shape::Append, "", names),
        Some(topic) => rows::table(Shape::Mirror(Deletes::Mark), topic, names),
    }
}

fn blank(topic: &Option<String>, table: &Table) -> Slice {
    Slice { topic: topic.clone(), table: table.clone(), rows: Vec::new(), since: None, items: Vec::new() }
}

/// Of rows with one key, the first; a mirror's rows are so already, a log's if an event was asked for again.
pub fn once(table: &Table, rows: Vec<Row>) -> Vec<Row> {
    let key: Vec<usize> = table
        .columns
        .iter()
        .enumerate()
        .filter(|(_, c)| table.key.contains(&c.name.as_str()))
        .map(|(i, _)| i)
        .collect();
    let mut seen: HashMap<Vec<String>, usize> = HashMap::new();
    let mut kept: Vec<Row> = Vec::with_capacity(rows.len());
    for mut row in rows {
        let name = key.iter().map(|place| row.cells.get(*place).and_then(plain).unwrap_or_default()).collect();
        match seen.get(&name).and_then(|place| kept.get_mut(*place)) {
            Some(known) => known.items.append(&mut row.items),
            None => {
                seen.insert(name, kept.len());
                kept.push(row);
            }
        }
    }
    kept
}

/// Moves what no exact number and no timestamp of a warehouse holds into [`EXTRA`], with a note.
fn set_aside(table: &Table, row: &mut Row, bounds: Bounds, topic: Option<&str>, notes: &mut Vec<String>) {
    // Only a mirror has columns that could be too narrow.
    let Some(extra) = table.columns.iter().position(|column| column.name == EXTRA) else { return };
    let mut aside = Map::new();
    for (column, cell) in table.columns.iter().zip(row.cells.iter_mut()) {
        let value = match cell {
            Cell::Number(text) => match decimal(text, bounds) {
                Some(exact) => {
                    *text = exact;
                    continue;
                }
                None => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())),
            },
            // Both begin with the year 1 and end with 9999.
            Cell::Time(at) if !(YEAR_1..YEAR_10000).contains(&at.as_second()) => Value::String(at.to_string()),
            Cell::Date(date) if date.year() < 1 => Value::String(date.to_string()),
            _ => continue,
        };
        *cell = Cell::Null;
        let about = topic.unwrap_or(&table.name);
        let note = format!("{about}: {}: its column cannot hold such a value, so it is kept in {EXTRA}", column.name);
        if notes.len() < NOTES_MAX && !notes.contains(&note) {
            notes.push(note);
        }
        aside.insert(column.name.clone(), value);
    }
    let Some(cell) = row.cells.get_mut(extra).filter(|_| !aside.is_empty()) else { return };
    if let Cell::Json(text) = &*cell {
        let held: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
        aside.extend(held);
    }
    *cell = Cell::Json(Value::Object(aside).to_string());
}

/// 0001-01-01 and 10000-01-01, in seconds since 1970.
const YEAR_1: i64 = -62_135_596_800;
const YEAR_10000: i64 = 253_402_300_800;
/// The most notes of one batch.
const NOTES_MAX: usize = 20;

/// A JSON number in plain digits, if it has no more of them than a column takes: `1e3` is `1000`.
pub fn decimal(text: &str, bounds: Bounds) -> Option<String> {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.trim_start_matches('+').parse::<i32>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) || digits.len() > 400 || exponent.abs() > 400 {
        return None;
    }
    let point = i32::try_from(whole.len()).ok()? + exponent;
    let (whole, fraction) = match usize::try_from(point) {
        Ok(point) if point >= digits.len() => (format!("{digits:0<point$}"), String::new()),
        Ok(point) => digits.split_at_checked(point).map(|(a, b)| (a.to_owned(), b.to_owned()))?,
        Err(_) => (String::new(), format!("{}{digits}", "0".repeat(usize::try_from(-point).ok()?))),
    };
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if whole.len() > bounds.whole_digits || fraction.len() > bounds.fraction_digits {
        return None;
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

/// A cell as text; None: it is null.
pub fn plain(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Null => None,
        Cell::Text(text) | Cell::Number(text) | Cell::Json(text) => Some(text.clone()),
        Cell::Integer(number) => Some(number.to_string()),
        Cell::Boolean(yes) => Some(yes.to_string()),
        Cell::Time(at) => Some(at.to_string()),
        Cell::Date(date) => Some(date.to_string()),
    }
}

/// A row as a JSON array of texts, one per column, and `"1"` at the end if the row is to go.
pub fn array(_: &Table, row: &Row) -> String {
    let mut cells: Vec<Value> = row.cells.iter().map(|cell| plain(cell).map_or(Value::Null, Value::String)).collect();
    cells.push(if row.remove { Value::String("1".to_owned()) } else { Value::Null });
    Value::Array(cells).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { whole_digits: 29, fraction_digits: 9, part_bytes: 1000 };

    #[test]
    fn numbers_are_written_in_plain_digits_or_not_at_all() {
        let fits = |text| decimal(text, BOUNDS);
        assert_eq!(fits("12.50").as_deref(), Some("12.5"));
        assert_eq!(fits("-0.001e3").as_deref(), Some("-1"));
        assert_eq!(fits("1e3").as_deref(), Some("1000"));
        assert_eq!(fits("1E-9").as_deref(), Some("0.000000001"));
        assert_eq!(fits("0").as_deref(), Some("0"));
        assert_eq!(fits("1e-10"), None);
        assert_eq!(fits("1e29"), None);
        assert_eq!(fits("1e999999999999"), None);
        assert_eq!(fits("99999999999999999999999999999").as_deref(), Some("99999999999999999999999999999"));
        assert_eq!(fits("NaN"), None);
    }
}
