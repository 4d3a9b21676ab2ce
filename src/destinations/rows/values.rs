//! What stands in a cell: values of records, times, names.
//!
//! Always true: pure; what a type cannot hold is said, never bent. Not here: which columns there are (`super`).

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Cell, Type};
use crate::destinations::driver::Item;
use crate::domain::event::{Event, Payload};
use crate::domain::time::Millis;

/// A field's value as its column holds it; None: it cannot.
pub(super) fn cell(kind: Type, value: &Value) -> Option<Cell> {
    match (kind, value) {
        (_, Value::Null) => Some(Cell::Null),
        (Type::Json, value) => Some(Cell::Json(value.to_string())),
        (Type::Text, Value::String(text)) => Some(Cell::Text(text.clone())),
        (Type::Boolean, Value::Bool(b)) => Some(Cell::Boolean(*b)),
        (Type::Number, Value::Number(number)) => Some(Cell::Number(number.to_string())),
        (Type::Integer, Value::Number(number)) => number.as_i64().map(Cell::Integer),
        (Type::Time, Value::String(text)) => text.parse().ok().map(Cell::Time),
        (Type::Date, Value::String(text)) => text.parse().ok().map(Cell::Date),
        _ => None,
    }
}

/// The name of an event's record in its connection: the remote id of a unified one, the `id` of another payload.
pub(in crate::destinations) fn named(event: &Event) -> Option<String> {
    match &event.payload {
        Payload::Record { remote_id, .. } => Some(remote_id.clone()),
        Payload::Plain(text) => {
            let payload: Map<String, Value> = serde_json::from_str(text).ok()?;
            match payload.get("id")? {
                Value::String(id) => Some(id.clone()),
                Value::Number(id) => Some(id.to_string()),
                _ => None,
            }
        }
    }
}

pub(in crate::destinations) fn is_deletion(event: &Event) -> bool {
    event.update_type.as_deref() == Some("deleted")
}

pub(in crate::destinations) fn seq(item: &Item) -> i64 {
    i64::try_from(item.seq.0).unwrap_or(i64::MAX)
}

pub(super) fn time(at: Millis) -> Cell {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).map_or(Cell::Null, Cell::Time)
}

/// `lineItems` as `line_items`.
pub(super) fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for (place, letter) in name.chars().enumerate() {
        match letter {
            'A'..='Z' => {
                if place > 0 {
                    out.push('_');
                }
                out.push(letter.to_ascii_lowercase());
            }
            'a'..='z' | '0'..='9' | '_' => out.push(letter),
            _ => out.push('_'),
        }
    }
    out
}
