//! `pubsub`: messages of a Google Cloud Pub/Sub topic.
//!
//! Always true: a request has at most 1,000 messages and 10 MB; of a batch that makes several, the next is sent when the
//! one before it was taken, so the order holds; each message carries its event's id, for there is nothing that keeps
//! Pub/Sub from holding a message twice. Not here: who we are at Google (`destinations::google`).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use super::driver::{Answer, Batch, Driver, Fault, Frozen, Item, Kind, Limits, Opening, Part, Probe, Step, Verdict};
use super::google::{self, Account, Asked, Google};
use super::parts;
use super::steps::Steps;
use crate::domain::event::Payload;
use crate::domain::secret::Secret;
use crate::domain::trouble::Trouble;
use crate::error::{Error, Result};
use crate::outbound::{Bytes, Method};

/// The kind.
pub static KIND: Kind = Kind {
    name: "pubsub",
    title: "Google Pub/Sub",
    about: "One message per event on a topic of Google Cloud Pub/Sub, in the order of each connection.",
    mirrors: false,
    schema: || schemars::schema_for!(Settings),
    open,
};

/// Google's "Pub/Sub quotas and limits", section "Resource limits": publish request 10 MB and 1,000 messages.
const REQUEST_MAX_BYTES: usize = 10_000_000;
const MESSAGES_MAX: usize = 1_000;
/// The same: attribute value 1,024 bytes; ordering key 1 KB.
const ATTRIBUTE_MAX_BYTES: usize = 1_024;
const SCOPE: &str = "https://www.googleapis.com/auth/pubsub";
const PUBLISH: &str = "pubsub.topics.publish";
const OPENS: &str = "{\"messages\":[";
const CLOSES: &str = "]}";

/// What can be set.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Settings {
    /// The text of the JSON file of a service account, or of an external account (workload identity federation).
    #[schemars(with = "String", extend("writeOnly" = true))]
    credentials: Secret,
    /// For an external account: the token of its own identity provider.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    subject_token: Option<Secret>,
    /// The topic's project; that of the credentials where it is not said.
    project_id: Option<String>,
    /// The topic's name, without its project.
    topic: String,
    /// Messages of one key keep their order, if the subscription there has message ordering on.
    #[serde(default)]
    ordering_key: OrderingKey,
    /// Events in a batch at most.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1, max = 5_000))]
    max_rows: u32,
    /// Seconds that an event may wait for others to join it.
    #[serde(default = "default_seconds")]
    #[schemars(range(min = 0, max = 3_600))]
    max_seconds: u32,
    /// Another address than `https://pubsub.googleapis.com`: a regional one, an emulator.
    endpoint: Option<String>,
}

/// What the ordering key of a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum OrderingKey {
    /// The connection's id.
    #[default]
    Connection,
    /// The connection's id and the remote id.
    Record,
    /// No key.
    None,
}

fn default_rows() -> u32 {
    1_000
}

fn default_seconds() -> u32 {
    1
}

struct Topic {
    google: Google,
    /// `https://…/v1/projects/{project}/topics/{topic}`, without the verb.
    url: Url,
    ordering_key: OrderingKey,
    rows: usize,
    age: Duration,
}

fn open(opening: Opening) -> Result<Arc<dyn Driver>> {
    let settings: Settings = crate::destinations::settings::own(opening.settings)?;
    let (rows, age) = crate::destinations::settings::batches(settings.max_rows, 5_000, settings.max_seconds)?;
    let account = Account::read(&settings.credentials, settings.subject_token)?;
    let google = Google::new(opening.client, account, SCOPE);
    let project = google::project(settings.project_id.as_deref(), &google)?;
    let topic = &settings.topic;
    // Google's "Guidelines to name a topic".
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~+%".contains(&b);
    if !(3..=255).contains(&topic.len())
        || !topic.bytes().all(plain)
        || !topic.starts_with(|c: char| c.is_ascii_alphabetic())
    {
        let message = "settings.topic: the name alone, without its project: 3 to 255 letters, digits, `-._~+%`";
        return Err(Error::invalid(message));
    }
    let endpoint = google::endpoint(settings.endpoint.as_deref(), "https://pubsub.googleapis.com")?;
    let url = google::below(&endpoint, &["v1", "projects", &project, "topics", topic], &[]);
    Ok(Arc::new(Topic { google, url, ordering_key: settings.ordering_key, rows, age }))
}

impl Driver for Topic {
    fn limits(&self) -> Limits {
        Limits { rows: self.rows, bytes: 6 << 20, age: self.age, timeout: Duration::from_secs(180), recuts: false }
    }

    fn prepare(&self, batch: &Batch) -> std::result::Result<Frozen, Verdict> {
        let mut refused = Vec::new();
        let mut parts: Vec<(String, Vec<usize>)> = Vec::new();
        for (place, item) in batch.items.iter().enumerate() {
            let message = match self.message(batch, item) {
                Ok(message) => message,
                Err(fault) => {
                    refused.push((place, fault));
                    continue;
                }
            };
            match parts.last_mut() {
                Some((body, items))
                    if items.len() < MESSAGES_MAX
                        && body.len() + 1 + message.len() + CLOSES.len() <= REQUEST_MAX_BYTES =>
                {
                    body.push(',');
                    body.push_str(&message);
                    items.push(place);
                }
                _ => parts.push((format!("{OPENS}{message}"), vec![place])),
            }
        }
        let parts = parts.into_iter().map(|(body, items)| Part {
            target: "publish".to_owned(),
            body: Bytes::from(body + CLOSES),
            items,
        });
        let (id, items) = (batch.id.clone(), batch.items.len());
        Ok(Frozen { id, parts: parts.collect(), items, refused, notes: Vec::new() })
    }

