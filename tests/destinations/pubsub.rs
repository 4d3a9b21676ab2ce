//! Pub/Sub: against a stub that checks what Google checks, and against Google's emulator where it is.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tidemill::destinations::driver::{Answer, Driver, Verdict};
use tidemill::domain::delivery::AttemptError;
use tidemill::domain::destination::Shape;
use tidemill::domain::failure::Failure;
use tidemill::domain::trouble::Trouble;

use crate::support::google::{SignIn, refusal};
use crate::support::stub::{Fails, Reply, Stub};
use crate::support::{batches, emulators, open, promises, unknown_setting, verdicts};

/// A stub of a topic that holds what was published.
struct Topic {
    stub: Stub,
    sign_in: SignIn,
    messages: Arc<Mutex<Vec<Value>>>,
}

impl Topic {
    fn start() -> Self {
        let sign_in = SignIn::start(3_600);
        let messages: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (guard, held) = (sign_in.guard(), messages.clone());
        let stub = Stub::start(move |seen| {
            if let Some(refused) = guard(seen) {
                return refused;
            }
            match seen.path() {
                "/v1/projects/proj/topics/events:publish" => {
                    assert!(seen.body.len() <= 10_000_000, "{} bytes", seen.body.len());
                    let published = seen.json()["messages"].as_array().unwrap().clone();
                    assert!((1..=1_000).contains(&published.len()));
                    let mut held = held.lock().unwrap();
                    let from = held.len();
                    let ids: Vec<String> = (from..from + published.len()).map(|id| id.to_string()).collect();
                    held.extend(published);
                    Reply::json(200, json!({"messageIds": ids}))
                }
                "/v1/projects/proj/topics/events:testIamPermissions" => Reply::json(200, seen.json()),
                "/v1/projects/proj/topics/absent:testIamPermissions" => Reply::json(200, json!({})),
                _ => refusal(404, "NOT_FOUND", "Resource not found (resource=absent)."),
            }
        });
        Self { stub, sign_in, messages }
    }

    fn settings(&self, more: Value) -> Value {
        let mut settings = json!({
            "credentials": self.sign_in.credentials(),
            "topic": "events",
            "endpoint": self.stub.url,
        });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    }

    fn open(&self, more: Value) -> Arc<dyn Driver> {
        open("pubsub", self.settings(more)).unwrap()
    }

