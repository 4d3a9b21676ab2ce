//! A connection's webhook at its app, and the selectors of its events: over deletions, failures, drops and changes.

use std::time::Duration;

use serde_json::json;

use super::desk::{Desk, FAR};
use crate::actors::watcher::standing::day_of;
use crate::actors::watcher::{Watchers, farewell, look, pasted};
use crate::domain::connection::{
    CONFIRM_WITHIN, Confirmation, Connection, EventSwitch, Farewell, Registration, WebhookState,
};
use crate::domain::id::WorkspaceNo;
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::store::Slot;

/// A connection whose webhook stands at the app.
async fn registered() -> Desk {
    let mut desk = Desk::sandbox(&["contacts"]).await;
    desk.deps.public_url = Some("http://127.0.0.1:1/".parse().unwrap());
    desk.look().await;
    assert!(matches!(desk.connection().webhook, WebhookState::Registered { .. }));
    assert_eq!(hooks(&desk).await, 1);
    desk
}

async fn hooks(desk: &Desk) -> usize {
    desk.call("GET", "/api/webhooks", None).await["data"].as_array().unwrap().len()
}

impl Desk {
    fn registration(&self) -> Registration {
        self.deps.store.registration(self.id).unwrap()
    }
    /// Goes on to when the registration is looked after again, and looks.
    async fn tend(&self) {
        let due = self.registration().due_at.expect("something is due");
        self.deps.clock.raise(due);
        self.look().await;
    }
    /// Renewed so late that only the daily question is left.
    async fn renew_never(&self) {
        let connection = self.connection();
        let WebhookState::Registered { uri, state, listed_at, .. } = connection.webhook.clone() else { panic!() };
        let webhook = WebhookState::Registered { uri, state, listed_at, refresh_at: Some(FAR) };
        let connection = Connection { webhook, ..connection };
        let row = Registration { due_at: None, ..self.registration() };
        let id = self.id;
        let put = self.deps.store.change(move |tx| {
            tx.put_registration(id, &row)?;
            tx.put_object(&connection)
        });
        put.await.unwrap();
    }
    async fn hook_id(&self) -> String {
        let all = self.call("GET", "/api/webhooks", None).await;
        all["data"][0]["id"].as_str().expect("a webhook").to_owned()
    }
}

async fn delete(desk: &Desk) {
    let gone = desk.connection();
    desk.deps.store.change(move |tx| farewell::leave(tx, &gone)).await.unwrap();
}

fn owed(desk: &Desk) -> Option<Farewell> {
    desk.deps.store.object_anywhere(&desk.id.0).unwrap()
}

#[tokio::test]
async fn a_deleted_connections_webhook_is_taken_away_also_after_a_restart() {
    let desk = registered().await;
    delete(&desk).await;
    assert_eq!(hooks(&desk).await, 1, "the deletion itself asks nobody");
    // What a node does when it starts: nothing is known but what the store has.
    Watchers::new(desk.deps.clone()).open().unwrap();
    desk.deps.rings.wake_due(desk.deps.clock.now());
    assert!(desk.deps.rings.owners_rung().await.contains(&desk.id.0));
    assert_eq!(desk.look().await, None);
    assert_eq!((hooks(&desk).await, owed(&desk)), (0, None));
    assert!(desk.deps.store.credentials(&desk.id.0).unwrap().is_none(), "its credentials go with it");
    desk.stop().await;
}

#[tokio::test]
async fn an_app_that_refuses_to_take_a_webhook_away_is_asked_a_bounded_number_of_times() {
    let desk = registered().await;
    delete(&desk).await;
    let fault = json!({"kind": "status", "status": 503, "path": "/api/webhooks/", "count": 1_000});
    let counted = desk.call("POST", "/control/answers", Some(fault)).await.to_string();
    for tries in 1..farewell::TRIES_MAX {
        let next = desk.look().await.expect("tried again");
        assert!(next > desk.deps.clock.now());
        assert_eq!(desk.look().await, Some(next), "not before its time");
        let mut kept = owed(&desk).unwrap_or_else(|| panic!("try {tries}: {counted}"));
        assert_eq!(kept.tries, tries);
        assert!(!kept.error.is_empty());
        kept.due_at = Millis(0);
        desk.deps.store.change(move |tx| tx.put_object(&kept)).await.unwrap();
    }
    assert_eq!(desk.look().await, None);
    assert_eq!((hooks(&desk).await, owed(&desk)), (1, None));
    desk.stop().await;
}

