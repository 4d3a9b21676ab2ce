//! What the app does wrong, and what follows.

use std::time::Duration;

use serde_json::json;

use super::desk::Desk;
use crate::domain::connection::{ConnectionStatus, InitialSync};
use crate::domain::pull::STALLED_AFTER;
use crate::sandbox;

#[tokio::test]
async fn a_pull_that_fails_in_the_middle_goes_on_from_its_cursor() {
    let options = sandbox::Options { scale: 10, ..sandbox::Options::quiet() };
    let desk = Desk::sandbox_with(&["contacts"], InitialSync::Baseline, options).await;
    desk.fault(json!({"kind": "status", "status": 500, "path": "/api/contacts", "skip": 3})).await;
    desk.look().await;
    let state = desk.state("contacts");
    let kept = state.cursor.clone().unwrap();
    assert!(state.baseline_at.is_none() && state.failures == 1 && !state.error.is_empty());
    assert!(state.next_pull_at.unwrap() > desk.deps.clock.now());
    let read = desk.pulls()[0].records;
    assert!(read >= 300, "{read}");
    desk.pull("contacts").await;
    assert!(desk.pulls()[0].records < 600 - read + 100, "it did not begin again");
    assert!(desk.state("contacts").cursor.unwrap().time > kept.time);
    desk.assert_same("contacts").await;
    assert_eq!((desk.count("sync/failed"), desk.count("sync/completed")), (1, 1));
    desk.stop().await;
}

#[tokio::test]
async fn every_wrong_answer_is_a_recorded_failure_and_no_change() {
    let desk = Desk::sandbox(&["contacts"]).await;
    desk.look().await;
    for kind in ["html", "half-json", "other-json", "close"] {
        desk.fault(json!({"kind": kind, "path": "/api/contacts"})).await;
        desk.pull("contacts").await;
        let pull = &desk.pulls()[0];
        assert_eq!((pull.outcome.as_str(), pull.error.is_empty()), ("failed", false), "{kind}: {pull:?}");
        desk.pull("contacts").await;
        assert_eq!(desk.pulls()[0].outcome, "completed", "{kind}");
    }
    assert_eq!(desk.told(), vec![]);
    desk.assert_same("contacts").await;
    desk.stop().await;
}

#[tokio::test]
async fn a_rate_limit_is_waited_out_as_told_and_is_no_failure() {
    let desk = Desk::sandbox(&["contacts"]).await;
    desk.look().await;
    desk.fault(json!({"kind": "status", "status": 429, "retryAfterSeconds": 300, "path": "/api/contacts"})).await;
    desk.pull("contacts").await;
    let state = desk.state("contacts");
    assert_eq!(state.failures, 0);
    let wait = state.next_pull_at.unwrap().since(desk.deps.clock.now());
    assert!(wait > Duration::from_secs(290) && wait < Duration::from_secs(340), "{wait:?}");
    assert_eq!(desk.count("sync/failed"), 0);
    desk.stop().await;
}

#[tokio::test]
async fn repeated_failures_are_told_once_as_stalled() {
    let desk = Desk::sandbox(&["contacts"]).await;
    desk.look().await;
    desk.fault(json!({"kind": "status", "status": 500, "path": "/api/contacts", "count": 50})).await;
    for _ in 0..STALLED_AFTER + 3 {
        desk.pull("contacts").await;
    }
    assert_eq!((desk.count("poller/stalled"), desk.count("sync/failed")), (1, 1));
    desk.call("DELETE", "/control/answers", None).await;
    desk.pull("contacts").await;
    assert_eq!((desk.state("contacts").failures, desk.state("contacts").stalled_told), (0, false));
    desk.stop().await;
}

#[tokio::test]
async fn refused_credentials_stop_the_connection_and_are_told_once() {
    let desk = Desk::sandbox(&["contacts", "users"]).await;
    desk.look().await;
    desk.call("PUT", "/control/accounts/acc_1/key", Some(json!({"key": "another-key"}))).await;
    assert_eq!(desk.pull("contacts").await, None, "polling stops");
    assert!(matches!(desk.connection().status, ConnectionStatus::AuthFailed { .. }));
    desk.pull("contacts").await;
    assert_eq!(desk.count("connection/authentication_failure"), 1);
    let pulls = desk.pulls().len();
    desk.look().await;
    assert_eq!(desk.pulls().len(), pulls);
    desk.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_set_up_wrong_says_so() {
    let desk = Desk::sandbox(&["contacts"]).await;
    let mut connection = desk.connection();
    connection.connector = "nobody".into();
    desk.deps.store.change(move |tx| tx.put_object(&connection)).await.unwrap();
    assert!(desk.look().await.is_some());
    let ConnectionStatus::Error { message, .. } = desk.connection().status else { panic!("not an error") };
    assert!(message.contains("nobody"), "{message}");
    desk.stop().await;
}

#[tokio::test]
async fn what_is_gone_is_left_alone() {
    let desk = Desk::sandbox(&["contacts"]).await;
    desk.look().await;
    let connection = desk.connection();
    desk.deps.store.change(move |tx| tx.erase_connection(&connection)).await.unwrap();
    assert_eq!(desk.look().await, None);
    assert_eq!(desk.rows("contacts").len(), 0);
    desk.stop().await;
}
