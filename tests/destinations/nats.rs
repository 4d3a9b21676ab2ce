//! NATS: against its own server with JetStream.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tidemill::destinations::driver::{Answer, Batch, Driver, Verdict};
use tidemill::domain::delivery::AttemptError;
use tidemill::domain::destination::Shape;
use tidemill::domain::failure::Failure;
use tidemill::domain::trouble::Trouble;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::support::cutter::{Counted, Cutter};
use crate::support::nats::{Server, read};
use crate::support::tls::certificates;
use crate::support::{batches, open, promises, unknown_setting, verdicts};

const DESTINATION: fn(Trouble) -> AttemptError = AttemptError::Destination;

/// Sends a batch as the engine does, until each event is settled; what was refused for good, by its place.
async fn settle(driver: &Arc<dyn Driver>, batch: &Batch) -> Vec<usize> {
    let mut places: Vec<usize> = (0..batch.items.len()).collect();
    let mut refused = Vec::new();
    for _ in 0..50 {
        if places.is_empty() {
            return refused;
        }
        let items = places.iter().map(|place| batch.items[*place].clone()).collect();
        let again = Batch { items, ..batch.clone() };
        match driver.send(&driver.prepare(&again).unwrap()).await {
            Answer::All(Verdict::Done) => places.clear(),
            Answer::All(Verdict::Retry(_)) => {}
            Answer::All(other) => panic!("{other:?}"),
            Answer::Each(all) => {
                assert_eq!(all.len(), places.len());
                let judged: Vec<_> = places.drain(..).zip(all).collect();
                refused
                    .extend(judged.iter().filter(|(_, said)| matches!(said, Verdict::Row(_))).map(|(place, _)| *place));
                places = judged.iter().filter(|(_, said)| matches!(said, Verdict::Retry(_))).map(|(p, _)| *p).collect();
            }
        }
    }
    panic!("it is never settled");
}

fn ids(batch: &Batch) -> Vec<String> {
    batch.items.iter().map(|item| item.id.to_string()).collect()
}

fn held_ids(server: &Server) -> Vec<String> {
    server.held().iter().map(|held| held.header("Nats-Msg-Id").unwrap().to_owned()).collect()
}

async fn sent(driver: &Arc<dyn Driver>, batch: &Batch) -> Answer {
    driver.send(&driver.prepare(batch).unwrap()).await
}

#[tokio::test]
async fn each_event_is_a_message_that_is_stored_once_and_in_order() {
    let Some(server) = Server::start("") else { return };
    server.stream(json!({}));
    let driver = open("nats", server.settings(json!({}))).unwrap();
    let count = || async { server.held().len() };
    promises::writes_once(&driver, count).await;
    promises::tests_well(&driver, count).await;
    let many = batches::contacts(1, 1, 2_000);
    promises::write(&driver, &many).await;
    let held = server.held();
    assert_eq!(held_ids(&server)[12..], ids(&many));
    let message = &held[12];
    assert_eq!(message.subject, "tidemill.crm.contacts");
    assert_eq!(message.header("Tidemill-Topic"), Some("crm/contacts"));
    assert_eq!(message.header("Tidemill-Update-Type"), Some("created"));
    assert_eq!(message.header("Tidemill-Connection"), Some(batches::CONNECTION.to_string().as_str()));
    assert_eq!(message.header("Tidemill-User"), Some("e0".repeat(12).as_str()));
    assert_eq!(message.body, many.body(&many.items[0]));
}

