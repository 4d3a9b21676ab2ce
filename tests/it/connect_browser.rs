//! Connecting in a real Chromium: what only a browser does, such as cookies over redirects, policies, pop-ups.

use std::path::Path;

use serde_json::{Value, json};
use tidemill::clock::Clock;
use tidemill::domain::time::Millis;
use tidemill::outbound::Method;
use tidemill::sandbox::{self, Options};

use crate::support::chromium::Chromium;
use crate::support::netsuite::{NetSuite, certificate, row};
use crate::support::node::Node;
use crate::support::server::{Act, Server, answer};

const OPENER: &str = "<!doctype html><title>opener</title><script>addEventListener('message',e=>{window.told=e.data;\
                      window.from=e.origin})</script>";

/// A browser, and a node at its public URL; None, with a line about it, where there is no browser.
async fn desk(folder: &Path) -> Option<(Chromium, Node, String)> {
    let Some(browser) = Chromium::start().await else {
        println!("SKIPPED: there is no chromedriver here; `scripts/deps --tests` installs it");
        return None;
    };
    let mut node = Node::new(folder);
    let public = format!("http://127.0.0.1:{}", node.port);
    node.env.push(("TIDEMILL__SERVER__PUBLIC_URL".to_owned(), public.clone()));
    node.start();
    node.ready().await;
    Some((browser, node, public))
}

#[actix::test]
async fn a_customer_connects_on_a_phone_and_in_a_pop_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some((browser, node, public)) = desk(folder.path()).await else { return };
    let app = sandbox::run(Options::quiet(), Clock::start(Millis(0))).await.expect("a free port");
    let isv =
        Server::start(|_| Act::Last(answer("200 OK", "content-type: text/html\r\nconnection: close\r\n", OPENER)))
            .await;
    let isv_url = format!("http://{}", isv.address);

    let call = |path: &'static str, body: Value| {
        let node = &node;
        async move { node.call(Method::POST, &format!("/2024-03/one/{path}"), Some(&body)).await }
    };
    call("users", json!({"username": "ada"})).await;
    let body = json!({"connector": "sandbox", "parameters": {"baseUri": app.url()}, "returnUrls": [format!("{isv_url}/back")]});
    call("integrations", body).await;
    let token = node.call(Method::GET, "/2024-03/users/ada/token", None).await;
    let link = format!("{public}/connect?token={}", token["token"].as_str().expect("a token"));

    // The app's own page, and back.
    browser.open(&format!("{link}&returnUrl={isv_url}/back")).await;
    browser.until("location.pathname == '/connect' && location.search == ''").await;
    let shape = "document.documentElement.scrollWidth <= innerWidth && \
                 getComputedStyle(document.querySelector('button')).display == 'block'";
    browser.until(shape).await;
    assert_eq!(browser.run("return document.cookie").await, "", "no script reads the cookie");
    browser.click("form button").await;
    browser.until("location.pathname == '/oauth/authorize' && document.querySelector('button[value=allow]')").await;
    assert_eq!(browser.run("return document.referrer").await, "", "the app is not told where we are");
    browser.click("button[value=allow]").await;
    browser.until("location.pathname == '/back' && location.search.startsWith('?connectionId=')").await;
    let back = isv.got().into_iter().find(|got| got.line.contains("/back")).expect("it came back");
    assert_eq!(back.header("referer"), None);

    // A key, in a pop-up whose opener is told.
    browser.open(&format!("{isv_url}/opener")).await;
    let opener = browser.windows().await;
    browser.run(&format!("window.open('{link}&origin={isv_url}')")).await;
    let mut popup = None;
    for _ in 0..400 {
        popup = browser.windows().await.into_iter().find(|window| !opener.contains(window));
        if popup.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    browser.switch(&popup.expect("a pop-up")).await;
    browser.until("document.querySelector('details')").await;
    browser.run("document.querySelectorAll('details').forEach(one => one.open = true)").await;
    browser.write("input[name='c.apiKey']", "sandbox-key-2").await;
    browser.run("document.querySelector(\"input[name='c.apiKey']\").form.querySelector('button').click()").await;
    browser.switch(&opener[0]).await;
    browser.until("window.told").await;
    let told = browser.run("return window.told").await;
    assert_eq!(
        (told["type"].as_str(), browser.run("return window.from").await),
        (Some("tidemill/connected"), json!(public))
    );
    let all = node.call(Method::GET, "/2024-03/one/connections", None).await;
    let ids: Vec<&Value> = all["connections"].as_array().expect("a list").iter().map(|c| &c["connectionId"]).collect();
    assert!(ids.len() == 2 && ids.contains(&&told["connectionId"]), "{ids:?} {told}");
    browser.quit().await;
    app.stop().await;
}

