//! What a session makes of a GraphQL app: costs, page sizes, records in parts, lists inside lists.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill::connectors::{CallError, PullQuery, Session};
use tidemill::domain::app_field::AppFields;
use tidemill::domain::time::Millis;

use super::app::{App, Reply, Request};
use super::connector;

fn variables(request: &Request) -> Value {
    let body: Value = serde_json::from_str(&request.body).unwrap();
    body["variables"].clone()
}

fn session(app: &App) -> Session {
    let given = json!({"shop": "tide-shop.myshopify.com"});
    let session = app.session(&connector("shopify"), given, json!({"accessToken": "shpat_1"}));
    // A shop without metafields, as it was found to be before.
    for c in &session.connector().collections {
        session.know_fields(c, AppFields::default());
    }
    session
}

fn product(id: u64, variants: &[u64], more: bool) -> Value {
    let nodes: Vec<Value> =
        variants.iter().map(|id| json!({"id": format!("gid://shopify/ProductVariant/{id}")})).collect();
    let end = variants.last().map(u64::to_string);
    json!({"id": format!("gid://shopify/Product/{id}"), "updatedAt": "2026-01-10T11:00:00Z",
        "variants": {"nodes": nodes, "pageInfo": {"hasNextPage": more, "endCursor": end}}})
}

fn page(root: &str, nodes: &[Value]) -> Value {
    json!({"data": {root: {"nodes": nodes, "pageInfo": {"hasNextPage": false, "endCursor": null}}}})
}

async fn pull(session: &Session, key: &str, query: &PullQuery) -> Result<tidemill::connectors::Page, CallError> {
    session.pull_page(session.connector().collection(key).unwrap(), query, None).await
}

#[tokio::test]
async fn a_page_that_is_too_dear_is_halved_until_it_is_not_and_stays_so() {
    let app = App::start(|request| match variables(request)["first"].as_u64().unwrap() {
        first if first > 8 => Reply::json(json!({"errors": [
            {"message": "Query cost is too high", "extensions": {"code": "MAX_COST_EXCEEDED"}}]})),
        _ => Reply::json(page("orders", &[])),
    })
    .await;
    let session = session(&app);
    for _ in 0..2 {
        assert!(pull(&session, "orders", &PullQuery::default()).await.unwrap().records.is_empty());
    }
    let asked: Vec<u64> = app.requests().iter().map(|r| variables(r)["first"].as_u64().unwrap()).collect();
    assert_eq!(asked, [30, 15, 7, 7]);
    let request = &app.requests()[0];
    assert_eq!(request.url.path(), "/admin/api/2026-07/graphql.json");
    assert_eq!(request.header("x-shopify-access-token"), Some("shpat_1"));
    assert_eq!(request.header("authorization"), None);
}

#[tokio::test]
async fn a_page_of_one_that_is_too_dear_is_a_failure() {
    let costly = json!({"errors": [{"message": "no", "extensions": {"code": "MAX_COST_EXCEEDED"}}]});
    let app = App::replies(vec![Reply::json(costly)]).await;
    let error = pull(&session(&app), "orders", &PullQuery::default()).await.unwrap_err();
    assert_eq!((error.slug(), app.requests().len()), ("too-costly", 5));
}

fn throttled(requested: u32, available: u32) -> Reply {
    let status = json!({"maximumAvailable": 1000.0, "currentlyAvailable": available, "restoreRate": 1000.0});
    Reply::json(json!({"errors": [{"message": "Throttled", "extensions": {"code": "THROTTLED"}}],
        "extensions": {"cost": {"requestedQueryCost": requested, "actualQueryCost": null, "throttleStatus": status}}}))
}

#[tokio::test]
async fn a_throttled_query_is_sent_again_once_there_is_enough_for_it() {
    let app = App::replies(vec![throttled(300, 250), Reply::json(page("orders", &[]))]).await;
    let session = session(&app);
    assert!(pull(&session, "orders", &PullQuery::default()).await.unwrap().records.is_empty());
    assert_eq!(app.requests().len(), 2);
    // One that is throttled for ever is a rate limit, with its wait.
    let app = App::replies(vec![throttled(300, 290)]).await;
    let session = self::session(&app);
    let error = pull(&session, "orders", &PullQuery::default()).await.unwrap_err();
    assert_eq!((error.retry_after(), app.requests().len()), (Some(Duration::from_millis(10)), 3));
}

