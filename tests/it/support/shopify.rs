//! A stand-in for one Shopify shop: OAuth, the GraphQL Admin API and webhooks, as `facts/apps.md` has them, traps included.
//!
//! Always true: an unquoted time in a filter loses what stands behind its first colon, so that the filter is none; `>` acts
//! as `>=`; errors come with status 200; a query that is too dear is refused; the same topic and address twice is refused; a
//! subscription is dropped after eight failures in a row. Not here: the node; who sends a webhook (the test does).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tidemill::clock::Clock;

use super::bulk::{self, Bulks};
use super::graphql::{Field, parse};

pub const CLIENT_ID: &str = "shop-client";
pub const CLIENT_SECRET: &str = "shpss_a-client-secret";
pub const SHOP: &str = "tide-shop.myshopify.com";
/// The permanent token of an app that was made in the admin.
pub const PERMANENT: &str = "shpat_permanent";
const FAILURES_MAX: u32 = 8;

/// What the shop holds; tests change it directly.
pub struct World {
    clock: Clock,
    /// Records by root field and id, in the shape of the API.
    pub records: BTreeMap<&'static str, BTreeMap<u64, Value>>,
    /// Keys and ids in the order that a list was asked for, until something changes.
    sorted: BTreeMap<(String, &'static str), Vec<(String, u64)>>,
    /// How deep a list may be walked by its cursors, and how often it was asked for more.
    pub depth_max: Option<usize>,
    pub too_deep: u32,
    /// Access tokens, and when each ends.
    pub tokens: BTreeMap<String, u64>,
    refresh_tokens: BTreeSet<String>,
    /// Codes, and the challenge that each was asked for with.
    codes: BTreeMap<String, String>,
    pub subscriptions: Vec<Subscription>,
    /// Of metafields, as the API shows them.
    pub definitions: Vec<Value>,
    /// Root fields that the token's scopes do not open.
    pub denied: BTreeSet<&'static str>,
    /// Points left, and the most that one query may cost.
    pub available: f64,
    pub max_cost: u64,
    /// Every query with its variables, and what it was judged to cost.
    pub asked: Vec<(String, Value)>,
    pub costs: Vec<(String, u64)>,
    /// Every form that came to the token address.
    pub forms: Vec<BTreeMap<String, String>>,
    pub installed: bool,
    pub bulks: Bulks,
    next: u64,
}

#[derive(Clone, Debug)]
pub struct Subscription {
    pub id: String,
    pub topic: String,
    pub uri: String,
    failures: u32,
}

/// A webhook on its way.
pub struct Hook {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    subscription: String,
}

impl Hook {
    pub fn headers(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}

/// The running shop.
pub struct Shop {
    world: Arc<Mutex<World>>,
    pub url: String,
}

fn gid(kind: &str, id: u64) -> String {
    format!("gid://shopify/{kind}/{id}")
}

/// Lower-case hex, as redirects are signed.
pub fn signed(secret: &str, text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hex::encode(hmac::sign(&key, text.as_bytes()))
}

impl Shop {
    pub fn start(clock: Clock) -> Self {
        let world = World {
            clock,
            records: ["orders", "customers", "products", "events"].map(|name| (name, BTreeMap::new())).into(),
            sorted: BTreeMap::new(),
            depth_max: None,
            too_deep: 0,
            tokens: [(PERMANENT.to_owned(), u64::MAX)].into(),
            refresh_tokens: BTreeSet::new(),
            codes: BTreeMap::new(),
            subscriptions: Vec::new(),
            definitions: Vec::new(),
            denied: BTreeSet::new(),
            available: 100_000.0,
            max_cost: 1_000,
            asked: Vec::new(),
            costs: Vec::new(),
            forms: Vec::new(),
            installed: true,
            bulks: Bulks::default(),
            next: 1,
        };
        let world = Arc::new(Mutex::new(world));
        let data = web::Data::from(world.clone());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .route("/admin/oauth/authorize", web::get().to(authorize))
                .route("/admin/oauth/access_token", web::post().to(token))
                .route("/admin/api/{version}/graphql.json", web::post().to(graphql))
        });
        let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).expect("a free port");
        let url = format!("http://{}", server.addrs()[0]);
        actix_rt::spawn(server.run());
        let files = bulk::serve(&world);
        world.lock().expect("not poisoned").bulks.url = files;
        Self { world, url }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("not poisoned")
    }

    /// The webhooks of one action, signed, one per subscription of the topic.
    pub fn hooks(&self, topic: &str, event: &str, body: &Value) -> Vec<Hook> {
        let world = self.world();
        let wanted = topic.replace('/', "_").to_uppercase();
        let body = body.to_string();
        let to = |one: &Subscription| {
            let url = url::Url::parse(&one.uri).expect("a URL");
            hook(url.path(), topic, event, &body, CLIENT_SECRET, &one.id)
        };
        world.subscriptions.iter().filter(|one| one.topic == wanted).map(to).collect()
    }

    /// The same change as an Events delivery, whose headers are of the other family and whose body names the ids.
    pub fn event(&self, topic: &str, action: &str, id: u64) -> Hook {
        let world = self.world();
        let one = world.subscriptions.first().expect("a subscription");
        let name = format!("{}Id", topic.to_lowercase());
        let body = json!({"topic": topic, "action": action, "handle": "tide", "fields_changed": [],
            "query_variables": {name: gid(topic, id)}});
        let path = url::Url::parse(&one.uri).expect("a URL").path().to_owned();
        let mut hook = hook(&path, topic, "event", &body.to_string(), CLIENT_SECRET, &one.id);
        hook.headers.retain(|(name, _)| !name.starts_with("x-shopify-event"));
        for (name, _) in &mut hook.headers {
            *name = name.trim_start_matches("x-").to_owned();
        }
        hook.headers.push(("shopify-action".to_owned(), action.to_owned()));
        hook.headers.push(("shopify-handle".to_owned(), "tide".to_owned()));
        hook
    }

    /// How the receiver answered.
    pub fn answered(&self, hook: &Hook, status: u16) {
        let mut world = self.world();
        let Some(at) = world.subscriptions.iter().position(|one| one.id == hook.subscription) else { return };
        let one = &mut world.subscriptions[at];
        one.failures = if (200..300).contains(&status) { 0 } else { one.failures + 1 };
        if one.failures >= FAILURES_MAX {
            world.subscriptions.remove(at);
        }
    }
}

