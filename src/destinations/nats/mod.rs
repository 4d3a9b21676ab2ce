//! `nats`: messages of a NATS JetStream stream.
//!
//! Always true: each message is acknowledged by the stream before its event is settled; it carries its event's id as
//! `Nats-Msg-Id`, so the stream drops a repetition within its duplicate window, and readers can after it. Not here: the
//! protocol (`wire`), connections (`link`), the order in which messages leave (`publish`).
//!
//! The client is our own. `async-nats` resolves and dials by itself, also what a server announces; led through a gateway
//! on loopback, as MongoDB's driver is, it would ask the certificate for the gateway's name, and it reconnects and sends
//! again behind our back, where a batch has to know what was acknowledged. What a publisher needs of the protocol is eight
//! words.

mod link;
mod nkey;
mod publish;
mod settings;
mod verdict;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use tokio::time::Instant;

use self::link::{Link, Links};
use self::settings::{Settings, Subject};
use self::verdict::{Ack, NOBODY, Refusal};
use super::driver::{Answer, Batch, Driver, Fault, Frozen, Item, Kind, Limits, Opening, Part, Probe, Step, Verdict};
use super::rows::named;
use super::steps::Steps;
use crate::domain::event::{Event, Payload};
use crate::domain::id::DestinationId;
use crate::domain::trouble::Trouble;
use crate::error::Result;
use crate::outbound::Bytes;

/// The kind.
pub static KIND: Kind = Kind {
    name: "nats",
    title: "NATS JetStream",
    about: "One message per event on a subject of NATS, acknowledged by a JetStream stream.",
    mirrors: false,
    schema: || schemars::schema_for!(Settings),
    open,
};

/// The header that names the record.
const RECORD: &str = "Tidemill-Record: ";
/// The longest name of a record of a custom topic that a subject or a header holds.
const NAME_MAX_BYTES: usize = 256;
/// For one try; what is left of it by then comes again.
const SEND_MAX: Duration = Duration::from_secs(100);
/// No one listens for a moment while a stream chooses its leader: asked so often, so far apart, before it is said.
const ASKED_AGAIN: usize = 3;
const ASKED_AFTER: Duration = Duration::from_millis(500);
/// JetStream's code for a stream of another name than the one that a message expects.
const OTHER_STREAM: u16 = 10_060;
/// A window that spans the first two repetitions, which come within eight minutes.
const WINDOW: Duration = Duration::from_secs(600);

struct Stream {
    links: Links,
    prefix: String,
    subject: Subject,
    rows: usize,
    age: Duration,
    destination: DestinationId,
}

fn open(opening: Opening) -> Result<Arc<dyn Driver>> {
    let settings: Settings = crate::destinations::settings::own(opening.settings)?;
    let (rows, age) = crate::destinations::settings::batches(settings.max_rows, 5_000, settings.max_seconds)?;
    let way = settings.way(&opening.client)?;
    Ok(Arc::new(Stream {
        links: Links::new(opening.client, way),
        prefix: settings.subject_prefix,
        subject: settings.subject,
        rows,
        age,
        destination: opening.destination,
    }))
}

impl Driver for Stream {
    fn limits(&self) -> Limits {
        Limits { rows: self.rows, bytes: 6 << 20, age: self.age, timeout: Duration::from_secs(120), recuts: false }
    }

    fn prepare(&self, batch: &Batch) -> std::result::Result<Frozen, Verdict> {
        let part = |(place, item): (usize, &Item)| Part {
            target: self.subject(&item.event),
            body: message(batch, item),
            items: vec![place],
        };
        let parts = batch.items.iter().enumerate().map(part).collect();
        let (id, items) = (batch.id.clone(), batch.items.len());
        Ok(Frozen { id, parts, items, refused: Vec::new(), notes: Vec::new() })
    }

    fn send<'a>(&'a self, frozen: &'a Frozen) -> BoxFuture<'a, Answer> {
        async move {
            let until = Instant::now() + SEND_MAX;
            let mut asked = 0;
            loop {
                let mut lease = match self.links.take().await {
                    Ok(lease) => lease,
                    Err(verdict) => return Answer::All(verdict),
                };
                let (answer, usable) = publish::publish(&mut lease.connection, frozen, until).await;
                if usable {
                    self.links.give_back(lease);
                }
                asked += 1;
                if asked >= ASKED_AGAIN || !is_nobody(&answer) {
                    return answer;
                }
                tokio::time::sleep(ASKED_AFTER).await;
            }
        }
        .boxed()
    }

    fn test<'a>(&'a self, probe: &'a Probe) -> BoxFuture<'a, Vec<Step>> {
        async move {
            let mut steps = Steps::default();
            let reach = async {
                let room = self.links.room().await?;
                let reached = self.links.reach_any().await?;
                let found = format!("nats-server {}, at most {} bytes", reached.info.version, reached.info.max_payload);
                Ok(((reached, room), found))
            };
            let Some((reached, _room)) = steps.take("connect", reach).await else { return steps.done() };
            let sign_in = async { Ok((self.links.sign_in(reached).await?, String::new())) };
            let Some(mut link) = steps.take("signIn", sign_in).await else { return steps.done() };
            let subject = probe.batch.items.first().map_or_else(|| self.prefix.clone(), |i| self.subject(&i.event));
            let name = steps.take("permissions", self.permitted(&mut link, &subject)).await;
            if let Some(name) = name {
                steps.take("table", described(&mut link, &name)).await;
            }
            steps.done()
        }
        .boxed()
    }
}

fn is_nobody(answer: &Answer) -> bool {
    matches!(answer, Answer::All(Verdict::Config(fault)) if fault.detail == NOBODY)
}