#[tokio::test]
async fn what_a_stream_refuses_for_a_while_is_stored_in_order_later() {
    let Some(server) = Server::start("") else { return };
    // The third change of each record is refused.
    server.stream(json!({"max_msgs_per_subject": 2, "discard": "new", "discard_new_per_subject": true}));
    let driver = open("nats", server.settings(json!({"subject": "record"}))).unwrap();
    let change = |n: u64| batches::contact("updated", &(n % 3).to_string(), &format!("Change {n}"));
    let batch = batches::batch(1, Shape::Append, 1, (0..30).map(change).collect());
    let Answer::Each(all) = sent(&driver, &batch).await else { panic!("one verdict per event") };
    assert!(all[..6].iter().all(|said| *said == Verdict::Done));
    assert!(all[6..].iter().all(|said| matches!(said, Verdict::Retry(_))), "{all:?}");
    server.admin(json!({})).ask("STREAM.PURGE.EVENTS", &Value::Null);
    server.admin(json!({})).ask(
        "STREAM.UPDATE.EVENTS",
        &json!({"name": "EVENTS", "subjects": ["tidemill.>"], "storage": "file", "num_replicas": 1, "discard": "old"}),
    );
    assert_eq!(settle(&driver, &batch).await, [0; 0]);
    // The first six were stored before, and their repetition is dropped.
    assert_eq!(held_ids(&server), ids(&batch)[6..]);
}

#[test]
fn a_batch_is_these_bytes() {
    let settings = |subject: &str| json!({"servers": ["nats://127.0.0.1"], "subject": subject, "subjectPrefix": "a.b"});
    let driver = |subject: &str| open("nats", settings(subject)).unwrap();
    let odd = batches::custom("own/things", "{\"id\": \"a.b *\"}");
    let batch = batches::batch(3, Shape::Append, 7, vec![odd, batches::custom("own/things", "[1]")]);
    promises::prepares_the_same(&driver("record"), &batch);
    let frozen = driver("record").prepare(&batch).unwrap();
    let body = String::from_utf8(batch.body(&batch.items[0])).unwrap();
    let golden = format!(
        "NATS/1.0\r\nNats-Msg-Id: {}\r\nContent-Type: application/json\r\nTidemill-Topic: own/things\r\n\
         Tidemill-Update-Type: updated\r\nTidemill-Record: a%2Eb%20%2A\r\n\r\n{body}",
        batch.items[0].id
    );
    assert_eq!(std::str::from_utf8(&frozen.parts[0].body).unwrap(), golden);
    assert_eq!(frozen.parts[0].target, "a.b.own.things.-.a%2Eb%20%2A");
    assert_eq!(frozen.parts[1].target, "a.b.own.things.-.-");
    let contact = batches::contacts(1, 5, 1);
    let subject = |of: &str| driver(of).prepare(&contact).unwrap().parts[0].target.clone();
    let connection = batches::CONNECTION;
    assert_eq!(subject("topic"), "a.b.crm.contacts");
    assert_eq!(subject("connection"), format!("a.b.crm.contacts.{connection}"));
    let record = tidemill::domain::record::record_id(connection, "crm/contacts", "5");
    assert_eq!(subject("record"), format!("a.b.crm.contacts.{connection}.{record}"));
}

#[tokio::test]
async fn an_event_above_a_limit_is_a_dead_letter_and_the_others_are_stored() {
    let Some(server) = Server::start("max_payload: 65536") else { return };
    server.stream(json!({"max_msg_size": 10_000}));
    let driver = open("nats", server.settings(json!({}))).unwrap();
    let sized = |n: &str, size: usize| batches::contact("created", n, &"x".repeat(size));
    // The first is above the server's limit, the third above the stream's.
    let events = vec![sized("1", 70_000), sized("2", 1), sized("3", 20_000), sized("4", 1)];
    let batch = batches::batch(1, Shape::Append, 1, events);
    let Answer::Each(all) = sent(&driver, &batch).await else { panic!("one verdict per event") };
    assert_eq!(verdicts::row(&all[0]), DESTINATION(Trouble::TooLarge));
    assert_eq!(verdicts::row(&all[2]), DESTINATION(Trouble::TooLarge));
    assert_eq!((&all[1], &all[3]), (&Verdict::Done, &Verdict::Done));
    assert_eq!(server.held().len(), 2);
}

