//! Tables: looked at before the first write, made if they are not there, given columns that they lack.
//!
//! Always true: a table that is there keeps all that it has; one whose key, or the type of one of our columns, is another
//! is not written to, and the fault names what is wrong. Not here: which columns a table has (`destinations::rows`).

use tokio_postgres::Client;
use tokio_postgres::types::Type as Wire;

use super::settings::JsonType;
use super::{judge, sql};
use crate::destinations::driver::{Fault, Verdict};
use crate::destinations::rows::{Column, Table};
use crate::domain::trouble::Trouble;

/// Where tables stand.
pub(super) struct Place<'a> {
    pub(super) schema: &'a str,
    pub(super) json: JsonType,
}

const COLUMNS: &str = "SELECT a.attname::text, format_type(a.atttypid, NULL), \
     a.attnotnull, a.atthasdef OR a.attidentity <> '' FROM pg_catalog.pg_attribute a \
     WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped";
/// Unique indexes that `ON CONFLICT` can mean: the columns of each, sorted.
const KEYS: &str = "SELECT array_to_string(ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a \
     WHERE a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey::int2[]) ORDER BY a.attname::text COLLATE \"C\"), ',') \
     FROM pg_catalog.pg_index i WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid \
     AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL";

/// What a table is found to need before it can be written: a statement, or nothing.
///
/// # Errors
/// `Config(TableMismatch)` if nothing can be done about it, or that of the question.
pub(super) async fn look(client: &Client, place: &Place<'_>, table: &Table) -> Result<Option<String>, Verdict> {
    let path = sql::path(place.schema, &table.name);
    let asked = |error: tokio_postgres::Error| judge::statement(&error);
    let found = client.query_typed(COLUMNS, &[(&path, Wire::TEXT)]).await.map_err(asked)?;
    if found.is_empty() {
        return Ok(Some(sql::create(place.schema, table, place.json)));
    }
    let mut columns = Vec::with_capacity(found.len());
    for row in &found {
        let text = |place| row.try_get::<_, String>(place).map_err(asked);
        let is = |place| row.try_get::<_, bool>(place).map_err(asked);
        columns.push(Found { name: text(0)?, kind: text(1)?, takes_nulls: !is(2)?, has_default: is(3)? });
    }
    let missing = compare(table, &columns)?;
    let keys = client.query_typed(KEYS, &[(&path, Wire::TEXT)]).await.map_err(asked)?;
    let mut key = table.key.to_vec();
    key.sort_unstable();
    let key = key.join(",");
    if !keys.iter().any(|row| row.try_get::<_, String>(0).is_ok_and(|found| found == key)) {
        return Err(mismatch(format!("{}: it has no primary key or unique index on ({key})", table.name)));
    }
    Ok(if missing.is_empty() { None } else { Some(sql::add(place.schema, table, &missing, place.json)) })
}

/// A column that is there.
#[derive(Clone)]
struct Found {
    name: String,
    kind: String,
    takes_nulls: bool,
    has_default: bool,
}

/// The columns that a table lacks, given those that it has.
fn compare<'a>(table: &'a Table, found: &[Found]) -> Result<Vec<&'a Column>, Verdict> {
    let mut missing = Vec::new();
    for column in &table.columns {
        match found.iter().find(|found| found.name == column.name) {
            None => missing.push(column),
            Some(found) if sql::holds(column.kind, &found.kind) => {}
            Some(Found { name, kind, .. }) => {
                let wanted = sql::column_type(column.kind, JsonType::Jsonb);
                return Err(mismatch(format!("{}.{name} has the type {kind}; it must be {wanted}", table.name)));
            }
        }
    }
    for Found { name, has_default, .. } in found.iter().filter(|found| !found.takes_nulls) {
        // Ours are always given a value, if only null; a default is for those that are not.
        let what = match table.columns.iter().find(|column| column.name == *name) {
            Some(column) if column.nullable => "takes no nulls, but not every event has a value for it",
            None if !has_default => "takes no nulls and has no default, but no event has a value for it",
            _ => continue,
        };
        return Err(mismatch(format!("{}.{name} {what}", table.name)));
    }
    Ok(missing)
}

fn mismatch(detail: String) -> Verdict {
    Verdict::Config(Fault::new(Trouble::TableMismatch, detail))
}

/// Whether a verdict may only mean that a table was changed or dropped since it was looked at.
pub(super) fn is_mismatch(verdict: &Verdict) -> bool {
    use crate::domain::delivery::AttemptError;
    matches!(verdict, Verdict::Config(Fault { error: AttemptError::Destination(Trouble::TableMismatch), .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destinations::rows::Type;

    fn table() -> Table {
        let column = |name: &str, kind, nullable| Column { name: name.to_owned(), kind, nullable };
        let columns = vec![column("event_id", Type::Id, false), column("payload", Type::Json, true)];
        Table { name: "t".to_owned(), columns, key: &["event_id"] }
    }

    fn found(name: &str, kind: &str, required: bool) -> Found {
        Found { name: name.to_owned(), kind: kind.to_owned(), takes_nulls: !required, has_default: false }
    }

    #[test]
    fn what_a_table_lacks_is_told_from_what_stands_in_the_way() {
        let table = table();
        let compared = |columns: &[Found]| match compare(&table, columns) {
            Ok(missing) => missing.iter().map(|column| column.name.clone()).collect::<Vec<_>>().join(","),
            Err(Verdict::Config(fault)) => fault.detail,
            Err(other) => panic!("{other:?}"),
        };
        let id = found("event_id", "text", true);
        assert_eq!(compared(&[id.clone(), found("payload", "json", false), found("mine", "integer", false)]), "");
        assert_eq!(compared(std::slice::from_ref(&id)), "payload");
        assert_eq!(
            compared(&[id.clone(), found("payload", "text", false)]),
            "t.payload has the type text; it must be jsonb"
        );
        assert!(compared(&[id.clone(), found("mine", "text", true)]).starts_with("t.mine takes no nulls"));
        let with_default = |column| Found { has_default: true, ..column };
        assert_eq!(
            compared(&[id.clone(), found("payload", "json", false), with_default(found("mine", "text", true))]),
            ""
        );
        for payload in [found("payload", "jsonb", true), with_default(found("payload", "jsonb", true))] {
            assert!(compared(&[id.clone(), payload]).starts_with("t.payload takes no nulls"));
        }
    }
}
