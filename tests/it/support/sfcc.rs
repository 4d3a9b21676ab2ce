//! Salesforce B2C Commerce as far as the connector asks: tokens of 30 minutes, orders per site in windows whose end is
//! left out, searches, a list that goes no further than its ceiling, load shedding (SCAPI Orders 1.5, Products 1.2,
//! Customers 1.1; the ceiling is 10,000 there).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine;
use serde_json::{Map, Value, json};
use tidemill::clock::Clock;
use tidemill::domain::time::Millis;

use super::fake::{Asked, Fake, Reply};

pub const CLIENT: (&str, &str) = ("aaaaaaaa-bbbb", "s3cret&password");
pub const ORGANIZATION: &str = "f_ecom_zzxy_prd";
const TOKEN_SECONDS: u64 = 1_799;

/// What is in the shop, and how it behaves.
pub struct Shop {
    clock: Clock,
    pub sites: BTreeMap<String, Vec<Value>>,
    pub products: Vec<Value>,
    pub lists: BTreeMap<String, Vec<Value>>,
    tokens: BTreeMap<String, Millis>,
    /// Offset and limit together may not pass this.
    pub ceiling: usize,
    /// Whether lists of orders say their total; the specification and the facts differ.
    pub tells_total: bool,
    /// Requests that are refused because of the load: so many of the next ones.
    pub shed: u32,
    /// With which status, and after how many seconds they may come back.
    pub shed_with: (u16, Option<u64>),
    /// When each of `requests` came.
    pub times: Vec<Millis>,
    /// After so many good answers, one fails with a 500.
    pub fail_after: Option<u32>,
    /// How long each request takes, in milliseconds.
    pub takes: u64,
    pub requests: Vec<Asked>,
}

/// The app.
pub struct Sfcc {
    shop: Arc<Mutex<Shop>>,
    pub fake: Fake,
}

/// An example of the published specification.
pub fn example(spec: &str, name: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures/sfcc/scapi-examples.json");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let specs = all["specs"].as_object().expect("specs");
    let (_, spec) = specs.iter().find(|(key, _)| key.starts_with(spec)).expect("a specification");
    spec["components"][name].clone()
}

/// The published specification's order with this number, changed at this time.
pub fn order(number: &str, site: &str, changed: &str) -> Value {
    let mut order = example("orders-oas", "OrdersGet")["data"][0].clone();
    order["orderNo"] = json!(number);
    order["siteId"] = json!(site);
    order["creationDate"] = json!("2026-01-10T10:00:00.000Z");
    order["lastModified"] = json!(changed);
    order
}

/// The published specification's product.
pub fn product(id: &str, changed: &str) -> Value {
    let mut product = example("products-oas", "DataProductExpandResult");
    product["id"] = json!(id);
    product["creationDate"] = json!("2026-01-01T00:00:00.000Z");
    product["lastModified"] = json!(changed);
    product
}

/// The published specification's customer.
pub fn customer(number: &str) -> Value {
    let mut customer = example("customers-oas", "CustomerSearchResult")["hits"][0]["data"].clone();
    customer["customerNo"] = json!(number);
    customer
}

fn problem(status: u16, kind: &str, title: &str, detail: &str) -> Reply {
    let kind = format!("https://api.commercecloud.salesforce.com/documentation/error/v1/errors/{kind}");
    let mut reply = Reply::json(status, &json!({"type": kind, "title": title, "detail": detail}));
    reply.headers = vec![("content-type", "application/problem+json".to_owned())];
    reply
}

fn time(value: &Value) -> Millis {
    value.as_str().and_then(Millis::parse_rfc3339).unwrap_or_default()
}

impl Sfcc {
    pub fn start(clock: &Clock) -> Self {
        let shop = Arc::new(Mutex::new(Shop {
            clock: clock.clone(),
            sites: BTreeMap::new(),
            products: Vec::new(),
            lists: BTreeMap::new(),
            tokens: BTreeMap::new(),
            ceiling: 10_000,
            tells_total: true,
            shed: 0,
            shed_with: (503, None),
            times: Vec::new(),
            fail_after: None,
            takes: 0,
            requests: Vec::new(),
        }));
        let answering = shop.clone();
        let fake = Fake::start(move |asked| answering.lock().expect("unpoisoned").answer(asked));
        Self { shop, fake }
    }
    /// How many requests there were, and when the last one came.
    pub fn last(&self) -> (usize, Millis) {
        let shop = self.shop();
        (shop.times.len(), *shop.times.last().expect("a request"))
    }
    /// The next request is refused with that status, and told after how many seconds to come back.
    pub fn refuse(&self, status: u16, seconds: Option<u64>) {
        let mut shop = self.shop();
        (shop.shed, shop.shed_with) = (1, (status, seconds));
    }
    pub fn shop(&self) -> MutexGuard<'_, Shop> {
        self.shop.lock().expect("unpoisoned")
    }
}

