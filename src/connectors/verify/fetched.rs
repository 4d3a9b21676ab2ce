//! Checks whose keys the app publishes: the request names a key, and the key is fetched from the app's one host.
//!
//! Always true: a key comes from the host that the connector names and from nowhere else, and is believed for at most 24
//! hours; what is known is tried before anything is fetched; the fetches that the requests to one owner can cause, those
//! under way, and what is remembered are bounded; a key that could not be fetched leaves the request undecided, never
//! refused, since an app that is told 401 does not send again. Not here: what a request claims (`adobe`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use url::Url;

use super::adobe::{self, Claim};
use super::{Refusal, Spec, Verdict, WebhookRequest, rsa_is};
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::outbound::{Client, Method, Request};

/// The app says: no longer than 24 hours.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 3600);
/// A key that is not there may be about to be.
const MISSING_FOR: Duration = Duration::from_secs(60);
const KEYS_MAX: usize = 256;
const MISSING_MAX: usize = 1024;
const OWNERS_MAX: usize = 10_000;
/// Fetches that requests to one owner can cause. An app that changes both its keys causes two.
const FETCHES_MAX: u32 = 10;
const FETCHES_PER: Duration = Duration::from_secs(300);
const AT_ONCE: usize = 4;
/// Two keys, with the waits for room, are within the 10 s in which Adobe wants its answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
const ROOM_WAIT: Duration = Duration::from_secs(1);
const KEY_BYTES_MAX: usize = 16 * 1024;

/// What came of asking for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    Key(String),
    /// There is no such key.
    Missing,
    /// Nobody could say.
    Down,
}

/// Asks for a key. It belongs on the client's runtime.
pub async fn ask(client: Client, url: Url) -> Answered {
    let mut request = Request::new(Method::GET, url);
    (request.timeout, request.read_limit) = (FETCH_TIMEOUT, KEY_BYTES_MAX);
    match client.send(request).await {
        Ok(answer) if answer.status == 200 && !answer.cut => match std::str::from_utf8(&answer.body) {
            Ok(text) if text.contains("-----BEGIN PUBLIC KEY-----") => Answered::Key(text.to_owned()),
            _ => Answered::Missing,
        },
        Ok(answer) if matches!(answer.status, 400 | 403 | 404 | 410) => Answered::Missing,
        Ok(answer) => {
            tracing::warn!(status = answer.status, "the host of an app's public keys does not give a key");
            Answered::Down
        }
        Err(error) => {
            tracing::warn!(%error, "the host of an app's public keys does not answer");
            Answered::Down
        }
    }
}

/// The keys that were fetched, and who caused how many fetches.
pub struct Keys {
    known: Mutex<Known>,
    room: Semaphore,
}

#[derive(Default)]
struct Known {
    keys: HashMap<String, (Arc<str>, Millis)>,
    missing: HashMap<String, Millis>,
    /// Since when, and how many.
    spent: HashMap<[u8; 12], (Millis, u32)>,
}

/// What is known of a key.
enum Found {
    Key(Arc<str>),
    Missing,
    Unknown,
}

impl Default for Keys {
    fn default() -> Self {
        Self { known: Mutex::default(), room: Semaphore::new(AT_ONCE) }
    }
}

