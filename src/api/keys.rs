//! `/one/keys`: API keys, made, listed and revoked.
//!
//! Always true: a key's text is shown once, when it is made, and only its SHA-256 is kept; a revoked key stops working
//! before the call that revokes it is answered. Not here: how a key is checked (`auth`).

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::auth::key_digest;
use super::call::{Call, not_found, user_of};
use super::paging::{self, Paging};
use super::reply::Reply;
use super::route::{Access, PAGED, Route, group};
use super::shapes::{Deleted, future, name_of};
use crate::domain::id::{KeyId, WorkspaceNo};
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::domain::workspace::{ApiKey, Scope};
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Tx};

/// What a key of ours begins with, so that scanners for leaked secrets know it.
const PREFIX: &str = "tmk_";
const RANDOM_BYTES: usize = 24;

/// A word of `scopes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ScopeWord {
    Hooks,
    Read,
    Write,
    Admin,
}

impl From<ScopeWord> for Scope {
    fn from(word: ScopeWord) -> Self {
        match word {
            ScopeWord::Hooks => Self::Hooks,
            ScopeWord::Read => Self::Read,
            ScopeWord::Write => Self::Write,
            ScopeWord::Admin => Self::Admin,
        }
    }
}

/// The word for a scope.
pub(super) fn scope_text(scope: Scope) -> &'static str {
    match scope {
        Scope::Hooks => "hooks",
        Scope::Read => "read",
        Scope::Write => "write",
        Scope::Admin => "admin",
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NewKey {
    /// For people; up to 256 bytes. A key for hooks may go without: it is named after its user.
    #[serde(default)]
    name: Option<String>,
    /// `write` includes `read`, `admin` includes both. `hooks` stands alone and needs a `userId`.
    scopes: Vec<ScopeWord>,
    /// The user, by id or username, that a `hooks` key is bound to.
    #[serde(default)]
    user_id: Option<String>,
    /// RFC 3339. Left out: it does not expire.
    #[serde(default)]
    expires_at: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyView {
    key_id: String,
    name: String,
    scopes: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    created_at: String,
    /// The key itself: shown once, by the call that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
}

impl KeyView {
    pub(super) fn of(key: &ApiKey, shown: Option<&Secret>) -> Self {
        Self {
            key_id: key.id.to_string(),
            name: key.name.clone(),
            scopes: key.scopes.iter().map(|s| scope_text(*s)).collect(),
            user_id: key.user.map(|id| id.to_string()),
            expires_at: key.expires_at.map(Millis::rfc3339_millis),
            created_at: key.created_at.rfc3339_millis(),
            api_key: shown.map(|secret| secret.expose().to_owned()),
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct OneKey {
    pub(super) key: KeyView,
}

#[derive(Serialize, JsonSchema)]
struct Keys {
    keys: Vec<KeyView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(super) fn routes() -> Vec<Route> {
    let (all, one) = ("/{version}/one/keys", "/{version}/one/keys/{keyId}");
    let admin = |route: Route| route.only(Access::Key(Scope::Admin));
    let routes = vec![
        admin(Route::post(all, "Make an API key; it is shown once", create)).takes::<NewKey>().gives::<OneKey>(),
        admin(Route::get(all, "List API keys", list)).query(PAGED).gives::<Keys>(),
        admin(Route::get(one, "Show an API key, without its text", show)).gives::<OneKey>(),
        admin(Route::delete(one, "Revoke an API key", revoke)).gives::<Deleted>(),
    ];
    group("keys", routes)
}

/// A fresh key's text.
pub(super) fn draw() -> Result<Secret> {
    let mut bytes = Zeroizing::new([0_u8; RANDOM_BYTES]);
    rand::fill(bytes.as_mut()).map_err(Error::internal)?;
    Ok(Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes.as_ref()))))
}

/// Puts a key with full access, as the first of a workspace.
pub(super) fn put_admin(tx: &mut Tx<'_>, workspace: WorkspaceNo, name: &str, secret: &Secret) -> Result<ApiKey> {
    let key = ApiKey {
        id: KeyId(tx.fresh_id()?),
        workspace,
        name: name.to_owned(),
        scopes: vec![Scope::Admin],
        user: None,
        expires_at: None,
        created_at: tx.now(),
        digest: key_digest(secret.expose()),
    };
    tx.put_object(&key)?;
    Ok(key)
}

fn check(rows: &Rows, key: &NewKey, workspace: WorkspaceNo, now: Millis) -> Result<ApiKey> {
    if key.scopes.is_empty() {
        return Err(Error::invalid("scopes: name at least one of read, write, admin and hooks"));
    }
    let mut scopes: Vec<Scope> = key.scopes.iter().map(|word| Scope::from(*word)).collect();
    scopes.sort();
    scopes.dedup();
    let hooks = scopes.contains(&Scope::Hooks);
    if hooks && scopes.len() > 1 {
        return Err(Error::invalid("scopes: `hooks` stands alone, so that the key opens nothing else"));
    }
    if hooks != key.user_id.is_some() {
        return Err(Error::invalid("userId: a key with the scope `hooks` is bound to a user, and no other key is"));
    }
    let user = key.user_id.as_deref().map(|text| user_of(rows, workspace, text)).transpose()?;
    let name = match (&key.name, &user) {
        (Some(name), _) => name_of("name", name)?,
        (None, Some(user)) => format!("hooks of {}", user.username).chars().take(64).collect(),
        (None, None) => return Err(Error::invalid("name: say for people what the key is for")),
    };
    let user = user.map(|user| user.id);
    let expires_at = key.expires_at.as_deref().map(|text| future("expiresAt", text, now)).transpose()?;
    let (id, digest) = (KeyId([0; 12]), [0; 32]);
    Ok(ApiKey { id, workspace, name, scopes, user, expires_at, created_at: now, digest })
}

async fn create(call: Call) -> Result<Reply> {
    let (asked, workspace, now) = (call.json::<NewKey>()?, call.workspace()?, call.now());
    let secret = draw()?;
    let change = move |tx: &mut Tx<'_>| {
        let checked = check(tx, &asked, workspace, now)?;
        let key = ApiKey { id: KeyId(tx.fresh_id()?), digest: key_digest(secret.expose()), ..checked };
        tx.put_object(&key)?;
        Ok((Reply::json(&OneKey { key: KeyView::of(&key, Some(&secret)) })?, ()))
    };
    call.change(change).await.map(|(reply, ())| reply)
}

async fn list(call: Call) -> Result<Reply> {
    let (workspace, page) = (call.workspace()?, Paging::of(&call)?);
    let before = page.before_exactly::<12>()?;
    let found =
        call.read(move |rows| rows.api_keys(workspace, before.as_ref().map(<[u8; 12]>::as_slice), page.limit)).await?;
    let keys = found.items.iter().map(|key| KeyView::of(key, None)).collect();
    Reply::json(&Keys { keys, next: found.next.map(paging::next) })
}

async fn show(call: Call) -> Result<Reply> {
    let (workspace, id) = (call.workspace()?, call.id::<KeyId>("keyId", Code::KeyNotFound)?);
    let key = call.read(move |rows| find(rows, workspace, id)).await?;
    Reply::json(&OneKey { key: KeyView::of(&key, None) })
}

fn find(rows: &Rows, workspace: WorkspaceNo, id: KeyId) -> Result<ApiKey> {
    rows.api_key(workspace, id)?.ok_or_else(|| not_found(Code::KeyNotFound, &id.to_string()))
}

async fn revoke(call: Call) -> Result<Reply> {
    let (workspace, id) = (call.workspace()?, call.id::<KeyId>("keyId", Code::KeyNotFound)?);
    let change = move |tx: &mut Tx<'_>| {
        let key = find(tx, workspace, id)?;
        tx.delete_object(&key)?;
        Ok((Reply::json(&Deleted::new("keyId", id))?, ()))
    };
    let (reply, ()) = call.change(change).await?;
    call.state.keys.forget(id);
    Ok(reply)
}