impl Shop {
    pub fn orders(&mut self, site: &str) -> &mut Vec<Value> {
        self.sites.entry(site.to_owned()).or_default()
    }
    fn answer(&mut self, asked: &Asked) -> Reply {
        if self.requests.len() < 10_000 {
            self.requests.push(asked.clone());
            self.times.push(self.clock.now());
        }
        self.clock.raise(Millis(self.clock.now().0 + self.takes));
        if asked.path == "/dwsso/oauth2/access_token" {
            return self.token(asked);
        }
        if self.shed > 0 {
            self.shed -= 1;
            let (status, wait) = self.shed_with;
            let mut reply = problem(status, "service-unavailable", "Service Unavailable", "The load is too high.");
            reply.headers.extend(wait.map(|seconds| ("retry-after", seconds.to_string())));
            reply.headers.extend([("sfdc_load", "95".to_owned()), ("sfdc_load_status", "THROTTLE".to_owned())]);
            return reply;
        }
        if let Some(left) = self.fail_after.as_mut() {
            if *left == 0 {
                self.fail_after = None;
                return problem(500, "internal-server-error", "Internal Server Error", "It broke.");
            }
            *left -= 1;
        }
        let token = asked.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        if self.tokens.get(token).is_none_or(|until| *until <= self.clock.now()) {
            return problem(401, "unauthorized", "Unauthorized", "The token is not valid.");
        }
        let parts: Vec<&str> = asked.path.trim_start_matches('/').split('/').collect();
        match (asked.method.as_str(), parts.as_slice()) {
            ("GET", ["checkout", "orders", "v1", "organizations", ORGANIZATION, "orders", rest @ ..]) => {
                self.order_call(asked, rest)
            }
            ("POST", ["product", "products", "v1", "organizations", ORGANIZATION, "product-search"]) => {
                let hit = |product: &Value| {
                    let mut hit = product.clone();
                    for name in ["variants", "imageGroups", "image", "variationAttributes", "assignedCategories"] {
                        hit.as_object_mut().expect("an object").shift_remove(name);
                    }
                    hit
                };
                search(asked, &self.products, &["id", "name", "creationDate"], self.ceiling, hit)
            }
            ("GET", ["product", "products", "v1", "organizations", ORGANIZATION, "products", id]) => {
                one(&self.products, "id", id, "product")
            }
            (
                "POST",
                [
                    "customer",
                    "customers",
                    "v1",
                    "organizations",
                    ORGANIZATION,
                    "customer-lists",
                    list,
                    "customer-search",
                ],
            ) => {
                let hit = |customer: &Value| json!({"data": customer, "relevance": 4.25});
                match self.lists.get(*list) {
                    Some(all) => search(asked, all, &["customerNo"], self.ceiling, hit),
                    None => {
                        problem(404, "customer-list-not-found", "Customer List Not Found", "There is no such list.")
                    }
                }
            }
            (
                "GET",
                [
                    "customer",
                    "customers",
                    "v1",
                    "organizations",
                    ORGANIZATION,
                    "customer-lists",
                    list,
                    "customers",
                    number,
                ],
            ) => {
                let none = Vec::new();
                one(self.lists.get(*list).unwrap_or(&none), "customerNo", number, "customer")
            }
            _ => problem(404, "not-found", "Not Found", "There is nothing at this address."),
        }
    }
    fn token(&mut self, asked: &Asked) -> Reply {
        let pair = format!("{}:{}", CLIENT.0, CLIENT.1);
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        let form: BTreeMap<String, String> = url::form_urlencoded::parse(asked.body.as_bytes()).into_owned().collect();
        let scope = form.get("scope").cloned().unwrap_or_default();
        let fits = asked.header("authorization") == basic
            && form.get("grant_type").is_some_and(|grant| grant == "client_credentials")
            && scope.split(' ').any(|scope| scope == "SALESFORCE_COMMERCE_API:zzxy_prd");
        if !fits {
            return Reply::json(
                401,
                &json!({"error": "invalid_client", "error_description": "Client authentication failed"}),
            );
        }
        let token = format!("token-{}", self.tokens.len());
        self.tokens.insert(token.clone(), Millis(self.clock.now().0 + TOKEN_SECONDS * 1_000));
        Reply::json(
            200,
            &json!({"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_SECONDS, "scope": scope}),
        )
    }
    fn order_call(&self, asked: &Asked, rest: &[&str]) -> Reply {
        let Some(site) = asked.query("siteId") else {
            return problem(
                400,
                "missing-parameter",
                "Missing Parameter",
                "Required query parameter siteId is missing.",
            );
        };
        let Some(all) = self.sites.get(site) else {
            return problem(404, "site-not-found", "Site Not Found", "The site does not exist.");
        };
        if let [number] = rest {
            return one(all, "orderNo", number, "order");
        }
        let number = |name: &str, default: usize| asked.query(name).map_or(Some(default), |text| text.parse().ok());
        let (Some(limit), Some(offset)) = (number("limit", 100), number("offset", 0)) else {
            return problem(400, "bad-request", "Bad Request", "limit and offset are numbers.");
        };
        if !(1..=200).contains(&limit) || offset + limit > self.ceiling {
            return problem(400, "bad-request", "Bad Request", "offset and limit together are too large.");
        }
        let by = if asked.query("sortBy") == Some("last_modified_date") { "lastModified" } else { "creationDate" };
        let bound = |name: &str| asked.query(name).map(|text| Millis::parse_rfc3339(text).expect("RFC 3339"));
        let mut found: Vec<&Value> = all.iter().collect();
        for (field, name) in [("lastModified", "lastModifiedDate"), ("creationDate", "creationDate")] {
            if let Some(from) = bound(&format!("{name}From")) {
                found.retain(|order| time(&order[field]) >= from);
            }
            if let Some(to) = bound(&format!("{name}To")) {
                found.retain(|order| time(&order[field]) < to);
            }
        }
        found.sort_by_key(|order| (time(&order[by]), order["orderNo"].to_string()));
        if asked.query("sortOrder") != Some("asc") {
            found.reverse();
        }
        let total = found.len();
        let data: Vec<&Value> = found.into_iter().skip(offset).take(limit).collect();
        let mut answer = json!({ "data": data });
        if self.tells_total {
            (answer["limit"], answer["offset"], answer["total"]) = (json!(limit), json!(offset), json!(total));
        }
        Reply::json(200, &answer)
    }
}

fn one(all: &[Value], field: &str, id: &str, what: &str) -> Reply {
    match all.iter().find(|record| record[field] == id) {
        Some(record) => Reply::json(200, record),
        None => problem(404, &format!("{what}-not-found"), "Not Found", &format!("No {what} '{id}' was found.")),
    }
}

/// A search by the shapes that the connector sends.
fn search(asked: &Asked, all: &[Value], sortable: &[&str], ceiling: usize, hit: impl Fn(&Value) -> Value) -> Reply {
    let body = asked.json();
    let number = |name: &str| body[name].as_u64().and_then(|n| usize::try_from(n).ok());
    let (limit, offset) = (number("limit").unwrap_or(25), number("offset").unwrap_or(0));
    if limit > 200 || offset + limit > ceiling {
        return problem(400, "bad-request", "Bad Request", "offset and limit together are too large.");
    }
    let sort = body["sorts"][0]["field"].as_str().unwrap_or("id");
    if !sortable.contains(&sort) {
        let detail = format!("The field '{sort}' can't be used to sort the results.");
        return problem(400, "field-not-sortable", "Field Not Sortable", &detail);
    }
    let Some(fits) = condition(&body["query"]) else {
        return problem(400, "bad-request", "Bad Request", "The query is not understood.");
    };
    let mut found: Vec<&Value> = all.iter().filter(|record| fits(record)).collect();
    found.sort_by_key(|record| record[sort].to_string());
    let total = found.len();
    let hits: Vec<Value> = found.into_iter().skip(offset).take(limit).map(hit).collect();
    Reply::json(200, &json!({"limit": limit, "offset": offset, "total": total, "query": body["query"], "hits": hits}))
}

type Condition = Box<dyn Fn(&Value) -> bool>;

fn condition(query: &Value) -> Option<Condition> {
    let members: &Map<String, Value> = query.as_object()?;
    let (kind, of) = members.iter().next().filter(|_| members.len() == 1)?;
    match kind.as_str() {
        "matchAllQuery" => Some(Box::new(|_| true)),
        "filteredQuery" => {
            let range = of["filter"]["rangeFilter"].clone();
            let field = range["field"].as_str()?.to_owned();
            let inner = condition(&of["query"])?;
            // Both ends are in it unless it is said otherwise.
            Some(Box::new(move |record| {
                let at = time(&record[&field]);
                inner(record)
                    && (range["from"].is_null() || at >= time(&range["from"]))
                    && (range["to"].is_null() || at <= time(&range["to"]))
            }))
        }
        "termQuery" if of["operator"] == "greater" => {
            let (field, value) = (of["fields"][0].as_str()?.to_owned(), of["values"][0].as_str()?.to_owned());
            Some(Box::new(move |record| record[&field].as_str().is_some_and(|at| at > value.as_str())))
        }
        _ => None,
    }
}
