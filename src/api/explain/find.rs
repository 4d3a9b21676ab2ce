//! Looking everything up that an explanation is made of.
//!
//! Always true: a bounded number of rows and bytes is read, however long ago things happened.

use super::judge::Case;
use super::sentences::{Evidence, findings, summary};
use super::shape::{CollectionSeen, Explanation, RecordView, SnapshotView, WebhookSeen};
use crate::api::connections::{self, PullView};
use crate::api::events;
use crate::api::records;
use crate::api::state::State;
use crate::domain::connection::{CollectionState, Connection, Pull};
use crate::domain::event::{Event, Payload};
use crate::domain::id::{ConnectionId, EventId, InboxId, Seq, WorkspaceNo};
use crate::domain::record::record_id;
use crate::domain::snapshot::SnapshotRow;
use crate::domain::time::Millis;
use crate::error::{Code, Error, Result};
use crate::store::{InboxState, Rows};

const EVENTS_MAX: usize = 10;
const PULLS_MAX: usize = 10;
/// Looks at other collections that may stand between.
const PULLS_LOOKED_MAX: usize = 200;
const WEBHOOKS_MAX: usize = 20;
const WEBHOOK_BYTES_MAX: usize = 8 << 20;
const SUBSCRIPTIONS_MAX: usize = 250;

/// What is asked.
pub(super) struct Question {
    pub(super) workspace: WorkspaceNo,
    pub(super) connection: ConnectionId,
    pub(super) topic: String,
    pub(super) remote_id: String,
    /// Events beyond are not told yet.
    pub(super) durable: Seq,
    pub(super) now: Millis,
}

impl Question {
    pub(super) fn answer(&self, rows: &Rows, state: &State) -> Result<Explanation> {
        let connection = connections::find(rows, self.workspace, self.connection)?;
        let keys = self.collections(rows, state, &connection)?;
        let id = record_id(self.connection, &self.topic, &self.remote_id).into_bytes();
        let mut snapshot = None;
        let mut states = Vec::new();
        for key in &keys {
            if let Some(row) = rows.snapshot(self.connection, key, &id)? {
                snapshot = Some((key.clone(), row));
            }
            states.push((key.clone(), rows.collection_state(self.connection, key)?));
        }
        let events = self.events(rows, &id)?;
        let pulls = self.pulls(rows, &keys)?;
        let mut inbox = self.inbox(rows, &self.connection.0, &events)?;
        if let Some(integration) = connection.integration {
            // Those of a global webhook lie at the integration; what it handed on is the connection's own.
            let all = self.inbox(rows, &integration.0, &events)?;
            let of_record = all.into_iter().filter(|one| one.mentions_record);
            inbox.extend(of_record.map(|one| WebhookSeen { global: true, ..one }));
        }
        let mut case = self.case(rows, state, &connection, events.first())?;
        let page = rows.subscriptions(self.workspace, None, SUBSCRIPTIONS_MAX)?;
        let subscriptions = page.items.iter().map(|of| case.judge(rows, of)).collect::<Result<Vec<_>>>()?;
        let registration = rows.registration(self.connection)?;
        let evidence = Evidence {
            connection: &connection,
            registration: &registration,
            states: &states,
            id,
            snapshot: snapshot.as_ref().map(|(_, row)| row),
            events: &events,
            pulls: &pulls,
            inbox: &inbox,
            subscriptions: &subscriptions,
        };
        let findings = findings(&evidence);
        Ok(Explanation {
            summary: summary(&evidence, &findings),
            findings,
            record: self.record(id, snapshot.as_ref()),
            collections: states.iter().map(|(key, state)| seen(&connection, key, state, &id)).collect(),
            pulls: pulls.into_iter().map(PullView::of).collect(),
            inbox,
            events: events.iter().map(|(seq, event)| events::view(*seq, event)).collect(),
            subscriptions,
            more_subscriptions: page.next.is_some(),
        })
    }

    fn collections(&self, rows: &Rows, state: &State, connection: &Connection) -> Result<Vec<String>> {
        let keys = records::collections(state, rows, connection, &self.topic)?;
        if !keys.is_empty() {
            return Ok(keys);
        }
        let connector = connections::connector(state, rows, connection)?;
        let mut topics: Vec<&str> =
            connector.iter().flat_map(|c| c.collections.iter()).map(|c| c.topic.as_str()).collect();
        topics.sort_unstable();
        topics.dedup();
        let shown: String = self.topic.chars().take(130).collect();
        let has = match topics.is_empty() {
            true => "its connector is not on this node, or has none".to_owned(),
            false => format!("it has {}", topics.join(", ")),
        };
        let message = format!("topic: this connection has no records of `{shown}`; {has}");
        Err(Error::new(Code::UnknownTopic, message))
    }

    /// The last events of the record, newest first.
    fn events(&self, rows: &Rows, id: &[u8; 16]) -> Result<Vec<(Seq, Event)>> {
        let seqs = rows.record_events(self.connection, id, Some(self.durable.next()), EVENTS_MAX)?;
        let mut events = Vec::with_capacity(seqs.len());
        for seq in seqs {
            // The index may outlive its event for a moment.
            events.extend(rows.event(seq)?.filter(|e| e.workspace == self.workspace).map(|event| (seq, event)));
        }
        Ok(events)
    }

