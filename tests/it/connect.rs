//! Connecting in the browser, against the sandbox's OAuth server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidemill::api;
use tidemill::clock::Clock;
use tidemill::domain::time::Millis;
use tidemill::sandbox::{self, Handle, Options};

use crate::support::api::Node;
use crate::support::browser::{Browser, Page};

/// Where browsers see the node: a proxy with a path prefix stands before it.
const PUBLIC: &str = "https://tide.example/mill";
const RETURN: &str = "https://isv.example/done";

fn at(path: &str) -> String {
    format!("/2024-03/one/{path}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

fn with(mut form: Vec<(String, String)>, more: &[(&str, &str)]) -> Vec<(String, String)> {
    for (name, value) in more {
        form.retain(|(n, _)| n != name);
        form.push(((*name).to_owned(), (*value).to_owned()));
    }
    form
}

struct Desk {
    node: Node,
    app: Handle,
    integration: String,
}

impl Desk {
    async fn new() -> Self {
        let node = Node::start_with(&[("TIDEMILL__SERVER__PUBLIC_URL", PUBLIC)], api::configure).await;
        let app = sandbox::run(Options::quiet(), Clock::start(Millis(0))).await.expect("a free port");
        node.post(&at("users"), json!({"username": "ada", "fullName": "Ada <Lovelace>"})).await.ok();
        node.post(&at("users"), json!({"username": "bob"})).await.ok();
        let body = json!({"connector": "sandbox", "name": "Our Sandbox", "parameters": {"baseUri": app.url()},
            "returnUrls": [RETURN, "https://isv.example/popup"]});
        let made = node.post(&at("integrations"), body).await.ok();
        let integration = text(&made["integration"]["integrationId"]);
        Self { node, app, integration }
    }
    fn browser(&self) -> Browser {
        Browser::new(&[(PUBLIC, &self.node.url(""))])
    }
    async fn link(&self, user: &str, more: &str) -> String {
        let token = text(&self.node.get(&format!("/2024-03/users/{user}/token")).await.ok()["token"]);
        format!("{PUBLIC}/connect?token={token}{more}")
    }
    /// The page that the link leads to.
    async fn page(&self, browser: &mut Browser, user: &str, more: &str) -> Page {
        let link = self.link(user, more).await;
        let swap = browser.get(&link).await;
        assert_eq!(swap.status, 303, "{}", swap.text);
        browser.get(swap.onward().as_str()).await
    }
    /// To the app's consent page.
    async fn away(&self, browser: &mut Browser, page: &Page) -> Page {
        let hop = browser.post(&format!("{PUBLIC}/connect"), &page.form("oauth2")).await;
        assert_eq!(hop.status, 200, "{}", hop.text);
        browser.get(hop.onward().as_str()).await
    }
    /// A decision there, and where the app sends the browser.
    async fn decide(&self, browser: &mut Browser, consent: &Page, account: &str, decision: &str) -> String {
        let form = with(consent.form(""), &[("account", account), ("decision", decision)]);
        let at = consent.url.clone();
        browser.post(at.as_str(), &form).await.onward().into()
    }
    async fn walk(&self, browser: &mut Browser, user: &str, more: &str, account: &str) -> Page {
        let page = self.page(browser, user, more).await;
        let consent = self.away(browser, &page).await;
        let back = self.decide(browser, &consent, account, "allow").await;
        browser.get(&back).await
    }
    async fn control(&self, method: &str, path: &str, body: Value) -> Value {
        // One that the server closes while it is taken up again would be nobody's failure.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client");
        let request = http.request(method.parse().expect("a method"), format!("{}{path}", self.app.url()));
        let request = request.header("content-type", "application/json").body(body.to_string());
        let text = request.send().await.expect("an answer").text().await.expect("text");
        serde_json::from_str(&text).unwrap_or_default()
    }
    async fn connections(&self, user: &str) -> Vec<Value> {
        let all = self.node.get(&at(&format!("connections?userId={user}"))).await.ok();
        all["connections"].as_array().expect("a list").clone()
    }
    async fn count(&self, topic: &str) -> usize {
        let log = self.node.get(&at("events?limit=250")).await.ok();
        log["events"].as_array().expect("events").iter().filter(|event| event["topic"] == topic).count()
    }
    async fn outcomes(&self, outcome: &str) -> bool {
        let metrics = self.node.get("/metrics").await.text;
        metrics.contains(&format!("tidemill_connects_total{{connector=\"sandbox\",outcome=\"{outcome}\"}}"))
            || metrics.contains(&format!("tidemill_connects_total{{connector=\"unknown\",outcome=\"{outcome}\"}}"))
    }
    async fn until<F: Future<Output = bool>>(&self, what: &str, fits: impl Fn() -> F) {
        let end = Instant::now() + Duration::from_secs(20);
        while !fits().await {
            assert!(Instant::now() < end, "{what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[actix::test]
async fn a_user_connects_through_the_apps_own_page_and_comes_back_with_the_connection() {
    let desk = Desk::new().await;
    let mut browser = desk.browser();
    let link = desk.link("ada", &format!("&connector=sandbox&returnUrl={RETURN}%3Fx=1")).await;
    let swap = browser.get(&link).await;
    let cookie = swap.header("set-cookie");
    for part in ["tidemill-connect=", "; Path=/mill", "; HttpOnly", "; SameSite=Lax", "; Secure"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert_eq!(swap.onward().as_str(), format!("{PUBLIC}/connect"), "nothing of the token is left");
    assert_eq!(swap.header("referrer-policy"), "no-referrer");

    let page = browser.get(&format!("{PUBLIC}/connect")).await;
    assert!(page.text.contains("Connect Our Sandbox") && page.text.contains("for Ada &lt;Lovelace&gt;"));
    assert!(!page.text.contains("<script") && page.text.contains("width=device-width"));
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("form-action 'self'"), "{policy}");
    assert_eq!((page.header("referrer-policy"), page.header("cache-control")), ("no-referrer", "no-store"));

    let consent = desk.away(&mut browser, &page).await;
    let asked: Vec<(String, String)> = consent.url.query_pairs().into_owned().collect();
    let has = |name: &str, value: &str| asked.iter().any(|(n, v)| n == name && v == value);
    assert!(has("redirect_uri", &format!("{PUBLIC}/oauth/callback")) && has("scope", "read"), "{asked:?}");
    assert!(has("code_challenge_method", "S256") && has("client_id", "sandbox-client"), "{asked:?}");
    let back = desk.decide(&mut browser, &consent, "acc_2", "allow").await;
    let end = browser.get(&back).await;
    assert_eq!(end.status, 303, "{}", end.text);
    let end = end.onward();
    assert!(end.as_str().starts_with(&format!("{RETURN}?x=1&connectionId=")), "{end}");

    let connection = desk.connections("ada").await[0].clone();
    let id = text(&connection["connectionId"]);
    assert!(end.as_str().ends_with(&id));
    assert_eq!(
        (connection["status"].as_str(), connection["integrationId"].as_str()),
        (Some("active"), Some(desk.integration.as_str()))
    );
    assert_eq!((desk.count("connection/created").await, desk.count("connection/updated").await), (1, 0));
    // The same account again is the same connection, for the same user only.
    let end = desk.walk(&mut browser, "ada", &format!("&returnUrl={RETURN}"), "acc_2").await.onward();
    assert!(end.as_str().ends_with(&id), "{end}");
    assert_eq!((desk.count("connection/created").await, desk.count("connection/updated").await), (1, 1));
    let end = desk.walk(&mut browser, "bob", "", "acc_2").await;
    assert!(end.status == 200 && end.text.contains("Our Sandbox is connected"), "{}", end.text);
    assert_eq!((desk.connections("ada").await.len(), desk.connections("bob").await.len()), (1, 1));
    assert!(desk.outcomes("connected").await);
    desk.node.stop().await;
}

#[actix::test]
async fn credentials_are_asked_for_where_there_is_no_page_of_the_app_and_wrong_ones_are_told_at_once() {
    let desk = Desk::new().await;
    let mut browser = desk.browser();
    let page = desk.page(&mut browser, "ada", "&connector=sandbox").await;
    let form = with(page.form("apiKey"), &[("c.apiKey", "not-a-key-of-it")]);
    let wrong = browser.post(&format!("{PUBLIC}/connect"), &form).await;
    assert_eq!(wrong.status, 422);
    assert!(wrong.text.contains("does not accept them") && !wrong.text.contains("not-a-key-of-it"), "{}", wrong.text);
    assert_eq!(desk.connections("ada").await.len(), 0);
    let empty = browser.post(&format!("{PUBLIC}/connect"), &with(page.form("apiKey"), &[("c.apiKey", " ")])).await;
    assert!(empty.status == 422 && empty.text.contains("API key"));
    // What was not asked for is not taken: an end user cannot move the integration's app elsewhere.
    let moved = with(wrong.form("apiKey"), &[("c.apiKey", "sandbox-key-1"), ("p.baseUri", "http://127.0.0.1:1")]);
    let end = browser.post(&format!("{PUBLIC}/connect"), &moved).await;
    assert!(end.status == 200 && end.text.contains("is connected"), "{}", end.text);
    assert_eq!(desk.connections("ada").await[0]["status"], "active");
    desk.node.stop().await;
}

#[actix::test]
async fn each_way_it_can_fail_has_its_words_and_its_count() {
    let desk = Desk::new().await;
    let mut browser = desk.browser();
    let words = |page: &Page, status: u16, part: &str| {
        assert!(page.status == status && page.text.contains(part), "{part}: {} {}", page.status, page.text);
    };
    // The person says no.
    let page = desk.page(&mut browser, "ada", "").await;
    let consent = desk.away(&mut browser, &page).await;
    let back = desk.decide(&mut browser, &consent, "acc_1", "deny").await;
    words(&browser.get(&back).await, 403, "You did not allow access");
    // The same answer again, one that nobody asked for, and none.
    words(&browser.get(&back).await, 400, "have had it already");
    words(&browser.get(&format!("{PUBLIC}/oauth/callback?state=made-up&code=x")).await, 400, "did not ask");
    words(&browser.get(&format!("{PUBLIC}/oauth/callback")).await, 400, "did not ask");
    // Another browser, with another visit, and one without any.
    let consent = desk.away(&mut browser, &page).await;
    let back = desk.decide(&mut browser, &consent, "acc_1", "allow").await;
    let mut other = desk.browser();
    desk.page(&mut other, "bob", "").await;
    words(&other.get(&back).await, 400, "another browser");
    words(&browser.get(&back).await, 400, "did not ask");
    words(&desk.browser().get(&back).await, 401, "begin again");
    words(&desk.browser().get(&format!("{PUBLIC}/connect")).await, 401, "restarted meanwhile");
    words(&desk.browser().get(&format!("{PUBLIC}/connect?token=nonsense")).await, 401, "expired or is not complete");
    // The app: its code is refused, it is down, it answers with HTML, it comes back with an error or without a code.
    for (fault, status, part) in [
        (json!({"kind": "status", "status": 400, "path": "/oauth/token"}), 502, "does not accept its own permission"),
        (json!({"kind": "status", "status": 503, "path": "/oauth/token"}), 502, "cannot be reached"),
        (json!({"kind": "html", "path": "/oauth/token"}), 502, "cannot read"),
    ] {
        let consent = desk.away(&mut browser, &page).await;
        let back = desk.decide(&mut browser, &consent, "acc_1", "allow").await;
        desk.control("POST", "/control/answers", fault).await;
        words(&browser.get(&back).await, status, part);
    }
    for query in ["error=server_error", "nothing=1"] {
        let consent = desk.away(&mut browser, &page).await;
        let state = consent.url.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned();
        words(&browser.get(&format!("{PUBLIC}/oauth/callback?state={state}&{query}")).await, 502, "does not take");
    }
    // Too late; the visit itself goes on.
    let consent = desk.away(&mut browser, &page).await;
    let back = desk.decide(&mut browser, &consent, "acc_1", "allow").await;
    desk.node.state.clock.raise(desk.node.state.clock.now().after(Duration::from_secs(601)));
    words(&browser.get(&back).await, 400, "too late");
    assert_eq!(desk.connections("ada").await.len(), 0);
    for outcome in [
        "access-denied",
        "unknown-state",
        "foreign-state",
        "expired-state",
        "no-visit",
        "bad-token",
        "code-refused",
        "app-unreachable",
        "bad-answer",
        "app-refused",
    ] {
        assert!(desk.outcomes(outcome).await, "{outcome}");
    }
    assert!(browser.seen.iter().all(|url| !url.contains("access_token") && !url.contains("sandbox-client-secret")));
    desk.node.stop().await;
}

#[actix::test]
async fn a_failure_goes_back_to_the_return_address_with_its_word() {
    let desk = Desk::new().await;
    let mut browser = desk.browser();
    let page = desk.page(&mut browser, "ada", &format!("&returnUrl={RETURN}")).await;
    let consent = desk.away(&mut browser, &page).await;
    let back = desk.decide(&mut browser, &consent, "acc_1", "deny").await;
    assert_eq!(browser.get(&back).await.onward().as_str(), format!("{RETURN}?error=access-denied"));
    desk.node.stop().await;
}

#[actix::test]
async fn one_users_visit_does_nothing_for_another() {
    let desk = Desk::new().await;
    let (mut ada, mut bob) = (desk.browser(), desk.browser());
    let hers = desk.page(&mut ada, "ada", "").await;
    desk.page(&mut bob, "bob", "").await;
    let form = with(hers.form("apiKey"), &[("c.apiKey", "sandbox-key-1")]);
    let refused = bob.post(&format!("{PUBLIC}/connect"), &form).await;
    assert!(refused.status == 403 && refused.text.contains("another visit"), "{}", refused.text);
    let forged = with(form.clone(), &[("csrf", "")]);
    assert_eq!(ada.post(&format!("{PUBLIC}/connect"), &forged).await.status, 403);
    assert_eq!(desk.browser().post(&format!("{PUBLIC}/connect"), &form).await.status, 401);
    // A second link in the same browser ends the first page's forms.
    desk.page(&mut ada, "bob", "").await;
    assert_eq!(ada.post(&format!("{PUBLIC}/connect"), &form).await.status, 403);
    assert_eq!((desk.connections("ada").await.len(), desk.connections("bob").await.len()), (0, 0));
    // Nothing that would not fit is kept while a person is away.
    let long = "x".repeat(3_000);
    assert_eq!(ada.get(&desk.link("ada", &format!("&returnUrl=https://isv.example/{long}")).await).await.status, 422);
    // A deleted user's visit is over.
    let mut late = desk.browser();
    desk.page(&mut late, "bob", "").await;
    desk.node.call("DELETE", "/2024-03/users/bob", None).await.ok();
    assert_eq!(late.get(&format!("{PUBLIC}/connect")).await.status, 401);
    desk.node.stop().await;
}

#[actix::test]
async fn only_listed_addresses_are_gone_to_and_told() {
    let desk = Desk::new().await;
    let mut browser = desk.browser();
    for more in
        ["&returnUrl=https://evil.example/done", "&returnUrl=javascript:alert(1)", "&origin=https://evil.example"]
    {
        let page = desk.page(&mut browser, "ada", more).await;
        assert!(page.status == 422 && page.text.contains("not set up"), "{more}: {}", page.text);
    }
    let page = desk.page(&mut browser, "ada", "&origin=https://isv.example").await;
    let end =
        browser.post(&format!("{PUBLIC}/connect"), &with(page.form("apiKey"), &[("c.apiKey", "sandbox-key-3")])).await;
    let id = text(&desk.connections("ada").await[0]["connectionId"]);
    assert!(end.text.contains("data-origin=\"https://isv.example\"") && end.text.contains(&id), "{}", end.text);
    assert!(end.header("content-security-policy").contains("script-src 'sha256-"), "{end:?}");
    // Taken off the list while the person is away: not gone to.
    let page = desk.page(&mut browser, "ada", &format!("&returnUrl={RETURN}")).await;
    let consent = desk.away(&mut browser, &page).await;
    let one = at(&format!("integrations/{}", desk.integration));
    let changed = desk.node.call("PATCH", &one, Some(json!({"returnUrls": ["http://localhost:3000/x"]}))).await.ok();
    assert_eq!(changed["integration"]["returnUrls"], json!(["http://localhost:3000/x"]));
    let back = desk.decide(&mut browser, &consent, "acc_1", "allow").await;
    assert_eq!(browser.get(&back).await.status, 422);
    for bad in ["http://isv.example/", "https://isv.example/?q", "nonsense"] {
        let refused = desk.node.call("PATCH", &one, Some(json!({"returnUrls": [bad]}))).await.refused(422, "invalid");
        assert!(refused.starts_with("returnUrls[0] "), "{refused}");
    }
    assert_eq!(
        desk.node.call("PATCH", &one, Some(json!({"returnUrls": null}))).await.ok()["integration"]["returnUrls"],
        json!([])
    );
    assert_eq!(desk.node.get(&one).await.ok()["integration"]["parameters"]["baseUri"], desk.app.url());
    desk.node.stop().await;
}

#[actix::test]
async fn what_cannot_be_connected_is_not_offered_and_another_workspaces_integration_is_none() {
    let desk = Desk::new().await;
    let mut browser = desk.browser();
    let body = json!({"connector": "adobe-commerce", "name": "The shop"});
    let shop = text(&desk.node.post(&at("integrations"), body).await.ok()["integration"]["integrationId"]);
    let list = desk.page(&mut browser, "ada", "").await;
    assert!(list.text.contains("The shop") && list.text.contains("Our Sandbox"), "{}", list.text);
    let page = browser.get(&format!("{PUBLIC}/connect?integrationId={shop}")).await;
    assert!(page.text.contains("name=\"p.baseUri\"") && page.text.contains("type=\"url\""), "{}", page.text);
    assert!(!page.text.contains("apiPath"), "only what is the end user's to give");
    let missing =
        browser.post(&format!("{PUBLIC}/connect"), &with(page.form("token"), &[("c.accessToken", "x")])).await;
    assert!(missing.status == 422 && missing.text.contains("Please fill in"), "{}", missing.text);
    assert_eq!(browser.get(&format!("{PUBLIC}/connect?integrationId=0123456789abcdef01234567")).await.status, 422);
    let none = desk.page(&mut browser, "ada", "&integrationId=0123456789abcdef01234567").await;
    assert_eq!(none.status, 422);
    assert_eq!(browser.get(&desk.link("ada", "&integrationId=zzz").await).await.status, 422);
    desk.node.stop().await;
}

#[actix::test]
async fn connecting_again_resumes_what_the_app_refused_without_a_gap() {
    let desk = Desk::new().await;
    let mut browser = desk.browser();
    desk.walk(&mut browser, "ada", "", "acc_1").await;
    let id = text(&desk.connections("ada").await[0]["connectionId"]);
    let one = at(&format!("connections/{id}"));
    let sync = at(&format!("connections/{id}/sync"));
    let first = || async {
        let shown = desk.node.get(&one).await.ok();
        let all = shown["connection"]["collections"].as_array().expect("a list").clone();
        all.iter().any(|c| c["key"] == "customers" && c["lastPullAt"].is_string())
    };
    desk.until("the first sync is done", first).await;
    // The app refuses whatever comes, the renewal of the token too.
    desk.control("POST", "/control/answers", json!({"kind": "status", "status": 401, "path": "/", "count": 100})).await;
    desk.node.post(&sync, json!({"mode": "incremental"})).await;
    let failed = || async { desk.node.get(&one).await.ok()["connection"]["status"] == "authFailed" };
    desk.until("the credentials are refused", failed).await;
    let told = || async { desk.count("connection/authentication_failure").await == 1 };
    desk.until("it is told", told).await;
    desk.control("DELETE", "/control/answers", Value::Null).await;
    let missed = json!({"account": "acc_1", "collection": "customers", "kind": "created"});
    desk.control("POST", "/control/changes", missed).await;
    assert_eq!(desk.count("commerce/customers").await, 0);
    let end = desk.walk(&mut browser, "ada", "", "acc_1").await;
    assert!(end.text.contains("is connected"), "{}", end.text);
    let told = || async { desk.count("commerce/customers").await == 1 };
    desk.until("what happened meanwhile is told", told).await;
    let connection = desk.connections("ada").await;
    assert_eq!((connection.len(), connection[0]["status"].as_str()), (1, Some("active")));
    assert_eq!(connection[0]["connectionId"], id.as_str());
    // Deleted: the token is taken back at the app.
    desk.node.call("DELETE", &one, None).await.ok();
    let told = || async { desk.count("connection/deleted").await == 1 };
    desk.until("its end is told", told).await;
    // The first walk's grant is not ours any more: the second one took its place.
    let fewer = || async { desk.control("GET", "/control/counts", Value::Null).await["grants"].as_u64() <= Some(1) };
    desk.until("the token is taken back", fewer).await;
    desk.node.stop().await;
}

/// The sandbox's connector under another name, with another `auth`.
fn connector_like_sandbox(folder: &std::path::Path, key: &str, auth: &str, parameters: &str) {
    fn copy(from: &std::path::Path, to: &std::path::Path) {
        std::fs::create_dir_all(to).expect("a folder");
        for entry in std::fs::read_dir(from).expect("a folder") {
            let path = entry.expect("an entry").path();
            let to = to.join(path.file_name().expect("a name"));
            if path.is_dir() { copy(&path, &to) } else { std::fs::copy(&path, &to).map(|_| ()).expect("copied") }
        }
    }
    let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/connectors/sandbox");
    copy(&from, &folder.join(key));
    let spec = folder.join(key).join("spec.yml");
    let text = std::fs::read_to_string(&spec).expect("a spec");
    let text = text.replace("key: sandbox\n", &format!("key: {key}\n"));
    let text = text.replace("      scopes: [read]\n", &format!("      scopes: [read]\n{auth}"));
    let text = text.replace("  properties:\n", &format!("  properties:\n{parameters}"));
    std::fs::write(spec, text).expect("written");
}

#[actix::test]
async fn what_the_redirect_and_the_token_answer_carry_become_parameters_that_nobody_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let auth = "      authorize: {prompt: consent}\n      fromRedirect: {realm: account_id}\n      fromAnswer: {owner: $.account_id}\n";
    let parameters = "    realm: {type: string, x-givenBy: user}\n    owner: {type: string, x-givenBy: user}\n    shop: {type: string, title: Shop, x-givenBy: user}\n";
    connector_like_sandbox(folder.path(), "box", auth, parameters);
    let path = folder.path().display().to_string();
    let settings = [("TIDEMILL__SERVER__PUBLIC_URL", PUBLIC), ("TIDEMILL__CONNECTORS__PATH", path.as_str())];
    let node = Node::start_with(&settings, api::configure).await;
    let app = sandbox::run(Options::quiet(), Clock::start(Millis(0))).await.expect("a free port");
    node.post(&at("users"), json!({"username": "ada"})).await.ok();
    let body = json!({"connector": "box", "parameters": {"baseUri": app.url()}});
    let made = node.post(&at("integrations"), body).await.ok();
    let desk = Desk { node, app, integration: text(&made["integration"]["integrationId"]) };
    let mut browser = desk.browser();
    let page = desk.page(&mut browser, "ada", &format!("&integrationId={}", desk.integration)).await;
    let asked: Vec<String> = page.form("oauth2").into_iter().map(|(name, _)| name).collect();
    assert!(asked.contains(&"p.shop".to_owned()) && !asked.contains(&"p.realm".to_owned()), "{asked:?}");
    let form = with(page.form("oauth2"), &[("p.shop", "<b>mine</b>")]);
    let hop = browser.post(&format!("{PUBLIC}/connect"), &form).await;
    let consent = browser.get(hop.onward().as_str()).await;
    assert!(consent.url.query_pairs().any(|(name, value)| name == "prompt" && value == "consent"), "{}", consent.url);
    let back = desk.decide(&mut browser, &consent, "acc_3", "allow").await;
    let without = back.replace("account_id=", "another=");
    let end = browser.get(&back).await;
    assert!(end.text.contains("is connected"), "{}", end.text);
    let parameters = desk.connections("ada").await[0]["parameters"].clone();
    let has = |name: &str| parameters[name].as_str().map(str::to_owned);
    assert_eq!((has("realm").as_deref(), has("owner").as_deref()), (Some("acc_3"), Some("acc_3")), "{parameters}");
    assert_eq!(has("shop").as_deref(), Some("<b>mine</b>"));
    // A redirect without what the connector needs connects nothing.
    assert_eq!(browser.get(&without).await.status, 400, "its state is spent");
    let hop = browser.post(&format!("{PUBLIC}/connect"), &form).await;
    let consent = browser.get(hop.onward().as_str()).await;
    let back = desk.decide(&mut browser, &consent, "acc_1", "allow").await.replace("account_id=", "another=");
    let end = browser.get(&back).await;
    assert!(end.status == 502 && end.text.contains("cannot read"), "{}", end.text);
    assert_eq!(desk.connections("ada").await.len(), 1);
    desk.node.stop().await;
}
