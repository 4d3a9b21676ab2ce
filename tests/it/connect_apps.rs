//! Accounts of NetSuite and B2C Commerce, connected at the connect page by whoever owns them, up to the first event.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::api;
use tidemill::app::Seams;
use tidemill::clock::Clock;
use tidemill::domain::time::Millis;

use crate::support::api::Node;
use crate::support::browser::{Browser, Page};
use crate::support::link::text;
use crate::support::netsuite::{ACCOUNT, KEYS, NetSuite, certificate, row};
use crate::support::receiver::Receiver;
use crate::support::sfcc::{CLIENT, Sfcc, order};

const PUBLIC: &str = "https://tide.example/mill";

/// A node with one integration, the page of a customer, and a receiver of what is told.
struct Desk {
    node: Node,
    clock: Clock,
    browser: Browser,
    page: Page,
    receiver: Receiver,
}

impl Desk {
    async fn new(connector: &str, integration: Value, topic: &str) -> Self {
        let clock = Clock::still(Millis::parse_rfc3339("2026-02-01T12:00:00Z").expect("a time"));
        Self::at(clock, connector, integration, topic).await
    }
    async fn at(clock: Clock, connector: &str, integration: Value, topic: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let public = [("TIDEMILL__SERVER__PUBLIC_URL", PUBLIC)];
        let node = Node::open(folder, &public, api::configure, clock.clone(), Seams::default()).await;
        node.post("/2024-03/one/users", json!({"username": "ada"})).await.ok();
        let receiver = Receiver::start();
        let wish = json!({"address": receiver.address, "topic": [topic]});
        node.post("/2024-03/one/webhooks", wish).await.ok();
        node.post("/2024-03/one/integrations", json!({"connector": connector, "parameters": integration})).await.ok();
        let mut browser = Browser::new(&[(PUBLIC, &node.url(""))]);
        let token = text(&node.get("/2024-03/users/ada/token").await.ok()["token"]);
        let swap = browser.get(&format!("{PUBLIC}/connect?token={token}")).await;
        let page = browser.get(swap.onward().as_str()).await;
        assert_eq!(page.status, 200, "{}", page.text);
        Self { node, clock, browser, page, receiver }
    }
    /// What is asked for at a way in, hidden fields aside.
    fn asked(&self, door: &str) -> Vec<String> {
        let mark = format!("name=\"door\" value=\"{door}\"");
        let form = self.page.text.split("<form").find(|form| form.contains(&mark)).expect("the form");
        let form = form.split("</form>").next().expect("an end");
        let names = form.split(" name=\"").skip(1).filter_map(|rest| rest.split('"').next());
        names.filter(|name| name.contains('.')).map(str::to_owned).collect()
    }
    async fn send(&mut self, door: &str, fields: &[(&str, &str)]) -> Page {
        let mut form = self.page.form(door);
        for (name, value) in fields {
            form.retain(|(n, _)| n != name);
            // A browser sends the lines of a text as CR LF (HTML, "Constructing the entry list").
            form.push(((*name).to_owned(), value.replace('\n', "\r\n")));
        }
        self.browser.post(&format!("{PUBLIC}/connect"), &form).await
    }
    /// The connection that was made, once that collection is read.
    async fn connected(&self, collection: &str) -> Value {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let all = self.node.get("/2024-03/one/connections?userId=ada").await.ok();
            let connection = &all["connections"][0];
            let one =
                self.node.get(&format!("/2024-03/one/connections/{}", text(&connection["connectionId"]))).await.ok();
            let read = one["connection"]["collections"].as_array().expect("collections").iter();
            if read.clone().any(|c| c["key"] == collection && c["baselineAt"].is_string()) {
                return one["connection"].clone();
            }
            assert!(Instant::now() < end, "{collection} is not read: {one}");
            self.clock.raise(Millis(self.clock.now().0 + 200));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    async fn look(&self, connection: &Value, collection: &str) {
        let path = format!("/2024-03/one/connections/{}/sync", text(&connection["connectionId"]));
        let asked = self.node.post(&path, json!({"mode": "incremental", "collections": [collection]})).await;
        assert_eq!(asked.status, 202, "{}", asked.text);
    }
    async fn told(&self) -> Value {
        let ticking = async {
            loop {
                self.clock.raise(Millis(self.clock.now().0 + 200));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            all = self.receiver.wait(1) => all[0].json(),
            () = ticking => unreachable!("it goes on for ever"),
        }
    }
}

/// A contact of the account, changed now.
fn contact(app: &NetSuite, clock: &Clock, name: &str) {
    let now = clock.now().rfc3339_millis();
    let mut books = app.books();
    books.table("contact").retain(|row| row["id"] != 1);
    books.table("contact").push(row(json!({
        "id": 1, "firstname": "Ann", "lastname": name, "datecreated": "2026-01-01T12:00:00Z", "lastmodifieddate": now,
    })));
}

#[actix::test]
async fn an_account_of_netsuite_is_connected_with_the_four_keys_of_a_token() {
    let clock = Clock::still(Millis::parse_rfc3339("2026-02-01T12:00:00Z").expect("a time"));
    let app = NetSuite::start(&clock, "America/Los_Angeles");
    contact(&app, &clock, "Doe");
    let mut desk = Desk::at(clock, "netsuite", json!({"baseUri": app.fake.url}), "crm/contacts").await;
    let expected = ["p.accountId", "p.timeZone", "c.consumerKey", "c.consumerSecret", "c.token", "c.tokenSecret"];
    assert_eq!(desk.asked("oauth1"), expected, "{}", desk.page.text);
    let [key, secret, token, token_secret] = KEYS;
    let mut typed = vec![
        ("p.accountId", "1234567-sb1"),
        ("p.timeZone", "America/Los_Angeles"),
        ("c.consumerKey", key),
        ("c.consumerSecret", secret),
        ("c.token", token),
        ("c.tokenSecret", "not the secret"),
    ];
    let wrong = desk.send("oauth1", &typed).await;
    assert!(wrong.status == 422 && wrong.text.contains("does not accept"), "{}", wrong.text);
    assert!(wrong.text.contains("value=\"1234567-sb1\"") && !wrong.text.contains("not the secret"), "{}", wrong.text);
    typed[1].1 = "Pacific";
    let wrong = desk.send("oauth1", &typed).await;
    assert!(wrong.status == 422 && wrong.text.contains("must be a time zone"), "{}", wrong.text);
    (typed[1].1, typed[5].1) = ("America/Los_Angeles", token_secret);
    let end = desk.send("oauth1", &typed).await;
    assert!(end.status == 200 && end.text.contains("is connected"), "{}", end.text);

    let connection = desk.connected("contacts").await;
    assert_eq!((&connection["status"], &connection["account"]), (&json!("active"), &json!(ACCOUNT)));
    contact(&app, &desk.clock, "Smith");
    desk.look(&connection, "contacts").await;
    let told = desk.told().await;
    assert_eq!((&told["updateType"], &told["dataPayload"]["lastName"]), (&json!("updated"), &json!("Smith")), "{told}");
    desk.node.stop().await;
}

#[actix::test]
async fn an_account_of_netsuite_is_connected_with_a_certificate() {
    let clock = Clock::still(Millis::parse_rfc3339("2026-02-01T12:00:00Z").expect("a time"));
    let app = NetSuite::start(&clock, "America/Los_Angeles");
    let (public, pem) = certificate();
    app.books().certificate = Some(public);
    contact(&app, &clock, "Doe");
    let mut desk = Desk::at(clock, "netsuite", json!({"baseUri": app.fake.url}), "crm/contacts").await;
    let expected = ["p.accountId", "p.timeZone", "p.clientId", "p.certificateId", "p.privateKey"];
    assert_eq!(desk.asked("open"), expected, "{}", desk.page.text);
    assert!(desk.page.text.contains("<textarea id=\"open-privateKey\" name=\"p.privateKey\" rows=\"4\" required"));
    assert!(desk.page.text.contains("<summary>With a client of your own</summary>"), "{}", desk.page.text);
    let mut typed = vec![
        ("p.accountId", "1234567-sb1"),
        ("p.timeZone", "America/Los_Angeles"),
        ("p.clientId", "client-of-the-account"),
        ("p.certificateId", "cert-7"),
        ("p.privateKey", ""),
    ];
    let empty = desk.send("open", &typed).await;
    assert!(empty.status == 422 && empty.text.contains("Please fill in “Private key”"), "{}", empty.text);
    // A key that is none, and one of another certificate; neither comes back.
    typed[4].1 = "-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5\n-----END PRIVATE KEY-----";
    let wrong = desk.send("open", &typed).await;
    assert!(wrong.status == 422 && !wrong.text.contains("bm90IGEga2V5"), "{}", wrong.text);
    let (_, other) = certificate();
    typed[4].1 = &other;
    let wrong = desk.send("open", &typed).await;
    assert!(wrong.status == 422 && wrong.text.contains("does not accept"), "{}", wrong.text);
    typed[4].1 = &pem;
    let end = desk.send("open", &typed).await;
    assert!(end.status == 200 && end.text.contains("is connected"), "{}", end.text);

    let connection = desk.connected("contacts").await;
    assert_eq!((&connection["status"], &connection["account"]), (&json!("active"), &json!(ACCOUNT)));
    contact(&app, &desk.clock, "Smith");
    desk.look(&connection, "contacts").await;
    assert_eq!(desk.told().await["dataPayload"]["lastName"], "Smith");
    let shown = desk.node.get("/2024-03/one/connections").await.text;
    let line = pem.lines().nth(1).expect("a line");
    assert!(!shown.contains(line), "the key is shown");
    desk.node.stop().await;
}

#[actix::test]
async fn an_instance_of_b2c_commerce_is_connected_with_a_client_of_its_own() {
    let clock = Clock::still(Millis::parse_rfc3339("2026-02-01T12:00:00Z").expect("a time"));
    let app = Sfcc::start(&clock);
    app.shop().orders("RefArch").push(order("00000001", "RefArch", "2026-01-20T10:00:00.000Z"));
    app.shop().lists.insert("Shoppers".to_owned(), Vec::new());
    let url = &app.fake.url;
    let integration = json!({"baseUri": url, "tokenUrl": format!("{url}/dwsso/oauth2/access_token")});
    let mut desk = Desk::at(clock, "sfcc", integration, "commerce/orders").await;
    let expected = ["p.shortCode", "p.tenantId", "p.clientId", "p.clientSecret", "p.siteIds", "p.customerListIds"];
    assert_eq!(desk.asked("open"), expected, "{}", desk.page.text);
    assert!(desk.page.text.contains("name=\"p.clientSecret\" type=\"password\""), "{}", desk.page.text);
    let mut typed = vec![
        ("p.shortCode", "kv7kzm78"),
        ("p.tenantId", "zzxy_prd"),
        ("p.clientId", CLIENT.0),
        ("p.clientSecret", "not the password"),
        ("p.siteIds", "RefArch"),
        ("p.customerListIds", "Shoppers"),
    ];
    let wrong = desk.send("open", &typed).await;
    assert!(wrong.status == 422 && wrong.text.contains("does not accept"), "{}", wrong.text);
    assert!(!wrong.text.contains("not the password"), "{}", wrong.text);
    typed[3].1 = CLIENT.1;
    // The integration's own parameters are nobody else's to set.
    typed.push(("p.tokenUrl", "https://elsewhere.example/token"));
    let end = desk.send("open", &typed).await;
    assert!(end.status == 200 && end.text.contains("is connected"), "{}", end.text);

    let connection = desk.connected("orders").await;
    assert_eq!((&connection["status"], &connection["account"]), (&json!("active"), &json!("zzxy_prd")));
    let now = desk.clock.now().rfc3339_millis();
    app.shop().orders("RefArch").push(order("00000002", "RefArch", &now));
    desk.look(&connection, "orders").await;
    let told = desk.told().await;
    assert_eq!(
        (&told["updateType"], &told["dataPayload"]["orderNumber"]),
        (&json!("created"), &json!("00000002")),
        "{told}"
    );
    desk.node.stop().await;
}

#[actix::test]
async fn what_the_integration_brings_is_asked_of_nobody() {
    let (_, pem) = certificate();
    let own = json!({"accountId": "1234567", "clientId": "c", "certificateId": "x", "privateKey": pem});
    let desk = Desk::new("netsuite", own, "crm/contacts").await;
    assert_eq!(desk.asked("open"), ["p.timeZone"], "{}", desk.page.text);
    assert!(desk.page.text.contains("<summary>Without credentials</summary>"), "{}", desk.page.text);
    desk.node.stop().await;
    let own = json!({"clientId": "c", "clientSecret": "s", "shortCode": "kv7kzm78"});
    let desk = Desk::new("sfcc", own, "commerce/orders").await;
    assert_eq!(desk.asked("open"), ["p.tenantId", "p.siteIds", "p.customerListIds"], "{}", desk.page.text);
    desk.node.stop().await;
}
