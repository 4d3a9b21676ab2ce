//! What a session makes of bad apps, and where it sends what.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::connectors::{CallError, Collection, Page, PageMark, PullQuery, Session};
use tidemill::domain::time::Millis;

use super::app::{App, Reply};
use super::connector;

fn records(session: &Session) -> &Collection {
    session.connector().collection("records").unwrap()
}

async fn pull(session: &Session, mark: Option<&PageMark>) -> Result<Page, CallError> {
    session.pull_page(records(session), &PullQuery::default(), mark).await
}

async fn said(reply: Reply) -> CallError {
    let app = App::replies(vec![reply]).await;
    let session = app.session(&connector("generic"), json!({}), json!({"accessToken": "t0ken"}));
    pull(&session, None).await.unwrap_err()
}

#[tokio::test]
async fn every_bad_answer_is_a_value_that_says_what_came() {
    let html = Reply::Answer(200, vec![("content-type", "text/html".to_owned())], "<html>Sign in</html>".to_owned());
    assert_eq!(said(html).await, CallError::BadAnswer("the answer is HTML or XML, not JSON".to_owned()));
    let half = said(Reply::json("[{\"id\": 1}, {\"id\"")).await;
    assert_eq!(
        half.to_string(),
        "the app's answer cannot be read: the answer ends in the middle of its JSON, after 17 bytes"
    );
    assert_eq!(said(Reply::json("")).await, CallError::BadAnswer("the answer is empty".to_owned()));
    let no_list = said(Reply::json(r#"{"id": 1}"#)).await;
    assert_eq!(no_list, CallError::BadAnswer("what stands at $ is not a list".to_owned()));
    let no_id = said(Reply::json(r#"[{"name": "x"}]"#)).await;
    assert_eq!(no_id, CallError::BadAnswer("a record has no id at $.id".to_owned()));
    let expired = said(Reply::status(401, r#"{"message": "token expired"}"#)).await;
    assert_eq!(expired, CallError::Unauthorized("token expired".to_owned()));
    let broken = said(Reply::status(503, r#"{"error": {"message": "later"}}"#)).await;
    assert_eq!(broken, CallError::unavailable("status 503: later"));
    let refused = said(Reply::status(422, r#"{"errors": [{"message": "no such filter"}]}"#)).await;
    assert_eq!(refused, CallError::Refused { status: 422, message: "no such filter".to_owned() });
    let moved = said(Reply::Answer(302, vec![("location", "https://evil.example/".to_owned())], String::new())).await;
    assert!(matches!(moved, CallError::Refused { status: 302, .. }), "{moved}");
    let cut = said(Reply::Bytes(b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n[".to_vec())).await;
    assert_eq!(cut.slug(), "unavailable", "{cut}");
    let noise = said(Reply::Bytes(b"SSH-2.0-x\r\n".to_vec())).await;
    assert_eq!(noise.slug(), "unavailable", "{noise}");
}

#[tokio::test]
async fn a_rate_limit_is_obeyed_with_and_without_retry_after() {
    let bare = said(Reply::status(429, "")).await;
    assert_eq!(bare, CallError::RateLimited { retry_after: None });
    let app = App::replies(vec![
        Reply::Answer(429, vec![("retry-after", "12.5".to_owned())], String::new()),
        Reply::json("[]"),
    ])
    .await;
    let session = app.session(&connector("generic"), json!({}), json!({}));
    let told = CallError::RateLimited { retry_after: Some(Duration::from_millis(12_500)) };
    assert_eq!(pull(&session, None).await.unwrap_err(), told);
    // The next call does not even reach the app: the budget keeps silent as long as the app said.
    let kept = pull(&session, None).await.unwrap_err();
    assert_eq!(kept.slug(), "rate-limited");
    assert_eq!(app.requests().len(), 1);
}

#[tokio::test]
async fn an_endless_answer_is_cut_and_refused() {
    let error = said(Reply::Endless).await;
    assert!(error.to_string().contains("the answer is longer than"), "{error}");
}

#[tokio::test]
async fn an_app_that_never_answers_is_unavailable_after_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let folder = tidemill::connectors::scaffold(dir.path(), "slow").unwrap();
    let spec = std::fs::read_to_string(folder.join("spec.yml")).unwrap();
    std::fs::write(folder.join("spec.yml"), format!("{spec}deadline: 300ms\n")).unwrap();
    let slow = super::REGISTRY.read(&folder).unwrap();
    let app = App::replies(vec![Reply::Silence]).await;
    let session = app.session(&slow, json!({}), json!({"accessToken": "t"}));
    let c = session.connector().collection("contacts").unwrap();
    let started = std::time::Instant::now();
    let error = session.pull_page(c, &PullQuery::default(), None).await.unwrap_err();
    assert_eq!(error, CallError::unavailable("the answer did not come in time"));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn credentials_go_where_the_connector_says() {
    for (parameters, credentials, header, value) in [
        (json!({}), json!({"accessToken": "abc"}), "authorization", "Bearer abc"),
        (json!({"tokenHeader": "X-Auth", "tokenScheme": ""}), json!({"accessToken": "abc"}), "x-auth", "abc"),
        (json!({}), json!({"apiKey": "k"}), "x-api-key", "k"),
        (
            json!({"apiKeyHeader": "Authorization", "apiKeyPrefix": "Token "}),
            json!({"apiKey": "k"}),
            "authorization",
            "Token k",
        ),
        (json!({}), json!({"username": "u", "password": "p"}), "authorization", "Basic dTpw"),
    ] {
        let app = App::replies(vec![Reply::json("[]")]).await;
        let session = app.session(&connector("generic"), parameters, credentials);
        pull(&session, None).await.unwrap();
        assert_eq!(app.requests()[0].header(header), Some(value));
    }
    let app = App::replies(vec![Reply::json("[]")]).await;
    let session =
        app.session(&connector("generic"), json!({"apiKeyHeader": "", "apiKeyQuery": "key"}), json!({"apiKey": "k"}));
    pull(&session, None).await.unwrap();
    assert_eq!(app.requests()[0].query("key").as_deref(), Some("k"));
}

#[tokio::test]
async fn pages_follow_one_another_in_every_way() {
    // By a link header, which must stay on the base URI.
    let link = |to: &str| {
        let link = format!("<{to}>; rel=\"next\"");
        Reply::Answer(200, vec![("link", link)], r#"[{"id": 1}]"#.to_owned())
    };
    let app = App::replies(vec![link("/?cursor=2"), Reply::json(r#"[{"id": 2}]"#)]).await;
    let session = app.session(&connector("generic"), json!({"paging": "link"}), json!({}));
    let first = pull(&session, None).await.unwrap();
    let second = pull(&session, first.next.as_ref()).await.unwrap();
    assert_eq!((second.records[0].remote_id.as_str(), second.next), ("2", None));
    assert_eq!(app.requests()[1].url.as_str(), "http://app/?cursor=2");
    let app = App::replies(vec![link("https://evil.example/?cursor=2")]).await;
    let session = app.session(&connector("generic"), json!({"paging": "link"}), json!({"accessToken": "abc"}));
    assert!(pull(&session, None).await.unwrap_err().to_string().contains("not on the connection's base URI"));
    // By offset.
    let app = App::replies(vec![Reply::json(r#"[{"id": 1}, {"id": 2}]"#), Reply::json(r#"[{"id": 3}]"#)]).await;
    let parameters = json!({"paging": "offset", "pageSize": 2, "pageParameter": "skip", "sizeParameter": "take"});
    let session = app.session(&connector("generic"), parameters, json!({}));
    let first = pull(&session, None).await.unwrap();
    let second = pull(&session, first.next.as_ref()).await.unwrap();
    assert_eq!(second.next, None);
    let asked: Vec<String> = app.requests().iter().map(|r| r.url.query().unwrap_or_default().to_owned()).collect();
    assert_eq!(asked, ["take=2&skip=0", "take=2&skip=2"]);
}

#[tokio::test]
async fn the_lower_bound_is_written_as_the_app_wants_it() {
    let app = App::replies(vec![Reply::json("[]")]).await;
    let parameters = json!({
        "sinceParameter": "changed_after", "sinceFormat": "unix-seconds", "updatedPath": "$.changed", "path": "/list?active=1",
    });
    let session = app.session(&connector("generic"), parameters, json!({}));
    assert!(records(&session).cursor.incremental);
    let query = PullQuery { since: Some((Millis(1_769_860_800_000), None)), until: None };
    session.pull_page(records(&session), &query, None).await.unwrap();
    assert_eq!(app.requests()[0].url.as_str(), "http://app/list?active=1&changed_after=1769860800");
    let plain = connector("generic");
    assert!(!plain.collections[0].cursor.incremental, "without a parameter for it the list is read whole");
}

#[tokio::test]
async fn a_record_that_is_gone_is_none() {
    let app = App::start(|request| match request.url.path() {
        "/people/1%202" => Reply::json(r#"{"id": "1 2"}"#),
        "/people/gone" => Reply::status(404, ""),
        _ => Reply::status(500, ""),
    })
    .await;
    let session = app.session(&connector("generic"), json!({"fetchPath": "/people/{{record.id}}"}), json!({}));
    let c = records(&session);
    assert_eq!(session.fetch(c, "1 2").await.unwrap().unwrap().remote_id, "1 2");
    assert!(session.fetch(c, "gone").await.unwrap().is_none());
    assert_eq!(session.fetch(c, "x").await.unwrap_err().slug(), "unavailable");
    let without = app.session(&connector("generic"), json!({}), json!({}));
    assert_eq!(without.fetch(records(&without), "1").await.unwrap_err().slug(), "not-supported");
}

#[tokio::test]
async fn a_client_of_the_integrations_own_gets_its_token_first() {
    let app = App::start(|request| match request.url.path() {
        "/token" => Reply::json(r#"{"access_token": "fresh", "expires_in": "3600"}"#),
        _ if request.header("authorization") == Some("Bearer fresh") => Reply::json("[]"),
        _ => Reply::status(401, ""),
    })
    .await;
    let token_url: Value = app.url.join("/token").unwrap().as_str().into();
    let parameters = json!({"tokenUrl": token_url, "clientId": "me", "clientSecret": "shh"});
    let session = app.session(&connector("generic"), parameters, json!({}));
    assert_eq!(pull(&session, None).await.unwrap_err().slug(), "unauthorized");
    assert!(app.requests().is_empty(), "there is nothing to try without a token");
    let fresh = session.refresh_credentials().await.unwrap();
    session.adopt(fresh);
    pull(&session, None).await.unwrap();
    assert_eq!(app.requests()[0].method, "POST");
    assert_eq!(app.requests()[0].body, "grant_type=client_credentials&client_id=me&client_secret=shh");
    assert!(app.requests()[0].header("authorization").is_none(), "nothing else goes to the token address");
}

#[tokio::test]
async fn a_refused_refresh_means_that_a_person_must_connect_again() {
    let app = App::replies(vec![Reply::status(400, r#"{"error": "invalid_grant"}"#)]).await;
    let token_url: Value = app.url.join("/token").unwrap().as_str().into();
    let parameters = json!({"tokenUrl": token_url, "clientId": "me", "clientSecret": "shh"});
    let session = app.session(&connector("generic"), parameters, json!({}));
    assert_eq!(session.refresh_credentials().await.unwrap_err(), CallError::Unauthorized("invalid_grant".to_owned()));
}

#[tokio::test]
async fn a_forbidden_address_is_not_called() {
    let url = url::Url::parse("http://10.1.2.3/").unwrap();
    let generic = connector("generic");
    let session = super::app::session(&generic, &url, generic.parameters.defaults(), json!({}));
    assert_eq!(pull(&session, None).await.unwrap_err().slug(), "address-forbidden");
}
