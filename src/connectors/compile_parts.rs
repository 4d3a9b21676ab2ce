//! The parts of a connector's folder: collections, webhooks, events; and what is checked across them.

use serde::Deserialize;

use super::compile::{Builder, Found};
use super::each::Each;
use super::fields_rest::{FieldsRest, QueryFieldsFile};
use super::files::{CollectionFile, CursorFile, ListFile, Span};
use super::folder::SpecError;
use super::join::Join;
use super::journal::JournalFile;
use super::mapping::Mapping;
use super::mapping::path::Path;
use super::record::RecordSpec;
use super::rest::{FetchRest, ListRest};
use super::schema::Schema;
use super::spec::{Collection, ConnectorEvent, Cursor, GlobalWebhook, Life, Method, OfCollection, OwnWebhook, Poll};
use super::values::{self, Own, SharedFile};
use super::yaml::{Node, Placed};
use super::{EVERYTHING, Handshake, Instructions, Parameters, bulk, graphql, journal, verify, yaml};
use crate::domain::models::Catalogue;
use crate::domain::topic;

/// What expressions of webhooks may use beside `$`.
const WEBHOOK_VARIABLES: &[&str] = &["parameters", "state", "query", "headers", "account"];

/// `data/*`.
pub fn collections(builder: &Builder<'_>, templated: bool) -> Result<Vec<Collection>, SpecError> {
    const SHARED: &str = "shared/spec.yml";
    let shared = builder.folder.has(SHARED).then(|| builder.yaml::<SharedFile>(SHARED)).transpose()?;
    let shared = shared.unwrap_or_default();
    let keys = builder.folder.children("data").into_iter();
    keys.map(|key| collection(builder, &shared, key, templated)).collect()
}

fn collection(builder: &Builder<'_>, shared: &SharedFile, key: &str, templated: bool) -> Result<Collection, SpecError> {
    let dir = format!("data/{key}");
    let path = format!("{dir}/spec.yml");
    let file: CollectionFile = builder.yaml(&path)?;
    let said = shared.settle(&path, &file)?;
    let record = RecordSpec::new(&said.record);
    let list = |file: &str, text: &str| ListRest::new(file, &yaml::read::<ListFile>(file, text)?, &record);
    let fetch = |file: &str, text: &str| FetchRest::new(file, &yaml::read(file, text)?);
    let query = |found: &Found<'_>| graphql::list(builder, found, &record);
    let at = |method: &str| builder.place(&dir, method);
    let a_list = |name: &str| builder.method_or_query(&at(name), &list, &query);
    let pull = a_list("pull")?;
    let mut deleted = a_list("deleted")?;
    if let Method::Rest(list) = &mut deleted {
        // A list of what was deleted may be one of several kinds of records.
        list.skips_others = true;
    }
    let cursor = cursor(&said.cursor, &record, &pull);
    let map_path = format!("{dir}/record.map.yml");
    let besides = [Some(&said.record.id), said.record.created_at.as_ref(), said.record.updated_at.as_ref()];
    let besides: Vec<&Path> = besides.into_iter().chain([said.record.deleted.as_ref()]).flatten().collect();
    let map = Mapping::read(&map_path, builder.text(&map_path)?, &["parameters"])?.closed(&besides);
    let fields = |file: &str, text: &str| FieldsRest::new(file, &yaml::read(file, text)?, &map, &besides);
    let asked = |found: &Found<'_>| {
        let file: QueryFieldsFile = yaml::read(&found.path, found.text)?;
        FieldsRest::new(&found.path, &file.request(builder, found)?, &map, &besides)
    };
    let fields = builder.method_or_query(&at("fields"), &fields, &asked)?;
    check_lists(&path, &pull)?;
    check_topic(&path, &file, templated)?;
    check_members(&map_path, &file.topic.value, &map)?;
    let mut made = Collection {
        key: key.to_owned(),
        name: file.name,
        topic: file.topic.value,
        detects: said.detects,
        cursor,
        poll: Poll { interval: said.poll.interval.map(|s| s.0), full_scan_interval: said.poll.full_scan.map(|s| s.0) },
        ignored_fields: file.ignored_fields,
        webhook_body: file.webhook_body,
        each: file.each.as_ref().map(|each| Each::new(&path, each, &["parameters"])).transpose()?,
        request_time: said.cursor.format.unwrap_or_else(|| record.time().clone()),
        object: file.object,
        values: Own::default(),
        joins: file.joins.iter().map(|join| Join::new(&path, join, &record)).collect::<Result<_, _>>()?,
        bulk: bulk::collection(builder, &dir)?,
        ties: a_list("ties")?,
        touched: a_list("touched")?,
        scan: a_list("scan")?,
        deleted,
        fetch: match builder.method_or_query(&at("fetch"), &fetch, &|found| graphql::fetch(builder, found))? {
            Method::Rest(fetch) if fetch.has_no_path() => Method::NotSupported("no path is set".to_owned()),
            fetch => fetch,
        },
        pull,
        fields,
        map,
        record,
    };
    let (used, has_script) = (made.names(values::NAME), made.has_script());
    made.values = Own::new(&path, &file.values, &shared.values, &used, has_script)?;
    Ok(made)
}

