//! Parsers of texts: ids, times, topics, `Retry-After`, filters, addresses, signatures, the configuration.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tidemill::config::Config;
use tidemill::destinations::http::verify::{Received, verify};
use tidemill::domain::address::Policy;
use tidemill::domain::event::{Event, Payload};
use tidemill::domain::filter::{Filter, View};
use tidemill::domain::id::{ConnectionId, DeliveryId, EventId, SubscriptionId, WorkspaceNo};
use tidemill::domain::json::{self, Json, Members, Reader};
use tidemill::domain::retry::parse_retry_after;
use tidemill::domain::time::Millis;
use tidemill::domain::topic::{self, TopicPattern};
use tidemill::domain::{delivery, failure, hook};
use url::Url;

use super::engine::Target;

const NOW: Millis = Millis(1_700_000_000_000);

fn text(input: &[u8]) -> String {
    String::from_utf8_lossy(input).into_owned()
}

/// An id that is read is written the same, and is 24 lower-case hexadecimal digits.
fn ids(input: &[u8]) -> Result<(), String> {
    let text = text(input);
    let ids = [
        text.parse::<EventId>().map(|id| id.to_string()),
        text.parse::<DeliveryId>().map(|id| id.to_string()),
        text.parse::<SubscriptionId>().map(|id| id.to_string()),
        text.parse::<ConnectionId>().map(|id| id.to_string()),
    ];
    let is_id = text.len() == 24 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    for id in ids {
        match id {
            Ok(written) if written == text && is_id => {}
            Err(_) if !is_id => {}
            other => return Err(format!("{text:?} is read as {other:?}")),
        }
    }
    if let Ok(id) = text.parse::<EventId>() {
        let (seq, workspace) = id.parts();
        if EventId::new(seq, workspace) != id {
            return Err(format!("{text:?} does not come back from its parts"));
        }
    }
    Ok(())
}

#[test]
fn ids_are_safe() {
    Target { name: "ids", run: Box::new(ids), words: &["0000000000100001", "ABCDEF"], more: vec![], tries: 2_000 }
        .fuzz();
}

fn times(input: &[u8]) -> Result<(), String> {
    let text = text(input);
    if let Some(at) = Millis::parse_rfc3339(&text) {
        let again = Millis::parse_rfc3339(&at.rfc3339_millis());
        if again != Some(at) {
            return Err(format!("{text:?} is {at:?}, and written and read again {again:?}"));
        }
    }
    if let Some(wait) = parse_retry_after(&text, NOW)
        && wait > Duration::from_secs(300_000 * 366 * 24 * 3600)
    {
        return Err(format!("{text:?} is a wait of {wait:?}"));
    }
    for status in [200, 302, 410, 429, 503] {
        delivery::Outcome::of_answer(status, Some(&text), NOW);
    }
    Ok(())
}

#[test]
fn times_and_retry_after_are_safe() {
    Target { name: "times", run: Box::new(times), words: &["GMT", "Dec", "Z", "T"], more: vec![], tries: 2_000 }.fuzz();
}

fn topics(input: &[u8]) -> Result<(), String> {
    let text = text(input);
    let others = ["acme/things".to_owned()];
    if let Ok(pattern) = TopicPattern::parse(&text, &others) {
        pattern.matches(&text);
    }
    if let Ok(topic) = topic::custom(&text)
        && (topic.as_str() != text || text.len() > 200)
    {
        return Err(format!("{text:?} is a topic of one's own: {topic:?}"));
    }
    if let Err(error) = hook::event(&text, &others)
        && !(1..2_000).contains(&error.to_string().len())
    {
        return Err(format!("a text of {} bytes is refused with {} bytes", text.len(), error.to_string().len()));
    }
    topic::kind(&text);
    topic::near(&text, &["crm/contacts", "acme/things"]);
    Ok(())
}

#[test]
fn topics_are_safe() {
    let words = &["crm/", "/*", "contact.updated", "sync/completed"];
    Target { name: "topics", run: Box::new(topics), words, more: vec![], tries: 200 }.fuzz();
}