#[tokio::test]
async fn a_full_stream_takes_the_rest_when_it_has_room_again() {
    let Some(server) = Server::start("") else { return };
    server.stream(json!({"max_msgs": 10, "discard": "new"}));
    let driver = open("nats", server.settings(json!({}))).unwrap();
    let batch = batches::contacts(1, 1, 15);
    let Answer::Each(all) = sent(&driver, &batch).await else { panic!("one verdict per event") };
    assert!(all[..10].iter().all(|said| *said == Verdict::Done));
    for said in &all[10..] {
        let Verdict::Retry(fault) = said else { panic!("{said:?}") };
        assert_eq!(fault.error, DESTINATION(Trouble::Full));
    }
    // Nothing of a batch is taken: it is judged as a whole.
    assert_eq!(verdicts::retry(&sent(&driver, &batches::contacts(2, 100, 3)).await), DESTINATION(Trouble::Full));
    server.admin(json!({})).ask("STREAM.PURGE.EVENTS", &Value::Null);
    assert_eq!(settle(&driver, &batch).await, [0; 0]);
    assert_eq!(held_ids(&server), ids(&batch)[10..]);
}

#[tokio::test]
async fn without_a_stream_the_destination_pauses_and_nothing_is_called_done() {
    let Some(server) = Server::start("") else { return };
    let driver = open("nats", server.settings(json!({}))).unwrap();
    let batch = batches::contacts(1, 1, 3);
    assert_eq!(verdicts::config(&sent(&driver, &batch).await), DESTINATION(Trouble::TargetMissing));
    let steps = driver.test(&batches::probe(Shape::Append)).await;
    let last = steps.last().unwrap();
    assert_eq!((steps.len(), last.name), (3, "permissions"));
    assert_eq!(last.fault.as_ref().unwrap().error, DESTINATION(Trouble::TargetMissing));
    server.stream(json!({}));
    promises::write(&driver, &batch).await;
}

/// A server that acknowledges only when nothing more comes: how many messages, of which records, came between two
/// acknowledgements.
async fn patient(listener: TcpListener, seen: Arc<Mutex<Vec<Vec<String>>>>) {
    let (mut pipe, _) = listener.accept().await.unwrap();
    pipe.write_all(b"INFO {\"headers\":true,\"max_payload\":1048576}\r\n").await.unwrap();
    let (mut held, mut open) = (String::new(), Vec::new());
    loop {
        let mut bytes = [0; 65_536];
        match timeout(Duration::from_millis(200), pipe.read(&mut bytes)).await {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(read)) => held.push_str(std::str::from_utf8(&bytes[..read]).unwrap()),
            Err(_) if open.is_empty() => {}
            Err(_) => {
                let (replies, records): (Vec<String>, Vec<String>) = open.drain(..).unzip();
                seen.lock().unwrap().push(records);
                let ack = "{\"stream\":\"S\",\"seq\":1}";
                let said: Vec<String> =
                    replies.iter().map(|reply| format!("MSG {reply} 1 {}\r\n{ack}\r\n", ack.len())).collect();
                pipe.write_all(said.concat().as_bytes()).await.unwrap();
            }
        }
        while let Some((line, rest)) = held.split_once("\r\n") {
            let words: Vec<&str> = line.split(' ').collect();
            let mut taken = line.len() + 2;
            if words[0] == "PING" {
                pipe.write_all(b"PONG\r\n").await.unwrap();
            } else if words[0] == "HPUB" {
                let size: usize = words[4].parse().unwrap();
                let Some(message) = rest.get(..size + 2) else { break };
                let record = message.lines().find_map(|line| line.strip_prefix("Tidemill-Record: ")).unwrap();
                open.push((words[2].to_owned(), record.to_owned()));
                taken += size + 2;
            }
            held.drain(..taken);
        }
    }
}