#[tokio::test]
async fn a_time_in_a_filter_is_quoted_and_in_utc() {
    let app = App::replies(vec![Reply::json(page("orders", &[]))]).await;
    let session = session(&app);
    let query = PullQuery { since: Some((Millis(1_769_860_800_000), None)), until: None };
    pull(&session, "orders", &query).await.unwrap();
    pull(&session, "orders", &PullQuery::default()).await.unwrap();
    let asked: Vec<Value> = app.requests().iter().map(|r| variables(r)["filter"].clone()).collect();
    assert_eq!(asked, [json!("updated_at:>='2026-01-31T12:00:00Z'"), Value::Null]);
}

#[tokio::test]
async fn a_record_that_is_shown_in_part_is_handed_on_whole() {
    let app = App::start(|request| {
        let variables = variables(request);
        match (variables["id"].as_str(), variables["after_variant"].as_str()) {
            (None, _) => Reply::json(page("products", &[product(1, &[1], false), product(2, &[1, 2], true)])),
            (Some("gid://shopify/Product/2"), None) => {
                Reply::json(json!({"data": {"product": product(2, &[1, 2, 3], true)}}))
            }
            (Some("gid://shopify/Product/2"), Some("3")) => {
                Reply::json(json!({"data": {"product": product(2, &[4], false)}}))
            }
            other => panic!("{other:?}"),
        }
    })
    .await;
    let session = session(&app);
    let page = pull(&session, "products", &PullQuery::default()).await.unwrap();
    let counts: Vec<usize> = (page.records.iter())
        .map(|r| serde_json::from_str::<Value>(r.raw.get()).unwrap()["variants"]["nodes"].as_array().unwrap().len())
        .collect();
    assert_eq!(counts, [1, 4]);
    assert_eq!(page.records[1].remote_id, "2");
}

#[tokio::test]
async fn lists_inside_items_keep_the_walk_going_by_the_items() {
    let orders = [
        json!({"id": "gid://shopify/Order/1", "updatedAt": "2026-01-10T11:00:00Z", "fulfillments": []}),
        json!({"id": "gid://shopify/Order/2", "updatedAt": "2026-01-10T11:00:09Z", "fulfillments": [
            {"id": "gid://shopify/Fulfillment/7", "updatedAt": "2026-01-10T11:00:05Z"},
            {"id": "gid://shopify/Fulfillment/8", "updatedAt": "2026-01-10T11:00:06Z"}]}),
    ];
    let app = App::replies(vec![Reply::json(page("orders", &orders))]).await;
    let page = pull(&session(&app), "fulfillments", &PullQuery::default()).await.unwrap();
    let ids: Vec<&str> = page.records.iter().map(|r| r.remote_id.as_str()).collect();
    assert_eq!(ids, ["7", "8"]);
    let walked = page.places.unwrap();
    assert_eq!(walked.len(), 2);
    assert!(walked[1].updated_at > page.records[1].updated_at);
}

#[tokio::test]
async fn ids_are_walked_from_the_last_one_on_and_a_list_that_ignores_it_is_told() {
    let ids = |range: std::ops::Range<u64>| {
        let nodes: Vec<Value> = range.map(|id| json!({"id": format!("gid://shopify/Customer/{id}")})).collect();
        Reply::json(json!({"data": {"customers": {"nodes": nodes}}}))
    };
    let app = App::replies(vec![ids(1..251), ids(250..260)]).await;
    let session = self::session(&app);
    let customers = session.connector().collection("customers").unwrap();
    let first = session.scan_page(customers, None).await.unwrap();
    let last = session.scan_page(customers, first.next.as_ref()).await.unwrap();
    assert_eq!((first.records.len(), last.records.len(), last.next), (250, 9, None));
    assert_eq!(last.records[0].remote_id, "251", "the one that it starts at was shown before");
    let filters: Vec<Value> = app.requests().iter().map(|r| variables(r)["filter"].clone()).collect();
    assert_eq!(filters, ["id:>=1", "id:>=250"]);
    let app = App::replies(vec![ids(1..251)]).await;
    let session = self::session(&app);
    let customers = session.connector().collection("customers").unwrap();
    let first = session.scan_page(customers, None).await.unwrap();
    assert!(session.scan_page(customers, first.next.as_ref()).await.is_err());
}

