//! Lists that show only a part of each record: what changed is fetched whole, so that a record has one shape whichever way
//! it came.
//!
//! Always true: what the snapshot holds as of the same time or a later one is not fetched again, so that looking
//! back costs nothing. Not here: scans, whose ids alone are compared (`scans`).

use super::changes::{Seen as Sight, Sighting};
use super::fields;
use super::pulls::sightings;
use super::run::Run;
use crate::connectors::{AppRecord, CallError, Collection};
use crate::domain::event::Source;
use crate::domain::record::record_id;
use crate::error::Result;

/// The records of a page, whole. One that is gone by now is told as gone.
pub async fn whole(
    run: &Run<'_>,
    c: &Collection,
    records: Vec<AppRecord>,
    source: &Source,
) -> Result<std::result::Result<Vec<Sighting>, CallError>> {
    let connection = run.account.connection.id;
    let id = |record: &AppRecord| record_id(connection, &c.topic, &record.remote_id).into_bytes();
    let ids: Vec<[u8; 16]> = records.iter().map(id).collect();
    let known = run.deps.store.snapshot_rows(connection, &c.key, &ids)?;
    let state = run.deps.store.collection_state(connection, &c.key)?;
    // With a new mapping everything is mapped anew; a first sync that was broken off goes on.
    let remap = state.baseline_at.is_some() && state.mapped_by != run.mapping;
    let mut found = Vec::new();
    for (record, row) in records.into_iter().zip(known) {
        let same = row.is_some_and(|row| {
            row.is_live() && record.updated_at.is_some() && row.version.remote_updated_at >= record.updated_at
        });
        if same && !remap {
            continue;
        }
        let sent_at = run.deps.clock.now();
        match fields::call(run.deps, run.account, c, || run.account.session.fetch(c, &record.remote_id)).await? {
            Ok(Some(record)) => found.extend(sightings(vec![record], Vec::new(), sent_at, source)),
            Ok(None) => found.push(Sighting {
                what: Sight::Gone { remote_updated_at: None, observed_at: sent_at },
                remote_id: record.remote_id,
                source: source.clone(),
                inbox: None,
                ready: None,
            }),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(found))
}