#[actix::test]
async fn a_customer_pastes_a_private_key_of_many_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some((browser, node, public)) = desk(folder.path()).await else { return };
    let clock = Clock::start(Millis(0));
    let app = NetSuite::start(&clock, "Europe/Berlin");
    let (key, pem) = certificate();
    app.books().certificate = Some(key);
    let contact = |name: &str| {
        let now = clock.now().rfc3339_millis();
        row(json!({"id": 1, "lastname": name, "datecreated": "2026-01-01T12:00:00Z", "lastmodifieddate": now}))
    };
    app.books().table("contact").push(contact("Doe"));
    let call = async |method: Method, path: &str, body: Value| {
        node.call(method, &format!("/2024-03/{path}"), (!body.is_null()).then_some(&body)).await
    };
    call(Method::POST, "one/users", json!({"username": "ada"})).await;
    let body = json!({"connector": "netsuite", "parameters": {"baseUri": app.fake.url}});
    call(Method::POST, "one/integrations", body).await;
    let token = call(Method::GET, "users/ada/token", Value::Null).await;

    browser.open(&format!("{public}/connect?token={}", token["token"].as_str().expect("a token"))).await;
    browser.until("document.querySelector('details')").await;
    browser.click("summary").await;
    for (name, typed) in [
        ("accountId", "1234567-sb1"),
        ("timeZone", "Europe/Berlin"),
        ("clientId", "client-of-the-account"),
        ("certificateId", "cert-7"),
        ("privateKey", &pem),
    ] {
        browser.write(&format!("#open-{name}"), typed).await;
    }
    let lines = browser.run("return document.querySelector('#open-privateKey').value.split('\\n').length").await;
    assert!(lines.as_u64().is_some_and(|lines| lines > 30), "{lines}");
    browser.run("document.querySelector('#open-privateKey').form.querySelector('button').click()").await;
    browser.until("document.body.innerText.includes('is connected')").await;
    browser.quit().await;

    let all = call(Method::GET, "one/connections", Value::Null).await;
    let id = all["connections"][0]["connectionId"].as_str().expect("a connection").to_owned();
    let until = async |path: &str, fits: &dyn Fn(&Value) -> bool| {
        for _ in 0..1_200 {
            let shown = call(Method::GET, path, Value::Null).await;
            if fits(&shown) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("{path} stays {}", call(Method::GET, path, Value::Null).await);
    };
    let is_read = |shown: &Value| {
        let all = shown["connection"]["collections"].as_array().expect("collections");
        all.iter().any(|c| c["key"] == "contacts" && c["baselineAt"].is_string())
    };
    until(&format!("one/connections/{id}"), &is_read).await;
    *app.books().table("contact") = vec![contact("Smith")];
    call(Method::POST, &format!("one/connections/{id}/sync"), json!({"collections": ["contacts"]})).await;
    let is_told = |shown: &Value| {
        let all = shown["events"].as_array().expect("events");
        all.iter().any(|event| event["topic"] == "crm/contacts" && event["updateType"] == "updated")
    };
    until("one/events?topic=crm/contacts", &is_told).await;
}
