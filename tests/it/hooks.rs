//! REST hooks: made and taken away as an iPaaS does it, and apart from everybody else's.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::api::{self, Access};
use tidemill::domain::workspace::Scope;

use crate::support::api::{KEY, Node, OPERATOR};
use crate::support::receiver::Receiver;
use crate::support::server::{Act, Got, Server, answer};

const HOOKS: &str = "/2024-03/hooks";
const TOPIC: &str = "desk/tickets";

/// A node with two users, each with a key of their own.
struct World {
    node: Node,
    ann: String,
    bob: String,
}

async fn hooks_key(node: &Node, by: &str, user: &str) -> String {
    let made = node.call_as(by, "POST", "/2024-03/one/keys", Some(json!({"userId": user, "scopes": ["hooks"]}))).await;
    made.ok()["key"]["apiKey"].as_str().expect("a key").to_owned()
}

impl World {
    async fn start() -> Self {
        let node = Node::start().await;
        node.post("/2024-03/one/topics", json!({"topic": TOPIC})).await.ok();
        for name in ["ann", "bob"] {
            node.post("/2024-03/one/users", json!({"username": name, "fullName": format!("{name} & Co")})).await.ok();
        }
        let (ann, bob) = (hooks_key(&node, KEY, "ann").await, hooks_key(&node, KEY, "bob").await);
        Self { node, ann, bob }
    }
    async fn publish(&self, user: Option<&str>, kind: &str) -> String {
        let mut event = json!({"topic": TOPIC, "updateType": kind, "dataPayload": {"of": user}});
        if let Some(user) = user {
            event["userId"] = user.into();
        }
        let answer = self.node.post("/2024-03/one/events", event).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        answer.json()["eventId"].as_str().expect("an id").to_owned()
    }
    async fn hook(&self, key: &str, body: Value) -> Value {
        let answer = self.node.call_as(key, "POST", HOOKS, Some(body)).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()
    }
    async fn ids(&self, key: &str, path: &str) -> Vec<String> {
        let list = self.node.call_as(key, "GET", path, None).await.ok();
        let hooks = list["hooks"].as_array().expect("a list").iter();
        hooks.map(|hook| hook["id"].as_str().expect("an id").to_owned()).collect()
    }
}

fn id(hook: &Value) -> String {
    hook["id"].as_str().expect("an id").to_owned()
}

fn one(hook: &Value) -> String {
    format!("{HOOKS}/{}", id(hook))
}

#[actix::test]
async fn a_hook_gets_its_users_events_with_type_and_user_in_the_body() {
    let world = World::start().await;
    let receiver = Receiver::start();
    let made = world.hook(&world.ann, json!({"target_url": receiver.address, "event": "ticket.created"})).await;
    assert_eq!((&made["topic"], &made["updateType"]), (&json!(TOPIC), &json!("created")));
    assert_eq!((&made["username"], &made["active"]), (&json!("ann"), &json!(true)));
    for (user, kind) in [(Some("bob"), "created"), (None, "created"), (Some("ann"), "updated")] {
        world.publish(user, kind).await;
    }
    let wanted = world.publish(Some("ann"), "created").await;
    let delivered = receiver.wait(1).await.remove(0);
    let body = delivered.json();
    assert_eq!((&body["eventId"], &body["topic"]), (&json!(wanted), &json!(TOPIC)));
    assert_eq!((&body["username"], &body["updateType"]), (&json!("ann"), &json!("created")));
    let theirs = standardwebhooks::Webhook::new(made["secret"].as_str().expect("a secret")).expect("a secret");
    let mut headers = hyper::header::HeaderMap::new();
    for (name, value) in &delivered.headers {
        let name = hyper::header::HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.insert(name, value.parse().expect("a value"));
    }
    theirs.verify(&delivered.body, &headers).expect("the official library believes it");
    // It is the same subscription under another name.
    let path = format!("/2024-03/one/webhooks/{}", id(&made));
    let subscription = world.node.get(&path).await.ok()["subscription"].clone();
    assert_eq!(subscription["hookEvent"], "ticket.created");
    assert_eq!(
        (&subscription["topic"], &subscription["include"]),
        (&json!([TOPIC]), &json!(["topic", "eventId", "username"]))
    );
    let shown = world.node.call_as(&world.ann, "GET", &one(&made), None).await.ok();
    assert!(shown.get("secret").is_none() && shown["event"] == "ticket.created");
    let gone = world.node.call_as(&world.ann, "DELETE", &one(&made), None).await.ok();
    assert_eq!(gone, json!({"deleted": true, "id": id(&made)}));
    world.node.get(&path).await.refused(404, "subscription-not-found");
    world.publish(Some("ann"), "created").await;
    assert_eq!(receiver.so_far().len(), 1);
    world.node.stop().await;
}

