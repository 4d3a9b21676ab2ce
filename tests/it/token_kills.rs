//! The whole process is killed while it renews a token of which each refresh token works once: before the app is asked,
//! while its answer is under way, around the commit, at random.
//!
//! Always true at the end of a round: the pair on disk works, or the old one was tried once more and the app's refusal was
//! told once; nobody asked twice at a time.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tidemill::clock::Clock;
use tidemill::domain::time::Millis;
use tidemill::outbound::Method;
use tidemill::sandbox::{self, Handle, Options};

use crate::support::node::Node;

const ONE: &str = "/2024-03/one";
const BACK: &str = "http://127.0.0.1/back";
const FAILURE: &str = "connection/authentication_failure";

/// When the node is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The app did not do what it was asked: the old pair is good.
    NotDone,
    /// The app has spent the old pair, and its answer got lost.
    Lost,
    /// As soon as the app was asked, and so much later.
    Asked(u64),
    /// So much after the look was asked for.
    After(u64),
}

struct Desk {
    app: Handle,
    http: reqwest::Client,
    node: Node,
    connection: String,
    _folder: TempDir,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

impl Desk {
    async fn new() -> Self {
        let app = sandbox::run(Options::quiet(), Clock::start(Millis(0))).await.expect("a free port");
        let redirects = reqwest::redirect::Policy::none();
        let http = reqwest::Client::builder().no_proxy().redirect(redirects).build().expect("a client");
        let folder = TempDir::new().expect("a folder");
        let mut node = Node::new(folder.path());
        node.start();
        node.ready().await;
        node.call(Method::POST, &format!("{ONE}/users"), Some(&json!({"username": "ann"}))).await;
        let body = json!({"connector": "sandbox", "parameters": {"baseUri": app.url()}});
        let made = node.call(Method::POST, &format!("{ONE}/integrations"), Some(&body)).await;
        let integration = text(&made["integration"]["integrationId"]);
        let mut desk = Self { app, http, node, connection: String::new(), _folder: folder };
        let wish = json!({"userId": "ann", "integrationId": integration, "credentials": desk.granted().await,
            "collections": ["contacts", "customers"]});
        let made = desk.node.call(Method::POST, &format!("{ONE}/connections"), Some(&wish)).await;
        desk.connection = text(&made["connection"]["connectionId"]);
        desk
    }

    async fn form(&self, path: &str, fields: &[(&str, &str)]) -> reqwest::Response {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.http.post(format!("{}{path}", self.app.url())).body(body);
        request.header("content-type", "application/x-www-form-urlencoded").send().await.expect("an answer")
    }

    /// A fresh pair, by the app's consent page.
    async fn granted(&self) -> Value {
        let verifier = "a-verifier-of-this-test-that-is-long";
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        let client = [("client_id", "sandbox-client"), ("client_secret", "sandbox-client-secret")];
        let asked = [
            client[0],
            ("response_type", "code"),
            ("redirect_uri", BACK),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
            ("account", "acc_1"),
            ("decision", "allow"),
        ];
        let answer = self.form("/oauth/authorize", &asked).await;
        let back = url::Url::parse(answer.headers()["location"].to_str().expect("text")).expect("an address");
        let code = back.query_pairs().find(|(name, _)| name == "code").expect("a code").1.into_owned();
        let asked = [
            client[0],
            client[1],
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", BACK),
            ("code_verifier", verifier),
        ];
        let answer = self.form("/oauth/token", &asked).await.text().await.expect("text");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        json!({"accessToken": answer["access_token"], "refreshToken": answer["refresh_token"]})
    }

