//! What is frozen: the head of a part says the table, each line after it is a row, written as SQL writes it.
//!
//! Always true: the same batch gives the same bytes; a row is one line. A value that its column cannot hold moves to
//! `_extra` with a note. Not here: how many rows a statement has, since the server says how long one may be (`write`).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::literal;
use crate::destinations::driver::{Batch, Frozen, Part};
use crate::destinations::rows::{self, Cell, EXTRA, Names, Row, SEQ, Table, Type};
use crate::domain::destination::Shape;
use crate::outbound::Bytes;

/// A column as its table should have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) nullable: bool,
}

/// [`Type`], as it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Id,
    Key,
    Text,
    Integer,
    Number,
    Boolean,
    Time,
    Date,
    Json,
}

impl From<Type> for Kind {
    fn from(kind: Type) -> Self {
        match kind {
            Type::Id => Self::Id,
            Type::Key => Self::Key,
            Type::Text => Self::Text,
            Type::Integer => Self::Integer,
            Type::Number => Self::Number,
            Type::Boolean => Self::Boolean,
            Type::Time => Self::Time,
            Type::Date => Self::Date,
            Type::Json => Self::Json,
        }
    }
}

/// The first line of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) table: String,
    pub(super) columns: Vec<Column>,
    pub(super) key: Vec<String>,
    /// A row of the same key gives way to a later one; otherwise it stays.
    pub(super) mirror: bool,
}

impl Head {
    fn of(table: &Table, mirror: bool) -> Self {
        let column = |column: &rows::Column| Column {
            name: column.name.clone(),
            kind: column.kind.into(),
            nullable: column.nullable,
        };
        Self {
            table: table.name.clone(),
            columns: table.columns.iter().map(column).collect(),
            key: table.key.iter().map(|&name| name.to_owned()).collect(),
            mirror,
        }
    }
}

/// The table that a subscription of that shape writes events of that topic to.
pub(super) fn head(shape: Shape, topic: &str, names: &Names) -> Head {
    Head::of(&rows::table(shape, topic, names), shape != Shape::Append)
}

/// What will be sent for a batch.
pub(super) fn prepare(batch: &Batch, names: &Names) -> Frozen {
    let mut written = rows::written(batch, names);
    let mut parts = Vec::with_capacity(written.tables.len());
    for (table, rows) in &mut written.tables {
        let head = Head::of(table, batch.shape != Shape::Append);
        let mut body = serde_json::to_string(&head).unwrap_or_default();
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            body.push('\n');
            line(table, row, &mut body, &mut written.notes);
            items.append(&mut row.items);
        }
        parts.push(Part { target: head.table, body: Bytes::from(body), items });
    }
    parts.retain(|part| !part.items.is_empty());
    Frozen { id: batch.id.clone(), parts, items: batch.items.len(), refused: written.refused, notes: written.notes }
}

/// `+(…)` for a row to write, `-(…)` with its key and sequence for one to take away.
fn line(table: &Table, row: &mut Row, out: &mut String, notes: &mut Vec<String>) {
    if row.remove {
        let key = table.key.iter().chain([&SEQ]);
        let cells: Vec<_> = key.filter_map(|name| cell(table, row, name)).cloned().collect();
        // A key and a sequence can always be written.
        tuple(&cells, '-', out).ok();
        return;
    }
    let start = out.len();
    if let Err(places) = tuple(&row.cells, '+', out) {
        out.truncate(start);
        set_aside(table, row, &places, notes);
        tuple(&row.cells, '+', out).ok();
    }
}

fn cell<'a>(table: &Table, row: &'a Row, name: &str) -> Option<&'a Cell> {
    table.columns.iter().position(|column| column.name == name).and_then(|place| row.cells.get(place))
}

/// Appends a row. Of cells that cannot be written, the places are returned.
fn tuple(cells: &[Cell], sign: char, out: &mut String) -> Result<(), Vec<usize>> {
    out.push(sign);
    out.push('(');
    let mut misfits = Vec::new();
    for (place, cell) in cells.iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        if !literal::push(cell, out) {
            misfits.push(place);
        }
    }
    out.push(')');
    if misfits.is_empty() { Ok(()) } else { Err(misfits) }
}

/// Moves cells to `_extra`, by the names of their columns.
fn set_aside(table: &Table, row: &mut Row, places: &[usize], notes: &mut Vec<String>) {
    let extra = table.columns.iter().position(|column| column.name == EXTRA);
    let mut kept: Map<String, Value> = match extra.and_then(|place| row.cells.get(place)) {
        Some(Cell::Json(text)) => serde_json::from_str(text).unwrap_or_default(),
        _ => Map::new(),
    };
    for &place in places {
        let (Some(column), Some(cell)) = (table.columns.get(place), row.cells.get_mut(place)) else { continue };
        let value = match std::mem::replace(cell, Cell::Null) {
            // A number keeps its digits.
            Cell::Number(text) => number(text),
            Cell::Time(at) => Value::String(at.to_string()),
            Cell::Date(date) => Value::String(date.to_string()),
            _ => continue,
        };
        kept.insert(column.name.clone(), value);
        let note = format!("{}: {}: its column cannot hold a value, so it is kept in {EXTRA}", table.name, column.name);
        if notes.len() < NOTES_MAX && !notes.contains(&note) {
            notes.push(note);
        }
    }
    if let Some(cell) = extra.and_then(|place| row.cells.get_mut(place)) {
        *cell = Cell::Json(Value::Object(kept).to_string());
    }
}

/// The most notes of one batch.
const NOTES_MAX: usize = 20;

fn number(text: String) -> Value {
    match serde_json::from_str::<&RawValue>(&text).map(|raw| serde_json::from_str(raw.get())) {
        Ok(Ok(value)) => value,
        _ => Value::String(text),
    }
}

/// A part, read again.
pub(super) struct Request<'a> {
    pub(super) head: Head,
    /// `(…)`.
    pub(super) rows: Vec<&'a str>,
    pub(super) gone: Vec<&'a str>,
}

impl<'a> Request<'a> {
    /// None: it is not of this driver.
    pub(super) fn of(part: &'a Part) -> Option<Self> {
        let mut lines = std::str::from_utf8(&part.body).ok()?.split('\n');
        let head = serde_json::from_str(lines.next()?).ok()?;
        let (mut rows, mut gone) = (Vec::new(), Vec::new());
        for line in lines {
            match line.split_at_checked(1)? {
                ("+", row) => rows.push(row),
                ("-", row) => gone.push(row),
                _ => return None,
            }
        }
        Some(Self { head, rows, gone })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_column_cannot_hold_is_kept_whole() {
        let column = |name: &str, kind| rows::Column { name: name.to_owned(), kind, nullable: true };
        let columns = vec![column("amount", Type::Number), column(EXTRA, Type::Json)];
        let table = Table { name: "t".to_owned(), columns, key: &[] };
        let cells = vec![Cell::Number("1e99".to_owned()), Cell::Json("{\"x\":1.50}".to_owned())];
        let mut row = Row { cells, items: vec![0], seq: 1, remove: false };
        let (mut out, mut notes) = (String::new(), Vec::new());
        line(&table, &mut row, &mut out, &mut notes);
        assert_eq!(out, "+(NULL,'{\"x\":1.50,\"amount\":1e+99}')");
        assert_eq!(notes.len(), 1);
    }
}
