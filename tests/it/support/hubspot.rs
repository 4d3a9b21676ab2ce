//! HubSpot's API on loopback, as far as its guides and recorded answers tell (CRM search, objects, properties,
//! associations, owners, pipelines, account info, OAuth, webhooks), traps included.
//!
//! Always true: values are texts or null, of properties that were asked for and that the portal has; a search shows one
//! order, no archived record, nothing past 10,000, and what its index knows: nothing of what changed since
//! [`HubSpot::lag`]; offsets are its `after`, a list's `after` means nothing to others; a token may end between two pages.
//! It keeps what tests put into it, and ends with its test.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use actix_web::http::Method;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tidemill::domain::time::Millis;

use super::hubspot_journal::Journal;

/// The client that may ask for tokens.
pub const CLIENT: (&str, &str) = ("hub-client-id", "hub-client-secret");
/// Offsets go no further (CRM search guide).
const CEILING: usize = 10_000;

/// One record of a portal.
#[derive(Clone, Debug)]
struct Record {
    properties: BTreeMap<String, String>,
    created: u64,
    updated: u64,
    archived: Option<u64>,
}

type Key = (u64, String, u64);

#[derive(Default)]
struct World {
    /// By (portal, object, id).
    records: BTreeMap<Key, Record>,
    /// What the search index knows, while it lags.
    index: Option<BTreeMap<Key, Record>>,
    /// Ids that were merged away, and the records they lead to.
    merged: BTreeMap<Key, u64>,
    /// A portal's own properties, by object: name, label and type.
    own: BTreeMap<(u64, String), Vec<(String, String, String)>>,
    /// (portal, object, id, other object) → ids.
    associations: BTreeMap<(u64, String, u64, String), Vec<u64>>,
    /// Objects that no token may see associations to.
    hidden: BTreeSet<String>,
    owners: Vec<Value>,
    pipelines: Vec<Value>,
    /// Access token → portal.
    access: BTreeMap<String, u64>,
    /// Calls that the access tokens of the moment are still good for.
    access_left: Option<u32>,
    refresh: BTreeMap<String, u64>,
    revoked: BTreeSet<String>,
    refuses_refresh: bool,
    issued: u32,
    now: u64,
    next_id: u64,
    /// Status, body and headers of the next answers.
    faults: VecDeque<(u16, Value, Vec<(&'static str, String)>)>,
    calls: Vec<String>,
    /// The lower bounds that searches asked for.
    searched: Vec<u64>,
    /// The search of that number is never answered.
    hangs_at: Option<usize>,
    journal: Journal,
}

/// See the module.
#[derive(Clone)]
pub struct HubSpot {
    world: Arc<Mutex<World>>,
    pub url: String,
}

impl HubSpot {
    /// Starts one with two portals, 111 and 222, each with a private app's token `pat-<portal>`.
    pub fn start() -> Self {
        let mut world = World { now: 1_790_000_000_000, next_id: 30_000_000_000, ..World::default() };
        for portal in [111, 222] {
            world.access.insert(format!("pat-{portal}"), portal);
        }
        world.owners = vec![json!({"id": "52550153", "userId": 12282590, "email": "rep@example.com", "type": "PERSON",
            "firstName": "Rita", "lastName": "Rep", "createdAt": "2026-01-02T03:04:05.678Z",
            "updatedAt": "2026-01-02T03:04:05.678Z", "archived": false})];
        world.pipelines = vec![pipeline()];
        let world = Arc::new(Mutex::new(world));
        let shared = web::Data::from(world.clone());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(shared.clone())
                .app_data(web::PayloadConfig::new(1 << 20))
                .default_service(web::route().to(answer))
        });
        let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).expect("a free port");
        let url = format!("http://{}", server.addrs()[0]);
        actix_rt::spawn(server.run());
        Self { world, url }
    }

    /// The app's webhooks journal, to be looked at and changed.
    pub fn journal<T>(&self, look: impl FnOnce(&mut Journal) -> T) -> T {
        look(&mut self.world().journal)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("not poisoned")
    }

    /// A record made now; its id.
    pub fn make(&self, portal: u64, object: &str, properties: &[(&str, &str)]) -> u64 {
        let mut world = self.world();
        world.next_id += 1;
        let id = world.next_id;
        world.now += 1_000;
        let now = world.now;
        world.put(portal, object, id, properties, now);
        id
    }

    /// So many records, all of one moment.
    pub fn import(&self, portal: u64, object: &str, count: u64) -> Vec<u64> {
        let mut world = self.world();
        world.now += 1_000;
        let now = world.now;
        let first = world.next_id + 1;
        world.next_id += count;
        let name = if object == "contacts" { "firstname" } else { "name" };
        let ids: Vec<u64> = (first..first + count).collect();
        ids.iter().for_each(|id| world.put(portal, object, *id, &[(name, &format!("n{id}"))], now));
        ids
    }

    /// Changes a record now.
    pub fn change(&self, portal: u64, object: &str, id: u64, properties: &[(&str, &str)]) {
        let mut world = self.world();
        world.now += 1_000;
        let now = world.now;
        let record = world.records.get_mut(&(portal, object.to_owned(), id)).expect("a record");
        record.updated = now;
        record.properties.extend(properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    }

    /// Archives a record.
    pub fn archive(&self, portal: u64, object: &str, id: u64) {
        let mut world = self.world();
        world.now += 1_000;
        let now = world.now;
        world.records.get_mut(&(portal, object.to_owned(), id)).expect("a record").archived = Some(now);
    }

    /// Takes a record out of the archive.
    pub fn restore(&self, portal: u64, object: &str, id: u64) {
        let mut world = self.world();
        world.now += 1_000;
        let now = world.now;
        let record = world.records.get_mut(&(portal, object.to_owned(), id)).expect("a record");
        (record.archived, record.updated) = (None, now);
    }

    /// Deletes a record for ever, as for a person's privacy: no list shows it.
    pub fn erase(&self, portal: u64, object: &str, id: u64) {
        self.world().records.remove(&(portal, object.to_owned(), id)).expect("a record");
    }

    /// Merges a record into another: it is gone from lists, and its id leads to the other.
    pub fn merge(&self, portal: u64, object: &str, loser: u64, winner: u64) {
        self.erase(portal, object, loser);
        self.world().merged.insert((portal, object.to_owned(), loser), winner);
    }

    /// Changes the pipelines of deals, in every portal.
    pub fn pipelines(&self, change: impl FnOnce(&mut Vec<Value>)) {
        change(&mut self.world().pipelines);
    }

    /// Changes the owners, in every portal.
    pub fn owners(&self, change: impl FnOnce(&mut Vec<Value>)) {
        change(&mut self.world().owners);
    }

    /// Makes a property of the portal's own.
    pub fn define(&self, portal: u64, object: &str, name: &str, label: &str) {
        let own = (name.to_owned(), label.to_owned(), "string".to_owned());
        self.world().own.entry((portal, object.to_owned())).or_default().push(own);
    }

    /// Ties a record to another; the record itself does not change.
    pub fn associate(&self, portal: u64, from: (&str, u64), to: (&str, u64)) {
        let key = (portal, from.0.to_owned(), from.1, to.0.to_owned());
        self.world().associations.entry(key).or_default().push(to.1);
    }

    /// No token may see associations to such objects any more.
    pub fn hide(&self, object: &str) {
        self.world().hidden.insert(object.to_owned());
    }

    /// From now on the search index learns nothing, until [`Self::catch_up`].
    pub fn lag(&self) {
        let mut world = self.world();
        world.index = Some(world.records.clone());
    }

    pub fn catch_up(&self) {
        self.world().index = None;
    }

    /// A pair of tokens, as a person's consent gives them.
    pub fn tokens(&self, portal: u64) -> (String, String) {
        let answer = self.world().issue(portal);
        let text = |name: &str| answer[name].as_str().expect("a token").to_owned();
        (text("access_token"), text("refresh_token"))
    }

    /// The access tokens end after so many more calls.
    pub fn expire_after(&self, calls: u32) {
        self.world().access_left = Some(calls);
    }

    pub fn refuse_refresh(&self) {
        self.world().refuses_refresh = true;
    }

    /// Answers to come next.
    pub fn fail(&self, status: u16, body: Value, headers: Vec<(&'static str, String)>) {
        self.world().faults.push_back((status, body, headers));
    }

    /// The calls so far that begin so, such as `GET /crm/v3/objects/contacts/`.
    pub fn calls(&self, prefix: &str) -> usize {
        self.world().calls.iter().filter(|call| call.starts_with(prefix)).count()
    }

    /// From now on the search of that number (from 1, of all) is never answered; `None`: all are.
    pub fn hang_at(&self, search: Option<usize>) {
        self.world().hangs_at = search;
    }

    /// The lower bounds (milliseconds) of all searches so far, in their order.
    pub fn searched(&self) -> Vec<u64> {
        self.world().searched.clone()
    }

    pub fn is_revoked(&self, token: &str) -> bool {
        self.world().revoked.contains(token)
    }
}

/// A webhook's signature, version 3, over the address that the app was given (webhooks guide, "Validating requests").
pub fn sign(secret: &str, uri: &str, body: &str, timestamp: Millis) -> String {
    let decoded = [
        ("%3A", ":"),
        ("%2F", "/"),
        ("%3F", "?"),
        ("%40", "@"),
        ("%21", "!"),
        ("%24", "$"),
        ("%27", "'"),
        ("%28", "("),
        ("%29", ")"),
        ("%2A", "*"),
        ("%2C", ","),
        ("%3B", ";"),
    ];
    let uri = decoded.iter().fold(uri.to_owned(), |uri, (from, to)| uri.replace(from, to));
    let text = format!("POST{uri}{body}{}", timestamp.0);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    STANDARD.encode(hmac::sign(&key, text.as_bytes()))
}

/// One item of a webhook.
pub fn hint(portal: u64, kind: &str, id: u64, more: Value) -> Value {
    let mut item = json!({"eventId": 100, "subscriptionId": 138, "portalId": portal, "appId": 4242,
        "occurredAt": 1_790_000_000_000_u64, "subscriptionType": kind, "attemptNumber": 0, "objectId": id,
        "changeSource": "CRM_UI", "sourceId": "userId:1"});
    item.as_object_mut().expect("a map").extend(more.as_object().cloned().unwrap_or_default());
    item
}

/// A stage, as old as the app's own.
pub fn stage(id: &str, label: &str, order: u32, probability: &str, closed: &str) -> Value {
    json!({"id": id, "label": label, "displayOrder": order, "archived": false,
        "metadata": {"isClosed": closed, "probability": probability},
        "createdAt": "1970-01-01T00:00:00Z", "updatedAt": "1970-01-01T00:00:00Z"})
}

fn pipeline() -> Value {
    json!({"id": "default", "label": "Sales Pipeline", "displayOrder": 0, "archived": false,
    "createdAt": "1970-01-01T00:00:00Z", "updatedAt": "1970-01-01T00:00:00Z", "stages": [
        stage("appointmentscheduled", "Appointment Scheduled", 0, "0.2", "false"),
        stage("closedwon", "Closed Won", 1, "1.0", "true"),
        stage("closedlost", "Closed Lost", 2, "0.0", "true"),
    ]})
}

fn iso(at: u64) -> String {
    Millis(at).rfc3339_millis()
}

/// The property that moves with each change, and the one of the creation.
fn stamps(object: &str) -> (&'static str, &'static str) {
    match object {
        "contacts" => ("lastmodifieddate", "createdate"),
        "leads" | "notes" | "tasks" | "orders" => ("hs_lastmodifieddate", "hs_createdate"),
        _ => ("hs_lastmodifieddate", "createdate"),
    }
}

/// HubSpot's own properties of an object, as far as anybody here asks for them (properties guide).
fn standard(object: &str) -> &'static str {
    match object {
        "companies" => {
            "name hubspot_owner_id description industry website domain numberofemployees address address2 city state zip \
             country phone notes_last_updated lifecyclestage annualrevenue type about_us"
        }
        "contacts" => {
            "firstname lastname email hs_additional_emails phone mobilephone associatedcompanyid company address city state \
             zip country notes_last_updated jobtitle website lifecyclestage hs_lead_status hubspot_owner_id salutation"
        }
        "deals" => {
            "dealname dealstage hs_is_closed_won hs_is_closed description amount deal_currency_code \
             hs_deal_stage_probability closedate hubspot_owner_id hs_primary_associated_company notes_last_updated pipeline \
             dealtype hs_forecast_amount"
        }
        "leads" => {
            "hs_lead_name hs_associated_contact_firstname hs_associated_contact_lastname hs_associated_company_name \
             hs_pipeline_stage hubspot_owner_id notes_last_updated hs_lead_label hs_lead_type hs_pipeline"
        }
        "notes" => "hs_note_body hubspot_owner_id hs_timestamp hs_attachment_ids",
        "tasks" => {
            "hs_task_subject hs_task_body hs_task_status hs_task_priority hs_timestamp hs_task_completion_date \
             hubspot_owner_id hs_task_type"
        }
        "orders" => "hs_order_name hs_total_price hs_currency_code hs_external_order_status hs_subtotal_price",
        "products" => "name description hs_product_type hs_url hs_images hs_sku price hs_cost_of_goods_sold",
        _ => "",
    }
}