fn cursor(file: &CursorFile, record: &RecordSpec, pull: &Method<ListRest>) -> Cursor {
    let (bounded, takes_until) = match pull {
        Method::Rest(list) => (list.is_bounded(), list.takes_until),
        Method::Script(_) => (true, true),
        Method::Map(_) | Method::NotSupported(_) | Method::Missing => (false, false),
    };
    Cursor {
        incremental: bounded && record.has_updated_at,
        order: file.order,
        precision: file.precision.map_or(std::time::Duration::from_millis(1), |s| s.0),
        lookback: file.lookback.map_or(std::time::Duration::ZERO, |s| s.0),
        ceiling: file.ceiling,
        breaks_ties: file.breaks_ties,
        takes_until,
        until_exclusive: file.until_exclusive,
    }
}

/// What a list of changed records may not be.
fn check_lists(path: &str, pull: &Method<ListRest>) -> Result<(), SpecError> {
    let Method::Rest(list) = pull else { return Ok(()) };
    let file = path.replace("spec.yml", "pull.rest.yml");
    let wrong = |field: &str, message: &str| Err(SpecError::in_file(file.clone(), message).field(field));
    if list.ids_only {
        return wrong("idsOnly", "it is for scan; changed records that must be fetched are `partial: true`");
    }
    if list.fetches && list.unwinds() {
        return wrong("fetch", "parts of records cannot be fetched by themselves");
    }
    Ok(())
}

fn check_topic(path: &str, file: &CollectionFile, templated: bool) -> Result<(), SpecError> {
    let text = file.topic.value.as_str();
    if Catalogue::embedded().data(text).is_some() || (templated && topic::custom(text).is_ok()) {
        return Ok(());
    }
    let all: Vec<&str> =
        Catalogue::embedded().models().iter().filter(|m| !m.system).map(|m| m.topic.as_str()).collect();
    let near = topic::near(text, &all);
    let hint = if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) };
    let line = file.topic.referenced.line();
    Err(SpecError::in_file(path, format!("unknown topic {text:?}{hint}")).at(line).field("topic"))
}

/// A mapped field that the model does not have would be dropped silently.
fn check_members(path: &str, topic: &str, map: &Mapping) -> Result<(), SpecError> {
    let Some(model) = Catalogue::embedded().data(topic) else { return Ok(()) };
    let known = model.schema.get("properties").and_then(serde_json::Value::as_object);
    let unknown = map.members().into_iter().find(|name| known.is_some_and(|known| !known.contains_key(*name)));
    match unknown {
        None => Ok(()),
        Some(name) => Err(SpecError::in_file(
            path,
            format!("the model {topic} has no such field; put the app's own fields under customFields"),
        )
        .field(name)),
    }
}