/// An event for filters to look at.
fn event() -> Event {
    let payload = r#"{"id":7,"name":"Ann","tags":["a","b"],"deep":{"list":[1,2.5,null,{"x":"y"}]},"big":1e400}"#;
    let mut event = Event::blank(WorkspaceNo(0), Payload::Plain(payload.to_owned()), NOW);
    (event.topic, event.update_type) = ("crm/contacts".to_owned(), Some("updated".to_owned()));
    event.changed_fields = vec!["name".to_owned(), "deep.list".to_owned()];
    event
}

#[test]
fn filters_are_safe() {
    let view = View::of(&event(), EventId([1; 12]));
    let run = move |input: &[u8]| {
        match Filter::parse(&text(input)) {
            Ok(filter) => drop(filter.judge(&view)),
            Err(error) if error.to_string().is_empty() => return Err("it is refused without a word".to_owned()),
            Err(_) => {}
        }
        Ok(())
    };
    let words = &[
        "dataPayload.",
        "eventId",
        "topic",
        "updateType",
        "changedFields",
        " == ",
        " in ",
        " && ",
        " || ",
        "has(",
        "size(",
    ];
    let nested = |open: &str, inner: &str, close: &str, deep: usize| {
        [open.repeat(deep), inner.to_owned(), close.repeat(deep)].concat().into_bytes()
    };
    let more = vec![
        nested("(", "true", ")", 1_000),
        nested("[", "", "]", 1_000),
        nested("!", "true", "", 2_000),
        nested("-", "1", "", 2_000),
        nested("{1:", "1", "}", 500),
        nested("true?true:", "true", "", 200),
        nested("true?", "true", ":true", 200),
        nested("a.", "a", "", 1_000),
        nested("f(", "1", ")", 680),
        nested("1+", "1", "", 1_000),
        nested("true||", "true", "", 330),
        nested("x[", "0", "]", 680),
    ];
    Target { name: "filters", run: Box::new(run), words, more, tries: 1_000 }.fuzz();
}

/// What is judged public leads to no private host, however it is written.
fn addresses(input: &[u8]) -> Result<(), String> {
    let text = text(input);
    let Ok(url) = Url::parse(&text) else { return Ok(()) };
    let closed = Policy::default();
    if closed.judge_url(&url).is_err() {
        return Ok(());
    }
    // The same once more, as it is dialled: written out and read again.
    let again =
        Url::parse(url.as_str()).map_err(|error| format!("{text:?} is written as {url}, which is none: {error}"))?;
    if again.host() != url.host() || closed.judge_url(&again).is_err() {
        return Err(format!("{text:?} is public, and written out it is {again}"));
    }
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    match host.parse::<std::net::IpAddr>() {
        Ok(ip) if closed.judge_ip(ip).is_err() => Err(format!("{text:?} is public, and leads to {ip}")),
        _ => Ok(()),
    }
}

