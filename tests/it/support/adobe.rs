//! An Adobe Commerce shop, Adobe's IMS and Adobe I/O Events on one loopback port, as `facts/apps.md`, section 4, says they
//! behave: OAuth 1 signatures are checked, lists without a sort are refused, a page past the end is the last page again,
//! times are UTC without a zone, keys are files on a host, and whoever signs events is openssl.
//!
//! Always true: it knows nothing of the node's code but what an app would see of it. Bounded by its tests: it forgets
//! nothing. Not here: cloud-only models, two-factor logins, the journal.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The four keys of the shop's integration.
pub const KEYS: [(&str, &str); 4] =
    [("consumerKey", "ck"), ("consumerSecret", "cs&="), ("token", "tk"), ("tokenSecret", "ts/ ")];
/// The cloud service's credential.
pub const CLIENT: (&str, &str) = ("ims-client", "ims-secret");
pub const ORGANISATION: &str = "0123456789ABCDEF@AdobeOrg";
/// The client that events are for.
pub const RECIPIENT: &str = "io-client-1";
/// The rest of what a node needs to register an address by itself.
pub const PROJECT: [(&str, &str); 5] = [
    ("ioClientSecret", "io-secret"),
    ("ioConsumerId", "105979"),
    ("ioProjectId", "4566206088344615922"),
    ("ioWorkspaceId", "4566206088344617035"),
    ("ioProviderId", "2c9bd2a1-provider"),
];
const KINDS: [(&str, &str, &str); 4] = [
    ("orders", "/V1/orders", "entity_id"),
    ("customers", "/V1/customers/search", "id"),
    ("products", "/V1/products", "id"),
    ("shipments", "/V1/shipments", "entity_id"),
];

#[derive(Default)]
struct World {
    records: BTreeMap<&'static str, BTreeMap<u64, Value>>,
    subscribed: BTreeMap<String, Value>,
    has_module: bool,
    /// Tokens of IMS that are good.
    tokens: Vec<String>,
    /// Addresses that events go to, by id.
    registrations: BTreeMap<String, Value>,
    registered: usize,
    /// Path to PEM.
    keys: BTreeMap<String, String>,
    keys_down: bool,
    seen: Vec<String>,
    /// Method, path with query, and header of what the four keys have signed.
    signed: Vec<[String; 3]>,
}

/// See the module.
#[derive(Clone)]
pub struct Adobe {
    world: Arc<Mutex<World>>,
    pub url: String,
    folder: Arc<TempDir>,
}

/// What one request is answered with.
struct Said(u16, Value);