/// `webhook/spec.yml`.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookFile {
    name: String,
    instructions: Option<Instructions>,
    #[serde(default)]
    needs: Vec<String>,
    verify: Option<verify::Spec>,
    handshake: Option<Handshake>,
    deadline: Option<Span>,
    lifetime: Option<Span>,
    #[serde(default)]
    redact: Vec<String>,
}

/// `webhook/`.
pub fn own_webhook(builder: &Builder<'_>) -> Result<Option<OwnWebhook>, SpecError> {
    const PATH: &str = "webhook/spec.yml";
    if !builder.folder.has(PATH) {
        return Ok(None);
    }
    let file: WebhookFile = builder.yaml(PATH)?;
    check_verify(PATH, file.verify.as_ref())?;
    check_handshake(PATH, file.handshake.as_ref())?;
    let handle = builder.method("webhook/handle", None, Some(WEBHOOK_VARIABLES))?;
    if !handle.is_there() {
        return Err(SpecError::in_file("webhook/handle.js", "the file is missing (or webhook/handle.map.yml)"));
    }
    Ok(Some(OwnWebhook {
        name: file.name,
        verify: file.verify,
        handshake: file.handshake,
        deadline: file.deadline.map(|s| s.0),
        lifetime: file.lifetime.map(|s| s.0),
        instructions: file.instructions,
        needs: file.needs,
        redact: file.redact,
        handle,
        life: Life::read(builder, "webhook")?,
    }))
}

fn check_verify(path: &str, verify: Option<&verify::Spec>) -> Result<(), SpecError> {
    match verify.and_then(verify::Spec::fault) {
        None => Ok(()),
        Some((field, message)) => Err(SpecError::in_file(path, message).field(format!("verify.{field}"))),
    }
}

fn check_handshake(path: &str, handshake: Option<&Handshake>) -> Result<(), SpecError> {
    match handshake.and_then(Handshake::fault) {
        None => Ok(()),
        Some((field, message)) => Err(SpecError::in_file(path, message).field(format!("handshake.{field}"))),
    }
}

