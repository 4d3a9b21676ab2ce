//! One call, as the handlers see it: who asks, for what, with which body; and how a handler changes the store.
//!
//! Always true: a handler of a keyed route has a caller, and sees only that caller's workspace. Not here: how the call
//! came to be (`serve`), who may make it (`auth`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use actix_web::http::header::HeaderMap;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::idempotency::Held;
use super::reply::Reply;
use super::state::State;
use super::{auth, body};
use crate::domain::id::WorkspaceNo;
use crate::domain::time::Millis;
use crate::domain::version::ApiVersion;
use crate::domain::workspace::{User, Workspace};
use crate::error::{Code, Error, Result};
use crate::store::{Remembered, Rows, Tx};

/// The request as it came, for those who need more than the body.
#[derive(Clone, Debug)]
pub struct Head {
    /// Upper-case.
    pub method: String,
    /// As the caller wrote it, from the path on.
    pub uri: String,
    pub headers: HeaderMap,
    /// The caller's address: see `remote`.
    pub from: Option<IpAddr>,
}

/// One call.
pub struct Call {
    pub state: State,
    /// Of the path; the newest where the path has none.
    pub version: ApiVersion,
    /// None on routes that need no key.
    pub caller: Option<Arc<auth::Known>>,
    pub head: Head,
    pub body: Bytes,
    pub(super) params: HashMap<String, String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) place: Option<Place>,
}

/// Where the answer of a call with an `Idempotency-Key` is kept.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) at: Remembered,
    /// Held until the commit is out, also if the caller hangs up before.
    pub(super) _held: Arc<Held>,
}

impl Call {
    /// The caller's workspace.
    pub fn workspace(&self) -> Result<WorkspaceNo> {
        self.home().map(|workspace| workspace.no)
    }

    /// The caller's workspace with its name and id.
    pub fn home(&self) -> Result<&Workspace> {
        match &self.caller {
            Some(caller) => Ok(&caller.workspace),
            None => Err(Error::internal("a route without a key asked for its workspace")),
        }
    }

    /// The time now.
    pub fn now(&self) -> Millis {
        self.state.clock.now()
    }

    /// A part of the path, decoded.
    pub fn param(&self, name: &str) -> Result<&str> {
        self.params.get(name).map(String::as_str).ok_or_else(|| Error::internal(format!("no {{{name}}} in the path")))
    }

    /// An id of the path; text that is no id is as good as an id that never existed.
    pub fn id<T: std::str::FromStr>(&self, name: &str, missing: Code) -> Result<T> {
        let text = self.param(name)?;
        text.parse().map_err(|_| not_found(missing, text))
    }

    /// A parameter of the query; empty text counts as absent, and for ids the text `None` too, which some clients send.
    pub fn query(&self, name: &str) -> Option<&str> {
        let (_, value) = self.query.iter().rev().find(|(n, _)| n == name)?;
        let absent = value.is_empty() || (value == "None" && name.ends_with("Id"));
        (!absent).then_some(value.as_str())
    }

    /// A time of the query, RFC 3339.
    pub fn query_time(&self, name: &str) -> Result<Option<Millis>> {
        let Some(text) = self.query(name) else { return Ok(None) };
        let read = Millis::parse_rfc3339(text);
        let wrong = || Error::new(Code::Malformed, format!("{name}: use RFC 3339, such as 2024-04-19T16:57:18Z"));
        read.map(Some).ok_or_else(wrong)
    }

    /// An id of the query.
    pub fn query_id<T: std::str::FromStr>(&self, name: &str, missing: Code) -> Result<Option<T>> {
        let Some(text) = self.query(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| not_found(missing, text))
    }

    /// The body as a type.
    pub fn json<T: DeserializeOwned + JsonSchema>(&self) -> Result<T> {
        body::read(&self.body)
    }

    /// Reads the store on a thread that may wait for the disk.
    pub async fn read<T: Send + 'static>(&self, f: impl FnOnce(&Rows) -> Result<T> + Send + 'static) -> Result<T> {
        self.state.store.blocking(f).await
    }

    /// Changes the store: alone in its commit, on disk when this returns, and with an `Idempotency-Key` the answer is
    /// kept in the same commit.
    pub async fn change<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<(Reply, T)> + Send + 'static,
    ) -> Result<(Reply, T)> {
        let keep = keeping(self.place.clone(), f);
        self.state.store.change(keep).await.map(|(answer, _)| answer)
    }

    /// The same for what comes in numbers: shares its commit with others, is refused with 503 when too many wait, and
    /// `f` must not fail after its first write.
    pub async fn accept<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<(Reply, T)> + Send + 'static,
    ) -> Result<(Reply, T)> {
        let keep = keeping(self.place.clone(), f);
        self.state.store.accept(keep).await.map(|(answer, _)| answer)
    }
}

/// `f` with its answer kept. The place goes out with the answer, so that the key stays held until the commit is done.
fn keeping<T>(
    place: Option<Place>,
    f: impl FnOnce(&mut Tx<'_>) -> Result<(Reply, T)>,
) -> impl FnOnce(&mut Tx<'_>) -> Result<((Reply, T), Option<Place>)> {
    move |tx| {
        let (mut reply, value) = f(tx)?;
        if let Some(place) = &place {
            reply.keep(tx, &place.at)?;
        }
        Ok(((reply, value), place))
    }
}

/// 404 for an id that is not there, or not here.
pub fn not_found(code: Code, what: &str) -> Error {
    let noun = code.slug().trim_end_matches("-not-found").replace('-', " ");
    let shown: String = what.chars().take(64).collect();
    Error::new(code, format!("there is no {noun} `{shown}` in this workspace"))
}

/// The user whom a field or parameter means, by id or username.
pub fn user_of(rows: &Rows, workspace: WorkspaceNo, text: &str) -> Result<User> {
    rows.user(workspace, text)?.ok_or_else(|| not_found(Code::UserNotFound, text))
}
