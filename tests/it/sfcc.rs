//! Salesforce B2C Commerce, connected to a node: orders and shipments by site, products by search, customers by a walk.

use std::path::PathBuf;

use jsonschema::Validator;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::clock::Clock;
use tidemill::domain::time::Millis;

use crate::support::link::Link;
use crate::support::sfcc::{CLIENT, Sfcc, customer, order, product};

fn start() -> Clock {
    Clock::still(Millis::parse_rfc3339("2026-02-01T12:00:00Z").expect("a time"))
}

fn given(app: &Sfcc) -> (Value, Value) {
    let url = &app.fake.url;
    let integration = json!({"baseUri": url, "tokenUrl": format!("{url}/dwsso/oauth2/access_token")});
    let parameters = json!({
        "shortCode": "kv7kzm78", "tenantId": "zzxy_prd", "clientId": CLIENT.0, "clientSecret": CLIENT.1,
        "siteIds": "RefArch, SiteGenesis", "customerListIds": "RefArch",
    });
    (integration, parameters)
}

async fn link(clock: &Clock, app: &Sfcc, collections: &[&str]) -> Link {
    let (integration, parameters) = given(app);
    Link::open(clock, "sfcc", integration, parameters, json!({}), collections).await
}

/// The connector's folder with another ceiling, in a folder of connectors.
fn with_ceiling(ceiling: usize) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let mut left = vec![(
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/config/connectors/sfcc")),
        folder.path().join("sfcc"),
    )];
    while let Some((from, to)) = left.pop() {
        std::fs::create_dir_all(&to).expect("a folder");
        for entry in std::fs::read_dir(from).expect("read") {
            let path = entry.expect("read").path();
            let to = to.join(path.file_name().expect("a name"));
            if path.is_dir() {
                left.push((path, to));
            } else {
                let text = std::fs::read_to_string(&path).expect("read");
                std::fs::write(to, text.replace("ceiling: 10000", &format!("ceiling: {ceiling}"))).expect("written");
            }
        }
    }
    folder
}