#[actix::test]
async fn the_same_hook_again_is_the_one_that_is_there() {
    let world = World::start().await;
    let body = json!({"target_url": "http://127.0.0.1:9/a", "event": "contact.updated"});
    let made = world.hook(&world.ann, body.clone()).await;
    for (key, body) in [
        (&world.ann, body.clone()),
        (&world.ann, json!({"target_url": "http://127.0.0.1:9/a", "event": "crm.contacts.updated", "userId": "ann"})),
        (
            &KEY.to_owned(),
            json!({"target_url": "http://127.0.0.1:9/a", "event": "crm.contacts.updated", "userId": "ann"}),
        ),
    ] {
        let again = world.node.call_as(key, "POST", HOOKS, Some(body)).await.ok();
        assert_eq!((&again["id"], again.get("secret")), (&made["id"], None), "{again}");
    }
    // Another event, another URL, another user: another hook.
    let others = [
        (&world.ann, json!({"target_url": "http://127.0.0.1:9/a", "event": "contact.created"})),
        (&world.ann, json!({"target_url": "http://127.0.0.1:9/a", "event": "contacts"})),
        (&world.ann, json!({"target_url": "http://127.0.0.1:9/b", "event": "contact.updated"})),
        (&world.bob, body.clone()),
    ];
    for (key, body) in others {
        assert_ne!(world.hook(key, body).await["id"], made["id"]);
    }
    // A subscription of the ISV's own to the same is another matter too.
    let own = json!({"address": "http://127.0.0.1:9/a", "topic": ["crm/contacts"], "userId": "ann"});
    world.node.post("/2024-03/one/webhooks", own).await.ok();
    // All at once: one is made.
    let body = json!({"target_url": "http://127.0.0.1:9/c", "event": "lead.created"});
    let all = futures_util::future::join_all(
        (0..8).map(|_| world.node.call_as(&world.ann, "POST", HOOKS, Some(body.clone()))),
    );
    let all = all.await;
    assert_eq!(all.iter().filter(|answer| answer.status == 201).count(), 1);
    assert!(all.iter().all(|answer| answer.json()["id"] == all[0].json()["id"]));
    world.node.stop().await;
}