#[tokio::test]
async fn the_first_message_is_alone_and_two_of_one_record_are_never_on_their_way_together() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
    tokio::spawn(patient(listener, seen.clone()));
    let driver = open("nats", json!({"servers": [format!("nats://127.0.0.1:{port}")]})).unwrap();
    let events = ["1", "2", "3", "2", "4", "5"].map(|record| batches::contact("updated", record, "A")).to_vec();
    promises::write(&driver, &batches::batch(1, Shape::Append, 1, events)).await;
    let record = |n: &str| tidemill::domain::record::record_id(batches::CONNECTION, "crm/contacts", n).to_string();
    let expected = [vec!["1"], vec!["2", "3"], vec!["2", "4", "5"]];
    assert_eq!(*seen.lock().unwrap(), expected.map(|all| all.into_iter().map(record).collect::<Vec<_>>()));
    seen.lock().unwrap().clear();
    promises::write(&driver, &batches::contacts(2, 100, 700)).await;
    let counts: Vec<usize> = seen.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(counts.iter().sum::<usize>(), 700);
    assert!(counts[0] == 1 && counts.iter().all(|count| *count <= 256), "{counts:?}");
}

/// Keys and tokens of an operator, as `nsc` makes them (NATS docs, "JWT"; `nats-io/jwt`, version 2).
struct Signer {
    pair: Ed25519KeyPair,
    seed: [u8; 32],
    prefix: u8,
}

impl Signer {
    fn new(prefix: u8, seed: u8) -> Self {
        let seed = [seed; 32];
        Self { pair: Ed25519KeyPair::from_seed_unchecked(&seed).unwrap(), seed, prefix }
    }

    fn written(mut bytes: Vec<u8>) -> String {
        let mut sum = 0_u16;
        for byte in &bytes {
            sum ^= u16::from(*byte) << 8;
            for _ in 0..8 {
                sum = if sum & 0x8000 == 0 { sum << 1 } else { (sum << 1) ^ 0x1021 };
            }
        }
        bytes.extend(sum.to_le_bytes());
        data_encoding::BASE32_NOPAD.encode(&bytes)
    }

    fn public(&self) -> String {
        Self::written([&[self.prefix], self.pair.public_key().as_ref()].concat())
    }

    fn seed(&self) -> String {
        Self::written([&[(18 << 3) | (self.prefix >> 5), (self.prefix & 31) << 3][..], &self.seed].concat())
    }

    fn token(&self, subject: &Self, claims: Value) -> String {
        let text = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = json!({"jti": "1", "iat": 1_700_000_000, "iss": self.public(), "name": "tests", "sub": subject.public(), "nats": claims});
        let signed = format!("{}.{}", text(json!({"typ": "JWT", "alg": "ed25519-nkey"})), text(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes()).as_ref()))
    }
}

#[tokio::test]
async fn the_creds_of_an_operators_user_sign_in() {
    let (operator, account, system) = (Signer::new(14 << 3, 1), Signer::new(0, 2), Signer::new(0, 3));
    let (user, stranger) = (Signer::new(20 << 3, 4), Signer::new(20 << 3, 5));
    let limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
        "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1});
    let of_account = |of: &Signer, limits: &Value| {
        operator.token(
            of,
            json!({"limits": limits, "default_permissions": {"pub": {}, "sub": {}}, "type": "account", "version": 2}),
        )
    };
    let mut plain = limits.clone();
    for name in ["mem_storage", "disk_storage", "streams", "consumer"] {
        plain.as_object_mut().unwrap().remove(name);
    }
    let lines = format!(
        "operator: {}\nresolver: MEMORY\nsystem_account: {}\nresolver_preload {{\n {}: {}\n {}: {}\n}}",
        operator.token(&operator, json!({"type": "operator", "version": 2})),
        system.public(),
        account.public(),
        of_account(&account, &limits),
        system.public(),
        of_account(&system, &plain),
    );
    let Some(server) = Server::start(&lines) else { return };
    let of_user = |of: &Signer, bearer: bool| {
        account.token(of, json!({"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "bearer_token": bearer, "type": "user", "version": 2}))
    };
    server.admin(json!({"jwt": of_user(&stranger, true)})).stream(json!({}));
    let creds = |jwt: &str, seed: &str| {
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n************************* IMPORTANT \
             *************************\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    };
    let with = |creds: String| open("nats", server.settings(json!({"creds": creds}))).unwrap();
    let token = of_user(&user, false);
    promises::write(&with(creds(&token, &user.seed())), &batches::contacts(1, 1, 2)).await;
    let answer = sent(&with(creds(&token, &stranger.seed())), &batches::contacts(2, 10, 2)).await;
    assert_eq!(verdicts::config(&answer), DESTINATION(Trouble::CredentialsRefused));
}

/// Users of one account, as nats-server's configuration has them.
const USERS: &str = r#"accounts { APP { jetstream: enabled, users: [
    { user: admin, password: admin }
    { user: writer, password: "right \"password\"", permissions: {
        publish: ["tidemill.crm.>", "tidemill.own.>"], subscribe: ["_IN.writer.>"] } }
    { nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4 }
] } }"#;

