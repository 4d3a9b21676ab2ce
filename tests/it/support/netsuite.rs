//! NetSuite as far as the connector asks: requests signed by token-based authentication, SuiteQL of the shapes that it
//! sends, times shown and compared in a zone that is not named, offsets that are multiples of the limit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::hmac;
use base64::Engine;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};
use tidemill::clock::Clock;
use tidemill::domain::time::Millis;

use super::fake::{Asked, Fake, Reply};
use super::suiteql::{self, Row};

pub const ACCOUNT: &str = "1234567_SB1";
pub const KEYS: [&str; 4] = ["consumer-key", "consumer&secret", "token-id", "token secret"];
const TOKENS: &str = "/services/rest/auth/oauth2/v1/token";
const TOKEN: &str = "a-token-of-an-hour";
const PATH: &str = "/services/rest/query/v1/suiteql";
const LIMITS: &str = "/services/rest/system/v1/governanceLimits";
const CATALOGUE: &str = "/services/rest/record/v1/metadata-catalog/";
/// Records that the catalogue has; which kinds of items there are differs between accounts.
const RECORDS: &[&str] = &[
    "customer",
    "vendor",
    "employee",
    "contact",
    "task",
    "opportunity",
    "salesorder",
    "itemfulfillment",
    "invoice",
    "vendorbill",
    "customerpayment",
    "vendorpayment",
    "purchaseorder",
    "inventoryitem",
    "noninventorysaleitem",
    "servicesaleitem",
    "kititem",
];
/// A clock may be so far off.
const SKEW_SECONDS: u64 = 300;
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What is in the account, and how it behaves.
pub struct Books {
    clock: Clock,
    pub zone: TimeZone,
    /// Rows by table; times are Unix seconds, `isinactive` and the like T or F, all else texts.
    pub tables: BTreeMap<&'static str, Vec<Row>>,
    nonces: BTreeSet<String>,
    /// The account's own fields in the metadata catalogue: properties by record.
    pub catalogue: BTreeMap<&'static str, Value>,
    /// The role may not read it.
    pub catalogue_closed: Option<u16>,
    /// Columns that SuiteQL does not show though the catalogue has them.
    pub hidden: BTreeSet<String>,
    /// Asked of the catalogue.
    pub catalogued: Vec<String>,
    /// The public key of the certificate, for OAuth 2.
    pub certificate: Option<Vec<u8>>,
    /// So many of the next requests are told that there are too many at once, and to come back after so many seconds.
    pub busy: u32,
    pub busy_for: Option<u64>,
    /// When each of `requests` came.
    pub times: Vec<Millis>,
    /// After so many good answers, one fails.
    pub fail_after: Option<u32>,
    /// All that was asked.
    pub requests: Vec<Asked>,
}

/// The app.
pub struct NetSuite {
    books: Arc<Mutex<Books>>,
    pub fake: Fake,
}

fn error(status: u16, code: &str, detail: &str) -> Reply {
    let details = json!([{"detail": detail, "o:errorCode": code}]);
    let body = json!({"type": "about:blank", "title": "Error", "status": status, "o:errorDetails": details});
    Reply::json(status, &body)
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The signature of RFC 5849, section 3.4, with HMAC-SHA256, computed from the request as it came.
pub fn signature(method: &str, url: &str, fields: &[(String, String)], keys: [&str; 4]) -> String {
    let url = url::Url::parse(url).expect("an address");
    let mut pairs: Vec<(String, String)> = fields.iter().map(|(n, v)| (encode(n), encode(v))).collect();
    pairs.extend(url.query_pairs().map(|(n, v)| (encode(&n), encode(&v))));
    pairs.sort();
    let pairs: Vec<String> = pairs.into_iter().map(|(n, v)| format!("{n}={v}")).collect();
    let mut address = url.clone();
    address.set_query(None);
    let base = format!("{method}&{}&{}", encode(address.as_str()), encode(&pairs.join("&")));
    let key = format!("{}&{}", encode(keys[1]), encode(keys[3]));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), base.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(tag)
}

