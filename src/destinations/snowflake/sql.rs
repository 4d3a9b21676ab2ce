//! The statements of `snowflake`.
//!
//! Always true: names in a statement are checked and quoted, values are bound, never spliced; a statement run twice does
//! what it does once. Not here: how a statement is run (`wire`).

use std::fmt::Write as _;

use crate::destinations::rows::{Column, SEQ, Table, Type};

/// A name as Snowflake keeps names that are written without quotes: upper-case. Quoted.
pub fn name(text: &str) -> String {
    format!("\"{}\"", text.to_ascii_uppercase().replace('"', "\"\""))
}

/// The type of a column.
fn kind(kind: Type) -> &'static str {
    match kind {
        Type::Id | Type::Key | Type::Text => "VARCHAR",
        Type::Integer => "NUMBER(38,0)",
        Type::Number => "NUMBER(38,9)",
        Type::Boolean => "BOOLEAN",
        Type::Time => "TIMESTAMP_TZ(6)",
        Type::Date => "DATE",
        Type::Json => "VARIANT",
    }
}

/// `CREATE TABLE IF NOT EXISTS …`. A log is clustered by nothing: rows come in the order of receipt, which suits pruning.
pub fn create(table: &Table) -> String {
    let mut columns = String::new();
    for column in &table.columns {
        let null = if column.nullable { "" } else { " NOT NULL" };
        let _ = write!(columns, "{} {}{null}, ", name(&column.name), kind(column.kind));
    }
    let key: Vec<String> = table.key.iter().map(|column| name(column)).collect();
    format!("CREATE TABLE IF NOT EXISTS {} ({columns}PRIMARY KEY ({}))", name(&table.name), key.join(", "))
}

/// `ALTER TABLE … ADD COLUMN IF NOT EXISTS …`.
pub fn add(table: &Table, column: &Column) -> String {
    format!("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} {}", name(&table.name), name(&column.name), kind(column.kind))
}

/// The rows of the bound JSON, typed: an array of arrays of texts, as `warehouse::array` writes them.
fn source(table: &Table) -> String {
    let mut columns = String::new();
    for (place, column) in table.columns.iter().enumerate() {
        let text = format!("F.VALUE[{place}]::VARCHAR");
        let value = match column.kind {
            Type::Id | Type::Key | Type::Text => text,
            Type::Json => format!("PARSE_JSON({text})"),
            other => format!("{text}::{}", kind(other)),
        };
        let _ = write!(columns, "{value} AS {}, ", name(&column.name));
    }
    let last = table.columns.len();
    let rows = "(SELECT PARSE_JSON(?) AS J) R, LATERAL FLATTEN(INPUT => R.J) F";
    format!("SELECT {columns}F.VALUE[{last}]::VARCHAR AS \"_REMOVE\" FROM {rows}")
}

fn insert(table: &Table) -> String {
    let names: Vec<String> = table.columns.iter().map(|column| name(&column.name)).collect();
    let values: Vec<String> = names.iter().map(|name| format!("S.{name}")).collect();
    format!("INSERT ({}) VALUES ({})", names.join(", "), values.join(", "))
}

fn joined(table: &Table) -> String {
    let same = table.key.iter().map(|column| format!("T.{0} = S.{0}", name(column)));
    same.collect::<Vec<_>>().join(" AND ")
}

/// A log: rows whose event is there already are left alone. Only what was received since the earliest event of the batch
/// is looked through: `?` after the rows.
pub fn append(table: &Table) -> String {
    format!(
        "MERGE INTO {} T USING ({}) S ON {} AND T.\"RECEIVED_AT\" >= ?::TIMESTAMP_TZ WHEN NOT MATCHED THEN {}",
        name(&table.name),
        source(table),
        joined(table),
        insert(table)
    )
}

/// A mirror: the later change wins, and a row that is to go goes.
pub fn mirror(table: &Table) -> String {
    let seq = name(SEQ);
    let sets = table.columns.iter().filter(|column| !table.key.contains(&column.name.as_str()));
    let sets: Vec<String> = sets.map(|column| format!("T.{0} = S.{0}", name(&column.name))).collect();
    format!(
        "MERGE INTO {} T USING ({}) S ON {} \
         WHEN MATCHED AND S.\"_REMOVE\" = '1' AND S.{seq} >= T.{seq} THEN DELETE \
         WHEN MATCHED AND S.\"_REMOVE\" IS NULL AND S.{seq} > T.{seq} THEN UPDATE SET {} \
         WHEN NOT MATCHED AND S.\"_REMOVE\" IS NULL THEN {}",
        name(&table.name),
        source(table),
        joined(table),
        sets.join(", "),
        insert(table)
    )
}
