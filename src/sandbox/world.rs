//! Everything the app knows: accounts, their records and webhooks, what changed, and what is still to be told.
//!
//! Always true: each change goes through [`World::create`], [`World::patch`] or [`World::delete`], which note it in the
//! log and put its webhooks into the outbox; every list has an end. Not here: HTTP (`rest`, `hooks`, `control`), which
//! changes happen by themselves (`stream`).

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::grants::Grants;
use super::paging::PastTheEnd;
use super::refusal::Refusal;
use super::table::{Collection, Record, Table};
use crate::domain::time::Millis;

/// Changes the log remembers.
const LOG_MAX: usize = 10_000;
/// Webhooks that wait to be sent; more are dropped and counted.
const OUTBOX_MAX: usize = 10_000;

/// What happened to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Created,
    Updated,
    Deleted,
}

impl Kind {
    /// As it stands in an event's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
        }
    }
}

/// One change, as `GET /control/log` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    pub number: u64,
    pub at: Millis,
    pub account: String,
    pub collection: Collection,
    pub kind: Kind,
    pub id: String,
}

/// A webhook that an account registered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hook {
    pub url: String,
    /// `contact.created`, `contact.*` or `*`.
    pub events: Vec<String>,
    pub secret: String,
    pub created: Millis,
    /// Nothing is sent after this time unless it is renewed.
    pub expires: Millis,
}

/// The one URL to which the events of all accounts go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GlobalHook {
    pub url: String,
    pub events: Vec<String>,
    pub secret: String,
}

/// One account of the app.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Account {
    pub id: String,
    pub name: String,
    /// The API key.
    pub key: String,
    tables: BTreeMap<Collection, Table>,
    pub hooks: BTreeMap<String, Hook>,
}

impl Account {
    /// An account without records.
    pub fn new(number: usize) -> Self {
        Self {
            id: format!("acc_{number}"),
            name: format!("Sandbox account {number}"),
            key: format!("sandbox-key-{number}"),
            tables: Collection::ALL.into_iter().map(|c| (c, Table::default())).collect(),
            hooks: BTreeMap::new(),
        }
    }
    /// A collection.
    pub fn table(&self, collection: Collection) -> Result<&Table, Refusal> {
        self.tables.get(&collection).ok_or_else(|| Refusal::not_found("no such collection"))
    }
    /// A collection, to change it without telling anyone.
    pub fn table_mut(&mut self, collection: Collection) -> &mut Table {
        self.tables.entry(collection).or_default()
    }
}

/// How the app behaves; tests change it through `/control/settings`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    pub changes_per_minute: u32,
    /// Requests per second and account; 0 for no limit.
    pub requests_per_second: u32,
    /// Lists come with ties in an order by chance.
    pub shuffle_ties: bool,
    pub past_the_end: PastTheEnd,
    /// This many webhooks get lost on their way.
    pub drop_webhooks: u32,
    /// Each webhook is sent this many times more than once.
    pub repeat_webhooks: u32,
    /// Webhooks are signed with a wrong secret.
    pub bad_signatures: bool,
    /// Webhooks leave this much later.
    pub webhook_delay_ms: u64,
    /// Life of an access token.
    pub token_seconds: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            changes_per_minute: 0,
            requests_per_second: 0,
            shuffle_ties: false,
            past_the_end: PastTheEnd::Empty,
            drop_webhooks: 0,
            repeat_webhooks: 0,
            bad_signatures: false,
            webhook_delay_ms: 0,
            token_seconds: 1_800,
        }
    }
}

/// A webhook on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub url: String,
    pub secret: String,
    pub event: String,
    pub delivery: String,
    pub body: String,
}

/// The app's whole state.
#[derive(Serialize, Deserialize)]
pub struct World {
    pub accounts: Vec<Account>,
    pub global: Option<GlobalHook>,
    #[serde(default)]
    pub grants: Grants,
    /// Of the last change; never used twice, also over restarts.
    number: u64,
    #[serde(skip)]
    pub settings: Settings,
    #[serde(skip)]
    pub records_max: usize,
    #[serde(skip)]
    log: VecDeque<Change>,
    #[serde(skip)]
    outbox: Vec<Outgoing>,
    /// Webhooks that were not sent because too many were waiting.
    #[serde(skip)]
    pub overflowed: u64,
}

