//! The second stage: stored webhooks that tell of what is erased lose their bodies.
//!
//! Always true: a batch that tells of others too loses its whole body, since it is only history once it is understood; one
//! that still waits and tells of others is waited for, a bounded time, and if it is dropped after all, the app is asked for
//! what it may have told. Not here: what a webhook means (`watcher::inbox`).

use std::time::Duration;

use super::{Next, Tools, advance, at, events};
use crate::domain::connection::{Connection, ConnectionStatus, SyncRequest};
use crate::domain::erasure::{Erasure, Scope, Stage};
use crate::domain::event::{Event, Payload};
use crate::domain::id::{ConnectionId, EventId, InboxId, PullId, Seq};
use crate::error::Result;
use crate::store::{ERASED, InboxRow, InboxState, Rows, Tx};

/// Webhooks looked at in one step.
const ROWS_MAX: usize = 100;
/// Those that wait are waited for so long at most, and looked at so often.
const WAIT_MAX: Duration = Duration::from_secs(600);
const WAIT_STEP: Duration = Duration::from_secs(1);
/// Syncs that may wait of one connection: as many as a caller may ask for.
const SYNCS_MAX: usize = 20;

/// What is to be done with one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Leave,
    Erase,
    /// Erase it, and ask the app for what else it may have told.
    Drop,
    Wait,
}

/// What a step found.
struct Found {
    erase: Vec<(InboxId, bool)>,
    /// Events without a record's id that were made of those.
    events: Vec<(Seq, Event)>,
    reached: Seq,
    /// The next one is waited for.
    waits: bool,
    /// The owner is a connection that is still there.
    connection: Option<ConnectionId>,
}

pub(super) async fn step(tools: &Tools, job: Erasure) -> Result<Next> {
    let Stage::Webhooks { at: place, after, until, since } = job.stage else { return Ok(Next::Ended) };
    let Some(owner) = job.scope.owners().get(at(place)?).copied() else { return on_to_events(tools, &job).await };
    let now = tools.deps.clock.now();
    let is_late = now.since(since) > WAIT_MAX;
    let asked = job.clone();
    let look = move |rows: &Rows| look(rows, &asked, owner, (after, until), is_late);
    let mut found = tools.deps.store.blocking(look).await?;
    if !found.events.is_empty() {
        let all = std::mem::take(&mut found.events);
        if let Some(again) = events::erase(tools, &job, all, job.stage.clone()).await? {
            return Ok(again);
        }
    }
    let (waits, drops) = (found.waits, found.erase.iter().any(|(_, drops)| *drops));
    if waits && found.reached == after && found.erase.is_empty() {
        return Ok(Next::At(now.after(WAIT_STEP)));
    }
    let connection = found.connection.filter(|_| drops);
    let next = advance(tools, &job, move |tx, job| {
        for (id, _) in &found.erase {
            job.counts.webhooks += u64::from(tx.erase_webhook(&owner, *id)?);
        }
        connection.map_or(Ok(()), |id| ask(tx, id))?;
        let is_through = !waits && found.reached >= until;
        let (at, after) = if is_through { (place + 1, Seq(0)) } else { (place, found.reached) };
        job.stage = Stage::Webhooks { at, after, until, since };
        Ok(())
    });
    let next = next.await?;
    if let Some(id) = connection {
        tools.deps.rings.owner(id.0);
    }
    Ok(if waits { Next::At(now.after(WAIT_STEP)) } else { next })
}

/// Events up to now are erased, once the router has given them to their lanes.
async fn on_to_events(tools: &Tools, job: &Erasure) -> Result<Next> {
    advance(tools, job, |tx, job| {
        job.stage = Stage::Events { at: 0, after: Seq(0), until: tx.next_seq()? };
        Ok(())
    })
    .await
}

/// Asks for a look at the app.
fn ask(tx: &mut Tx<'_>, id: ConnectionId) -> Result<()> {
    if tx.sync_requests(id)?.len() >= SYNCS_MAX {
        return Ok(());
    }
    let (pull, asked_at) = (PullId(tx.fresh_id()?), tx.now());
    let request = SyncRequest { pull, full: false, approve_deletes: false, collections: Vec::new(), asked_at };
    tx.put_sync_request(id, &request)
}

fn look(rows: &Rows, job: &Erasure, owner: [u8; 12], range: (Seq, Seq), is_late: bool) -> Result<Found> {
    let (webhooks, reached) = rows.inbox_after(&owner, range, ROWS_MAX)?;
    let connection = rows.connection(job.workspace, ConnectionId(owner))?;
    let stands = connection.as_ref().is_some_and(stands_still);
    let connection = connection.map(|connection| connection.id);
    let mut found = Found { erase: Vec::new(), events: Vec::new(), reached, waits: false, connection };
    let mut last = range.0;
    for (id, row) in webhooks {
        let seq = EventId(id.0).parts().0;
        let made = events_of(rows, &job.scope, &row)?;
        let verdict = judge(&job.scope, &row, &made, connection.is_some(), is_late || stands);
        match verdict {
            Verdict::Leave => {}
            Verdict::Wait => {
                (found.reached, found.waits) = (last, true);
                return Ok(found);
            }
            Verdict::Erase | Verdict::Drop => {
                found.erase.push((id, verdict == Verdict::Drop));
                let plain = made.into_iter().filter(|(_, event)| matches!(event.payload, Payload::Plain(_)));
                found.events.extend(plain.filter(|_| job.scope.by_record));
            }
        }
        last = seq;
    }
    Ok(found)
}