impl Stream {
    /// `tidemill.crm.contacts`, and what the settings want after it.
    fn subject(&self, event: &Event) -> String {
        let mut subject = self.prefix.clone();
        let mut put = |token: &str| {
            subject.push('.');
            subject.push_str(if token.is_empty() { "-" } else { token });
        };
        event.topic.split('/').for_each(|part| put(&token(part)));
        if self.subject != Subject::Topic {
            put(&event.connection.map(|id| id.to_string()).unwrap_or_default());
        }
        if self.subject == Subject::Record {
            put(&record(event).unwrap_or_default());
        }
        subject
    }

    /// Whether we may publish, and which stream listens. The message expects a stream of a name that none has, so
    /// JetStream checks all and keeps nothing.
    async fn permitted(&self, link: &mut Link, subject: &str) -> std::result::Result<(String, String), Verdict> {
        let probe = format!("NATS/1.0\r\nNats-Expected-Stream: tidemill-test-{}\r\n\r\n", self.destination);
        let message = link.ask(subject, probe.as_bytes()).await?;
        if let Ok(Ack { stream: Some(name), error: Some(Refusal { err_code: OTHER_STREAM, .. }) }) =
            serde_json::from_slice(&message.body)
        {
            return Ok((name, format!("may publish on {subject}; nothing was stored")));
        }
        let verdict = verdict::ack(&message);
        if message.status != Some(503) {
            return Err(match verdict {
                Verdict::Done => {
                    Verdict::Config(Fault::new(Trouble::Failed, "the stream kept a message it should refuse"))
                }
                verdict => verdict,
            });
        }
        // Perhaps a stream takes other topics.
        let wanted = serde_json::json!({"subject": format!("{}.>", self.prefix)}).to_string();
        let names = link.ask("$JS.API.STREAM.NAMES", format!("NATS/1.0\r\n\r\n{wanted}").as_bytes()).await;
        let names = names.ok().and_then(|said| serde_json::from_slice::<Names>(&said.body).ok());
        match names.and_then(|names| names.streams.unwrap_or_default().into_iter().next()) {
            Some(name) => Ok((name, format!("no stream takes {subject}, but one takes other topics"))),
            None => Err(verdict),
        }
    }
}

#[derive(Deserialize)]
struct Names {
    streams: Option<Vec<String>>,
}

/// NATS docs, "JetStream wire API", `io.nats.jetstream.api.v1.stream_info_response`.
#[derive(Deserialize)]
struct Described {
    config: Option<Config>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    subjects: Vec<String>,
    /// Nanoseconds.
    duplicate_window: u64,
    no_ack: bool,
}

/// What the stream is, as far as we may ask.
async fn described(link: &mut Link, name: &str) -> std::result::Result<((), String), Verdict> {
    let unknown =
        || format!("stream {name}; its duplicate window cannot be seen, for $JS.API.STREAM.INFO may not be asked");
    let said = match link.ask(&format!("$JS.API.STREAM.INFO.{name}"), b"NATS/1.0\r\n\r\n").await {
        Ok(said) => said,
        Err(Verdict::Config(_)) => return Ok(((), unknown())),
        Err(verdict) => return Err(verdict),
    };
    let Ok(Described { config: Some(config) }) = serde_json::from_slice(&said.body) else { return Ok(((), unknown())) };
    if config.no_ack {
        let detail = format!("stream {name} acknowledges nothing (no_ack): switch that off");
        return Err(Verdict::Config(Fault::new(Trouble::SettingsRefused, detail)));
    }
    let window = Duration::from_nanos(config.duplicate_window);
    let subjects = config.subjects.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    let mut found = format!("stream {name} takes {subjects}; duplicate window {} s", window.as_secs());
    if window < WINDOW {
        found.push_str(
            ": a repetition after more than that is stored twice; 600 s or more span the first two repetitions",
        );
    }
    Ok(((), found))
}

/// Headers and body.
fn message(batch: &Batch, item: &Item) -> Bytes {
    let event = &item.event;
    let mut head = "NATS/1.0\r\n".to_owned();
    let mut put = |name: &str, value: &str| {
        head.push_str(name);
        head.extend(value.chars().filter(|letter| !letter.is_control()));
        head.push_str("\r\n");
    };
    put("Nats-Msg-Id: ", &item.id.to_string());
    put("Content-Type: ", "application/json");
    put("Tidemill-Topic: ", &event.topic);
    if let Some(update_type) = &event.update_type {
        put("Tidemill-Update-Type: ", update_type);
    }
    if let Some(connection) = event.connection {
        put("Tidemill-Connection: ", &connection.to_string());
    }
    if let Some(user) = event.user {
        put("Tidemill-User: ", &user.to_string());
    }
    if let Some(record) = record(event) {
        put(RECORD, &record);
    }
    head.push_str("\r\n");
    let mut message = head.into_bytes();
    message.extend_from_slice(&batch.body(item));
    message.into()
}

/// The record's id; in a custom topic the payload's own `id`, as a token.
fn record(event: &Event) -> Option<String> {
    match &event.payload {
        Payload::Record { id, .. } => Some(uuid::Uuid::from_bytes(*id).to_string()),
        Payload::Plain(_) => {
            named(event).map(|name| token(&name)).filter(|name| !name.is_empty() && name.len() <= NAME_MAX_BYTES)
        }
    }
}

/// Text as one token of a subject: what is no letter, digit, `-` or `_` is percent-encoded.
fn token(text: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_one_token() {
        assert_eq!(token("crm_2-b"), "crm_2-b");
        assert_eq!(token("a.b *>\u{e9}\r\n"), "a%2Eb%20%2A%3E%C3%A9%0D%0A");
    }
}
