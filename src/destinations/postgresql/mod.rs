//! `postgresql`: rows in tables of a PostgreSQL database, as a log or as a mirror.
//!
//! Always true: a batch is one transaction; a row of a log is inserted unless its event id is there, a row of a mirror
//! replaces one with a lower sequence only, so a repetition, whole or cut anew, changes nothing; the order of rows by
//! their keys keeps lanes that write to one table out of each other's way. Not here: which rows (`destinations::rows`).

mod encode;
mod fit;
mod judge;
mod pool;
mod settings;
mod sql;
mod tables;
mod targets;
mod text;
mod trial;
mod write;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use self::pool::{Lease, Pool};
use self::settings::Settings;
use self::tables::Place;
use self::targets::Target;
use super::driver::{Answer, Batch, Driver, Fault, Frozen, Kind, Limits, Opening, Part, Probe, Step, Verdict};
use super::rows::{self, Cell, Names, Row};
use crate::domain::delivery::AttemptError;
use crate::domain::trouble::Trouble;
use crate::error::Result;

/// The kind.
pub static KIND: Kind = Kind {
    name: "postgresql",
    title: "PostgreSQL",
    about: "Rows in tables of a PostgreSQL database: one per event, or tables that equal the apps' records.",
    mirrors: true,
    schema: || schemars::schema_for!(Settings),
    open,
};

/// The most notes of one batch.
const NOTES_MAX: usize = 20;
/// So many answers in a row that the server takes no writes are a failover; after that, the owner is told.
const READ_ONLY_MAX: u32 = 5;

struct Postgresql {
    settings: Settings,
    names: Names,
    pool: Pool,
    /// Tables that were looked at, by their targets.
    known: Mutex<HashSet<String>>,
    /// Answers in a row that the server takes no writes.
    read_only: AtomicU32,
}

fn open(opening: Opening) -> Result<Arc<dyn Driver>> {
    let (settings, way) = settings::read(opening.settings)?;
    let connections = usize::try_from(settings.max_connections).unwrap_or(1);
    let pool = Pool::new(opening.client, way, connections)?;
    let names = Names { log: settings.table.clone(), prefix: settings.table_prefix.clone() };
    Ok(Arc::new(Postgresql { settings, names, pool, known: Mutex::default(), read_only: AtomicU32::new(0) }))
}

impl Driver for Postgresql {
    fn limits(&self) -> Limits {
        Limits {
            rows: usize::try_from(self.settings.max_rows).unwrap_or(1),
            bytes: 4 << 20,
            age: Duration::from_secs(self.settings.max_seconds.into()),
            // The server's own limits come first, so that its answer says what was slow.
            timeout: Duration::from_secs(u64::from(self.settings.timeout_seconds) + 5),
            recuts: true,
        }
    }

    fn prepare(&self, batch: &Batch) -> std::result::Result<Frozen, Verdict> {
        let written = rows::written(batch, &self.names);
        let (mut notes, mut parts) = (written.notes, Vec::new());
        let mut note = |text: String| {
            if notes.len() < NOTES_MAX && !notes.contains(&text) {
                notes.push(text);
            }
        };
        for (table, mut rows) in written.tables {
            let mut items: Vec<usize> = rows.iter().flat_map(|row| row.items.iter().copied()).collect();
            items.sort_unstable();
            let Some(first) = items.first().and_then(|item| batch.items.get(*item)) else { continue };
            let target = Target::at(batch.shape, &first.event.topic);
            rows.iter_mut().for_each(|row| fit::fit(&table, row, &mut note));
            rows.sort_by(|a, b| key(a, table.key.len()).cmp(&key(b, table.key.len())));
            let mut altered = |column: &rows::Column| {
                note(format!(
                    "{}.{}: PostgreSQL takes no U+0000, so it is written as \\u0000",
                    table.name, column.name
                ));
            };
            let body = encode::body(&table.columns, &rows, self.settings.json, &mut altered)
                .map_err(|_| Verdict::Row(Fault::new(Trouble::TooLarge, "it has over 2 GiB")))?;
            parts.push(Part { target: target.to_string(), body, items });
        }
        Ok(Frozen { id: batch.id.clone(), parts, items: batch.items.len(), refused: written.refused, notes })
    }

    fn send<'a>(&'a self, frozen: &'a Frozen) -> BoxFuture<'a, Answer> {
        async move {
            let verdict = self.write(frozen).await.err().unwrap_or(Verdict::Done);
            Answer::All(self.patient(verdict))
        }
        .boxed()
    }

    fn test<'a>(&'a self, probe: &'a Probe) -> BoxFuture<'a, Vec<Step>> {
        trial::run(self, probe).boxed()
    }
}

/// The cells of a row's key, which are its table's first columns.
fn key(row: &Row, columns: usize) -> Vec<&str> {
    let cells = row.cells.iter().take(columns);
    cells.map(|cell| if let Cell::Text(text) = cell { text.as_str() } else { "" }).collect()
}

impl Postgresql {
    fn place(&self) -> Place<'_> {
        Place { schema: &self.settings.schema, json: self.settings.json }
    }

    async fn write(&self, frozen: &Frozen) -> std::result::Result<(), Verdict> {
        let parts = write::ready(frozen, &self.names)?;
        if parts.is_empty() {
            return Ok(());
        }
        let lease = self.pool.lease().await?;
        let mut done = self.try_once(&lease, &parts).await;
        if done.as_ref().err().is_some_and(tables::is_mismatch) {
            // A table was dropped or changed since it was looked at.
            self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
            done = self.try_once(&lease, &parts).await;
        }
        // After anything that time mends the connection is not trusted.
        if !matches!(done, Err(Verdict::Retry(_))) {
            self.pool.give_back(lease);
        }
        done
    }

    async fn try_once(&self, lease: &Lease, parts: &[write::Ready<'_>]) -> std::result::Result<(), Verdict> {
        let (place, seconds) = (self.place(), self.settings.timeout_seconds);
        for part in parts {
            let target = part.target.to_string();
            if self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&target) {
                continue;
            }
            write::ensure(&lease.connection.client, &place, seconds, &part.table).await?;
            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(target);
        }
        write::transaction(&lease.connection.client, &place, seconds, parts).await
    }

    /// A server that takes no writes for long is one for the owner.
    fn patient(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Retry(fault) if fault.error == AttemptError::Destination(Trouble::ReadOnly) => {
                let before = self.read_only.fetch_add(1, Ordering::Relaxed);
                if before >= READ_ONLY_MAX { Verdict::Config(fault) } else { Verdict::Retry(fault) }
            }
            other => {
                self.read_only.store(0, Ordering::Relaxed);
                other
            }
        }
    }
}
