//! What a stranger sends costs little: a webhook that only a script can check has a bounded place, and a refused call is
//! told with the address that it came from.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use tidemill::api;
use tidemill::outbound::{HeaderName, HeaderValue, Method, Request};
use url::Url;

use crate::support::api::Node;
use crate::support::node;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copied");
        }
    }
}

/// Connectors whose global webhook nobody but its script can check.
fn unsigned_sandbox() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    copy(&root.join("config/connectors/sandbox"), &folder.path().join("sandbox"));
    let spec = folder.path().join("sandbox/global-webhooks/changes/spec.yml");
    let text = std::fs::read_to_string(&spec).expect("a spec");
    let signed: Vec<&str> = text.lines().filter(|line| !line.starts_with("verify:")).collect();
    std::fs::write(&spec, format!("{}\nverify: {{kind: script}}\n", signed.join("\n"))).expect("written");
    folder
}

#[actix::test]
async fn webhooks_that_nobody_has_judged_have_a_bounded_place() {
    let connectors = unsigned_sandbox();
    let path = connectors.path().display().to_string();
    for (percent, status) in [("0", 503), ("100", 200)] {
        let settings =
            [("TIDEMILL__CONNECTORS__PATH", path.as_str()), ("TIDEMILL__INGEST__UNVERIFIED_DISK_PERCENT_MAX", percent)];
        let node = Node::start_with(&settings, api::configure).await;
        let wish = json!({"connector": "sandbox", "parameters": {"baseUri": "http://127.0.0.1:9"}});
        let made = node.post("/2024-03/one/integrations", wish).await.ok();
        let id = made["integration"]["integrationId"].as_str().expect("an id").to_owned();
        let shown = node.get(&format!("/2024-03/one/integrations/{id}/webhooks")).await.ok();
        let uri = Url::parse(shown["webhooks"][0]["uri"].as_str().expect("a URI")).expect("a URI");
        let body = json!({"id": "e1", "event": "order.changed", "account_id": "a1"}).to_string();
        let answer = node.send("POST", uri.path(), &[("content-type", "application/json")], &body).await;
        assert_eq!(answer.status, status, "{percent} %: {}", answer.text);
        assert_eq!(answer.header("retry-after").is_some(), status == 503);
        node.stop().await;
    }
}

#[actix::test]
async fn a_refused_call_is_told_with_the_callers_address() {
    for (trusted, from) in [("[\"127.0.0.0/8\"]", "203.0.113.9"), ("[]", "127.0.0.1")] {
        let folder = TempDir::new().expect("a folder");
        let mut node = node::Node::new(folder.path());
        node.env.push(("TIDEMILL__SERVER__TRUSTED_PROXIES".into(), trusted.into()));
        node.start();
        node.ready().await;
        let url = Url::parse(&format!("http://127.0.0.1:{}/2024-03/one/users", node.port)).expect("a URL");
        let mut request = Request::new(Method::GET, url);
        for (name, value) in [("authorization", "Bearer a-guess"), ("x-forwarded-for", "198.51.100.1, 203.0.113.9")] {
            request.headers.push((HeaderName::from_static(name), HeaderValue::from_static(value)));
        }
        assert_eq!(node.client.send(request).await.expect("an answer").status, 401);
        assert_eq!(node.stop(), Some(0));
        let log = node.log();
        let told = log.lines().find(|line| line.contains("refused")).unwrap_or_else(|| panic!("not told: {log}"));
        assert!(told.contains(from) && !told.contains("a-guess"), "{told}");
    }
}
