//! Events as documents, and JSON as BSON.
//!
//! Always true: the same batch gives the same bytes. A number is kept exactly, as a 64-bit integer or a decimal of 34
//! digits; one with more is kept as text, with a note. What BSON cannot hold at all (a key with a NUL, nesting beyond the
//! server's 100 levels) is kept whole as JSON text under the same name with `Json` added. Not here: commands (`write`).

use mongodb::bson::{Bson, DateTime, Decimal128, Document, doc};
use serde_json::Value;

use crate::destinations::driver::{Batch, Fault, Frozen, Item, Part};
use crate::destinations::rows::{self, Names};
use crate::domain::destination::{Deletes, Shape};
use crate::domain::event::Payload;
use crate::domain::subscription::Include;
use crate::domain::time::Millis;
use crate::domain::trouble::Trouble;
use crate::outbound::Bytes;

/// The largest document (MongoDB manual, "MongoDB Limits and Thresholds": BSON Document Size).
pub(super) const DOCUMENT_MAX_BYTES: usize = 16 << 20;
/// Levels of a value below the field that holds it: the server takes 100 in a document, and some are ours.
const DEPTH_MAX: usize = 90;
/// Digits of a decimal (IEEE 754, decimal128), and the exponents that it surely has with all of them.
const DIGITS_MAX: usize = 34;
const EXPONENTS: std::ops::RangeInclusive<i64> = -6_100..=6_100;
/// The most notes of one batch.
const NOTES_MAX: usize = 20;

/// What becomes of a part's documents.
pub(super) const INSERT: &str = "insert";
pub(super) const UPDATE: &str = "update";
pub(super) const DELETE: &str = "delete";

/// What will be sent for a batch: in each part the documents of one command, one after the other.
pub(super) fn prepare(batch: &Batch, names: &Names) -> Frozen {
    let mut frozen = Frozen {
        id: batch.id.clone(),
        parts: Vec::new(),
        items: batch.items.len(),
        refused: Vec::new(),
        notes: Vec::new(),
    };
    let mut parts: Vec<(String, Vec<u8>, Vec<usize>)> = Vec::new();
    for (place, item) in batch.items.iter().enumerate() {
        let made = match batch.shape {
            Shape::Append => Ok((INSERT, log(item, &batch.include, &mut frozen.notes))),
            Shape::Mirror(deletes) => mirror(item, deletes, &mut frozen.notes),
        };
        let (target, bytes) = match made.and_then(|(verb, document)| Ok((verb, sized(&document)?))) {
            Ok((verb, bytes)) => (format!("{verb} {}", rows::table(batch.shape, &item.event.topic, names).name), bytes),
            Err(fault) => {
                frozen.refused.push((place, fault));
                continue;
            }
        };
        match parts.iter_mut().find(|(known, ..)| *known == target) {
            Some((_, body, items)) => {
                body.extend_from_slice(&bytes);
                items.push(place);
            }
            None => parts.push((target, bytes, vec![place])),
        }
    }
    // A record that was changed and deleted in one batch is gone in the end; one that was made anew has a later sequence
    // than its deletion.
    parts.sort_by_key(|(target, ..)| target.starts_with(DELETE));
    frozen.parts =
        parts.into_iter().map(|(target, body, items)| Part { target, body: Bytes::from(body), items }).collect();
    frozen
}

fn sized(document: &Document) -> Result<Vec<u8>, Fault> {
    let refused = |trouble, detail: String| Fault::new(trouble, detail);
    let bytes =
        document.to_vec().map_err(|_| refused(Trouble::ValueRefused, "it cannot be written as BSON".to_owned()))?;
    if bytes.len() > DOCUMENT_MAX_BYTES {
        let detail = format!("it has {} bytes as a document, which may have {DOCUMENT_MAX_BYTES}", bytes.len());
        return Err(refused(Trouble::TooLarge, detail));
    }
    Ok(bytes)
}

/// A document of a log.
fn log(item: &Item, include: &[Include], notes: &mut Vec<String>) -> Document {
    let event = &item.event;
    let mut document = doc! { "_id": item.id.to_string() };
    document.extend(head(item));
    document.insert("receivedAt", time(event.accepted_at));
    put(&mut document, "payload", &item.payload, &event.topic, notes);
    if include.contains(&Include::ChangedFields) && !event.changed_fields.is_empty() {
        document.insert("changedFields", event.changed_fields.clone());
    }
    for (extra, text) in [(Include::Previous, &event.previous), (Include::Raw, &event.raw)] {
        if let Some(text) = text
            && include.contains(&extra)
        {
            put(&mut document, extra.text(), text, &event.topic, notes);
        }
    }
    document
}

/// An entry of an `update` or `delete` command for a mirror. A document is only replaced by a later one: if there is a
/// later one, the filter finds none, and the insert that follows is refused as a duplicate (`write` knows).
fn mirror(item: &Item, deletes: Deletes, notes: &mut Vec<String>) -> Result<(&'static str, Document), Fault> {
    let event = &item.event;
    let Some(remote_id) = rows::named(event) else { return Err(Fault::new(Trouble::NoRecord, "")) };
    if remote_id.len() > rows::REMOTE_ID_MAX_BYTES {
        let detail = format!("its id has {} bytes, a key takes {}", remote_id.len(), rows::REMOTE_ID_MAX_BYTES);
        return Err(Fault::new(Trouble::TooLarge, detail));
    }
    let connection = event.connection.map(|id| id.to_string()).unwrap_or_default();
    let id = doc! { "connectionId": connection, "remoteId": remote_id };
    let seq = rows::seq(item);
    let is_deletion = rows::is_deletion(event);
    if is_deletion && deletes == Deletes::Remove {
        return Ok((DELETE, doc! { "q": { "_id": id, "seq": { "$lte": seq } }, "limit": 1 }));
    }
    let mut document = doc! { "_id": id.clone(), "eventId": item.id.to_string() };
    document.extend(head(item));
    document.insert("deletedAt", if is_deletion { time(event.happened_at) } else { Bson::Null });
    put(&mut document, "payload", &item.payload, &event.topic, notes);
    Ok((UPDATE, doc! { "q": { "_id": id, "seq": { "$lt": seq } }, "u": document, "upsert": true }))
}

