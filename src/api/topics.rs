//! `/one/topics`: the catalogue, the workspace's own topics, and what each topic's events carry.
//! `/one/metadata/fields`: the fields of a topic, a connection's custom ones included.
//!
//! Always true: a topic of one's own never takes the name of a built-in one. Not here: publishing (`events`), patterns
//! (`domain::topic`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::call::{Call, not_found};
use super::paging::{self, Paging};
use super::reply::Reply;
use super::route::{PAGED, Param, Route, group};
use super::shapes::Deleted;
use super::state::State;
use super::{connections, records};
use crate::domain::app_field::AppField;
use crate::domain::body::example;
use crate::domain::connection::Connection;
use crate::domain::id::{ConnectionId, WorkspaceNo};
use crate::domain::models::{Catalogue, Field, Model};
use crate::domain::topic;
use crate::domain::version::ApiVersion;
use crate::domain::workspace::CustomTopic;
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Tx};

/// Topics of one workspace.
const CUSTOM_MAX: usize = 10_000;
const DESCRIPTION_BYTES_MAX: usize = 1000;
const SCHEMA_BYTES_MAX: usize = 65_536;

const ALL: &str = "/{version}/one/topics";
const ONE: &str = "/{version}/one/topics/{category}/{model}";

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewTopic {
    /// `category/model`, each 1 to 64 of `A-Za-z0-9_-`.
    topic: String,
    /// For people; up to 1,000 bytes.
    #[serde(default)]
    description: Option<String>,
    /// JSON Schema of `dataPayload`, for those who read it; payloads are not checked against it.
    #[serde(default)]
    schema: Option<Map<String, Value>>,
}

#[derive(Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum KindWord {
    /// Registered by the workspace.
    Custom,
    /// An event of a connector.
    Connector,
    /// One of the unified models.
    Data,
    /// The engine's own doings; `*` leaves them out.
    System,
}

/// A topic.
#[derive(Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct TopicView {
    topic: String,
    category: String,
    model: String,
    kind: KindWord,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    /// JSON Schema of `dataPayload` in the version of the path; only where one topic is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<Value>,
    /// A body in each version; only where one topic is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Map<String, Value>>")]
    examples: Option<Examples>,
}

#[derive(Clone, Serialize)]
struct Examples {
    #[serde(rename = "2023-12")]
    v2023_12: Box<RawValue>,
    #[serde(rename = "2024-03")]
    v2024_03: Box<RawValue>,
}

#[derive(Serialize, JsonSchema)]
struct OneTopic {
    topic: TopicView,
}

#[derive(Serialize, JsonSchema)]
struct Topics {
    topics: Vec<TopicView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A field of a topic's records.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct FieldView {
    /// Dotted; `[]` stands for each element.
    path: String,
    title: String,
    description: String,
    /// `string`, `number`, `integer`, `boolean`, `object` or `array`; absent where it is not known.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<String>,
    nullable: bool,
    /// Of the app alone, at this connection.
    custom: bool,
    /// What the app calls the field's type, such as `picklist`; only of custom fields, where the app says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    app_type: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Fields {
    fields: Vec<FieldView>,
}

pub(super) fn routes() -> Vec<Route> {
    let of = [
        Param { name: "topic", about: "A built-in data topic, such as `crm/contacts`." },
        Param {
            name: "connectionId",
            about: "Adds this connection's custom fields: those that its app lists, and those seen in its records.",
        },
    ];
    let routes = vec![
        Route::post(ALL, "Register a topic of your own", create).takes::<NewTopic>().gives::<OneTopic>(),
        Route::get(ALL, "List topics: your own, those of connectors, the built-in ones", list)
            .query(PAGED)
            .gives::<Topics>(),
        Route::get(ONE, "A topic with its JSON Schema and an example in each version", show).gives::<OneTopic>(),
        Route::delete(ONE, "Delete a topic of your own", delete).gives::<Deleted>(),
        Route::get("/{version}/one/metadata/fields", "The fields of a topic", fields).query(&of).gives::<Fields>(),
    ];
    group("topics", routes)
}

/// The topics that are not built in: the workspace's own, and the events of connectors.
pub(super) fn others(rows: &Rows, workspace: WorkspaceNo, of_connectors: Vec<String>) -> Result<Vec<String>> {
    let own = rows.objects::<CustomTopic>(workspace, None, CUSTOM_MAX)?.items;
    Ok(own.into_iter().map(|topic| topic.name).chain(of_connectors).collect())
}

