//! Writing a frozen batch: one transaction, all of it or nothing.
//!
//! Always true: within a transaction each statement has a time limit, and so has waiting for a lock; statements are
//! unnamed, so that a pooler between us and the server may hand each transaction to another connection. Not here: the
//! connection (`pool`), what an error means (`judge`).

use futures_util::future::join;
use tokio_postgres::types::{ToSql, Type as Wire};
use tokio_postgres::{Client, Error};

use super::encode::{self, Arrays};
use super::judge;
use super::sql;
use super::tables::{self, Place};
use super::targets::Target;
use crate::destinations::driver::{Fault, Frozen, Verdict};
use crate::destinations::rows::{Names, Table};
use crate::domain::trouble::Trouble;

/// What begins a transaction. A server that is told to answer a commit before it is on its disk answers ours after: what
/// is called written must outlive its crash.
pub(super) fn begin(seconds: u32) -> String {
    format!(
        "BEGIN; SET LOCAL statement_timeout = '{seconds}s'; SET LOCAL lock_timeout = '{}s'; \
         SET LOCAL idle_in_transaction_session_timeout = '{seconds}s'; \
         SELECT set_config('synchronous_commit', 'local', true) WHERE current_setting('synchronous_commit') = 'off'",
        (seconds / 2).max(1)
    )
}

/// A part of a batch, ready to be written.
pub(super) struct Ready<'a> {
    pub(super) target: Target,
    pub(super) table: Table,
    arrays: Arrays<'a>,
}

/// A frozen batch taken apart.
///
/// # Errors
/// `Row`: it is none of ours.
pub(super) fn ready<'a>(frozen: &'a Frozen, names: &Names) -> Result<Vec<Ready<'a>>, Verdict> {
    let unknown = || Verdict::Row(Fault::new(Trouble::Failed, "the batch was frozen by another version"));
    let mut all = Vec::with_capacity(frozen.parts.len());
    for part in &frozen.parts {
        let target = Target::of(&part.target).ok_or_else(unknown)?;
        let table = target.table(names);
        let arrays = encode::arrays(&part.body).ok_or_else(unknown)?;
        if arrays.arrays.len() != table.columns.len() + encode::REMOVED.len() {
            return Err(unknown());
        }
        all.push(Ready { target, table, arrays });
    }
    Ok(all)
}

/// One transaction with all parts.
pub(super) async fn transaction(
    client: &Client,
    place: &Place<'_>,
    seconds: u32,
    parts: &[Ready<'_>],
) -> Result<(), Verdict> {
    let begin = begin(seconds);
    let work = async {
        for part in parts {
            write(client, place, part).await?;
        }
        Ok(())
    };
    // Sent one after the other without waiting: should the first fail, the second is undone with it or, alone in its own
    // transaction, repeated to no effect.
    let (begun, worked) = join(client.batch_execute(&begin), work).await;
    let written: Result<(), Error> = begun.and(worked);
    if let Err(error) = written {
        let verdict = judge::statement(&error);
        let _ = client.batch_execute("ROLLBACK").await;
        return Err(verdict);
    }
    client.batch_execute("COMMIT").await.map_err(|error| judge::statement(&error))
}

/// The statements of a part.
pub(super) async fn write(client: &Client, place: &Place<'_>, part: &Ready<'_>) -> Result<(), Error> {
    let Ready { target, table, arrays: Arrays { written, removed, arrays } } = part;
    let (rows, keys) = arrays.split_at(table.columns.len().min(arrays.len()));
    if *written > 0 {
        let types = table.columns.iter().map(|column| encode::wire(column.kind));
        let bound: Vec<(&(dyn ToSql + Sync), Wire)> =
            rows.iter().map(|array| array as &(dyn ToSql + Sync)).zip(types).collect();
        client.execute_typed(&sql::insert(place.schema, table, place.json, target.write()), &bound).await?;
    }
    if *removed > 0 {
        let bound: Vec<(&(dyn ToSql + Sync), Wire)> =
            keys.iter().map(|array| array as &(dyn ToSql + Sync)).zip(encode::REMOVED).collect();
        client.execute_typed(&sql::remove(place.schema, table), &bound).await?;
    }
    Ok(())
}

/// Makes a table what it has to be, in a transaction of its own. Those who find the same at the same time wait for each
/// other, and look again.
pub(super) async fn ensure(client: &Client, place: &Place<'_>, seconds: u32, table: &Table) -> Result<(), Verdict> {
    if tables::look(client, place, table).await?.is_none() {
        return Ok(());
    }
    let made = async {
        client.batch_execute(&begin(seconds)).await.map_err(|error| judge::statement(&error))?;
        mend(client, place, table).await?;
        client.batch_execute("COMMIT").await.map_err(|error| judge::statement(&error))
    };
    let made = made.await;
    if made.is_err() {
        let _ = client.batch_execute("ROLLBACK").await;
    }
    made
}

/// The same within a transaction that is under way. Says what was done.
pub(super) async fn mend(client: &Client, place: &Place<'_>, table: &Table) -> Result<&'static str, Verdict> {
    let path = sql::path(place.schema, &table.name);
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended('tidemill ' || $1, 0))::text";
    client.query_typed(lock, &[(&path, Wire::TEXT)]).await.map_err(|error| judge::statement(&error))?;
    let Some(statement) = tables::look(client, place, table).await? else { return Ok("there") };
    client.batch_execute(&statement).await.map_err(|error| judge::statement(&error))?;
    Ok(if statement.starts_with("CREATE") { "made" } else { "given the columns that it lacked" })
}
