//! An integration's journal: what its app would push, read entry by entry and taken in as if it had been pushed.
//!
//! Always true: an entry's items and the mark behind it are one commit, so a crash neither loses an entry nor takes it in
//! twice; the next one is asked for only then. Where the app no longer knows the mark, or a file cannot be read, the
//! connections are asked to look for themselves before the mark moves on. An app that cannot be reached is asked again
//! with growing waits, and no entry is skipped for that; when it has failed for some minutes, polls go on meanwhile. Not here: what an item means (`global`, the webhook's `handle`),
//! how a journal is asked (`connectors::journal`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::account::integration_parameters;
use super::hook::wait_from;
use crate::actors::Deps;
use crate::connectors::{
    Budget, CallError, Connector, Credentials, Journal, JournalEntry, JournalStep, Parameters, Session,
};
use crate::domain::connection::{Connection, Integration, SyncRequest};
use crate::domain::id::PullId;
use crate::domain::journal::{JournalState, STALLED_AFTER};
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::{InboxRequest, Wait};

/// Entries of one round; after it others have their turn.
const ENTRIES_MAX: usize = 20;
/// Items that are one row of the inbox, as many as an app would push at once.
const ROW_ITEMS_MAX: usize = 100;
/// Bytes of such a row, unless one item alone has more.
const ROW_BYTES_MAX: usize = 256 * 1024;
/// Connections that are asked in one commit to look for themselves.
const ASK_STEP: usize = 250;
/// Looks of a connection that may wait.
const SYNCS_MAX: usize = 2;
const RETRY_START: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(600);
/// What stands in the inbox where the check of a signature would.
const VERDICT: &str = "journal";

const EXPIRED: &str = "the app no longer has what came after the last entry that was read; the connections look for \
                       themselves";

/// One journal of an integration, ready to be read.
struct Reader<'a> {
    deps: &'a Deps,
    integration: &'a Integration,
    key: &'a str,
    journal: &'a Journal,
    session: Arc<Session>,
}

/// What a step came to.
enum Stepped {
    /// An entry was taken in.
    On(JournalState),
    /// There is nothing to do before then.
    Until(Millis),
}

/// An integration's connector, if it knows any journal.
fn able(deps: &Deps, integration: &Integration) -> Option<Arc<Connector>> {
    deps.connectors.get(&integration.connector).filter(|connector| connector.has_journals())
}

/// The keys of the global webhooks whose journals an integration reads.
pub fn keys(deps: &Deps, integration: &Integration) -> Result<Vec<String>> {
    let Some(connector) = able(deps, integration) else { return Ok(Vec::new()) };
    let parameters = integration_parameters(&deps.store, integration)?;
    let Ok(connector) = connector.specialise(&parameters) else { return Ok(Vec::new()) };
    Ok(connector.journals(&parameters).into_iter().map(|(key, _)| key.to_owned()).collect())
}

/// Reads what is due of an integration's journals; answers when to look again.
pub async fn tend(deps: &Deps, integration: &Integration) -> Result<Option<Millis>> {
    let Some(connector) = able(deps, integration) else { return Ok(None) };
    let parameters = integration_parameters(&deps.store, integration)?;
    let Ok(connector) = connector.specialise(&parameters) else { return Ok(None) };
    let mut next: Option<Millis> = None;
    for (key, journal) in connector.journals(&parameters) {
        let at = one(deps, integration, (&connector, key, journal), &parameters).await?;
        next = next.into_iter().chain(at).min();
    }
    Ok(next)
}

async fn one(
    deps: &Deps,
    integration: &Integration,
    (connector, key, journal): (&Arc<Connector>, &str, &Journal),
    parameters: &Parameters,
) -> Result<Option<Millis>> {
    let now = deps.clock.now();
    let mut state = deps.store.journal(integration.id, key)?;
    // Whoever has changed the integration since may have mended it, and wants to see what follows.
    let is_changed = state.read_at.max(state.failed_at).is_some_and(|at| integration.updated_at > at);
    if let Some(due) = state.due_at.filter(|due| *due > now && !is_changed) {
        return Ok(Some(due));
    }
    let session = match session(deps, integration, connector, parameters) {
        Ok(session) => session,
        Err(why) => return failed(deps, integration, key, state, &CallError::NotSupported(why)).await.map(Some),
    };
    let reader = Reader { deps, integration, key, journal, session };
    for _ in 0..ENTRIES_MAX {
        if deps.store.is_full() {
            return Ok(Some(deps.clock.now().after(super::run::FULL_WAIT)));
        }
        match reader.step(state).await? {
            Stepped::On(after) => state = after,
            Stepped::Until(at) => return Ok(Some(at)),
        }
    }
    // There may be more: others first.
    Ok(Some(deps.clock.now()))
}

