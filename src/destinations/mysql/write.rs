//! Writing a batch: one transaction of statements, each as long as the server takes.
//!
//! Always true: a batch is there whole or not at all; a row that is there already stays (log), or gives way to a later
//! one only (mirror), so that a batch can be repeated. Not here: tables (`tables`).

use mysql_async::prelude::Queryable;

use super::link::Link;
use super::literal;
use super::request::{Head, Request};
use super::verdicts::Stop;
use crate::destinations::driver::{Fault, Verdict};
use crate::destinations::rows::SEQ;
use crate::domain::trouble::Trouble;

/// A longer statement gains nothing.
const STATEMENT_MAX_BYTES: usize = 4 << 20;
/// What a packet has beside the statement.
const PACKET_HEAD_BYTES: usize = 1024;

/// Writes all parts of a batch.
pub(super) async fn batch(link: &mut Link, requests: &[Request<'_>]) -> Result<(), Stop> {
    let longest = link.packet.saturating_sub(PACKET_HEAD_BYTES);
    link.conn.query_drop("START TRANSACTION").await?;
    for request in requests {
        for sql in inserts(&request.head, &request.rows, longest)? {
            link.conn.query_drop(sql).await?;
        }
        for sql in deletes(&request.head, &request.gone, longest)? {
            link.conn.query_drop(sql).await?;
        }
    }
    link.conn.query_drop("COMMIT").await?;
    Ok(())
}

fn inserts(head: &Head, rows: &[&str], longest: usize) -> Result<Vec<String>, Stop> {
    let names: Vec<_> = head.columns.iter().map(|column| literal::name(&column.name)).collect();
    let begin = format!("INSERT INTO {} ({}) VALUES ", literal::name(&head.table), names.join(","));
    let end = format!(" ON DUPLICATE KEY UPDATE {}", update(head));
    let fixed = begin.len() + end.len();
    let mut statements = Vec::new();
    let mut sql = String::new();
    for row in rows {
        if fixed + row.len() > longest {
            let detail = format!("a row has {} bytes, and the server takes {longest} (max_allowed_packet)", row.len());
            return Err(Verdict::Row(Fault::new(Trouble::TooLarge, detail)).into());
        }
        if !sql.is_empty() && sql.len() + 1 + row.len() + end.len() > longest.min(STATEMENT_MAX_BYTES) {
            sql.push_str(&end);
            statements.push(std::mem::take(&mut sql));
        }
        sql.push_str(if sql.is_empty() { &begin } else { "," });
        sql.push_str(row);
    }
    if !sql.is_empty() {
        sql.push_str(&end);
        statements.push(sql);
    }
    Ok(statements)
}

/// Assignments are made from left to right, and each sees those before it: [`SEQ`], which all ask for, comes last.
/// `VALUES(…)` is understood by both servers; the alias that MySQL advises since 8.0.20 is a syntax error in MariaDB.
fn update(head: &Head) -> String {
    if !head.mirror {
        let key = head.key.first().map_or_else(String::new, |name| literal::name(name));
        return format!("{key}={key}");
    }
    let seq = literal::name(SEQ);
    let others = head.columns.iter().filter(|column| column.name != SEQ && !head.key.contains(&column.name));
    let mut all: Vec<_> = others
        .map(|column| {
            let name = literal::name(&column.name);
            format!("{name}=IF(VALUES({seq})>={seq},VALUES({name}),{name})")
        })
        .collect();
    all.push(format!("{seq}=GREATEST({seq},VALUES({seq}))"));
    all.join(",")
}

/// One for each row, since its key and its sequence belong together; as many are sent at once as a packet takes, for a
/// thousand journeys to the server may take longer than a batch.
fn deletes(head: &Head, gone: &[&str], longest: usize) -> Result<Vec<String>, Stop> {
    let names: Vec<_> = head.key.iter().map(|name| literal::name(name)).collect();
    let begin = format!("DELETE FROM {} WHERE ({}) IN (", literal::name(&head.table), names.join(","));
    let mut packets: Vec<String> = Vec::new();
    for row in gone {
        // `(key, …, sequence)`: the sequence is a number, so the last comma is the one before it.
        let Some((key, seq)) = row.strip_suffix(')').and_then(|row| row.rsplit_once(',')) else {
            return Err(Verdict::Retry(Fault::new(Trouble::Failed, "the frozen batch cannot be read")).into());
        };
        let sql = format!("{begin}{key})) AND {}<={seq}", literal::name(SEQ));
        if sql.len() > longest {
            let detail = format!("a key has {} bytes, and the server takes {longest} (max_allowed_packet)", key.len());
            return Err(Verdict::Row(Fault::new(Trouble::TooLarge, detail)).into());
        }
        match packets.last_mut().filter(|packet| packet.len() + 1 + sql.len() <= longest.min(STATEMENT_MAX_BYTES)) {
            Some(packet) => {
                packet.push(';');
                packet.push_str(&sql);
            }
            None => packets.push(sql),
        }
    }
    Ok(packets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destinations::mysql::request::{Column, Kind};

    fn head(mirror: bool) -> Head {
        let column = |name: &str, kind| Column { name: name.to_owned(), kind, nullable: false };
        Head {
            table: "t".to_owned(),
            columns: vec![column("k", Kind::Key), column(SEQ, Kind::Integer), column("a", Kind::Text)],
            key: vec!["k".to_owned()],
            mirror,
        }
    }

    #[test]
    fn a_later_row_is_never_overwritten_and_the_sequence_is_assigned_last() {
        assert_eq!(
            inserts(&head(true), &["('x',2,'y')"], 1 << 20).unwrap(),
            ["INSERT INTO `t` (`k`,`_seq`,`a`) VALUES ('x',2,'y') ON DUPLICATE KEY UPDATE \
              `a`=IF(VALUES(`_seq`)>=`_seq`,VALUES(`a`),`a`),`_seq`=GREATEST(`_seq`,VALUES(`_seq`))"]
        );
        let (first, second) = (
            "DELETE FROM `t` WHERE (`k`) IN (('x')) AND `_seq`<=2",
            "DELETE FROM `t` WHERE (`k`) IN (('y')) AND `_seq`<=3",
        );
        let gone = ["('x',2)", "('y',3)"];
        assert_eq!(deletes(&head(true), &gone, 1 << 20).unwrap(), [format!("{first};{second}")]);
        assert_eq!(deletes(&head(true), &gone, 100).unwrap(), [first, second]);
        // One that cannot be sent is not left out.
        let stop = deletes(&head(true), &gone, 10).unwrap_err();
        assert_eq!(stop.fault().error.slug(), "value-too-large");
    }

    #[test]
    fn no_statement_is_longer_than_the_server_takes() {
        let row = format!("('{}',1,'')", "x".repeat(100));
        let rows: Vec<&str> = std::iter::repeat_n(row.as_str(), 50).collect();
        let statements = inserts(&head(false), &rows, 400).unwrap();
        assert!(statements.len() > 1 && statements.iter().all(|sql| sql.len() <= 400));
        assert_eq!(statements.iter().map(|sql| sql.matches("xxxx',").count()).sum::<usize>(), 50);
        assert!(statements.iter().all(|sql| sql.ends_with(" ON DUPLICATE KEY UPDATE `k`=`k`")));
        let stop = inserts(&head(false), &[row.as_str()], 120).unwrap_err();
        assert_eq!(stop.fault().error.slug(), "value-too-large");
    }
}