impl Adobe {
    /// A shop with some records of each kind, and with the module for events.
    pub fn start() -> Self {
        let world = Arc::new(Mutex::new(World { has_module: true, ..World::default() }));
        let data = web::Data::from(world.clone());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .app_data(web::PayloadConfig::new(1 << 20))
                .default_service(web::route().to(serve))
        });
        let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).expect("a free port");
        let url = format!("http://{}", server.addrs()[0]);
        actix_rt::spawn(server.run());
        let adobe = Self { world, url, folder: Arc::new(tempfile::tempdir().expect("a folder")) };
        for n in 1..=12 {
            adobe.put("orders", n, order(n, "new"));
            adobe.put(
                "customers",
                n,
                json!({"id": n, "firstname": "Ada", "lastname": format!("L{n}"), "email": format!("a{n}@example.com")}),
            );
            adobe.put("products", n, json!({"id": n, "sku": format!("SKU-{n}"), "name": format!("Tee {n}"), "price": 29, "status": 1, "type_id": "simple"}));
            adobe.put("shipments", n, json!({"entity_id": n, "order_id": n, "items": [], "tracks": []}));
        }
        adobe
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("not poisoned")
    }
    /// Makes a record, or another version of it, now.
    pub fn put(&self, kind: &'static str, id: u64, mut record: Value) {
        let now = tidemill::app::wall_clock().now().rfc3339_seconds().replace('T', " ").replace('Z', "");
        let mut world = self.world();
        let records = world.records.entry(kind).or_default();
        let made = records.get(&id).map_or_else(|| json!(now), |before| before["created_at"].clone());
        record["created_at"] = made;
        record["updated_at"] = json!(now);
        records.insert(id, record);
    }
    pub fn delete(&self, kind: &'static str, id: u64) {
        self.world().records.entry(kind).or_default().remove(&id).expect("it is there");
    }
    pub fn subscribed(&self) -> Vec<String> {
        self.world().subscribed.keys().cloned().collect()
    }
    pub fn has_subscription_of_another(&self, name: &str) {
        self.world().subscribed.insert(name.to_owned(), json!({"name": name}));
    }
    pub fn take_module_away(&self) {
        self.world().has_module = false;
    }
    /// Where events go, by the Registration API.
    pub fn registrations(&self) -> Vec<Value> {
        self.world().registrations.values().cloned().collect()
    }
    /// A registration of another address.
    pub fn has_registration_of_another(&self) {
        let other = json!({"registration_id": "other", "webhook_url": "https://other.example/", "enabled": true});
        self.world().registrations.insert("other".to_owned(), other);
    }
    /// Adobe gives up on addresses that fail too often.
    pub fn disable_registrations(&self) {
        self.world().registrations.values_mut().for_each(|one| one["enabled"] = json!(false));
    }
    pub fn keys_down(&self, down: bool) {
        self.world().keys_down = down;
    }
    /// Requests that the four keys have signed: method, address, and header.
    pub fn signed(&self) -> Vec<[String; 3]> {
        self.world().signed.clone()
    }
    /// Requests whose path and query begin so.
    pub fn count(&self, start: &str) -> usize {
        self.world().seen.iter().filter(|seen| seen.starts_with(start)).count()
    }

    /// A fresh key pair of openssl, its public half at a path of the keys' host. It takes a while, in which the node may
    /// close connections; so the test's own thread is not held up.
    pub async fn signer(&self, name: &str) -> Signer {
        let (adobe, name) = (self.clone(), name.to_owned());
        tokio::task::spawn_blocking(move || adobe.make_signer(&name)).await.expect("a key pair")
    }

    fn make_signer(&self, name: &str) -> Signer {
        let folder = self.folder.path();
        let file = |suffix: &str| folder.join(format!("{name}.{suffix}"));
        let (private, public) = (file("key"), file("pub"));
        let key = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", text(&private)];
        openssl(&key);
        openssl(&["pkey", "-in", text(&private), "-pubout", "-out", text(&public)]);
        let path = format!("/prod/keys/pub-key-{name}.pem");
        let pem = std::fs::read_to_string(&public).expect("a public key");
        self.world().keys.insert(path.clone(), pem);
        Signer { private: text(&private).to_owned(), folder: text(folder).to_owned(), path }
    }
}

/// Whoever signs events: not our code.
#[derive(Clone)]
pub struct Signer {
    private: String,
    folder: String,
    pub path: String,
}