/// A webhook with the headers that all have.
pub fn hook(path: &str, topic: &str, event: &str, body: &str, secret: &str, subscription: &str) -> Hook {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = STANDARD.encode(hmac::sign(&key, body.as_bytes()));
    let headers = [
        ("content-type", "application/json"),
        ("x-shopify-topic", topic),
        ("x-shopify-hmac-sha256", &signature),
        ("x-shopify-shop-domain", SHOP),
        ("x-shopify-api-version", "2026-07"),
        ("x-shopify-webhook-id", &format!("b54557e4-{topic}-{event}")),
        ("x-shopify-event-id", event),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Hook { path: path.to_owned(), headers, body: body.to_owned(), subscription: subscription.to_owned() }
}

impl World {
    pub fn now(&self) -> String {
        self.clock.now().rfc3339_seconds()
    }
    /// Whether a code is one that was given, to whoever asked for it. It is good once.
    fn redeems(&mut self, form: &BTreeMap<String, String>) -> bool {
        let Some(challenge) = form.get("code").and_then(|code| self.codes.remove(code)) else { return false };
        let hash = |verifier: &String| URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
        form.get("code_verifier").map(hash).unwrap_or_default() == challenge
    }
    pub fn id(&mut self) -> u64 {
        self.next += 1;
        5_000_000_000 + self.next
    }
    fn put(&mut self, root: &'static str, id: u64, record: Value) -> u64 {
        self.sorted.clear();
        self.records.get_mut(root).expect("a root").insert(id, record);
        id
    }
    /// Merges fields into a record and moves its updatedAt.
    pub fn change(&mut self, root: &'static str, id: u64, fields: Value) {
        let now = self.now();
        self.sorted.clear();
        let record = self.records.get_mut(root).and_then(|all| all.get_mut(&id)).expect("a record");
        for (name, value) in fields.as_object().expect("fields") {
            record[name] = value.clone();
        }
        record["updatedAt"] = now.into();
    }
    /// Takes a record away; the events feed tells of products only.
    pub fn delete(&mut self, root: &'static str, id: u64) {
        self.sorted.clear();
        self.records.get_mut(root).expect("a root").remove(&id).expect("a record");
        if root == "products" {
            let (event, now) = (self.id(), self.now());
            for (event, kind) in [(event, "Product"), (event + 1, "ProductVariant")] {
                self.next += 1;
                let subject = kind.to_uppercase();
                let record = json!({"createdAt": now, "action": "destroy", "subjectType": subject,
                    "subjectId": gid(kind, id)});
                self.put("events", event, record);
            }
        }
    }
    pub fn order(&mut self, lines: usize) -> u64 {
        let (id, now) = (self.id(), self.now());
        let money = |amount: &str| json!({"shopMoney": {"amount": amount}});
        let line = |n: usize| {
            json!({"id": gid("LineItem", 700 + n as u64), "title": format!("Mug {n}"), "sku": format!("MUG-{n}"),
                "quantity": 1, "originalUnitPriceSet": money("14.90"), "totalDiscountSet": money("0.00"),
                "taxLines": [{"priceSet": money("2.48")}], "product": {"id": gid("Product", 11)},
                "variant": {"id": gid("ProductVariant", 12)}})
        };
        let lines: Vec<Value> = (0..lines).map(line).collect();
        let address = json!({"firstName": "Ada", "lastName": "Weiß", "company": null, "address1": "5 Mill Lane",
            "address2": null, "city": "Graz", "province": null, "zip": "8010", "countryCodeV2": "AT", "phone": null});
        let customer = json!({"id": gid("Customer", 21), "firstName": "Ada", "lastName": "Weiß",
            "defaultEmailAddress": {"emailAddress": "ada@example.com"}, "defaultPhoneNumber": null});
        let record = json!({"id": gid("Order", id), "name": format!("#{id}"), "createdAt": now, "updatedAt": now,
            "cancelledAt": null, "closedAt": null, "email": "ada@example.com", "phone": null, "note": null, "tags": [],
            "currencyCode": "EUR", "displayFinancialStatus": "PENDING", "displayFulfillmentStatus": "UNFULFILLED",
            "totalPriceSet": money("40.70"), "totalTaxSet": null, "totalShippingPriceSet": money("4.95"),
            "totalDiscountsSet": money("0.00"), "billingAddress": address, "shippingAddress": address,
            "customer": customer, "lineItems": lines, "fulfillments": [], "metafields": []});
        self.put("orders", id, record)
    }
    pub fn customer(&mut self) -> u64 {
        let (id, now) = (self.id(), self.now());
        let record = json!({"id": gid("Customer", id), "createdAt": now, "updatedAt": now, "firstName": "Ada",
            "lastName": "Weiß", "note": null, "state": "ENABLED", "tags": ["vip"],
            "amountSpent": {"currencyCode": "EUR"},
            "defaultEmailAddress": {"emailAddress": "ada@example.com", "marketingState": "SUBSCRIBED"},
            "defaultPhoneNumber": {"phoneNumber": "+43 1"}, "addressesV2": [], "metafields": []});
        self.put("customers", id, record)
    }
    /// So many customers of one second, some time ago.
    pub fn crowd(&mut self, count: usize) {
        let then = self.clock.now().before(std::time::Duration::from_secs(10)).rfc3339_seconds();
        for _ in 0..count {
            let id = self.customer();
            let record = self.records.get_mut("customers").and_then(|all| all.get_mut(&id)).expect("a record");
            (record["createdAt"], record["updatedAt"]) = (json!(then), json!(then));
        }
    }
    pub fn product(&mut self, variants: usize) -> u64 {
        let (id, now) = (self.id(), self.now());
        let variant = |n: usize| {
            json!({"id": gid("ProductVariant", 900 + n as u64), "title": format!("Size {n}"), "sku": format!("TEE-{n}"),
                "barcode": null, "price": "29.00", "compareAtPrice": null, "inventoryQuantity": 3,
                "selectedOptions": [{"name": "Size", "value": n.to_string()}],
                "inventoryItem": {"measurement": {"weight": {"value": 0.2, "unit": "KILOGRAMS"}}}, "metafields": []})
        };
        let variants: Vec<Value> = (0..variants).map(variant).collect();
        let record = json!({"id": gid("Product", id), "title": "Tee", "descriptionHtml": "<p>A tee</p>",
            "status": "ACTIVE", "productType": "Shirt", "vendor": "Mill", "handle": "tee", "tags": ["new"],
            "createdAt": now, "updatedAt": now, "media": [], "variants": variants, "metafields": []});
        self.put("products", id, record)
    }
    /// Changes a fulfillment, and with it its order.
    pub fn reship(&mut self, order: u64, fulfillment: u64, fields: Value) {
        let now = self.now();
        let mut all = self.records["orders"][&order]["fulfillments"].as_array().expect("a list").clone();
        let one = all.iter_mut().find(|one| one["id"] == gid("Fulfillment", fulfillment)).expect("the fulfillment");
        for (name, value) in fields.as_object().expect("fields") {
            one[name] = value.clone();
        }
        one["updatedAt"] = now.into();
        self.change("orders", order, json!({"fulfillments": all}));
    }
    /// Ships an order: the fulfillment is inside it, and the order's updatedAt moves.
    pub fn fulfillment(&mut self, order: u64, status: &str) -> u64 {
        let (id, now) = (self.id(), self.now());
        let shown = &self.records["orders"][&order];
        let lines: Vec<Value> = (shown["lineItems"].as_array().expect("lines").iter())
            .map(|line| json!({"quantity": 1, "lineItem": line}))
            .collect();
        let whole = json!({"id": gid("Fulfillment", id), "createdAt": now, "updatedAt": now, "status": status,
            "trackingInfo": [{"company": "Post", "number": "TRK1", "url": "https://post.example/TRK1"}],
            "order": {"id": gid("Order", order), "shippingAddress": shown["shippingAddress"]},
            "fulfillmentLineItems": lines});
        let mut all = shown["fulfillments"].as_array().expect("a list").clone();
        all.push(whole);
        self.change("orders", order, json!({"fulfillments": all, "displayFulfillmentStatus": "FULFILLED"}));
        id
    }

    /// Defines a metafield of that kind of record.
    pub fn define(&mut self, owner: &str, name: &str, kind: &str) {
        let (namespace, key) = name.split_once('.').expect("namespace.key");
        let label = key.replace('_', " ");
        let definition = json!({"ownerType": owner, "namespace": namespace, "key": key, "name": label,
            "type": {"name": kind}});
        self.definitions.push(definition);
    }
    /// Sets a metafield of a record, or of one of its variants; that alone moves no time.
    pub fn metafield(
        &mut self,
        owner: (&'static str, u64),
        variant: Option<usize>,
        name: &str,
        kind: &str,
        value: Value,
    ) {
        let metafield = gid("Metafield", self.id());
        let record = self.records.get_mut(owner.0).and_then(|all| all.get_mut(&owner.1)).expect("a record");
        let record = match variant {
            Some(at) => &mut record["variants"][at],
            None => record,
        };
        let (namespace, key) = name.split_once('.').expect("namespace.key");
        let all = record["metafields"].as_array_mut().expect("a list");
        all.retain(|one| one["namespace"] != namespace || one["key"] != key);
        all.push(json!({"id": metafield, "namespace": namespace, "key": key, "type": kind, "jsonValue": value}));
    }

    fn resolve(&mut self, field: &Field) -> Result<Value, String> {
        match field.name.as_str() {
            "webhookSubscriptions" => {
                let all: Vec<Value> = (self.subscriptions.iter())
                    .map(|one| json!({"id": one.id, "topic": one.topic, "uri": one.uri}))
                    .collect();
                field.of(&Value::Array(all))
            }
            "webhookSubscriptionCreate" => {
                let topic = field.text("topic").ok_or("topic is required")?.to_owned();
                let uri = field.args["webhookSubscription"]["uri"].as_str().ok_or("uri is required")?.to_owned();
                if self.subscriptions.iter().any(|one| one.topic == topic && one.uri == uri) {
                    let message = "Address for this topic has already been taken";
                    let errors = json!([{"field": ["webhookSubscription", "uri"], "message": message}]);
                    return field.of(&json!({"webhookSubscription": null, "userErrors": errors}));
                }
                let id = gid("WebhookSubscription", self.id());
                self.subscriptions.push(Subscription { id: id.clone(), topic, uri, failures: 0 });
                field.of(&json!({"webhookSubscription": {"id": id}, "userErrors": []}))
            }
            "webhookSubscriptionDelete" => {
                let id = field.text("id").ok_or("id is required")?;
                self.subscriptions.retain(|one| one.id != id);
                field.of(&json!({"deletedWebhookSubscriptionId": id, "userErrors": []}))
            }
            "metafieldDefinitions" => {
                let owner = field.text("ownerType").ok_or("ownerType is required")?;
                let own = self.definitions.iter().filter(|one| one["ownerType"] == owner).cloned().collect();
                field.of(&Value::Array(own))
            }
            "bulkOperationRunQuery" => self.bulk_start(field),
            "node" => self.bulk_status(field),
            "ordersCount" | "customersCount" | "productsCount" => self.bulk_count(field),
            "orders" | "customers" | "products" | "events" => self.list(field),
            "order" | "customer" | "product" => {
                let root = format!("{}s", field.name);
                let record = self.records[root.as_str()].get(&self.wanted(field)?);
                record.map_or(Ok(Value::Null), |record| field.of(record))
            }
            "fulfillment" => {
                let id = field.text("id").ok_or("id is required")?;
                let all = self.records["orders"].values().flat_map(|order| order["fulfillments"].as_array());
                let found = all.flatten().find(|one| one["id"] == id);
                found.map_or(Ok(Value::Null), |record| field.of(record))
            }
            other => Err(format!("Field '{other}' doesn't exist on type 'QueryRoot'")),
        }
    }
    fn wanted(&self, field: &Field) -> Result<u64, String> {
        let id = field.text("id").and_then(|id| id.rsplit_once('/')?.1.parse().ok());
        id.ok_or_else(|| "Invalid global id".to_owned())
    }
    fn list(&mut self, field: &Field) -> Result<Value, String> {
        let by = match field.text("sortKey") {
            Some("UPDATED_AT") => "updatedAt",
            Some("CREATED_AT") => "createdAt",
            Some("ID") | None => "",
            Some(other) => return Err(format!("sortKey {other} is not known")),
        };
        let filter = Filter::read(field.text("query").unwrap_or_default());
        let all = &self.records[field.name.as_str()];
        let sorted = self.sorted.entry((field.name.clone(), by)).or_insert_with(|| {
            let key = |(id, record): (&u64, &Value)| format!("{}|{id:020}", record[by].as_str().unwrap_or_default());
            let mut sorted: Vec<(String, u64)> = all.iter().map(|one| (key(one), *one.0)).collect();
            sorted.sort();
            sorted
        });
        let start = sorted.partition_point(|(key, _)| filter.begins_behind(by, key));
        let after = field.text("after").map_or(start, |after| sorted.partition_point(|(key, _)| key.as_str() <= after));
        if self.depth_max.is_some_and(|depth| after.saturating_sub(start) >= depth) {
            self.too_deep += 1;
            return Err("Arrays cannot be paginated past 25,000 objects".to_owned());
        }
        // One more than is shown, by which it is seen whether there are more.
        let most = usize::try_from(field.first().unwrap_or(250)).expect("small") + 1;
        let behind = sorted[start.max(after)..].iter().filter(|(_, id)| filter.fits(*id, &all[id])).take(most);
        let (cursors, items): (Vec<String>, Vec<&Value>) = behind.map(|(key, id)| (key.clone(), &all[id])).unzip();
        field.connection(&items, &cursors)
    }
}

/// The part of Shopify's search syntax that is used.
#[derive(Default)]
struct Filter(Vec<(String, String)>);

impl Filter {
    fn read(text: &str) -> Self {
        let mut terms = Vec::new();
        for term in text.split(' ').filter(|term| !term.is_empty()) {
            let (name, value) = term.split_once(':').expect("a term has a colon");
            let bare = value.trim_start_matches(['>', '=']);
            let quoted = bare.strip_prefix('\'').and_then(|bare| bare.strip_suffix('\''));
            match quoted {
                Some(value) => terms.push((name.to_owned(), value.to_owned())),
                // What stands behind the colon of an unquoted time is dropped, and what is left is no time.
                None if bare.contains(':') => {}
                None => terms.push((name.to_owned(), bare.to_owned())),
            }
        }
        Self(terms)
    }
    /// Whether what is sorted so stands before the filter's lower bound.
    fn begins_behind(&self, by: &str, key: &str) -> bool {
        let bound = |name: &str| self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        match by {
            "updatedAt" => bound("updated_at").is_some_and(|bound| key < bound),
            "" => {
                bound("id").is_some_and(|bound| key < format!("|{:020}", bound.parse::<u64>().expect("an id")).as_str())
            }
            _ => false,
        }
    }
    fn fits(&self, id: u64, record: &Value) -> bool {
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        self.0.iter().all(|(name, value)| match name.as_str() {
            "updated_at" => text("updatedAt") >= *value,
            "created_at" => text("createdAt") >= *value,
            "id" => id >= value.parse().expect("an id"),
            "action" => text("action") == *value,
            "subject_type" => text("subjectType") == *value,
            other => panic!("the stand-in does not know the filter {other}"),
        })
    }
}

type Shared = web::Data<Mutex<World>>;

async fn authorize(query: web::Query<BTreeMap<String, String>>, world: Shared) -> HttpResponse {
    let mut world = world.lock().expect("not poisoned");
    if query.get("client_id").map(String::as_str) != Some(CLIENT_ID) || query.get("scope").is_none() {
        return HttpResponse::BadRequest().body("Oauth error invalid_request");
    }
    let code = format!("code-{}", world.id());
    world.codes.insert(code.clone(), query.get("code_challenge").cloned().unwrap_or_default());
    let time = world.clock.now().seconds().to_string();
    let host = STANDARD.encode("admin.shopify.com/store/tide-shop");
    let state = query.get("state").cloned().unwrap_or_default();
    let mut pairs =
        vec![("code", code), ("host", host), ("shop", SHOP.to_owned()), ("state", state), ("timestamp", time)];
    let text: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.insert(0, ("hmac", signed(CLIENT_SECRET, &text.join("&"))));
    let mut back = url::Url::parse(&query["redirect_uri"]).expect("a URL");
    back.query_pairs_mut().extend_pairs(pairs);
    HttpResponse::Found().insert_header(("location", back.as_str())).finish()
}

async fn token(form: web::Form<BTreeMap<String, String>>, world: Shared) -> HttpResponse {
    let mut world = world.lock().expect("not poisoned");
    world.forms.push(form.0.clone());
    let has = |name: &str, value: &str| form.get(name).is_some_and(|given| given == value);
    let refused = || HttpResponse::BadRequest().json(json!({"error": "invalid_request"}));
    if !has("client_id", CLIENT_ID) || !has("client_secret", CLIENT_SECRET) || !world.installed {
        return refused();
    }
    let lives = world.clock.now().seconds() + 3_600;
    let fresh = format!("shpat_{}", world.id());
    let mut answer = json!({"access_token": fresh, "scope": "read_orders", "expires_in": 3600});
    match form.get("grant_type").map(String::as_str) {
        Some("client_credentials") => answer["expires_in"] = json!(86_399),
        Some("refresh_token") if world.refresh_tokens.contains(&form["refresh_token"]) => {
            // The former one stays good until the new one is used.
            let used = form["refresh_token"].clone();
            world.refresh_tokens.retain(|token| *token == used);
        }
        None | Some("authorization_code") if world.redeems(&form) => {}
        _ => return refused(),
    }
    if has("expiring", "1") {
        let refresh = format!("shprt_{}", world.id());
        world.refresh_tokens.insert(refresh.clone());
        answer["refresh_token"] = refresh.into();
        answer["refresh_token_expires_in"] = json!(7_776_000);
    }
    world.tokens.insert(fresh, lives);
    HttpResponse::Ok().json(answer)
}

async fn graphql(request: HttpRequest, body: web::Json<Value>, world: Shared) -> HttpResponse {
    let mut world = world.lock().expect("not poisoned");
    let token = request.headers().get("x-shopify-access-token").and_then(|token| token.to_str().ok());
    let now = world.clock.now().seconds();
    if !world.installed || token.and_then(|token| world.tokens.get(token)).is_none_or(|ends| *ends <= now) {
        let message = "[API] Invalid API key or access token (unrecognized login or wrong password)";
        return HttpResponse::Unauthorized().json(json!({"errors": message}));
    }
    let query = body["query"].as_str().unwrap_or_default().to_owned();
    world.asked.push((query.clone(), body["variables"].clone()));
    let answer = answer(&mut world, &query, &body["variables"]);
    HttpResponse::Ok().insert_header(("x-shopify-api-version", "2026-07")).json(answer)
}

fn answer(world: &mut World, query: &str, variables: &Value) -> Value {
    let error = |message: String, code: Option<&str>, path: Option<&str>| {
        let mut error = json!({"message": message, "locations": [{"line": 1, "column": 1}]});
        if let Some(code) = code {
            error["extensions"] = json!({"code": code});
        }
        if let Some(path) = path {
            error["path"] = json!([path]);
        }
        json!([error])
    };
    let fields = match parse(query, variables) {
        Ok(fields) => fields,
        Err(message) => return json!({"errors": error(message, None, None)}),
    };
    let requested: u64 = fields.iter().map(Field::cost).sum();
    world.costs.push((query.to_owned(), requested));
    let cost = |available: f64, actual: Value| {
        let status = json!({"maximumAvailable": 100_000.0, "currentlyAvailable": available, "restoreRate": 10_000.0});
        json!({"cost": {"requestedQueryCost": requested, "actualQueryCost": actual, "throttleStatus": status}})
    };
    if requested > world.max_cost {
        let message = format!("Query cost is {requested}, which exceeds the single query max cost limit");
        return json!({"errors": error(message, Some("MAX_COST_EXCEEDED"), None)});
    }
    if requested as f64 > world.available {
        let available = world.available;
        // It is restored while the caller waits.
        world.available = 100_000.0;
        let errors = error("Throttled".to_owned(), Some("THROTTLED"), None);
        return json!({"errors": errors, "extensions": cost(available, Value::Null)});
    }
    let mut data = json!({});
    for field in &fields {
        if world.denied.contains(field.name.as_str()) {
            let message = format!("Access denied for {} field.", field.name);
            let errors = error(message, Some("ACCESS_DENIED"), Some(&field.name));
            return json!({"data": null, "errors": errors, "extensions": cost(world.available, Value::Null)});
        }
        match world.resolve(field) {
            Ok(value) => data[&field.name] = value,
            Err(message) => return json!({"errors": error(message, Some("undefinedField"), None)}),
        }
    }
    json!({"data": data, "extensions": cost(world.available, json!(1))})
}
