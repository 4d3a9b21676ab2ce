//! Tables, as every SQL database and warehouse has them: which columns a batch is written to, and what stands in them.
//!
//! Always true: the same batch gives the same tables and rows; nothing of an event is dropped: what its column cannot
//! hold stands in `_extra`, with a note for the owner; of several changes of one record in a batch a mirror gets the
//! latest. Not here: how a database writes any of it (its driver).

mod names;
mod values;

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::driver::{Batch, Fault, Item};
use crate::domain::destination::{Deletes, Shape};
use crate::domain::event::Payload;
use crate::domain::models::Catalogue;
use crate::domain::subscription::Include;
use crate::domain::trouble::Trouble;
pub use names::Names;
use values::{cell, snake, time};
pub(super) use values::{is_deletion, named, seq};

/// The column of a mirror that takes what no other column can hold: a JSON object by field.
pub const EXTRA: &str = "_extra";
/// The column of a mirror with the sequence of the change that a row shows: a row is never overwritten by a lower one.
pub const SEQ: &str = "_seq";
/// The column of a mirror that says when its record was deleted.
pub const DELETED_AT: &str = "deleted_at";
/// The column of a mirror of a topic without a model.
const PAYLOAD: &str = "payload";
/// The most bytes of a remote id in a key.
pub const REMOTE_ID_MAX_BYTES: usize = 512;
/// In place of a field's name: the whole payload, of a topic that has no model.
const NO_MODEL: &str = "";
/// The most notes of one batch.
const NOTES_MAX: usize = 20;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// ASCII, at most 64 bytes, compared byte by byte.
    Id,
    /// Text of at most [`REMOTE_ID_MAX_BYTES`], compared byte by byte.
    Key,
    Text,
    /// 64 bits.
    Integer,
    /// Exact decimal, any size.
    Number,
    Boolean,
    /// An instant, microseconds.
    Time,
    Date,
    Json,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Type,
    /// Only columns of the key and those that are always there cannot be null.
    pub nullable: bool,
}

/// A table as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// `crm_contacts` for a mirror; for a log what the settings say.
    pub name: String,
    pub columns: Vec<Column>,
    /// The columns of the primary key: `event_id`, or `connection_id` and `remote_id`.
    pub key: &'static [&'static str],
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    Null,
    /// For [`Type::Id`], [`Type::Key`] and [`Type::Text`].
    Text(String),
    Integer(i64),
    /// A JSON number as it stands in the record: `12.50`, `1e3`.
    Number(String),
    Boolean(bool),
    Time(Timestamp),
    Date(jiff::civil::Date),
    /// JSON text.
    Json(String),
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// One per column of the table.
    pub cells: Vec<Cell>,
    /// The items of the batch that it settles.
    pub items: Vec<usize>,
    /// Of the change that it shows; also in [`SEQ`] of a mirror.
    pub seq: i64,
    /// The row is to go: only in a mirror with [`Deletes::Remove`].
    pub remove: bool,
}

/// What a batch comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// In the order of the topics' first items.
    pub tables: Vec<(Table, Vec<Row>)>,
    pub refused: Vec<(usize, Fault)>,
    pub notes: Vec<String>,
}

/// The tables and rows of a batch.
pub fn written(batch: &Batch, names: &Names) -> Written {
    match batch.shape {
        Shape::Append => log(batch, names),
        Shape::Mirror(deletes) => mirror(batch, names, deletes),
    }
}

/// The table that a subscription of that shape writes events of a topic to.
pub fn table(shape: Shape, topic: &str, names: &Names) -> Table {
    match shape {
        Shape::Append => log_table(names),
        Shape::Mirror(_) => mirror_table(topic, names),
    }
}

fn column(name: &str, kind: Type) -> Column {
    Column { name: name.to_owned(), kind, nullable: true }
}

fn required(name: &str, kind: Type) -> Column {
    Column { nullable: false, ..column(name, kind) }
}

fn log_table(names: &Names) -> Table {
    let columns = vec![
        required("event_id", Type::Id),
        required("seq", Type::Integer),
        required("topic", Type::Text),
        column("update_type", Type::Text),
        column("connection_id", Type::Id),
        column("user_id", Type::Id),
        column("username", Type::Text),
        column("app", Type::Text),
        column("record_id", Type::Id),
        column("remote_id", Type::Text),
        required("event_time", Type::Time),
        required("received_at", Type::Time),
        column("payload", Type::Json),
        column("changed_fields", Type::Json),
        column("previous", Type::Json),
        column("raw", Type::Json),
    ];
    Table { name: names.log.clone(), columns, key: &["event_id"] }
}