/// The published schema of an answer.
fn schema(file: &str, name: &str) -> Validator {
    let path = format!("{}/../shared/fixtures/sfcc/openapi-{file}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let whole = json!({"$ref": format!("#/components/schemas/{name}"), "components": all["components"]});
    jsonschema::validator_for(&whole).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[actix::test]
async fn orders_of_all_sites_are_noticed_as_they_are_created_changed_and_deleted() {
    let clock = start();
    let app = Sfcc::start(&clock);
    for (number, site) in [("00000001", "RefArch"), ("00000002", "RefArch"), ("00000003", "SiteGenesis")] {
        app.shop().orders(site).push(order(number, site, "2026-01-20T10:00:00.000Z"));
    }
    let mut link = link(&clock, &app, &["orders", "fulfillments"]).await;
    assert_eq!((link.connection["account"].as_str(), link.records("orders").await), (Some("zzxy_prd"), 3));
    {
        let mut shop = app.shop();
        shop.orders("SiteGenesis").push(order("00000004", "SiteGenesis", "2026-02-01T11:59:59.500Z"));
        let first = &mut shop.orders("RefArch")[0];
        (first["status"], first["lastModified"]) = (json!("completed"), json!("2026-02-01T11:59:59.750Z"));
        (first["shippingStatus"], first["shipments"][0]["shippingStatus"]) = (json!("shipped"), json!("shipped"));
    }
    assert_eq!(link.sync("incremental").await["outcome"], "completed");
    let told = link.told(4).await;
    let seen: Vec<(&str, &str, &str)> =
        told.iter().map(|t| (t.topic.as_str(), t.kind.as_str(), t.data["remoteId"].as_str().expect("text"))).collect();
    assert_eq!(
        seen,
        [
            ("commerce/fulfillments", "updated", "00000001:me"),
            ("commerce/fulfillments", "created", "00000004:me"),
            ("commerce/orders", "updated", "00000001"),
            ("commerce/orders", "created", "00000004"),
        ]
    );
    let order = &told[2];
    assert_eq!(order.app, "Salesforce CommerceCloud");
    assert_eq!(order.data["orderNumber"], "00000001");
    assert_eq!(
        (&order.data["orderStatus"], &order.data["fulfillmentStatus"]),
        (&json!("completed"), &json!("fulfilled"))
    );
    assert_eq!(order.data["totalPrice"].to_string(), "110.24");
    assert_eq!(order.data["remoteUpdatedAt"], "2026-02-01T11:59:59.750Z");
    assert_eq!(order.old["updatedTimestamp"], 1_769_947_199);
    assert_eq!(order.data["lineItems"][0]["sku"], "701643632930");
    let shipment = &told[0].data;
    assert_eq!((&shipment["orderId"], &shipment["fulfillmentStatus"]), (&json!("00000001"), &json!("fulfilled")));
    assert_eq!(shipment["lineItems"][0]["lineItemId"], "99e96c7f8b46b98de2bae5d778");
    // Nothing changed since, whatever is looked at again.
    assert_eq!(link.sync("incremental").await["outcome"], "completed");
    link.nothing().await;
    app.shop().orders("RefArch").remove(1);
    assert_eq!(link.sync("full").await["outcome"], "completed");
    let told = link.told(2).await;
    assert!(told.iter().all(|told| told.kind == "deleted" && told.data["remoteDeleted"] == true), "{told:#?}");
    assert_eq!(told[1].data["remoteId"], "00000002");
    link.node.stop().await;
    app.fake.stop().await;
}

#[actix::test]
async fn a_walk_that_breaks_off_at_one_site_loses_nothing_of_any() {
    let clock = start();
    let app = Sfcc::start(&clock);
    for site in ["RefArch", "SiteGenesis"] {
        app.shop().orders(site).push(order(&format!("{site}-0"), site, "2026-01-20T10:00:00.000Z"));
    }
    let mut link = link(&clock, &app, &["orders"]).await;
    {
        // The second site's change is older than the first's.
        let mut shop = app.shop();
        shop.orders("RefArch").push(order("RefArch-1", "RefArch", "2026-02-01T11:58:00.000Z"));
        shop.orders("SiteGenesis").push(order("SiteGenesis-1", "SiteGenesis", "2026-02-01T09:00:00.000Z"));
        shop.fail_after = Some(1);
    }
    assert_eq!(link.sync("incremental").await["outcome"], "failed");
    assert_eq!(link.told(1).await[0].data["remoteId"], "RefArch-1");
    assert_eq!(link.sync("incremental").await["outcome"], "completed");
    assert_eq!(link.told(1).await[0].data["remoteId"], "SiteGenesis-1");
    link.nothing().await;
    link.node.stop().await;
}

#[actix::test]
async fn orders_beyond_the_ceiling_are_all_seen_and_none_is_taken_for_deleted() {
    for tells_total in [true, false] {
        let clock = start();
        let app = Sfcc::start(&clock);
        {
            let mut shop = app.shop();
            (shop.ceiling, shop.tells_total) = (400, tells_total);
            for n in 0..700_u32 {
                let changed = format!("2026-01-20T10:{:02}:{:02}.000Z", n / 60, n % 60);
                let mut order = order(&format!("{n:08}"), "RefArch", &changed);
                order["creationDate"] = json!(format!("2026-01-{:02}T10:00:00.{:03}Z", 1 + n % 9, n));
                shop.orders("RefArch").push(order);
            }
            shop.orders("SiteGenesis");
        }
        let (connectors, (integration, parameters)) = (with_ceiling(400), given(&app));
        let path = connectors.path().display().to_string();
        let more = [("TIDEMILL__CONNECTORS__PATH", path.as_str())];
        let mut link = Link::open_with(&more, &clock, "sfcc", integration, parameters, json!({}), &["orders"]).await;
        assert_eq!(link.records("orders").await, 700);
        app.shop().orders("RefArch").remove(350);
        assert_eq!(link.sync("full").await["outcome"], "completed");
        let told = link.told(1).await;
        assert_eq!((told[0].kind.as_str(), &told[0].data["remoteId"]), ("deleted", &json!("00000350")));
        assert_eq!(link.records("orders").await, 699);
        link.node.stop().await;
    }
}

#[actix::test]
async fn an_id_scan_that_fails_on_its_third_page_deletes_nothing() {
    let clock = start();
    let app = Sfcc::start(&clock);
    for n in 0..900_u32 {
        let number = format!("{n:08}");
        app.shop().orders("RefArch").push(order(&number, "RefArch", "2026-01-20T10:00:00.000Z"));
    }
    app.shop().orders("SiteGenesis");
    let mut link = link(&clock, &app, &["orders"]).await;
    {
        let mut shop = app.shop();
        shop.orders("RefArch").truncate(895);
        shop.fail_after = Some(2);
    }
    let pull = link.sync("full").await;
    assert_eq!((&pull["outcome"], &pull["deleted"]), (&json!("failed"), &json!(0)), "{pull}");
    assert_eq!(link.records("orders").await, 900);
    link.nothing().await;
    assert_eq!(link.sync("full").await["outcome"], "completed");
    assert!(link.told(5).await.iter().all(|told| told.kind == "deleted"));
    assert_eq!(link.records("orders").await, 895);
    link.node.stop().await;
}

#[actix::test]
async fn a_scan_that_would_delete_a_third_is_held() {
    let clock = start();
    let app = Sfcc::start(&clock);
    for n in 0..90_u32 {
        let number = format!("{n:08}");
        app.shop().orders("RefArch").push(order(&number, "RefArch", "2026-01-20T10:00:00.000Z"));
    }
    app.shop().orders("SiteGenesis");
    let mut link = link(&clock, &app, &["orders"]).await;
    app.shop().orders("RefArch").truncate(60);
    assert_eq!(link.sync("full").await["outcome"], "held");
    assert_eq!(link.records("orders").await, 90);
    link.nothing().await;
    // Still missing at the next complete scan: then they are believed to be gone.
    assert_eq!(link.sync("full").await["outcome"], "completed");
    assert_eq!(link.told(30).await.len(), 30);
    link.node.stop().await;
}

#[actix::test]
async fn products_are_fetched_whole_and_customers_compared() {
    let clock = start();
    let app = Sfcc::start(&clock);
    {
        let mut shop = app.shop();
        shop.products = (0..3).map(|n| product(&format!("ipod-{n}"), "2026-01-20T10:00:00.000Z")).collect();
        let all = (1..=450_u32).map(|n| customer(&format!("{n:08}"))).collect();
        shop.lists.insert("RefArch".to_owned(), all);
    }
    let mut link = link(&clock, &app, &["products", "customers"]).await;
    assert_eq!((link.records("products").await, link.records("customers").await), (3, 450));
    let fetched =
        |app: &Sfcc| app.shop().requests.iter().filter(|asked| asked.path.contains("/products/ipod-")).count();
    assert_eq!(fetched(&app), 3);
    {
        let mut shop = app.shop();
        shop.products[0]["name"]["default"] = json!("Apple iPod");
        shop.products[0]["lastModified"] = json!("2026-02-01T11:59:00.000Z");
        shop.products.push(product("ipod-9", "2026-02-01T11:59:30.000Z"));
        let all = shop.lists.get_mut("RefArch").expect("a list");
        all[449]["lastName"] = json!("Li");
        all.remove(0);
        all.push(customer("00000999"));
    }
    assert_eq!(link.sync("incremental").await["outcome"], "completed");
    // Customers have no list of changes: an incremental look reads them whole.
    let told = link.told(5).await;
    let seen: Vec<(&str, &str)> =
        told.iter().map(|t| (t.kind.as_str(), t.data["remoteId"].as_str().expect("text"))).collect();
    assert_eq!(
        seen,
        [
            ("deleted", "00000001"),
            ("updated", "00000450"),
            ("created", "00000999"),
            ("updated", "ipod-0"),
            ("created", "ipod-9"),
        ]
    );
    assert_eq!(told[1].data["lastName"], "Li");
    let product = &told[3].data;
    assert_eq!((&product["productName"], &product["productType"]), (&json!("Apple iPod"), &json!("master")));
    assert_eq!(product["variants"][0]["sku"], "apple-ipod-classic-silver-120g");
    assert_eq!(product["images"][0]["altText"], "Apple iPod Classic, , large");
    assert_eq!(fetched(&app), 5, "what did not change is not fetched again");
    app.shop().products.remove(1);
    assert_eq!(link.sync("full").await["outcome"], "completed");
    assert_eq!(link.told(1).await[0].kind, "deleted");
    link.node.stop().await;
}

#[actix::test]
async fn load_shedding_is_waited_for_and_a_token_that_ends_is_asked_for_anew() {
    let clock = start();
    let app = Sfcc::start(&clock);
    for site in ["RefArch", "SiteGenesis"] {
        app.shop().orders(site).push(order(&format!("{site}-0"), site, "2026-01-20T10:00:00.000Z"));
    }
    let mut link = link(&clock, &app, &["orders"]).await;
    // The looks that come by themselves wait longer each time, and as long as the platform says where it does.
    for (wait, seconds) in [(None, 10), (None, 20), (Some(600), 600)] {
        app.refuse(503, wait);
        let pull = link.sync("incremental").await;
        assert_eq!(pull["outcome"], "failed");
        assert!(pull["error"].as_str().is_some_and(|error| error.contains("The load is too high")), "{pull}");
        let ((_, shed), next) = (app.last(), link.next_pull("orders").await);
        assert!(next.0 >= shed.0 + seconds * 1_000, "{} ms after it was shed", next.0 - shed.0);
    }
    // A 429 stops whoever asks, until its time.
    app.refuse(429, Some(45));
    assert_eq!(link.sync("incremental").await["outcome"], "failed");
    let (count, shed) = app.last();
    clock.raise(Millis(shed.0 + 30_000));
    assert_eq!(link.sync("incremental").await["outcome"], "failed");
    assert_eq!(app.last().0, count, "nothing was sent before the platform's time");
    clock.raise(Millis(shed.0 + 43_500));
    assert_eq!(link.sync("incremental").await["outcome"], "completed");
    let next = app.shop().times[count];
    assert!(next.0 >= shed.0 + 45_000, "it was asked {} ms after it was shed", next.0 - shed.0);
    // Half an hour later the token has ended.
    clock.raise(Millis(clock.now().0 + 3_600_000));
    app.shop().orders("RefArch")[0]["lastModified"] = json!("2026-02-01T12:30:00.000Z");
    app.shop().orders("RefArch")[0]["status"] = json!("cancelled");
    assert_eq!(link.sync("incremental").await["outcome"], "completed");
    let told = link.told(1).await;
    assert_eq!(told[0].data["orderStatus"], "cancelled");
    let tokens = app.shop().requests.iter().filter(|asked| asked.path.ends_with("/access_token")).count();
    assert_eq!(tokens, 2);
    assert_eq!(link.node.get(&link.path("")).await.ok()["connection"]["status"], "active");
    assert!(!link.node.get(&link.path("")).await.text.contains(CLIENT.1));
    link.node.stop().await;
}

#[actix::test]
async fn a_first_sync_outlasts_many_tokens() {
    let clock = start();
    let app = Sfcc::start(&clock);
    app.shop().products = (0..25).map(|n| product(&format!("ipod-{n}"), "2026-01-20T10:00:00.000Z")).collect();
    // Each request takes three minutes, a token lives thirty.
    app.shop().takes = 180_000;
    let link = link(&clock, &app, &["products"]).await;
    assert_eq!(link.records("products").await, 25);
    let tokens = app.shop().requests.iter().filter(|asked| asked.path.ends_with("/access_token")).count();
    assert!((3..=4).contains(&tokens), "{tokens} tokens");
    link.node.stop().await;
}

#[actix::test]
async fn the_fake_answers_as_the_published_schemas_say() {
    let clock = start();
    let app = Sfcc::start(&clock);
    {
        let mut shop = app.shop();
        shop.tells_total = false;
        shop.orders("RefArch").push(order("00000001", "RefArch", "2026-01-20T10:00:00.000Z"));
        shop.products.push(product("ipod", "2026-01-20T10:00:00.000Z"));
        shop.lists.insert("RefArch".to_owned(), vec![customer("00000001")]);
    }
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = &app.fake.url;
    let token = http
        .post(format!("{url}/dwsso/oauth2/access_token"))
        .basic_auth(CLIENT.0, Some(CLIENT.1))
        .body("grant_type=client_credentials&scope=SALESFORCE_COMMERCE_API%3Azzxy_prd")
        .send()
        .await
        .expect("an answer");
    let token: Value = serde_json::from_str(&token.text().await.expect("text")).expect("JSON");
    let bearer = token["access_token"].as_str().expect("a token").to_owned();
    let ask = async |method: &str, path: &str, body: Value| {
        let request = http.request(method.parse().expect("a method"), format!("{url}{path}")).bearer_auth(&bearer);
        let text = request.body(body.to_string()).send().await.expect("an answer").text().await.expect("text");
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    let query = json!({"query": {"matchAllQuery": {}}, "limit": 10});
    let of = |rest: &str| rest.replace("ORG", "organizations/f_ecom_zzxy_prd");
    for (file, name, method, path, part) in [
        ("orders", "OrdersResponse", "GET", "/checkout/orders/v1/ORG/orders?siteId=RefArch", ""),
        ("orders", "ErrorResponse", "GET", "/checkout/orders/v1/ORG/orders", ""),
        ("orders", "ErrorResponse", "GET", "/checkout/orders/v1/ORG/orders?siteId=RefArch&offset=9999", ""),
        // The schema of a whole search result forbids the members that it requires.
        ("products", "Product", "POST", "/product/products/v1/ORG/product-search", "/hits/0"),
        ("products", "Product", "GET", "/product/products/v1/ORG/products/ipod", ""),
        (
            "customers",
            "CustomerSearchHit",
            "POST",
            "/customer/customers/v1/ORG/customer-lists/RefArch/customer-search",
            "/hits/0",
        ),
        ("customers", "Customer", "GET", "/customer/customers/v1/ORG/customer-lists/RefArch/customers/00000001", ""),
    ] {
        let mut query = query.clone();
        if path.ends_with("customer-search") {
            query["sorts"] = json!([{"field": "customerNo", "sortOrder": "asc"}]);
        }
        let whole = ask(method, &of(path), query).await;
        let answer = whole.pointer(part).unwrap_or_else(|| panic!("{path}: {whole}"));
        let problems: Vec<String> = schema(file, name).iter_errors(answer).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{path}: {problems:?}: {answer}");
    }
}