impl World {
    /// `GET /crm/v3/properties/{object}`: all at once, in an order of their own.
    fn properties(&self, portal: u64, object: &str) -> Value {
        let (modified, created) = stamps(object);
        let ours = standard(object).split(' ').chain([modified, created, "hs_object_id"]);
        let ours = ours.filter(|name| !name.is_empty()).map(|name| {
            json!({"name": name, "label": name, "type": "string", "fieldType": "text", "hubspotDefined": true,
                "hidden": false, "archived": false})
        });
        let own = self.own.get(&(portal, object.to_owned())).into_iter().flatten().map(|(name, label, kind)| {
            json!({"name": name, "label": label, "type": kind, "fieldType": "text", "hidden": false, "archived": false})
        });
        let mut all: Vec<Value> = own.chain(ours).collect();
        all.reverse();
        json!({ "results": all })
    }

    /// Of what was asked for, what the object has: the API says nothing of other names.
    fn known(&self, portal: u64, object: &str, wanted: Vec<String>) -> Vec<String> {
        let own = self.own.get(&(portal, object.to_owned()));
        let has = |name: &str| {
            standard(object).split(' ').any(|known| known == name)
                || own.is_some_and(|own| own.iter().any(|(known, ..)| known == name))
        };
        wanted.into_iter().filter(|name| has(name)).collect()
    }

