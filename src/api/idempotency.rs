//! A repeated `Idempotency-Key`: the first answer again, and never two at once.
//!
//! Always true: while a call runs, a second one with its key is a 409; the same key with another body is a 422; a 2xx
//! is kept in the commit of what it tells, so that a crash between the two cannot be. Not here: where answers are kept
//! and for how long (`store::idempotency`).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::http::header::HeaderMap;

use super::call::{Call, Place};
use super::reply::Reply;
use super::state::State;
use crate::error::{Code, Error, Result};
use crate::store::Remembered;

/// The longest key.
const KEY_BYTES_MAX: usize = 255;
const RETRY_AFTER_SECONDS: u32 = 1;

/// The calls with a key that run now.
#[derive(Clone, Default)]
pub struct Running(Arc<Mutex<HashSet<(u32, String)>>>);

/// Holds a key while its call runs.
pub struct Held {
    running: Running,
    name: (u32, String),
}

impl Running {
    fn hold(&self, place: &Remembered) -> Result<Held> {
        let name = (place.workspace.0, place.place.clone());
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone()) {
            return Ok(Held { running: self.clone(), name });
        }
        let message = "a call with this Idempotency-Key is running; ask again soon for its answer";
        Err(Error { retry_after: Some(RETRY_AFTER_SECONDS), ..Error::new(Code::InProgress, message) })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.running.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// The key of a call, if it has one.
pub fn key(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(text) if (1..=KEY_BYTES_MAX).contains(&text.len()) => Ok(Some(text.to_owned())),
        _ => {
            let message = format!("Idempotency-Key: use 1 to {KEY_BYTES_MAX} visible ASCII characters");
            Err(Error::new(Code::Malformed, message))
        }
    }
}

/// What a call with a key begins with.
pub enum Begun {
    /// Go on; the call holds its key.
    Fresh,
    /// It was answered before.
    Answered(Reply),
}

/// Looks whether the call was answered before, and marks it as running. Sets where its answer is to be kept.
pub async fn begin(call: &mut Call, key: &str) -> Result<Begun> {
    let workspace = call.workspace()?;
    let (path, query) = call.head.uri.split_once('?').unwrap_or((&call.head.uri, ""));
    // Two users' own keys must not see each other's answers.
    let user = call.caller.as_ref().and_then(|caller| caller.key.user).map(|user| user.to_string());
    let key = format!("{key}\n{}", user.unwrap_or_default());
    // The query is part of what is asked, as the body is.
    let asked = [query.as_bytes(), b"\n", &call.body].concat();
    let place = Remembered::new(workspace, path.trim_end_matches('/'), &key, &asked);
    let held = call.state.running.hold(&place)?;
    let (looked, now) = (place.clone(), call.now());
    match call.read(move |rows| rows.remembered(&looked, now)).await? {
        None => {
            call.place = Some(Place { at: place, _held: Arc::new(held) });
            Ok(Begun::Fresh)
        }
        Some(answer) if answer.asked == place.body => Ok(Begun::Answered(Reply::again(answer.status, answer.text))),
        Some(_) => {
            let message = "this Idempotency-Key came with another body before; use a fresh key for a different call";
            Err(Error::new(Code::IdempotencyMismatch, message))
        }
    }
}

/// Keeps the answer of a call that changed nothing in the store itself.
pub async fn end(state: &State, place: Option<Place>, reply: Reply) -> Result<Reply> {
    let Some(place) = place.filter(|_| !reply.kept && (200..300).contains(&reply.status)) else {
        return Ok(reply);
    };
    let keep = move |tx: &mut crate::store::Tx<'_>| {
        let mut reply = reply;
        reply.keep(tx, &place.at)?;
        Ok((reply, place))
    };
    state.store.change(keep).await.map(|(reply, _)| reply)
}
