//! Metafields of a shop as custom fields: by webhook, by poll, by bulk operation, and what a shop without any pays.

use serde_json::{Value, json};

use super::bulk::find;
use super::*;

/// A shop with metafields on all kinds of records that can have them.
fn fill(shop: &Shop) -> [(&'static str, u64); 3] {
    let mut world = shop.world();
    world.define("ORDER", "custom.gift_note", "single_line_text_field");
    world.define("ORDER", "custom.points", "number_integer");
    world.define("CUSTOMER", "custom.vip", "boolean");
    world.define("CUSTOMER", "custom.rate", "number_decimal");
    world.define("PRODUCT", "custom.care", "json");
    world.define("PRODUCTVARIANT", "custom.length", "dimension");
    let all = [("orders", world.order(2)), ("customers", world.customer()), ("products", world.product(3))];
    let [order, customer, product] = all;
    world.metafield(order, None, "custom.points", "number_integer", json!(7));
    // What has no definition is not asked for.
    world.metafield(order, None, "elsewhere.secret", "single_line_text_field", json!("not ours"));
    world.metafield(customer, None, "custom.vip", "boolean", json!(true));
    world.metafield(customer, None, "custom.rate", "number_decimal", json!("2.75"));
    world.metafield(product, None, "custom.care", "json", json!({"wash": [30, 40], "iron": false}));
    world.metafield(product, Some(1), "custom.length", "dimension", json!({"value": 10.5, "unit": "cm"}));
    all
}

/// What each kind shows of it.
fn shown(records: &[Value; 3]) -> [Value; 4] {
    let [order, customer, product] = records;
    [
        &order["customFields"],
        &customer["customFields"],
        &product["customFields"],
        &product["variants"][1]["customFields"],
    ]
    .map(Clone::clone)
}

fn filled() -> [Value; 4] {
    [
        json!({"custom.points": 7, "tags": []}),
        json!({"custom.rate": 2.75, "custom.vip": true, "note": null}),
        json!({"custom.care": {"iron": false, "wash": [30, 40]}}),
        json!({"custom.length": {"unit": "cm", "value": 10.5}}),
    ]
}

impl Desk {
    async fn all(&self, id: &str, of: [(&'static str, u64); 3]) -> [Value; 3] {
        let mut records = Vec::new();
        for (model, record) in of {
            records.push(find(&self.cached(id, model).await, record).clone());
        }
        records.try_into().expect("three")
    }

    async fn told_to(&self, receiver: &Receiver, events: usize) -> Vec<Value> {
        receiver.wait(events).await.iter().map(|one| one.json()).collect()
    }

    /// Custom fields as `GET /one/metadata/fields` lists them: path, title and the app's type.
    async fn listed(&self, id: &str, topic: &str) -> Vec<(String, String, String)> {
        let path = at(&format!("metadata/fields?topic={topic}&connectionId={id}"));
        let fields = self.node.get(&path).await.ok()["fields"].clone();
        let own = fields.as_array().expect("fields").iter().filter(|field| field["custom"] == true);
        let word = |field: &Value, name: &str| field[name].as_str().unwrap_or_default().to_owned();
        own.map(|field| (word(field, "path"), word(field, "title"), word(field, "appType"))).collect()
    }
}

/// What the queries of that beginning cost, each.
fn costs(shop: &Shop, start: &str) -> Vec<u64> {
    let world = shop.world();
    world.costs.iter().filter(|(query, _)| query.trim_start().starts_with(start)).map(|(_, cost)| *cost).collect()
}

fn payload(bodies: &[Value], kind: &str, id: u64) -> Value {
    let id = json!(id.to_string());
    let fits = |body: &&Value| body["updateType"] == kind && body["dataPayload"]["remoteId"] == id;
    bodies.iter().rfind(fits).unwrap_or_else(|| panic!("{kind} {id} in {bodies:?}"))["dataPayload"].clone()
}

#[actix::test]
async fn metafields_come_by_poll_and_by_webhook_alike_in_both_versions() {
    let desk = Desk::new().await;
    let all = fill(&desk.shop);
    let [order, customer, product] = all;
    let receivers = [Receiver::start(), Receiver::start()];
    desk.subscribe("2023-12", &receivers[0]).await;
    desk.subscribe("2024-03", &receivers[1]).await;
    let id = desk.connect(json!({})).await;
    desk.ready(&id).await;
    assert_eq!(shown(&desk.all(&id, all).await), filled());
    assert!(desk.told().await.is_empty(), "what was there is the baseline");

    // By poll: a new order with metafields, and records whose metafields changed with something else.
    let fresh = {
        let mut world = desk.shop.world();
        let fresh = world.order(1);
        world.metafield(("orders", fresh), None, "custom.gift_note", "single_line_text_field", json!("for Ada"));
        world.metafield(customer, None, "custom.rate", "number_decimal", json!("3.00"));
        world.change("customers", customer.1, json!({}));
        world.metafield(product, Some(0), "custom.length", "dimension", json!({"value": 9, "unit": "cm"}));
        world.change("products", product.1, json!({}));
        fresh
    };
    assert_eq!(desk.sync(&id, "incremental").await, "completed");
    for receiver in &receivers {
        let bodies = desk.told_to(receiver, 3).await;
        assert_eq!(payload(&bodies, "created", fresh)["customFields"]["custom.gift_note"], "for Ada");
        assert!(payload(&bodies, "updated", customer.1).to_string().contains("\"custom.rate\":3.00"), "{bodies:?}");
        let variants = payload(&bodies, "updated", product.1)["variants"].clone();
        assert_eq!(variants[0]["customFields"]["custom.length"]["value"], 9, "{variants}");
        assert!(variants[2]["customFields"].is_null(), "{variants}");
    }

    // By webhook, whose body has none of them: a new order, and records of which a metafield alone changed, which moves
    // no time.
    let by_hook = {
        let mut world = desk.shop.world();
        let by_hook = world.order(1);
        world.metafield(("orders", by_hook), None, "custom.points", "number_integer", json!(1));
        world.metafield(order, None, "custom.points", "number_integer", json!(8));
        world.metafield(product, None, "custom.care", "json", json!(["cold"]));
        by_hook
    };
    let body = |fixture: &str, noun: &str, id: u64| rest_body(&format!("go-shopify/{fixture}.json"), noun, id);
    for (topic, event, body) in [
        ("orders/create", "event-1", body("order", "order", by_hook)),
        ("orders/updated", "event-2", body("order", "order", order.1)),
        ("products/update", "event-3", body("product", "product", product.1)),
        ("customers/update", "event-4", body("customer", "customer", customer.1)),
    ] {
        desk.deliver(&desk.shop.hooks(topic, event, &body)).await;
    }
    desk.understood(&id).await;
    for receiver in &receivers {
        let bodies = desk.told_to(receiver, 6).await;
        assert_eq!(payload(&bodies, "created", by_hook)["customFields"], json!({"custom.points": 1, "tags": []}));
        assert_eq!(payload(&bodies, "updated", order.1)["customFields"]["custom.points"], 8);
        assert_eq!(payload(&bodies, "updated", product.1)["customFields"], json!({"custom.care": ["cold"]}));
    }
    // The poll shows the same records as the webhooks did, and each was told once.
    assert_eq!(desk.sync(&id, "incremental").await, "completed");
    assert_eq!(desk.sync(&id, "full").await, "completed");
    assert_eq!(desk.told().await.len(), 6, "{:?}", desk.told().await);
    desk.node.stop().await;
}

#[actix::test]
async fn the_metafields_that_a_shop_has_defined_are_listed_and_new_ones_are_read_within_a_day() {
    let desk = Desk::new().await;
    let all = fill(&desk.shop);
    let id = desk.connect(json!({})).await;
    desk.ready(&id).await;
    let row = |path: &str, title: &str, kind: &str| (path.to_owned(), title.to_owned(), kind.to_owned());
    let products = desk.listed(&id, "commerce/products").await;
    let care = row("customFields.custom.care", "care", "json");
    assert_eq!(products, [care.clone(), row("variants[].customFields.custom.length", "length", "dimension")]);
    assert!(
        desk.listed(&id, "commerce/orders").await.contains(&row(
            "customFields.custom.gift_note",
            "gift note",
            "single_line_text_field"
        )),
        "defined, though no order has it yet"
    );
    assert!(desk.listed(&id, "commerce/fulfillments").await.is_empty(), "they have no metafields");

    // What is defined later is found out a day later, and what stood in it all the time is no change.
    {
        let mut world = desk.shop.world();
        world.metafield(all[2], None, "custom.origin", "single_line_text_field", json!("Graz"));
        world.define("PRODUCT", "custom.origin", "single_line_text_field");
    }
    assert_eq!(desk.sync(&id, "incremental").await, "completed");
    assert!(desk.all(&id, all).await[2]["customFields"]["custom.origin"].is_null());
    desk.node.state.clock.raise(desk.node.state.clock.now().after(Duration::from_secs(86_500)));
    assert_eq!(desk.sync(&id, "incremental").await, "completed");
    let path = at(&format!("commerce/products?connectionId={id}"));
    desk.until(&path, |answer| answer["products"][0]["customFields"]["custom.origin"] == "Graz").await;
    assert!(desk.told().await.is_empty(), "{:?}", desk.told().await);
    assert_eq!(desk.listed(&id, "commerce/products").await.len(), 3);
    desk.node.stop().await;
}

#[actix::test]
async fn a_shop_that_shows_no_definitions_is_polled_all_the_same_and_one_without_any_pays_for_none() {
    for denied in [true, false] {
        let desk = Desk::new().await;
        let order = desk.shop.world().order(1);
        if denied {
            desk.shop.world().define("ORDER", "custom.points", "number_integer");
            desk.shop.world().metafield(("orders", order), None, "custom.points", "number_integer", json!(7));
            desk.shop.world().denied.insert("metafieldDefinitions");
        }
        let id = desk.connect(json!({})).await;
        desk.ready(&id).await;
        desk.shop.world().change("orders", order, json!({"note": "polled"}));
        assert_eq!(desk.sync(&id, "incremental").await, "completed");
        assert_eq!(desk.told().await, [told("orders", "updated", order)]);
        assert_eq!(find(&desk.cached(&id, "orders").await, order)["customFields"], json!({"tags": []}));
        assert!(desk.topics().await.iter().all(|topic| topic != "sync/failed"));
        // A page of 30 orders with 20 lines each, and nothing else.
        let page = 2 + 30 * (1 + 2 + 20);
        assert!(costs(&desk.shop, "query Orders(").iter().all(|cost| *cost == page));
        // Of orders, customers, products and variants, once a day.
        assert_eq!(costs(&desk.shop, "query Definitions(").len(), 4);
        desk.node.stop().await;
    }
}

#[actix::test]
async fn however_many_metafields_there_are_no_query_costs_more_than_one_may() {
    let desk = Desk::new().await;
    let products: Vec<u64> = {
        let mut world = desk.shop.world();
        for n in 0..140 {
            world.define("PRODUCTVARIANT", &format!("custom.v{n:03}"), "number_integer");
            world.define("PRODUCT", &format!("custom.p{n:03}"), "number_integer");
        }
        let products: Vec<u64> = (0..7).map(|n| world.product(3 + n)).collect();
        for product in &products {
            world.metafield(("products", *product), Some(2), "custom.v001", "number_integer", json!(1));
            world.metafield(("products", *product), None, "custom.p001", "number_integer", json!(2));
        }
        products
    };
    let id = desk.connect(json!({"collections": ["products"]})).await;
    desk.connection(&id, |c| c["collections"][0]["records"] == 7).await;
    let cached = desk.cached(&id, "products").await;
    for product in &products {
        let shown = find(&cached, *product);
        assert_eq!(shown["customFields"], json!({"custom.p001": 2}));
        assert_eq!(shown["variants"][2]["customFields"], json!({"custom.v001": 1}));
    }
    let max = desk.shop.world().max_cost;
    let ran: Vec<u64> = costs(&desk.shop, "query Product(");
    assert!(!ran.is_empty() && ran.iter().all(|cost| *cost <= max), "{ran:?}");
    // More than one page of metafields shows are not asked for, and so it is said.
    let path = at(&format!("metadata/fields?topic=commerce/products&connectionId={id}"));
    let fields = desk.node.get(&path).await.ok()["fields"].clone();
    let left_out = |field: &&Value| field["description"].as_str().is_some_and(|text| text.contains("not asked for"));
    assert_eq!(fields.as_array().expect("fields").iter().filter(left_out).count(), 280 - 250);
    desk.node.stop().await;
}

#[actix::test]
async fn a_bulk_operation_brings_the_metafields_that_the_lists_bring() {
    let desk = Desk::new().await;
    let all = fill(&desk.shop);
    {
        let mut world = desk.shop.world();
        world.bulks.claims = Some(10_000);
        world.bulks.fate = Some("COMPLETED");
    }
    let id = desk.connect(json!({"collections": ["orders", "customers", "products"]})).await;
    desk.read(&id).await;
    assert_eq!(desk.shop.world().bulks.operations.len(), 3);
    let file = String::from_utf8(desk.shop.world().bulks.operations[0].file.clone()).expect("text");
    assert!(!file.contains("elsewhere"), "{file}");
    assert_eq!(shown(&desk.all(&id, all).await), filled());
    // The lists show them again, untouched but for their time.
    desk.node.state.clock.raise(desk.node.state.clock.now().after(Duration::from_secs(5)));
    for (root, record) in all {
        desk.shop.world().change(root, record, json!({}));
    }
    assert_eq!(desk.sync(&id, "incremental").await, "completed");
    assert!(desk.told().await.is_empty(), "{:?}", desk.told().await);
    desk.node.stop().await;
}
