//! What the demo needs on the node, made through the public API, each thing only if it is not there yet.

use serde_json::{Value, json};

use crate::cli::Failure;
use crate::cli::http::Server;

const API: &str = "/2024-03/one";
const USERNAME: &str = "demo";
const ACCOUNT: &str = "acc_1";
const ACCOUNT_KEY: &str = "sandbox-key-1";
const APP_KEY: &str = "sandbox-app-key";
/// Pages of a list that are read to find a thing.
const PAGES_MAX: usize = 100;

/// The sandbox as the demo sees it: its first account, and the developer's settings.
pub(super) struct Sandbox {
    developer: Server,
}

impl Sandbox {
    /// The sandbox at `base`.
    pub(super) fn new(base: &str) -> Result<Self, Failure> {
        Ok(Self { developer: Server::new(base, APP_KEY)? })
    }
    /// The sandbox, with the developer's key.
    pub(super) fn server(&self) -> &Server {
        &self.developer
    }
    /// The account that is connected.
    pub(super) fn account(&self) -> &'static str {
        ACCOUNT
    }
}

fn text(value: &Value, what: &str) -> Result<String, Failure> {
    let missing = || Failure::Failed(format!("the node's answer lacks {what}: {value}"));
    value.as_str().map(str::to_owned).ok_or_else(missing)
}

/// The first thing in a paged list that fits.
async fn find(node: &Server, list: &str, fits: impl Fn(&Value) -> bool) -> Result<Option<Value>, Failure> {
    let mut cursor = String::new();
    for _ in 0..PAGES_MAX {
        let page = node.ask("GET", &format!("{API}/{list}?limit=250{cursor}"), None).await?;
        let plural = if list == "webhooks" { "subscriptions" } else { list };
        if let Some(found) = page[plural].as_array().and_then(|things| things.iter().find(|thing| fits(thing))) {
            return Ok(Some(found.clone()));
        }
        let Some(next) = page["next"].as_str() else { return Ok(None) };
        let next: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
        cursor = format!("&cursor={next}");
    }
    Ok(None)
}

/// The demo's user.
pub(super) async fn user(node: &Server) -> Result<String, Failure> {
    if let Some(user) = find(node, "users", |user| user["username"] == USERNAME).await? {
        return text(&user["userId"], "userId");
    }
    let body = json!({"username": USERNAME, "fullName": "Demo Customer"});
    text(&node.ask("POST", &format!("{API}/users"), Some(&body)).await?["userId"], "userId")
}

/// The subscription to `address`; its secret. Of one that was there, a new secret is drawn, since the old is not shown.
pub(super) async fn subscription(node: &Server, address: &str) -> Result<String, Failure> {
    if let Some(found) = find(node, "webhooks", |subscription| subscription["address"] == address).await? {
        let id = text(&found["subscriptionId"], "subscriptionId")?;
        let path = format!("{API}/webhooks/{id}/secret/rotate");
        let answer = node.ask("POST", &path, Some(&json!({"overlapSeconds": 0}))).await?;
        return text(&answer["subscription"]["secret"], "secret");
    }
    let body = json!({
        "address": address,
        "topic": ["*", "connection/*", "sync/failed", "sync/held"],
        "include": ["changedFields"],
        "description": "tidemill demo",
    });
    let answer = node.ask("POST", &format!("{API}/webhooks"), Some(&body)).await?;
    text(&answer["subscription"]["secret"], "secret")
}

/// The integration with the sandbox, its global webhook pasted into the sandbox's settings.
pub(super) async fn integration(node: &Server, sandbox: &Sandbox) -> Result<String, Failure> {
    let base = sandbox.server().base();
    let secret = draw()?;
    let parameters = json!({"baseUri": base, "webhookSecret": secret});
    let (id, was_there) = match find(node, "integrations", |found| found["connector"] == "sandbox").await? {
        Some(found) => (text(&found["integrationId"], "integrationId")?, found["parameters"]["baseUri"] == base),
        None => {
            let body = json!({"connector": "sandbox", "name": "Sandbox", "parameters": parameters});
            let answer = node.ask("POST", &format!("{API}/integrations"), Some(&body)).await?;
            (text(&answer["integration"]["integrationId"], "integrationId")?, false)
        }
    };
    let path = format!("{API}/integrations/{id}");
    let webhooks = node.ask("GET", &format!("{path}/webhooks"), None).await?;
    let uri = text(&webhooks["webhooks"][0]["uri"], "webhooks[0].uri")?;
    let set = sandbox.server().ask("GET", "/app/webhook", None).await?;
    if was_there && set["url"] == uri.as_str() {
        return Ok(id);
    }
    node.ask("PATCH", &path, Some(&json!({"parameters": parameters}))).await?;
    // As a developer would paste the URI into the app's settings. Contacts have a webhook of their own.
    let body = json!({"url": uri, "secret": secret, "events": ["order.*", "opportunity.*"]});
    sandbox.server().ask("PUT", "/app/webhook", Some(&body)).await?;
    Ok(id)
}

fn draw() -> Result<String, Failure> {
    let mut bytes = [0; 24];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::Failed("the system has no randomness to give".into()))?;
    Ok(hex::encode(bytes))
}

/// The connection of the user to the sandbox's first account, looked at often, with the event of the global webhook
/// that tells of orders.
pub(super) async fn connection(node: &Server, user: &str, integration: &str) -> Result<(), Failure> {
    let ours = |connection: &Value| connection["integrationId"] == integration && connection["userId"] == user;
    let id = match find(node, "connections", ours).await? {
        Some(found) => {
            let id = text(&found["connectionId"], "connectionId")?;
            if found["status"] != "active" {
                let patch = json!({"credentials": {"apiKey": ACCOUNT_KEY}});
                node.ask("PATCH", &format!("{API}/connections/{id}"), Some(&patch)).await?;
            }
            id
        }
        None => {
            let body = json!({
                "userId": user,
                "integrationId": integration,
                "credentials": {"apiKey": ACCOUNT_KEY},
                "pollIntervalSeconds": 10,
                "fullScanIntervalSeconds": 30,
            });
            let answer = node.ask("POST", &format!("{API}/connections"), Some(&body)).await?;
            text(&answer["connection"]["connectionId"], "connectionId")?
        }
    };
    // Switching on what is on already changes nothing.
    let event = json!({"event": "order-changed"});
    node.ask("POST", &format!("{API}/connections/{id}/events"), Some(&event)).await?;
    Ok(())
}

/// Where everything is, and how to go on.
pub(super) fn introduction(node: &Server, sandbox: &Sandbox, key: &str, address: &str) -> String {
    let (base, app) = (node.base(), sandbox.server().base());
    format!(
        "\n\
         Tidemill runs. Ctrl-C ends it; what is under way is kept.\n\
         \n\
         API key   {key}\n\
         API       {base}/2024-03/one\n\
         Docs      {base}/docs\n\
         Metrics   {base}/metrics\n\
         Sandbox   {app}/api/contacts   (key {ACCOUNT_KEY})\n\
         \n\
         To subscribe an address of your own (inside 127.0.0.0/8, or public https):\n\
         \n\
         curl -X POST {base}/2024-03/one/webhooks \\\n\
        \x20 -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\\n\
        \x20 -d '{{\"address\":\"http://127.0.0.1:3000/hook\",\"topic\":[\"crm/*\",\"commerce/orders\"]}}'\n\
         \n\
         Events, as they arrive at {address}:\n\
         \n"
    )
}
