//! What is held of a user comes out whole, line by line, without a secret, and is written to the audit log.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill::api::Phase;
use tidemill::clock::Clock;
use tidemill::domain::time::Millis;
use tidemill::sandbox::{self, Options};

use crate::support::api::{KEY, Node, OPERATOR};
use crate::support::receiver::Receiver;

const ONE: &str = "/2024-03/one";

fn at(path: &str) -> String {
    format!("{ONE}/{path}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

#[actix::test]
async fn everything_of_a_user_comes_out_and_nothing_of_anybody_else() {
    let node = Node::start().await;
    let app = sandbox::run(Options::quiet(), Clock::start(Millis(0))).await.expect("a free port");
    let receiver = Receiver::start();
    node.post(&at("webhooks"), json!({"address": receiver.address, "topic": ["crm/contacts"]})).await.ok();
    let mut connections = BTreeMap::new();
    for (name, account) in [("ann", 1), ("bob", 2)] {
        node.post(&at("users"), json!({"username": name, "fullName": "A B"})).await.ok();
        let parameters = json!({"baseUri": app.url(), "webhookSecret": "a-long-secret"});
        let made = node.post(&at("integrations"), json!({"connector": "sandbox", "parameters": parameters})).await.ok();
        let wish = json!({"userId": name, "integrationId": made["integration"]["integrationId"],
            "credentials": {"apiKey": app.key(account)}});
        let made = node.post(&at("connections"), wish).await.ok();
        let id = text(&made["connection"]["connectionId"]);
        let mut synced = false;
        for _ in 0..400 {
            let shown = node.get(&at(&format!("connections/{id}"))).await.ok();
            let all = shown["connection"]["collections"].as_array().expect("collections").clone();
            synced = all.len() == 5 && all.iter().all(|c| c["baselineAt"].is_string());
            if synced {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(synced);
        connections.insert(name, (id, text(&made["connection"]["webhookUri"])));
        let event = json!({"topic": "crm/contacts", "userId": name, "dataPayload": {"of": name}});
        assert_eq!(node.post(&at("events"), event).await.status, 202);
    }
    receiver.wait(2).await;
    let answer = node.get(&at("users/ann/export")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")), "{}", answer.text);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let lines: Vec<Value> = answer.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).collect::<Vec<_>>();
    assert_eq!(lines[0]["user"]["username"], "ann");
    let (id, uri) = &connections["ann"];
    assert_eq!((of("connection").len(), &of("connection")[0]["connection"]["connectionId"]), (1, &json!(id)));
    let records = of("record");
    let topics: BTreeMap<String, usize> = records.iter().fold(BTreeMap::new(), |mut all, line| {
        *all.entry(text(&line["topic"])).or_default() += 1;
        all
    });
    for (topic, count) in &topics {
        let path = at(&format!("{topic}/count?connectionId={id}"));
        assert_eq!(node.get(&path).await.ok()["count"], *count, "{topic}");
    }
    assert_eq!(topics.len(), 5, "{topics:?}");
    assert!(records.iter().all(|line| line["record"]["id"].is_string() && line["connectionId"] == id.as_str()));
    let events = of("event");
    assert!(events.iter().any(|line| line["event"]["body"]["dataPayload"]["of"] == "ann"), "{events:?}");
    assert!(events.iter().any(|line| line["event"]["topic"] == "connection/created"));
    assert_eq!(of("delivery").len(), 1, "of the published event");
    assert_eq!(lines.last().expect("a line")["end"]["lines"], lines.len() - 1);
    assert!(!answer.text.contains("\"of\":\"bob\"") && !answer.text.contains(&connections["bob"].0));
    let token = uri.rsplit('/').next().expect("a token");
    for secret in [app.key(1).as_str(), "a-long-secret", token] {
        assert!(!answer.text.contains(secret), "{secret}");
    }
    let audit = node.get(&at("audit")).await.ok();
    assert_eq!(audit["audit"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&audit["audit"][0]["act"], &audit["audit"][0]["actor"]["kind"]),
        (&json!("user.exported"), &json!("key"))
    );
    assert_eq!(audit["audit"][0]["userId"], lines[0]["user"]["userId"]);
    node.stop().await;
}

#[actix::test]
async fn an_export_of_another_workspaces_user_is_a_404_and_one_that_is_cut_has_no_end() {
    let node = Node::start().await;
    node.post(&at("users"), json!({"username": "ann"})).await.ok();
    let two = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let two = text(&two["key"]["apiKey"]);
    node.call_as(&two, "GET", &at("users/ann/export"), None).await.refused(404, "user-not-found");
    node.get(&at("users/nobody/export")).await.refused(404, "user-not-found");
    node.state.health.set_phase(Phase::Draining);
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let whole = match client.get(node.url(&at("users/ann/export"))).bearer_auth(KEY).send().await {
        Ok(answer) => answer.bytes().await,
        Err(error) => Err(error),
    };
    assert!(whole.is_err(), "{whole:?}");
    node.stop().await;
}