impl Keys {
    /// Judges a request to an owner. `at` is the keys' host, `clients` are those whose events are ours.
    pub async fn check<F: Future<Output = Answered>>(
        &self,
        spec: &Spec,
        (request, clients): (&WebhookRequest, &[Secret]),
        (owner, at): ([u8; 12], &Url),
        now: Millis,
        fetch: impl Fn(Url) -> F,
    ) -> Verdict {
        if clients.is_empty() {
            return if spec.optional { Verdict::Verified } else { Verdict::Refused(Refusal::NoSecret) };
        }
        let claims = match adobe::claims(request, clients) {
            Ok(claims) => claims,
            Err(refusal) => return Verdict::Refused(refusal),
        };
        let signs = |key: &str, claim: &Claim<'_>| {
            claim.signature.as_ref().is_some_and(|signature| rsa_is(key, &request.body, signature))
        };
        let known = |claim: &Claim<'_>| match self.look(&url_of(at, claim.path), now) {
            Found::Key(key) => signs(&key, claim),
            Found::Missing | Found::Unknown => false,
        };
        if claims.iter().any(known) {
            return Verdict::Verified;
        }
        let mut undecided = false;
        for claim in claims.iter().filter(|claim| claim.signature.is_some()) {
            match self.find(url_of(at, claim.path), owner, now, &fetch).await {
                Found::Key(key) if signs(&key, claim) => return Verdict::Verified,
                Found::Key(_) | Found::Missing => {}
                Found::Unknown => undecided = true,
            }
        }
        if undecided { Verdict::Undecided } else { Verdict::Refused(Refusal::Wrong) }
    }

    fn look(&self, url: &Url, now: Millis) -> Found {
        let known = self.lock();
        match (known.keys.get(url.as_str()), known.missing.get(url.as_str())) {
            (Some((key, until)), _) if *until > now => Found::Key(key.clone()),
            (_, Some(until)) if *until > now => Found::Missing,
            _ => Found::Unknown,
        }
    }

    async fn find<F: Future<Output = Answered>>(
        &self,
        url: Url,
        owner: [u8; 12],
        now: Millis,
        fetch: &impl Fn(Url) -> F,
    ) -> Found {
        // Whoever waited for room may find that another has asked meanwhile.
        let Ok(Ok(_room)) = tokio::time::timeout(ROOM_WAIT, self.room.acquire()).await else { return Found::Unknown };
        let found = self.look(&url, now);
        if !matches!(found, Found::Unknown) || !self.lock().spend(owner, now) {
            return found;
        }
        let answered = fetch(url.clone()).await;
        self.lock().learn(url.into(), answered, now)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Maps of what can be fetched again, sound whatever a panicked holder did.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether the owner may cause one more fetch.
    fn spend(&mut self, owner: [u8; 12], now: Millis) -> bool {
        if self.spent.len() >= OWNERS_MAX && !self.spent.contains_key(&owner) {
            self.spent.retain(|_, (since, _)| now.since(*since) < FETCHES_PER);
            if self.spent.len() >= OWNERS_MAX {
                return false;
            }
        }
        let (since, count) = self.spent.entry(owner).or_insert((now, 0));
        if now.since(*since) >= FETCHES_PER {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= FETCHES_MAX
    }

    fn learn(&mut self, url: String, answered: Answered, now: Millis) -> Found {
        match answered {
            Answered::Key(key) => {
                let key: Arc<str> = key.into();
                make_room(&mut self.keys, KEYS_MAX, now, |(_, until)| *until);
                self.missing.remove(&url);
                self.keys.insert(url, (key.clone(), now.after(KNOWN_FOR)));
                Found::Key(key)
            }
            Answered::Missing => {
                make_room(&mut self.missing, MISSING_MAX, now, |until| *until);
                self.keys.remove(&url);
                self.missing.insert(url, now.after(MISSING_FOR));
                Found::Missing
            }
            Answered::Down => Found::Unknown,
        }
    }
}

/// Forgets what is over, and then what ends first, until one more fits.
fn make_room<V>(map: &mut HashMap<String, V>, most: usize, now: Millis, until: impl Fn(&V) -> Millis) {
    if map.len() < most {
        return;
    }
    map.retain(|_, value| until(value) > now);
    while map.len() >= most {
        let first = map.iter().min_by_key(|(_, value)| until(value)).map(|(url, _)| url.clone());
        let Some(first) = first else { return };
        map.remove(&first);
    }
}

/// The key's address: the path has been judged, so it cannot lead to another host.
fn url_of(at: &Url, path: &str) -> Url {
    let mut url = at.clone();
    url.set_path(path);
    url
}

#[cfg(test)]
mod tests;