    /// `POST /crm/v4/associations/{from}/{to}/batch/read`: at most 1,000 ids; those without any are errors in a 207.
    fn associated(&self, portal: u64, from: &str, to: &str, body: &Value) -> (u16, Value) {
        let ids: Vec<&str> =
            body["inputs"].as_array().into_iter().flatten().filter_map(|input| input["id"].as_str()).collect();
        if ids.is_empty() || ids.len() > 1_000 {
            return refusal(400, "inputs: between 1 and 1,000 ids", "VALIDATION_ERROR");
        }
        if self.hidden.contains(to) {
            return refusal(403, "This app hasn't been granted all required scopes", "MISSING_SCOPES");
        }
        let (mut results, mut errors) = (Vec::new(), Vec::new());
        for id in ids {
            let key = (portal, from.to_owned(), id.parse().unwrap_or(0), to.to_owned());
            match self.associations.get(&key) {
                Some(others) => {
                    let kinds = json!([{"category": "HUBSPOT_DEFINED", "typeId": 1, "label": null}]);
                    let shown = others.iter().map(|other| json!({"toObjectId": other, "associationTypes": kinds}));
                    results.push(json!({"from": {"id": id}, "to": shown.collect::<Vec<_>>()}));
                }
                None => errors.push(json!({"status": "error", "category": "OBJECT_NOT_FOUND",
                    "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND", "context": {"fromObjectId": [id]}})),
            }
        }
        let mut answer = json!({"status": "COMPLETE", "results": results});
        if errors.is_empty() {
            return (200, answer);
        }
        answer["numErrors"] = errors.len().into();
        answer["errors"] = errors.into();
        (207, answer)
    }