fn log(batch: &Batch, names: &Names) -> Written {
    let rows = batch.items.iter().enumerate().map(|(place, item)| log_row(place, item, &batch.include)).collect();
    Written { tables: vec![(log_table(names), rows)], ..Written::default() }
}

fn log_row(place: usize, item: &Item, include: &[Include]) -> Row {
    let event = &item.event;
    let text = |text: Option<&String>| text.map_or(Cell::Null, |text| Cell::Text(text.clone()));
    let json = |wanted: Include, text: Option<&String>| match text {
        Some(text) if include.contains(&wanted) => Cell::Json(text.clone()),
        _ => Cell::Null,
    };
    let (record_id, remote_id) = match &event.payload {
        Payload::Record { id, remote_id, .. } => {
            (Cell::Text(uuid::Uuid::from_bytes(*id).to_string()), Cell::Text(remote_id.clone()))
        }
        Payload::Plain(_) => (Cell::Null, named(event).map_or(Cell::Null, Cell::Text)),
    };
    let changed = serde_json::to_string(&event.changed_fields).unwrap_or_default();
    let changed = Some(changed).filter(|_| !event.changed_fields.is_empty());
    let cells = vec![
        Cell::Text(item.id.to_string()),
        Cell::Integer(seq(item)),
        Cell::Text(event.topic.clone()),
        text(event.update_type.as_ref()),
        event.connection.map_or(Cell::Null, |id| Cell::Text(id.to_string())),
        event.user.map_or(Cell::Null, |id| Cell::Text(id.to_string())),
        text(event.username.as_ref()),
        text(event.app.as_ref()),
        record_id,
        remote_id,
        time(event.happened_at),
        time(event.accepted_at),
        Cell::Json(item.payload.to_string()),
        json(Include::ChangedFields, changed.as_ref()),
        json(Include::Previous, event.previous.as_ref()),
        json(Include::Raw, event.raw.as_ref()),
    ];
    Row { cells, items: vec![place], seq: seq(item), remove: false }
}

/// What stands between the key and the engine's own columns: of a topic with a model, a column for each of its fields.
/// Only a field of just that name stands in it, so that no app's own field can take the place of a key or a sequence.
fn own_columns(topic: &str) -> Vec<(&'static str, Column)> {
    let Some(model) = Catalogue::embedded().data(topic) else {
        return vec![(NO_MODEL, column(PAYLOAD, Type::Json))];
    };
    let top = model.fields.iter().filter(|field| !field.path.contains(['.', '[']));
    top.map(|field| {
        let kind = match (field.kind.as_str(), field.format.as_deref()) {
            ("string", Some("date-time")) => Type::Time,
            ("string", Some("date")) => Type::Date,
            ("string", _) => Type::Text,
            ("number", _) => Type::Number,
            ("integer", _) => Type::Integer,
            ("boolean", _) => Type::Boolean,
            _ => Type::Json,
        };
        (field.path.as_str(), column(&snake(&field.path), kind))
    })
    .collect()
}

fn mirror_table(topic: &str, names: &Names) -> Table {
    let mut columns = vec![
        required("connection_id", Type::Id),
        required("remote_id", Type::Key),
        column("id", Type::Id),
        column("user_id", Type::Id),
    ];
    columns.extend(own_columns(topic).into_iter().map(|(_, column)| column));
    columns.extend([
        column("remote_created_at", Type::Time),
        column("remote_updated_at", Type::Time),
        column("created_at", Type::Time),
        column("updated_at", Type::Time),
        column(DELETED_AT, Type::Time),
        required(SEQ, Type::Integer),
        required("_event_id", Type::Id),
        column(EXTRA, Type::Json),
    ]);
    Table { name: names.mirror(topic), columns, key: &["connection_id", "remote_id"] }
}