    fn send<'a>(&'a self, frozen: &'a Frozen) -> BoxFuture<'a, Answer> {
        async move {
            for (number, part) in frozen.parts.iter().enumerate() {
                if let Err(verdict) = self.publish(part).await {
                    return parts::told(frozen, number, verdict);
                }
            }
            parts::told(frozen, frozen.parts.len(), Verdict::Done)
        }
        .boxed()
    }

    fn test<'a>(&'a self, _: &'a Probe) -> BoxFuture<'a, Vec<Step>> {
        async move {
            let mut steps = Steps::default();
            steps.take("signIn", self.google.sign_in()).await;
            steps.take("permissions", self.permitted()).await;
            steps.done()
        }
        .boxed()
    }
}

impl Topic {
    /// A message as JSON; or why there can be none.
    fn message(&self, batch: &Batch, item: &Item) -> std::result::Result<String, Fault> {
        let event = &item.event;
        let connection = event.connection.map(|id| id.to_string());
        let mut attributes = Map::new();
        let mut put = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                attributes.insert(name.to_owned(), value.into());
            }
        };
        put("event_id", Some(&item.id.to_string()));
        put("topic", Some(&event.topic));
        put("update_type", event.update_type.as_deref());
        put("connection_id", connection.as_deref());
        put("user_id", event.user.map(|id| id.to_string()).as_deref());
        if let Some((name, _)) = attributes.iter().find(|(_, value)| value.as_str().is_some_and(is_long)) {
            let detail = format!("its attribute {name} has more than {ATTRIBUTE_MAX_BYTES} bytes");
            return Err(Fault::new(Trouble::TooLarge, detail));
        }
        let mut message = json!({"data": STANDARD.encode(batch.body(item)), "attributes": attributes});
        let key = match (self.ordering_key, connection, &event.payload) {
            (OrderingKey::None, ..) | (_, None, _) => None,
            (OrderingKey::Record, Some(connection), Payload::Record { remote_id, .. }) => {
                Some(format!("{connection}/{remote_id}")).map(|key| if is_long(&key) { connection } else { key })
            }
            (_, Some(connection), _) => Some(connection),
        };
        if let (Some(key), Some(message)) = (key, message.as_object_mut()) {
            message.insert("orderingKey".to_owned(), key.into());
        }
        let text = message.to_string();
        if OPENS.len() + text.len() + CLOSES.len() > REQUEST_MAX_BYTES {
            let detail = format!("as a message it has {} bytes, a request takes {REQUEST_MAX_BYTES}", text.len());
            return Err(Fault::new(Trouble::TooLarge, detail));
        }
        Ok(text)
    }

    async fn publish(&self, part: &Part) -> std::result::Result<(), Verdict> {
        let mut request = google::request(Method::POST, self.verb("publish"), None);
        request.headers.push(google::JSON);
        request.body = part.body.clone();
        let answer = self.google.send(request).await?;
        let said = google::read(&answer, Asked::Events)?;
        let ids = said.get("messageIds").and_then(Value::as_array).map_or(0, Vec::len);
        if ids == part.items.len() {
            return Ok(());
        }
        let detail = format!("{ids} of {} messages were said to be taken", part.items.len());
        Err(Verdict::Retry(Fault::new(Trouble::Failed, detail)))
    }

    fn verb(&self, verb: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}:{verb}", self.url.path()));
        url
    }

    /// Whether we may publish. Nothing is published: a message cannot be taken back.
    async fn permitted(&self) -> std::result::Result<((), String), Verdict> {
        let body = json!({"permissions": [PUBLISH]});
        let request = google::request(Method::POST, self.verb("testIamPermissions"), Some(&body));
        let answer = self.google.send(request).await?;
        if matches!(answer.status, 404 | 501) {
            // Google's emulator has no permissions.
            self.google.call(Method::GET, self.url.clone(), None).await?;
            return Ok(((), "the topic is there; nothing was published".to_owned()));
        }
        let said = google::read(&answer, Asked::Setup)?;
        let granted = said.get("permissions").and_then(Value::as_array);
        if granted.is_some_and(|granted| granted.iter().any(|name| name == PUBLISH)) {
            return Ok(((), format!("{PUBLISH}; nothing was published")));
        }
        // Of a topic that is not there, Google says that it grants nothing.
        let detail =
            format!("the topic is not there, or the account lacks {PUBLISH} on it: grant roles/pubsub.publisher");
        Err(Verdict::Config(Fault::new(Trouble::PermissionDenied, detail)))
    }
}

fn is_long(text: &str) -> bool {
    text.len() > ATTRIBUTE_MAX_BYTES
}