/// The app as the integration's own client sees it. The token in it outlives the look.
fn session(
    deps: &Deps,
    integration: &Integration,
    connector: &Arc<Connector>,
    given: &Parameters,
) -> std::result::Result<Arc<Session>, String> {
    let mut parameters = connector.parameters.defaults();
    parameters.extend(given.clone());
    deps.memory.journal(integration.id.0, connector, &parameters, || {
        let base = connector.base_uri.choose(&parameters)?;
        let budget = Arc::new(Budget::of(connector, deps.clock.now()));
        let (client, clock) = (deps.apps.clone(), deps.clock.clone());
        let nobody = Credentials::Integration { session: None };
        Session::new(Arc::clone(connector), &base, parameters.clone(), nobody, client, budget, clock)
    })
}

impl Reader<'_> {
    /// Reads one entry, and takes it in.
    async fn step(&self, state: JournalState) -> Result<Stepped> {
        let step = self.session.journal_step(self.journal, state.offset.as_deref()).await;
        let (entry, is_lost) = match step {
            Ok(JournalStep::Entry(entry)) => (entry, false),
            Ok(JournalStep::Nothing) => return self.nothing(state).await,
            Ok(JournalStep::Expired) => match self.session.journal_step(self.journal, None).await {
                Ok(JournalStep::Entry(entry)) => (entry, true),
                Ok(JournalStep::Nothing | JournalStep::Expired) => return self.nothing(state).await,
                Err(error) => return self.failed(state, &error).await,
            },
            Err(error) => return self.failed(state, &error).await,
        };
        if state.offset.as_deref() == Some(entry.offset.as_str()) {
            // The entry after a mark has another one.
            return self.nothing(state).await;
        }
        let mut state = state;
        if is_lost {
            state = self.missed(state, EXPIRED).await?;
        }
        match self.session.journal_items(self.journal, &entry).await {
            Ok(items) => self.take(state, &entry, &items).await,
            Err(error) if is_passing(&error) => self.failed(state, &error).await,
            Err(error) if state.unread + 1 < self.deps.handle_tries_max => {
                let unread = state.unread + 1;
                self.failed(JournalState { unread, ..state }, &error).await
            }
            Err(error) => {
                self.count("skipped");
                let why = format!("an entry was left out after {} tries: {error}", state.unread + 1);
                let state = self.missed(state, &why).await?;
                self.take(state, &entry, &[]).await
            }
        }
    }

    /// The items as rows of the inbox and the mark behind them, in one commit.
    async fn take(&self, before: JournalState, entry: &JournalEntry, items: &[Box<RawValue>]) -> Result<Stepped> {
        let (id, key, workspace) = (self.integration.id, self.key.to_owned(), self.integration.workspace);
        let now = self.deps.clock.now();
        let mut rows = Vec::new();
        for body in bodies(items) {
            let request = InboxRequest {
                workspace,
                webhook_key: key.clone(),
                received_at: now,
                method: "POST".to_owned(),
                uri: String::new(),
                headers: vec![("content-type".to_owned(), b"application/json".to_vec())],
                body,
                verdict: VERDICT.to_owned(),
                event: None,
            };
            rows.push(request.incoming()?);
        }
        let offset = before.offset.clone();
        let after = JournalState { due_at: None, ..before.taken(&entry.offset, items.len(), now) };
        let stored = after.clone();
        let change = self.deps.store.append(Wait::Applied, move |tx| {
            // Deleted meanwhile; or somebody else was here.
            if tx.object_anywhere::<Integration>(&id.0)?.is_none() || tx.journal(id, &key)?.offset != offset {
                return Ok(false);
            }
            for row in &rows {
                tx.put_inbox(&id.0, row)?;
            }
            tx.put_journal(id, &key, &stored)?;
            Ok(true)
        });
        if !change.await? {
            return Ok(Stepped::Until(now));
        }
        self.count("read");
        self.deps.rings.owner(id.0);
        Ok(Stepped::On(after))
    }

    /// The app has answered, and there is nothing new.
    async fn nothing(&self, state: JournalState) -> Result<Stepped> {
        let (now, waits) = (self.deps.clock.now(), super::plan::waits(&self.deps.polling));
        let due_at = waits.next(now, self.journal.every, &mut fastrand::Rng::new());
        self.count("nothing");
        let state = JournalState { due_at: Some(due_at), ..state.answered(now) };
        note(self.deps, self.integration, self.key, &state).await?;
        Ok(Stepped::Until(due_at))
    }

    async fn failed(&self, state: JournalState, error: &CallError) -> Result<Stepped> {
        failed(self.deps, self.integration, self.key, state, error).await.map(Stepped::Until)
    }

    /// Changes may have been missed: every connection that listens is asked to look for itself. The mark moves later, so
    /// that a crash in between asks once more rather than never.
    async fn missed(&self, state: JournalState, why: &str) -> Result<JournalState> {
        let now = self.deps.clock.now();
        tracing::warn!(integration = %self.integration.id, why, "a journal has a gap");
        self.count("gap");
        ask_all(self.deps, self.integration, self.key, now).await?;
        let state = state.missed(why, now);
        note(self.deps, self.integration, self.key, &state).await?;
        Ok(state)
    }

    fn count(&self, outcome: &str) {
        self.deps.metrics.journals.with([&self.integration.connector, outcome]).inc();
    }
}