/// Nobody will understand its webhooks soon.
fn stands_still(connection: &Connection) -> bool {
    matches!(connection.status, ConnectionStatus::Paused | ConnectionStatus::AuthFailed { .. })
}

/// The events of the job's connections that were made of a webhook, as far as they are kept.
fn events_of(rows: &Rows, scope: &Scope, row: &InboxRow) -> Result<Vec<(Seq, Event)>> {
    let InboxState::Done { events, .. } = &row.state else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for id in events {
        let event = rows.event_by_id(row.workspace, *id)?;
        let of_scope = |event: &Event| event.connection.is_some_and(|id| scope.connections.contains(&id));
        found.extend(event.filter(of_scope).map(|event| (id.parts().0, event)));
    }
    Ok(found)
}

fn judge(scope: &Scope, row: &InboxRow, made: &[(Seq, Event)], is_connections: bool, is_late: bool) -> Verdict {
    if row.verdict == ERASED {
        return Verdict::Leave;
    }
    let is_of = |event: &Event| match &event.payload {
        Payload::Record { remote_id, .. } => scope.records.iter().any(|named| named.remote_id == *remote_id),
        Payload::Plain(_) => false,
    };
    let waits = matches!(row.state, InboxState::Waiting { .. });
    let handed = match &row.state {
        InboxState::Done { handed_to, .. } => handed_to.iter().any(|id| scope.connections.contains(&ConnectionId(*id))),
        InboxState::Waiting { .. } | InboxState::Parked { .. } => false,
    };
    let tells = if scope.by_record {
        let mentions = scope.is_mentioned(&row.body) || scope.is_mentioned(row.uri.as_bytes());
        mentions || made.iter().any(|(_, event)| is_of(event))
    } else {
        // What an integration was sent and nobody has sorted yet may be anybody's.
        is_connections || handed || waits
    };
    match (tells, waits) {
        (false, _) => Verdict::Leave,
        (true, false) => Verdict::Erase,
        // All of it is erased, and the app shows the rest at the next look.
        (true, true) if is_connections && !scope.by_record => Verdict::Erase,
        (true, true) if !is_late => Verdict::Wait,
        (true, true) if scope.by_record => Verdict::Drop,
        (true, true) => Verdict::Leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::erasure::Named;
    use crate::domain::id::WorkspaceNo;
    use crate::domain::time::Millis;
    use crate::store::InboxRequest;

    const CONNECTION: ConnectionId = ConnectionId([7; 12]);

    fn scope(records: &[&str]) -> Scope {
        Scope {
            user: None,
            connections: vec![CONNECTION],
            integrations: Vec::new(),
            topic: None,
            records: records.iter().map(|id| Named { topic: None, remote_id: (*id).to_owned() }).collect(),
            by_record: !records.is_empty(),
        }
    }

    fn row(body: &str, state: InboxState) -> InboxRow {
        let request = InboxRequest {
            workspace: WorkspaceNo(0),
            webhook_key: String::new(),
            received_at: Millis(1),
            method: "POST".into(),
            uri: "/in/c/token".into(),
            headers: Vec::new(),
            body: body.into(),
            verdict: "verified".into(),
            event: None,
        };
        let mut row = InboxRow::new(CONNECTION.0, request);
        row.state = state;
        row
    }

    #[test]
    fn what_tells_of_a_record_goes_what_waits_is_waited_for_and_others_stay() {
        let done = |handed_to: Vec<[u8; 12]>| InboxState::Done {
            at: Millis(1),
            events: Vec::new(),
            handed_to,
            note: String::new(),
        };
        let waiting = || InboxState::Waiting { tries: 1 };
        let parked = || InboxState::Parked { at: Millis(1), reason: String::new() };
        let (one, all) = (scope(&["42"]), scope(&[]));
        for (scope, body, state, is_connections, is_late, wanted) in [
            (&one, "[42]", done(vec![]), true, false, Verdict::Erase),
            (&one, "[43]", done(vec![]), true, false, Verdict::Leave),
            (&one, "[42]", parked(), false, false, Verdict::Erase),
            (&one, "[42]", waiting(), true, false, Verdict::Wait),
            (&one, "[42]", waiting(), true, true, Verdict::Drop),
            (&one, "[43]", waiting(), true, false, Verdict::Leave),
            (&all, "[43]", done(vec![]), true, false, Verdict::Erase),
            (&all, "[43]", waiting(), true, false, Verdict::Erase),
            (&all, "[43]", done(vec![]), false, false, Verdict::Leave),
            (&all, "[43]", done(vec![CONNECTION.0]), false, false, Verdict::Erase),
            (&all, "[43]", waiting(), false, false, Verdict::Wait),
            (&all, "[43]", waiting(), false, true, Verdict::Leave),
        ] {
            let verdict = judge(scope, &row(body, state.clone()), &[], is_connections, is_late);
            assert!(verdict == wanted, "{body} {state:?} {is_connections} {is_late}");
        }
    }
}
