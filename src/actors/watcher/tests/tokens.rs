//! Tokens that end: renewed once, stored before they are used, taken back at the end.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::desk::{Desk, Setup};
use crate::actors::watcher::farewell;
use crate::clock::Clock;
use crate::connectors::{CallError, Credentials, Forward};
use crate::domain::connection::{ConnectionStatus, Farewell, InitialSync};
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::outbound::Method;
use crate::sandbox;

const BACK: &str = "http://127.0.0.1/back";

async fn form(url: String, fields: &[(&str, &str)]) -> reqwest::Response {
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let request = http.post(url).header("content-type", "application/x-www-form-urlencoded").body(body);
    request.send().await.unwrap()
}

/// A fresh pair of the first account, by the consent page.
async fn granted(app: &str) -> Value {
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(b"a-verifier-of-this-test"));
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
    let answer = form(format!("{app}/oauth/authorize"), &asked).await;
    let back = url::Url::parse(answer.headers()["location"].to_str().unwrap()).unwrap();
    let code = back.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let asked = [
        client[0],
        client[1],
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", BACK),
        ("code_verifier", "a-verifier-of-this-test"),
    ];
    let answer: Value =
        serde_json::from_str(&form(format!("{app}/oauth/token"), &asked).await.text().await.unwrap()).unwrap();
    json!({"accessToken": answer["access_token"], "refreshToken": answer["refresh_token"]})
}

async fn desk() -> Desk {
    let clock = Clock::start(Millis(0));
    let app = sandbox::run(sandbox::Options::quiet(), clock.clone()).await.unwrap();
    let setup = Setup {
        connector: "sandbox",
        base: app.url(),
        credentials: granted(&app.url()).await,
        collections: &["contacts"],
        initial: InitialSync::Baseline,
        connectors: None,
    };
    let mut desk = Desk::new(clock, setup).await;
    desk.sandbox = Some(app);
    desk.look().await;
    assert_eq!(desk.connection().status, ConnectionStatus::Active);
    desk
}

impl Desk {
    fn stored(&self) -> Credentials {
        Credentials::from_text(self.deps.store.credentials(&self.id.0).unwrap().unwrap().expose()).unwrap()
    }
    async fn asked_for_tokens(&self) -> u64 {
        self.call("GET", "/control/counts", None).await["requests"]["/oauth/token"].as_u64().unwrap()
    }
    async fn expire(&self) {
        self.call("POST", "/control/tokens/expire", None).await;
    }
    async fn give(&self, credentials: Value) {
        let (id, text) = (self.id.0, Secret::new(credentials.to_string()));
        let put = self.deps.store.change(move |tx| tx.put_secret_text(&id, crate::store::Slot::Credentials, &text));
        put.await.unwrap();
    }
}

#[tokio::test]
async fn an_ended_token_is_renewed_once_however_many_calls_meet_its_end() {
    let desk = desk().await;
    let before = desk.asked_for_tokens().await;
    desk.expire().await;
    let account = desk.account();
    let ask = || account.call(&desk.deps, || account.session.account());
    let (a, b, c) = tokio::join!(ask(), ask(), ask());
    for answer in [a, b, c] {
        assert_eq!(answer.unwrap().unwrap().as_deref(), Some("acc_1"));
    }
    assert_eq!(desk.asked_for_tokens().await, before + 1);
    assert_eq!(desk.stored(), *account.session.credentials(), "what is in use is on disk");
    desk.expire().await;
    let again = account.call(&desk.deps, || account.session.account()).await.unwrap();
    assert!(matches!(again, Err(CallError::Unauthorized(_))), "one renewal per look: {again:?}");
    assert_eq!(desk.asked_for_tokens().await, before + 1);
    desk.pull("contacts").await;
    assert_eq!(desk.connection().status, ConnectionStatus::Active, "the next look renews again");
    desk.assert_same("contacts").await;
    desk.stop().await;
}