#[test]
fn addresses_are_safe() {
    let words = &["127.0.0.1", "localhost", "[::1]", "[::ffff:", "https://", "0x7f.1", "10.0.0.1", "%2e", "。", "１"];
    Target { name: "addresses", run: Box::new(addresses), words, more: vec![], tries: 4_000 }.fuzz();
}

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// Headers as lines, an empty one, the body; public keys after a line `keys`.
fn signatures(input: &[u8]) -> Result<(), String> {
    let text = text(input);
    let (head, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let (body, keys) = rest.split_once("\nkeys\n").unwrap_or((rest, ""));
    let pair = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
    let headers: Vec<(String, String)> = head.lines().filter_map(pair).collect();
    let received = Received {
        headers: &headers,
        body: body.as_bytes(),
        address: Some("https://example.com/"),
        secret: Some(SECRET),
        public_keys: Some(keys).filter(|keys| !keys.is_empty()),
        header_prefix: "x-alloy",
        now: NOW,
        tolerance: Duration::from_secs(300),
    };
    let verdicts = verify(&received);
    // As the seed's own signature is cut off its body, nothing that is mutated is good but what did not change.
    if verdicts.is_empty() { Err("no verdict".to_owned()) } else { Ok(()) }
}

#[test]
fn signatures_are_safe() {
    let words = &["webhook-signature: ", "webhook-timestamp: ", "webhook-id: ", "x-alloy-signature: ", "v1,", "v1a,"];
    Target { name: "signatures", run: Box::new(signatures), words, more: vec![], tries: 1_000 }.fuzz();
}

/// What a mapping reads is what `serde_json` reads, also written and read again, and it reads nothing else; what it steps over
/// is one value.
fn records(input: &[u8]) -> Result<(), String> {
    let Ok(raw) = serde_json::from_slice::<&RawValue>(input) else { return Ok(()) };
    let listed = RawValue::from_string(format!("[{raw} , \"end\"]")).map_err(|error| error.to_string())?;
    let mut after = None;
    Reader::new(&listed).items(|reader, number| match number {
        0 => reader.skip(),
        _ => reader.value().map(|value| after = Some(value.keep())),
    })?;
    if after.as_ref().and_then(Json::as_str) != Some("end") {
        return Err(format!("after stepping over {raw} comes {after:?}"));
    }
    let (tree, value) = (json::read(raw), serde_json::from_str::<Value>(raw.get()));
    match (tree, value) {
        (Ok(tree), Ok(value))
            if tree.to_value() == value && Json::from(&value).keep() == Json::from(&tree.to_value()) =>
        {
            let text = tree.as_object().map_or_else(|| raw.get().to_owned(), Members::to_text);
            match serde_json::from_str::<Value>(&text) {
                Ok(again) if again == value => Ok(()),
                again => Err(format!("{raw} is written as {text}, which is {again:?}")),
            }
        }
        (Err(_), Err(_)) => Ok(()),
        (tree, value) => Err(format!("{raw} is {tree:?} and {value:?}")),
    }
}

#[test]
fn records_are_safe() {
    let words = &["\\u00e9", "\\ud83d\\ude00", "1e-7", "null", "true", "{\"a\":", "[[", "]]", "\\\\"];
    Target { name: "records", run: Box::new(records), words, more: vec![], tries: 4_000 }.fuzz();
}

/// A user's file, and after a line `env` variables: read, or refused with a sentence.
fn configuration(input: &[u8], folder: &Path) -> Result<(), String> {
    let text = text(input);
    let (file, env) = text.split_once("\nenv\n").unwrap_or((&text, ""));
    let path = folder.join("tidemill.toml");
    std::fs::write(&path, file).map_err(|error| error.to_string())?;
    // A secret may stand in a file: only in our own, or a mutation could name a device that never ends.
    let is_safe = |value: &str| !value.contains('/');
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let env = env.lines().filter_map(pair).filter(|(name, value)| !name.contains("FILE") || is_safe(value));
    if file.contains("_file") {
        return Ok(());
    }
    match Config::load(Some(&path), env) {
        Ok(config) if config.masked().contains("a-secret-of-20-bytes") => Err("a secret is shown".to_owned()),
        Err(error) if error.to_string().is_empty() => Err("it is refused without a word".to_owned()),
        _ => Ok(()),
    }
}

#[test]
fn the_configuration_is_safe() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |input: &[u8]| configuration(input, folder.path());
    let words =
        &["TIDEMILL__DELIVERY__", "[delivery]\n", "allow_networks", "[\"10.0.0.0/8\"]", "TIDEMILL_API_KEY=", "\"\""];
    Target { name: "configuration", run: Box::new(run), words, more: vec![], tries: 500 }.fuzz();
}

#[test]
fn slugs_are_known() {
    // The words of the targets above are the product's own; this one keeps them from going stale.
    assert!(failure::Failure::ALL.len() > 5);
    assert!(TopicPattern::parse("crm/contacts", &[] as &[&str]).is_ok());
    assert!(Filter::parse("dataPayload.name == 'Ann' && 'name' in changedFields").is_ok());
}
