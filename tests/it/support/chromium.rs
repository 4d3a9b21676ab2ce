//! A real Chromium, driven by the WebDriver protocol (W3C) through `chromedriver`.
//!
//! Always true: browser and driver end with their test, and what the browser keeps is in a folder of the test's. Not here:
//! what it is asked to do.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::node::free_port;

/// The key under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub struct Chromium {
    driver: Child,
    session: String,
    http: reqwest::Client,
    _folder: TempDir,
}

impl Chromium {
    /// A browser with a phone's window. None: there is none on this machine.
    pub async fn start() -> Option<Self> {
        let port = free_port();
        let mut driver = Command::new("chromedriver");
        driver.arg(format!("--port={port}")).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = driver.spawn().ok()?;
        let folder = tempfile::tempdir().expect("a folder");
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().expect("a client");
        let mut browser = Self { driver, session: String::new(), http, _folder: folder };
        let base = format!("http://127.0.0.1:{port}");
        for _ in 0..200 {
            if browser.http.get(format!("{base}/status")).send().await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let profile = format!("--user-data-dir={}", browser._folder.path().display());
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=390,844", &profile];
        let options = json!({ "args": arguments });
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}});
        browser.session = base;
        let made = browser.ask("POST", "/session", wanted).await;
        let id = made["sessionId"].as_str().expect("a session").to_owned();
        browser.session = format!("{}/session/{id}", browser.session);
        Some(browser)
    }

    async fn try_ask(&self, method: &str, path: &str, body: Value) -> Result<Value, String> {
        let request = self.http.request(method.parse().expect("a method"), format!("{}{path}", self.session));
        let request = if method == "POST" {
            request.header("content-type", "application/json").body(body.to_string())
        } else {
            request
        };
        let answer = request.send().await.map_err(|e| e.to_string())?;
        let fine = answer.status().is_success();
        let text = answer.text().await.map_err(|e| e.to_string())?;
        let mut body: Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
        if fine { Ok(body["value"].take()) } else { Err(text) }
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        self.try_ask(method, path, body).await.unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    pub async fn open(&self, url: &str) {
        self.ask("POST", "/url", json!({ "url": url })).await;
    }

    /// What a script returns; null also while a page is being left.
    pub async fn run(&self, script: &str) -> Value {
        let answer = self.try_ask("POST", "/execute/sync", json!({"script": script, "args": []})).await;
        answer.unwrap_or_default()
    }

    /// Waits, for up to 20 s, until a script returns true.
    pub async fn until(&self, script: &str) {
        for _ in 0..400 {
            if self.run(&format!("return Boolean({script})")).await == true {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{script} stays untrue at {}", self.run("return location.href + document.body.innerText").await);
    }

    async fn element(&self, css: &str) -> String {
        let found = self.ask("POST", "/element", json!({"using": "css selector", "value": css})).await;
        found[ELEMENT].as_str().expect("an element").to_owned()
    }

    pub async fn click(&self, css: &str) {
        let element = self.element(css).await;
        self.ask("POST", &format!("/element/{element}/click"), json!({})).await;
    }

    pub async fn write(&self, css: &str, text: &str) {
        let element = self.element(css).await;
        self.ask("POST", &format!("/element/{element}/value"), json!({ "text": text })).await;
    }

    pub async fn windows(&self) -> Vec<String> {
        let all = self.ask("GET", "/window/handles", Value::Null).await;
        all.as_array().expect("a list").iter().map(|one| one.as_str().expect("a handle").to_owned()).collect()
    }

    pub async fn switch(&self, window: &str) {
        self.ask("POST", "/window", json!({ "handle": window })).await;
    }

    pub async fn quit(self) {
        self.ask("DELETE", "", Value::Null).await;
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Asked to end, the driver ends its browser too.
        let _ = Command::new("kill").arg(self.driver.id().to_string()).status();
        let _ = self.driver.wait();
    }
}
