//! Tables: made on first use, given the columns they lack, and refused if they have another shape.
//!
//! Always true: a table that we write to has exactly the key that decides which rows are the same, compared byte by byte,
//! and no other unique key, since ON DUPLICATE KEY UPDATE would take the row of that one. Not here: rows (`write`).

use mysql_async::prelude::Queryable;

use super::link::Link;
use super::literal;
use super::request::{Column, Head, Kind};
use super::verdicts::Stop;
use crate::destinations::driver::{Fault, Verdict};
use crate::domain::trouble::Trouble;

/// A column that is there.
struct Found {
    name: String,
    /// `varchar`, …
    kind: String,
    /// None: it holds bytes or no text.
    collation: Option<String>,
    takes_nulls: bool,
}

/// Makes the table if it is not there, adds what it lacks, checks the rest; says what was done.
pub(super) async fn ensure(link: &mut Link, head: &Head) -> Result<&'static str, Stop> {
    let found = columns(link, &head.table).await?;
    if found.is_empty() {
        let sql = create(head, is_mariadb(link));
        link.conn.query_drop(sql).await?;
        return Ok("made");
    }
    let missing = check(head, &found)?;
    check_keys(link, head).await?;
    if missing.is_empty() {
        return Ok("there");
    }
    let maria = is_mariadb(link);
    let added: Vec<_> = missing.iter().map(|column| format!("ADD COLUMN {}", definition(column, maria))).collect();
    let sql = format!("ALTER TABLE {} {}", literal::name(&head.table), added.join(", "));
    link.conn.query_drop(sql).await?;
    Ok("there; columns were added")
}

/// Whether a table of that name is there with the shape that it needs; nothing is changed.
pub(super) async fn look(link: &mut Link, head: &Head) -> Result<(), Stop> {
    let found = columns(link, &head.table).await?;
    if !found.is_empty() {
        check(head, &found)?;
        check_keys(link, head).await?;
    }
    Ok(())
}

fn is_mariadb(link: &Link) -> bool {
    link.version.to_ascii_lowercase().contains("mariadb")
}

async fn columns(link: &mut Link, table: &str) -> Result<Vec<Found>, Stop> {
    let mut sql = "SELECT column_name, data_type, collation_name, is_nullable = 'YES' FROM information_schema.columns \
                   WHERE table_schema = DATABASE() AND table_name = "
        .to_owned();
    literal::push_text(table, &mut sql);
    sql.push_str(" ORDER BY ordinal_position LIMIT 5000");
    let rows: Vec<(String, String, Option<String>, bool)> = link.conn.query(sql).await?;
    let found = |(name, kind, collation, takes_nulls)| Found { name, kind, collation, takes_nulls };
    Ok(rows.into_iter().map(found).collect())
}

/// The columns that can be added.
fn check<'a>(head: &'a Head, found: &[Found]) -> Result<Vec<&'a Column>, Stop> {
    let mut missing = Vec::new();
    for column in &head.columns {
        let Some(there) = found.iter().find(|found| found.name.eq_ignore_ascii_case(&column.name)) else {
            if !column.nullable {
                return Err(mismatch(head, &format!("it has no column {}", column.name)));
            }
            missing.push(column);
            continue;
        };
        let kind = there.kind.to_ascii_lowercase();
        if !holding(column.kind).contains(&kind.as_str()) {
            let wanted = definition(column, false);
            return Err(mismatch(head, &format!("its column {} is {kind}, which should be {wanted}", column.name)));
        }
        if column.nullable && !there.takes_nulls {
            let message = format!("its column {} takes no nulls, but not every event has a value for it", column.name);
            return Err(mismatch(head, &message));
        }
        if head.key.contains(&column.name) && there.collation.as_ref().is_some_and(|found| is_loose(column, found)) {
            let message =
                format!("its key column {} takes other letters, or blanks at the end, for the same", column.name);
            return Err(mismatch(head, &message));
        }
    }
    Ok(missing)
}

/// Whether different ids could be one key. Ids of apps may end with blanks, which most collations do not compare (MySQL
/// manual, "The binary Collation Compared to _bin Collations"; MariaDB, "Collations": NO PAD); ours have none.
fn is_loose(column: &Column, collation: &str) -> bool {
    let is_exact = match column.kind {
        Kind::Key => collation.ends_with("_nopad_bin") || collation == "utf8mb4_0900_bin",
        _ => collation.ends_with("_bin"),
    };
    !is_exact && collation != "binary"
}

async fn check_keys(link: &mut Link, head: &Head) -> Result<(), Stop> {
    let mut sql = "SELECT index_name, column_name, sub_part FROM information_schema.statistics \
                   WHERE non_unique = 0 AND table_schema = DATABASE() AND table_name = "
        .to_owned();
    literal::push_text(&head.table, &mut sql);
    sql.push_str(" ORDER BY index_name, seq_in_index LIMIT 5000");
    let rows: Vec<(String, Option<String>, Option<u64>)> = link.conn.query(sql).await?;
    let mut keys: Vec<(String, Vec<String>)> = Vec::new();
    for (index, column, prefix) in rows {
        // An expression has no column, and a prefix is not the whole of one.
        let column = column.filter(|_| prefix.is_none()).unwrap_or_default().to_ascii_lowercase();
        match keys.last_mut() {
            Some((name, columns)) if *name == index => columns.push(column),
            _ => keys.push((index, vec![column])),
        }
    }
    let is_ours =
        |columns: &[String]| columns.len() == head.key.len() && head.key.iter().all(|name| columns.contains(name));
    if keys.is_empty() {
        let message = format!("it has no primary key, which should be ({})", head.key.join(", "));
        return Err(mismatch(head, &message));
    }
    match keys.iter().find(|(_, columns)| !is_ours(columns)) {
        None => Ok(()),
        Some((index, _)) => {
            let message = format!("its unique key {index} is not ({})", head.key.join(", "));
            Err(mismatch(head, &message))
        }
    }
}

