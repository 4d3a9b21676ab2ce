//! A large first sync of a shop, by bulk operations.

use serde_json::{Value, json};
use tidemill::app::{self, Seams};

use super::*;

impl Desk {
    /// Waits until something is so in the shop.
    async fn shop_until(&self, what: &str, fits: impl Fn(&Shop) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !fits(&self.shop) {
            assert!(Instant::now() < end, "{what}: {:?}", self.shop.world().asked.last());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// All wanted collections have been read.
    pub(super) async fn read(&self, id: &str) -> Value {
        let read = |c: &Value| c["collections"].as_array().expect("a list").iter().all(|c| c["lastPullAt"].is_string());
        self.connection(id, read).await
    }

    /// The records of a topic as they are cached, by the app's id.
    pub(super) async fn cached(&self, id: &str, model: &str) -> Vec<Value> {
        let path = at(&format!("commerce/{model}?connectionId={id}&limit=250"));
        self.node.get(&path).await.ok()[model].as_array().expect("records").clone()
    }
}

pub(super) fn find(records: &[Value], id: u64) -> &Value {
    records.iter().find(|one| one["remoteId"] == json!(id.to_string())).expect("the record")
}

/// How often a query of that beginning was sent.
fn asked(shop: &Shop, start: &str) -> usize {
    shop.world().asked.iter().filter(|(query, _)| query.trim_start().starts_with(start)).count()
}

#[actix::test]
async fn a_large_shop_is_read_first_by_one_operation_and_what_changes_meanwhile_is_not_lost() {
    let desk = Desk::new().await;
    let (old, long, gone) = {
        let mut world = desk.shop.world();
        world.bulks.claims = Some(12_000);
        world.bulks.piece_max = 20_000;
        let all: Vec<u64> = (0..60).map(|n| world.order(n % 3)).collect();
        (all[5], world.order(25), all[50])
    };
    // All that is older than the list of changes looks back.
    desk.node.state.clock.raise(desk.node.state.clock.now().after(Duration::from_secs(3_600)));
    let id = desk.connect(json!({"collections": ["orders"]})).await;
    desk.shop_until("an operation was asked for", |shop| shop.world().bulks.operations.len() == 1).await;
    // What the file will not show: it has what there was when the operation began.
    let fresh = {
        let mut world = desk.shop.world();
        world.change("orders", old, json!({"note": "while the file was written"}));
        world.delete("orders", gone);
        world.order(1)
    };
    // A clock that was raised stands still: the webhook comes after the operation was asked for.
    desk.node.state.clock.raise(desk.node.state.clock.now().after(Duration::from_secs(1)));
    desk.shop_until("the webhooks are there", |shop| shop.world().subscriptions.len() >= 3).await;
    desk.deliver(&desk.shop.hooks("orders/delete", "event-1", &json!({"id": gone}))).await;
    desk.understood(&id).await;
    desk.shop.world().bulks.fate = Some("COMPLETED");
    desk.read(&id).await;
    // The file, and the poll of what changed since the operation began.
    desk.connection(&id, |shown| shown["collections"][0]["records"] == 61).await;
    let orders = desk.cached(&id, "orders").await;
    assert_eq!(orders.len(), 61);
    assert_eq!(find(&orders, old)["note"], "while the file was written");
    assert_eq!(find(&orders, long)["lineItems"].as_array().expect("lines").len(), 25);
    find(&orders, fresh);
    assert!(orders.iter().all(|one| one["remoteId"] != json!(gone.to_string())), "what was deleted stays so");
    {
        let world = desk.shop.world();
        assert!(world.bulks.served.len() > 2, "it was read in pieces: {:?}", world.bulks.served);
        assert!(!world.bulks.leaked, "no credential goes to the host of the files");
        assert_eq!(world.bulks.operations.len(), 1);
    }
    assert!(asked(&desk.shop, "query Orders(") <= 2, "the list was read from the operation's beginning on only");
    let topics = desk.topics().await;
    assert_eq!(topics.iter().filter(|topic| *topic == "sync/started").count(), 1, "{topics:?}");
    desk.node.stop().await;
}

#[actix::test]
async fn what_an_operation_brings_is_what_the_lists_bring() {
    let desk = Desk::new().await;
    let all = {
        let mut world = desk.shop.world();
        world.bulks.claims = Some(10_000);
        world.bulks.fate = Some("COMPLETED");
        let all = [("orders", world.order(3)), ("customers", world.customer()), ("products", world.product(4))];
        let address = |n: usize| {
            json!({"id": format!("gid://shopify/MailingAddress/{n}?model_name=CustomerAddress"), "firstName": "Ada",
                "lastName": "Weiß", "company": null, "address1": format!("{n} Mill Lane"), "address2": null, "city": "Graz",
                "province": null, "zip": "8010", "countryCodeV2": "AT", "phone": null})
        };
        world.change("customers", all[1].1, json!({"addressesV2": (0..12).map(address).collect::<Vec<_>>()}));
        let picture = |n: usize| {
            json!({"id": format!("gid://shopify/MediaImage/{n}"), "alt": format!("picture {n}"),
                "preview": {"image": {"url": format!("https://cdn.example/{n}.jpg")}}})
        };
        world.change("products", all[2].1, json!({"media": (0..2).map(picture).collect::<Vec<_>>()}));
        all
    };
    let id = desk.connect(json!({"collections": ["orders", "customers", "products"]})).await;
    desk.read(&id).await;
    assert_eq!(desk.shop.world().bulks.operations.len(), 3);
    let mut before = Vec::new();
    for (model, record) in all {
        before.push(find(&desk.cached(&id, model).await, record).clone());
    }
    assert_eq!(before[0]["lineItems"].as_array().map(Vec::len), Some(3));
    assert_eq!(before[1]["addresses"].as_array().map(Vec::len), Some(10), "no more than a list shows");
    assert_eq!(before[2]["variants"].as_array().map(Vec::len), Some(4));
    assert_eq!(before[2]["images"].as_array().map(Vec::len), Some(2));
    // The lists show them again, untouched but for their time.
    let later = desk.node.state.clock.now().after(Duration::from_secs(5));
    desk.node.state.clock.raise(later);
    for (root, record) in all {
        desk.shop.world().change(root, record, json!({}));
    }
    assert_eq!(desk.sync(&id, "incremental").await, "completed");
    assert!(desk.told().await.is_empty(), "{:?}", desk.told().await);
    desk.node.stop().await;
}

#[actix::test]
async fn after_a_crash_the_file_is_read_on_from_where_it_was() {
    let desk = Desk::new().await;
    {
        let mut world = desk.shop.world();
        world.bulks.claims = Some(12_000);
        world.bulks.fate = Some("COMPLETED");
        world.bulks.piece_max = 8_000;
        // The host of the files goes away after three pieces.
        world.bulks.pieces = Some((3, 503));
        for n in 0..60 {
            world.order(n % 3);
        }
    }
    let id = desk.connect(json!({"collections": ["orders"]})).await;
    desk.connection(&id, |c| c["collections"][0]["records"].as_u64().is_some_and(|n| n > 0)).await;
    desk.shop_until("three pieces were read", |shop| shop.world().bulks.pieces == Some((0, 503))).await;
    let Desk { node, shop, integration } = desk;
    // As a process that dies, but for its files, which the next one needs.
    let folder = node.stop().await;
    let served = shop.world().bulks.served.len();
    shop.world().bulks.pieces = None;
    let node = Node::open(folder, SETTINGS, api::configure, app::wall_clock(), Seams::default()).await;
    let desk = Desk { node, shop, integration };
    let answer = desk.node.post(&at(&format!("connections/{id}/sync")), json!({"mode": "incremental"})).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    desk.read(&id).await;
    assert_eq!(desk.cached(&id, "orders").await.len(), 60);
    {
        let world = desk.shop.world();
        assert_eq!(world.bulks.operations.len(), 1, "the operation was not asked for again");
        let (before, after) = world.bulks.served.split_at(served);
        assert!(before.len() == 3 && after.iter().all(|offset| *offset > before[2]), "{:?}", world.bulks.served);
    }
    desk.node.stop().await;
}

#[actix::test]
async fn an_operation_that_fails_expires_or_loses_its_file_falls_back_to_the_lists() {
    for (fate, pieces) in [
        ("FAILED", None),
        ("EXPIRED", None),
        ("CANCELED", None),
        ("COMPLETED", Some((1, 403))),
        ("COMPLETED", Some((1, 400))),
    ] {
        let desk = Desk::new().await;
        {
            let mut world = desk.shop.world();
            world.bulks.claims = Some(12_000);
            (world.bulks.fate, world.bulks.pieces, world.bulks.piece_max) = (Some(fate), pieces, 8_000);
            for n in 0..40 {
                world.order(n % 3);
            }
        }
        let id = desk.connect(json!({"collections": ["orders"]})).await;
        let shown = desk.read(&id).await;
        assert_eq!(shown["connection"]["collections"][0]["records"], 40, "{fate}: {shown}");
        assert_eq!(desk.shop.world().bulks.operations.len(), 1, "{fate}: it is not tried again");
        assert!(asked(&desk.shop, "query Orders(") >= 2, "{fate}: the lists were walked");
        let topics = desk.topics().await;
        assert!(topics.iter().all(|topic| topic != "sync/failed"), "{fate}: {topics:?}");
        desk.node.stop().await;
    }
}

#[actix::test]
async fn a_small_shop_is_read_by_its_lists_and_one_that_is_busy_is_asked_again() {
    let desk = Desk::new().await;
    for n in 0..3 {
        desk.shop.world().order(n);
    }
    desk.shop.world().customer();
    let id = desk.connect(json!({"collections": ["orders"]})).await;
    desk.read(&id).await;
    assert!(desk.shop.world().bulks.operations.is_empty());
    desk.node.call("DELETE", &at(&format!("connections/{id}")), None).await.ok();

    {
        let mut world = desk.shop.world();
        (world.bulks.claims, world.bulks.busy) = (Some(12_000), true);
    }
    let id = desk.connect(json!({"collections": ["customers"]})).await;
    desk.shop_until("it was refused", |shop| shop.world().bulks.refused > 0).await;
    {
        let mut world = desk.shop.world();
        (world.bulks.busy, world.bulks.fate) = (false, Some("COMPLETED"));
    }
    assert_eq!(desk.sync(&id, "incremental").await, "completed");
    desk.read(&id).await;
    assert_eq!(desk.cached(&id, "customers").await.len(), 1);
    assert_eq!(desk.shop.world().bulks.operations.len(), 1);
    desk.node.stop().await;
}
