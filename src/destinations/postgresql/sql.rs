//! The statements: pure text, from a table and a shape.
//!
//! Always true: every name is quoted, so that no setting and no topic is ever read as SQL; values are bound, never
//! spliced. Not here: what is bound (`encode`), when a statement is sent (`write`, `tables`).

use super::settings::JsonType;
use crate::destinations::rows::{Column, SEQ, Table, Type};

/// The most bytes of a name (NAMEDATALEN - 1). A longer one would be cut silently.
pub(super) const NAME_MAX_BYTES: usize = 63;

/// A name, quoted.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `"schema"."table"`.
pub(super) fn path(schema: &str, table: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(table))
}

/// The type of a column that we make. Keys are compared byte by byte, which also makes their index quick.
pub(super) fn column_type(kind: Type, json: JsonType) -> &'static str {
    match kind {
        Type::Id | Type::Key => "text COLLATE \"C\"",
        Type::Text => "text",
        Type::Integer => "bigint",
        Type::Number => "numeric",
        Type::Boolean => "boolean",
        Type::Time => "timestamp with time zone",
        Type::Date => "date",
        Type::Json if json == JsonType::Json => "json",
        Type::Json => "jsonb",
    }
}

/// Whether a column of that type (as `format_type` says it, without its modifier) holds what we write.
pub(super) fn holds(kind: Type, found: &str) -> bool {
    match kind {
        Type::Id | Type::Key | Type::Text => matches!(found, "text" | "character varying"),
        Type::Integer => matches!(found, "bigint" | "numeric"),
        Type::Number => found == "numeric",
        Type::Boolean => found == "boolean",
        Type::Time => found == "timestamp with time zone",
        Type::Date => found == "date",
        Type::Json => matches!(found, "jsonb" | "json"),
    }
}

/// What makes the table. Only its key and what is always there cannot be null.
pub(super) fn create(schema: &str, table: &Table, json: JsonType) -> String {
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| {
            let end = if column.nullable { "" } else { " NOT NULL" };
            format!("{} {}{end}", quoted(&column.name), column_type(column.kind, json))
        })
        .collect();
    let key = list(table.key.iter().copied());
    format!("CREATE TABLE IF NOT EXISTS {} ({}, PRIMARY KEY ({key}))", path(schema, &table.name), columns.join(", "))
}

/// What adds columns to a table that is there. They can be null, whatever they are: rows may be there already.
pub(super) fn add(schema: &str, table: &Table, missing: &[&Column], json: JsonType) -> String {
    let add = |column: &&Column| {
        format!("ADD COLUMN IF NOT EXISTS {} {}", quoted(&column.name), column_type(column.kind, json))
    };
    let columns: Vec<String> = missing.iter().map(add).collect();
    format!("ALTER TABLE {} {}", path(schema, &table.name), columns.join(", "))
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// A row that is there stays as it is.
    Append,
    /// The row with the greater sequence wins.
    Mirror,
}

/// Writes rows: one array per column, from `$1` on.
pub(super) fn insert(schema: &str, table: &Table, json: JsonType, write: Write) -> String {
    let names = list(table.columns.iter().map(|column| column.name.as_str()));
    let values: Vec<String> = table
        .columns
        .iter()
        .map(|column| {
            let cast = match column.kind {
                Type::Number => "::numeric",
                Type::Json if json == JsonType::Json => "::json",
                Type::Json => "::jsonb",
                _ => "",
            };
            format!("x.{}{cast}", quoted(&column.name))
        })
        .collect();
    let arrays: Vec<String> = (1..=table.columns.len()).map(|number| format!("${number}")).collect();
    let key = list(table.key.iter().copied());
    let conflict = match write {
        Write::Append => "DO NOTHING".to_owned(),
        Write::Mirror => {
            let others = table.columns.iter().filter(|column| !table.key.contains(&column.name.as_str()));
            let set: Vec<String> = others
                .map(|column| {
                    let name = quoted(&column.name);
                    format!("{name} = excluded.{name}")
                })
                .collect();
            format!("DO UPDATE SET {} WHERE excluded.{} >= t.{}", set.join(", "), quoted(SEQ), quoted(SEQ))
        }
    };
    format!(
        "INSERT INTO {} AS t ({names}) SELECT {} FROM unnest({}) AS x({names}) ON CONFLICT ({key}) {conflict}",
        path(schema, &table.name),
        values.join(", "),
        arrays.join(", "),
    )
}

/// Removes rows of a mirror: `$1` connection ids, `$2` remote ids, `$3` the sequences of their deletions.
pub(super) fn remove(schema: &str, table: &Table) -> String {
    format!(
        "DELETE FROM {} AS t USING unnest($1, $2, $3) AS x(c, r, s) \
         WHERE t.\"connection_id\" = x.c AND t.\"remote_id\" = x.r AND t.{} <= x.s",
        path(schema, &table.name),
        quoted(SEQ)
    )
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(quoted).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let column = |name: &str, kind, nullable| Column { name: name.to_owned(), kind, nullable };
        let columns = vec![
            column("connection_id", Type::Id, false),
            column("remote_id", Type::Key, false),
            column("amount", Type::Number, true),
            column("_seq", Type::Integer, false),
        ];
        Table { name: "a\"b".to_owned(), columns, key: &["connection_id", "remote_id"] }
    }

    #[test]
    fn statements_quote_every_name() {
        assert_eq!(
            create("s", &table(), JsonType::Jsonb),
            "CREATE TABLE IF NOT EXISTS \"s\".\"a\"\"b\" (\"connection_id\" text COLLATE \"C\" NOT NULL, \
             \"remote_id\" text COLLATE \"C\" NOT NULL, \"amount\" numeric, \"_seq\" bigint NOT NULL, \
             PRIMARY KEY (\"connection_id\", \"remote_id\"))"
        );
        assert_eq!(
            insert("s", &table(), JsonType::Jsonb, Write::Mirror),
            "INSERT INTO \"s\".\"a\"\"b\" AS t (\"connection_id\", \"remote_id\", \"amount\", \"_seq\") \
             SELECT x.\"connection_id\", x.\"remote_id\", x.\"amount\"::numeric, x.\"_seq\" \
             FROM unnest($1, $2, $3, $4) AS x(\"connection_id\", \"remote_id\", \"amount\", \"_seq\") \
             ON CONFLICT (\"connection_id\", \"remote_id\") DO UPDATE SET \"amount\" = excluded.\"amount\", \
             \"_seq\" = excluded.\"_seq\" WHERE excluded.\"_seq\" >= t.\"_seq\""
        );
        assert!(insert("s", &table(), JsonType::Json, Write::Append).ends_with("DO NOTHING"));
        let missing = &table().columns;
        let missing: Vec<&Column> = missing.iter().skip(2).take(1).collect();
        assert_eq!(
            add("s", &table(), &missing, JsonType::Jsonb),
            "ALTER TABLE \"s\".\"a\"\"b\" ADD COLUMN IF NOT EXISTS \"amount\" numeric"
        );
        assert!(remove("s", &table()).contains("t.\"_seq\" <= x.s"));
    }
}