    fn ids(&self) -> BTreeSet<String> {
        let held = self.messages.lock().unwrap();
        held.iter().map(|message| message["attributes"]["event_id"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test]
async fn each_event_is_a_message_with_its_id_and_keeps_its_connections_order() {
    let topic = Topic::start();
    let driver = topic.open(json!({}));
    let count = || async { topic.ids().len() };
    promises::writes_once(&driver, count).await;
    promises::tests_well(&driver, count).await;
    let held = topic.messages.lock().unwrap();
    let message = held.first().unwrap();
    assert_eq!(message["orderingKey"], batches::CONNECTION.to_string());
    assert_eq!(message["attributes"]["topic"], "crm/contacts");
    assert_eq!(message["attributes"]["update_type"], "created");
    assert_eq!(message["attributes"]["connection_id"], batches::CONNECTION.to_string());
    assert_eq!(message["attributes"]["user_id"], "e0".repeat(12));
    let body: Value = serde_json::from_slice(&STANDARD.decode(message["data"].as_str().unwrap()).unwrap()).unwrap();
    assert!(body.is_object());
    let remote_ids: Vec<u64> = held
        .iter()
        .map(|m| u64::from_str_radix(&m["attributes"]["event_id"].as_str().unwrap()[..16], 16).unwrap())
        .collect();
    assert!(remote_ids[..7].is_sorted());
}

#[test]
fn a_batch_is_these_bytes() {
    let topic = Topic::start();
    let driver = topic.open(json!({"orderingKey": "record"}));
    let batch = batches::batch(3, Shape::Append, 7, vec![batches::custom("own/things", "{\"id\": 1}")]);
    let frozen = driver.prepare(&batch).unwrap();
    let data = STANDARD.encode(batch.body(&batch.items[0]));
    let id = batch.items[0].id;
    let golden = format!(
        "{{\"messages\":[{{\"data\":\"{data}\",\"attributes\":{{\"event_id\":\"{id}\",\"topic\":\"own/things\",\
         \"update_type\":\"updated\"}}}}]}}"
    );
    assert_eq!(std::str::from_utf8(&frozen.parts[0].body).unwrap(), golden);
    let record = driver.prepare(&batches::contacts(1, 5, 1)).unwrap();
    let body: Value = serde_json::from_slice(&record.parts[0].body).unwrap();
    assert_eq!(body["messages"][0]["orderingKey"], format!("{}/5", batches::CONNECTION));
}

#[tokio::test]
async fn requests_stay_within_a_thousand_messages_and_ten_megabytes() {
    let topic = Topic::start();
    let driver = topic.open(json!({"maxRows": 5_000}));
    let many = batches::contacts(1, 1, 2_500);
    let frozen = driver.prepare(&many).unwrap();
    assert_eq!(frozen.parts.iter().map(|part| part.items.len()).collect::<Vec<_>>(), [1_000, 1_000, 500]);
    promises::write(&driver, &many).await;
    let wide = |n: u64| batches::contact("created", &n.to_string(), &"x".repeat(1_000_000));
    let wide = batches::batch(2, Shape::Append, 10_001, (1..=12).map(wide).collect());
    let frozen = driver.prepare(&wide).unwrap();
    assert!(frozen.parts.len() > 1 && frozen.parts.iter().all(|part| part.body.len() <= 10_000_000));
    promises::write(&driver, &wide).await;
    assert_eq!(topic.ids().len(), 2_512);
}

#[tokio::test]
async fn an_event_above_the_limit_is_a_dead_letter_and_the_others_are_sent() {
    let topic = Topic::start();
    let driver = topic.open(json!({}));
    let huge = batches::contact("created", "2", &"x".repeat(8_000_000));
    let events = vec![batches::contact("created", "1", "A"), huge, batches::contact("created", "3", "C")];
    let batch = batches::batch(1, Shape::Append, 1, events);
    promises::prepares_the_same(&driver, &batch);
    let frozen = driver.prepare(&batch).unwrap();
    let refused: Vec<_> = frozen.refused.iter().map(|(place, fault)| (*place, fault.error)).collect();
    assert_eq!(refused, [(1, AttemptError::Destination(Trouble::TooLarge))]);
    assert_eq!(driver.send(&frozen).await, Answer::All(Verdict::Done));
    assert_eq!(topic.ids().len(), 2);
}

#[tokio::test]
async fn what_follows_a_part_that_failed_comes_again() {
    let topic = Topic::start();
    let driver = topic.open(json!({"maxRows": 5_000}));
    let frozen = driver.prepare(&batches::contacts(1, 1, 2_100)).unwrap();
    topic.stub.fail_later(1, ":publish", Fails::With(refusal(503, "UNAVAILABLE", "later")));
    let Answer::Each(all) = driver.send(&frozen).await else { panic!("one verdict per event") };
    assert_eq!(all.len(), 2_100);
    assert!(all[..1_000].iter().all(|verdict| *verdict == Verdict::Done));
    assert!(all[1_000..].iter().all(|verdict| matches!(verdict, Verdict::Retry(_))));
    // Nothing of the third part left before the second.
    assert_eq!(topic.ids().len(), 1_000);
    // With the first part, nothing is taken, and the whole batch is judged.
    topic.stub.fail(":publish", Fails::With(refusal(503, "UNAVAILABLE", "later")));
    assert_eq!(verdicts::retry(&driver.send(&frozen).await), AttemptError::Destination(Trouble::Busy));
}

#[tokio::test]
async fn each_fault_has_its_verdict() {
    let topic = Topic::start();
    let driver = topic.open(json!({}));
    let frozen = driver.prepare(&batches::contacts(1, 1, 2)).unwrap();
    let publish = |how: Fails| {
        topic.stub.fail(":publish", how);
        driver.send(&frozen)
    };
    let with = |status, reason| Fails::With(refusal(status, reason, "said Google"));
    let destination = AttemptError::Destination;
    let throttled = Fails::With(refusal(429, "RESOURCE_EXHAUSTED", "slow down").with("retry-after", "9"));
    let answer = publish(throttled).await;
    assert_eq!(verdicts::retry(&answer), destination(Trouble::Throttled));
    assert_eq!(verdicts::fault(&answer).after, Some(std::time::Duration::from_secs(9)));
    assert_eq!(verdicts::retry(&publish(with(503, "UNAVAILABLE")).await), destination(Trouble::Busy));
    assert_eq!(
        verdicts::config(&publish(with(403, "PERMISSION_DENIED")).await),
        destination(Trouble::PermissionDenied)
    );
    assert_eq!(verdicts::config(&publish(with(404, "NOT_FOUND")).await), destination(Trouble::TargetMissing));
    let answer = publish(with(400, "INVALID_ARGUMENT")).await;
    assert!(matches!(&answer, Answer::All(Verdict::Row(fault)) if fault.detail == "400: said Google"), "{answer:?}");
    assert_eq!(verdicts::retry(&publish(Fails::CutBefore).await), AttemptError::Exchange(Failure::ConnectionClosed));
    // Nobody knows that it was taken: it comes again, and readers tell by `event_id`.
    assert_eq!(verdicts::retry(&publish(Fails::CutAfter).await), AttemptError::Exchange(Failure::ConnectionClosed));
    promises::write(&driver, &batches::contacts(1, 1, 2)).await;
    let published = topic.messages.lock().unwrap().len();
    assert_eq!((published, topic.ids().len()), (4, 2));
}

#[tokio::test]
async fn a_token_is_shared_and_a_worthless_one_replaced() {
    let topic = Topic::start();
    let driver = topic.open(json!({}));
    for number in 1..=3 {
        promises::write(&driver, &batches::contacts(number, number * 10, 1)).await;
    }
    assert_eq!(topic.sign_in.given(), 1);
    topic.sign_in.revoke();
    promises::write(&driver, &batches::contacts(4, 40, 1)).await;
    assert_eq!((topic.sign_in.given(), topic.ids().len()), (2, 4));
}

#[tokio::test]
async fn a_token_that_is_about_to_expire_is_not_used() {
    let mut topic = Topic::start();
    topic.sign_in = SignIn::start(60);
    let driver = topic.open(json!({}));
    promises::write(&driver, &batches::contacts(1, 1, 1)).await;
    promises::write(&driver, &batches::contacts(2, 10, 1)).await;
    assert_eq!(topic.sign_in.given(), 2);
}

#[tokio::test]
async fn credentials_that_are_refused_pause_the_destination_and_are_not_shown() {
    let topic = Topic::start();
    let forged = topic.sign_in.forged();
    let driver = topic.open(json!({"credentials": forged}));
    let answer = driver.send(&driver.prepare(&batches::contacts(1, 1, 1)).unwrap()).await;
    assert_eq!(verdicts::config(&answer), AttemptError::Destination(Trouble::CredentialsRefused));
    assert_eq!(verdicts::fault(&answer).detail, "400: Invalid JWT Signature.");
    let steps = driver.test(&batches::probe(Shape::Append)).await;
    assert_eq!((steps.len(), steps[0].name), (1, "signIn"));
    // Google not being there is no fault of the owner.
    topic.sign_in.stub.fail("/token", Fails::With(refusal(503, "backendError", "later")));
    assert_eq!(
        verdicts::retry(&driver.send(&driver.prepare(&batches::contacts(1, 1, 1)).unwrap()).await),
        AttemptError::Destination(Trouble::Busy)
    );
}

#[tokio::test]
async fn workload_identity_signs_in_with_the_token_of_the_settings_alone() {
    let topic = Topic::start();
    let more = json!({
        "credentials": topic.sign_in.external(),
        "subjectToken": "their-own-token",
        "projectId": "proj",
    });
    promises::write(&topic.open(more), &batches::contacts(1, 1, 2)).await;
    assert_eq!(topic.ids().len(), 2);
    let more = json!({"credentials": topic.sign_in.external(), "subjectToken": "old", "projectId": "proj"});
    let driver = topic.open(more);
    let answer = driver.send(&driver.prepare(&batches::contacts(1, 1, 1)).unwrap()).await;
    assert_eq!(verdicts::config(&answer), AttemptError::Destination(Trouble::CredentialsRefused));
}

#[tokio::test]
async fn a_test_says_what_is_missing() {
    let topic = Topic::start();
    let driver = topic.open(json!({"topic": "absent"}));
    let steps = driver.test(&batches::probe(Shape::Append)).await;
    let fault = steps.last().unwrap().fault.clone().unwrap();
    assert_eq!(steps.last().unwrap().name, "permissions");
    assert!(fault.detail.contains("roles/pubsub.publisher"), "{}", fault.detail);
}

#[test]
fn bad_settings_are_refused_by_name() {
    let topic = Topic::start();
    let refused = |more: Value| open("pubsub", topic.settings(more)).err().unwrap().to_string();
    assert!(open("pubsub", unknown_setting()).err().unwrap().to_string().contains("noSuchSetting"));
    assert!(refused(json!({"topic": "projects/p/topics/t"})).contains("settings.topic"));
    assert!(refused(json!({"endpoint": "file:///etc"})).contains("settings.endpoint"));
    assert!(refused(json!({"projectId": "a/b"})).contains("settings.projectId"));
    let text = refused(json!({"credentials": "{\"type\":\"authorized_user\",\"refresh_token\":\"hush\"}"}));
    assert!(text.contains("settings.credentials") && !text.contains("hush"), "{text}");
    let text = refused(json!({"credentials": "hush, this is no JSON"}));
    assert!(text.contains("settings.credentials") && !text.contains("hush"), "{text}");
    let text = refused(json!({"credentials": topic.sign_in.external(), "projectId": "proj"}));
    assert!(text.contains("settings.subjectToken"), "{text}");
}

#[tokio::test]
async fn googles_emulator_takes_what_we_send() {
    let Some(emulator) = emulators::pubsub() else { return };
    let sign_in = SignIn::start(3_600);
    let client = emulators::Plain::new(&emulator.url);
    client.call("PUT", "/v1/projects/proj/topics/events", json!({})).await;
    let topic = json!({"topic": "projects/proj/topics/events", "enableMessageOrdering": true});
    client.call("PUT", "/v1/projects/proj/subscriptions/all", topic).await;
    let settings = json!({"credentials": sign_in.credentials(), "topic": "events", "endpoint": emulator.url});
    let driver = open("pubsub", settings).unwrap();
    for step in driver.test(&batches::probe(Shape::Append)).await {
        assert_eq!(step.fault, None, "{}", step.name);
    }
    promises::write(&driver, &batches::contacts(1, 1, 1_500)).await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        let pull = json!({"maxMessages": 1_000});
        let pulled = client.call("POST", "/v1/projects/proj/subscriptions/all:pull", pull).await;
        let messages = pulled["receivedMessages"].as_array().cloned().unwrap_or_default();
        let acks: Vec<Value> = messages.iter().map(|message| message["ackId"].clone()).collect();
        ids.extend(messages.iter().map(|m| m["message"]["attributes"]["event_id"].as_str().unwrap().to_owned()));
        if !acks.is_empty() {
            client.call("POST", "/v1/projects/proj/subscriptions/all:acknowledge", json!({"ackIds": acks})).await;
        }
        if ids.len() >= 1_500 {
            break;
        }
    }
    assert!(ids.is_sorted(), "one connection's events keep their order");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 1_500);
    let driver =
        open("pubsub", json!({"credentials": sign_in.credentials(), "topic": "gone", "endpoint": emulator.url}));
    let driver = driver.unwrap();
    let answer = driver.send(&driver.prepare(&batches::contacts(1, 1, 1)).unwrap()).await;
    assert_eq!(verdicts::config(&answer), AttemptError::Destination(Trouble::TargetMissing));
}
