//! The statements, and rows as COPY reads them.
//!
//! Always true: names come from the settings and the models, and are quoted; nothing of an event is in a statement; the
//! statements of a batch can be repeated: they end in the same rows. Not here: who runs them (`data`). Sources: Amazon
//! Redshift Database Developer Guide, COPY, "COPY from JSON format", SUPER type, "Merging"; Quotas and limits.

use serde_json::{Map, Value};

use super::super::driver::Fault;
use super::super::rows::{Cell, Column, DELETED_AT, EXTRA, Row, SEQ, Table, Type};
use super::super::warehouse::{Bounds, decimal};
use crate::domain::destination::{Deletes, Shape};
use crate::domain::trouble::Trouble;

/// Where rows stand before they are in their table.
pub const STAGE: &str = "tidemill_stage";
/// The most bytes of a VARCHAR.
const TEXT_MAX_BYTES: usize = 65_535;
/// Digits of a DECIMAL(38,9) before and after the point.
const EXACT: Bounds = Bounds { whole_digits: 29, fraction_digits: 9, part_bytes: usize::MAX };

/// A column's type.
pub fn kind(kind: Type) -> &'static str {
    match kind {
        Type::Id => "VARCHAR(64)",
        Type::Key => "VARCHAR(512)",
        Type::Text => "VARCHAR(65535)",
        Type::Integer => "BIGINT",
        Type::Number => "DECIMAL(38,9)",
        Type::Boolean => "BOOLEAN",
        Type::Time => "TIMESTAMPTZ",
        Type::Date => "DATE",
        Type::Json => "SUPER",
    }
}

/// What the catalogue calls that type.
pub fn catalogue_name(kind: Type) -> &'static str {
    match kind {
        Type::Id | Type::Key | Type::Text => "character varying",
        Type::Integer => "bigint",
        Type::Number => "numeric",
        Type::Boolean => "boolean",
        Type::Time => "timestamp with time zone",
        Type::Date => "date",
        Type::Json => "super",
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `"schema"."table"`.
pub fn full(schema: &str, table: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(table))
}

/// Makes a table.
pub fn create(schema: &str, table: &Table) -> String {
    let column = |c: &Column| {
        let null = if c.nullable { "" } else { " NOT NULL" };
        format!("{} {}{null}", quoted(&c.name), kind(c.kind))
    };
    let columns: Vec<String> = table.columns.iter().map(column).collect();
    let key: Vec<String> = table.key.iter().map(|name| quoted(name)).collect();
    let key = key.join(", ");
    let sort = if table.key == ["event_id"] { quoted("received_at") } else { key.clone() };
    format!(
        "CREATE TABLE IF NOT EXISTS {} ({}, PRIMARY KEY ({key})) SORTKEY ({sort})",
        full(schema, &table.name),
        columns.join(", ")
    )
}

/// Adds a column.
pub fn add(schema: &str, table: &str, column: &Column) -> String {
    format!("ALTER TABLE {} ADD COLUMN {} {}", full(schema, table), quoted(&column.name), kind(column.kind))
}

/// How COPY gets at what is staged.
pub struct Staged<'a> {
    /// `s3://bucket/key` of the manifest.
    pub manifest: &'a str,
    /// The role of the cluster, or `default`.
    pub role: &'a str,
    pub region: &'a str,
}

/// One transaction: staged rows to their table.
pub fn load(schema: &str, table: &Table, shape: Shape, staged: &Staged<'_>) -> Vec<String> {
    let target = full(schema, &table.name);
    let name = quoted(&table.name);
    let role = if staged.role == "default" { "default".to_owned() } else { format!("'{}'", staged.role) };
    let columns: Vec<String> = table.columns.iter().map(|column| quoted(&column.name)).collect();
    let columns = columns.join(", ");
    let same: Vec<String> = table.key.iter().map(|key| format!("{name}.{0} = {STAGE}.{0}", quoted(key))).collect();
    let same = same.join(" AND ");
    let mut all = vec![
        // Where a cluster isolates by snapshots, two that both find no row would both write it.
        format!("LOCK {target}"),
        format!("CREATE TEMP TABLE {STAGE} (LIKE {target})"),
        format!(
            "COPY {STAGE} FROM '{}' IAM_ROLE {role} REGION '{}' MANIFEST FORMAT JSON 'auto' GZIP TIMEFORMAT 'auto' \
             DATEFORMAT 'auto' COMPUPDATE OFF STATUPDATE OFF",
            staged.manifest, staged.region
        ),
    ];
    let mut chosen = String::new();
    match shape {
        // The table is sorted by it, so that what is older is not read.
        Shape::Append => all.push(format!(
            "DELETE FROM {STAGE} USING {target} WHERE {same} AND {name}.{0} >= (SELECT min({0}) FROM {STAGE})",
            quoted("received_at")
        )),
        Shape::Mirror(deletes) => {
            let seq = quoted(SEQ);
            all.push(format!("DELETE FROM {STAGE} USING {target} WHERE {same} AND {name}.{seq} > {STAGE}.{seq}"));
            all.push(format!("DELETE FROM {target} USING {STAGE} WHERE {same}"));
            if deletes == Deletes::Remove {
                chosen = format!(" WHERE {} IS NULL", quoted(DELETED_AT));
            }
        }
    }
    all.push(format!("INSERT INTO {target} ({columns}) SELECT {columns} FROM {STAGE}{chosen}"));
    all.push(format!("DROP TABLE {STAGE}"));
    all
}