/// `methods:` of global webhooks and events, as the contract has it; the file's suffix says the same.
#[derive(Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Methods {
    handle: Option<Implementation>,
    #[serde(rename = "get-event-selector")]
    get_event_selector: Option<Implementation>,
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Implementation {
    implementation_type: ImplementationType,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ImplementationType {
    Javascript,
    Mapping,
}

fn agrees<R>(path: &str, said: Option<&Implementation>, method: &Method<R>, name: &str) -> Result<(), SpecError> {
    let wanted = said.map_or(ImplementationType::Javascript, |said| said.implementation_type);
    let (fits, suffix) = match wanted {
        ImplementationType::Javascript => (matches!(method, Method::Script(_)), "js"),
        ImplementationType::Mapping => (matches!(method, Method::Map(_)), "map.yml"),
    };
    if fits || (said.is_none() && method.is_there()) {
        return Ok(());
    }
    let dir = path.trim_end_matches("spec.yml");
    Err(SpecError::in_file(path, format!("the file {dir}{name}.{suffix} is missing")).field(format!("methods.{name}")))
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GlobalWebhookFile {
    name: String,
    key: String,
    description: Option<String>,
    instructions: Option<Instructions>,
    #[serde(default)]
    methods: Methods,
    verify: Option<verify::Spec>,
    handshake: Option<Handshake>,
    deadline: Option<Span>,
    /// What can be read in place of being pushed.
    journal: Option<JournalFile>,
}

/// `global-webhooks/*`.
pub fn global_webhooks(builder: &Builder<'_>) -> Result<Vec<GlobalWebhook>, SpecError> {
    let mut all = Vec::new();
    for key in builder.folder.children("global-webhooks") {
        let path = format!("global-webhooks/{key}/spec.yml");
        let file: GlobalWebhookFile = builder.yaml(&path)?;
        same_key(&path, &file.key, key)?;
        check_verify(&path, file.verify.as_ref())?;
        check_handshake(&path, file.handshake.as_ref())?;
        let handle = builder.method(&format!("global-webhooks/{key}/handle"), None, Some(WEBHOOK_VARIABLES))?;
        agrees(&path, file.methods.handle.as_ref(), &handle, "handle")?;
        let deadline = file.deadline.map(|s| s.0);
        let (key, name, description) = (file.key, file.name, file.description);
        let (instructions, verify, handshake) = (file.instructions, file.verify, file.handshake);
        let journal = journal::compile(builder, &format!("global-webhooks/{key}"), &name, file.journal)?;
        all.push(GlobalWebhook { key, name, description, instructions, verify, handshake, deadline, journal, handle });
    }
    Ok(all)
}

fn same_key(path: &str, key: &str, folder: &str) -> Result<(), SpecError> {
    match key == folder {
        true => Ok(()),
        false => {
            Err(SpecError::in_file(path, format!("the key {key:?} is not the folder's name {folder:?}")).field("key"))
        }
    }
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct EventFile {
    name: String,
    key: String,
    description: Option<String>,
    #[serde(rename = "implementationType")]
    _implementation_type: EventType,
    #[serde(default)]
    methods: Methods,
    #[serde(default)]
    parameters_schema: Schema,
    #[serde(default)]
    default: bool,
    #[schemars(with = "Option<super::schemas::Expression>")]
    collection: Option<Placed>,
    #[serde(rename = "type")]
    #[schemars(with = "Option<super::schemas::Expression>")]
    kind: Option<Placed>,
    #[schemars(with = "Option<super::schemas::Expression>")]
    record: Option<Placed>,
    #[schemars(with = "Option<super::schemas::Expression>")]
    id: Option<Placed>,
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum EventType {
    GlobalWebhook,
}

/// `events/*`.
pub fn events(builder: &Builder<'_>) -> Result<Vec<ConnectorEvent>, SpecError> {
    builder.folder.children("events").into_iter().map(|key| event(builder, key)).collect()
}

fn event(builder: &Builder<'_>, key: &str) -> Result<ConnectorEvent, SpecError> {
    let path = format!("events/{key}/spec.yml");
    let file: EventFile = builder.yaml(&path)?;
    same_key(&path, &file.key, key)?;
    let method = format!("events/{key}/get-event-selector");
    let selector = builder.method(&method, None, Some(&["parameters", "connection"]))?;
    agrees(&path, file.methods.get_event_selector.as_ref(), &selector, "get-event-selector")?;
    let expression =
        |part: &Option<Placed>| part.as_ref().map(|part| Mapping::compile(&path, part, &["parameters"])).transpose();
    let (kind, record, id) = (expression(&file.kind)?, expression(&file.record)?, expression(&file.id)?);
    let wrong = |field: &str, message: &str| Err(SpecError::in_file(path.clone(), message).field(field));
    let of_all = matches!(&file.collection, Some(Placed { node: Node::Text(key), .. }) if key == EVERYTHING);
    match (&file.collection, record.is_some() || id.is_some()) {
        (Some(_), false) if !of_all => return wrong("record", "an event of a collection needs record or id"),
        (None, true) => return wrong("collection", "record and id need the collection they belong to"),
        _ => {}
    }
    if file.default && file.parameters_schema.check(&Parameters::new()).is_err() {
        return wrong("default", "an event that needs parameters cannot be switched on by itself");
    }
    let collection = match &file.collection {
        Some(Placed { node: Node::Text(key), .. }) if !key.starts_with('$') => Some(OfCollection::Key(key.clone())),
        told => expression(told)?.map(OfCollection::Told),
    };
    Ok(ConnectorEvent {
        key: file.key,
        name: file.name,
        description: file.description,
        parameters: file.parameters_schema,
        default: file.default,
        collection,
        kind,
        record,
        id,
        selector,
    })
}
