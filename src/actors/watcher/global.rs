//! An integration's global webhooks: one URL for all accounts, sorted by selector to the connections that listen.
//!
//! Always true: a webhook is settled in the commit that hands its events over, so each connection gets each event once;
//! it is tried a bounded number of times and then parked with its reason. Not here: what an event means for a connection
//! (`inbox`).

use std::collections::HashMap;
use std::time::Duration;

use super::account::integration_parameters;
use super::request::{keep_log, request};
use crate::actors::Deps;
use crate::connectors::{CallError, GlobalEvent, Parameters, handle_global};
use crate::domain::connection::{Connection, Integration};
use crate::domain::id::{ConnectionId, InboxId};
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::{InboxRequest, InboxRow, InboxState, Rows, Wait};

/// Webhooks looked at in one commit.
const ROWS_MAX: usize = 100;
/// Connections read at a time.
const CONNECTIONS_STEP: usize = 250;
/// The wait after a first failure; it doubles with each further one.
const RETRY_START: Duration = Duration::from_secs(5);

/// Who listens: (webhook key, selector) → connection and connector event.
type Listeners = HashMap<(String, String), Vec<(ConnectionId, String)>>;

/// Sorts the webhooks that are due; answers when to look again.
pub async fn look(deps: &Deps, integration: Integration) -> Result<Option<Millis>> {
    let owner = integration.id.0;
    let now = deps.clock.now();
    if deps.store.is_full() {
        return Ok(Some(now.after(super::run::FULL_WAIT)));
    }
    super::pasted::integration(deps, &integration).await?;
    let (rows, next) = deps.store.inbox_due(&owner, deps.memory.inbox_from(&owner, now), now, ROWS_MAX)?;
    deps.memory.inbox_read(owner, &rows, now);
    if rows.is_empty() {
        // What was read before is sorted before more is read.
        let journals = super::journal::tend(deps, &integration).await?;
        return Ok(next.into_iter().chain(journals).min());
    }
    let parameters = integration_parameters(&deps.store, &integration)?;
    let mut sorted = Vec::new();
    for (id, mut row) in rows {
        let events = sort(deps, &integration, &parameters, &mut row).await;
        sorted.push((id, row, events));
    }
    let wanted: Vec<(String, String)> = sorted
        .iter()
        .flat_map(|(_, row, events)| {
            let events = events.as_ref().map(Vec::as_slice).unwrap_or_default();
            events.iter().map(|event| (row.webhook_key.clone(), event.selector.clone()))
        })
        .collect();
    let listeners = match wanted.is_empty() {
        true => Listeners::new(),
        false => deps.store.blocking(move |rows| listeners(rows, &integration, &wanted)).await?,
    };
    hand_over(deps, sorted, listeners, now).await?;
    // More may be due: look again at once.
    Ok(Some(now))
}

async fn sort(
    deps: &Deps,
    integration: &Integration,
    parameters: &Parameters,
    row: &mut InboxRow,
) -> std::result::Result<Vec<GlobalEvent>, CallError> {
    let connector = deps.connectors.get(&integration.connector);
    let connector = connector.ok_or_else(|| {
        CallError::NotSupported(format!("there is no connector {:?} on this node", integration.connector))
    })?;
    let connector = connector.specialise(parameters).map_err(|error| CallError::NotSupported(error.to_string()))?;
    let handled = handle_global(&connector, &row.webhook_key.clone(), &request(deps, row), parameters).await?;
    keep_log(row, handled.log);
    Ok(handled.events)
}

/// The connections of the integration that listen to any of these selectors.
fn listeners(rows: &Rows, integration: &Integration, wanted: &[(String, String)]) -> Result<Listeners> {
    let mut listeners: Listeners = wanted.iter().map(|key| (key.clone(), Vec::new())).collect();
    let mut before: Option<Vec<u8>> = None;
    loop {
        let page = rows.children::<Connection>(&integration.id.0, before.as_deref(), CONNECTIONS_STEP)?;
        for connection in page.items {
            for switch in rows.event_switches(connection.id)? {
                let key = (switch.webhook_key, switch.selector);
                if let Some(found) = listeners.get_mut(&key) {
                    found.push((connection.id, switch.event));
                }
            }
        }
        match page.next {
            Some(next) => before = Some(next),
            None => return Ok(listeners),
        }
    }
}