    async fn control(&self, method: &str, path: &str, body: Value) -> Value {
        let request = self.http.request(method.parse().expect("a method"), format!("{}{path}", self.app.url()));
        let request = request.header("content-type", "application/json").body(body.to_string());
        let text = request.send().await.expect("an answer").text().await.expect("text");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// How often the app was asked for tokens.
    async fn asked(&self) -> u64 {
        self.control("GET", "/control/counts", json!(null)).await["requests"]["/oauth/token"].as_u64().unwrap_or(0)
    }

    async fn until_asked(&self, before: u64) {
        for _ in 0..20_000 {
            if self.asked().await > before {
                return;
            }
        }
        panic!("the app is not asked for a token: {}", self.node.log());
    }

    /// Asks for a look; answers its id, unless the connection stands still.
    async fn sync(&self) -> Option<String> {
        let path = format!("{ONE}/connections/{}/sync", self.connection);
        match self.node.try_call(Method::POST, &path, Some(&json!({"mode": "incremental"}))).await {
            Ok((202, answer)) => Some(text(&answer["pullId"])),
            _ => None,
        }
    }

    async fn status(&self) -> String {
        let path = format!("{ONE}/connections/{}", self.connection);
        text(&self.node.call(Method::GET, &path, None).await["connection"]["status"])
    }

    async fn outcome(&self, pull: &str) -> String {
        let path = format!("{ONE}/connections/{}/pulls?limit=250", self.connection);
        let pulls = self.node.call(Method::GET, &path, None).await;
        let found = pulls["pulls"].as_array().expect("pulls").iter().find(|one| one["pullId"] == pull).cloned();
        found.map_or_else(String::new, |one| text(&one["outcome"]))
    }

    /// Asks for looks until one goes well, or the app refuses the credentials: then false.
    async fn works(&self) -> bool {
        let mut pull = None;
        for _ in 0..600 {
            if self.status().await == "authFailed" {
                return false;
            }
            pull = match pull {
                None => self.sync().await,
                Some(pull) => match self.outcome(&pull).await.as_str() {
                    "completed" => return true,
                    "failed" => None,
                    _ => Some(pull),
                },
            };
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no look goes well: {}", self.node.log());
    }

    async fn failures_told(&self) -> usize {
        let log = self.node.call(Method::GET, &format!("{ONE}/events?limit=250&topic={FAILURE}"), None).await;
        log["events"].as_array().expect("events").iter().filter(|event| event["topic"] == FAILURE).count()
    }

    /// One kill. True: the pair on disk works afterwards; false: a person was asked for a new one.
    async fn round(&mut self, moment: Moment) -> bool {
        self.control("POST", "/control/tokens/expire", json!(null)).await;
        let (before, told) = (self.asked().await, self.failures_told().await);
        let fault = match moment {
            Moment::NotDone => Some(json!({"kind": "status", "status": 503, "path": "/oauth/token", "count": 100})),
            Moment::Lost => Some(json!({"kind": "lost", "path": "/oauth/token"})),
            Moment::Asked(_) | Moment::After(_) => None,
        };
        if let Some(fault) = fault {
            self.control("POST", "/control/answers", fault).await;
        }
        assert!(self.sync().await.is_some());
        let wait = match moment {
            Moment::After(wait) => wait,
            Moment::Asked(wait) => {
                self.until_asked(before).await;
                wait
            }
            Moment::NotDone | Moment::Lost => {
                self.until_asked(before).await;
                0
            }
        };
        // The moment of the kill is what is random here; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(wait)).await;
        self.node.kill();
        self.control("DELETE", "/control/answers", json!(null)).await;
        self.node.start();
        self.node.ready().await;
        let works = self.works().await;
        for _ in 0..600 {
            // An event shows once it is on disk, a moment after what it tells of.
            if works || self.failures_told().await > told {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (asked, told) = (self.asked().await - before, self.failures_told().await - told);
        if !matches!(moment, Moment::NotDone) {
            assert!(asked <= 2, "{moment:?}: once before the kill and once after it, not {asked} times");
        }
        assert_eq!(told, usize::from(!works), "{moment:?}: told once, and only then");
        if !works {
            let path = format!("{ONE}/connections/{}", self.connection);
            let body = json!({"credentials": self.granted().await});
            self.node.call(Method::PATCH, &path, Some(&body)).await;
            assert!(self.works().await, "new credentials resume it");
        }
        works
    }
}

#[actix::test]
async fn a_process_killed_while_it_renews_a_token_has_a_pair_that_works_or_asks_a_person_once() {
    let mut desk = Desk::new().await;
    assert!(desk.works().await);
    assert!(desk.round(Moment::NotDone).await, "the old pair is good, and is tried again");
    assert!(!desk.round(Moment::Lost).await, "the old pair is spent, and the fresh one is lost");
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let rounds = if crate::support::long() { 60 } else { 12 };
    let mut works = 0;
    for round in 0..rounds {
        let moment = match round % 3 {
            0 => Moment::Asked(0),
            1 => Moment::Asked(rng.u64(1..20)),
            _ => Moment::After(rng.u64(0..60)),
        };
        works += usize::from(desk.round(moment).await);
    }
    println!("{rounds} kills: {works} pairs worked, {} were lost with the app's answer", rounds - works);
    assert_eq!(desk.node.stop(), Some(0), "{}", desk.node.log());
}
