//! `/one/integrations/{id}/webhooks`: the addresses of an integration's global webhooks, and the journals that it reads in
//! their place.
//!
//! Always true: what is shown of a journal is its mark and how reading it goes, never the address of a file. Not here:
//! reading it (`actors::watcher`).

use schemars::JsonSchema;
use serde::Serialize;

use super::call::Call;
use super::connectors;
use super::integrations::{base, find, id_of};
use super::parameters::Split;
use super::reply::Reply;
use crate::domain::journal::JournalState;
use crate::domain::time::Millis;
use crate::error::{Code, Error, Result};
use crate::store::Rows;

#[derive(Serialize, JsonSchema)]
struct WebhookView {
    key: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// What a person must do in the app: plain text, a step per line.
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<String>,
    /// To paste into the app's settings; not where the journal is read.
    uri: String,
    /// How reading the app's journal goes, where the integration reads it in place of being pushed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    journal: Option<JournalView>,
}

/// How reading an app's journal goes.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct JournalView {
    /// `starting`: the app has not answered yet; `reading`; `failing`: see `error`, it is tried again with growing waits.
    status: &'static str,
    /// The app's mark of the last entry that was taken in.
    offset: Option<String>,
    /// When the app last answered.
    read_at: Option<String>,
    /// When an entry last came.
    entry_at: Option<String>,
    /// Entries and their items, since the integration was made.
    entries: u64,
    items: u64,
    next_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    failed_at: Option<String>,
    /// When changes may have been missed last; the connections were asked to look for themselves then.
    gap_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<String>,
}

impl JournalView {
    fn of(state: JournalState) -> Self {
        let time = |at: Option<Millis>| at.map(Millis::rfc3339_millis);
        let told = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            status: match (state.failures, state.read_at) {
                (0, None) => "starting",
                (0, Some(_)) => "reading",
                _ => "failing",
            },
            offset: state.offset,
            read_at: time(state.read_at),
            entry_at: time(state.entry_at),
            entries: state.entries,
            items: state.items,
            next_at: time(state.due_at),
            error: told(state.error),
            failed_at: time(state.failed_at),
            gap_at: time(state.gap_at),
            gap: told(state.gap),
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Webhooks {
    webhooks: Vec<WebhookView>,
    /// What stands in the way of the app reaching us.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

/// The integration's webhooks.
pub(super) async fn show(call: Call) -> Result<Reply> {
    let (workspace, id) = (call.workspace()?, id_of(&call)?);
    let read = move |rows: &Rows| {
        let found = find(rows, workspace, id)?;
        let split = Split::stored(rows, &id.0, &found.parameters)?;
        Ok((found, rows.webhook_tokens(&id.0)?, split.whole()))
    };
    let (found, tokens, parameters) = call.read(read).await?;
    let token = tokens.first().ok_or_else(|| Error::internal("an integration has no webhook token"))?;
    let connector = connectors::find(&call, &found.connector, Code::Invalid)?;
    let (base, note) = base(&call);
    let keys: Vec<String> = connector.journals(&parameters).into_iter().map(|(key, _)| key.to_owned()).collect();
    let is_pushed = connector.global_webhooks.iter().any(|webhook| !keys.contains(&webhook.key));
    let read = move |rows: &Rows| {
        let state = |key: String| rows.journal(id, &key).map(|state| (key, state));
        keys.into_iter().map(state).collect::<Result<Vec<_>>>()
    };
    let journals = call.read(read).await?;
    let webhooks = connector.global_webhooks.iter().map(|webhook| {
        let uri = format!("{base}/in/g/{token}/{}", webhook.key);
        let journal = journals.iter().find(|(key, _)| *key == webhook.key);
        let instructions = webhook.instructions.as_ref().filter(|_| journal.is_none());
        WebhookView {
            key: webhook.key.clone(),
            name: webhook.name.clone(),
            // What to do with an address that nobody needs.
            description: webhook.description.clone().filter(|_| journal.is_none()),
            instructions: instructions.map(|text| text.fill(&uri, &parameters, &connector.parameters)),
            uri,
            journal: journal.map(|(_, state)| JournalView::of(state.clone())),
        }
    });
    // Where nothing is pushed, nothing need reach us.
    Reply::json(&Webhooks { webhooks: webhooks.collect(), note: note.filter(|_| is_pushed) })
}
