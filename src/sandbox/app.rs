//! What all requests share: the world behind a lock, the wrong answers that wait, the rate limit, the counters.
//!
//! Always true: a lock is never held over an await; each change made through [`App::change`] hands its webhooks on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use actix_web::HttpRequest;
use fastrand::Rng;
use tokio::sync::mpsc;

use super::Options;
use super::faults::{Fault, Faults};
use super::refusal::Refusal;
use super::world::{Account, Outgoing, World};
use crate::clock::Clock;
use crate::domain::time::Millis;

/// Paths that are counted apart; the rest is counted together.
const PATHS_MAX: usize = 1_000;

/// How the webhooks fared.
#[derive(Debug, Default)]
pub struct WebhookCounts {
    pub attempted: AtomicU64,
    pub accepted: AtomicU64,
    pub failed: AtomicU64,
    pub dropped: AtomicU64,
}

/// The sandbox, as its handlers see it.
pub struct App {
    state: Mutex<State>,
    pub clock: Clock,
    /// The developer's key, for the global webhook.
    pub app_key: String,
    /// Id and secret of the client that `/oauth` knows.
    pub client: (String, String),
    outgoing: mpsc::Sender<Outgoing>,
    pub webhooks: WebhookCounts,
    /// Something changed that is not yet saved.
    pub dirty: AtomicBool,
}

struct State {
    world: World,
    rng: Rng,
    faults: Faults,
    buckets: BTreeMap<usize, Bucket>,
    requests: BTreeMap<String, u64>,
}

/// What an account may still ask, in thousandths of a request.
struct Bucket {
    tokens: u64,
    at: Millis,
}

impl App {
    /// A sandbox around a world; its webhooks go to `outgoing`.
    pub fn new(world: World, rng: Rng, clock: Clock, options: &Options, outgoing: mpsc::Sender<Outgoing>) -> Self {
        let state =
            State { world, rng, faults: Faults::default(), buckets: BTreeMap::new(), requests: BTreeMap::new() };
        Self {
            state: Mutex::new(state),
            clock,
            app_key: options.app_key.clone(),
            client: (options.client_id.clone(), options.client_secret.clone()),
            outgoing,
            webhooks: WebhookCounts::default(),
            dirty: AtomicBool::new(false),
        }
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the world.
    pub fn read<T>(&self, read: impl FnOnce(&World, &mut Rng) -> T) -> T {
        let state = &mut *self.state();
        read(&state.world, &mut state.rng)
    }
    /// Changes the world, and hands the webhooks of the change on.
    pub fn change<T>(&self, change: impl FnOnce(&mut World, &mut Rng, Millis) -> T) -> T {
        let now = self.clock.now();
        let state = &mut *self.state();
        let result = change(&mut state.world, &mut state.rng, now);
        for outgoing in state.world.take_outbox() {
            if self.outgoing.try_send(outgoing).is_err() {
                state.world.overflowed += 1;
            }
        }
        self.dirty.store(true, Ordering::Relaxed);
        result
    }
    /// Reads or changes the wrong answers that wait.
    pub fn faults<T>(&self, with: impl FnOnce(&mut Faults) -> T) -> T {
        with(&mut self.state().faults)
    }
    /// Counts a request, and says what meets it.
    pub fn meet(&self, path: &str) -> Option<Fault> {
        let state = &mut *self.state();
        let known = state.requests.contains_key(path) || state.requests.len() < PATHS_MAX;
        *state.requests.entry(if known { path.to_owned() } else { "other".to_owned() }).or_default() += 1;
        state.faults.meet(path)
    }
    /// Requests to `/api` by path.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.state().requests.clone()
    }

    /// The place of the account whose key the request carries, within its rate limit.
    pub fn account(&self, request: &HttpRequest) -> Result<usize, Refusal> {
        let key = key(request).ok_or_else(Refusal::unauthorized)?;
        let now = self.clock.now();
        let state = &mut *self.state();
        let granted = state.world.grants.account(&key, now);
        let opens = |account: &Account| account.key == key || granted == Some(account.id.as_str());
        let found = state.world.accounts.iter().position(opens);
        let place = found.ok_or_else(Refusal::unauthorized)?;
        let rate = u64::from(state.world.settings.requests_per_second);
        if rate > 0 {
            // A second's worth may come at once.
            let full = rate * 1_000;
            let bucket = state.buckets.entry(place).or_insert(Bucket { tokens: full, at: now });
            let waited_ms = u64::try_from(now.since(bucket.at).as_millis()).unwrap_or(u64::MAX);
            bucket.tokens = bucket.tokens.saturating_add(waited_ms.saturating_mul(rate)).min(full);
            bucket.at = now;
            match bucket.tokens.checked_sub(1_000) {
                Some(left) => bucket.tokens = left,
                None => return Err(Refusal::too_fast(1)),
            }
        }
        Ok(place)
    }
    /// Whether the request carries the developer's key.
    pub fn developer(&self, request: &HttpRequest) -> Result<(), Refusal> {
        if key(request).as_deref() == Some(self.app_key.as_str()) { Ok(()) } else { Err(Refusal::unauthorized()) }
    }
}

/// The key of `Authorization: Bearer …` or `X-API-Key: …`.
fn key(request: &HttpRequest) -> Option<String> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    if let Some(key) = header("x-api-key") {
        return Some(key.to_owned());
    }
    let (scheme, key) = header("authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim().to_owned())
}
