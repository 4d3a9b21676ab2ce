//! The actor that answers rings: starts a look per owner, a bounded number at once.
//!
//! Always true: an owner that is rung during its look is looked at again; a look that panics or fails is tried again
//! later. Its memory of who is being looked at outlives it.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, Context, Handler};

use super::look::look;
use super::{journal, pasted};
use crate::actors::Deps;
use crate::actors::handle::{Owner, Wakes};
use crate::actors::supervisor::Wake;
use crate::domain::connection::{Confirmation, Connection, Farewell, Integration};
use crate::domain::time::Millis;
use crate::error::Result;

/// After our own failure, or a panic.
const FAILED_WAIT: Duration = Duration::from_secs(10);
/// Connections that are overdue at the start are spread by so much each, so that they do not all call at once.
const START_SPREAD_MS: u64 = 2;

/// Who is to be looked at, and who is being looked at.
#[derive(Default)]
struct Rounds {
    waiting: VecDeque<Owner>,
    queued: HashSet<Owner>,
    running: HashSet<Owner>,
    /// Rung while being looked at.
    again: HashSet<Owner>,
}

/// All watchers; clones are the same.
#[derive(Clone)]
pub struct Watchers {
    deps: Deps,
    rounds: Arc<Mutex<Rounds>>,
    bell: Arc<tokio::sync::Notify>,
}

impl Watchers {
    /// Watchers over the store's connections.
    pub fn new(deps: Deps) -> Self {
        Self { deps, rounds: Arc::default(), bell: Arc::default() }
    }

    /// Sets the alarm of every connection, and of every owner whose webhooks wait; once, at the start. It reads all
    /// connections, so it runs where it may block.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(&self) -> Result<()> {
        let (store, rings, now) = (&self.deps.store, &self.deps.rings, self.deps.clock.now());
        let mut overdue = 0_u64;
        store.every_object::<Connection>(|connection| {
            let behind = pasted::is_behind(&self.deps, &connection)?;
            let due = store.next_due(connection.id)?.filter(|at| *at > now && !behind).unwrap_or_else(|| {
                overdue += 1;
                Millis(now.0 + overdue * START_SPREAD_MS)
            });
            rings.at(due, Wakes::Owner(connection.id.0));
            Ok(())
        })?;
        store.every_object::<Integration>(|integration| {
            if pasted::is_integration_behind(&self.deps, &integration)?
                || !journal::keys(&self.deps, &integration)?.is_empty()
            {
                overdue += 1;
                rings.at(Millis(now.0 + overdue * START_SPREAD_MS), Wakes::Owner(integration.id.0));
            }
            Ok(())
        })?;
        store.every_object::<Farewell>(|farewell| {
            rings.at(farewell.due_at, Wakes::Owner(farewell.connection.id.0));
            Ok(())
        })?;
        store.every_object::<Confirmation>(|waiting| {
            rings.at(waiting.due_at, Wakes::Owner(waiting.owner));
            Ok(())
        })?;
        for (owner, at) in store.inbox_owners()? {
            rings.at(at, Wakes::Owner(owner));
        }
        Ok(())
    }

    /// Waits until somebody was rung, or a look has ended: the actor's bell.
    pub async fn rung(&self) {
        tokio::select! {
            owners = self.deps.rings.owners_rung() => {
                let mut rounds = self.lock();
                owners.into_iter().for_each(|owner| rounds.ask(owner));
            }
            () = self.bell.notified() => {}
        }
    }

    /// The actor.
    pub fn actor(&self) -> Watcher {
        Watcher(self.clone())
    }

    fn begin(&self) {
        let most = self.deps.polling.concurrent_max.get();
        loop {
            let mut rounds = self.lock();
            if rounds.running.len() >= most {
                return;
            }
            let Some(owner) = rounds.waiting.pop_front() else { return };
            rounds.queued.remove(&owner);
            rounds.running.insert(owner);
            drop(rounds);
            let turn = Turn { watchers: self.clone(), owner, next: Some(self.deps.clock.now().after(FAILED_WAIT)) };
            self.deps.runtime.spawn(turn.take());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Rounds> {
        // Sets of ids, sound whatever a panicked holder did.
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rounds {
    fn ask(&mut self, owner: Owner) {
        if self.running.contains(&owner) {
            self.again.insert(owner);
        } else if self.queued.insert(owner) {
            self.waiting.push_back(owner);
        }
    }
}

/// One look under way. Dropped, also by a panic, it makes room and sets the alarm.
struct Turn {
    watchers: Watchers,
    owner: Owner,
    next: Option<Millis>,
}

impl Turn {
    async fn take(mut self) {
        match look(&self.watchers.deps, self.owner).await {
            Ok(next) => self.next = next,
            Err(error) => tracing::error!(owner = hex::encode(self.owner), error = error.chain(), "a look failed"),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.watchers.deps.metrics.actor_restarts.with(["watcher"]).inc();
        }
        if let Some(at) = self.next {
            self.watchers.deps.rings.at(at, Wakes::Owner(self.owner));
        }
        let mut rounds = self.watchers.lock();
        rounds.running.remove(&self.owner);
        if rounds.again.remove(&self.owner) {
            rounds.ask(self.owner);
        }
        drop(rounds);
        self.watchers.bell.notify_one();
    }
}

/// The actor: each wake-up starts the looks that there is room for.
pub struct Watcher(Watchers);

impl Actor for Watcher {
    type Context = Context<Self>;
}

impl Handler<Wake> for Watcher {
    type Result = ();
    fn handle(&mut self, _: Wake, _: &mut Context<Self>) {
        self.0.begin();
    }
}
