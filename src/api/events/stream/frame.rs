//! Events on the wire: server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>), and the
//! envelope of a signed one.
//!
//! Always true: `id` is the event's id and `event` its topic; what a reader puts together from the `data` lines is the
//! body. JSON has no meaning in line breaks outside of texts, and none inside: a carriage return that a published
//! payload has there is sent as a space, since the format cannot carry one. In an envelope the body is exact.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use url::Url;

use crate::api::call::Call;
use crate::api::state::State;
use crate::destinations::http::ADDRESS_MAX_BYTES;
use crate::destinations::http::headers::{self, Names};
use crate::destinations::{Parcel, Signing};
use crate::domain::event::Event;
use crate::domain::id::EventId;
use crate::domain::workspace::Scope;
use crate::error::{Code, Error, Result};

/// How long a reader waits before it comes back, in milliseconds.
const RETRY_MS: u32 = 2000;

/// What a stream begins with: even a reader that gets no event knows where to go on.
pub(super) fn opening(mark: EventId) -> Bytes {
    format!(": tidemill\nretry: {RETRY_MS}\nid: {mark}\n\n").into()
}

/// A comment, and the position that has been reached: without data it is no event, but a reader remembers the id.
pub(super) fn heartbeat(mark: EventId) -> Bytes {
    format!(": heartbeat\nid: {mark}\n\n").into()
}

/// Appends one event.
pub(super) fn event(out: &mut String, id: EventId, topic: &str, data: &str) {
    // Writing to a text cannot fail.
    let _ = writeln!(out, "id: {id}\nevent: {topic}");
    for line in data.split('\n') {
        out.push_str("data: ");
        out.extend(line.chars().map(|c| if c == '\r' { ' ' } else { c }));
        out.push('\n');
    }
    out.push('\n');
}

/// The address that events are signed for.
pub(super) struct Signs {
    address: Arc<str>,
    names: Names,
    signing: Signing,
}

/// A delivery as it would be sent.
#[derive(Serialize)]
struct Envelope<'a> {
    headers: serde_json::Map<String, serde_json::Value>,
    body: &'a str,
}

impl Signs {
    /// What `sign` asks for. It takes the scope `write`: whoever may publish events and subscribe addresses can have
    /// any event signed for any receiver anyway, a key that only reads cannot.
    pub(super) fn of(call: &Call) -> Result<Option<Self>> {
        let Some(address) = call.query("sign") else { return Ok(None) };
        if !call.caller.as_ref().is_some_and(|caller| caller.key.allows(Scope::Write)) {
            return Err(Error::new(Code::Forbidden, "sign: signatures take a key with the scope `write`"));
        }
        let fits = address.len() <= ADDRESS_MAX_BYTES && !address.chars().any(|c| c.is_whitespace() || c.is_control());
        let url = Url::parse(address).ok().filter(|url| fits && matches!(url.scheme(), "http" | "https"));
        if url.is_none() {
            let message = format!("sign: use an http or https URL of up to {ADDRESS_MAX_BYTES} bytes");
            return Err(Error::invalid(message));
        }
        let options = &call.state.options;
        // HMAC is the subscription's own secret, and a stream has none.
        let signing = Signing { hmac: false, ..options.subscription.signing };
        Ok(Some(Self { address: address.into(), names: Names::new(&options.header_prefix)?, signing }))
    }

    /// `{"headers":{…},"body":"…"}`: the headers that a first attempt would carry now, and the exact body.
    pub(super) fn envelope(&self, state: &State, event: &Event, id: EventId, body: String) -> Result<String> {
        let parcel = Parcel {
            address: self.address.clone(),
            topic: event.topic.as_str().into(),
            event: id,
            body: body.into(),
            attempt: 1,
            replay: false,
            at: state.clock.now(),
            wall: state.clock.wall(),
            signing: self.signing,
            secrets: Arc::new([]),
            keys: state.outlet.keys_of(event.workspace)?,
            headers: Arc::new([]),
            timeout: std::time::Duration::ZERO,
        };
        let headers = headers::signed(&self.names, &parcel)?.into_iter().map(|(name, value)| (name, value.into()));
        let body = std::str::from_utf8(&parcel.body).map_err(Error::internal)?;
        serde_json::to_string(&Envelope { headers: headers.collect(), body }).map_err(Error::internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{Seq, WorkspaceNo};

    #[test]
    fn an_event_is_four_kinds_of_lines() {
        let mut out = String::new();
        let id = EventId::new(Seq(7), WorkspaceNo(1));
        event(&mut out, id, "crm/contacts", "{\"a\":\n \r\n1}");
        assert_eq!(out, "id: 000000000000000700000001\nevent: crm/contacts\ndata: {\"a\":\ndata:   \ndata: 1}\n\n");
        assert!(heartbeat(id).starts_with(b": ") && opening(id).ends_with(b"\nid: 000000000000000700000001\n\n"));
    }
}
