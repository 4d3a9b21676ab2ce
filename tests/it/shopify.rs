//! A Shopify shop, connected through the real engine: connecting, polls, webhooks, privacy, and issue 4's case 4.

mod bulk;
mod metafields;
mod webhooks;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidemill::api;

use crate::support::api::Node;
use crate::support::browser::{Browser, Page};
use crate::support::receiver::Receiver;
use crate::support::shopify::{CLIENT_ID, CLIENT_SECRET, Hook, PERMANENT, SHOP, Shop, hook, signed};

/// Where browsers and the shop see the node.
const PUBLIC: &str = "https://tide.example/mill";
const ONE: &str = "/2024-03/one";
const SETTINGS: &[(&str, &str)] = &[("TIDEMILL__SERVER__PUBLIC_URL", PUBLIC)];

fn at(path: &str) -> String {
    format!("{ONE}/{path}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

/// The body of a webhook as a client library's own fixture has it, with this id.
fn rest_body(fixture: &str, noun: &str, id: u64) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures/shopify/rest-fixtures.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("the fixtures")).expect("JSON");
    let mut body = all["fixtures"][fixture][noun].clone();
    assert!(body.is_object(), "{fixture}");
    body["id"] = id.into();
    body
}

struct Desk {
    node: Node,
    shop: Shop,
    integration: String,
}

impl Desk {
    async fn new() -> Self {
        Self::with(json!({})).await
    }

    /// With further parameters of the integration.
    async fn with(more: Value) -> Self {
        let node = Node::start_with(SETTINGS, api::configure).await;
        let shop = Shop::start(node.engine.clock.clone());
        node.post(&at("users"), json!({"username": "ada"})).await.ok();
        let mut parameters = json!({"baseUri": shop.url, "clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET,
            "formerSecret": "shpss_of-before"});
        for (name, value) in more.as_object().expect("parameters") {
            parameters[name] = value.clone();
        }
        let made = node.post(&at("integrations"), json!({"connector": "shopify", "parameters": parameters})).await.ok();
        let integration = text(&made["integration"]["integrationId"]);
        Self { node, shop, integration }
    }

    /// Connects the shop by its permanent token, with what is there already as its baseline.
    async fn connect(&self, more: Value) -> String {
        let mut wish = json!({"userId": "ada", "integrationId": self.integration, "credentials": {"accessToken": PERMANENT},
            "parameters": {"shop": SHOP}, "pollIntervalSeconds": 86_400, "fullScanIntervalSeconds": 86_400});
        for (name, value) in more.as_object().expect("fields") {
            wish[name] = value.clone();
        }
        let made = self.node.post(&at("connections"), wish).await.ok();
        text(&made["connection"]["connectionId"])
    }

    async fn until(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.node.until(path, fits).await
    }

    async fn connection(&self, id: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.until(&at(&format!("connections/{id}")), |answer| fits(&answer["connection"])).await
    }