fn plain(name: &str, kind: KindWord, description: &str) -> TopicView {
    TopicView {
        topic: name.to_owned(),
        category: topic::category(name).to_owned(),
        model: topic::model(name).to_owned(),
        kind,
        description: description.to_owned(),
        created_at: None,
        schema: None,
        examples: None,
    }
}

fn built_in(model: &Model) -> TopicView {
    let kind = if model.system { KindWord::System } else { KindWord::Data };
    plain(&model.topic, kind, &model.description)
}

fn own(custom: &CustomTopic) -> TopicView {
    let created_at = Some(custom.created_at.rfc3339_millis());
    TopicView { created_at, ..plain(&custom.name, KindWord::Custom, &custom.description) }
}

fn of_connectors(state: &State) -> Vec<TopicView> {
    let each = state.deps.connectors.all().flat_map(|connector| {
        let events = connector.events.iter().filter(|event| event.collection.is_none());
        events.map(|event| {
            let about = event.description.as_deref().unwrap_or(&event.name);
            plain(&format!("{}/{}", connector.key, event.key), KindWord::Connector, about)
        })
    });
    each.collect()
}

fn raw(text: Vec<u8>) -> Result<Box<RawValue>> {
    RawValue::from_string(String::from_utf8(text).map_err(Error::internal)?).map_err(Error::internal)
}

async fn create(call: Call) -> Result<Reply> {
    let (asked, workspace) = (call.json::<NewTopic>()?, call.workspace()?);
    let name = topic::custom(&asked.topic).map_err(|e| Error::invalid(format!("topic: {e}")))?;
    let description = asked.description.unwrap_or_default();
    if description.len() > DESCRIPTION_BYTES_MAX {
        return Err(Error::invalid(format!("description: use at most {DESCRIPTION_BYTES_MAX} bytes")));
    }
    let schema = asked.schema.map(|schema| Value::Object(schema).to_string()).unwrap_or_default();
    if schema.len() > SCHEMA_BYTES_MAX {
        return Err(Error::invalid(format!("schema: use at most {SCHEMA_BYTES_MAX} bytes")));
    }
    if of_connectors(&call.state).iter().any(|topic| topic.topic == name.as_str()) {
        return Err(Error::invalid(format!("topic: `{name}` is an event of a connector and needs no registration")));
    }
    let change = move |tx: &mut Tx<'_>| {
        let (id, created_at) = (tx.fresh_id()?, tx.now());
        let made = CustomTopic { id, workspace, name: name.to_string(), description, schema, created_at };
        if tx.rival(&made)?.is_some() {
            return Err(Error::new(Code::Conflict, format!("topic: `{name}` is registered already")));
        }
        tx.put_object(&made)?;
        Ok((Reply::json(&OneTopic { topic: own_whole(&made)? })?, ()))
    };
    call.change(change).await.map(|(reply, ())| reply)
}

fn own_whole(custom: &CustomTopic) -> Result<TopicView> {
    let schema = match custom.schema.as_str() {
        "" => None,
        text => Some(serde_json::from_str(text).map_err(Error::internal)?),
    };
    Ok(TopicView { schema, ..own(custom) })
}

async fn list(call: Call) -> Result<Reply> {
    let (workspace, page) = (call.workspace()?, Paging::of(&call)?);
    let read = move |rows: &Rows| Ok(rows.objects::<CustomTopic>(workspace, None, CUSTOM_MAX)?.items);
    let mut all: Vec<TopicView> = call.read(read).await?.iter().map(own).collect();
    all.extend(of_connectors(&call.state));
    all.extend(Catalogue::embedded().models().iter().map(built_in));
    let (topics, next) = paging::cut(all, &page)?;
    Reply::json(&Topics { topics, next })
}

/// The topic of the path, as it is written or as records' paths have it.
fn name_of(call: &Call) -> Result<String> {
    let (category, model) = (call.param("category")?, call.param("model")?);
    let found = Catalogue::embedded().by_path(category, model);
    Ok(found.map_or_else(|| format!("{category}/{model}"), |model| model.topic.clone()))
}

fn custom(rows: &Rows, workspace: WorkspaceNo, name: &str) -> Result<CustomTopic> {
    rows.custom_topic(workspace, name)?.ok_or_else(|| not_found(Code::TopicNotFound, name))
}

