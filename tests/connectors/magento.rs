//! Adobe Commerce: the answers and queries that its REST guide prints, and the traps of its lists.

use serde_json::{Value, json};
use tidemill::connectors::{Collection, Page, PageMark, PullQuery, Session};
use tidemill::domain::models::Catalogue;
use tidemill::domain::record::Unified;
use tidemill::domain::time::Millis;

use super::app::{App, Reply, Request};
use super::connector;

/// A block of the guide, by its place in it.
fn guide(place: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures/adobe-commerce/rest-guide-blocks.json");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let all: Value = serde_json::from_str(&text).unwrap();
    all["blocks"].as_object().unwrap().iter().find(|(key, _)| key.starts_with(place)).unwrap().1.clone()
}

fn session(app: &App) -> Session {
    app.session(&connector("adobe-commerce"), json!({}), json!({"accessToken": "t"}))
}

fn collection<'a>(session: &'a Session, key: &str) -> &'a Collection {
    session.connector().collection(key).unwrap()
}

/// The one record that a list shows, mapped, and its fields.
async fn pulled(key: &str, record: Value) -> (Unified<'static>, Value) {
    let app =
        App::replies(vec![Reply::json(json!({"items": [record], "search_criteria": {}, "total_count": 1}))]).await;
    let session = session(&app);
    let c = collection(&session, key);
    let page = session.pull_page(c, &PullQuery::default(), None).await.unwrap();
    let unified = session.map(c, &page.records[0], |unified| unified.keep()).unwrap();
    let fields = unified.fields.to_map();
    let problems = Catalogue::embedded().data(&c.topic).unwrap().check(&fields);
    assert!(problems.is_empty(), "{key}: {problems:?}");
    (unified, Value::Object(fields))
}

#[tokio::test]
async fn the_guides_order_becomes_a_unified_order() {
    let (order, fields) = pulled("orders", guide("rest/tutorials/orders/order-create-order.md:86")).await;
    assert_eq!(order.remote_id, "3");
    assert_eq!(order.remote_created_at.map(Millis::rfc3339_seconds).as_deref(), Some("2017-08-21T22:22:19Z"));
    assert_eq!(order.remote_updated_at.map(Millis::rfc3339_seconds).as_deref(), Some("2017-08-21T22:22:20Z"));
    assert_eq!(fields["orderNumber"], "000000003");
    assert_eq!(fields["totalPrice"].to_string(), "165");
    assert_eq!(fields["totalShipping"].to_string(), "5");
    assert_eq!((&fields["orderStatus"], &fields["paymentStatus"]), (&json!("new"), &json!("not_paid")));
    assert_eq!(fields["fulfillmentStatus"], "unfulfilled");
    assert_eq!(fields["customer"]["customerId"], "3");
    assert_eq!(fields["lineItems"][0]["sku"], "WS12-M-Orange");
    assert_eq!(fields["lineItems"][0]["productId"], "1553");
    assert_eq!(fields["shippingAddress"]["city"], "Purchase");
    assert_eq!(fields["billingAddress"]["address1"], "123 Oak Ave");
    assert_eq!(fields["customFields"]["status"], "pending");
}

#[tokio::test]
async fn the_guides_customer_and_products_are_mapped() {
    let (customer, fields) = pulled("customers", guide("rest/tutorials/orders/order-create-customer.md:77")).await;
    assert_eq!(customer.remote_id, "2");
    assert_eq!(fields["email"], "jdoe@example.com");
    assert_eq!(fields["addresses"][0]["region"], "New York");
    assert_eq!(fields["phone"], "512-555-1111");
    let (simple, fields) =
        pulled("products", guide("rest/tutorials/configurable-product/create-simple-products.md:97")).await;
    assert_eq!((simple.remote_id.as_str(), &fields["productStatus"]), ("2079", &json!("ACTIVE")));
    assert_eq!(fields["variants"][0]["price"].to_string(), "25");
    assert!(fields["description"].as_str().unwrap().starts_with("The Champ Tee"));
    assert_eq!(fields["customFields"]["color"], "52");
    let (_, configurable) =
        pulled("products", guide("rest/tutorials/configurable-product/create-configurable-product.md:91")).await;
    assert_eq!(configurable["productType"], "configurable");
}

/// A shop of so many orders, as the guide says it answers: filters, two sorts, pages, and the last page again past it.
fn shop(count: u64) -> impl Fn(&Request) -> Reply {
    move |request| {
        let ask = |name: &str| request.query(&format!("searchCriteria{name}"));
        let stamp = |n: u64| format!("2026-01-31 12:00:{:02}", n / 7);
        let mut orders: Vec<(u64, String)> = (1..=count).map(|n| (n, stamp(count - n))).collect();
        for group in 0..3 {
            let part = |field: &str| ask(&format!("[filter_groups][{group}][filters][0][{field}]"));
            let (Some(field), Some(value), Some(condition)) = (part("field"), part("value"), part("condition_type"))
            else {
                continue;
            };
            orders.retain(|(id, at)| match (field.as_str(), condition.as_str()) {
                ("updated_at", "gteq") => *at >= value,
                ("updated_at", "lteq") => *at <= value,
                ("entity_id", "gt") => *id > value.parse().unwrap(),
                other => panic!("{other:?}"),
            });
        }
        match ask("[sortOrders][0][field]").as_deref() {
            Some("updated_at") => {
                assert_eq!(ask("[sortOrders][1][field]").as_deref(), Some("entity_id"));
                orders.sort_by(|a, b| (&a.1, a.0).cmp(&(&b.1, b.0)));
            }
            Some("entity_id") => orders.sort(),
            other => panic!("unsorted lists repeat and miss records: {other:?}"),
        }
        let size: usize = ask("[pageSize]").unwrap().parse().unwrap();
        let last = orders.len().div_ceil(size).max(1);
        let page: usize = ask("[currentPage]").unwrap().parse().unwrap();
        let items: Vec<Value> = orders
            .chunks(size)
            .nth(page.min(last) - 1)
            .unwrap_or_default()
            .iter()
            .map(|(id, at)| json!({"entity_id": id, "updated_at": at, "created_at": at}))
            .collect();
        Reply::json(json!({"items": items, "total_count": orders.len()}))
    }
}