#[tokio::test]
async fn what_was_destroyed_is_told_by_a_feed_of_many_kinds() {
    let event = |id: &str| json!({"createdAt": "2026-01-10T11:00:00Z", "subjectId": id});
    let feed = [event("gid://shopify/ProductVariant/5"), event("gid://shopify/Product/6")];
    let others = json!({"data": {"events": {"nodes": [event("gid://shopify/Collection/4")],
        "pageInfo": {"hasNextPage": true, "endCursor": "a"}}}});
    let app = App::replies(vec![Reply::json(others), Reply::json(page("events", &feed))]).await;
    let session = session(&app);
    let products = session.connector().collection("products").unwrap();
    let query = PullQuery { since: Some((Millis(1_769_860_800_000), None)), until: None };
    let gone = session.deleted_page(products, &query, None).await.unwrap();
    assert_eq!(gone.records.iter().map(|r| r.remote_id.as_str()).collect::<Vec<_>>(), ["6"]);
    let filter = variables(&app.requests()[0])["filter"].clone();
    assert_eq!(filter, "action:destroy subject_type:PRODUCT created_at:>='2026-01-31T12:00:00Z'");
}

#[tokio::test]
async fn a_shop_must_look_like_one() {
    let shopify = connector("shopify");
    for bad in [
        "evil.example/x.myshopify.com",
        "Shop.myshopify.com",
        "a.b.myshopify.com",
        "shop.myshopify.com.evil.example",
        "x.myshopify.com\n",
        "",
    ] {
        let given = super::object(json!({"shop": bad}));
        let error = shopify.parameters.check(&given).unwrap_err();
        assert!(error.starts_with("parameters.shop must look like ^[a-z0-9]"), "{bad}: {error}");
    }
    let good = super::object(json!({"shop": "tide-shop.myshopify.com"}));
    let all = shopify.parameters.check(&good).unwrap();
    assert_eq!(shopify.base_uri.choose(&all).unwrap().as_str(), "https://tide-shop.myshopify.com/");
}

#[tokio::test]
async fn webhooks_that_are_there_are_left_and_a_refusal_names_its_topic() {
    let created = Mutex::new(Vec::new());
    let app = App::start(move |request| {
        let topic = variables(request)["topic"].clone();
        if topic.is_null() {
            let nodes = json!([{"id": "gid://shopify/WebhookSubscription/1", "topic": "ORDERS_CREATE",
                "uri": "https://hooks.example/in/c/t"}]);
            return Reply::json(json!({"data": {"webhookSubscriptions": {"nodes": nodes}}}));
        }
        created.lock().unwrap().push(topic.clone());
        let errors = match topic.as_str() {
            Some("PRODUCTS_DELETE") => json!([{"field": ["topic"], "message": "not with these scopes"}]),
            _ => json!([]),
        };
        let made = if errors == json!([]) { json!({"id": "gid://shopify/WebhookSubscription/2"}) } else { Value::Null };
        Reply::json(json!({"data": {"webhookSubscriptionCreate": {"webhookSubscription": made, "userErrors": errors}}}))
    })
    .await;
    let error = session(&app).subscribe("https://hooks.example/in/c/t", "unused").await.unwrap_err();
    assert!(error.to_string().contains("PRODUCTS_DELETE: not with these scopes"), "{error}");
    assert_eq!(app.requests().len(), 12, "the list, and all topics but the one that is there");
}
