//! `/one/connectors`: which apps this node knows, and what each can tell.
//!
//! Always true: what is shown comes from the loaded connectors and from nothing else. Not here: connecting to them
//! (`integrations`, `connections`).

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::call::{Call, not_found};
use super::paging::{self, Paging};
use super::reply::Reply;
use super::route::{PAGED, Route, group};
use crate::connectors::spec::{Detects, OfCollection};
use crate::connectors::{Absent, Connector, GivenBy, Journal};
use crate::error::{Code, Error, Result};

/// How each kind of change is noticed: `webhook`, `global-webhook`, `poll`, `full-scan` or `none`.
#[derive(Serialize, JsonSchema)]
pub(super) struct DetectsView {
    pub(super) created: &'static str,
    pub(super) updated: &'static str,
    pub(super) deleted: &'static str,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct CollectionView {
    key: String,
    name: String,
    topic: String,
    detects: DetectsView,
    /// Methods that the app cannot give, as the connector says outright.
    not_supported: Vec<MethodView>,
}

/// `pull`, `scan`, `deleted`, `fetch`, or of a webhook `subscribe`, `refresh`, `unsubscribe`.
#[derive(Serialize, JsonSchema)]
struct MethodView {
    method: String,
    /// Why, in a sentence; may be empty.
    reason: String,
}

