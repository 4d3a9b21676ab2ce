//! `tidemill listen`, as a process of its own against a node that is one too.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::app::verify::{Judgement, Received, verify};
use tidemill::domain::time::Millis;
use tidemill::outbound::Method;

use crate::support::node::{KEY, Node, free_port};
use crate::support::receiver::Receiver;

const TOPIC: &str = "desk/tickets";
const LIMIT: Duration = Duration::from_secs(30);

async fn node() -> (TempDir, Node) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path());
    node.env.push(("TIDEMILL__SERVER__STREAM_HEARTBEAT_SECONDS".into(), "1".into()));
    node.start();
    node.ready().await;
    node.call(Method::POST, "/2024-03/one/topics", Some(&json!({"topic": TOPIC}))).await;
    (folder, node)
}

async fn publish(node: &Node, number: u64) -> String {
    let event = json!({"topic": TOPIC, "updateType": "created", "dataPayload": {"number": number}});
    let taken = node.call(Method::POST, "/2024-03/one/events", Some(&event)).await;
    taken["eventId"].as_str().expect("an id").to_owned()
}

/// `tidemill listen` under way; it ends with the test.
struct Listen {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Listen {
    fn start(node: &Node, arguments: &[&str]) -> Self {
        let mut child = command(node, arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::sync_channel(1000);
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }
    async fn line(&mut self) -> String {
        let until = tokio::time::Instant::now() + LIMIT;
        loop {
            match self.lines.try_recv() {
                Ok(line) => return line,
                Err(mpsc::TryRecvError::Disconnected) => panic!("listen has ended"),
                Err(mpsc::TryRecvError::Empty) => assert!(tokio::time::Instant::now() < until, "no line in time"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    async fn ends(&mut self) -> Option<i32> {
        for _ in 0..600 {
            if let Some(status) = self.child.try_wait().expect("asked") {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("listen does not end");
    }
}

impl Drop for Listen {
    fn drop(&mut self) {
        let _it_may_have_ended = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(node: &Node, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.env_clear().env("TIDEMILL_API_KEY", KEY).arg("listen").args(arguments).stdin(Stdio::null());
    command.args(["--url", &format!("http://127.0.0.1:{}", node.port)]);
    command
}

#[actix::test]
async fn events_are_printed_for_people_and_for_programs() {
    let (_folder, node) = node().await;
    let id = publish(&node, 7).await;
    let mut people = Listen::start(&node, &["--after", "oldest", "--events", "1"]);
    let line = people.line().await;
    assert!(line.contains(TOPIC) && line.contains("created") && line.contains(&id), "{line}");
    assert!(line.contains(r#""dataPayload":{"number":7}"#), "{line}");
    assert_eq!(people.ends().await, Some(0));
    let mut programs =
        Listen::start(&node, &["--after", "oldest", "--events", "1", "--json", "--include", "eventId,topic"]);
    let body: Value = serde_json::from_str(&programs.line().await).expect("JSON");
    assert_eq!((&body["eventId"], &body["topic"]), (&json!(id), &json!(TOPIC)));
    assert_eq!(programs.ends().await, Some(0));
}

#[actix::test]
async fn a_listener_survives_the_node_and_sees_each_event_once() {
    let (_folder, mut node) = node().await;
    let mut ids = vec![publish(&node, 0).await];
    let mut listen = Listen::start(&node, &["--after", "oldest", "--json", "--include", "eventId", "--events", "5"]);
    let mut seen = vec![listen.line().await];
    ids.push(publish(&node, 1).await);
    seen.push(listen.line().await);
    node.kill();
    node.start();
    node.ready().await;
    for number in 2..4 {
        ids.push(publish(&node, number).await);
    }
    seen.extend([listen.line().await, listen.line().await]);
    assert_eq!(node.stop(), Some(0), "{}", node.log());
    node.start();
    node.ready().await;
    ids.push(publish(&node, 4).await);
    seen.push(listen.line().await);
    let seen: Vec<String> = seen
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["eventId"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(seen, ids);
    assert_eq!(listen.ends().await, Some(0));
}

#[actix::test]
async fn what_is_sent_on_is_a_delivery_with_real_signatures() {
    let (_folder, node) = node().await;
    let receiver = Receiver::start();
    receiver.answer([(500, Vec::new())]);
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let mut listen =
        Listen::start(&node, &["--after", "oldest", "--forward-to", &receiver.address, "--secret", secret]);
    assert!(listen.line().await.contains(&receiver.address));
    let first = publish(&node, 1).await;
    let line = listen.line().await;
    assert!(line.contains(&first) && line.contains("500 in "), "{line}");
    let second = publish(&node, 2).await;
    let line = listen.line().await;
    assert!(line.contains(&second) && line.contains("200 in "), "{line}");
    let keys = node.client.send(tidemill::outbound::Request::new(
        Method::GET,
        format!("http://127.0.0.1:{}/.well-known/jwks.json", node.port).parse().expect("a URL"),
    ));
    let keys = String::from_utf8(keys.await.expect("an answer").body.to_vec()).expect("text");
    for (delivery, id) in receiver.wait(2).await.iter().zip([&first, &second]) {
        assert_eq!((delivery.header("webhook-id"), delivery.header("tidemill-attempt")), (id.as_str(), "1"));
        assert_eq!((delivery.header("x-alloy-topic"), delivery.header("content-type")), (TOPIC, "application/json"));
        let verdicts = verify(&Received {
            headers: &delivery.headers,
            body: &delivery.body,
            address: Some(&receiver.address),
            secret: Some(secret),
            public_keys: Some(&keys),
            header_prefix: "x-alloy",
            now: tidemill::app::wall_clock().now().max(Millis(0)),
            tolerance: Duration::from_secs(300),
        });
        // RSA, v1, v1a, and the time.
        assert!(verdicts.len() >= 4 && verdicts.iter().all(|v| v.judgement == Judgement::Good), "{verdicts:?}");
        let mut headers = hyper::header::HeaderMap::new();
        for (name, value) in &delivery.headers {
            let name = hyper::header::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.insert(name, value.parse().expect("a value"));
        }
        let theirs = standardwebhooks::Webhook::new(secret).expect("a secret");
        theirs.verify(&delivery.body, &headers).expect("the official library believes it");
    }
}

#[actix::test]
async fn a_listener_whose_reader_has_gone_ends_well() {
    let (_folder, node) = node().await;
    let mut child = command(&node, &["--after", "oldest"]).stdout(Stdio::piped()).spawn().expect("started");
    drop(child.stdout.take());
    publish(&node, 1).await;
    let (_sender, lines) = mpsc::sync_channel(1);
    assert_eq!(Listen { child, lines }.ends().await, Some(0));
}

#[actix::test]
async fn without_a_secret_one_is_drawn_for_the_session() {
    let (_folder, node) = node().await;
    let receiver = Receiver::start();
    let mut listen = Listen::start(&node, &["--after", "oldest", "--forward-to", &receiver.address]);
    listen.line().await;
    let told = listen.line().await;
    assert!(told.contains("whsec_"), "{told}");
}

#[actix::test]
async fn what_waiting_cannot_mend_ends_with_one_sentence() {
    let (_folder, mut node) = node().await;
    let made = json!({"name": "reader", "scopes": ["read"]});
    let reader = node.call(Method::POST, "/2024-03/one/keys", Some(&made)).await;
    let reader = reader["key"]["apiKey"].as_str().expect("a key").to_owned();
    for (arguments, key, code, word) in [
        (&["--topic", "crm/contact"][..], KEY, 1, "crm/contacts"),
        (&["--after", "000000000000000000000001"], KEY, 1, "404"),
        (&[], "wrong-key-0123456789-abcdef", 1, "401"),
        (&["--forward-to", "http://127.0.0.1:9/"], reader.as_str(), 1, "write"),
        (&["--forward-to", "nowhere"], KEY, 2, "nowhere"),
        (&["--forward-to", "http://127.0.0.1:9/", "--secret", "x"], KEY, 2, "whsec_"),
        (&["--sign-as", "http://127.0.0.1:9/"], KEY, 2, "forward-to"),
    ] {
        let output = command(&node, arguments).env("TIDEMILL_API_KEY", key).output().expect("it ran");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && told.contains(word), "{arguments:?}: {told}");
        assert!(!told.contains(key), "{told}");
    }
    node.port = free_port();
    let output = command(&node, &[]).output().expect("it ran");
    assert!(String::from_utf8_lossy(&output.stderr).contains("refused"));
    assert_eq!(output.status.code(), Some(1));
}
