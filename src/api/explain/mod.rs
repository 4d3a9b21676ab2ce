//! `GET /one/explain`: why a change of one record was not sent, or that it was.
//!
//! Always true: what is shown is read, never guessed: webhooks, looks, the snapshot, the events, and for each
//! subscription what became of the last event, or which wish of its that event misses as it is set up now. Each list is
//! bounded. Not here: the rules themselves (`domain::interest`, `domain::filter`), the queue (`store`).

mod find;
mod judge;
mod sentences;
mod shape;

use self::find::Question;
use self::shape::OneExplanation;
use super::call::{Call, not_found};
use super::reply::Reply;
use super::route::{Param, Route, group};
use crate::error::{Code, Error, Result};
use crate::store::Rows;

/// The longest id of a record at its app.
const REMOTE_ID_BYTES_MAX: usize = 1024;

const PARAMS: &[Param] = &[
    Param { name: "connectionId", about: "Whose record. Required." },
    Param { name: "topic", about: "What kind of record, as in `crm/contacts`. Required." },
    Param { name: "remoteId", about: "The record's id at its app. Required." },
];

pub(super) fn routes() -> Vec<Route> {
    let route = Route::get("/{version}/one/explain", "Why a change of a record was sent, or was not", explain);
    group("events", vec![route.query(PARAMS).gives::<OneExplanation>()])
}

fn required(call: &Call, name: &str) -> Result<String> {
    let missing = || {
        let message = format!("{name}: say what is asked about: ?connectionId=…&topic=crm/contacts&remoteId=…");
        Error::new(Code::Malformed, message)
    };
    call.query(name).map(str::to_owned).ok_or_else(missing)
}

async fn explain(call: Call) -> Result<Reply> {
    let connection = required(&call, "connectionId")?;
    let question = Question {
        workspace: call.workspace()?,
        connection: connection.parse().map_err(|_| not_found(Code::ConnectionNotFound, &connection))?,
        topic: required(&call, "topic")?,
        remote_id: required(&call, "remoteId")?,
        durable: *call.state.store.durable().borrow(),
        now: call.now(),
    };
    if question.remote_id.len() > REMOTE_ID_BYTES_MAX {
        return Err(Error::invalid(format!("remoteId: use at most {REMOTE_ID_BYTES_MAX} bytes")));
    }
    let room = call.state.look()?;
    let state = call.state.clone();
    let read = move |rows: &Rows| {
        let _room = room;
        question.answer(rows, &state)
    };
    Reply::json(&OneExplanation { explanation: call.read(read).await? })
}
