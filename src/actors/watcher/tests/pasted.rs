//! Addresses that a person pasted into an app, when ours change.

use serde_json::json;

use super::desk::Desk;
use crate::actors::watcher::{look, pasted};
use crate::domain::connection::{Integration, WebhookState};
use crate::domain::id::{IntegrationId, WorkspaceNo};
use crate::domain::time::Millis;
use crate::store::Slot;

/// A connector `pasty`, whose webhook a person must paste, with one collection that is never pulled here.
fn pasty(folder: &std::path::Path) {
    let write = |path: &str, text: &str| {
        let path = folder.join("pasty").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("spec.yml", "key: pasty\nname: Pasty\ncategory: crm\nbaseUri: {givenBy: user}\nauth: [none]\n");
    write("webhook/spec.yml", "name: Script in the account\n");
    write("webhook/handle.map.yml", "events: []\n");
    write(
        "data/things/spec.yml",
        "name: Things\ntopic: crm/contacts\ndetects: {created: webhook, updated: webhook, deleted: not-supported}\n\
         record: {id: $.id, updatedAt: $.at}\n",
    );
    write("data/things/scan.rest.yml", "path: /things\nrecords: $.items\n");
    write("data/things/fetch.rest.yml", "path: /things/{{record.id}}\nrecord: $\n");
    write("data/things/record.map.yml", "firstName: $.name\n");
}

fn told(desk: &Desk, topic: &str) -> Vec<serde_json::Value> {
    let all = desk.events().into_iter().filter(|event| event.topic == topic);
    all.map(|event| {
        let crate::domain::event::Payload::Plain(payload) = event.payload else { panic!("a system event") };
        serde_json::from_str(&payload).unwrap()
    })
    .collect()
}

#[tokio::test]
async fn a_pasted_address_that_changes_is_told_once_with_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    pasty(folder.path());
    let setup = super::desk::Setup {
        connector: "pasty",
        base: "http://127.0.0.1:9/".into(),
        credentials: json!({}),
        collections: &[],
        initial: crate::domain::connection::InitialSync::Baseline,
        connectors: Some(folder.path()),
    };
    let mut desk = Desk::new(crate::clock::Clock::start(Millis(0)), setup).await;
    desk.look().await;
    assert_eq!(desk.connection().webhook, WebhookState::None { reason: "no-public-url".to_owned() });
    let here = |port: u16| Some(format!("http://127.0.0.1:{port}/mill/").parse().unwrap());
    // The first address is no change, and neither is the same one again.
    desk.deps.public_url = here(1);
    desk.look().await;
    desk.look().await;
    assert_eq!(desk.connection().webhook, WebhookState::None { reason: "pasted".to_owned() });
    assert!(!pasted::is_behind(&desk.deps, &desk.connection()).unwrap());
    assert_eq!(desk.count("webhook/url-changed"), 0);
    // A node without an address for a while has not changed it.
    desk.deps.public_url = None;
    desk.look().await;
    desk.deps.public_url = here(1);
    desk.look().await;
    assert_eq!(desk.count("webhook/url-changed"), 0);
    desk.deps.public_url = here(2);
    assert!(pasted::is_behind(&desk.deps, &desk.connection()).unwrap(), "looked at as soon as the node starts");
    desk.look().await;
    desk.look().await;
    let told = told(&desk, "webhook/url-changed");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["connectionId"], desk.id.to_string());
    let token = desk.deps.store.webhook_tokens(&desk.id.0).unwrap().remove(0);
    let uri = format!("http://127.0.0.1:2/mill/in/c/{token}");
    assert_eq!(told[0]["webhooks"], json!([{"key": null, "name": "Script in the account", "uri": uri}]));
    assert!(!pasted::is_behind(&desk.deps, &desk.connection()).unwrap());
    desk.stop().await;
}

async fn integration(desk: &Desk, connector: &str, parameters: &serde_json::Value) -> Integration {
    let now = desk.deps.clock.now();
    let made = Integration {
        id: IntegrationId([3; 12]),
        workspace: WorkspaceNo::DEFAULT,
        connector: connector.into(),
        name: connector.into(),
        parameters: parameters.to_string(),
        created_at: now,
        updated_at: now,
    };
    let stored = made.clone();
    let change = desk.deps.store.change(move |tx| {
        tx.put_secret(&stored.id.0, Slot::WebhookTokens, &vec!["token-of-the-integration".to_owned()])?;
        tx.put_object(&stored)
    });
    change.await.unwrap();
    made
}

#[tokio::test]
async fn an_integrations_global_addresses_are_told_when_they_change() {
    let mut desk = Desk::sandbox(&["orders"]).await;
    let integration = integration(&desk, "sandbox", &json!({})).await;
    for (port, count) in [(1, 0), (1, 0), (2, 1), (2, 1), (1, 2)] {
        desk.deps.public_url = Some(format!("http://127.0.0.1:{port}/").parse().unwrap());
        let behind = pasted::is_integration_behind(&desk.deps, &integration).unwrap();
        look(&desk.deps, integration.id.0).await.unwrap();
        assert!(!pasted::is_integration_behind(&desk.deps, &integration).unwrap());
        assert_eq!(desk.count("webhook/url-changed"), count, "port {port}, behind: {behind}");
    }
    let told = told(&desk, "webhook/url-changed");
    let first = &told[0]["webhooks"][0];
    assert_eq!(told[0]["integrationId"], integration.id.to_string());
    let uri = format!("http://127.0.0.1:2/in/g/token-of-the-integration/{}", first["key"].as_str().unwrap());
    assert_eq!(first["uri"], uri);
    desk.stop().await;
}

#[tokio::test]
async fn an_address_is_told_only_once_the_app_pushes_to_it_again_and_not_while_its_journal_is_read() {
    let mut desk = Desk::sandbox(&["orders"]).await;
    for (webhooks, port, count) in
        [("push", 1, 0), ("journal", 2, 0), ("journal", 2, 0), ("push", 2, 1), ("push", 2, 1)]
    {
        let parameters = json!({
            "baseUri": "http://127.0.0.1:9", "clientId": "c", "clientSecret": "s", "webhooks": webhooks,
            "journalHosts": "127.0.0.1",
        });
        let integration = integration(&desk, "hubspot", &parameters).await;
        desk.deps.public_url = Some(format!("http://127.0.0.1:{port}/").parse().unwrap());
        look(&desk.deps, integration.id.0).await.unwrap();
        assert_eq!(desk.count("webhook/url-changed"), count, "{webhooks}, port {port}");
    }
    desk.stop().await;
}
