//! What watchers remember between two looks: request budgets, apps that could not be asked, and who wants the apps' own
//! records.
//!
//! Always true: losing it costs nothing but a fresh budget or another read of the store; its size is bounded.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use serde_json::Value;

use crate::actors::handle::{Owner, Rings};
use crate::connectors::{Budget, Connector, Parameters, Session};
use crate::domain::id::{ConnectionId, InboxId, WorkspaceNo};
use crate::domain::snapshot::raw_hash;
use crate::domain::subscription::{Include, Subscription};
use crate::domain::time::Millis;
use crate::error;
use crate::store::{InboxRow, Store};

/// Budgets of connections that are kept; the longest unused go first.
const BUDGETS_MAX: usize = 10_000;
/// Integrations whose tokens are remembered.
const JOURNALS_MAX: usize = 1_000;
/// A budget unused for so long is full again in any case.
const BUDGET_IDLE: Duration = Duration::from_secs(3600);

/// How long it is believed up to where webhooks are settled.
const SETTLED_FOR: Duration = Duration::from_secs(30);

type Wishes = (u64, Arc<HashSet<WorkspaceNo>>);

/// See the module.
#[derive(Default)]
pub struct Memory {
    budgets: Mutex<HashMap<ConnectionId, (Millis, Arc<Budget>)>>,
    /// With the version of the connections then: a change may have mended it.
    quiet: Mutex<HashMap<ConnectionId, (u64, Millis)>>,
    inbox: Mutex<HashMap<Owner, Settled>>,
    /// Up to where the webhooks of connections that do nothing have been looked through.
    wishes: Mutex<HashMap<Owner, (Millis, InboxId)>>,
    raw: Mutex<Option<Wishes>>,
    renewing: Mutex<HashMap<ConnectionId, Weak<tokio::sync::Mutex<()>>>>,
    journals: Mutex<HashMap<Owner, ([u8; 16], Arc<Session>)>>,
}

/// Up to where an owner's webhooks are settled.
#[derive(Clone, Copy)]
struct Settled {
    until: Millis,
    /// After a while it is found out anew, which heals whatever it missed.
    known_since: Millis,
}

impl Memory {
    /// The budget of a connection's requests.
    pub fn budget(&self, id: ConnectionId, connector: &Connector, now: Millis) -> Arc<Budget> {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        if budgets.len() >= BUDGETS_MAX && !budgets.contains_key(&id) {
            budgets.retain(|_, (used, _)| now.since(*used) < BUDGET_IDLE);
            if budgets.len() >= BUDGETS_MAX {
                budgets.clear();
            }
        }
        let fresh = || (now, Arc::new(Budget::of(connector, now)));
        let (used, budget) = budgets.entry(id).or_insert_with(fresh);
        *used = now;
        budget.clone()
    }

    /// Held by whoever renews a connection's credentials.
    pub fn renewing(&self, id: ConnectionId) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&id).and_then(Weak::upgrade) {
            return known;
        }
        if all.len() >= BUDGETS_MAX {
            // Those that somebody holds or waits for stay.
            all.retain(|_, known| known.strong_count() > 0);
        }
        let fresh = Arc::new(tokio::sync::Mutex::new(()));
        all.insert(id, Arc::downgrade(&fresh));
        fresh
    }

    /// The app as an integration's own client sees it: with the token that it was given last. Other parameters make
    /// another one.
    ///
    /// # Errors
    /// One sentence: it cannot be made of these parameters.
    pub fn journal(
        &self,
        owner: Owner,
        connector: &Connector,
        parameters: &Parameters,
        make: impl FnOnce() -> Result<Session, String>,
    ) -> Result<Arc<Session>, String> {
        let made_of = raw_hash(&connector.version, &Value::Object(parameters.clone()).to_string());
        let mut journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, session)) = journals.get(&owner).filter(|(known, _)| *known == made_of) {
            return Ok(session.clone());
        }
        if journals.len() >= JOURNALS_MAX {
            journals.clear();
        }
        let session = Arc::new(make()?);
        journals.insert(owner, (made_of, session.clone()));
        Ok(session)
    }

    /// The app of a connection could not be asked about its webhooks: it is left alone until then.
    pub fn quiet(&self, rings: &Rings, id: ConnectionId, until: Millis) {
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        if quiet.len() >= BUDGETS_MAX {
            quiet.clear();
        }
        quiet.insert(id, (rings.owners_version(), until));
    }

    /// Until when a connection's app is left alone.
    pub fn quiet_until(&self, rings: &Rings, id: ConnectionId) -> Option<Millis> {
        let known = self.quiet.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied();
        known.filter(|(version, _)| *version == rings.owners_version()).map(|(_, until)| until)
    }

    /// No webhook of the owner is due before that time.
    pub fn inbox_from(&self, owner: &Owner, now: Millis) -> Millis {
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let known = inbox.get(owner).filter(|settled| now.since(settled.known_since) < SETTLED_FOR);
        known.map_or(Millis(0), |settled| settled.until)
    }

    /// An owner's webhooks that are due have been read. What is still on its way into the store comes behind the last
    /// fresh one, whenever it is due; one that was tried before may stand behind others that are still to come.
    pub fn inbox_read(&self, owner: Owner, rows: &[(InboxId, InboxRow)], now: Millis) {
        let due = |(_, row): &(InboxId, InboxRow)| row.queued_at();
        let fresh = rows.iter().filter(|(_, row)| row.is_fresh()).filter_map(due).max();
        let (Some(first), Some(fresh)) = (rows.first().and_then(due), fresh) else { return };
        let until = first.min(fresh);
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if inbox.len() >= BUDGETS_MAX && !inbox.contains_key(&owner) {
            inbox.clear();
        }
        let settled = inbox.entry(owner).or_insert(Settled { until, known_since: now });
        let known_since = if now.since(settled.known_since) < SETTLED_FOR { settled.known_since } else { now };
        *settled = Settled { until, known_since };
    }

    /// The webhook up to which an owner's were looked through for what asks for an erasure: when it is due, and its id.
    pub fn wishes_from(&self, owner: &Owner) -> (Millis, InboxId) {
        let wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        wishes.get(owner).copied().unwrap_or((Millis(0), InboxId([0; 12])))
    }

    /// They were looked through so far.
    pub fn wishes_read(&self, owner: Owner, last: (Millis, InboxId)) {
        let mut wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        if wishes.len() >= BUDGETS_MAX && !wishes.contains_key(&owner) {
            wishes.clear();
        }
        wishes.insert(owner, last);
    }

    /// Whether any subscription of the workspace wants every change of the apps' own records.
    pub fn wants_raw(&self, store: &Store, rings: &Rings, workspace: WorkspaceNo) -> error::Result<bool> {
        let version = rings.subscriptions_version();
        let known = self.raw.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, wishes)) = known.filter(|(made_of, _)| *made_of == version) {
            return Ok(wishes.contains(&workspace));
        }
        let mut wishes = HashSet::new();
        store.every_object::<Subscription>(|subscription| {
            if subscription.include.contains(&Include::Raw) {
                wishes.insert(subscription.workspace);
            }
            Ok(())
        })?;
        let wants = wishes.contains(&workspace);
        *self.raw.lock().unwrap_or_else(PoisonError::into_inner) = Some((version, Arc::new(wishes)));
        Ok(wants)
    }
}