fn mismatch(head: &Head, what: &str) -> Stop {
    let detail = format!("table {}: {what}; alter it, or name another table or prefix", head.table);
    Verdict::Config(Fault::new(Trouble::TableMismatch, detail)).into()
}

/// The types that can hold what a column is written.
fn holding(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Id => &["varchar", "char", "text", "varbinary"],
        Kind::Key => &["varchar", "varbinary"],
        Kind::Text => &["varchar", "tinytext", "text", "mediumtext", "longtext"],
        Kind::Integer => &["bigint", "int", "decimal"],
        Kind::Number => &["decimal"],
        Kind::Boolean => &["tinyint", "smallint", "int", "bit"],
        Kind::Time => &["datetime", "timestamp"],
        Kind::Date => &["date"],
        Kind::Json => &["longtext", "mediumtext", "text", "json"],
    }
}

fn definition(column: &Column, maria: bool) -> String {
    let kind = match column.kind {
        Kind::Id => "VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin",
        // Without padding, or `a` and `a ` would be one record. MySQL has such from 8.0.17, MariaDB from 10.2.
        Kind::Key if maria => "VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
        Kind::Key => "VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin",
        Kind::Text => "LONGTEXT",
        Kind::Integer => "BIGINT",
        Kind::Number => "DECIMAL(65,30)",
        Kind::Boolean => "BOOLEAN",
        Kind::Time => "DATETIME(6)",
        Kind::Date => "DATE",
        // Text, and so to the digit what was sent: MySQL's JSON makes a float of a number wider than 64 bits.
        Kind::Json => "LONGTEXT COMMENT 'JSON'",
    };
    // The place of NULL in a definition is before COMMENT.
    let (kind, comment) = kind
        .split_once(" COMMENT ")
        .map_or((kind, String::new()), |(kind, comment)| (kind, format!(" COMMENT {comment}")));
    let null = if column.nullable { "NULL" } else { "NOT NULL" };
    format!("{} {kind} {null}{comment}", literal::name(&column.name))
}

fn create(head: &Head, maria: bool) -> String {
    let mut lines: Vec<_> = head.columns.iter().map(|column| definition(column, maria)).collect();
    let key: Vec<_> = head.key.iter().map(|name| literal::name(name)).collect();
    lines.push(format!("PRIMARY KEY ({})", key.join(", ")));
    format!(
        "CREATE TABLE IF NOT EXISTS {} ({}) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 \
         COLLATE utf8mb4_bin",
        literal::name(&head.table),
        lines.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        let column = |name: &str, kind, nullable| Column { name: name.to_owned(), kind, nullable };
        Head {
            table: "t".to_owned(),
            columns: vec![column("event_id", Kind::Id, false), column("payload", Kind::Json, true)],
            key: vec!["event_id".to_owned()],
            mirror: false,
        }
    }

    fn found(name: &str, kind: &str, collation: &str) -> Found {
        Found { name: name.to_owned(), kind: kind.to_owned(), collation: Some(collation.to_owned()), takes_nulls: true }
    }

    #[test]
    fn a_table_is_made_with_ids_compared_byte_by_byte() {
        assert_eq!(
            create(&head(), true),
            "CREATE TABLE IF NOT EXISTS `t` (`event_id` VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, \
             `payload` LONGTEXT NULL COMMENT 'JSON', PRIMARY KEY (`event_id`)) ENGINE=InnoDB ROW_FORMAT=DYNAMIC \
             DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        );
    }

    #[test]
    fn a_missing_column_is_added_and_another_type_or_case_refused() {
        let head = head();
        let missing = check(&head, &[found("event_id", "varchar", "ascii_bin")]).unwrap();
        assert_eq!(missing.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["payload"]);
        assert!(check(&head, &[found("payload", "longtext", "utf8mb4_bin")]).is_err(), "a key cannot be added");
        assert!(check(&head, &[found("event_id", "int", "")]).is_err());
        assert!(check(&head, &[found("event_id", "varchar", "utf8mb4_general_ci")]).is_err());
        let full = Found { takes_nulls: false, ..found("payload", "longtext", "utf8mb4_bin") };
        assert!(check(&head, &[found("event_id", "varchar", "ascii_bin"), full]).is_err(), "it takes no nulls");
    }

    #[test]
    fn ids_of_apps_are_compared_with_their_blanks() {
        let column = |kind| Column { name: "k".to_owned(), kind, nullable: false };
        for (kind, collation, loose) in [
            (Kind::Key, "utf8mb4_nopad_bin", false),
            (Kind::Key, "utf8mb4_0900_bin", false),
            (Kind::Key, "binary", false),
            (Kind::Key, "utf8mb4_bin", true),
            (Kind::Key, "utf8mb4_0900_as_cs", true),
            (Kind::Id, "ascii_bin", false),
            (Kind::Id, "ascii_general_ci", true),
        ] {
            assert_eq!(is_loose(&column(kind), collation), loose, "{collation}");
        }
    }
}