fn admin() -> Value {
    json!({"user": "admin", "pass": "admin"})
}

#[tokio::test]
async fn credentials_are_checked_and_not_shown() {
    let Some(server) = Server::start(USERS) else { return };
    server.admin(admin()).stream(json!({}));
    let writes = |more: Value| open("nats", server.settings(more)).unwrap();
    let seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    promises::write(&writes(json!({"user": "admin", "password": "admin"})), &batches::contacts(1, 1, 1)).await;
    promises::write(&writes(json!({"nkeySeed": seed})), &batches::contacts(2, 2, 1)).await;
    let writer = json!({"user": "writer", "password": "right \"password\"", "inboxPrefix": "_IN.writer"});
    promises::write(&writes(writer), &batches::contacts(3, 3, 1)).await;
    for wrong in [json!({}), json!({"user": "admin", "password": "hush-hush"}), json!({"token": "hush-hush"})] {
        let driver = writes(wrong);
        let answer = sent(&driver, &batches::contacts(9, 90, 1)).await;
        assert_eq!(verdicts::config(&answer), DESTINATION(Trouble::CredentialsRefused));
        assert!(!format!("{answer:?}").contains("hush"));
        let steps = driver.test(&batches::probe(Shape::Append)).await;
        assert_eq!((steps.len(), steps[1].name, steps[1].fault.is_some()), (2, "signIn", true));
    }
    server.restart("authorization { token: s3cr3t-token }");
    server.admin(json!({"auth_token": "s3cr3t-token"})).stream(json!({}));
    promises::write(&writes(json!({"token": "s3cr3t-token"})), &batches::contacts(4, 4, 1)).await;
}

#[tokio::test]
async fn a_subject_that_is_not_allowed_pauses_the_destination_where_it_stands_first() {
    let Some(server) = Server::start(USERS) else { return };
    server.admin(admin()).stream(json!({}));
    let writer = json!({"user": "writer", "password": "right \"password\"", "inboxPrefix": "_IN.writer"});
    let driver = open("nats", server.settings(writer)).unwrap();
    let denied = batches::event("accounting/bills", "created", "1", json!({}));
    let events = vec![batches::contact("created", "1", "A"), denied, batches::contact("created", "2", "B")];
    let batch = batches::batch(1, Shape::Append, 1, events);
    let Answer::Each(all) = sent(&driver, &batch).await else { panic!("one verdict per event") };
    assert_eq!(all[0], Verdict::Done);
    assert!(matches!(&all[1], Verdict::Retry(fault) if fault.error == DESTINATION(Trouble::PermissionDenied)));
    let rest = Batch { items: batch.items[1..].to_vec(), ..batch.clone() };
    let held = server.admin(admin()).count();
    assert_eq!(verdicts::config(&sent(&driver, &rest).await), DESTINATION(Trouble::PermissionDenied));
    assert_eq!(server.admin(admin()).count(), held, "nothing passes what is refused");
    // It may not ask what the stream is like, and need not.
    let steps = driver.test(&batches::probe(Shape::Append)).await;
    assert!(steps.iter().all(|step| step.fault.is_none()), "{steps:?}");
    assert!(steps.last().unwrap().found.contains("cannot be seen"), "{steps:?}");
    // Acknowledgements must come back.
    let deaf = json!({"user": "writer", "password": "right \"password\""});
    let answer = sent(&open("nats", server.settings(deaf)).unwrap(), &batch).await;
    assert_eq!(verdicts::config(&answer), DESTINATION(Trouble::PermissionDenied));
    assert!(verdicts::fault(&answer).detail.contains("_INBOX"), "{answer:?}");
}