#[actix::test]
async fn users_and_workspaces_are_apart() {
    let world = World::start().await;
    let node = &world.node;
    let body = |url: &str| json!({"target_url": format!("http://127.0.0.1:9/{url}"), "event": "contact.updated"});
    let (anns, bobs) = (world.hook(&world.ann, body("a")).await, world.hook(&world.bob, body("b")).await);
    let everybodys = world.hook(KEY, body("c")).await;
    let own = json!({"address": "http://127.0.0.1:9/d", "topic": ["*"], "userId": "ann"});
    let own = node.post("/2024-03/one/webhooks", own).await.ok();
    let own = own["subscription"]["subscriptionId"].as_str().expect("an id").to_owned();
    assert_eq!(world.ids(&world.ann, HOOKS).await, [id(&anns)]);
    assert_eq!(world.ids(&world.bob, HOOKS).await, [id(&bobs)]);
    assert_eq!(world.ids(&world.ann, &format!("{HOOKS}?userId=ann")).await, [id(&anns)]);
    assert_eq!(world.ids(KEY, &format!("{HOOKS}?userId=bob")).await, [id(&bobs)]);
    assert_eq!(world.ids(KEY, HOOKS).await, [id(&everybodys), id(&bobs), id(&anns)]);
    // What is another's, everybody's, or no hook at all is not there.
    for foreign in [&id(&bobs), &id(&everybodys), &own, &"0".repeat(24), &"x".to_owned()] {
        let path = format!("{HOOKS}/{foreign}");
        for method in ["GET", "DELETE"] {
            node.call_as(&world.ann, method, &path, None).await.refused(404, "hook-not-found");
        }
    }
    node.call("GET", &format!("{HOOKS}/{own}"), None).await.refused(404, "hook-not-found");
    // Another user is refused, whether there is one or not, in every call that takes one.
    let bob = node.get("/2024-03/one/users/bob").await.ok()["user"]["userId"].as_str().expect("an id").to_owned();
    for user in ["bob", &bob, "nobody"] {
        let mut body = body("e");
        body["userId"] = user.into();
        node.call_as(&world.ann, "POST", HOOKS, Some(body)).await.refused(403, "forbidden");
        for path in
            [format!("{HOOKS}?"), format!("{HOOKS}/sample?event=contacts&"), format!("{HOOKS}/fields?event=contacts&")]
        {
            node.call_as(&world.ann, "GET", &format!("{path}userId={user}"), None).await.refused(403, "forbidden");
        }
    }
    // Another workspace sees nothing, and is not seen.
    let two = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let theirs = two["key"]["apiKey"].as_str().expect("a key");
    node.call_as(theirs, "POST", "/2024-03/one/users", Some(json!({"username": "ann"}))).await.ok();
    let their_ann = hooks_key(node, theirs, "ann").await;
    assert!(world.ids(theirs, HOOKS).await.is_empty() && world.ids(&their_ann, HOOKS).await.is_empty());
    let their_hook = world.hook(&their_ann, body("a")).await;
    assert_ne!(their_hook["id"], anns["id"]);
    for (key, hook) in [(theirs, &anns), (&their_ann, &anns), (KEY, &their_hook), (&world.ann, &their_hook)] {
        for method in ["GET", "DELETE"] {
            node.call_as(key, method, &one(hook), None).await.refused(404, "hook-not-found");
        }
    }
    // An answer that was kept for one key is not given to another.
    let twice = |key: &str| {
        let (bearer, body) = (format!("Bearer {key}"), body("f").to_string());
        async move {
            let headers = [("authorization", bearer.as_str()), ("idempotency-key", "the-same")];
            node.send("POST", HOOKS, &headers, &body).await
        }
    };
    let (one_ann, one_bob) = (twice(&world.ann).await.json(), twice(&world.bob).await.json());
    assert_ne!((&one_ann["id"], &one_ann["secret"]), (&one_bob["id"], &one_bob["secret"]));
    assert_eq!(twice(&world.ann).await.json(), one_ann);
    // With its user everything goes.
    node.call("DELETE", "/2024-03/one/users/ann", None).await.ok();
    node.call_as(&world.ann, "GET", HOOKS, None).await.refused(401, "unauthorized");
    node.call("GET", &one(&anns), None).await.refused(404, "hook-not-found");
    node.call("GET", &one(&bobs), None).await.ok();
    world.node.stop().await;
}