/// A row as a line of JSON, by column. What its column cannot hold goes to `_extra`; `notes` says so. A log has no `_extra`.
///
/// # Errors
/// What its column cannot hold, in a log.
pub fn line(table: &Table, row: &Row, notes: &mut Vec<String>) -> Result<String, Fault> {
    let has_extra = table.columns.iter().any(|column| column.name == EXTRA);
    let mut extra = Map::new();
    let mut fields: Vec<(&str, String)> = Vec::with_capacity(row.cells.len());
    for (column, cell) in table.columns.iter().zip(&row.cells) {
        match value(column, cell) {
            Held::Nothing => {}
            Held::As(json) => fields.push((&column.name, json)),
            Held::Not(_, why) if !has_extra => {
                return Err(Fault::new(Trouble::TooLarge, format!("{}: {why}", column.name)));
            }
            Held::Not(value, why) => {
                let note = format!("{}: {}: {why}, so it is kept in {EXTRA}", table.name, column.name);
                if !notes.contains(&note) {
                    notes.push(note);
                }
                extra.insert(column.name.clone(), value);
            }
        }
    }
    if !extra.is_empty() {
        let known = fields.iter().position(|(name, _)| *name == EXTRA).map(|at| fields.remove(at).1);
        let known: Option<Map<String, Value>> = known.and_then(|text| serde_json::from_str(&text).ok());
        let mut all = known.unwrap_or_default();
        all.extend(extra);
        fields.push((EXTRA, without_nul(&Value::Object(all).to_string())));
    }
    let fields: Vec<String> = fields.into_iter().map(|(name, json)| format!("\"{name}\":{json}")).collect();
    Ok(format!("{{{}}}\n", fields.join(",")))
}

enum Held {
    Nothing,
    As(String),
    Not(Value, &'static str),
}

fn value(column: &Column, cell: &Cell) -> Held {
    let text = |text: &str| Held::As(without_nul(&Value::from(text).to_string()));
    match cell {
        Cell::Null => Held::Nothing,
        Cell::Text(long) if long.len() > TEXT_MAX_BYTES && column.nullable => {
            Held::Not(Value::from(long.as_str()), "it is longer than a VARCHAR takes")
        }
        Cell::Text(short) => text(short),
        Cell::Integer(n) => Held::As(n.to_string()),
        Cell::Number(number) => match decimal(number, EXACT) {
            Some(number) => Held::As(number),
            None => Held::Not(Value::from(number.as_str()), "it has more digits than DECIMAL(38,9)"),
        },
        Cell::Boolean(b) => Held::As(b.to_string()),
        Cell::Time(at) => text(&at.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string()),
        Cell::Date(day) => text(&day.to_string()),
        Cell::Json(json) => Held::As(without_nul(&json.replace(['\n', '\r'], " "))),
    }
}

/// JSON without the escape of U+0000, which neither VARCHAR nor SUPER takes: U+FFFD stands in its place.
fn without_nul(json: &str) -> String {
    if !json.contains("\\u0000") {
        return json.to_owned();
    }
    let (mut out, mut rest) = (String::with_capacity(json.len()), json);
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = escape.strip_prefix("\\u0000") {
            out.push_str("\\ufffd");
            rest = after;
        } else {
            // A backslash and what it escapes stay together, so that `\\u0000` is no escape of U+0000.
            let end = escape.char_indices().nth(2).map_or(escape.len(), |(at, _)| at);
            let (pair, after) = escape.split_at(end);
            out.push_str(pair);
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_is_replaced_and_text_that_only_looks_like_one_is_not() {
        assert_eq!(without_nul(r#""a\u0000b""#), r#""a\ufffdb""#);
        assert_eq!(without_nul(r#""a\\u0000b""#), r#""a\\u0000b""#);
        assert_eq!(without_nul(r#""\\\u0000é""#), r#""\\\ufffdé""#);
    }
}