fn mirror(batch: &Batch, names: &Names, deletes: Deletes) -> Written {
    let mut written = Written::default();
    let mut tables: HashMap<&str, usize> = HashMap::new();
    let mut fields: Vec<HashMap<&str, Column>> = Vec::new();
    let mut rows: HashMap<(usize, String, String), usize> = HashMap::new();
    for (place, item) in batch.items.iter().enumerate() {
        let topic = item.event.topic.as_str();
        let Some(remote_id) = named(&item.event) else {
            written.refused.push((place, Fault::new(Trouble::NoRecord, "")));
            continue;
        };
        if remote_id.len() > REMOTE_ID_MAX_BYTES {
            let detail = format!("its id has {} bytes, a key takes {REMOTE_ID_MAX_BYTES}", remote_id.len());
            written.refused.push((place, Fault::new(Trouble::TooLarge, detail)));
            continue;
        }
        let table = *tables.entry(topic).or_insert_with(|| {
            written.tables.push((mirror_table(topic, names), Vec::new()));
            fields.push(own_columns(topic).into_iter().collect());
            written.tables.len() - 1
        });
        let connection = item.event.connection.map(|id| id.to_string()).unwrap_or_default();
        let Some(((shape, into), fields)) = written.tables.get_mut(table).zip(fields.get(table)) else { continue };
        let key = (table, connection.clone(), remote_id.clone());
        let mut row = mirror_row(place, item, (shape, fields), (connection, remote_id), &mut written.notes);
        row.remove = deletes == Deletes::Remove && is_deletion(&item.event);
        match rows.get(&key).and_then(|place| into.get_mut(*place)) {
            None => {
                rows.insert(key, into.len());
                into.push(row);
            }
            Some(known) => {
                let mut items = std::mem::take(&mut known.items);
                items.append(&mut row.items);
                if row.seq >= known.seq {
                    *known = row;
                }
                known.items = items;
            }
        }
    }
    written
}

fn mirror_row(
    place: usize,
    item: &Item,
    (table, own): (&Table, &HashMap<&str, Column>),
    (connection, remote_id): (String, String),
    notes: &mut Vec<String>,
) -> Row {
    let event = &item.event;
    let mut cells: HashMap<String, Cell> = HashMap::new();
    let mut put = |name: &str, cell: Cell| {
        cells.insert(name.to_owned(), cell);
    };
    put("connection_id", Cell::Text(connection));
    put("remote_id", Cell::Text(remote_id));
    put("user_id", event.user.map_or(Cell::Null, |id| Cell::Text(id.to_string())));
    put(SEQ, Cell::Integer(seq(item)));
    put("_event_id", Cell::Text(item.id.to_string()));
    if is_deletion(event) {
        put(DELETED_AT, time(event.happened_at));
    }
    let fields = match &event.payload {
        Payload::Plain(text) if own.contains_key(NO_MODEL) => {
            put(PAYLOAD, Cell::Json(text.clone()));
            None
        }
        // Published under a topic that has a model: its fields, as far as they are the model's.
        Payload::Plain(text) => Some(text),
        Payload::Record { id, remote_created_at, remote_updated_at, created_at, updated_at, fields, .. } => {
            put("id", Cell::Text(uuid::Uuid::from_bytes(*id).to_string()));
            put("remote_created_at", remote_created_at.map_or(Cell::Null, time));
            put("remote_updated_at", remote_updated_at.map_or(Cell::Null, time));
            put("created_at", time(*created_at));
            put("updated_at", time(*updated_at));
            Some(fields)
        }
    };
    let mut fields: Map<String, Value> = fields.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    if let Payload::Plain(_) = &event.payload {
        // It stands in `remote_id`.
        fields.shift_remove("id");
    }
    let mut extra = Map::new();
    for (name, value) in fields {
        let column = own.get(name.as_str());
        match column.map(|column| (column, cell(column.kind, &value))) {
            Some((column, Some(cell))) => put(&column.name, cell),
            other => {
                let why = other.map_or("it has no column", |_| "its column has another type");
                let note = format!("{}: {name}: {why}, so it is kept in {EXTRA}", event.topic);
                if notes.len() < NOTES_MAX && !notes.contains(&note) {
                    notes.push(note);
                }
                extra.insert(name, value);
            }
        }
    }
    if !extra.is_empty() {
        put(EXTRA, Cell::Json(Value::Object(extra).to_string()));
    }
    let cells = table.columns.iter().map(|column| cells.remove(&column.name).unwrap_or(Cell::Null)).collect();
    Row { cells, items: vec![place], seq: seq(item), remove: false }
}
