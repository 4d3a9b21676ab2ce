//! HubSpot's webhooks journal and its subscriptions, version 2026-03, as its guides and generated clients have them, traps
//! included: a token of the app's own client alone opens it; an entry is the address of a file, good for a while, at which
//! credentials are refused (as S3 refuses them beside a signed query); an entry that is too old is not there, nor what
//! comes after it; "nothing new" is a 204, or a 404 as some have met it.
//!
//! Always true: only what an account's subscriptions ask for is kept; an object's change is told only if one of the changed
//! properties was named.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::hubspot::CLIENT;

const JOURNAL: &str = "/webhooks-journal/journal/2026-03/";
const SUBSCRIPTIONS: &str = "/webhooks-journal/subscriptions/2026-03";
const FILES: &str = "/journal-files/";

/// See the module.
#[derive(Default)]
pub struct Journal {
    /// Offset and content; what is forgotten is gone.
    entries: Vec<(String, Vec<u8>)>,
    written: u64,
    pub subscriptions: BTreeMap<u64, Value>,
    made: u64,
    /// Access token → its scopes.
    tokens: BTreeMap<String, String>,
    pub issued: u32,
    /// Addresses that are good.
    addresses: BTreeSet<String>,
    shown: u64,
    /// So many addresses that are shown next are no good.
    pub stale: u32,
    /// Files are packed.
    pub packed: bool,
    /// "Nothing new" is a 404.
    pub nothing_is_404: bool,
    /// Object types of which subscriptions are refused.
    pub refused: BTreeSet<String>,
    /// Files end in the middle, and then nothing comes.
    pub holds: bool,
    pub files_read: u32,
    /// Files that were asked for with credentials, which is refused.
    pub credentials_at_files: u32,
}

impl Journal {
    /// An entry with these items, whoever has subscribed to them.
    pub fn write(&mut self, items: &[Value]) -> String {
        let offset = format!("00000000-0000-4000-8000-{:012}", self.written + 1);
        let file = json!({"offset": offset, "journalEvents": items, "publishedAt": "2026-09-03T10:00:05.000Z"});
        self.write_file(file.to_string().into_bytes())
    }

    /// An entry with this file.
    pub fn write_file(&mut self, file: Vec<u8>) -> String {
        self.written += 1;
        let offset = format!("00000000-0000-4000-8000-{:012}", self.written);
        self.entries.push((offset.clone(), file));
        offset
    }

    /// An entry with those of the items that somebody has subscribed to; how many those are.
    pub fn tell(&mut self, items: &[Value]) -> usize {
        let wanted: Vec<Value> = items.iter().filter(|item| self.is_wanted(item)).cloned().collect();
        if !wanted.is_empty() {
            self.write(&wanted);
        }
        wanted.len()
    }

    fn is_wanted(&self, item: &Value) -> bool {
        let has = |list: &Value, wanted: &Value| list.as_array().is_some_and(|list| list.contains(wanted));
        self.subscriptions.values().any(|one| {
            let is_for = one["portalId"] == item["portalId"] && one["objectTypeId"] == item["objectTypeId"];
            let changes = item["propertyChanges"].as_object().filter(|_| item["action"] == "UPDATE");
            let named = changes.is_none_or(|all| all.keys().any(|name| has(&one["properties"], &json!(name))));
            is_for && has(&one["actions"], &item["action"]) && named
        })
    }

    /// All entries are too old.
    pub fn forget(&mut self) {
        self.entries.clear();
    }

    /// The tokens of the moment have ended.
    pub fn end_tokens(&mut self) {
        self.tokens.clear();
    }

