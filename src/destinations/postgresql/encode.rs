//! Rows as PostgreSQL reads them from the wire: one binary array per column.
//!
//! Always true: the bytes of a part are what is bound, so a repetition sends the very same; they are told apart by their
//! lengths alone, never by what is in them. Not here: the statement that they are bound to (`sql`).
//!
//! A part's body: how many rows are written and how many removed, 4 bytes each, big-endian; then arrays, each behind its
//! length in 4 bytes: one per column of the table, then connection ids, remote ids and sequences of the removed rows. An
//! array is PostgreSQL's own binary form (`array_recv`).

use std::borrow::Cow;
use std::error::Error;

use bytes::BytesMut;
use jiff::Timestamp;
use jiff::civil::Date;
use tokio_postgres::types::{IsNull, ToSql, Type as Wire, to_sql_checked};

use super::settings::JsonType;
use super::text;
use crate::destinations::rows::{Cell, Column, Row, Type};
use crate::outbound::Bytes;

/// What can go wrong: a length that 4 bytes do not hold.
pub(super) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// 2000-01-01T00:00:00Z, the zero of PostgreSQL's times, in seconds of Unix.
const ZERO_SECONDS: i64 = 946_684_800;
const ZERO_DATE: Date = jiff::civil::date(2000, 1, 1);

/// The type of the array that a column's values are sent as.
pub(super) fn wire(kind: Type) -> Wire {
    match kind {
        // Numbers and JSON go as text, which the statement casts: so they stay exact, and `jsonb` and `json` look the same.
        Type::Id | Type::Key | Type::Text | Type::Number | Type::Json => Wire::TEXT_ARRAY,
        Type::Integer => Wire::INT8_ARRAY,
        Type::Boolean => Wire::BOOL_ARRAY,
        Type::Time => Wire::TIMESTAMPTZ_ARRAY,
        Type::Date => Wire::DATE_ARRAY,
    }
}

/// The types of the arrays that name removed rows: connection ids, remote ids, sequences.
pub(super) const REMOVED: [Wire; 3] = [Wire::TEXT_ARRAY, Wire::TEXT_ARRAY, Wire::INT8_ARRAY];

/// The body of a part. `altered` is called with a column whose text had to be altered.
pub(super) fn body(
    columns: &[Column],
    rows: &[Row],
    json: JsonType,
    altered: &mut impl FnMut(&Column),
) -> Outcome<Bytes> {
    let (removed, written): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.remove);
    let mut out = BytesMut::new();
    for rows in [&written, &removed] {
        out.extend_from_slice(&u32::try_from(rows.len())?.to_be_bytes());
    }
    for (place, column) in columns.iter().enumerate() {
        let cells: Vec<&Cell> = written.iter().filter_map(|row| row.cells.get(place)).collect();
        array(&mut out, column, &cells, json, altered)?;
    }
    // The key of a mirror is its first two columns.
    for (place, column) in columns.iter().enumerate().take(2) {
        let cells: Vec<&Cell> = removed.iter().filter_map(|row| row.cells.get(place)).collect();
        array(&mut out, column, &cells, json, altered)?;
    }
    let seqs: Vec<i64> = removed.iter().map(|row| row.seq).collect();
    framed(&mut out, |out| seqs.to_sql(&Wire::INT8_ARRAY, out).map(drop))?;
    Ok(out.freeze())
}

fn array(
    out: &mut BytesMut,
    column: &Column,
    cells: &[&Cell],
    json: JsonType,
    altered: &mut impl FnMut(&Column),
) -> Outcome<()> {
    let wire = wire(column.kind);
    framed(out, |out| {
        let written = match column.kind {
            Type::Integer | Type::Time => integers(cells).to_sql(&wire, out),
            Type::Date => days(cells).to_sql(&wire, out),
            Type::Boolean => booleans(cells).to_sql(&wire, out),
            _ => {
                let texts: Vec<Option<Cow<'_, str>>> = cells.iter().map(|cell| held(cell, json)).collect();
                if texts.iter().any(|text| matches!(text, Some(Cow::Owned(_)))) {
                    altered(column);
                }
                texts.to_sql(&wire, out)
            }
        };
        written.map(drop)
    })
}