#[tokio::test]
async fn whoever_has_opened_the_connection_it_is_renewed_once_and_a_call_passed_through_renews_too() {
    let desk = desk().await;
    let before = desk.asked_for_tokens().await;
    // The watcher's, and one that passes a call through: each read the same pair.
    let (one, two) = (desk.account(), desk.account());
    desk.expire().await;
    let me = Forward {
        method: Method::GET,
        endpoint: "/api/me".to_owned(),
        query: Vec::new(),
        headers: Vec::new(),
        body: None,
    };
    let pass = || async {
        let answer = two.session.forward(&me).await?;
        if answer.is_unauthorized { Err(CallError::Unauthorized(String::new())) } else { Ok(answer.status) }
    };
    let (a, b) = tokio::join!(one.call(&desk.deps, || one.session.account()), two.call(&desk.deps, pass));
    assert_eq!((a.unwrap().unwrap().as_deref(), b.unwrap().unwrap()), (Some("acc_1"), 200));
    assert_eq!(desk.asked_for_tokens().await, before + 1);
    assert!(desk.stored() == *one.session.credentials() && desk.stored() == *two.session.credentials());
    desk.stop().await;
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let desk = desk().await;
    let Credentials::Token(mut token) = desk.stored() else { panic!("a token") };
    token.expires_at = Some(desk.deps.clock.now().after(Duration::from_secs(30)));
    let text = Credentials::Token(token.clone()).to_text();
    desk.give(serde_json::from_str(text.expose()).unwrap()).await;
    let before = desk.asked_for_tokens().await;
    desk.pull("contacts").await;
    assert_eq!(desk.asked_for_tokens().await, before + 1);
    let Credentials::Token(fresh) = desk.stored() else { panic!("a token") };
    assert!(fresh.access_token != token.access_token && fresh.expires_at > token.expires_at);
    desk.stop().await;
}

#[tokio::test]
async fn when_the_answer_with_the_fresh_pair_is_lost_the_old_one_is_tried_once_and_then_a_person_is_asked() {
    let desk = desk().await;
    desk.expire().await;
    let before = (desk.asked_for_tokens().await, desk.stored());
    desk.fault(json!({"kind": "lost", "path": "/oauth/token"})).await;
    desk.pull("contacts").await;
    assert_eq!(desk.connection().status, ConnectionStatus::Active, "the app may only have been away");
    assert_eq!(desk.stored(), before.1);
    desk.pull("contacts").await;
    assert!(matches!(desk.connection().status, ConnectionStatus::AuthFailed { .. }));
    assert_eq!(desk.asked_for_tokens().await, before.0 + 2);
    assert_eq!(desk.count("connection/authentication_failure"), 1);
    desk.pull("contacts").await;
    assert_eq!(desk.asked_for_tokens().await, before.0 + 2, "and nothing more is asked");
    desk.stop().await;
}

#[tokio::test]
async fn a_renewal_that_is_cut_off_uses_no_pair_that_is_not_on_disk() {
    let desk = desk().await;
    for _ in 0..10 {
        desk.give(granted(&desk.sandbox.as_ref().unwrap().url()).await).await;
        desk.expire().await;
        let (account, stored, before) = (desk.account(), desk.stored(), desk.asked_for_tokens().await);
        let asked = async { while desk.asked_for_tokens().await == before {} };
        // Dropped when the app has spent the old pair: before the answer, before the commit, or after it.
        tokio::select! {
            biased;
            () = asked => {}
            _ = account.call(&desk.deps, || account.session.account()) => {}
        }
        let in_use = account.session.credentials();
        assert!(*in_use == stored || *in_use == desk.stored());
    }
    desk.stop().await;
}

#[tokio::test]
async fn a_deleted_connections_token_is_taken_back_and_asked_for_again_while_the_app_is_away() {
    let desk = desk().await;
    let grants = || async { desk.call("GET", "/control/counts", None).await["grants"].as_u64().unwrap() };
    assert_eq!(grants().await, 1);
    let gone = desk.connection();
    desk.deps.store.change(move |tx| farewell::leave(tx, &gone)).await.unwrap();
    desk.fault(json!({"kind": "status", "status": 503, "path": "/oauth/revoke"})).await;
    assert!(desk.look().await.is_some(), "it is tried again");
    assert_eq!(grants().await, 1);
    let again = desk.deps.clock.now().after(Duration::from_secs(86_400));
    desk.deps.clock.raise(again);
    assert_eq!(desk.look().await, None);
    assert_eq!(grants().await, 0);
    assert!(desk.deps.store.object_anywhere::<Farewell>(&desk.id.0).unwrap().is_none());
    assert!(desk.deps.store.credentials(&desk.id.0).unwrap().is_none(), "the token goes with it");
    desk.stop().await;
}