    fn pulls(&self, rows: &Rows, keys: &[String]) -> Result<Vec<Pull>> {
        let (all, _) = rows.pulls(self.connection, None, PULLS_LOOKED_MAX)?;
        Ok(all.into_iter().filter(|pull| keys.contains(&pull.collection)).take(PULLS_MAX).collect())
    }

    fn inbox(&self, rows: &Rows, owner: &[u8; 12], events: &[(Seq, Event)]) -> Result<Vec<WebhookSeen>> {
        let of_record = |id: &EventId| events.iter().any(|(seq, _)| id.parts().0 == *seq);
        let (mut all, mut before, mut bytes) = (Vec::new(), None::<InboxId>, 0);
        // One at a time: a few bodies may be as large as the limit allows.
        while all.len() < WEBHOOKS_MAX && bytes < WEBHOOK_BYTES_MAX {
            let Some((id, row)) = rows.inbox(owner, before, 1)?.pop() else { break };
            before = Some(id);
            bytes += row.body.len();
            let (state, note, event_ids) = match &row.state {
                InboxState::Waiting { .. } => ("waiting", String::new(), Vec::new()),
                InboxState::Parked { reason, .. } => ("parked", reason.clone(), Vec::new()),
                InboxState::Done { events, note, .. } => ("done", note.clone(), events.clone()),
            };
            all.push(WebhookSeen {
                global: false,
                inbox_id: id.to_string(),
                received_at: row.received_at.rfc3339_millis(),
                state,
                verdict: row.verdict.clone(),
                note: Some(note).filter(|note| !note.is_empty()),
                mentions_record: mentions(&row.body, self.remote_id.as_bytes()),
                event_ids: event_ids.iter().filter(|id| of_record(id)).map(ToString::to_string).collect(),
            });
        }
        Ok(all)
    }

    /// What subscriptions are asked about: the last event, or what one would be like.
    fn case<'a>(
        &self,
        rows: &Rows,
        state: &'a State,
        connection: &Connection,
        last: Option<&(Seq, Event)>,
    ) -> Result<Case<'a>> {
        let (seq, event) = match last {
            Some((seq, event)) => (Some(*seq), event.clone()),
            None => {
                let blank = Event::of(connection, None, Payload::Plain("{}".to_owned()), self.now);
                (None, Event { topic: self.topic.clone(), ..blank })
            }
        };
        Ok(Case::new(state, seq, event, rows.routed()?, self.now))
    }

    fn record(&self, id: [u8; 16], found: Option<&(String, SnapshotRow)>) -> RecordView {
        let time = |at: Option<Millis>| at.map(Millis::rfc3339_millis);
        let snapshot = found.map(|(key, row)| SnapshotView {
            collection: key.clone(),
            remote_updated_at: time(row.version.remote_updated_at),
            remote_created_at: time(row.remote_created_at),
            observed_at: row.version.observed_at.rfc3339_millis(),
            created_at: row.created_at.rfc3339_millis(),
            updated_at: row.updated_at.rfc3339_millis(),
            deleted_at: time(row.deleted_at),
            last_event_id: row.last_event.map(|seq| EventId::new(seq, self.workspace).to_string()),
        });
        RecordView {
            id: uuid::Uuid::from_bytes(id).to_string(),
            remote_id: self.remote_id.clone(),
            known: found.is_some(),
            deleted: found.is_some_and(|(_, row)| !row.is_live()),
            snapshot,
        }
    }
}

fn seen(connection: &Connection, key: &str, state: &CollectionState, id: &[u8; 16]) -> CollectionSeen {
    let time = |at: Option<Millis>| at.map(Millis::rfc3339_millis);
    CollectionSeen {
        key: key.to_owned(),
        wanted: is_wanted(connection, key),
        baseline_at: time(state.baseline_at),
        last_pull_at: time(state.last_pull_at),
        next_pull_at: time(state.next_pull_at),
        last_scan_at: time(state.last_scan_at),
        next_scan_at: time(state.next_scan_at),
        last_webhook_at: time(state.last_webhook_at),
        failures: state.failures,
        error: Some(state.error.clone()).filter(|error| !error.is_empty()),
        holds_deletion: state.held.binary_search(id).is_ok(),
    }
}

/// Whether the connection watches a collection.
pub(super) fn is_wanted(connection: &Connection, key: &str) -> bool {
    connection.collections.as_ref().is_none_or(|wanted| wanted.iter().any(|one| one == key))
}

/// Whether a body has the id somewhere, not as a part of a longer word.
fn mentions(body: &[u8], id: &[u8]) -> bool {
    if id.is_empty() {
        return false;
    }
    let word = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let mut from = 0;
    while let Some(at) = body.get(from..).and_then(|rest| rest.windows(id.len()).position(|window| window == id)) {
        let start = from + at;
        let before = start.checked_sub(1).and_then(|i| body.get(i));
        if !word(before) && !word(body.get(start + id.len())) {
            return true;
        }
        from = start + 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::mentions;

    #[test]
    fn an_id_is_mentioned_as_a_word_of_its_own() {
        for (body, id, expected) in [
            (r#"{"id":42}"#, "42", true),
            (r#"{"id":142,"x":420}"#, "42", false),
            (r#"{"id":142,"x":42}"#, "42", true),
            ("42", "42", true),
            ("gid://shop/Order/42", "gid://shop/Order/42", true),
            ("", "42", false),
            ("42", "", false),
        ] {
            assert_eq!(mentions(body.as_bytes(), id.as_bytes()), expected, "{body} {id}");
        }
    }
}