/// Whether it says nothing of the entry: the app, the way to it or our own settings may be mended.
fn is_passing(error: &CallError) -> bool {
    matches!(error, CallError::RateLimited { .. } | CallError::Unavailable { .. } | CallError::AddressForbidden(_))
}

/// Arrays of items, each as large as a push.
fn bodies(items: &[Box<RawValue>]) -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    let mut count = 0;
    for item in items {
        let text = item.get().as_bytes();
        match bodies.last_mut().filter(|body| count < ROW_ITEMS_MAX && body.len() + text.len() < ROW_BYTES_MAX) {
            Some(body) => {
                body.push(b',');
                body.extend_from_slice(text);
                count += 1;
            }
            None => {
                let mut body = vec![b'['];
                body.extend_from_slice(text);
                bodies.push(body);
                count = 1;
            }
        }
    }
    bodies.iter_mut().for_each(|body| body.push(b']'));
    bodies
}

/// Asks every connection that listens to look for itself.
async fn ask_all(deps: &Deps, integration: &Integration, key: &str, now: Millis) -> Result<()> {
    let mut before: Option<Vec<u8>> = None;
    loop {
        let (id, heard, from) = (integration.id, key.to_owned(), before.take());
        let listening = deps.store.blocking(move |rows| {
            let page = rows.children::<Connection>(&id.0, from.as_deref(), ASK_STEP)?;
            let mut listening = Vec::new();
            for connection in page.items {
                let hears = rows.event_switches(connection.id)?.iter().any(|switch| switch.webhook_key == heard);
                // One look may be under way and past what was missed; another one that waits is enough.
                if hears && rows.sync_requests(connection.id)?.len() < SYNCS_MAX {
                    listening.push(connection.id);
                }
            }
            Ok((listening, page.next))
        });
        let (listening, next) = listening.await?;
        let asked = listening.clone();
        let change = deps.store.append(Wait::Applied, move |tx| {
            for id in asked {
                if tx.object_anywhere::<Connection>(&id.0)?.is_none() {
                    continue;
                }
                let pull = PullId(tx.fresh_id()?);
                let collections = Vec::new();
                let request = SyncRequest { pull, full: false, approve_deletes: false, collections, asked_at: now };
                tx.put_sync_request(id, &request)?;
            }
            Ok(())
        });
        change.await?;
        listening.iter().for_each(|id| deps.rings.owner(id.0));
        match next {
            Some(next) => before = Some(next),
            None => return Ok(()),
        }
    }
}

async fn failed(
    deps: &Deps,
    integration: &Integration,
    key: &str,
    state: JournalState,
    error: &CallError,
) -> Result<Millis> {
    let (now, failures) = (deps.clock.now(), state.failures.saturating_add(1));
    tracing::info!(integration = %integration.id, %error, failures, "a journal could not be read");
    deps.metrics.journals.with([&integration.connector, error.slug()]).inc();
    if failures == STALLED_AFTER {
        // Until it goes on, polls find what comes meanwhile: see `plan`.
        tracing::warn!(integration = %integration.id, %error, "a journal cannot be read; its connections are polled");
        ask_all(deps, integration, key, now).await?;
    }
    let told = error.retry_after().unwrap_or_default().min(RETRY_MAX);
    let due_at = now.after(wait_from(RETRY_START, RETRY_MAX, failures).max(told));
    let (failed_at, due_at, error) = (Some(now), Some(due_at), error.to_string());
    let state = JournalState { failures, failed_at, due_at, error, ..state };
    note(deps, integration, key, &state).await?;
    Ok(due_at.unwrap_or(now))
}

/// Writes how a journal is doing.
async fn note(deps: &Deps, integration: &Integration, key: &str, state: &JournalState) -> Result<()> {
    let (id, key, state) = (integration.id, key.to_owned(), state.clone());
    let change = deps.store.append(Wait::Applied, move |tx| match tx.object_anywhere::<Integration>(&id.0)? {
        Some(_) => tx.put_journal(id, &key, &state),
        None => Ok(()),
    });
    change.await
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn item(text: String) -> Box<RawValue> {
        RawValue::from_string(text).unwrap()
    }

    #[test]
    fn items_are_put_together_as_an_app_would_push_them() {
        let items: Vec<_> = (0..250).map(|n| item(format!("{{\"id\":{n}}}"))).collect();
        let bodies = bodies(&items);
        let parsed: Vec<Vec<Value>> = bodies.iter().map(|body| serde_json::from_slice(body).unwrap()).collect();
        assert_eq!(parsed.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
        let ids = parsed.iter().flatten().map(|item| item["id"].as_u64().unwrap());
        assert!(ids.eq(0..250));
    }

    #[test]
    fn large_items_stand_alone_and_no_items_are_no_row() {
        let items: Vec<_> = (0..3).map(|_| item(format!("\"{}\"", "x".repeat(ROW_BYTES_MAX)))).collect();
        assert_eq!(bodies(&items).len(), 3);
        assert!(bodies(&[]).is_empty());
    }
}