#[tokio::test]
async fn a_batch_that_is_cut_in_the_middle_is_stored_once_and_in_order() {
    let Some(server) = Server::start("") else { return };
    server.stream(json!({}));
    let mut expected = Vec::new();
    for (number, (counted, bytes)) in
        [(Counted::Sent, 100_000), (Counted::Answered, 5_000), (Counted::Answered, 12_345)].into_iter().enumerate()
    {
        let cutter = Cutter::to(server.port, counted).await;
        let settings = json!({"servers": [format!("nats://127.0.0.1:{}", cutter.port)]});
        let driver = open("nats", settings).unwrap();
        let number = number as u64 + 1;
        let batch = batches::contacts(number, number * 10_000, 800);
        cutter.cut_after(bytes);
        let Answer::Each(all) = sent(&driver, &batch).await else { panic!("some were acknowledged") };
        let done = all.iter().filter(|said| **said == Verdict::Done).count();
        assert!((1..800).contains(&done), "{done}");
        let lost = AttemptError::Exchange(Failure::ConnectionClosed);
        assert!(all.iter().all(|s| *s == Verdict::Done || matches!(s, Verdict::Retry(fault) if fault.error == lost)));
        cutter.mend();
        assert_eq!(settle(&driver, &batch).await, [0; 0]);
        expected.extend(ids(&batch));
        assert_eq!(held_ids(&server), expected, "{counted:?} {bytes}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_in_the_middle_of_a_batch_holds_each_event_once_and_in_order() {
    let Some(server) = Server::start("") else { return };
    server.stream(json!({}));
    let driver = open("nats", server.settings(json!({"maxRows": 5_000}))).unwrap();
    let batch = batches::contacts(1, 1, 5_000);
    let (sending, frozen) = (driver.clone(), driver.prepare(&batch).unwrap());
    let sending = tokio::spawn(async move { sending.send(&frozen).await });
    let mut admin = server.admin(json!({}));
    while admin.count() == 0 {
        tokio::task::yield_now().await;
    }
    server.kill();
    let answer = sending.await.unwrap();
    let lost = |said: &Verdict| matches!(said, Verdict::Done | Verdict::Retry(_));
    match &answer {
        Answer::All(said) => assert!(lost(said), "{said:?}"),
        Answer::Each(all) => assert!(all.iter().all(lost)),
    }
    server.restart("");
    assert_eq!(settle(&driver, &batch).await, [0; 0]);
    assert_eq!(held_ids(&server), ids(&batch));
}

#[tokio::test]
async fn a_server_that_is_down_is_waited_for_and_another_one_is_used() {
    let Some(server) = Server::start("client_advertise: \"203.0.113.7:4222\"") else { return };
    server.stream(json!({}));
    let driver = open("nats", server.settings(json!({}))).unwrap();
    promises::write(&driver, &batches::contacts(1, 1, 2)).await;
    server.kill();
    let lost = sent(&driver, &batches::contacts(2, 10, 2)).await;
    assert_eq!(verdicts::retry(&lost), AttemptError::Exchange(Failure::ConnectFailed));
    server.restart("");
    promises::write(&driver, &batches::contacts(2, 10, 2)).await;
    let gone = crate::support::servers::free_port();
    let servers = json!([format!("nats://127.0.0.1:{gone}"), format!("nats://127.0.0.1:{}", server.port)]);
    promises::write(&open("nats", json!({"servers": servers})).unwrap(), &batches::contacts(3, 20, 2)).await;
    assert_eq!(server.held().len(), 6);
}

#[tokio::test]
async fn more_lanes_than_connections_all_get_their_turn() {
    let Some(server) = Server::start("max_connections: 10") else { return };
    server.stream(json!({}));
    let driver = open("nats", server.settings(json!({}))).unwrap();
    let lanes = (1..=30).map(|lane| {
        let driver = driver.clone();
        async move { promises::write(&driver, &batches::contacts(lane, lane * 1_000, 20)).await }
    });
    futures_util::future::join_all(lanes).await;
    let held = held_ids(&server);
    assert_eq!((held.len(), held.iter().collect::<BTreeSet<_>>().len()), (600, 600));
}

#[tokio::test]
async fn tls_is_spoken_by_the_houses_rules() {
    let Some(server) = Server::start("") else { return };
    server.stream(json!({}));
    let (folder, batch) = (server.folder.path(), batches::contacts(1, 1, 1));
    let ca = certificates(folder);
    let of = |more: Value| {
        let mut settings = server.settings(more);
        settings["servers"] = json!([format!("tls://localhost:{}", server.port)]);
        open("nats", settings).unwrap()
    };
    // A server without TLS is not spoken to without.
    let answer = sent(&of(json!({"caCertificate": ca})), &batch).await;
    assert_eq!(verdicts::config(&answer), DESTINATION(Trouble::SettingsRefused));
    let files = format!("cert_file: {:?}, key_file: {:?}", server.path("cert.pem"), server.path("key.pem"));
    server.restart(&format!("tls {{ {files} }}"));
    promises::write(&of(json!({"caCertificate": ca})), &batch).await;
    let answer = sent(&of(json!({})), &batch).await;
    assert_eq!(verdicts::config(&answer), AttemptError::Exchange(Failure::TlsUntrusted));
    let mut other = server.settings(json!({"caCertificate": ca}));
    other["servers"] = json!([format!("tls://127.0.0.1:{}", server.port)]);
    let answer = sent(&open("nats", other).unwrap(), &batch).await;
    assert_eq!(verdicts::config(&answer), AttemptError::Exchange(Failure::TlsNameMismatch));
    let answer = sent(&open("nats", server.settings(json!({}))).unwrap(), &batch).await;
    assert!(verdicts::fault(&answer).detail.contains("tls://"), "{answer:?}");
    assert_eq!(verdicts::config(&answer), DESTINATION(Trouble::SettingsRefused));
    // Clients with a certificate.
    server.restart(&format!("tls {{ {files}, ca_file: {:?}, verify: true }}", server.path("ca.pem")));
    let answer = sent(&of(json!({"caCertificate": ca})), &batch).await;
    assert_eq!(verdicts::config(&answer), DESTINATION(Trouble::CredentialsRefused));
    let (chain, key) = (read(folder, "cert.pem"), read(folder, "key.pem"));
    let known = json!({"caCertificate": ca, "clientCertificate": chain, "clientKey": key});
    promises::write(&of(known), &batch).await;
    // Not a word before the handshake.
    server.restart(&format!("tls {{ {files}, handshake_first: true }}"));
    promises::write(&of(json!({"caCertificate": ca, "tlsFirst": true})), &batch).await;
}

#[tokio::test]
async fn a_test_says_what_the_stream_is_and_leaves_no_message() {
    let Some(server) = Server::start("") else { return };
    server.stream(json!({"subjects": ["tidemill.accounting.>"]}));
    let driver = open("nats", server.settings(json!({}))).unwrap();
    let steps = driver.test(&batches::probe(Shape::Append)).await;
    assert!(steps.iter().all(|step| step.fault.is_none()), "{steps:?}");
    assert!(steps[0].found.starts_with("nats-server 2."), "{steps:?}");
    assert!(steps[2].found.contains("takes other topics"), "{steps:?}");
    let found = &steps[3].found;
    assert!(found.contains("tidemill.accounting.>; duplicate window 120 s: a repetition"), "{found}");
    let config = json!({"name": "EVENTS", "subjects": ["tidemill.>"], "storage": "file", "num_replicas": 1});
    let with = |more: Value| {
        let mut config = config.clone();
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = server.admin(json!({})).ask("STREAM.UPDATE.EVENTS", &config);
        assert!(made["error"].is_null(), "{made}");
    };
    with(json!({"duplicate_window": 600_000_000_000_u64}));
    let steps = driver.test(&batches::probe(Shape::Append)).await;
    assert!(steps[3].found.ends_with("duplicate window 600 s"), "{steps:?}");
    with(json!({"no_ack": true}));
    let steps = driver.test(&batches::probe(Shape::Append)).await;
    assert!(steps.last().unwrap().fault.is_some(), "{steps:?}");
    assert_eq!(server.held(), []);
}

#[tokio::test]
async fn what_does_not_speak_nats_is_said_to_be_something_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut pipe, _)) = listener.accept().await {
            pipe.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.ok();
        }
    });
    let driver = open("nats", json!({"servers": [format!("nats://127.0.0.1:{port}")]})).unwrap();
    let answer = sent(&driver, &batches::contacts(1, 1, 1)).await;
    assert_eq!(verdicts::retry(&answer), DESTINATION(Trouble::Failed));
    assert!(verdicts::fault(&answer).detail.contains("protocol of NATS"), "{answer:?}");
}