impl World {
    /// A world with empty accounts.
    pub fn new(accounts: usize, records_max: usize) -> Self {
        Self {
            accounts: (1..=accounts).map(Account::new).collect(),
            global: None,
            grants: Grants::default(),
            number: 0,
            settings: Settings::default(),
            records_max,
            log: VecDeque::new(),
            outbox: Vec::new(),
            overflowed: 0,
        }
    }
    /// The number of the last change.
    pub fn number(&self) -> u64 {
        self.number
    }
    /// The latest changes, oldest first.
    pub fn log(&self) -> &VecDeque<Change> {
        &self.log
    }
    /// Takes the webhooks that wait to be sent.
    pub fn take_outbox(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.outbox)
    }
    /// An account by its place.
    pub fn account(&self, place: usize) -> Result<&Account, Refusal> {
        self.accounts.get(place).ok_or_else(Refusal::unauthorized)
    }
    /// The place of the account with this id.
    pub fn find(&self, account: &str) -> Result<usize, Refusal> {
        let found = self.accounts.iter().position(|a| a.id == account);
        found.ok_or_else(|| Refusal::not_found("no such account"))
    }
    fn account_mut(&mut self, place: usize) -> Result<&mut Account, Refusal> {
        self.accounts.get_mut(place).ok_or_else(Refusal::unauthorized)
    }
    /// The account's webhooks.
    pub fn hooks_mut(&mut self, place: usize) -> Result<&mut BTreeMap<String, Hook>, Refusal> {
        Ok(&mut self.account_mut(place)?.hooks)
    }

    /// Makes a record and tells of it.
    pub fn create(
        &mut self,
        place: usize,
        collection: Collection,
        fields: Map<String, Value>,
        now: Millis,
    ) -> Result<Change, Refusal> {
        let records_max = self.records_max;
        let table = self.account_mut(place)?.table_mut(collection);
        let record = table.insert(collection, fields, now, records_max)?.clone();
        self.tell(place, collection, Kind::Created, &record, now)
    }

    /// Changes fields of a record and tells of it.
    pub fn patch(
        &mut self,
        place: usize,
        collection: Collection,
        id: &str,
        patch: Map<String, Value>,
        now: Millis,
    ) -> Result<Change, Refusal> {
        let table = self.account_mut(place)?.table_mut(collection);
        let record = table.patch(id, patch, now)?.clone();
        self.tell(place, collection, Kind::Updated, &record, now)
    }

    /// Deletes a record and tells of it.
    pub fn delete(&mut self, place: usize, collection: Collection, id: &str, now: Millis) -> Result<Change, Refusal> {
        let table = self.account_mut(place)?.table_mut(collection);
        let record = table.rows().get(id).cloned().ok_or_else(|| Refusal::no_record(id))?;
        table.delete(id, now)?;
        self.tell(place, collection, Kind::Deleted, &record, now)
    }

    fn tell(
        &mut self,
        place: usize,
        collection: Collection,
        kind: Kind,
        record: &Record,
        now: Millis,
    ) -> Result<Change, Refusal> {
        self.number += 1;
        let account = self.accounts.get(place).ok_or_else(Refusal::unauthorized)?;
        let at = if kind == Kind::Deleted { now } else { record.updated };
        let change =
            Change { number: self.number, at, account: account.id.clone(), collection, kind, id: record.id.clone() };
        let event = format!("{}.{}", collection.singular(), kind.name());
        let data = match kind {
            Kind::Deleted => json!({"id": collection.id_value(&record.id), "deleted_at": at.rfc3339_millis()}),
            _ if collection.webhook_is_complete() => record.to_json(collection),
            _ => json!({"id": collection.id_value(&record.id), "updated_at": at.rfc3339_millis()}),
        };
        let body = json!({
            "id": format!("evt_{:012}", self.number),
            "event": event,
            "account_id": account.id,
            "occurred_at": at.rfc3339_millis(),
            "data": data,
        })
        .to_string();
        let own = account.hooks.values().filter(|h| h.expires > now).map(|h| (&h.url, &h.secret, &h.events));
        let global = self.global.iter().map(|g| (&g.url, &g.secret, &g.events));
        for (place, (url, secret, events)) in own.chain(global).enumerate() {
            if !events.iter().any(|pattern| matches(pattern, &event)) {
                continue;
            }
            if self.outbox.len() >= OUTBOX_MAX {
                self.overflowed += 1;
                continue;
            }
            self.outbox.push(Outgoing {
                url: url.clone(),
                secret: secret.clone(),
                event: event.clone(),
                delivery: format!("dlv_{:012}_{place}", self.number),
                body: body.clone(),
            });
        }
        if self.log.len() >= LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back(change.clone());
        Ok(change)
    }
}

/// Whether an event is meant by `contact.created`, `contact.*` or `*`.
fn matches(pattern: &str, event: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => event.starts_with(prefix),
        None => pattern == event,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(events: &[&str], expires: u64) -> Hook {
        let events = events.iter().map(|e| (*e).to_owned()).collect();
        Hook { url: "http://x/".into(), events, secret: "s".into(), created: Millis(0), expires: Millis(expires) }
    }

    #[test]
    fn a_change_is_told_to_the_webhooks_that_asked_for_it() {
        let mut world = World::new(2, 10);
        world.hooks_mut(0).expect("there").insert("a".into(), hook(&["contact.*"], 1_000));
        world.hooks_mut(0).expect("there").insert("b".into(), hook(&["order.created"], 1_000));
        world.hooks_mut(0).expect("there").insert("late".into(), hook(&["*"], 5));
        world.hooks_mut(1).expect("there").insert("other".into(), hook(&["*"], 1_000));
        world.create(0, Collection::Contacts, Map::new(), Millis(10)).expect("room");
        let sent = world.take_outbox();
        assert_eq!(sent.len(), 1);
        assert!(sent[0].body.contains("\"account_id\":\"acc_1\""));
        assert!(world.take_outbox().is_empty());
    }

    #[test]
    fn the_global_webhook_hears_of_all_accounts() {
        let mut world = World::new(2, 10);
        world.global = Some(GlobalHook { url: "http://g/".into(), events: vec!["*".into()], secret: "s".into() });
        world.create(0, Collection::Orders, Map::new(), Millis(10)).expect("room");
        let change = world.create(1, Collection::Contacts, Map::new(), Millis(11)).expect("room");
        world.delete(1, Collection::Contacts, &change.id, Millis(12)).expect("there");
        let sent = world.take_outbox();
        let events: Vec<_> = sent.iter().map(|o| o.event.as_str()).collect();
        assert_eq!(events, ["order.created", "contact.created", "contact.deleted"]);
        // An order's webhook is a hint only.
        assert!(!sent[0].body.contains("created_at"));
        assert!(sent[1].body.contains("created_at"));
    }
}