/// Text, numbers and JSON as text; owned if it had to be altered.
fn held(cell: &Cell, json: JsonType) -> Option<Cow<'_, str>> {
    match cell {
        Cell::Text(value) => Some(text::plain(value)),
        Cell::Number(digits) => Some(Cow::Borrowed(digits.as_str())),
        Cell::Json(value) if json == JsonType::Jsonb => Some(text::jsonb(value)),
        Cell::Json(value) => Some(Cow::Borrowed(value.as_str())),
        _ => None,
    }
}

/// Integers, and times as microseconds since 2000.
fn integers(cells: &[&Cell]) -> Vec<Option<i64>> {
    let of = |cell: &&Cell| match cell {
        Cell::Integer(number) => Some(*number),
        Cell::Time(time) => Some(micros(*time)),
        _ => None,
    };
    cells.iter().map(of).collect()
}

fn micros(time: Timestamp) -> i64 {
    time.as_microsecond().saturating_sub(ZERO_SECONDS * 1_000_000)
}

/// Days since 2000-01-01.
fn days(cells: &[&Cell]) -> Vec<Option<i32>> {
    let of = |cell: &&Cell| match cell {
        Cell::Date(date) => i32::try_from(date.duration_since(ZERO_DATE).as_hours() / 24).ok(),
        _ => None,
    };
    cells.iter().map(of).collect()
}

fn booleans(cells: &[&Cell]) -> Vec<Option<bool>> {
    cells.iter().map(|cell| if let Cell::Boolean(b) = cell { Some(*b) } else { None }).collect()
}

/// What `write` appends, behind its length.
fn framed(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> Outcome<()>) -> Outcome<()> {
    let begin = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out)?;
    let length = i32::try_from(out.len() - begin - 4)?;
    if let Some(place) = out.get_mut(begin..begin + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// A part's body, taken apart again.
pub(super) struct Arrays<'a> {
    pub(super) written: u32,
    pub(super) removed: u32,
    /// One per column, then the three of the removed rows.
    pub(super) arrays: Vec<Encoded<'a>>,
}

/// An array as it is bound.
#[derive(Debug)]
pub(super) struct Encoded<'a>(&'a [u8]);

impl ToSql for Encoded<'_> {
    fn to_sql(&self, _: &Wire, out: &mut BytesMut) -> Outcome<IsNull> {
        out.extend_from_slice(self.0);
        Ok(IsNull::No)
    }
    fn accepts(_: &Wire) -> bool {
        true
    }
    to_sql_checked!();
}

/// Takes a body apart; None: it is none.
pub(super) fn arrays(body: &[u8]) -> Option<Arrays<'_>> {
    let (written, rest) = number(body)?;
    let (removed, mut rest) = number(rest)?;
    let mut arrays = Vec::new();
    while !rest.is_empty() {
        let (length, after) = number(rest)?;
        let (array, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        arrays.push(Encoded(array));
        rest = after;
    }
    Some(Arrays { written, removed, arrays })
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_dates_before_2000_and_before_1970_keep_their_order() {
        let time = |text: &str| micros(text.parse().unwrap());
        assert_eq!(time("2000-01-01T00:00:00.000001Z"), 1);
        assert_eq!(time("1969-12-31T23:59:59.5Z"), -ZERO_SECONDS * 1_000_000 - 500_000);
        let date = |text: &str| days(&[&Cell::Date(text.parse().unwrap())]);
        assert_eq!(date("2000-01-02"), [Some(1)]);
        assert_eq!(date("1999-12-31"), [Some(-1)]);
        assert_eq!(date("1969-12-31"), [Some(-10958)]);
    }

    #[test]
    fn a_body_comes_apart_as_it_was_put_together() {
        let column = |name: &str, kind| Column { name: name.to_owned(), kind, nullable: true };
        let columns = [column("a", Type::Text), column("b", Type::Key), column("c", Type::Boolean)];
        let row = |remove| Row {
            cells: vec![Cell::Text("x\0".to_owned()), Cell::Null, Cell::Boolean(true)],
            items: vec![0],
            seq: 7,
            remove,
        };
        let mut altered = Vec::new();
        let rows = [row(false), row(true), row(false)];
        let body = body(&columns, &rows, JsonType::Jsonb, &mut |column| altered.push(column.name.clone())).unwrap();
        assert_eq!(altered, ["a", "a"]);
        let taken = arrays(&body).unwrap();
        assert_eq!((taken.written, taken.removed, taken.arrays.len()), (2, 1, 6));
        assert!(arrays(&body[..body.len() - 1]).is_none());
    }
}
