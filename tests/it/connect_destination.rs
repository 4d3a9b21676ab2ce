//! An end user sets up a destination of their own in the browser.

use serde_json::json;
use tidemill::api;
use tidemill::destinations::kinds;

use crate::support::api::Node;
use crate::support::browser::{Browser, Page};

const PUBLIC: &str = "https://tide.example/mill";
const RETURN: &str = "https://isv.example/done";

async fn node() -> Node {
    let node = Node::start_with(&[("TIDEMILL__SERVER__PUBLIC_URL", PUBLIC)], api::configure).await;
    node.post("/2024-03/one/users", json!({"username": "ada", "fullName": "Ada <Lovelace>"})).await.ok();
    let body = json!({"connector": "sandbox", "returnUrls": [RETURN]});
    node.post("/2024-03/one/integrations", body).await.ok();
    node
}

async fn page(node: &Node, browser: &mut Browser, more: &str) -> Page {
    let token = node.get("/2024-03/users/ada/token").await.ok()["token"].as_str().expect("a token").to_owned();
    let swap = browser.get(&format!("{PUBLIC}/connect?token={token}{more}")).await;
    assert_eq!(swap.status, 303, "{}", swap.text);
    browser.get(swap.onward().as_str()).await
}

#[actix::test]
async fn files_unknown_types_and_addresses_that_nobody_listed_are_refused() {
    let node = node().await;
    let mut browser = Browser::new(&[(PUBLIC, &node.url(""))]);
    for more in ["&destination=file", "&destination=nothing"] {
        let page = page(&node, &mut browser, more).await;
        assert_eq!(page.status, 422, "{more}: {}", page.text);
    }
    if let Some(kind) = kinds::KINDS.iter().find(|kind| kind.name != "file") {
        let more = format!("&destination={}&returnUrl=https%3A%2F%2Fevil.example%2F", kind.name);
        assert_eq!(page(&node, &mut browser, &more).await.status, 422);
    }
    node.stop().await;
}

#[actix::test]
async fn each_type_is_asked_for_by_its_schema_and_a_secret_never_comes_back() {
    const SECRET: &str = "correct-horse-battery";
    let node = node().await;
    let mut browser = Browser::new(&[(PUBLIC, &node.url(""))]);
    let returns = format!("&returnUrl={}", RETURN.replace(':', "%3A").replace('/', "%2F"));
    let kinds: Vec<_> = kinds::KINDS.iter().filter(|kind| kind.name != "file").collect();
    if kinds.is_empty() {
        eprintln!("skipped: this build has no type that end users may have");
    }
    for kind in kinds {
        let page = page(&node, &mut browser, &format!("&destination={}{returns}", kind.name)).await;
        assert_eq!(page.status, 200, "{}", page.text);
        assert!(page.text.contains("for Ada &lt;Lovelace&gt;"), "{}", page.text);
        let schema = (kind.schema)().to_value();
        for name in schema["properties"].as_object().expect("settings").keys() {
            assert!(page.text.contains(&format!("name=\"s.{name}\"")), "{}: {name}", kind.name);
        }
        let mut form = page.form("");
        form.retain(|(name, _)| name == "csrf");
        for name in kind.secrets() {
            form.push((format!("s.{name}"), SECRET.to_owned()));
        }
        let answer = browser.post(&format!("{PUBLIC}/connect"), &form).await;
        assert_eq!(answer.status, 422, "{}: {}", kind.name, answer.text);
        assert!(answer.text.contains("role=\"alert\"") && !answer.text.contains(SECRET), "{}", answer.text);
        form.retain(|(name, _)| name != "csrf");
        assert_eq!(browser.post(&format!("{PUBLIC}/connect"), &form).await.status, 403, "without the visit's word");
    }
    let all = node.get("/2024-03/one/destinations").await.ok();
    assert_eq!(all["destinations"], json!([]), "what does not work is not kept");
    node.stop().await;
}