async fn show(call: Call) -> Result<Reply> {
    let (workspace, name) = (call.workspace()?, name_of(&call)?);
    if let Some(model) = Catalogue::embedded().find(&name) {
        let topic = TopicView {
            schema: Some(model.payload_schema(call.version)),
            examples: Some(Examples {
                v2023_12: raw(example(model, ApiVersion::V2023_12))?,
                v2024_03: raw(example(model, ApiVersion::V2024_03))?,
            }),
            ..built_in(model)
        };
        return Reply::json(&OneTopic { topic });
    }
    if let Some(topic) = of_connectors(&call.state).into_iter().find(|topic| topic.topic == name) {
        return Reply::json(&OneTopic { topic });
    }
    let found = call.read(move |rows| custom(rows, workspace, &name)).await?;
    Reply::json(&OneTopic { topic: own_whole(&found)? })
}

async fn delete(call: Call) -> Result<Reply> {
    let (workspace, name) = (call.workspace()?, name_of(&call)?);
    if Catalogue::embedded().find(&name).is_some() {
        return Err(Error::invalid(format!("`{name}` is built in and stays; leave it out of your subscriptions")));
    }
    let change = move |tx: &mut Tx<'_>| {
        let gone = custom(tx, workspace, &name)?;
        tx.delete_object(&gone)?;
        Ok((Reply::json(&Deleted::new("topic", &name))?, ()))
    };
    call.change(change).await.map(|(reply, ())| reply)
}

fn field(field: &Field) -> FieldView {
    FieldView {
        path: field.path.clone(),
        title: field.title.clone(),
        description: field.description.clone(),
        kind: Some(field.kind.clone()),
        format: field.format.clone(),
        nullable: field.nullable,
        custom: false,
        app_type: None,
    }
}

async fn fields(call: Call) -> Result<Reply> {
    let Some(name) = call.query("topic").map(str::to_owned) else {
        return Err(Error::new(Code::Malformed, "topic: say which, such as ?topic=crm/contacts"));
    };
    let (workspace, state) = (call.workspace()?, call.state.clone());
    let id = call.query_id::<ConnectionId>("connectionId", Code::ConnectionNotFound)?;
    let read = move |rows: &Rows| {
        let connection = id.map(|id| connections::find(rows, workspace, id)).transpose()?;
        let connections: Vec<Connection> = connection.into_iter().collect();
        Reply::json(&fields_of(&state, rows, workspace, &name, &connections)?)
    };
    call.read(read).await
}

/// The fields of a topic, and those of the apps' own: what the app says there is, and what was seen in these connections'
/// records.
pub(super) fn fields_of(
    state: &State,
    rows: &Rows,
    workspace: WorkspaceNo,
    name: &str,
    connections: &[Connection],
) -> Result<Fields> {
    let mut fields: Vec<FieldView> = match Catalogue::embedded().find(name) {
        Some(model) => model.fields.iter().map(field).collect(),
        None => {
            let known = of_connectors(state).iter().any(|topic| topic.topic == name);
            if !known && rows.custom_topic(workspace, name)?.is_none() {
                return Err(records::unknown(name));
            }
            Vec::new()
        }
    };
    let mut own: BTreeMap<String, FieldView> = BTreeMap::new();
    for connection in connections {
        for key in records::collections(state, rows, connection, name)? {
            let told = rows.app_fields(connection.id, &key)?.unwrap_or_default().fields;
            for field in told.into_iter().filter(|field| field.custom) {
                own.insert(field.name.clone(), told_field(field));
            }
            for name in rows.custom_fields(connection.id, &key)? {
                own.entry(name.clone()).or_insert_with(|| seen_field(name));
            }
        }
    }
    fields.extend(own.into_values());
    Ok(Fields { fields })
}

/// A field that the app itself says it has.
fn told_field(field: AppField) -> FieldView {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let description = match field.asked {
        true => "A field of the app's own, which the app lists for this connection's account.",
        false => "A field of the app's own; there are more than one request can name, so it is not asked for.",
    };
    let path = match field.place() {
        (Some(list), name) => format!("{list}[].customFields.{name}"),
        (None, name) => format!("customFields.{name}"),
    };
    FieldView {
        path,
        title: some(field.label).unwrap_or(field.name),
        description: description.to_owned(),
        kind: None,
        format: None,
        nullable: true,
        custom: true,
        app_type: some(field.kind),
    }
}

/// A field that was only seen in records.
fn seen_field(name: String) -> FieldView {
    FieldView {
        path: format!("customFields.{name}"),
        title: name,
        description: "A field of the app's own, seen in this connection's records.".to_owned(),
        kind: None,
        format: None,
        nullable: true,
        custom: true,
        app_type: None,
    }
}