impl Signer {
    /// Base64 of RSA with SHA-256 over the body.
    pub fn sign(&self, body: &str) -> String {
        let (plain, signed) = (format!("{}/body", self.folder), format!("{}/signature", self.folder));
        std::fs::write(&plain, body).expect("written");
        openssl(&["dgst", "-sha256", "-sign", &self.private, "-out", &signed, &plain]);
        STANDARD.encode(std::fs::read(&signed).expect("a signature"))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn openssl(arguments: &[&str]) {
    let done = Command::new("openssl").args(arguments).output().expect("openssl is installed");
    assert!(done.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An order as the guide prints it, in part.
pub fn order(id: u64, state: &str) -> Value {
    json!({
        "entity_id": id, "increment_id": format!("{id:09}"), "state": state, "status": state,
        "order_currency_code": "EUR", "grand_total": 66.91, "tax_amount": 12.39, "total_due": 66.91,
        "customer_email": "guest@example.com", "items": [{"item_id": 1, "product_id": 7, "sku": "TEE-M", "name": "Tee",
        "qty_ordered": 2, "price": 29, "product_type": "simple"}],
    })
}

/// One CloudEvent of the shop, as I/O Events sends it.
pub fn event(code: &str, value: &Value) -> Value {
    json!({
        "specversion": "1.0", "id": "9f0d4b3c", "source": "urn:uuid:1902bc50",
        "type": format!("com.adobe.commerce.observer.{code}"), "time": "2026-01-31T12:00:01.250Z",
        "recipientclientid": RECIPIENT, "data": {"key": "k", "value": value, "_metadata": {"storeId": "1"}},
    })
}

async fn serve(request: HttpRequest, body: web::Bytes, world: web::Data<Mutex<World>>) -> HttpResponse {
    let mut world = world.lock().expect("not poisoned");
    world.seen.push(request.uri().to_string());
    let path = request.path().to_owned();
    if path.starts_with("/prod/keys/") {
        return match world.keys.get(&path) {
            _ if world.keys_down => HttpResponse::ServiceUnavailable().finish(),
            Some(pem) => HttpResponse::Ok().content_type("application/x-pem-file").body(pem.clone()),
            None => HttpResponse::NotFound().body("<Error/>"),
        };
    }
    if path == "/csm/registrations/validate" {
        return HttpResponse::Ok().finish();
    }
    let Said(status, answer) = match path.as_str() {
        "/ims/token/v3" => ims(&mut world, &body),
        path if path.starts_with("/events/") => registrations(&mut world, &request, &body),
        _ => shop(&mut world, &request, &body),
    };
    HttpResponse::build(status.try_into().expect("a status")).json(answer)
}

fn refused(status: u16, message: &str) -> Said {
    Said(status, json!({"message": message}))
}

fn fields(text: &[u8]) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

fn ims(world: &mut World, body: &[u8]) -> Said {
    let form = fields(body);
    let is = |name: &str, value: &str| form.get(name).is_some_and(|given| given == value);
    let clients = [(CLIENT.0, CLIENT.1, "commerce.accs"), (RECIPIENT, PROJECT[0].1, "adobeio_api")];
    let client = clients.iter().find(|(id, secret, _)| is("client_id", id) && is("client_secret", secret));
    let Some((id, _, scope)) = client.filter(|_| is("grant_type", "client_credentials")) else {
        return Said(401, json!({"error": "invalid_client"}));
    };
    if !form.get("scope").is_some_and(|scopes| scopes.split(',').any(|one| one == *scope)) {
        return Said(400, json!({"error": "invalid_scope"}));
    }
    let token = format!("{id}-{}", world.tokens.len());
    world.tokens.push(token.clone());
    Said(200, json!({"access_token": token, "token_type": "bearer", "expires_in": 86399}))
}

/// The Registration API of `api.adobe.io`.
fn registrations(world: &mut World, request: &HttpRequest, body: &[u8]) -> Said {
    let header = |name: &str| {
        let values = request.headers().get_all(name).filter_map(|value| value.to_str().ok());
        values.collect::<Vec<_>>().join(", ")
    };
    let token = header("authorization").strip_prefix("Bearer ").map(str::to_owned).unwrap_or_default();
    if !world.tokens.contains(&token) || !token.starts_with(RECIPIENT) || header("x-api-key") != RECIPIENT {
        return Said(403, json!({"error_code": "403003", "message": "Api Key is invalid"}));
    }
    let of = |n: usize| PROJECT[n].1;
    let folder = format!("/events/{}/{}/{}/registrations", of(1), of(2), of(3));
    let Some(rest) = request.path().strip_prefix(folder.as_str()) else {
        return Said(404, json!({"message": "no such workspace"}));
    };
    match (request.method().as_str(), rest.trim_start_matches('/')) {
        ("GET", "") => {
            let all: Vec<&Value> = world.registrations.values().collect();
            Said(200, json!({"_embedded": {"registrations": all}, "page": {"totalElements": all.len()}}))
        }
        ("POST", "") => {
            let mut made: Value = serde_json::from_slice(body).unwrap_or_default();
            let events = made["events_of_interest"].as_array().cloned().unwrap_or_default();
            let is_whole = made["client_id"] == RECIPIENT
                && made["name"].as_str().is_some_and(|name| !name.is_empty())
                && ["webhook", "webhook_batch"].iter().any(|kind| made["delivery_type"] == *kind)
                && !events.is_empty()
                && events.iter().all(|event| event["provider_id"] == of(4));
            if !is_whole {
                return Said(400, json!({"message": "the registration is not whole"}));
            }
            world.registered += 1;
            let id = format!("registration-{}", world.registered);
            (made["registration_id"], made["enabled"]) = (json!(id), json!(true));
            for event in made["events_of_interest"].as_array_mut().into_iter().flatten() {
                event["provider_label"] = json!("Shop");
            }
            world.registrations.insert(id, made.clone());
            Said(201, made)
        }
        ("DELETE", id) => match world.registrations.remove(id) {
            Some(_) => Said(204, Value::Null),
            None => Said(404, json!({"message": "no such registration"})),
        },
        _ => Said(405, json!({"message": "not allowed"})),
    }
}

fn shop(world: &mut World, request: &HttpRequest, body: &[u8]) -> Said {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let authorization = header("authorization");
    // The cloud service has its tenant in place of `/rest/{store}`.
    let (prefix, is_cloud) = match request.path().starts_with("/rest/all/") {
        true => ("/rest/all", false),
        false => ("/tenant-1", true),
    };
    let Some(path) = request.path().strip_prefix(prefix) else {
        return refused(404, "Request does not match any route.");
    };
    let is_known = match authorization.split_once(' ') {
        Some(("Bearer", token)) if is_cloud => {
            world.tokens.iter().any(|known| known == token)
                && header("x-api-key") == CLIENT.0
                && header("x-gw-ims-org-id") == ORGANISATION
        }
        Some(("OAuth", rest)) if !is_cloud && signs(request, rest) => {
            let address = format!("http://{}{}", request.connection_info().host(), request.uri());
            world.signed.push([request.method().to_string(), address, authorization.to_owned()]);
            true
        }
        _ => false,
    };
    if !is_known {
        return refused(401, "The consumer isn't authorized to access %resources.");
    }
    if let Some(rest) = path.strip_prefix("/V1/eventing/") {
        return eventing(world, request.method().as_str(), rest, body);
    }
    let query = fields(request.query_string().as_bytes());
    for (kind, list, id_name) in KINDS {
        let records = world.records.get(kind).cloned().unwrap_or_default();
        if path == list {
            return listed(records, id_name, &query);
        }
        let one = list.trim_end_matches("/search");
        let one = if kind == "shipments" { "/V1/shipment" } else { one };
        if let Some(id) = path.strip_prefix(one).and_then(|rest| rest.strip_prefix('/')).and_then(|id| id.parse().ok())
        {
            return match records.get(&id) {
                Some(record) => Said(200, record.clone()),
                None => refused(404, "The entity that was requested doesn't exist."),
            };
        }
    }
    refused(404, "Request does not match any route.")
}

fn eventing(world: &mut World, method: &str, rest: &str, body: &[u8]) -> Said {
    if !world.has_module {
        return refused(404, "Request does not match any route.");
    }
    match (method, rest.split_once('/')) {
        ("GET", None) if rest == "getEventSubscriptions" => Said(200, world.subscribed.values().cloned().collect()),
        ("POST", None) if rest == "eventSubscribe" => {
            let asked: Value = serde_json::from_slice(body).unwrap_or_default();
            let Some(name) = asked["event"]["name"].as_str().map(str::to_owned) else {
                return refused(400, "event.name is required");
            };
            if world.subscribed.contains_key(&name) {
                return refused(400, "The event is subscribed already");
            }
            if asked["event"]["fields"].as_array().is_none_or(Vec::is_empty) {
                return refused(400, "event.fields is required");
            }
            world.subscribed.insert(name, asked["event"].clone());
            Said(200, json!([]))
        }
        ("POST", Some(("eventUnsubscribe", name))) => match world.subscribed.remove(name) {
            Some(_) => Said(200, json!([])),
            None => refused(400, "The event is not subscribed"),
        },
        _ => refused(404, "Request does not match any route."),
    }
}

fn listed(records: BTreeMap<u64, Value>, id_name: &str, query: &BTreeMap<String, String>) -> Said {
    let ask = |name: &str| query.get(&format!("searchCriteria{name}")).map(String::as_str);
    let mut found: Vec<(u64, Value)> = records.into_iter().collect();
    let column = |(id, record): &(u64, Value), field: &str| match field {
        "entity_id" => format!("{id:020}"),
        other => record[other].as_str().unwrap_or_default().to_owned(),
    };
    let padded = |field: &str, value: &str| match field {
        "entity_id" => format!("{value:0>20}"),
        _ => value.to_owned(),
    };
    for group in 0..4 {
        let part = |name: &str| ask(&format!("[filter_groups][{group}][filters][0][{name}]"));
        let (Some(field), Some(value), Some(how)) = (part("field"), part("value"), part("condition_type")) else {
            continue;
        };
        let value = padded(field, value);
        found.retain(|record| match how {
            "gteq" => column(record, field) >= value,
            "lteq" => column(record, field) <= value,
            "gt" => column(record, field) > value,
            "eq" => column(record, field) == value,
            _ => false,
        });
    }
    let size: usize = ask("[pageSize]").and_then(|size| size.parse().ok()).unwrap_or(usize::MAX);
    match (ask("[sortOrders][0][field]"), size) {
        (Some("updated_at"), _) => found.sort_by_key(|record| (column(record, "updated_at"), record.0)),
        (Some("entity_id"), _) | (None, 1) => {}
        // The real shop would repeat and miss records.
        _ => return refused(400, "a list without a sort"),
    }
    let total = found.len();
    let page: usize = ask("[currentPage]").and_then(|page| page.parse().ok()).unwrap_or(1);
    let last = total.div_ceil(size).max(1);
    let items = found.into_iter().skip((page.clamp(1, last) - 1).saturating_mul(size)).take(size);
    let trims = query.get("fields").is_some();
    let items: Vec<Value> = items
        .map(|(id, record)| match trims {
            true => json!({id_name: id, "updated_at": record["updated_at"]}),
            false => record,
        })
        .collect();
    Said(200, json!({"items": items, "search_criteria": {}, "total_count": total}))
}

fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Whether the four keys have signed the request (RFC 5849, with HMAC-SHA256).
fn signs(request: &HttpRequest, header: &str) -> bool {
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut given = BTreeMap::new();
    for part in header.split(", ") {
        let Some((name, value)) = part.split_once('=') else { return false };
        given.insert(name.to_owned(), decode(value.trim_matches('"')));
    }
    let Some(signature) = given.remove("oauth_signature") else { return false };
    let is = |name: &str, value: &str| given.get(name).is_some_and(|given| given == value);
    if !is("oauth_consumer_key", KEYS[0].1)
        || !is("oauth_token", KEYS[2].1)
        || !is("oauth_signature_method", "HMAC-SHA256")
    {
        return false;
    }
    let query = url::form_urlencoded::parse(request.query_string().as_bytes()).into_owned();
    let mut pairs: Vec<(String, String)> =
        given.into_iter().chain(query).map(|(n, v)| (encode(&n), encode(&v))).collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let info = request.connection_info();
    let address = format!("http://{}{}", info.host(), request.path());
    let base = format!("{}&{}&{}", request.method(), encode(&address), encode(&pairs.join("&")));
    let key = format!("{}&{}", encode(KEYS[1].1), encode(KEYS[3].1));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), base.as_bytes());
    STANDARD.encode(tag) == signature
}
