//! A stateful fake of one Salesforce org: OAuth, SOQL by pages, describe, the list of deleted records, limits.
//!
//! Behaves as developer.salesforce.com says, traps included: no `expires_in`; equal stamps in bulk, to the second; a 401 in
//! the middle of a walk; refresh tokens that rotate or die; locators that end; hidden fields that are errors; a bin that is
//! purged; objects that the org has switched off; parts that change while their record does not. Always true: everything is
//! bounded, and ends with its test. Not here: SOQL itself (`soql`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::soql::{self, Query};

/// The org's id, and the other org's.
pub const ORG: &str = "00Dx0000000BV7zEAG";
pub const STRANGER: &str = "00Dx0000000ZZZZEAG";
pub const CLIENT: (&str, &str) = ("consumer-key", "consumer-secret");
const RECORDS_MAX: usize = 100_000;
const LOCATORS_MAX: usize = 1_000;
const ADDRESS_BYTES_MAX: usize = 16_000;

/// What an object's records have beside their own: name, type, custom.
pub type Fields = Vec<(String, &'static str, bool)>;

#[derive(Default)]
struct Org {
    objects: BTreeMap<String, Fields>,
    hidden: BTreeSet<(String, String)>,
    records: BTreeMap<String, BTreeMap<String, Map<String, Value>>>,
    /// Object, id, when: what was purged.
    purged: Vec<(String, String, String)>,
    number: u64,
    codes: HashMap<String, (String, String)>,
    tokens: BTreeSet<String>,
    refresh: BTreeSet<String>,
    locators: HashMap<String, (Query, Vec<Map<String, Value>>, usize)>,
    log: Vec<String>,
    /// The org's JWT key: RSA public key, PKCS#1 DER.
    jwt_key: Option<Vec<u8>>,
    assertions: Vec<String>,
    pub knobs: Knobs,
}

/// What a test may turn.
#[derive(Clone, Debug)]
pub struct Knobs {
    pub page: usize,
    /// Requests until every access token dies, once.
    pub expire_after: Option<u32>,
    pub refuse_refresh: bool,
    pub rotate: bool,
    /// Calls of the day, and how many there may be.
    pub usage: (u64, u64),
    /// `earliestDateAvailable` of `/deleted/`.
    pub earliest: String,
    /// Locators die before their first use, so many times.
    pub lose_locators: u32,
}

impl Default for Knobs {
    fn default() -> Self {
        let earliest = "2020-01-01T00:00:00.000+0000".to_owned();
        let (page, usage) = (2_000, (896, 15_000));
        Self { page, expire_after: None, refuse_refresh: false, rotate: false, usage, earliest, lose_locators: 0 }
    }
}

/// The org; clones are the same one.
#[derive(Clone)]
pub struct Salesforce {
    org: Arc<Mutex<Org>>,
    pub url: String,
}

/// The time as Salesforce writes it: no colon in the offset, no milliseconds.
pub fn stamp(seconds_ago: i64) -> String {
    let at = jiff::Timestamp::now().as_second() - seconds_ago;
    let at = jiff::Timestamp::from_second(at).expect("a time");
    at.strftime("%Y-%m-%dT%H:%M:%S.000+0000").to_string()
}

fn seed() -> BTreeMap<String, Fields> {
    let own = |names: &[(&str, &'static str)]| -> Fields {
        let usual =
            [("Id", "id"), ("IsDeleted", "boolean"), ("CreatedDate", "datetime"), ("SystemModstamp", "datetime")];
        let all = usual.iter().chain(names);
        all.map(|(name, kind)| ((*name).to_owned(), *kind, name.ends_with("__c"))).collect()
    };
    let all = [
        (
            "Account",
            own(&[
                ("Name", "string"),
                ("Phone", "phone"),
                ("Industry", "picklist"),
                ("NumberOfEmployees", "int"),
                ("BillingStreet", "textarea"),
                ("BillingCity", "string"),
                ("BillingAddress", "address"),
                ("Unmapped", "string"),
                ("Tier__c", "picklist"),
                ("Revenue__c", "currency"),
            ]),
        ),
        (
            "Contact",
            own(&[
                ("FirstName", "string"),
                ("LastName", "string"),
                ("Email", "email"),
                ("AccountId", "reference"),
                ("Size__c", "string"),
            ]),
        ),
        ("Lead", own(&[("LastName", "string"), ("Company", "string"), ("Status", "picklist")])),
        (
            "Opportunity",
            own(&[
                ("Name", "string"),
                ("StageName", "picklist"),
                ("Amount", "currency"),
                ("IsWon", "boolean"),
                ("IsClosed", "boolean"),
            ]),
        ),
        (
            "OpportunityStage",
            own(&[("MasterLabel", "string"), ("SortOrder", "int"), ("IsClosed", "boolean"), ("IsWon", "boolean")]),
        ),
        ("Task", own(&[("Subject", "string"), ("Status", "picklist"), ("WhoId", "reference")])),
        ("Note", own(&[("Title", "string"), ("Body", "textarea"), ("ParentId", "reference")])),
        ("ContentNote", own(&[("Title", "string"), ("TextPreview", "string"), ("Content", "base64")])),
        ("User", own(&[("Name", "string"), ("Email", "email"), ("IsActive", "boolean")])),
        (
            "Order",
            own(&[
                ("AccountId", "reference"),
                ("OrderNumber", "string"),
                ("Status", "picklist"),
                ("TotalAmount", "currency"),
                ("BillingStreet", "textarea"),
                ("BillingCity", "string"),
                ("BillingAddress", "address"),
                ("Channel__c", "string"),
            ]),
        ),
        (
            "OrderItem",
            own(&[
                ("OrderId", "reference"),
                ("Product2Id", "reference"),
                ("Quantity", "double"),
                ("UnitPrice", "currency"),
            ]),
        ),
        (
            "Product2",
            own(&[
                ("Name", "string"),
                ("ProductCode", "string"),
                ("StockKeepingUnit", "string"),
                ("IsActive", "boolean"),
                ("Brand__c", "string"),
            ]),
        ),
        (
            "PricebookEntry",
            own(&[
                ("Product2Id", "reference"),
                ("Pricebook2Id", "reference"),
                ("UnitPrice", "currency"),
                ("IsActive", "boolean"),
            ]),
        ),
        ("Pricebook2", own(&[("Name", "string"), ("IsStandard", "boolean")])),
        ("Organization", vec![("Id".to_owned(), "id", false)]),
    ];
    let mut all: BTreeMap<String, Fields> = all.into_iter().map(|(name, fields)| (name.to_owned(), fields)).collect();
    for object in ["User", "OpportunityStage"] {
        all.get_mut(object).expect("seeded").retain(|(name, _, _)| name != "IsDeleted");
    }
    all
}

fn prefix(object: &str) -> &'static str {
    match object {
        "Account" => "001",
        "Note" => "002",
        "Contact" => "003",
        "User" => "005",
        "Opportunity" => "006",
        "Lead" => "00Q",
        "Task" => "00T",
        "Order" => "801",
        "OrderItem" => "802",
        "ContentNote" => "069",
        "Pricebook2" => "01s",
        "Product2" => "01t",
        "PricebookEntry" => "01u",
        _ => "01J",
    }
}

impl Salesforce {
    pub fn start() -> Self {
        let org = Arc::new(Mutex::new(Org { objects: seed(), ..Org::default() }));
        let organisation = Map::from_iter([("Id".to_owned(), Value::from(ORG))]);
        let of = BTreeMap::from([(ORG.to_owned(), organisation)]);
        org.lock().expect("no panic").records.insert("Organization".to_owned(), of);
        let data = web::Data::from(org.clone());
        let server =
            HttpServer::new(move || App::new().app_data(data.clone()).default_service(web::route().to(answer)));
        let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).expect("a free port");
        let url = format!("http://{}", server.addrs()[0]);
        actix_rt::spawn(server.run());
        Self { org, url }
    }
    fn org(&self) -> std::sync::MutexGuard<'_, Org> {
        self.org.lock().expect("no panic")
    }
    pub fn turn(&self, change: impl FnOnce(&mut Knobs)) {
        change(&mut self.org().knobs);
    }
    /// A token that is good now, and its refresh token.
    pub fn grant(&self) -> (String, String) {
        let mut org = self.org();
        let (access, refresh) = (org.fresh("access"), org.fresh("refresh"));
        org.tokens.insert(access.clone());
        org.refresh.insert(refresh.clone());
        (access, refresh)
    }
    pub fn trust(&self, key: &[u8]) {
        self.org().jwt_key = Some(key.to_owned());
    }
    pub fn assertions(&self) -> Vec<String> {
        self.org().assertions.clone()
    }
    /// A record of now, or of so many seconds ago.
    pub fn put(&self, object: &str, fields: Value, seconds_ago: i64) -> String {
        let mut org = self.org();
        org.number += 1;
        let number = org.number;
        assert!(number < RECORDS_MAX as u64, "too many records");
        let id = format!("{}x{number:011}AAA", prefix(object));
        let at = stamp(seconds_ago);
        let mut record = Map::from_iter([("Id".to_owned(), Value::from(id.clone()))]);
        for name in ["CreatedDate", "SystemModstamp"] {
            record.insert(name.to_owned(), at.as_str().into());
        }
        record.insert("IsDeleted".to_owned(), false.into());
        record.extend(fields.as_object().expect("an object").clone());
        org.records.entry(object.to_owned()).or_default().insert(id.clone(), record);
        id
    }
    pub fn change(&self, object: &str, id: &str, fields: Value) {
        let mut org = self.org();
        let record = org.records.get_mut(object).and_then(|all| all.get_mut(id)).expect("a record");
        record.extend(fields.as_object().expect("an object").clone());
        record.insert("SystemModstamp".to_owned(), stamp(0).into());
    }
    /// Into the bin; an order takes its products along.
    pub fn delete(&self, object: &str, id: &str) {
        self.change(object, id, json!({"IsDeleted": true}));
        let of = |org: &Org| -> Vec<String> {
            let items = org.records.get("OrderItem").into_iter().flatten();
            items.filter(|(_, item)| object == "Order" && item["OrderId"] == id).map(|(id, _)| id.clone()).collect()
        };
        let items = of(&self.org());
        items.iter().for_each(|item| self.change("OrderItem", item, json!({"IsDeleted": true})));
    }
    /// Out of the bin: only `/deleted/` tells of it.
    pub fn purge(&self, object: &str, id: &str) {
        let mut org = self.org();
        org.records.get_mut(object).expect("an object").remove(id).expect("a record");
        org.purged.push((object.to_owned(), id.to_owned(), stamp(0)));
    }
    pub fn add_field(&self, object: &str, name: &str) {
        self.org().objects.get_mut(object).expect("an object").push((name.to_owned(), "string", true));
    }
    /// Several currencies are switched on: records of money have one each.
    pub fn use_currencies(&self) {
        for object in ["Opportunity", "Order", "OrderItem", "Product2", "PricebookEntry"] {
            let field = ("CurrencyIsoCode".to_owned(), "picklist", false);
            self.org().objects.get_mut(object).expect("an object").push(field);
        }
    }
    /// The org has the object switched off; the fields that come back with [`Self::switch_on`].
    pub fn switch_off(&self, object: &str) -> Fields {
        self.org().objects.remove(object).expect("an object")
    }
    pub fn switch_on(&self, object: &str, fields: Fields) {
        self.org().objects.insert(object.to_owned(), fields);
    }
    /// Field-level security hides it from the account.
    pub fn hide(&self, object: &str, name: &str) {
        self.org().hidden.insert((object.to_owned(), name.to_owned()));
    }
    /// What was asked, as `METHOD path?query`, decoded.
    pub fn asked(&self, part: &str) -> Vec<String> {
        self.org().log.iter().filter(|line| line.contains(part)).cloned().collect()
    }
    /// An outbound message of an organisation.
    pub fn message(organisation: &str, object: &str, ids: &[&str]) -> String {
        Self::message_with(organisation, object, &ids.iter().map(|id| vec![("Id", *id)]).collect::<Vec<_>>())
    }
    /// The same, with these fields of each record.
    pub fn message_with(organisation: &str, object: &str, records: &[Vec<(&str, &str)>]) -> String {
        let notification = |(at, fields): (usize, &Vec<(&str, &str)>)| {
            let fields: String = fields.iter().map(|(name, value)| format!("<sf:{name}>{value}</sf:{name}>")).collect();
            format!(
                "<Notification><Id>04l{at:012}AAA</Id><sObject xsi:type=\"sf:{object}\" \
                 xmlns:sf=\"urn:sobject.enterprise.soap.sforce.com\">{fields}</sObject></Notification>"
            )
        };
        let all: String = records.iter().enumerate().map(notification).collect();
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><soapenv:Envelope \
             xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><soapenv:Body><notifications \
             xmlns=\"http://soap.sforce.com/2005/09/outbound\"><OrganizationId>{organisation}</OrganizationId>\
             <ActionId>04k000000000001AAA</ActionId><SessionId>s3cret-session</SessionId>\
             <EnterpriseUrl>https://x</EnterpriseUrl><PartnerUrl>https://x</PartnerUrl>{all}</notifications>\
             </soapenv:Body></soapenv:Envelope>"
        )
    }
}