/// A certificate's public key, and its private one as PEM.
pub fn certificate() -> (Vec<u8>, String) {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::signature::KeyPair;

    let pair = aws_lc_rs::signature::RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa3072).expect("a key");
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).expect("PKCS#8");
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("text")).collect();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    (pair.public_key().as_ref().to_vec(), pem)
}

impl NetSuite {
    pub fn start(clock: &Clock, zone: &str) -> Self {
        let books = Arc::new(Mutex::new(Books {
            clock: clock.clone(),
            zone: TimeZone::get(zone).expect("a zone"),
            tables: BTreeMap::new(),
            nonces: BTreeSet::new(),
            catalogue: BTreeMap::new(),
            catalogue_closed: None,
            hidden: BTreeSet::new(),
            catalogued: Vec::new(),
            certificate: None,
            busy: 0,
            busy_for: None,
            times: Vec::new(),
            fail_after: None,
            requests: Vec::new(),
        }));
        let answering = books.clone();
        let fake = Fake::start(move |asked| answering.lock().expect("unpoisoned").answer(asked));
        Self { books, fake }
    }
    /// How many requests there were, and when the last one came.
    pub fn last(&self) -> (usize, Millis) {
        let books = self.books();
        (books.times.len(), *books.times.last().expect("a request"))
    }
    /// The next requests, so many, are refused, and told after how many seconds to come back.
    pub fn refuse(&self, busy: u32, seconds: Option<u64>) {
        let mut books = self.books();
        (books.busy, books.busy_for) = (busy, seconds);
    }
    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("unpoisoned")
    }
}

/// A row of these members; times are RFC 3339 here.
pub fn row(members: Value) -> Row {
    let members = members.as_object().expect("an object").clone();
    let one = |(name, value): (String, Value)| {
        let seconds = value.as_str().filter(|_| name.ends_with("date") || name.ends_with("created"));
        let seconds = seconds.and_then(Millis::parse_rfc3339).map(|time| json!(time.0 / 1_000));
        (name, seconds.unwrap_or(value))
    };
    members.into_iter().map(one).collect()
}