#[actix::test]
async fn a_hooks_key_opens_hooks_and_nothing_else_of_the_whole_table() {
    let world = World::start().await;
    let mut refused = 0;
    for route in api::table() {
        let method = route.method.as_ref().map_or("POST".to_owned(), ToString::to_string);
        let path = route.path.replace("{version}", "2024-03").replace(['{', '}'], "");
        let answer = world.node.call_as(&world.ann, &method, &path, Some(json!({}))).await;
        match route.access {
            Access::Key(_) => {
                answer.refused(403, "forbidden");
                refused += 1;
            }
            Access::Operator | Access::Node => assert!([401, 403].contains(&answer.status), "{method} {path}"),
            Access::Hooks(_) => assert_ne!(answer.status, 403, "{method} {path}"),
            Access::Open => {}
        }
    }
    assert!(refused > 40, "{refused}");
    // The other way round: what reads sees hooks, and what writes makes them.
    let made = world.node.post("/2024-03/one/keys", json!({"name": "reader", "scopes": ["read"]})).await.ok();
    let reader = made["key"]["apiKey"].as_str().expect("a key");
    world.node.call_as(reader, "GET", HOOKS, None).await.ok();
    let body = json!({"target_url": "http://127.0.0.1:9/", "event": "contacts"});
    let message = world.node.call_as(reader, "POST", HOOKS, Some(body)).await.refused(403, "forbidden");
    assert!(message.contains("hooks") && message.contains("write"), "{message}");
    assert_eq!(api::table().iter().filter(|r| r.access == Access::Hooks(Scope::Write)).count(), 2);
    world.node.stop().await;
}

#[actix::test]
async fn a_410_takes_the_hook_away_and_other_answers_do_not() {
    let world = World::start().await;
    let receiver = Receiver::start();
    receiver.answer([(404, Vec::new()), (410, Vec::new())]);
    let told = Receiver::start();
    let system = json!({"address": told.address, "topic": ["subscription/disabled"]});
    world.node.post("/2024-03/one/webhooks", system).await.ok();
    let body = json!({"target_url": receiver.address, "event": "tickets"});
    let made = world.hook(&world.ann, body.clone()).await;
    world.publish(Some("ann"), "created").await;
    receiver.wait(1).await;
    assert_eq!(world.node.call_as(&world.ann, "GET", &one(&made), None).await.ok()["active"], true);
    world.publish(Some("ann"), "created").await;
    receiver.wait(2).await;
    let event = told.wait(1).await.remove(0).json();
    assert_eq!(event["dataPayload"]["subscriptionId"], made["id"]);
    assert_eq!(event["dataPayload"]["reason"], "gone");
    world.node.call_as(&world.ann, "GET", &one(&made), None).await.refused(404, "hook-not-found");
    assert!(world.ids(KEY, HOOKS).await.is_empty());
    // What was owed is gone with it, and asked for again it is a fresh one.
    let owed = format!("/2024-03/one/deliveries?subscriptionId={}", id(&made));
    world.node.get(&owed).await.refused(404, "subscription-not-found");
    let again = world.hook(&world.ann, body).await;
    assert_ne!(again["id"], made["id"]);
    world.publish(Some("ann"), "created").await;
    receiver.wait(3).await;
    world.node.stop().await;
}