    fn put(&mut self, portal: u64, object: &str, id: u64, properties: &[(&str, &str)], now: u64) {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let record = Record { properties: properties.collect(), created: now, updated: now, archived: None };
        self.records.insert((portal, object.to_owned(), id), record);
    }

    fn issue(&mut self, portal: u64) -> Value {
        self.issued += 1;
        // Tokens of about 300 characters, which the app may make longer.
        let access = format!("at-{portal}-{}-{}", self.issued, "x".repeat(280));
        let refresh = format!("rt-{portal}-{}", self.issued);
        self.access.insert(access.clone(), portal);
        self.refresh.insert(refresh.clone(), portal);
        self.access_left = None;
        json!({"access_token": access, "refresh_token": refresh, "expires_in": 1800, "token_type": "bearer",
            "hub_id": portal, "user_id": 1, "scopes": ["oauth"], "token_use": "access_token"})
    }

    fn show(record: &Record, object: &str, id: u64, wanted: &[String]) -> Value {
        let (modified, created) = stamps(object);
        let mut properties = Map::new();
        for name in wanted {
            properties.insert(name.clone(), record.properties.get(name).map_or(Value::Null, |v| v.as_str().into()));
        }
        properties.insert("hs_object_id".to_owned(), id.to_string().into());
        properties.insert(created.to_owned(), iso(record.created).into());
        properties.insert(modified.to_owned(), iso(record.updated).into());
        let mut shown = json!({"id": id.to_string(), "properties": properties, "createdAt": iso(record.created),
            "updatedAt": iso(record.updated), "archived": record.archived.is_some()});
        if let Some(at) = record.archived {
            shown["archivedAt"] = iso(at).into();
        }
        shown
    }