type Sorted = (InboxId, InboxRow, std::result::Result<Vec<GlobalEvent>, CallError>);

/// One row per event and connection that listens, and the webhooks settled, in one commit.
async fn hand_over(deps: &Deps, sorted: Vec<Sorted>, listeners: Listeners, now: Millis) -> Result<()> {
    let mut handed: Vec<([u8; 12], InboxRequest)> = Vec::new();
    let mut settled: Vec<(InboxId, InboxRow, Millis)> = Vec::new();
    for (id, mut row, events) in sorted {
        let (state, due) = match events {
            Ok(events) => (pass_on(&row, events, &listeners, now, &mut handed), now),
            Err(error) => failed(&mut row, &error, deps.handle_tries_max, now),
        };
        row.state = state;
        settled.push((id, row, due));
    }
    let owners: Vec<[u8; 12]> = handed.iter().map(|(owner, _)| *owner).collect();
    let metrics = deps.metrics.clone();
    deps.store
        .append(Wait::Applied, move |tx| {
            for (owner, request) in handed {
                // One that was deleted meanwhile gets nothing.
                if tx.object_anywhere::<Connection>(&owner)?.is_some() {
                    tx.put_inbox(&owner, &request.incoming()?)?;
                }
            }
            for (id, row, due) in settled {
                let outcome = match row.state {
                    InboxState::Done { .. } => "understood",
                    InboxState::Waiting { .. } => "failed",
                    InboxState::Parked { .. } => "parked",
                };
                metrics.webhooks_handled.with(["global", outcome]).inc();
                tx.settle_inbox(id, &row, due)?;
            }
            Ok(())
        })
        .await?;
    for owner in owners {
        deps.rings.owner(owner);
    }
    Ok(())
}

fn pass_on(
    row: &InboxRow,
    events: Vec<GlobalEvent>,
    listeners: &Listeners,
    now: Millis,
    handed: &mut Vec<([u8; 12], InboxRequest)>,
) -> InboxState {
    let (mut handed_to, mut notes) = (Vec::new(), Vec::new());
    for event in events {
        let key = (row.webhook_key.clone(), event.selector);
        let found = listeners.get(&key).map(Vec::as_slice).unwrap_or_default();
        if found.is_empty() {
            notes.push(format!("no connection listens to the selector {:?}", key.1));
        }
        for (connection, name) in found {
            handed_to.push(connection.0);
            let request = InboxRequest {
                workspace: row.workspace,
                webhook_key: row.webhook_key.clone(),
                received_at: row.received_at,
                method: row.method.clone(),
                uri: String::new(),
                headers: Vec::new(),
                body: event.payload.get().as_bytes().to_vec(),
                verdict: row.verdict.clone(),
                event: Some(name.clone()),
            };
            handed.push((connection.0, request));
        }
    }
    InboxState::Done { at: now, events: Vec::new(), handed_to, note: notes.join("; ") }
}

fn failed(row: &mut InboxRow, error: &CallError, tries_max: u32, now: Millis) -> (InboxState, Millis) {
    let tries = match row.state {
        InboxState::Waiting { tries } => tries,
        _ => 0,
    };
    if matches!(error, CallError::Unavailable { .. } | CallError::RateLimited { .. }) {
        return (InboxState::Waiting { tries }, now.after(RETRY_START));
    }
    if tries + 1 >= tries_max {
        return (InboxState::Parked { at: now, reason: error.to_string() }, now);
    }
    keep_log(row, vec![format!("try {}: {error}", tries + 1)]);
    (InboxState::Waiting { tries: tries + 1 }, now.after(RETRY_START.saturating_mul(1 << tries.min(10))))
}