/// What both shapes have.
fn head(item: &Item) -> Document {
    let event = &item.event;
    let text = |text: Option<String>| text.map_or(Bson::Null, Bson::String);
    let record_id = match &event.payload {
        Payload::Record { id, .. } => Some(uuid::Uuid::from_bytes(*id).to_string()),
        Payload::Plain(_) => None,
    };
    doc! {
        "seq": rows::seq(item),
        "topic": &event.topic,
        "updateType": text(event.update_type.clone()),
        "connectionId": text(event.connection.map(|id| id.to_string())),
        "userId": text(event.user.map(|id| id.to_string())),
        "username": text(event.username.clone()),
        "app": text(event.app.clone()),
        "recordId": text(record_id),
        "remoteId": text(rows::named(event)),
        "eventTime": time(event.happened_at),
    }
}

fn time(at: Millis) -> Bson {
    Bson::DateTime(DateTime::from_millis(i64::try_from(at.0).unwrap_or(i64::MAX)))
}

/// JSON under a name, or its text under another.
fn put(document: &mut Document, name: &str, json: &str, topic: &str, notes: &mut Vec<String>) {
    let mut note = |what: &str| {
        let note = format!("{topic}: {name}: {what}");
        if notes.len() < NOTES_MAX && !notes.contains(&note) {
            notes.push(note);
        }
    };
    let mut as_text = 0;
    match serde_json::from_str(json).ok().and_then(|value| bson(value, DEPTH_MAX, &mut as_text)) {
        Some(value) => {
            document.insert(name, value);
        }
        None => {
            note(&format!("BSON cannot hold it, so it is kept as text in {name}Json"));
            document.insert(name, Bson::Null);
            document.insert(format!("{name}Json"), json);
        }
    }
    if as_text > 0 {
        note("a number has more than 34 digits, so it is kept as text");
    }
}

/// None: BSON cannot hold it.
fn bson(value: Value, depth: usize, as_text: &mut usize) -> Option<Bson> {
    Some(match value {
        Value::Null => Bson::Null,
        Value::Bool(is) => Bson::Boolean(is),
        Value::String(text) => Bson::String(text),
        Value::Number(number) => {
            let number = number.to_string();
            match (number.parse::<i64>(), decimal(&number)) {
                (Ok(integer), _) => Bson::Int64(integer),
                (_, Some(decimal)) => Bson::Decimal128(decimal),
                _ => {
                    *as_text += 1;
                    Bson::String(number)
                }
            }
        }
        Value::Array(values) => {
            let depth = depth.checked_sub(1)?;
            Bson::Array(values.into_iter().map(|value| bson(value, depth, as_text)).collect::<Option<_>>()?)
        }
        Value::Object(fields) => {
            let depth = depth.checked_sub(1)?;
            let mut document = Document::new();
            for (name, value) in fields {
                if name.contains('\0') {
                    return None;
                }
                document.insert(name, bson(value, depth, as_text)?);
            }
            Bson::Document(document)
        }
    })
}

/// A JSON number as a decimal, if it is one exactly.
fn decimal(number: &str) -> Option<Decimal128> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let exponent: i64 = exponent.parse().ok()?;
    if digits > DIGITS_MAX || !EXPONENTS.contains(&exponent) {
        return None;
    }
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Option<Bson> {
        bson(serde_json::from_str(json).expect("JSON"), DEPTH_MAX, &mut 0)
    }

    #[test]
    fn numbers_are_kept_to_the_digit() {
        let text = |json: &str| match value(json) {
            Some(Bson::Int64(number)) => format!("i64 {number}"),
            Some(Bson::Decimal128(number)) => format!("decimal {number}"),
            Some(Bson::String(text)) => format!("text {text}"),
            other => panic!("{other:?}"),
        };
        assert_eq!(text("9223372036854775807"), "i64 9223372036854775807");
        assert_eq!(text("9223372036854775808"), "decimal 9223372036854775808");
        assert_eq!(text("12.50"), "decimal 12.50");
        assert_eq!(text("-0.1"), "decimal -0.1");
        assert_eq!(text("1234567890123456789012345678901234"), "decimal 1234567890123456789012345678901234");
        assert_eq!(text("12345678901234567890123456789012345"), "text 12345678901234567890123456789012345");
        assert_eq!(text("1e9999"), "text 1e+9999");
    }

    #[test]
    fn what_bson_cannot_hold_is_kept_as_json() {
        assert_eq!(value("{\"a\\u0000b\":1}"), None);
        assert_eq!(value(&format!("{}1{}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1))), None);
        let (mut document, mut notes) = (Document::new(), Vec::new());
        put(&mut document, "payload", "{\"a\\u0000b\":1}", "crm/contacts", &mut notes);
        assert_eq!(document, doc! { "payload": Bson::Null, "payloadJson": "{\"a\\u0000b\":1}" });
        assert_eq!(notes.len(), 1);
    }

    #[test]
    fn a_document_above_the_limit_is_refused() {
        let document = doc! { "a": "x".repeat(DOCUMENT_MAX_BYTES) };
        assert_eq!(sized(&document).unwrap_err().error.slug(), "value-too-large");
        assert!(sized(&doc! { "a": "x".repeat(DOCUMENT_MAX_BYTES - 100) }).is_ok());
    }
}