    fn of<'w>(
        records: &'w BTreeMap<Key, Record>,
        portal: u64,
        object: &'w str,
    ) -> impl Iterator<Item = (u64, &'w Record)> {
        let mine = move |(key, _): &(&Key, &Record)| key.0 == portal && key.1 == object;
        records.iter().filter(mine).map(|(key, record)| (key.2, record))
    }

    fn search(&self, portal: u64, object: &str, wish: &Value) -> Result<Value, String> {
        let limit = wish["limit"].as_u64().unwrap_or(10) as usize;
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let after = match &wish["after"] {
            Value::Null => 0,
            after => text(after).parse::<usize>().map_err(|_| "after must be a number".to_owned())?,
        };
        let sorts = wish["sorts"].as_array().cloned().unwrap_or_default();
        let groups = wish["filterGroups"].as_array().cloned().unwrap_or_default();
        let filters: Vec<Value> =
            groups.iter().flat_map(|group| group["filters"].as_array().cloned().unwrap_or_default()).collect();
        if limit > 200 || after + limit > CEILING || sorts.len() > 1 || groups.len() > 5 || filters.len() > 18 {
            return Err(format!("limit {limit}, after {after}, {} sorts, {} filters", sorts.len(), filters.len()));
        }
        if filters.iter().any(|filter| !filter["value"].is_string()) {
            return Err("a filter's value must be a text".to_owned());
        }
        let known = self.index.as_ref().unwrap_or(&self.records);
        let mut found: Vec<(u64, &Record)> = Self::of(known, portal, object)
            .filter(|(id, record)| record.archived.is_none() && filters.iter().all(|f| fits(f, object, *id, record)))
            .collect();
        let by = sorts.first().and_then(|sort| sort["propertyName"].as_str()).unwrap_or("hs_object_id");
        // What is equal comes in an order of its own.
        found
            .sort_by_key(|(id, record)| (number(by, object, *id, record), id.wrapping_mul(2_654_435_761) % 9_973, *id));
        if sorts.first().is_some_and(|sort| sort["direction"] == "DESCENDING") {
            found.reverse();
        }
        let wanted: Vec<String> = serde_json::from_value(wish["properties"].clone()).unwrap_or_default();
        let wanted = self.known(portal, object, wanted);
        let page = found.iter().skip(after).take(limit);
        let results: Vec<Value> = page.map(|(id, record)| Self::show(record, object, *id, &wanted)).collect();
        let next = after + results.len();
        let mut answer = json!({"total": found.len(), "results": results});
        if next < found.len() {
            answer["paging"] = json!({"next": {"after": next.to_string(), "link": "https://api.hubapi.com/"}});
        }
        Ok(answer)
    }

    fn list(&self, portal: u64, object: &str, query: &BTreeMap<String, String>) -> Value {
        let limit = query.get("limit").and_then(|text| text.parse::<usize>().ok()).unwrap_or(10).min(100);
        let archived = query.get("archived").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let after = query.get("after").and_then(|text| u64::from_str_radix(text, 36).ok()).unwrap_or(0);
        let wanted = self.known(portal, object, wanted(query));
        let rest = Self::of(&self.records, portal, object)
            .filter(|(id, record)| *id > after && record.archived.is_some() == archived);
        let rest: Vec<(u64, &Record)> = rest.take(limit + 1).collect();
        let page = &rest[..rest.len().min(limit)];
        let results: Vec<Value> = page.iter().map(|(id, record)| Self::show(record, object, *id, &wanted)).collect();
        let mut answer = json!({ "results": results });
        if let (true, Some((last, _))) = (rest.len() > limit, page.last()) {
            answer["paging"] = json!({"next": {"after": base36(*last), "link": "https://api.hubapi.com/"}});
        }
        answer
    }

    fn one(&self, portal: u64, object: &str, id: u64, wanted: Vec<String>) -> Option<Value> {
        let wanted = self.known(portal, object, wanted);
        let key = (portal, object.to_owned(), id);
        let id = self.merged.get(&key).copied().unwrap_or(id);
        let record = self.records.get(&(portal, object.to_owned(), id)).filter(|record| record.archived.is_none())?;
        Some(Self::show(record, object, id, &wanted))
    }

    fn token(&mut self, form: &BTreeMap<String, String>) -> (u16, Value) {
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        let refused = |message: &str| {
            (
                400,
                json!({"error": "invalid_grant", "error_description": message,
            "status": "BAD_REFRESH_TOKEN", "message": message}),
            )
        };
        if (field("client_id"), field("client_secret")) != CLIENT {
            return refused("the client is not known");
        }
        let portal = match field("grant_type") {
            "authorization_code" => field("code").strip_prefix("code-").and_then(|portal| portal.parse().ok()),
            "refresh_token" if !self.refuses_refresh => self.refresh.get(field("refresh_token")).copied(),
            _ => None,
        };
        match portal {
            Some(portal) => (200, self.issue(portal)),
            None => refused("missing or unknown auth code or refresh token"),
        }
    }
}