#[tokio::test]
async fn selectors_are_asked_for_again_when_they_are_wished_for() {
    let desk = Desk::sandbox(&["orders"]).await;
    let id = desk.id;
    let switch = |event: &str, selector: &str, parameters: &str| EventSwitch {
        event: event.into(),
        parameters: parameters.into(),
        webhook_key: "changes".into(),
        selector: selector.into(),
    };
    let stale = switch("order-changed", "order/acc_9", "{}");
    let good = switch("opportunity-changed", "opportunity/acc_1", r#"{"account":"acc_1"}"#);
    let (one, two) = (stale.clone(), good.clone());
    let put = desk.deps.store.change(move |tx| {
        tx.put_event_switch(id, &one)?;
        tx.put_event_switch(id, &two)
    });
    put.await.unwrap();
    desk.look().await;
    assert!(desk.deps.store.event_switches(id).unwrap().contains(&stale), "nobody wished for it");
    desk.deps.store.change(move |tx| tx.ask_reselect(id)).await.unwrap();
    desk.fault(json!({"kind": "status", "status": 503, "path": "/api/me"})).await;
    desk.look().await;
    let mut wish = desk.deps.store.reselect(id).unwrap().expect("it stays until it is granted");
    assert!(wish.tries == 1 && wish.due_at > desk.deps.clock.now());
    wish.due_at = Millis(0);
    desk.deps.store.change(move |tx| tx.put_reselect(id, &wish)).await.unwrap();
    look(&desk.deps, id.0).await.unwrap();
    let mut switches = desk.deps.store.event_switches(id).unwrap();
    switches.sort_by(|a, b| a.event.cmp(&b.event));
    assert_eq!(switches, [good, switch("order-changed", "order/acc_1", "{}")]);
    assert_eq!(desk.deps.store.reselect(id).unwrap(), None);
    desk.stop().await;
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn the_app_is_asked_daily_and_a_webhook_that_it_dropped_is_made_anew() {
    let desk = registered().await;
    let (first, start) = (desk.hook_id().await, desk.deps.clock.now());
    let seen = desk.registration().seen_at.expect("just made");
    desk.renew_never().await;
    desk.deps.clock.raise(start.after(DAY - DAY / 10 - Duration::from_secs(60)));
    desk.look().await;
    assert_eq!(desk.registration().seen_at, Some(seen), "not before its time");
    desk.call("POST", &format!("/api/webhooks/{first}/renew"), None).await;
    desk.deps.clock.raise(start.after(DAY + Duration::from_secs(1)));
    desk.look().await;
    let row = desk.registration();
    assert!(row.seen_at > Some(seen) && row.failures == 0, "{row:?}");
    assert_eq!(desk.hook_id().await, first, "it is there, and stays");

    desk.call("DELETE", &format!("/api/webhooks/{first}"), None).await;
    let version = desk.deps.rings.owners_version();
    desk.tend().await;
    assert_ne!(desk.hook_id().await, first);
    assert!(matches!(desk.connection().webhook, WebhookState::Registered { .. }));
    assert!(desk.deps.rings.owners_version() > version, "the door must learn of the new secret");
    desk.stop().await;
}

/// What the sandbox gives a webhook.
const LIFE: Duration = DAY;

/// When the webhook ends, as the app itself says.
async fn ends(desk: &Desk) -> Millis {
    let all = desk.call("GET", "/api/webhooks", None).await;
    Millis::parse_rfc3339(all["data"][0]["expires_at"].as_str().expect("a time")).expect("a time")
}

#[tokio::test]
async fn a_webhook_is_renewed_when_half_of_its_life_is_over_and_not_before() {
    let desk = registered().await;
    let (first, minute) = (desk.hook_id().await, Duration::from_secs(60));
    for _ in 0..3 {
        let (end, due) = (ends(&desk).await, desk.registration().due_at.expect("something is due"));
        let half = end.before(LIFE / 2);
        assert!(due >= half && due < half.after(minute), "{due:?} is not half of the way to {end:?}");
        desk.deps.clock.raise(due.before(minute));
        let next = desk.look().await.expect("something is due");
        assert!(next <= due && ends(&desk).await == end, "not before its time");
        desk.deps.clock.raise(due);
        desk.look().await;
        assert!(ends(&desk).await >= due.after(LIFE), "renewed for a whole life");
        assert_eq!((desk.hook_id().await, desk.registration().failures), (first.clone(), 0));
    }
    // Without an end it is asked for once a day, a little earlier for each connection.
    desk.renew_never().await;
    let seen = desk.registration().seen_at.expect("just renewed");
    desk.deps.clock.raise(seen.after(day_of(desk.id)).before(minute));
    desk.look().await;
    assert_eq!(desk.registration().seen_at, Some(seen));
    desk.deps.clock.raise(seen.after(day_of(desk.id)));
    desk.look().await;
    assert!(desk.registration().seen_at > Some(seen));
    desk.stop().await;
}

#[tokio::test]
async fn a_renewal_that_finds_nothing_makes_the_webhook_anew() {
    let desk = registered().await;
    let first = desk.hook_id().await;
    desk.call("DELETE", &format!("/api/webhooks/{first}"), None).await;
    desk.tend().await;
    assert_ne!(desk.hook_id().await, first);
    assert_eq!(desk.registration().failures, 0);
    desk.stop().await;
}

#[tokio::test]
async fn a_renewal_that_keeps_failing_is_told_once_and_the_webhook_is_made_anew_in_the_end() {
    let desk = registered().await;
    let (first, ends) = (desk.hook_id().await, desk.registration().expires_at.expect("it ends"));
    let fault = json!({"kind": "status", "status": 503, "path": "/api/webhooks/", "count": 1_000});
    desk.fault(fault).await;
    desk.tend().await;
    assert_eq!(desk.count("webhook/expiring"), 0, "one failure may be a moment's");
    let row = desk.registration();
    assert!(row.failures == 1 && !row.error.is_empty() && row.failed_at.is_some(), "{row:?}");
    assert!(matches!(desk.connection().webhook, WebhookState::Registered { .. }), "it stands until its end");
    let mut looks = 0;
    while desk.registration().failures > 0 {
        looks += 1;
        assert!(looks < 40, "it is asked a bounded number of times: {:?}", desk.registration());
        desk.tend().await;
        assert_eq!(desk.count("webhook/expiring"), 1, "once per registration");
    }
    assert!(desk.deps.clock.now() >= ends);
    assert_ne!(desk.hook_id().await, first);
    let told = desk.events().into_iter().find(|event| event.topic == "webhook/expiring").unwrap();
    let crate::domain::event::Payload::Plain(payload) = told.payload else { panic!("a system event") };
    let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
    assert_eq!(payload["expiresAt"], ends.rfc3339_millis());
    assert_eq!((&payload["topics"], &payload["error"]["code"]), (&json!(["crm/contacts"]), &json!("unavailable")));
    assert_eq!(desk.count("webhook/expiring"), 1);
    desk.stop().await;
}

#[tokio::test]
async fn while_a_webhook_cannot_be_made_the_connection_says_why_and_is_polled_as_usual() {
    let mut desk = Desk::sandbox(&["contacts"]).await;
    desk.deps.public_url = Some("http://127.0.0.1:1/".parse().unwrap());
    desk.fault(json!({"kind": "status", "status": 503, "path": "/api/webhooks", "count": 2})).await;
    desk.look().await;
    assert_eq!(desk.connection().webhook, WebhookState::Wanted { tries: 1 });
    let (row, now) = (desk.registration(), desk.deps.clock.now());
    assert!(row.error.contains("503") && row.due_at > Some(now), "{row:?}");
    let usual = Duration::from_secs(600);
    assert!(desk.state("contacts").next_pull_at.unwrap() < now.after(usual), "polled as if there were none");
    desk.tend().await;
    assert_eq!(desk.connection().webhook, WebhookState::Wanted { tries: 2 });
    desk.tend().await;
    assert!(matches!(desk.connection().webhook, WebhookState::Registered { .. }));
    assert_eq!((desk.registration().failures, desk.registration().error), (0, String::new()));
    desk.pull("contacts").await;
    let now = desk.deps.clock.now();
    assert!(desk.state("contacts").next_pull_at.unwrap() > now.after(usual), "now polls only reconcile");
    desk.stop().await;
}

#[tokio::test]
async fn a_webhook_that_can_no_longer_reach_us_is_taken_away() {
    let mut desk = registered().await;
    desk.deps.public_url = None;
    desk.look().await;
    assert_eq!(hooks(&desk).await, 0);
    assert_eq!(desk.connection().webhook, WebhookState::None { reason: "no-public-url".to_owned() });
    desk.deps.public_url = Some("http://127.0.0.1:2/".parse().unwrap());
    desk.look().await;
    assert_eq!(hooks(&desk).await, 1, "and made again when it can");
    desk.stop().await;
}

#[tokio::test]
async fn a_registered_webhook_at_a_former_address_is_looked_at_as_soon_as_the_node_starts() {
    let mut desk = registered().await;
    assert!(!pasted::is_behind(&desk.deps, &desk.connection()).unwrap());
    desk.deps.public_url = Some("http://127.0.0.1:2/".parse().unwrap());
    assert!(pasted::is_behind(&desk.deps, &desk.connection()).unwrap());
    desk.look().await;
    assert!(!pasted::is_behind(&desk.deps, &desk.connection()).unwrap());
    assert_eq!(hooks(&desk).await, 1, "the former one is taken away");
    assert_eq!(desk.count("webhook/url-changed"), 0, "no person has to do anything");
    desk.stop().await;
}

#[tokio::test]
async fn an_address_to_confirm_is_called_again_until_it_is_no_longer_good_also_after_a_restart() {
    let desk = Desk::sandbox(&["contacts"]).await;
    let base = desk.sandbox.as_ref().unwrap().url();
    let remember = async |path: &str| {
        let (owner, now) = (desk.id.0, desk.deps.clock.now());
        let (until, address) = (now.after(CONFIRM_WITHIN), Secret::new(format!("{base}{path}")));
        let put = desk.deps.store.change(move |tx| {
            let (id, workspace) = (tx.fresh_id()?, WorkspaceNo::DEFAULT);
            tx.put_object(&Confirmation { id, owner, workspace, due_at: now, until, tries: 0 })?;
            tx.put_secret_text(&id, Slot::WebhookState, &address)
        });
        put.await.unwrap();
    };
    let waiting = || desk.deps.store.children::<Confirmation>(&desk.id.0, None, 9).unwrap().items;
    remember("/control/counts").await;
    Watchers::new(desk.deps.clone()).open().unwrap();
    desk.deps.rings.wake_due(desk.deps.clock.now());
    assert!(desk.deps.rings.owners_rung().await.contains(&desk.id.0));
    desk.look().await;
    let credentials = desk.deps.store.credentials(&desk.id.0).unwrap();
    assert!(waiting().is_empty() && credentials.is_some(), "it is done, and the connection keeps its own");

    remember("/api/nothing").await;
    desk.look().await;
    let first = waiting().pop().expect("tried again");
    assert!(first.tries == 1 && first.due_at > desk.deps.clock.now());
    desk.look().await;
    assert_eq!(waiting(), std::slice::from_ref(&first), "not before its time");
    desk.deps.clock.raise(first.due_at);
    desk.look().await;
    assert_eq!(waiting()[0].tries, 2);
    desk.deps.clock.raise(first.until);
    desk.look().await;
    assert!(waiting().is_empty(), "after five minutes the address is worth nothing");
    desk.stop().await;
}