#[tokio::test]
async fn servers_are_judged_as_addresses_are() {
    let batch = batches::contacts(1, 1, 1);
    let refused = async |server: &str| sent(&open("nats", json!({"servers": [server]})).unwrap(), &batch).await;
    let answer = refused("nats://8.8.8.8:4222").await;
    assert_eq!(verdicts::config(&answer), AttemptError::Exchange(Failure::HttpsRequired));
    assert!(verdicts::fault(&answer).detail.contains("tls://"), "{answer:?}");
    for server in ["tls://10.0.0.1", "tls://169.254.169.254:80", "tls://[fd00::1]:4222"] {
        assert_eq!(
            verdicts::config(&refused(server).await),
            AttemptError::Exchange(Failure::AddressForbidden),
            "{server}"
        );
    }
}

#[test]
fn bad_settings_are_refused_by_name() {
    let refused = |more: Value| {
        let mut settings = json!({"servers": ["tls://nats.example.com"]});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        open("nats", settings).err().unwrap().to_string()
    };
    assert!(open("nats", unknown_setting()).err().unwrap().to_string().contains("noSuchSetting"));
    let servers = [
        json!([]),
        json!(["nats://a", "tls://b"]),
        json!(["http://a"]),
        json!(["nats://user:hush@a:4222"]),
        json!(["a:4222"]),
        json!(["tls://a/b"]),
        json!(["tls://a", "tls://b", "tls://c", "tls://d", "tls://e", "tls://f"]),
    ];
    for servers in servers {
        let text = refused(json!({"servers": servers}));
        assert!(text.contains("settings.servers") && !text.contains("hush"), "{text}");
    }
    for prefix in ["", "a..b", "a b", "a.>", "*", "a.", "$JS"] {
        assert!(refused(json!({"subjectPrefix": prefix})).contains("settings.subjectPrefix"), "{prefix}");
        assert!(refused(json!({"inboxPrefix": prefix})).contains("settings.inboxPrefix"), "{prefix}");
    }
    let mut shown = BTreeSet::new();
    for (name, more) in [
        ("password", json!({"user": "a"})),
        ("token", json!({"user": "a", "password": "hush", "token": "hush"})),
        ("nkeySeed", json!({"nkeySeed": "hush"})),
        ("creds", json!({"creds": "-----BEGIN NATS USER JWT-----\nhush\n------END NATS USER JWT------"})),
        ("caCertificate", json!({"caCertificate": "hush"})),
        ("clientKey", json!({"clientCertificate": "x"})),
        ("clientCertificate", json!({"clientCertificate": "hush", "clientKey": "hush"})),
        ("tlsFirst", json!({"servers": ["nats://a"], "tlsFirst": true})),
        ("maxRows", json!({"maxRows": 0})),
        ("maxSeconds", json!({"maxSeconds": 3_601})),
    ] {
        let text = refused(more);
        assert!(text.contains(name) && !text.contains("hush"), "{name}: {text}");
        shown.insert(text);
    }
    assert_eq!(shown.len(), 10, "each in words of its own");
}