type Answer = Result<HttpResponse, HttpResponse>;

fn wrong(status: u16, code: &str, message: &str) -> HttpResponse {
    let status = status.try_into().expect("a status");
    HttpResponse::build(status).json(json!([{"message": message, "errorCode": code}]))
}

impl Org {
    fn fresh(&mut self, kind: &str) -> String {
        self.number += 1;
        format!("{kind}-{}", self.number)
    }
    fn may(&mut self, request: &HttpRequest) -> Result<(), HttpResponse> {
        if let Some(left) = self.knobs.expire_after {
            self.knobs.expire_after = left.checked_sub(1);
            if left == 0 {
                self.tokens.clear();
            }
        }
        let header = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !header.strip_prefix("Bearer ").is_some_and(|token| self.tokens.contains(token)) {
            return Err(wrong(401, "INVALID_SESSION_ID", "Session expired or invalid"));
        }
        let (used, limit) = self.knobs.usage;
        if used >= limit {
            return Err(wrong(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."));
        }
        self.knobs.usage.0 += 1;
        Ok(())
    }
    fn shown(&self, object: &str) -> Result<Vec<&(String, &'static str, bool)>, HttpResponse> {
        let unknown = || {
            let message = format!(
                "sObject type '{object}' is not supported. If you are attempting to use a custom object, be sure to \
                 append the '__c' after the entity name."
            );
            wrong(400, "INVALID_TYPE", &message)
        };
        let fields = self.objects.get(object).ok_or_else(unknown)?;
        Ok(fields.iter().filter(|f| !self.hidden.contains(&(object.to_owned(), f.0.clone()))).collect())
    }
    fn describe(&self, object: &str) -> Answer {
        let label = |name: &str| name.trim_end_matches("__c").replace('_', " ");
        let field =
            |f: &&(String, &'static str, bool)| json!({"name": f.0, "type": f.1, "custom": f.2, "label": label(&f.0)});
        let missing = |_| wrong(404, "NOT_FOUND", "The requested resource does not exist");
        let fields: Vec<Value> = self.shown(object).map_err(missing)?.iter().map(field).collect();
        Ok(HttpResponse::Ok().json(json!({"name": object, "fields": fields})))
    }
    fn query(&mut self, soql: &str, all: bool, version: &str) -> Answer {
        let query = Query::read(soql).map_err(|message| wrong(400, "MALFORMED_QUERY", &message))?;
        for name in query.named() {
            let (object, column) = name.split_once('.').unwrap_or((&query.object, &name));
            if !self.shown(object)?.iter().any(|field| field.0 == column) {
                let message = format!(
                    "\nSELECT {name} FROM {}\n       ^\nERROR at Row:1:Column:8\nNo such column '{column}' on entity \
                     '{object}'. If you are attempting to use a custom field, be sure to append the '__c' after the \
                     custom field name.",
                    query.object
                );
                return Err(wrong(400, "INVALID_FIELD", &message));
            }
        }
        let (none, parents) = (BTreeMap::new(), query.parents());
        let records = self.records.get(&query.object).unwrap_or(&none).values();
        let live = |record: &&Map<String, Value>| all || record.get("IsDeleted") != Some(&Value::Bool(true));
        let found = if parents.is_empty() {
            query.carried_out(records.filter(live))
        } else {
            let whole = |record: &Map<String, Value>| self.with_parents(record, &parents);
            query.carried_out(records.filter(live).map(whole).collect::<Vec<_>>().iter())
        };
        self.page(query, found, 0, all, version)
    }
    /// A record with its parents in it: `Order` by `OrderId`.
    fn with_parents(&self, record: &Map<String, Value>, parents: &BTreeSet<String>) -> Map<String, Value> {
        let mut whole = record.clone();
        for parent in parents {
            let id = record.get(&format!("{parent}Id")).and_then(Value::as_str).unwrap_or_default();
            let found = self.records.get(parent).and_then(|all| all.get(id)).cloned();
            whole.insert(parent.clone(), found.map_or(Value::Null, Value::Object));
        }
        whole
    }
    fn page(&mut self, query: Query, found: Vec<Map<String, Value>>, from: usize, all: bool, version: &str) -> Answer {
        let (total, end) = (found.len(), (from + self.knobs.page).min(found.len()));
        let shown = |record: &Map<String, Value>| {
            let id = record["Id"].as_str().unwrap_or_default();
            let url = format!("/services/data/v{version}/sobjects/{}/{id}", query.object);
            let mut shown = Map::from_iter([("attributes".to_owned(), json!({"type": query.object, "url": url}))]);
            for name in &query.fields {
                let value = soql::field(record, name).clone();
                match name.split_once('.') {
                    None => {
                        shown.insert(name.clone(), value);
                    }
                    Some((parent, _)) if record[parent].is_null() => {
                        shown.insert(parent.to_owned(), Value::Null);
                    }
                    Some((parent, name)) => {
                        let of = json!({"attributes": {"type": parent}});
                        shown.entry(parent.to_owned()).or_insert(of)[name] = value;
                    }
                }
            }
            Value::Object(shown)
        };
        let records: Vec<Value> = found[from..end].iter().map(shown).collect();
        let mut answer = json!({"totalSize": total, "done": end == total, "records": records});
        if end < total {
            self.number += 1;
            let locator = format!("0r8{:012}-{end}", self.number);
            let verb = if all { "queryAll" } else { "query" };
            answer["nextRecordsUrl"] = format!("/services/data/v{version}/{verb}/{locator}").into();
            if self.locators.len() >= LOCATORS_MAX {
                self.locators.clear();
            }
            if self.knobs.lose_locators > 0 {
                self.knobs.lose_locators -= 1;
            } else {
                self.locators.insert(locator, (query, found, end));
            }
        }
        Ok(HttpResponse::Ok().json(answer))
    }
    fn deleted(&self, object: &str, query: &HashMap<String, String>) -> Answer {
        self.shown(object)?;
        let time = |name: &str| {
            let text = query.get(name).map(String::as_str).unwrap_or_default();
            text.parse::<jiff::Timestamp>()
                .map_err(|_| wrong(400, "INVALID_REPLICATION_DATE", &format!("{name}: {text}")))
        };
        let (start, end) = (time("start")?, time("end")?);
        let now = jiff::Timestamp::now();
        if end.as_second() - start.as_second() <= 60 {
            return Err(wrong(400, "INVALID_REPLICATION_DATE", "startDate must be at least one minute before endDate"));
        }
        if now.as_second() - start.as_second() > 15 * 86_400 {
            return Err(wrong(400, "INVALID_REPLICATION_DATE", "startDate before org replication enabled date"));
        }
        let stamp_of = |time: jiff::Timestamp| time.strftime("%Y-%m-%dT%H:%M:%S.000+0000").to_string();
        let (from, to) = (stamp_of(start), stamp_of(end));
        let in_bin = self
            .records
            .get(object)
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter(|r| r.get("IsDeleted") == Some(&Value::Bool(true)));
        let in_bin =
            in_bin.map(|r| (r["Id"].as_str().unwrap_or_default(), r["SystemModstamp"].as_str().unwrap_or_default()));
        let purged = self.purged.iter().filter(|(o, ..)| o == object).map(|(_, id, at)| (id.as_str(), at.as_str()));
        let fits =
            |(_, at): &(&str, &str)| *at >= from.as_str() && *at <= to.as_str() && *at >= self.knobs.earliest.as_str();
        let found = in_bin.chain(purged).filter(fits).map(|(id, at)| json!({"id": id, "deletedDate": at}));
        Ok(HttpResponse::Ok().json(json!({
            "deletedRecords": found.collect::<Vec<_>>(),
            "earliestDateAvailable": self.knobs.earliest,
            "latestDateCovered": to,
        })))
    }
    fn token(&mut self, form: &HashMap<String, String>, url: &str) -> Answer {
        let get = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let invalid =
            |why: &str| HttpResponse::BadRequest().json(json!({"error": "invalid_grant", "error_description": why}));
        let is_client = (get("client_id"), get("client_secret")) == CLIENT;
        let stale = "expired access/refresh token";
        let mut with_refresh = false;
        match get("grant_type") {
            "urn:ietf:params:oauth:grant-type:jwt-bearer" => {
                let key = self.jwt_key.as_ref().ok_or_else(|| invalid("no certificate"))?;
                let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
                rules.set_audience(&[url]);
                rules.set_issuer(&[CLIENT.0]);
                let key = jsonwebtoken::DecodingKey::from_rsa_der(key);
                let claims = jsonwebtoken::decode::<Value>(get("assertion"), &key, &rules);
                let claims = claims.map_err(|error| invalid(&error.to_string()))?.claims;
                if claims["sub"] != "integration@acme.example" {
                    return Err(invalid("user hasn't approved this consumer"));
                }
                self.assertions.push(get("assertion").to_owned());
            }
            _ if !is_client => return Err(invalid("invalid client credentials")),
            "client_credentials" => {}
            "authorization_code" => {
                let (back, challenge) =
                    self.codes.remove(get("code")).ok_or_else(|| invalid("expired authorization code"))?;
                let made = URL_SAFE_NO_PAD.encode(Sha256::digest(get("code_verifier").as_bytes()));
                if back != get("redirect_uri") || challenge != made {
                    return Err(invalid("invalid code verifier"));
                }
                with_refresh = true;
            }
            "refresh_token" => {
                if self.knobs.refuse_refresh || !self.refresh.contains(get("refresh_token")) {
                    return Err(invalid(stale));
                }
                if self.knobs.rotate {
                    self.refresh.remove(get("refresh_token"));
                    with_refresh = true;
                }
            }
            _ => return Err(HttpResponse::BadRequest().json(json!({"error": "unsupported_grant_type"}))),
        }
        let access = self.fresh("access");
        self.tokens.insert(access.clone());
        let id = format!("{url}/id/{ORG}/005x00000012Q9PAAU");
        let mut answer = json!({"access_token": access, "instance_url": url, "id": id, "token_type": "Bearer",
            "issued_at": "1278448832702", "signature": "sig=", "scope": "api refresh_token"});
        if with_refresh {
            let refresh = self.fresh("refresh");
            answer["refresh_token"] = refresh.clone().into();
            self.refresh.insert(refresh);
        }
        Ok(HttpResponse::Ok().json(answer))
    }
    /// The person allows it at once.
    fn authorize(&mut self, query: &HashMap<String, String>) -> HttpResponse {
        let get = |name: &str| query.get(name).cloned().unwrap_or_default();
        let code = self.fresh("code");
        self.codes.insert(code.clone(), (get("redirect_uri"), get("code_challenge")));
        let mut back = url::Url::parse(&get("redirect_uri")).expect("an address");
        back.query_pairs_mut().append_pair("code", &code).append_pair("state", &get("state"));
        HttpResponse::Found().insert_header(("location", back.as_str())).finish()
    }
    fn data(&mut self, version: &str, rest: &str, query: &HashMap<String, String>) -> Answer {
        let parts: Vec<&str> = rest.split('/').collect();
        match parts[..] {
            ["query" | "queryAll"] => {
                let soql = query.get("q").cloned().unwrap_or_default();
                self.query(&soql, parts[0] == "queryAll", version)
            }
            ["query" | "queryAll", locator] => {
                let found = self.locators.remove(locator);
                let (query, found, from) =
                    found.ok_or_else(|| wrong(400, "INVALID_QUERY_LOCATOR", "invalid query locator"))?;
                self.page(query, found, from, parts[0] == "queryAll", version)
            }
            ["sobjects", object, "describe"] => self.describe(object),
            ["sobjects", object, "deleted"] => self.deleted(object, query),
            ["sobjects", object, id] => {
                let record = self.records.get(object).and_then(|all| all.get(id)).cloned();
                let missing = || wrong(404, "NOT_FOUND", "The requested resource does not exist");
                Ok(HttpResponse::Ok().json(record.ok_or_else(missing)?))
            }
            _ => Err(wrong(404, "NOT_FOUND", "The requested resource does not exist")),
        }
    }
}

async fn answer(request: HttpRequest, body: web::Bytes, org: web::Data<Mutex<Org>>) -> HttpResponse {
    let pairs = |bytes: &[u8]| -> HashMap<String, String> { url::form_urlencoded::parse(bytes).into_owned().collect() };
    let query = pairs(request.query_string().as_bytes());
    let mut org = org.lock().expect("no panic");
    // "The combined length of the URI and headers" (app limits cheat sheet).
    if request.uri().to_string().len() > ADDRESS_BYTES_MAX {
        return HttpResponse::build(actix_web::http::StatusCode::URI_TOO_LONG).finish();
    }
    let path = request.path().trim_end_matches('/').to_owned();
    let shown = query.get("q").cloned().unwrap_or_else(|| request.query_string().to_owned());
    org.log.push(format!("{} {path}?{shown}", request.method()));
    let url = format!("http://{}", request.connection_info().host());
    let done = match path.as_str() {
        "/services/oauth2/authorize" => Ok(org.authorize(&query)),
        "/services/oauth2/token" => org.token(&pairs(&body), &url),
        "/services/oauth2/revoke" => {
            let token = pairs(&body).remove("token").unwrap_or_default();
            org.refresh.remove(&token);
            Ok(HttpResponse::Ok().finish())
        }
        path => match path.strip_prefix("/services/data/v").and_then(|rest| rest.split_once('/')) {
            Some((version, rest)) => {
                let (version, rest) = (version.to_owned(), rest.to_owned());
                org.may(&request).and_then(|()| org.data(&version, &rest, &query))
            }
            None => Err(HttpResponse::NotFound().finish()),
        },
    };
    let mut answer = done.unwrap_or_else(|refused| refused);
    let usage = format!("api-usage={}/{}", org.knobs.usage.0, org.knobs.usage.1);
    let name = actix_web::http::header::HeaderName::from_static("sforce-limit-info");
    answer.headers_mut().insert(name, usage.parse().expect("a header"));
    answer
}
