//! How a subscription proves itself to its endpoint: basic or bearer authentication.
//!
//! Always true: a password or token goes in and never comes out; it goes only to the origin that it was given for, so a
//! change of that needs it again; there is never an `Authorization` header of both kinds. Not here: how it is kept
//! (`store::Slot::EndpointAuth`, encrypted), how it is sent (`destinations::http`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::shape::MASK;
use crate::domain::id::SubscriptionId;
use crate::domain::subscription::{EndpointAuth, HeaderValues};
use crate::error::{Error, Result};
use crate::store::{Rows, Slot, Tx};

const USERNAME_BYTES_MAX: usize = 256;
const SECRET_BYTES_MAX: usize = 4096;

/// What to send as `Authorization` with each delivery.
#[derive(Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum AuthWish {
    /// RFC 7617.
    Basic {
        /// Without a colon.
        username: String,
        /// Never shown again; `***` leaves it as it is.
        password: String,
    },
    /// RFC 6750.
    Bearer {
        /// Never shown again; `***` leaves it as it is.
        token: String,
    },
}

/// The same, masked.
#[derive(Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum AuthView {
    Basic { username: String, password: &'static str },
    Bearer { token: &'static str },
}

impl AuthView {
    pub(super) fn of(auth: &EndpointAuth) -> Self {
        match auth {
            EndpointAuth::Basic { username, .. } => Self::Basic { username: username.clone(), password: MASK },
            EndpointAuth::Bearer { .. } => Self::Bearer { token: MASK },
        }
    }
}

/// What is kept of a subscription.
pub(super) fn stored(rows: &Rows, id: SubscriptionId) -> Result<Option<EndpointAuth>> {
    rows.secret(&id.0, Slot::EndpointAuth)
}

/// Keeps it, or keeps none.
pub(super) fn put(tx: &mut Tx<'_>, id: SubscriptionId, auth: Option<&EndpointAuth>) -> Result<()> {
    match auth {
        Some(auth) => tx.put_secret(&id.0, Slot::EndpointAuth, auth),
        None => tx.delete_secret(&id.0, Slot::EndpointAuth),
    }
}

/// Lays a wish over what is kept: left out it stays, null takes it away.
pub(super) fn apply(wish: Option<Option<AuthWish>>, kept: Option<EndpointAuth>) -> Result<Option<EndpointAuth>> {
    let Some(wish) = wish else { return Ok(kept) };
    let Some(wish) = wish else { return Ok(None) };
    let again = |what: &str| {
        Error::invalid(format!(
            "auth: send the {what} itself: there is none for this address that `{MASK}` could leave"
        ))
    };
    Ok(Some(match (wish, kept) {
        (AuthWish::Basic { username, password }, kept) => {
            let password = match kept {
                Some(EndpointAuth::Basic { password: kept, .. }) if password == MASK => kept,
                _ if password == MASK => return Err(again("password")),
                _ => password,
            };
            if username.contains(':') || username.len() > USERNAME_BYTES_MAX || username.chars().any(char::is_control) {
                let message = format!("auth.username: use at most {USERNAME_BYTES_MAX} bytes, without a colon");
                return Err(Error::invalid(message));
            }
            if password.len() > SECRET_BYTES_MAX || password.chars().any(char::is_control) {
                let message = format!("auth.password: use at most {SECRET_BYTES_MAX} bytes without control characters");
                return Err(Error::invalid(message));
            }
            EndpointAuth::Basic { username, password }
        }
        (AuthWish::Bearer { token }, kept) => {
            let token = match kept {
                Some(EndpointAuth::Bearer { token: kept }) if token == MASK => kept,
                _ if token == MASK => return Err(again("token")),
                _ => token,
            };
            if !(1..=SECRET_BYTES_MAX).contains(&token.len()) || !token.bytes().all(|b| b.is_ascii_graphic()) {
                let message = format!("auth.token: use 1 to {SECRET_BYTES_MAX} visible ASCII characters, no spaces");
                return Err(Error::invalid(message));
            }
            EndpointAuth::Bearer { token }
        }
    }))
}

/// Refuses two ways of saying the same.
pub(super) fn check(auth: Option<&EndpointAuth>, headers: &HeaderValues) -> Result<()> {
    let has_own = headers.all.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    if auth.is_some() && has_own {
        let message = "auth: there is a custom header `Authorization` too; use one of the two (null takes one away)";
        return Err(Error::invalid(message));
    }
    Ok(())
}

/// What of it may be sent to a new address. What was given for one origin does not go to another.
pub(super) fn kept_for(
    address: &str,
    before: &str,
    wish: Option<&Option<AuthWish>>,
    kept: Option<EndpointAuth>,
) -> Result<Option<EndpointAuth>> {
    let origin = |text: &str| Url::parse(text).map(|url| url.origin());
    if matches!((origin(before), origin(address)), (Ok(before), Ok(after)) if before == after) {
        return Ok(kept);
    }
    if kept.is_some() && wish.is_none() {
        let message = "auth: the address has another scheme, host or port now, and what was given for the old one does \
                       not go to the new one; send `auth` again, or null";
        return Err(Error::invalid(message));
    }
    Ok(None)
}
