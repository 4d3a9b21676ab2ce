//! Every collection of a shop through created, updated and deleted by webhooks alone, and a list that ends at a ceiling.

use serde_json::{Value, json};

use super::*;

/// What each collection's webhooks are called, and the library's own body of one.
const BODIES: [(&str, &str, &str); 3] = [
    ("orders", "shopify_python_api/order.json", "order"),
    ("customers", "shopify_python_api/customer.json", "customer"),
    ("products", "shopify_python_api/product.json", "product"),
];

impl Desk {
    async fn hear(&self, id: &str, topic: &str, body: &Value) {
        let hooks = self.shop.hooks(topic, &format!("event-{topic}"), body);
        assert_eq!(hooks.len(), 1, "{topic} is subscribed to, once");
        self.deliver(&hooks).await;
        self.understood(id).await;
    }
}

#[actix::test]
async fn by_webhook_every_collection_goes_through_all_that_the_shop_tells_in_both_versions() {
    let desk = Desk::new().await;
    let receivers = [Receiver::start(), Receiver::start()];
    desk.subscribe("2023-12", &receivers[0]).await;
    desk.subscribe("2024-03", &receivers[1]).await;
    let id = desk.connect(json!({})).await;
    desk.ready(&id).await;

    let mut expected = Vec::new();
    let mut ids = Vec::new();
    for (root, fixture, noun) in BODIES {
        let record = {
            let mut world = desk.shop.world();
            match root {
                "orders" => world.order(2),
                "customers" => world.customer(),
                _ => world.product(2),
            }
        };
        let changed = match root {
            "products" => json!({"title": "changed"}),
            _ => json!({"note": "changed"}),
        };
        let body = rest_body(fixture, noun, record);
        desk.hear(&id, &format!("{root}/create"), &body).await;
        desk.shop.world().change(root, record, changed);
        let updated = if root == "orders" { "orders/updated".to_owned() } else { format!("{root}/update") };
        desk.hear(&id, &updated, &body).await;
        expected.extend([told(root, "created", record), told(root, "updated", record)]);
        ids.push((root, record));
    }
    // A fulfillment is inside an order, which changes with it.
    let order = ids[0].1;
    let body = |fulfillment| rest_body("shopify_python_api/fulfillment.json", "fulfillment", fulfillment);
    let shipped = desk.shop.world().fulfillment(order, "SUCCESS");
    desk.hear(&id, "fulfillments/create", &body(shipped)).await;
    desk.shop.world().reship(order, shipped, json!({"status": "CANCELLED"}));
    desk.hear(&id, "fulfillments/update", &body(shipped)).await;
    desk.hear(&id, "orders/updated", &rest_body(BODIES[0].1, "order", order)).await;
    expected.extend([
        told("fulfillments", "created", shipped),
        told("fulfillments", "updated", shipped),
        told("orders", "updated", order),
    ]);
    for (root, record) in &ids {
        desk.shop.world().delete(root, *record);
        desk.hear(&id, &format!("{root}/delete"), &json!({"id": record})).await;
        expected.push(told(root, "deleted", *record));
    }
    assert_eq!(desk.told().await, expected);
    assert!(desk.shop.hooks("fulfillments/delete", "event", &json!({})).is_empty(), "there is no such topic");

    // The polls have nothing to add.
    assert_eq!(desk.sync(&id, "incremental").await, "completed");
    assert_eq!(desk.told().await, expected);

    for (receiver, app, time) in
        [(&receivers[0], "name", "updatedTimestamp"), (&receivers[1], "app", "remoteUpdatedAt")]
    {
        let bodies: Vec<Value> = receiver.wait(expected.len()).await.iter().map(|one| one.json()).collect();
        assert!(bodies.iter().all(|body| body[app] == "Shopify" && !body["dataPayload"][time].is_null()), "{bodies:?}");
        let of = |root: &str, kind: &str, record: u64| {
            let (topic, record) = (format!("commerce/{root}"), record.to_string());
            let fits = |came: &&crate::support::receiver::Received| {
                let body = came.json();
                came.header("x-alloy-topic") == topic
                    && body["updateType"] == kind
                    && body["dataPayload"]["remoteId"] == record
            };
            let came = receiver.so_far();
            came.iter().find(fits).unwrap_or_else(|| panic!("{kind} {topic} {record}")).json()["dataPayload"].clone()
        };
        for (root, record) in &ids {
            let shown = if *root == "products" { "productName" } else { "note" };
            let shown = |payload: &Value| match *root {
                "customers" => payload["customFields"][shown].clone(),
                _ => payload[shown].clone(),
            };
            assert_ne!(shown(&of(root, "created", *record)), "changed", "{root}");
            assert_eq!(shown(&of(root, "updated", *record)), "changed", "{root}");
            assert_eq!(shown(&of(root, "deleted", *record)), "changed", "{root}: as it was last known");
        }
        assert_eq!(of("fulfillments", "created", shipped)["fulfillmentStatus"], "success");
        assert_eq!(of("fulfillments", "updated", shipped)["fulfillmentStatus"], "cancelled");
    }
    desk.node.stop().await;
}

#[actix::test]
async fn deliveries_of_the_other_family_of_headers_are_believed_and_understood_alike() {
    let desk = Desk::new().await;
    let id = desk.connect(json!({})).await;
    desk.ready(&id).await;
    let (order, customer, product) = {
        let mut world = desk.shop.world();
        (world.order(1), world.customer(), world.product(1))
    };
    let all = [("Order", "orders", order), ("Customer", "customers", customer), ("Product", "products", product)];
    let mut expected = Vec::new();
    for (topic, root, record) in all {
        desk.deliver(&[desk.shop.event(topic, "create", record)]).await;
        desk.understood(&id).await;
        desk.shop.world().change(root, record, json!({"tags": ["changed"]}));
        desk.deliver(&[desk.shop.event(topic, "update", record)]).await;
        desk.understood(&id).await;
        desk.shop.world().delete(root, record);
        desk.deliver(&[desk.shop.event(topic, "delete", record)]).await;
        desk.understood(&id).await;
        expected.extend(["created", "updated", "deleted"].map(|kind| told(root, kind, record)));
    }
    assert_eq!(desk.told().await, expected);
    // Its signature is checked like the other's.
    let mut forged = desk.shop.event("Order", "create", order);
    forged.body = forged.body.replace("create", "update");
    let path = forged.path.strip_prefix("/mill").expect("the public path");
    assert_eq!(desk.node.send("POST", path, &forged.headers(), &forged.body).await.status, 401);
    desk.node.stop().await;
}

#[actix::test]
async fn more_records_of_one_second_than_a_list_shows_are_found_by_the_scan() {
    let desk = Desk::new().await;
    {
        let mut world = desk.shop.world();
        // The lists are walked, as of a small shop, and end where Shopify's page on limits says.
        (world.bulks.claims, world.depth_max) = (Some(5), Some(25_000));
        world.crowd(25_010);
        // The list shows it behind the crowd.
        world.customer();
    }
    let id = desk.connect(json!({"collections": ["customers"]})).await;
    let all = |n: u64| move |c: &Value| c["collections"][0]["records"] == n;
    desk.connection(&id, |c| c["collections"][0]["lastPullAt"].is_string()).await;
    desk.connection(&id, all(25_001)).await;
    assert_eq!(desk.sync(&id, "full").await, "completed");
    desk.connection(&id, all(25_011)).await;
    assert_eq!(desk.shop.world().too_deep, 0, "nothing was asked for behind the ceiling");
    desk.node.stop().await;
}