async fn walk(session: &Session, scan: bool) -> Vec<String> {
    let c = collection(session, "orders");
    let (mut ids, mut mark): (Vec<String>, Option<PageMark>) = (Vec::new(), None);
    loop {
        let page: Page = match scan {
            true => session.scan_page(c, mark.as_ref()).await.unwrap(),
            false => session.pull_page(c, &PullQuery::default(), mark.as_ref()).await.unwrap(),
        };
        assert_eq!(page.ids_only, scan);
        ids.extend(page.records.into_iter().map(|record| record.remote_id));
        match page.next {
            Some(next) => mark = Some(next),
            None => return ids,
        }
    }
}

#[tokio::test]
async fn a_page_past_the_end_ends_the_pull() {
    for count in [0, 1, 99, 100, 101, 200, 250] {
        let app = App::start(shop(count)).await;
        let ids = walk(&session(&app), false).await;
        let unique: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!((ids.len(), unique.len()), (count as usize, count as usize));
        assert_eq!(app.requests().len() as u64, count.div_ceil(100).max(1), "no page past the end is asked for");
    }
}

#[tokio::test]
async fn a_scan_asks_for_ids_only_and_walks_by_id() {
    let app = App::start(shop(450)).await;
    let ids = walk(&session(&app), true).await;
    assert_eq!(ids.len(), 450);
    let first = &app.requests()[0];
    assert_eq!(first.query("fields").as_deref(), Some("items[entity_id,updated_at],total_count"));
    assert_eq!(first.query("searchCriteria[filter_groups][0][filters][0][value]").as_deref(), Some("0"));
    assert_eq!(first.url.path(), "/rest/all/V1/orders");
}

#[tokio::test]
async fn a_shop_that_ignores_the_filter_of_a_scan_is_not_taken_for_a_small_one() {
    let items: Vec<Value> = (1..=200).map(|id| json!({"entity_id": id})).collect();
    let app = App::replies(vec![Reply::json(json!({"items": items, "total_count": 500}))]).await;
    let session = session(&app);
    let c = collection(&session, "orders");
    let first = session.scan_page(c, None).await.unwrap();
    let error = session.scan_page(c, first.next.as_ref()).await.unwrap_err();
    assert_eq!(error.slug(), "bad-answer", "{error}");
}

#[tokio::test]
async fn bounds_are_written_as_the_guide_prints_them() {
    let app = App::start(shop(5)).await;
    let session = session(&app);
    let query = PullQuery { since: Some((Millis(1_769_860_800_000), None)), until: Some(Millis(1_769_860_860_000)) };
    session.pull_page(collection(&session, "orders"), &query, None).await.unwrap();
    let request = &app.requests()[0];
    let filter = |group: u8, part: &str| {
        request.query(&format!("searchCriteria[filter_groups][{group}][filters][0][{part}]")).unwrap()
    };
    assert_eq!((filter(0, "field"), filter(0, "value")), ("updated_at".to_owned(), "2026-01-31 12:00:00".to_owned()));
    assert_eq!((filter(0, "condition_type"), filter(1, "condition_type")), ("gteq".to_owned(), "lteq".to_owned()));
    assert_eq!(filter(1, "value"), "2026-01-31 12:01:00");
}

#[tokio::test]
async fn an_administrators_login_gives_the_token() {
    let app = App::start(|request| match request.url.path() {
        "/rest/all/V1/integration/admin/token" if request.body == r#"{"username":"admin","password":"pw"}"# => {
            Reply::json("\"t0ken\"")
        }
        "/rest/all/V1/integration/admin/token" => {
            Reply::status(401, r#"{"message": "The account sign-in was incorrect"}"#)
        }
        _ if request.header("authorization") == Some("Bearer t0ken") => {
            Reply::json(json!({"items": null, "total_count": 0}))
        }
        _ => Reply::status(401, r#"{"message": "The consumer isn't authorized to access %resources."}"#),
    })
    .await;
    let shop = connector("adobe-commerce");
    let session = app.session(&shop, json!({}), json!({"username": "admin", "password": "pw"}));
    let fresh = session.refresh_credentials().await.unwrap();
    assert!(fresh.token().unwrap().expires_at.is_some());
    session.adopt(fresh);
    assert!(walk(&session, false).await.is_empty());
    let wrong = app.session(&shop, json!({}), json!({"username": "admin", "password": "x"}));
    let error = wrong.refresh_credentials().await.unwrap_err();
    assert_eq!(error.to_string(), "the app does not accept the credentials: The account sign-in was incorrect");
}

#[tokio::test]
async fn the_four_keys_of_an_integration_sign_each_request() {
    let app = App::start(shop(1)).await;
    let keys = json!({"consumerKey": "ck", "consumerSecret": "cs", "token": "tk", "tokenSecret": "ts"});
    let session = app.session(&connector("adobe-commerce"), json!({}), keys);
    walk(&session, false).await;
    walk(&session, false).await;
    let header = |index: usize| app.requests()[index].header("authorization").unwrap().to_owned();
    assert!(header(0).starts_with("OAuth oauth_consumer_key=\"ck\", oauth_nonce="), "{}", header(0));
    assert_ne!(header(0), header(1), "a nonce does not repeat");
}