    /// (object type, subscription type) of what a portal has subscribed to, sorted.
    pub fn of_portal(&self, portal: u64) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let mine = self.subscriptions.values().filter(|one| one["portalId"] == portal);
        let mut all: Vec<_> = mine.map(|one| (text(&one["objectTypeId"]), text(&one["subscriptionType"]))).collect();
        all.sort();
        all
    }

    /// Answers what belongs to the journal; None: something else.
    pub fn answer(&mut self, request: &HttpRequest, body: &[u8]) -> Option<HttpResponse> {
        let path = request.path();
        if path == "/oauth/v1/token" {
            let form: BTreeMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
            return Some(self.token(&form));
        }
        if path.starts_with(FILES) {
            return Some(self.file(request));
        }
        if !path.starts_with("/webhooks-journal/") {
            return None;
        }
        let header = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let token = header.strip_prefix("Bearer ").unwrap_or_default();
        let Some(scopes) = self.tokens.get(token).cloned() else {
            let told = json!({"status": "error", "message": "expired", "category": "EXPIRED_AUTHENTICATION"});
            return Some(HttpResponse::Unauthorized().json(told));
        };
        let has = |scope: &str| scopes.split(' ').any(|one| one == scope);
        if let Some(rest) = path.strip_prefix(JOURNAL) {
            return Some(match has("developer.webhooks_journal.read") {
                true => self.entry(rest, &base(request)),
                false => HttpResponse::Forbidden().json(json!({"message": "MISSING_SCOPES"})),
            });
        }
        let rest = path.strip_prefix(SUBSCRIPTIONS)?.trim_start_matches('/');
        let scope = if request.method() == "GET" { "read" } else { "write" };
        Some(match has(&format!("developer.webhooks_journal.subscriptions.{scope}")) {
            true => self.subscription(request.method().as_str(), rest, body),
            false => HttpResponse::Forbidden().json(json!({"message": "MISSING_SCOPES"})),
        })
    }

    fn token(&mut self, form: &BTreeMap<String, String>) -> HttpResponse {
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        let known = (field("client_id"), field("client_secret")) == CLIENT;
        if !known || field("grant_type") != "client_credentials" || field("scope").is_empty() {
            let told = json!({"status": "BAD_CLIENT_ID", "message": "missing or unknown client id"});
            return HttpResponse::BadRequest().json(told);
        }
        self.issued += 1;
        let token = format!("cc-{}", self.issued);
        self.tokens.insert(token.clone(), field("scope").to_owned());
        // There is no refresh token.
        HttpResponse::Ok().json(json!({"access_token": token, "expires_in": 1800, "token_type": "bearer"}))
    }

    fn entry(&mut self, rest: &str, base: &str) -> HttpResponse {
        let at = match rest.split('/').collect::<Vec<_>>().as_slice() {
            ["earliest"] => 0,
            ["latest"] => self.entries.len().saturating_sub(1),
            ["offset", offset, "next"] => match self.entries.iter().position(|(one, _)| one == offset) {
                Some(at) => at + 1,
                None => return nothing_here(),
            },
            _ => return nothing_here(),
        };
        let Some((offset, _)) = self.entries.get(at) else {
            return if self.nothing_is_404 { nothing_here() } else { HttpResponse::NoContent().finish() };
        };
        self.shown += 1;
        let address = format!("{FILES}{offset}?X-Amz-Signature={}", self.shown);
        match self.stale.checked_sub(1) {
            Some(left) => self.stale = left,
            None => {
                self.addresses.insert(address.clone());
            }
        }
        HttpResponse::Ok().json(json!({"url": format!("{base}{address}"), "expiresAt": "2026-09-03T10:10:00.000Z",
            "currentOffset": offset}))
    }

    fn file(&mut self, request: &HttpRequest) -> HttpResponse {
        if request.headers().contains_key("authorization") {
            self.credentials_at_files += 1;
            return HttpResponse::BadRequest().body("<Error><Code>InvalidArgument</Code></Error>");
        }
        let address = format!("{}?{}", request.path(), request.query_string());
        if !self.addresses.contains(&address) {
            let told = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
            return HttpResponse::Forbidden().content_type("application/xml").body(told);
        }
        let offset = request.path().trim_start_matches(FILES);
        let Some((_, file)) = self.entries.iter().find(|(one, _)| one == offset) else { return nothing_here() };
        self.files_read += 1;
        let file = match self.packed {
            false => file.clone(),
            true => {
                let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                packed.write_all(file).expect("packed");
                packed.finish().expect("packed")
            }
        };
        let mut response = HttpResponse::Ok();
        response.content_type("application/octet-stream");
        if !self.holds {
            return response.body(file);
        }
        let half = web::Bytes::copy_from_slice(&file[..file.len() / 2]);
        let rest = stream::pending::<Result<web::Bytes, actix_web::Error>>();
        response.streaming(stream::iter([Ok(half)]).chain(rest))
    }

    fn subscription(&mut self, method: &str, rest: &str, body: &[u8]) -> HttpResponse {
        match (method, rest) {
            ("GET", "") => HttpResponse::Ok().json(json!({"results": self.subscriptions.values().collect::<Vec<_>>()})),
            ("POST", "") => {
                let mut wish: Value = serde_json::from_slice(body).unwrap_or_default();
                let is_whole =
                    wish["portalId"].is_u64() && wish["actions"].is_array() && wish["objectTypeId"].is_string();
                if !is_whole || self.refused.contains(wish["objectTypeId"].as_str().unwrap_or_default()) {
                    return HttpResponse::Forbidden().json(json!({"message": "missing scopes of the object"}));
                }
                let same = |one: &Value| {
                    ["portalId", "subscriptionType", "objectTypeId"].iter().all(|name| one[*name] == wish[*name])
                };
                let known = self.subscriptions.values().find(|one| same(one)).and_then(|one| one["id"].as_u64());
                let id = known.unwrap_or_else(|| {
                    self.made += 1;
                    9_000 + self.made
                });
                wish["id"] = id.into();
                wish["appId"] = 4242.into();
                wish["createdAt"] = "2026-09-03T09:00:00.000Z".into();
                wish["updatedAt"] = "2026-09-03T09:00:00.000Z".into();
                self.subscriptions.insert(id, wish.clone());
                HttpResponse::Ok().json(wish)
            }
            ("DELETE", id) => match id.parse().ok().and_then(|id: u64| self.subscriptions.remove(&id)) {
                Some(_) => HttpResponse::NoContent().finish(),
                None => nothing_here(),
            },
            _ => HttpResponse::MethodNotAllowed().finish(),
        }
    }
}

/// Where the fake is, as it was asked.
fn base(request: &HttpRequest) -> String {
    let info = request.connection_info().clone();
    format!("{}://{}", info.scheme(), info.host())
}

fn nothing_here() -> HttpResponse {
    HttpResponse::NotFound().json(json!({"status": "error", "message": "not found", "category": "OBJECT_NOT_FOUND"}))
}

/// One item of a file.
pub fn item(portal: u64, action: &str, object_type: &str, id: u64, changed: &[(&str, &str)]) -> Value {
    let changes: serde_json::Map<String, Value> =
        changed.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    json!({"type": "object", "portalId": portal, "occurredAt": "2026-09-03T10:00:00.000Z", "action": action,
        "objectTypeId": object_type, "objectId": id, "propertyChanges": changes})
}