fn base36(mut number: u64) -> String {
    let mut text = Vec::new();
    while number > 0 {
        text.push(char::from_digit((number % 36) as u32, 36).expect("a digit"));
        number /= 36;
    }
    text.into_iter().rev().collect()
}

fn wanted(query: &BTreeMap<String, String>) -> Vec<String> {
    query.get("properties").map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default()
}

/// A property as a number: times in milliseconds.
fn number(name: &str, object: &str, id: u64, record: &Record) -> u64 {
    let (modified, created) = stamps(object);
    match name {
        "hs_object_id" => id,
        name if name == modified => record.updated,
        name if name == created => record.created,
        name => record.properties.get(name).and_then(|text| text.parse().ok()).unwrap_or(0),
    }
}

fn fits(filter: &Value, object: &str, id: u64, record: &Record) -> bool {
    let has = number(filter["propertyName"].as_str().unwrap_or_default(), object, id, record);
    let Ok(value) = filter["value"].as_str().unwrap_or_default().parse::<u64>() else { return false };
    match filter["operator"].as_str() {
        Some("GTE") => has >= value,
        Some("LTE") => has <= value,
        Some("GT") => has > value,
        Some("LT") => has < value,
        Some("EQ") => has == value,
        _ => false,
    }
}

fn pairs(text: &[u8]) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

fn refusal(status: u16, message: &str, category: &str) -> (u16, Value) {
    let id = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";
    (status, json!({"status": "error", "message": message, "category": category, "correlationId": id}))
}

async fn answer(request: HttpRequest, body: web::Bytes, world: web::Data<Mutex<World>>) -> HttpResponse {
    let replied = reply(&request, &body, &mut world.lock().expect("not poisoned"));
    match replied {
        Some(response) => response,
        None => std::future::pending().await,
    }
}