    /// All of its collections have been read, and its webhooks are registered.
    async fn ready(&self, id: &str) {
        let read = |c: &Value| c["collections"].as_array().expect("a list").iter().all(|c| c["lastPullAt"].is_string());
        self.connection(id, read).await;
        let end = Instant::now() + Duration::from_secs(60);
        while self.shop.world().subscriptions.len() < 12 {
            assert!(Instant::now() < end, "{:?}", self.shop.world().subscriptions);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn subscribe(&self, version: &str, receiver: &Receiver) {
        let body = json!({"address": receiver.address, "topic": ["commerce/*"]});
        self.node.post(&format!("/{version}/one/webhooks"), body).await.ok();
    }

    async fn sync(&self, id: &str, mode: &str) -> String {
        let answer = self.node.post(&at(&format!("connections/{id}/sync")), json!({"mode": mode})).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        let pull = text(&answer.json()["pullId"]);
        let ended = |answer: &Value| {
            let pulls = answer["pulls"].as_array().expect("pulls");
            pulls.iter().any(|one| one["pullId"] == pull && one["outcome"] != "running")
        };
        let pulls = self.until(&at(&format!("connections/{id}/pulls?limit=250")), ended).await;
        let pulls = pulls["pulls"].as_array().expect("pulls").clone();
        text(&pulls.iter().find(|one| one["pullId"] == pull).expect("the pull")["outcome"])
    }

    async fn deliver(&self, hooks: &[Hook]) {
        for hook in hooks {
            // The node stands behind a proxy with a path prefix.
            let path = hook.path.strip_prefix("/mill").expect("the public path");
            let answer = self.node.send("POST", path, &hook.headers(), &hook.body).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            self.shop.answered(hook, answer.status);
        }
    }

    /// Every webhook that came was understood.
    async fn understood(&self, id: &str) {
        let done = |answer: &Value| {
            let rows = answer["inbox"].as_array().expect("rows");
            !rows.is_empty() && rows.iter().all(|row| row["state"] == "done")
        };
        self.until(&at(&format!("connections/{id}/inbox?limit=250")), done).await;
    }

    /// Events of records: topic, update type, the app's id; oldest first.
    async fn told(&self) -> Vec<(String, String, String)> {
        let log = self.node.get(&at("events?limit=250")).await.ok();
        let all = log["events"].as_array().expect("events").iter().rev();
        let records = all.filter(|event| event["remoteId"].is_string());
        records.map(|e| (text(&e["topic"]), text(&e["updateType"]), text(&e["remoteId"]))).collect()
    }

    async fn topics(&self) -> Vec<String> {
        let log = self.node.get(&at("events?limit=250")).await.ok();
        log["events"].as_array().expect("events").iter().map(|event| text(&event["topic"])).collect()
    }
}

fn told(topic: &str, kind: &str, id: u64) -> (String, String, String) {
    (format!("commerce/{topic}"), kind.to_owned(), id.to_string())
}

#[actix::test]
async fn a_shop_connects_in_the_browser_and_only_a_redirect_that_it_signed_is_believed() {
    let desk = Desk::new().await;
    let mut browser = Browser::new(&[(PUBLIC, &desk.node.url(""))]);
    let token = text(&desk.node.get("/2024-03/users/ada/token").await.ok()["token"]);
    let swap = browser.get(&format!("{PUBLIC}/connect?token={token}&connector=shopify")).await;
    let page: Page = browser.get(swap.onward().as_str()).await;
    assert!(!page.text.contains("value=\"open\""), "what the client alone opens is offered to nobody");
    let mut form = page.form("oauth2");
    assert!(form.iter().any(|(name, _)| name == "p.shop"), "{form:?}");
    let shop_is = |form: &mut Vec<(String, String)>, shop: &str| {
        form.retain(|(name, _)| name != "p.shop");
        form.push(("p.shop".to_owned(), shop.to_owned()));
    };
    shop_is(&mut form, "evil.example");
    let refused = browser.post(&format!("{PUBLIC}/connect"), &form).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    shop_is(&mut form, SHOP);
    let mut away = Vec::new();
    for _ in 0..3 {
        let hop = browser.post(&format!("{PUBLIC}/connect"), &form).await;
        assert_eq!(hop.status, 200, "{}", hop.text);
        let consent = hop.onward();
        let asked: Vec<(String, String)> = consent.query_pairs().into_owned().collect();
        let scope = "read_customers,read_fulfillments,read_orders,read_products";
        assert!(asked.contains(&("scope".to_owned(), scope.to_owned())), "{asked:?}");
        away.push(browser.get(consent.as_str()).await.onward().to_string());
    }
    // Another shop than the one that was signed, and no signature.
    let forged = away[0].replace(SHOP, "other-shop.myshopify.com");
    let (bare, _) = away[1].split_once("&timestamp").expect("a time");
    let bare = bare.replace("hmac=", "mac=");
    for url in [forged, bare] {
        let end = browser.get(&url).await;
        assert!(end.status == 502 && end.text.contains("cannot read"), "{} {}", end.status, end.text);
    }
    assert!(desk.shop.world().forms.is_empty(), "nothing of the code or the secret went anywhere");
    let end = browser.get(&away[2]).await;
    assert!(end.status == 200 && end.text.contains("is connected"), "{}", end.text);
    let form = desk.shop.world().forms[0].clone();
    assert_eq!((form["expiring"].as_str(), form["grant_type"].as_str()), ("1", "authorization_code"));
    let all = desk.node.get(&at("connections?userId=ada")).await.ok();
    let connection = &all["connections"][0];
    assert_eq!(connection["app"], "Shopify");
    let id = text(&connection["connectionId"]);
    desk.ready(&id).await;
    // An hour later the token is renewed, with a refresh token that is good once.
    desk.node.state.clock.raise(desk.node.state.clock.now().after(Duration::from_secs(3_700)));
    assert_eq!(desk.sync(&id, "incremental").await, "completed");
    assert!(desk.shop.world().forms.iter().any(|form| form["grant_type"] == "refresh_token"));
    desk.node.stop().await;
}

#[actix::test]
async fn the_code_is_bound_to_a_secret_of_ours_where_the_integration_says_so() {
    for (pkce, challenged) in [("none", false), ("S256", true)] {
        let desk = Desk::with(json!({"pkce": pkce})).await;
        let mut browser = Browser::new(&[(PUBLIC, &desk.node.url(""))]);
        let token = text(&desk.node.get("/2024-03/users/ada/token").await.ok()["token"]);
        let swap = browser.get(&format!("{PUBLIC}/connect?token={token}&connector=shopify")).await;
        let page: Page = browser.get(swap.onward().as_str()).await;
        let mut form = page.form("oauth2");
        form.retain(|(name, _)| name != "p.shop");
        form.push(("p.shop".to_owned(), SHOP.to_owned()));
        let consent = browser.post(&format!("{PUBLIC}/connect"), &form).await.onward();
        assert_eq!(consent.query_pairs().any(|(name, _)| name == "code_challenge"), challenged, "{consent}");
        let back = browser.get(consent.as_str()).await.onward();
        let end = browser.get(back.as_str()).await;
        assert!(end.status == 200 && end.text.contains("is connected"), "{}", end.text);
        assert_eq!(desk.shop.world().forms[0].contains_key("code_verifier"), challenged);
        desk.node.stop().await;
    }
    let desk = Desk::new().await;
    let parameters = json!({"clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET, "pkce": "plain"});
    let refused = desk.node.post(&at("integrations"), json!({"connector": "shopify", "parameters": parameters})).await;
    assert!(refused.status == 422 && refused.text.contains("pkce"), "{} {}", refused.status, refused.text);
    desk.node.stop().await;
}

#[actix::test]
async fn every_change_of_a_shop_arrives_by_poll_and_by_webhook_in_both_versions() {
    let desk = Desk::new().await;
    let (old, kept) = {
        let mut world = desk.shop.world();
        let old = world.order(2);
        world.fulfillment(old, "SUCCESS");
        (old, [world.customer(), world.product(3)])
    };
    let (before, after) = (Receiver::start(), Receiver::start());
    desk.subscribe("2023-12", &before).await;
    desk.subscribe("2024-03", &after).await;
    let id = desk.connect(json!({})).await;
    desk.ready(&id).await;
    assert!(desk.told().await.is_empty(), "what was there is the baseline");
    let count = desk.node.get(&at(&format!("commerce/orders/count?connectionId={id}"))).await.ok();
    assert_eq!(count["count"], 1, "{count}");

    // By poll: created, updated, deleted (products by the feed, orders by the scan of ids).
    let (order, product, shipped, many) = {
        let mut world = desk.shop.world();
        let order = world.order(1);
        let (product, many) = (world.product(1), world.product(45));
        world.change("orders", old, json!({"note": "by the back door"}));
        (order, product, world.fulfillment(old, "SUCCESS"), many)
    };
    // Nearly no points are left: the query waits, and goes on.
    desk.shop.world().available = 10.0;
    assert_eq!(desk.sync(&id, "incremental").await, "completed");
    let mut expected = vec![
        told("fulfillments", "created", shipped),
        told("orders", "created", order),
        told("orders", "updated", old),
        told("products", "created", product),
        told("products", "created", many),
    ];
    let sorted = |mut all: Vec<(String, String, String)>| {
        all.sort();
        all
    };
    assert_eq!(sorted(desk.told().await), sorted(expected.clone()));
    let path = at(&format!("commerce/products?connectionId={id}"));
    let products = desk.node.get(&path).await.ok()["products"].as_array().expect("products").clone();
    let whole = products.iter().find(|p| p["remoteId"] == json!(many.to_string())).expect("the product");
    assert_eq!(whole["variants"].as_array().expect("variants").len(), 45, "variants beyond the first page are there");
    {
        let mut world = desk.shop.world();
        world.delete("products", product);
        world.delete("orders", order);
        world.change("customers", kept[0], json!({"note": "rings twice"}));
    }
    assert_eq!(desk.sync(&id, "incremental").await, "completed");
    assert_eq!(desk.sync(&id, "full").await, "completed");
    expected.extend([
        told("customers", "updated", kept[0]),
        told("products", "deleted", product),
        told("orders", "deleted", order),
    ]);
    assert_eq!(sorted(desk.told().await), sorted(expected.clone()));

    // By webhook, with the bodies that Shopify's libraries have: created, updated, deleted.
    let fresh = {
        let mut world = desk.shop.world();
        world.change("products", kept[1], json!({"title": "A finer tee"}));
        world.order(1)
    };
    let order_body = rest_body("go-shopify/order.json", "order", fresh);
    desk.deliver(&desk.shop.hooks("orders/create", "event-1", &order_body)).await;
    let product_body = rest_body("go-shopify/product.json", "product", kept[1]);
    desk.deliver(&desk.shop.hooks("products/update", "event-2", &product_body)).await;
    desk.shop.world().delete("customers", kept[0]);
    desk.deliver(&desk.shop.hooks("customers/delete", "event-3", &json!({"id": kept[0]}))).await;
    desk.understood(&id).await;
    let by_webhook =
        [told("orders", "created", fresh), told("products", "updated", kept[1]), told("customers", "deleted", kept[0])];
    expected.extend(by_webhook);
    assert_eq!(sorted(desk.told().await), sorted(expected.clone()));
    // What a webhook told is no news to the next poll.
    assert_eq!(desk.sync(&id, "incremental").await, "completed");
    assert_eq!(desk.told().await.len(), expected.len());

    for (receiver, name, time) in [(&before, "name", "updatedTimestamp"), (&after, "app", "remoteUpdatedAt")] {
        let came = receiver.wait(expected.len()).await;
        let bodies: Vec<Value> = came.iter().map(|one| one.json()).collect();
        assert!(bodies.iter().all(|body| body[name] == "Shopify" && body["category"] == "commerce"), "{bodies:?}");
        let of = |id: u64| bodies.iter().find(|b| b["dataPayload"]["remoteId"] == json!(id.to_string())).expect("told");
        let body = of(fresh);
        assert_eq!(
            (&body["updateType"], &body["dataPayload"]["paymentStatus"]),
            (&json!("created"), &json!("not_paid"))
        );
        assert!(!body["dataPayload"][time].is_null(), "{body}");
        assert!(body.to_string().contains("\"totalPrice\":40.70"), "money keeps its digits: {body}");
        assert_eq!(of(shipped)["dataPayload"]["orderId"], old.to_string());
    }
    desk.node.stop().await;
}

#[actix::test]
async fn webhooks_twice_in_the_wrong_order_and_for_two_topics_make_one_event() {
    let desk = Desk::new().await;
    let id = desk.connect(json!({})).await;
    desk.ready(&id).await;
    let order = desk.shop.world().order(1);
    let body = rest_body("shopify_python_api/order.json", "order", order);
    // The update comes first, all come twice, and one action is told on two topics under one event id.
    let updated = desk.shop.hooks("orders/updated", "event-1", &body);
    let created = desk.shop.hooks("orders/create", "event-1", &body);
    for hooks in [&updated, &created, &updated, &created] {
        desk.deliver(hooks).await;
    }
    desk.understood(&id).await;
    assert_eq!(desk.told().await, [told("orders", "created", order)]);
    // A delete that is overtaken by an older update brings nothing back.
    desk.shop.world().delete("orders", order);
    desk.deliver(&desk.shop.hooks("orders/delete", "event-2", &json!({"id": order}))).await;
    desk.deliver(&updated).await;
    desk.understood(&id).await;
    assert_eq!(desk.told().await, [told("orders", "created", order), told("orders", "deleted", order)]);
    desk.node.stop().await;
}

#[actix::test]
async fn a_collection_that_the_token_does_not_open_fails_alone_and_deletes_nothing() {
    let desk = Desk::new().await;
    let (order, product) = {
        let mut world = desk.shop.world();
        (world.order(1), world.product(1))
    };
    let id = desk.connect(json!({})).await;
    desk.ready(&id).await;
    let receiver = Receiver::start();
    let body = json!({"address": receiver.address, "topic": ["sync/failed"]});
    desk.node.post(&at("webhooks"), body).await.ok();
    desk.shop.world().denied.insert("customers");
    desk.shop.world().denied.insert("products");
    let fresh = desk.shop.world().order(1);
    for mode in ["incremental", "full"] {
        // A sync is told to have failed as soon as one of its collections has.
        assert_eq!(desk.sync(&id, mode).await, "failed");
    }
    let failed: Vec<String> = receiver.wait(2).await.iter().map(|one| one.json()["dataPayload"].to_string()).collect();
    assert!(failed.iter().all(|payload| payload.contains("ACCESS_DENIED")), "{failed:?}");
    assert!(failed.iter().any(|payload| payload.contains("commerce/customers")), "{failed:?}");
    assert!(failed.iter().all(|payload| !payload.contains("commerce/orders")), "{failed:?}");
    // The other collections go on.
    let body = json!({"mode": "incremental", "collections": ["orders"]});
    let answer = desk.node.post(&at(&format!("connections/{id}/sync")), body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    desk.until(&at(&format!("commerce/orders/count?connectionId={id}")), |answer| answer["count"] == 2).await;
    let kinds = desk.told().await;
    assert!(kinds.iter().all(|(_, kind, _)| kind != "deleted"), "{kinds:?}");
    for (topic, record) in [("orders", order), ("orders", fresh), ("products", product)] {
        let path = at(&format!("commerce/{topic}?connectionId={id}"));
        let all = desk.node.get(&path).await.ok();
        assert!(all.to_string().contains(&record.to_string()), "{topic} {record}: {all}");
    }
    let connection = desk.node.get(&at(&format!("connections/{id}"))).await.ok();
    assert_eq!(connection["connection"]["status"], "active");
    desk.node.stop().await;
}

#[actix::test]
async fn a_subscription_that_the_shop_dropped_is_made_again_within_a_day_and_taken_away_at_the_end() {
    let desk = Desk::new().await;
    let id = desk.connect(json!({"collections": ["orders"]})).await;
    desk.connection(&id, |c| {
        c["collections"].as_array().is_some_and(|all| all.iter().all(|c| c["lastPullAt"].is_string()))
    })
    .await;
    desk.ready(&id).await;
    let hooks = desk.shop.hooks("orders/create", "event-1", &json!({"id": 1}));
    for _ in 0..8 {
        desk.shop.answered(&hooks[0], 503);
    }
    let has = |topic: &str| desk.shop.world().subscriptions.iter().any(|one| one.topic == topic);
    assert!(!has("ORDERS_CREATE") && has("ORDERS_UPDATED"));
    desk.node.state.clock.raise(desk.node.state.clock.now().after(Duration::from_secs(86_500)));
    assert_eq!(desk.sync(&id, "incremental").await, "completed");
    let end = Instant::now() + Duration::from_secs(60);
    while !has("ORDERS_CREATE") {
        assert!(Instant::now() < end, "it is not made again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(desk.shop.world().subscriptions.len(), 12, "none is there twice");
    desk.node.call("DELETE", &at(&format!("connections/{id}")), None).await.ok();
    let end = Instant::now() + Duration::from_secs(60);
    while !desk.shop.world().subscriptions.is_empty() {
        assert!(Instant::now() < end, "{:?}", desk.shop.world().subscriptions);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    desk.node.stop().await;
}

#[actix::test]
async fn an_uninstalled_app_needs_attention_at_once() {
    let desk = Desk::new().await;
    let id = desk.connect(json!({})).await;
    desk.ready(&id).await;
    let hooks = desk.shop.hooks("app/uninstalled", "event-1", &json!({"id": 1, "domain": SHOP}));
    assert_eq!(hooks.len(), 1);
    desk.shop.world().installed = false;
    desk.deliver(&hooks).await;
    desk.connection(&id, |c| c["status"] == "authFailed").await;
    // An event shows once it is on disk, a moment after what it tells of.
    let told = |log: &Value| {
        let all = log["events"].as_array().expect("events");
        all.iter().any(|event| event["topic"] == "connection/authentication_failure")
    };
    desk.until(&at("events?limit=250"), told).await;
    let topics = desk.topics().await;
    assert_eq!(topics.iter().filter(|topic| *topic == "connection/authentication_failure").count(), 1);
    desk.node.stop().await;
}

#[actix::test]
async fn compliance_webhooks_reach_the_shop_that_they_name_and_forged_ones_are_refused() {
    let desk = Desk::new().await;
    let (order, customer) = {
        let mut world = desk.shop.world();
        (world.order(1), world.customer())
    };
    let id = desk.connect(json!({})).await;
    desk.ready(&id).await;
    let listed = desk.node.get(&at(&format!("integrations/{}/webhooks", desk.integration))).await.ok();
    let uri = text(&listed["webhooks"][0]["uri"]);
    let path = uri.strip_prefix(PUBLIC).expect("the public address").to_owned();
    let body =
        json!({"shop_id": 954_889, "shop_domain": SHOP, "customer": {"id": customer}, "orders_to_redact": [order]});
    let send = async |secret: &str, topic: &str, body: &Value| {
        let hook = hook(&path, topic, "event-1", &body.to_string(), secret, "");
        desk.node.send("POST", &hook.path, &hook.headers(), &hook.body).await.status
    };
    assert_eq!(send("another-secret", "customers/redact", &body).await, 401);
    let strange = json!({"shop_domain": "other-shop.myshopify.com", "customer": {"id": customer}});
    assert_eq!(send(CLIENT_SECRET, "customers/redact", &strange).await, 200);
    // The secret of before the rotation is good as well.
    assert_eq!(send("shpss_of-before", "customers/redact", &body).await, 200);
    let gone = |log: &Value| {
        let all = log["events"].as_array().expect("events");
        all.iter().filter(|event| event["updateType"] == "deleted").count() == 2
    };
    desk.until(&at("events?limit=250"), gone).await;
    let mut all = desk.told().await;
    all.sort();
    assert_eq!(all, [told("customers", "deleted", customer), told("orders", "deleted", order)]);
    // That comes two days after the shop took the app away, when no credentials are good any more.
    let hooks = desk.shop.hooks("app/uninstalled", "event-2", &json!({"id": 1, "domain": SHOP}));
    desk.shop.world().installed = false;
    desk.deliver(&hooks).await;
    desk.connection(&id, |c| c["status"] == "authFailed").await;
    assert_eq!(send(CLIENT_SECRET, "shop/redact", &json!({"shop_id": 954_889, "shop_domain": SHOP})).await, 200);
    let all_erased = |jobs: &Value| {
        let jobs = jobs["erasures"].as_array().expect("erasures");
        jobs.len() >= 2 && jobs.iter().all(|job| job["state"] == "completed")
    };
    desk.until(&at("erasures"), all_erased).await;
    for topic in ["customers", "orders", "products", "fulfillments"] {
        let count = desk.node.get(&at(&format!("commerce/{topic}/count?connectionId={id}"))).await.ok();
        assert_eq!(count["count"], 0, "{topic}");
    }
    desk.node.stop().await;
}

#[actix::test]
async fn the_stand_in_has_the_traps_that_the_facts_name() {
    let shop = Shop::start(tidemill::app::wall_clock());
    for _ in 0..3 {
        shop.world().order(1);
    }
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let ask = async |query: &str| {
        let url = format!("{}/admin/api/2026-07/graphql.json", shop.url);
        let request = http.post(url).header("x-shopify-access-token", PERMANENT);
        let request = request.header("content-type", "application/json").body(json!({"query": query}).to_string());
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        serde_json::from_str::<Value>(&answer.text().await.expect("text")).expect("JSON")
    };
    let count = async |filter: &str| {
        let query = format!("{{ orders(first: 10, sortKey: UPDATED_AT, query: \"{filter}\") {{ nodes {{ id }} }} }}");
        ask(&query).await["data"]["orders"]["nodes"].as_array().expect("nodes").len()
    };
    assert_eq!(count("updated_at:>='2999-01-01T00:00:00Z'").await, 0);
    assert_eq!(count("updated_at:>=2999-01-01T00:00:00Z").await, 3, "unquoted it is no filter at all");
    let twice = "mutation { webhookSubscriptionCreate(topic: ORDERS_CREATE, webhookSubscription: {uri: \"https://a.example/\"}) \
                 { webhookSubscription { id } userErrors { message } } }";
    assert_eq!(ask(twice).await["data"]["webhookSubscriptionCreate"]["userErrors"], json!([]));
    let again = ask(twice).await["data"]["webhookSubscriptionCreate"].clone();
    assert!(again["webhookSubscription"].is_null() && again["userErrors"][0]["message"].is_string(), "{again}");
    shop.world().denied.insert("orders");
    let denied = ask("{ orders(first: 1) { nodes { id } } }").await;
    assert_eq!((&denied["data"], &denied["errors"][0]["extensions"]["code"]), (&Value::Null, &json!("ACCESS_DENIED")));
    assert!(ask("{ shop { nonsense } }").await["errors"][0]["message"].is_string());
}

/// Shopify/shopify_python_api, where it is installed (`scripts/deps --tests`).
#[actix::test]
async fn the_apps_own_client_library_agrees_with_our_stand_in() {
    let cache = std::env::var("XDG_CACHE_HOME").ok().filter(|dir| !dir.is_empty());
    let home = std::env::var("HOME").unwrap_or_default();
    let cache = cache.unwrap_or_else(|| format!("{home}/.cache"));
    let python = format!("{cache}/tidemill/clients/bin/python");
    let probe = std::process::Command::new(&python).args(["-c", "import shopify"]).output();
    if !probe.is_ok_and(|done| done.status.success()) {
        println!("SKIPPED: {python} has no ShopifyAPI; scripts/deps --tests installs it");
        return;
    }
    let desk = Desk::new().await;
    let order = desk.shop.world().order(1);
    let query = "code=abc&host=YWRtaW4=&shop=tide-shop.myshopify.com&state=s&timestamp=4102444800";
    let hmac = signed(CLIENT_SECRET, query);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/shopify.py");
    let port = desk.shop.url.rsplit_once(':').expect("a port").1.to_owned();
    let mut command = tokio::process::Command::new(&python);
    command.args([script, CLIENT_SECRET, &hmac, &port, PERMANENT, &order.to_string()]);
    let done = tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("in time").expect("run");
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    desk.node.stop().await;
}