impl Books {
    pub fn table(&mut self, name: &'static str) -> &mut Vec<Row> {
        self.tables.entry(name).or_default()
    }
    /// Changes a row's members, now or at that time.
    pub fn change(&mut self, table: &'static str, id: u64, members: Value) {
        let found = self.table(table).iter_mut().find(|row| row["id"] == id).expect("a row");
        found.extend(row(members));
    }
    /// Deletes a row, as the account's list of deleted records tells.
    pub fn delete(&mut self, table: &'static str, id: u64, kind: &str, at: &str, listed: bool) {
        self.table(table).retain(|row| row["id"] != id);
        if listed {
            let gone = row(json!({"recordid": id, "type": kind, "scriptid": kind.to_uppercase(), "deleteddate": at}));
            self.table("deletedrecord").push(gone);
        }
    }
    /// The SuiteQL that was sent.
    pub fn queries(&self) -> Vec<String> {
        self.requests.iter().map(|asked| asked.json()["q"].as_str().unwrap_or_default().to_owned()).collect()
    }
    /// A record's description, as JSON Schema where that is asked for (docs.oracle.com, "Working with JSON Schema Metadata").
    fn describe(&mut self, record: &str, asked: &Asked) -> Reply {
        self.catalogued.push(record.to_owned());
        if let Err(why) = self.check(asked) {
            return error(401, "INVALID_LOGIN", &format!("Invalid login attempt. {why}"));
        }
        if let Some(status) = self.catalogue_closed {
            return error(status, "INSUFFICIENT_PERMISSION", "Permission Violation: the role may not do this.");
        }
        if !RECORDS.contains(&record) {
            return error(404, "NONEXISTENT_ID", &format!("Record type '{record}' does not exist."));
        }
        if asked.header("accept") != "application/schema+json" {
            let href = format!("{}?select={record}", asked.url);
            return Reply::json(200, &json!({"links": [{"rel": "describedby", "href": href}]}));
        }
        let mut properties = json!({
            "id": {"title": "Internal ID", "type": "string", "nullable": true},
            "email": {"title": "Email", "type": "string", "format": "email", "nullable": true},
            "lastModifiedDate": {"title": "Date Modified", "type": "string", "format": "date-time", "nullable": true},
            "recmachcustrecord_child": {"type": "object", "x-ns-custom-field": true, "properties": {"items": {"type": "array"}}},
        });
        for (name, property) in self.catalogue.get(record).and_then(Value::as_object).into_iter().flatten() {
            properties[name] = property.clone();
            properties[name]["x-ns-custom-field"] = true.into();
        }
        Reply::json(200, &json!({"type": "object", "properties": properties}))
    }
    fn answer(&mut self, asked: &Asked) -> Reply {
        if asked.path == LIMITS {
            return match self.check(asked) {
                Ok(()) => error(403, "INSUFFICIENT_PERMISSION", "The role may not see the limits."),
                Err(why) => error(401, "INVALID_LOGIN", &format!("Invalid login attempt. {why}")),
            };
        }
        if let Some(record) = asked.path.strip_prefix(CATALOGUE) {
            return self.describe(record, asked);
        }
        if self.requests.len() < 10_000 {
            self.requests.push(asked.clone());
            self.times.push(self.clock.now());
        }
        if asked.path == TOKENS {
            return self.token(asked);
        }
        if let Err(why) = self.check(asked) {
            return error(401, "INVALID_LOGIN", &format!("Invalid login attempt. {why}"));
        }
        if self.busy > 0 {
            self.busy -= 1;
            let mut reply =
                error(429, "CONCURRENCY_LIMIT_EXCEEDED", "Concurrent request limit exceeded. Request blocked.");
            reply.headers.extend(self.busy_for.map(|seconds| ("retry-after", seconds.to_string())));
            return reply;
        }
        if let Some(left) = self.fail_after.as_mut() {
            if *left == 0 {
                self.fail_after = None;
                return error(500, "UNEXPECTED_ERROR", "An unexpected error occurred.");
            }
            *left -= 1;
        }
        if (asked.method.as_str(), asked.path.as_str()) != ("POST", PATH) {
            return error(404, "NONEXISTENT_ID", "The URL does not exist.");
        }
        if asked.header("prefer") != "transient" {
            return error(400, "INVALID_HEADER", "The required request header 'Prefer' is missing or not 'transient'.");
        }
        let number = |name: &str, usual: usize| asked.query(name).map_or(Some(usual), |text| text.parse().ok());
        let (Some(limit), Some(offset)) = (number("limit", 1_000), number("offset", 0)) else {
            return error(400, "INVALID_PARAMETER", "limit and offset must be numbers.");
        };
        if !(1..=1_000).contains(&limit) || offset % limit != 0 {
            return error(
                400,
                "INVALID_PARAMETER",
                "The offset must be a multiple of the limit, which is at most 1000.",
            );
        }
        let body = asked.json();
        let Some(query) = body["q"].as_str() else { return error(400, "INVALID_CONTENT", "There is no q.") };
        let own =
            self.catalogue.values().filter_map(Value::as_object).flat_map(|of| of.keys().map(|n| n.to_lowercase()));
        let columns = suiteql::Columns { own: own.collect(), hidden: &self.hidden };
        match suiteql::run(query, &self.tables, &self.zone, &columns) {
            Ok(found) => {
                let total = found.len().min(100_000);
                let items: Vec<Value> = found.into_iter().take(100_000).skip(offset).take(limit).collect();
                let more = offset + items.len() < total;
                let answer = json!({
                    "links": [], "count": items.len(), "hasMore": more, "items": items, "offset": offset,
                    "totalResults": total,
                });
                Reply::json(200, &answer)
            }
            Err(why) => error(
                400,
                "INVALID_PARAMETER",
                &format!("Invalid search query. Detailed unprocessed description follows. {why}"),
            ),
        }
    }
    /// OAuth 2 with a certificate: the assertion is read by another library than the one that made it.
    fn token(&self, asked: &Asked) -> Reply {
        let form: BTreeMap<String, String> = url::form_urlencoded::parse(asked.body.as_bytes()).into_owned().collect();
        let get = |name: &str| form.get(name).map_or("", String::as_str);
        let refused = |why: &str| Reply::json(400, &json!({"error": "invalid_grant", "error_description": why}));
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        if (get("grant_type"), get("client_assertion_type")) != ("client_credentials", kind) {
            return refused("grant or kind of assertion");
        }
        let Some(certificate) = &self.certificate else { return refused("no certificate") };
        let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::PS256);
        rules.set_audience(&[&asked.url]);
        rules.set_issuer(&["client-of-the-account"]);
        // The clock of the test stands still.
        rules.validate_exp = false;
        let key = jsonwebtoken::DecodingKey::from_rsa_der(certificate);
        let Ok(read) = jsonwebtoken::decode::<Value>(get("client_assertion"), &key, &rules) else {
            return refused("the assertion");
        };
        let (from, to) = (read.claims["iat"].as_u64().unwrap_or(0), read.claims["exp"].as_u64().unwrap_or(0));
        let lives = from.abs_diff(self.clock.now().seconds()) <= SKEW_SECONDS && to > from && to - from <= 3_600;
        if read.header.kid.as_deref() != Some("cert-7") || !lives || read.claims["scope"][0] != "rest_webservices" {
            return refused("key, times or scope");
        }
        Reply::json(200, &json!({"access_token": TOKEN, "expires_in": "3600", "token_type": "bearer"}))
    }
    fn check(&mut self, asked: &Asked) -> Result<(), String> {
        if self.certificate.is_some() && asked.header("authorization") == format!("Bearer {TOKEN}") {
            return Ok(());
        }
        let header = asked.header("authorization").strip_prefix("OAuth ").ok_or("There is no OAuth header.")?;
        let mut fields: Vec<(String, String)> = Vec::new();
        for part in header.split(", ") {
            let (name, value) = part.split_once('=').ok_or("A part of the header is no pair.")?;
            fields.push((name.to_owned(), decode(value.trim_matches('"'))));
        }
        let mut take = |name: &str| {
            let at = fields.iter().position(|(n, _)| n == name).ok_or(format!("{name} is missing."))?;
            Ok::<String, String>(fields.remove(at).1)
        };
        let (realm, given) = (take("realm")?, take("oauth_signature")?);
        let get = |name: &str| fields.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value.as_str());
        let known = realm == ACCOUNT && get("oauth_consumer_key") == KEYS[0] && get("oauth_token") == KEYS[2];
        if !known || get("oauth_signature_method") != "HMAC-SHA256" || get("oauth_version") != "1.0" {
            return Err("Account, keys or method are not known.".to_owned());
        }
        let at: u64 = get("oauth_timestamp").parse().map_err(|_| "The timestamp is no number.")?;
        if at.abs_diff(self.clock.now().seconds()) > SKEW_SECONDS {
            return Err("The timestamp is too far off.".to_owned());
        }
        if signature(&asked.method, &asked.url, &fields, KEYS) != given {
            return Err("The signature does not fit.".to_owned());
        }
        let nonce = get("oauth_nonce").to_owned();
        if nonce.len() < 6 || !self.nonces.insert(nonce) {
            return Err("The nonce was used before.".to_owned());
        }
        Ok(())
    }
}

/// A time as the account shows it.
pub fn shown(zone: &TimeZone, seconds: i64, pattern: &str) -> String {
    let stamp = Timestamp::from_second(seconds).expect("a time");
    zone.to_datetime(stamp).strftime(pattern).to_string()
}