#[actix::test]
async fn a_hook_expires_and_is_renewed_by_asking_again() {
    let world = World::start().await;
    let body = |at: &str| json!({"target_url": "http://127.0.0.1:9/", "event": "tickets", "expiresAt": at});
    world.node.call_as(&world.ann, "POST", HOOKS, Some(body("2001-01-01T00:00:00Z"))).await.refused(422, "invalid");
    let soon = world.node.engine.clock.now().after(Duration::from_secs(3)).rfc3339_millis();
    let made = world.hook(&world.ann, body(&soon)).await;
    assert_eq!((&made["expiresAt"], &made["expiration_date"]), (&json!(soon), &json!(soon)));
    for _ in 0..200 {
        if world.node.call_as(&world.ann, "GET", &one(&made), None).await.ok()["active"] == false {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let shown = world.node.call_as(&world.ann, "GET", &one(&made), None).await.ok();
    assert_eq!((&shown["active"], &shown["status"]), (&json!(false), &json!("disabled")));
    let renewed = world.node.call_as(&world.ann, "POST", HOOKS, Some(body("2999-01-01T00:00:00Z"))).await.ok();
    assert_eq!((&renewed["id"], &renewed["active"]), (&made["id"], &json!(true)));
    // What the ISV has switched off stays off.
    let path = format!("/2024-03/one/webhooks/{}", id(&made));
    world.node.call("PATCH", &path, Some(json!({"isEnabled": false}))).await.ok();
    let asked = world.node.call_as(&world.ann, "POST", HOOKS, Some(body("2998-01-01T00:00:00Z"))).await.ok();
    assert_eq!((&asked["active"], &asked["status"]), (&json!(false), &json!("paused")));
    world.node.stop().await;
}

fn echo(got: &Got) -> Act {
    let secret = got.header("x-hook-secret").unwrap_or_default();
    let header = if secret.is_empty() { String::new() } else { format!("x-hook-secret: {secret}\r\n") };
    Act::Answer(answer("200 OK", &header, ""))
}

#[actix::test]
async fn a_handshake_asks_the_target_first() {
    let world = World::start().await;
    let willing = Server::start(echo).await;
    let body = |server: &Server| json!({"target_url": format!("http://{}/hook", server.address), "event": "tickets", "handshake": true});
    let made = world.hook(&world.ann, body(&willing)).await;
    let shaken = willing.got().into_iter().find(|got| got.header("x-hook-secret").is_some()).expect("a handshake");
    assert_eq!(shaken.header("x-hook-secret"), made["secret"].as_str());
    assert_eq!((shaken.header("x-alloy-topic"), shaken.body.as_slice()), (Some("tidemill/ping"), b"{}".as_slice()));
    // Asked again, the secret that is there is shown to the target again, and to nobody else.
    let again = world.node.call_as(&world.ann, "POST", HOOKS, Some(body(&willing))).await.ok();
    assert_eq!((&again["id"], again.get("secret")), (&made["id"], None));
    let secrets = willing.got().into_iter().filter_map(|got| got.header("x-hook-secret").map(str::to_owned));
    assert!(secrets.clone().count() >= 2 && secrets.into_iter().all(|s| made["secret"] == s.as_str()));
    // Deliveries do not carry it.
    world.publish(Some("ann"), "created").await;
    for _ in 0..200 {
        if willing.got().iter().any(|got| got.header("x-alloy-topic") == Some(TOPIC)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let delivered =
        willing.got().into_iter().find(|got| got.header("x-alloy-topic") == Some(TOPIC)).expect("delivered");
    assert_eq!(delivered.header("x-hook-secret"), None);
    for (unwilling, word) in [
        (Server::start(|_| Act::Answer(answer("200 OK", "", "hello"))).await, "without it"),
        (Server::start(|_| Act::Answer(answer("200 OK", "x-hook-secret: whsec_else\r\n", ""))).await, "without it"),
        (
            Server::start(|got| {
                let secret = got.header("x-hook-secret").unwrap_or_default();
                Act::Answer(answer("404 No", &format!("x-hook-secret: {secret}\r\n"), ""))
            })
            .await,
            "404",
        ),
    ] {
        let refused = world.node.call_as(&world.ann, "POST", HOOKS, Some(body(&unwilling))).await;
        let message = refused.refused(422, "handshake-failed");
        assert!(message.contains(word), "{message}");
    }
    assert_eq!(world.ids(&world.ann, HOOKS).await, [id(&made)], "who refuses is no hook");
    world.node.stop().await;
}

#[actix::test]
async fn what_cannot_be_a_hook_is_refused() {
    let world = World::start().await;
    for (body, status, code, word) in [
        (json!({"event": "contacts"}), 422, "invalid", "target_url"),
        (json!({"target_url": "http://127.0.0.1:9/"}), 422, "invalid", "event"),
        (json!({"target_url": "nowhere", "event": "contacts"}), 422, "invalid", "target_url"),
        (json!({"target_url": "http://10.0.0.1/", "event": "contacts"}), 422, "address-forbidden", "target_url"),
        (json!({"target_url": "http://127.0.0.1:9/", "event": "contct.updated"}), 422, "unknown-topic", "crm/contacts"),
        (
            json!({"target_url": "http://127.0.0.1:9/", "event": "customer.updated"}),
            422,
            "unknown-topic",
            "commerce/customers",
        ),
        (
            json!({"target_url": "http://127.0.0.1:9/", "event": "subscription/disabled"}),
            422,
            "unknown-topic",
            "webhooks",
        ),
        (
            json!({"target_url": "http://127.0.0.1:9/", "event": "contacts", "targetUrl": "x"}),
            422,
            "unknown-field",
            "targetUrl",
        ),
    ] {
        let message = world.node.call_as(&world.ann, "POST", HOOKS, Some(body.clone())).await.refused(status, code);
        assert!(message.contains(word), "{body}: {message}");
    }
    let forbidden = Node::start_with(&[("TIDEMILL__DELIVERY__ALLOW_NETWORKS", "[]")], api::configure).await;
    let body = json!({"target_url": "https://localhost:9/", "event": "contacts", "handshake": true});
    forbidden.post(HOOKS, body).await.refused(422, "address-forbidden");
    forbidden.stop().await;
    world.node.stop().await;
}

#[actix::test]
async fn a_user_has_a_limited_number_of_hooks() {
    let world = World::start().await;
    let body = |n: usize| json!({"target_url": format!("http://127.0.0.1:9/{n}"), "event": "contacts"});
    for n in 0..250 {
        world.hook(&world.ann, body(n)).await;
    }
    world.node.call_as(&world.ann, "POST", HOOKS, Some(body(250))).await.refused(409, "conflict");
    world.node.call_as(&world.ann, "POST", HOOKS, Some(body(7))).await.ok();
    world.hook(&world.bob, body(250)).await;
    let mut seen = 0;
    let mut path = format!("{HOOKS}?limit=100");
    loop {
        let page = world.node.call_as(&world.ann, "GET", &path, None).await.ok();
        seen += page["hooks"].as_array().map_or(0, Vec::len);
        let Some(next) = page["next"].as_str() else { break };
        path = format!("{HOOKS}?limit=100&cursor={next}");
    }
    assert_eq!(seen, 250);
    world.node.stop().await;
}

#[actix::test]
async fn samples_are_what_has_happened_to_that_user_or_are_made_up() {
    let world = World::start().await;
    let sample = |key: &str, query: &str| {
        let (key, path) = (key.to_owned(), format!("{HOOKS}/sample?{query}"));
        let node = &world.node;
        async move { node.call_as(&key, "GET", &path, None).await }
    };
    let invented = sample(&world.ann, "event=contact.deleted").await.ok();
    assert_eq!(invented["madeUp"], true);
    let body = &invented["samples"][0];
    assert_eq!((&body["topic"], &body["updateType"]), (&json!("crm/contacts"), &json!("deleted")));
    assert_eq!(body["dataPayload"]["remoteDeleted"], true);
    // Of a topic of one's own there is nothing to make one of.
    assert_eq!(sample(&world.ann, "event=ticket.created").await.ok(), json!({"samples": [], "madeUp": true}));
    let first = world.publish(Some("ann"), "created").await;
    world.publish(Some("bob"), "created").await;
    world.publish(Some("ann"), "updated").await;
    let last = world.publish(Some("ann"), "created").await;
    let ids = |answer: Value| -> Vec<String> {
        let samples = answer["samples"].as_array().expect("samples").iter();
        samples.map(|body| body["eventId"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(ids(sample(&world.ann, "event=ticket.created").await.ok()), [last.clone(), first]);
    assert_eq!(ids(sample(&world.ann, "event=ticket.created&limit=1").await.ok()), [last]);
    assert_eq!(ids(sample(KEY, "event=tickets&limit=10").await.ok()).len(), 4);
    assert_eq!(ids(sample(KEY, "event=tickets&userId=bob").await.ok()).len(), 1);
    sample(&world.ann, "").await.refused(400, "malformed");
    sample(&world.ann, "event=contacts&limit=0").await.refused(400, "malformed");
    let fields = world.node.call_as(&world.ann, "GET", &format!("{HOOKS}/fields?event=contact.updated"), None).await;
    let fields = fields.ok();
    assert!(fields["fields"].as_array().expect("fields").iter().any(|field| field["path"] == "firstName"));
    let star = format!("{HOOKS}/fields?event=crm/*");
    world.node.call_as(&world.ann, "GET", &star, None).await.refused(422, "invalid");
    world.node.stop().await;
}