/// A topic that others of its kind bring and this app cannot.
#[derive(Serialize, JsonSchema)]
struct AbsentTopicView {
    topic: String,
    /// Why, in a sentence.
    reason: String,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct BaseUriView {
    /// `integration`: only there, with scope `admin`. `user`: each connection has its own.
    given_by: GivenByWord,
    /// Whether the connector knows an address by itself.
    has_default: bool,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum GivenByWord {
    Integration,
    User,
}

/// A webhook of a connection's own.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct OwnWebhookView {
    name: String,
    /// False: a person must do something in the app; a connection's `webhook.instructions` say what.
    registers_itself: bool,
    /// Methods that the app cannot give, as the connector says outright.
    not_supported: Vec<MethodView>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct GlobalWebhookView {
    key: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// The app keeps what it would push in a journal too, which a node without a public URL can read.
    #[serde(skip_serializing_if = "Option::is_none")]
    journal: Option<JournalView>,
}

/// The integration's parameter that has the journal read in place of being pushed to.
#[derive(Serialize, JsonSchema)]
struct JournalView {
    parameter: String,
    value: String,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ConnectorEventView {
    key: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// The topic of what it brings; null if that depends on what comes.
    topic: Option<String>,
    /// Switched on when an account is connected through an integration.
    default: bool,
    parameters_schema: Value,
}

/// An app that can be connected.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ConnectorView {
    key: String,
    name: String,
    category: String,
    description: String,
    /// Kinds of credentials it takes: `bearer`, `apiKey`, `basic`, `login`, `oauth1`, `oauth2`, `none`.
    auth: Vec<&'static str>,
    /// JSON Schema of `parameters`; `x-givenBy` says who gives one, `writeOnly` marks secrets.
    parameters_schema: Value,
    base_uri: BaseUriView,
    topics: Vec<String>,
    collections: Vec<CollectionView>,
    /// Topics that the app cannot give, as the connector says outright.
    not_supported: Vec<AbsentTopicView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<OwnWebhookView>,
    global_webhooks: Vec<GlobalWebhookView>,
    /// Events to switch on per connection with `POST /one/connections/{id}/events`.
    events: Vec<ConnectorEventView>,
}

#[derive(Serialize, JsonSchema)]
struct OneConnector {
    connector: ConnectorView,
}

#[derive(Serialize, JsonSchema)]
struct Connectors {
    connectors: Vec<ConnectorView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(super) fn routes() -> Vec<Route> {
    let all = "/{version}/one/connectors";
    let routes = vec![
        Route::get(all, "List the apps that can be connected", list).query(PAGED).gives::<Connectors>(),
        Route::get("/{version}/one/connectors/{key}", "Show a connector", show).gives::<OneConnector>(),
    ];
    group("connectors", routes)
}

impl DetectsView {
    pub(super) fn of(detects: &Detects) -> Self {
        Self { created: detects.created.as_str(), updated: detects.updated.as_str(), deleted: detects.deleted.as_str() }
    }
}

fn methods(absent: Vec<Absent>) -> Vec<MethodView> {
    absent.into_iter().map(|Absent { what: method, reason }| MethodView { method, reason }).collect()
}

fn view(connector: &Connector) -> ConnectorView {
    let collections = connector.collections.iter().map(|c| CollectionView {
        key: c.key.clone(),
        name: c.name.clone(),
        topic: c.topic.clone(),
        detects: DetectsView::of(&c.detects),
        not_supported: methods(c.not_supported()),
    });
    let absent = connector.not_supported.iter();
    let absent = absent.map(|a| AbsentTopicView { topic: a.what.clone(), reason: a.reason.clone() });
    let events = connector.events.iter().map(|event| {
        let topic = match &event.collection {
            None => Some(format!("{}/{}", connector.key, event.key)),
            Some(OfCollection::Key(key)) => connector.collection(key).map(|c| c.topic.clone()),
            Some(OfCollection::Told(_)) => None,
        };
        ConnectorEventView {
            key: event.key.clone(),
            name: event.name.clone(),
            description: event.description.clone(),
            topic,
            default: event.default,
            parameters_schema: event.parameters.to_json(),
        }
    });
    let globals = connector.global_webhooks.iter().map(|webhook| GlobalWebhookView {
        key: webhook.key.clone(),
        name: webhook.name.clone(),
        description: webhook.description.clone(),
        journal: webhook
            .journal
            .as_ref()
            .map(Journal::when)
            .map(|(parameter, value)| JournalView { parameter: parameter.to_owned(), value: value.to_owned() }),
    });
    let webhook = connector.webhook.as_ref();
    ConnectorView {
        key: connector.key.clone(),
        name: connector.name.clone(),
        category: connector.category.clone(),
        description: connector.description.clone(),
        auth: connector.auth_kinds(),
        parameters_schema: connector.parameters.to_json(),
        base_uri: BaseUriView {
            given_by: match connector.base_uri.given_by {
                GivenBy::Integration => GivenByWord::Integration,
                GivenBy::User => GivenByWord::User,
            },
            has_default: connector.base_uri.default.is_some(),
        },
        topics: connector.collections.iter().map(|c| c.topic.clone()).collect(),
        collections: collections.collect(),
        not_supported: absent.collect(),
        webhook: webhook.map(|w| OwnWebhookView {
            name: w.name.clone(),
            registers_itself: !w.pastes(),
            not_supported: methods(w.not_supported()),
        }),
        global_webhooks: globals.collect(),
        events: events.collect(),
    }
}

/// The connector of that key; `missing` says whether it is a path or a field that names none.
pub(super) fn find(call: &Call, key: &str, missing: Code) -> Result<Arc<Connector>> {
    call.state.deps.connectors.get(key).ok_or_else(|| {
        if missing == Code::ConnectorNotFound {
            return not_found(missing, key);
        }
        let shown: String = key.chars().take(64).collect();
        let all: Vec<&str> = call.state.deps.connectors.all().map(|c| c.key.as_str()).collect();
        Error::new(missing, format!("connector: there is no `{shown}` on this node; there are {}", all.join(", ")))
    })
}

async fn list(call: Call) -> Result<Reply> {
    let page = Paging::of(&call)?;
    let all = call.state.deps.connectors.all().map(|connector| view(connector)).collect();
    let (connectors, next) = paging::cut(all, &page)?;
    Reply::json(&Connectors { connectors, next })
}

async fn show(call: Call) -> Result<Reply> {
    let connector = find(&call, call.param("key")?, Code::ConnectorNotFound)?;
    Reply::json(&OneConnector { connector: view(&connector) })
}
