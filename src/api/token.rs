//! The short-lived JWT that opens `/connect` for one user: `GET /{version}/users/{userId}/token`.
//!
//! Always true: it is signed (HS256) with a key that is derived from the workspace's own Ed25519 key and used for
//! nothing else, so a token of one workspace opens nothing in another, and a webhook's signature is never a token. Not
//! here: the page itself.

use std::time::Duration;

use aws_lc_rs::hmac;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::destinations::http::keys::{KeyKind, StoredKey};
use crate::domain::id::{UserId, WorkspaceId, WorkspaceNo};
use crate::domain::time::Millis;
use crate::domain::workspace::{User, Workspace};
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Slot};

const AUDIENCE: &str = "tidemill/connect";
/// What the derived key is for; another use takes another text.
const PURPOSE: &[u8] = b"tidemill/connect-token/v1";
/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 4096;

#[derive(Serialize, Deserialize)]
struct Claims {
    /// The workspace's id.
    iss: String,
    /// The user's id.
    sub: String,
    aud: String,
    iat: u64,
    exp: u64,
}

/// The workspace's keys, the newest first: an old one still opens tokens made before it was replaced.
fn derived(rows: &Rows, workspace: &Workspace) -> Result<Vec<[u8; 32]>> {
    let stored: Vec<StoredKey> = rows.secret(&workspace.id.0, Slot::SigningKeys)?.unwrap_or_default();
    let mut ed25519: Vec<&StoredKey> = stored.iter().filter(|key| key.kind == KeyKind::Ed25519).collect();
    ed25519.sort_by_key(|key| std::cmp::Reverse(key.created_at));
    let derive = |key: &&StoredKey| {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key.pkcs8), PURPOSE);
        let mut out = [0; 32];
        out.copy_from_slice(tag.as_ref());
        out
    };
    Ok(ed25519.iter().map(derive).collect())
}

/// A token for a user, good for `life`.
pub fn make(rows: &Rows, workspace: &Workspace, user: &User, now: Millis, life: Duration) -> Result<String> {
    let keys = derived(rows, workspace)?;
    let key = keys.first().ok_or_else(|| Error::internal("a workspace has no signing key"))?;
    let claims = Claims {
        iss: workspace.id.to_string(),
        sub: user.id.to_string(),
        aud: AUDIENCE.to_owned(),
        iat: now.seconds(),
        exp: now.after(life).seconds(),
    };
    let header = Header::new(Algorithm::HS256);
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(key)).map_err(Error::internal)
}

/// Whom a token is for, and until when it is good.
///
/// # Errors
/// 401 unless it is one of ours, still good, and its user still there.
pub fn open(rows: &Rows, text: &str, now: Millis) -> Result<(Workspace, User, Millis)> {
    let refused = || Error::new(Code::Unauthorized, "the token is not valid or has expired; ask for a fresh one");
    if text.len() > TOKEN_BYTES_MAX {
        return Err(refused());
    }
    // Whose key to check with stands in the token itself; what it says is believed only after the check.
    let unchecked: Claims = jsonwebtoken::dangerous::insecure_decode_claims(text).map_err(|_| refused())?;
    let id: WorkspaceId = unchecked.iss.parse().map_err(|_| refused())?;
    let workspace = rows.workspace(WorkspaceNo::DEFAULT, id)?.ok_or_else(refused)?;
    let mut rules = Validation::new(Algorithm::HS256);
    rules.set_audience(&[AUDIENCE]);
    // The library would ask the machine for the time; ours does not go back.
    rules.validate_exp = false;
    let keys = derived(rows, &workspace)?;
    let opened = keys.iter().find_map(|key| {
        jsonwebtoken::decode::<Claims>(text, &DecodingKey::from_secret(key), &rules).ok().map(|token| token.claims)
    });
    let claims = opened.filter(|claims| now.seconds() < claims.exp).ok_or_else(refused)?;
    let user: UserId = claims.sub.parse().map_err(|_| refused())?;
    let user = rows.user_by_id(workspace.no, user)?.ok_or_else(refused)?;
    Ok((workspace, user, Millis(claims.exp.saturating_mul(1_000))))
}
