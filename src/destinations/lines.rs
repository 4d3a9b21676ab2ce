//! Events as lines of JSON, as `file` and the object stores write them.
//!
//! Always true: one event is one line; JSON inside an event is spliced in as it stands, so numbers keep their digits; the
//! same items give the same bytes. Not here: compression, names of files and objects.

use serde_json::json;

use super::driver::Item;
use crate::domain::event::Payload;
use crate::domain::subscription::Include;

/// The lines of these items, each with what its batch includes.
pub fn of<'a>(items: impl Iterator<Item = (&'a Item, &'a [Include])>) -> Vec<u8> {
    let mut out = Vec::new();
    for (item, include) in items {
        line(item, include, &mut out);
    }
    out
}

/// One line with its end. Keys: `eventId`, `seq`, `topic`, `updateType`, `connectionId`, `userId`, `username`, `app`,
/// `recordId`, `remoteId`, `eventTime`, `receivedAt`, `payload`, and `changedFields`, `previous`, `raw` if included.
pub fn line(item: &Item, include: &[Include], out: &mut Vec<u8>) {
    let event = &item.event;
    let (record, remote) = match &event.payload {
        Payload::Record { id, remote_id, .. } => (Some(uuid::Uuid::from_bytes(*id).to_string()), Some(remote_id)),
        Payload::Plain(_) => (None, None),
    };
    let head = json!({
        "eventId": item.id.to_string(),
        "seq": item.seq.0,
        "topic": event.topic,
        "updateType": event.update_type,
        "connectionId": event.connection.map(|id| id.to_string()),
        "userId": event.user.map(|id| id.to_string()),
        "username": event.username,
        "app": event.app,
        "recordId": record,
        "remoteId": remote,
        "eventTime": event.happened_at.rfc3339_millis(),
        "receivedAt": event.accepted_at.rfc3339_millis(),
    })
    .to_string();
    out.extend_from_slice(head.strip_suffix('}').unwrap_or(&head).as_bytes());
    let mut put = |name: &str, json: &str| {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        // A published payload passes byte for byte and may have lines of its own; only blanks can be line ends.
        out.extend(json.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
    };
    put("payload", &item.payload);
    if include.contains(&Include::ChangedFields) && !event.changed_fields.is_empty() {
        put("changedFields", &json!(event.changed_fields).to_string());
    }
    for (extra, text) in [(Include::Previous, &event.previous), (Include::Raw, &event.raw)] {
        if let Some(text) = text
            && include.contains(&extra)
        {
            put(extra.text(), text);
        }
    }
    out.extend_from_slice(b"}\n");
}
