//! `/one/signing-keys`: the workspace's own keys, which sign what it sends, listed and rotated.
//!
//! Always true: a new key is published for `security.key_overlap_seconds` before it signs, and the old one as long after,
//! so a receiver that reads the key pages once in that time can always check; of each kind at most one is coming; a
//! private key never leaves the store. Not here: which key signs when (`destinations::http::keys`), the pages (`pages`),
//! secrets of single subscriptions (`subscriptions`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::call::Call;
use super::reply::Reply;
use super::route::{Access, Route, group};
use crate::destinations::http::keys::{KeyInfo, KeyKind, KeyRing, KeyState, StoredKey, rotated};
use crate::domain::time::Millis;
use crate::domain::workspace::Scope;
use crate::error::{Code, Error, Result};
use crate::store::{Slot, Tx};

/// A kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum KindWord {
    /// RSA-2048: `x-alloy-signature`.
    Rsa,
    /// Ed25519: `v1a` of `webhook-signature`.
    Ed25519,
}

impl From<KindWord> for KeyKind {
    fn from(word: KindWord) -> Self {
        match word {
            KindWord::Rsa => Self::Rsa,
            KindWord::Ed25519 => Self::Ed25519,
        }
    }
}

impl From<KeyKind> for KindWord {
    fn from(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Rsa => Self::Rsa,
            KeyKind::Ed25519 => Self::Ed25519,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rotation {
    /// Both if left out.
    #[serde(default)]
    kinds: Option<Vec<KindWord>>,
}

/// A key of the workspace; the private part is never shown.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct SigningKeyView {
    /// As in the key set: the JWK thumbprint (RFC 7638).
    kid: String,
    kind: KindWord,
    /// `coming` (published, does not sign yet), `signing`, `retiring` (replaced, still published; an `ed25519` one still
    /// signs beside its successor) or `retired`.
    state: &'static str,
    published_from: String,
    signs_from: String,
    /// When its successor takes over.
    #[serde(skip_serializing_if = "Option::is_none")]
    signs_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    published_until: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct SigningKeys {
    /// Of each kind the one that signs first.
    signing_keys: Vec<SigningKeyView>,
}

impl SigningKeyView {
    fn of(info: KeyInfo) -> Self {
        Self {
            kid: info.kid,
            kind: info.kind.into(),
            state: match info.state {
                KeyState::Coming => "coming",
                KeyState::Signing => "signing",
                KeyState::Retiring => "retiring",
                KeyState::Retired => "retired",
            },
            published_from: info.created_at.rfc3339_millis(),
            signs_from: info.signs_from.rfc3339_millis(),
            signs_until: info.signs_until.map(Millis::rfc3339_millis),
            published_until: info.published_until.map(Millis::rfc3339_millis),
        }
    }
}

pub(super) fn routes() -> Vec<Route> {
    let all = "/{version}/one/signing-keys";
    let admin = |route: Route| route.only(Access::Key(Scope::Admin));
    let routes = vec![
        admin(Route::get(all, "List the workspace's signing keys", list)).gives::<SigningKeys>(),
        admin(Route::post("/{version}/one/signing-keys/rotate", "Make new signing keys, which sign later", rotate))
            .takes::<Rotation>()
            .gives::<SigningKeys>(),
    ];
    group("keys", routes)
}

fn views(ring: &KeyRing, now: Millis) -> Result<Reply> {
    Reply::json(&SigningKeys { signing_keys: ring.infos(now).into_iter().map(SigningKeyView::of).collect() })
}

async fn list(call: Call) -> Result<Reply> {
    let (outlet, workspace, now) = (call.state.outlet.clone(), call.workspace()?, call.now());
    let ring = call.read(move |_| outlet.keys_of(workspace)).await?;
    views(&ring, now)
}

async fn rotate(call: Call) -> Result<Reply> {
    let asked = call.json::<Rotation>()?.kinds;
    let mut kinds = asked.unwrap_or_else(|| vec![KindWord::Rsa, KindWord::Ed25519]);
    kinds.dedup();
    if kinds.is_empty() || kinds.len() > 2 {
        return Err(Error::invalid("kinds: name rsa, ed25519, or leave it out for both"));
    }
    let (home, overlap) = (call.home()?.clone(), call.state.outlet.options.key_overlap);
    let now = call.now();
    let make = move || {
        let one = |kind: KindWord| StoredKey::generate(kind.into(), now, now.after(overlap));
        kinds.into_iter().map(one).collect::<Result<Vec<_>>>()
    };
    // An RSA key takes a while: not on a thread that serves requests.
    let fresh = tokio::task::spawn_blocking(make).await.map_err(Error::internal)??;
    let change = move |tx: &mut Tx<'_>| {
        let mut keys: Vec<StoredKey> = tx.secret(&home.id.0, Slot::SigningKeys)?.unwrap_or_default();
        let now = tx.now();
        for mut key in fresh {
            // Published from this commit on, however long the key took to make.
            (key.created_at, key.signs_from) = (now, now.after(overlap));
            keys =
                rotated(keys, key, overlap).map_err(|why| Error::new(Code::Conflict, format!("{why}; wait for it")))?;
        }
        tx.put_secret(&home.id.0, Slot::SigningKeys, &keys)?;
        Ok((views(&KeyRing::open(&keys, overlap)?, now)?, ()))
    };
    let (reply, ()) = call.change(change).await?;
    call.state.outlet.keys_changed();
    tracing::info!(workspace = %call.home()?.id, "made new signing keys");
    Ok(reply)
}
