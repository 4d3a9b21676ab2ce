//! Who calls: API keys, the operator's key, scopes.
//!
//! Always true: only SHA-256 digests of keys are kept and compared, in constant time; a revoked or expired key stops
//! working with the next call; a key bound to a user opens nothing but hooks. Not here: how keys are made (`keys`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

use super::state::State;
use crate::domain::id::{KeyId, WorkspaceNo};
use crate::domain::time::Millis;
use crate::domain::workspace::{ApiKey, Scope, Workspace};
use crate::error::{Code, Error, Result};
use crate::store::Rows;

/// Keys kept in memory; beyond it all are forgotten at once and read again.
const CACHED_MAX: usize = 10_000;
/// The longest text that is looked at as a key.
const KEY_BYTES_MAX: usize = 1024;

/// A key that was found, with its workspace.
#[derive(Clone, Debug)]
pub struct Known {
    pub key: ApiKey,
    pub workspace: Workspace,
}

impl Known {
    /// Whether the key still opens something: for answers that go on for long.
    pub(super) fn is_live(&self, rows: &Rows, now: Millis) -> Result<bool> {
        let expired = self.key.expires_at.is_some_and(|at| at <= now);
        Ok(!expired && rows.api_key(self.key.workspace, self.key.id)?.is_some())
    }
}

/// Keys that were used lately, by digest.
#[derive(Default)]
pub struct KeyCache(Mutex<Cached>);

#[derive(Default)]
struct Cached {
    /// Moves with each revocation, so that what was read before it is not put in after it.
    era: u64,
    known: HashMap<[u8; 32], Arc<Known>>,
}

impl KeyCache {
    fn lock(&self) -> MutexGuard<'_, Cached> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn find(&self, digest: &[u8; 32]) -> (u64, Option<Arc<Known>>) {
        let cached = self.lock();
        (cached.era, cached.known.get(digest).cloned())
    }
    fn put(&self, era: u64, known: &Arc<Known>) {
        let mut cached = self.lock();
        if cached.era != era {
            return;
        }
        if cached.known.len() >= CACHED_MAX {
            cached.known.clear();
        }
        cached.known.insert(known.key.digest, known.clone());
    }
    /// Forgets a key that was revoked.
    pub fn forget(&self, id: KeyId) {
        let mut cached = self.lock();
        cached.era += 1;
        cached.known.retain(|_, known| known.key.id != id);
    }
    /// Forgets all keys.
    pub fn forget_all(&self) {
        let mut cached = self.lock();
        cached.era += 1;
        cached.known.clear();
    }
}

/// SHA-256 of a key's text.
pub fn key_digest(text: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    out
}

/// The text after `Bearer`, the scheme in any case.
fn bearer(headers: &HeaderMap) -> Result<&str> {
    let no_key = || Error::new(Code::Unauthorized, "send your API key: `Authorization: Bearer <key>`");
    let text = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(no_key)?;
    let (scheme, key) = text.trim().split_once(' ').ok_or_else(no_key)?;
    let key = key.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(no_key());
    }
    Ok(key)
}

fn wrong_key() -> Error {
    Error::new(Code::Unauthorized, "the API key is unknown, expired or revoked")
}

/// Finds the caller of a keyed route and checks that the key may do one of what is wanted.
pub async fn caller(state: &State, headers: &HeaderMap, wanted: &[Scope]) -> Result<Arc<Known>> {
    let digest = key_digest(bearer(headers)?);
    let (era, found) = state.keys.find(&digest);
    let known = if let Some(known) = found {
        known
    } else {
        let found = state.store.blocking(move |rows| look_up(rows, &digest)).await?;
        let known = Arc::new(found.ok_or_else(wrong_key)?);
        state.keys.put(era, &known);
        known
    };
    verify_slices_are_equal(&known.key.digest, &digest).map_err(|_| wrong_key())?;
    if known.key.expires_at.is_some_and(|at| at <= state.clock.now()) {
        return Err(wrong_key());
    }
    if wanted.iter().any(|scope| known.key.allows(*scope)) {
        return Ok(known);
    }
    let scopes: Vec<&str> = wanted.iter().map(|scope| super::keys::scope_text(*scope)).collect();
    let scopes = scopes.join("` or `");
    Err(Error::new(Code::Forbidden, format!("this call needs a key with the scope `{scopes}`")))
}

fn look_up(rows: &Rows, digest: &[u8; 32]) -> Result<Option<Known>> {
    let Some(key) = rows.api_key_by_digest(digest)? else { return Ok(None) };
    let workspace = rows.workspace_by_no(key.workspace)?;
    Ok(workspace.map(|workspace| Known { key, workspace }))
}

/// Checks the key of a call about the node itself.
pub async fn node(state: &State, headers: &HeaderMap) -> Result<()> {
    if state.options.operator_key.is_some() {
        return operator(state, headers);
    }
    let known = caller(state, headers, &[Scope::Admin]).await?;
    if known.workspace.no == WorkspaceNo::DEFAULT {
        return Ok(());
    }
    Err(Error::new(
        Code::Forbidden,
        "the node itself is for its operator, whose key is not set: see security.operator_key",
    ))
}

/// Checks the operator's key.
pub fn operator(state: &State, headers: &HeaderMap) -> Result<()> {
    let Some(key) = &state.options.operator_key else {
        let message = "workspaces are managed with the operator's key, which is not set: see security.operator_key";
        return Err(Error::new(Code::Forbidden, message));
    };
    let given = key_digest(bearer(headers)?);
    verify_slices_are_equal(&given, &key_digest(key.expose()))
        .map_err(|_| Error::new(Code::Unauthorized, "this call needs the operator's key"))
}