/// None: it hangs.
fn reply(request: &HttpRequest, body: &[u8], world: &mut World) -> Option<HttpResponse> {
    let path = request.path().to_owned();
    world.calls.push(format!("{} {path}", request.method()));
    if let Some((status, body, headers)) = world.faults.pop_front() {
        let mut response = HttpResponse::build(status.try_into().expect("a status"));
        for header in headers {
            response.insert_header(header);
        }
        return Some(response.json(body));
    }
    if path.ends_with("/search") {
        let wish: Value = serde_json::from_slice(body).unwrap_or_default();
        let bound = wish["filterGroups"][0]["filters"][0]["value"].as_str().and_then(|text| text.parse().ok());
        world.searched.push(bound.unwrap_or(0));
        if world.hangs_at == Some(world.searched.len()) {
            return None;
        }
    }
    let query = pairs(request.query_string().as_bytes());
    if let Some(response) = world.journal.answer(request, body) {
        return Some(response);
    }
    if path == "/oauth/authorize" {
        // The person allows it at once, for the portal in the `account` that a test adds.
        let back = query.get("redirect_uri").map_or("", String::as_str);
        let state = query.get("state").map_or("", String::as_str);
        let location = format!("{back}?code=code-111&state={state}");
        return Some(HttpResponse::Found().insert_header(("location", location)).finish());
    }
    let (status, answer) = route(world, request.method(), &path, &query, body, bearer(request));
    let mut response = HttpResponse::build(status.try_into().expect("a status"));
    response.insert_header(("x-hubspot-correlation-id", "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"));
    if !path.ends_with("/search") {
        let limits = [("max", 110), ("remaining", 100), ("interval-milliseconds", 10_000), ("secondly", 11)];
        for (name, count) in limits {
            response.insert_header((format!("x-hubspot-ratelimit-{name}"), count));
        }
    }
    Some(if status == 204 { response.finish() } else { response.json(answer) })
}

fn bearer(request: &HttpRequest) -> String {
    let header = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    header.strip_prefix("Bearer ").unwrap_or_default().to_owned()
}

fn route(
    world: &mut World,
    method: &Method,
    path: &str,
    query: &BTreeMap<String, String>,
    body: &[u8],
    token: String,
) -> (u16, Value) {
    match path {
        "/oauth/v3/token" => return world.token(&pairs(body)),
        "/oauth/v3/token/revoke" => {
            world.revoked.insert(pairs(body).remove("token").unwrap_or_default());
            return (204, Value::Null);
        }
        _ => {}
    }
    let spent = world.access_left.as_mut().is_some_and(|left| {
        let over = *left == 0;
        *left = left.saturating_sub(1);
        over
    });
    let portal = world.access.get(&token).copied().filter(|_| !spent || token.starts_with("pat-"));
    let Some(portal) = portal else {
        return refusal(401, "The OAuth token used to make this call expired", "EXPIRED_AUTHENTICATION");
    };
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    // Version 3, and the date-based paths of the same shapes.
    let rest = match parts.as_slice() {
        ["account-info", "v3", "details"] => {
            let details = json!({"portalId": portal, "timeZone": "US/Eastern", "uiDomain": "app.hubspot.com",
                "accountType": "STANDARD", "dataHostingLocation": "na1"});
            return (200, details);
        }
        ["crm", "v3", "owners"] => {
            let archived = query.get("archived").is_some_and(|text| text.eq_ignore_ascii_case("true"));
            let owners: Vec<&Value> = world.owners.iter().filter(|owner| owner["archived"] == archived).collect();
            return (200, json!({ "results": owners }));
        }
        ["crm", "v3", "pipelines", "deals"] => return (200, json!({"results": world.pipelines})),
        ["crm", "v3", "properties", object] => return (200, world.properties(portal, object)),
        ["crm", "v4", "associations", from, to, "batch", "read"] => {
            return world.associated(portal, from, to, &serde_json::from_slice(body).unwrap_or_default());
        }
        ["crm", "v3", "objects", rest @ ..] | ["crm", "objects", "2026-03", rest @ ..] => rest,
        _ => return refusal(404, "there is nothing here", "OBJECT_NOT_FOUND"),
    };
    match (method.as_str(), rest) {
        ("POST", [object, "search"]) => {
            let wish: Value = serde_json::from_slice(body).unwrap_or_default();
            match world.search(portal, object, &wish) {
                Ok(answer) => (200, answer),
                Err(why) => refusal(400, &why, "VALIDATION_ERROR"),
            }
        }
        ("GET", [object]) => (200, world.list(portal, object, query)),
        ("GET", [object, id]) => match id.parse().ok().and_then(|id| world.one(portal, object, id, wanted(query))) {
            Some(record) => (200, record),
            None => refusal(404, "resource not found", "OBJECT_NOT_FOUND"),
        },
        _ => refusal(405, "not so", "METHOD_NOT_ALLOWED"),
    }
}
