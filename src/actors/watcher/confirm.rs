//! Handshakes that want an address to be called: called until it answers, or until it is no longer good.
//!
//! Always true: the call carries nothing of ours; it goes to the address that was judged when it came, and a redirect is
//! followed only on the same host; tries and hops are bounded, and a crash loses nothing. Not here: which addresses may be
//! called (`connectors::handshake`).

use std::time::Duration;

use url::Url;

use super::hook::wait_from;
use crate::actors::Deps;
use crate::actors::handle::Owner;
use crate::domain::connection::Confirmation;
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::error::Result;
use crate::outbound::{Method, Request};
use crate::store::Slot;

const RETRY_START: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: usize = 4096;
const HOPS_MAX: usize = 3;
/// Of one owner: the door keeps one.
const ROWS_MAX: usize = 4;

/// Calls what is due for an owner; answers when to try again.
pub async fn tend(deps: &Deps, owner: Owner) -> Result<Option<Millis>> {
    let mut next = None;
    for waiting in deps.store.children::<Confirmation>(&owner, None, ROWS_MAX)?.items {
        let again = one(deps, waiting).await?;
        next = next.into_iter().chain(again).min();
    }
    Ok(next)
}

async fn one(deps: &Deps, mut waiting: Confirmation) -> Result<Option<Millis>> {
    let now = deps.clock.now();
    if waiting.due_at > now && waiting.until > now {
        return Ok(Some(waiting.due_at));
    }
    let address = deps.store.secret::<String>(&waiting.id, Slot::WebhookState)?.map(Secret::new);
    let address = address.and_then(|text| Url::parse(text.expose()).ok());
    let owner = hex::encode(waiting.owner);
    let failed = match address {
        Some(address) if waiting.until > now => call(deps, address).await.err(),
        _ => {
            tracing::warn!(owner, "a webhook's handshake was not confirmed in time: register it at the app again");
            None
        }
    };
    let Some(why) = failed else {
        deps.store.change(move |tx| tx.delete_object(&waiting)).await?;
        return Ok(None);
    };
    tracing::info!(owner, why, tries = waiting.tries, "a webhook's handshake could not be confirmed");
    waiting.tries = waiting.tries.saturating_add(1);
    let due_at = deps.clock.now().after(wait_from(RETRY_START, RETRY_MAX, waiting.tries));
    waiting.due_at = due_at;
    deps.store
        .change(move |tx| match tx.object_anywhere::<Confirmation>(&waiting.id)? {
            Some(_) => tx.put_object(&waiting).map(|()| Some(due_at)),
            // The door put a newer one in its place, and rang.
            None => Ok(None),
        })
        .await
}

/// The error says why, without the address: whoever has it can confirm.
async fn call(deps: &Deps, mut address: Url) -> std::result::Result<(), String> {
    for _ in 0..HOPS_MAX {
        let mut request = Request::new(Method::GET, address.clone());
        (request.timeout, request.read_limit) = (TIMEOUT, ANSWER_BYTES_MAX);
        let answer = deps.apps.send(request).await.map_err(|failure| failure.to_string())?;
        let onward = answer.header("location").and_then(|to| address.join(to).ok());
        match answer.status {
            200..=299 => return Ok(()),
            301 | 302 | 303 | 307 | 308 => match onward.filter(|to| to.origin() == address.origin()) {
                Some(to) => address = to,
                None => return Err("it leads to another host".to_owned()),
            },
            status => return Err(format!("status {status}")),
        }
    }
    Err("it leads on and on".to_owned())
}
