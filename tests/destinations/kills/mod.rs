//! The real program, killed in the middle of batches into real servers, and the servers killed in the middle of its
//! batches: at the end the destination holds exactly what was sent.
//!
//! A way that breaks (`support::gate`) stops a batch at a chosen place, so each kill falls inside one: before the server has
//! what decides, in the middle of the rows, after the server has done it and before anybody knows, and so that the server
//! does it only after the next start. Always true at the end: a log has each event once; a mirror is the last state of each
//! record; each line of objects and files is there once. Short here; `scripts/check --destinations` makes all of them, long.

#[cfg(feature = "file")]
mod file;
#[cfg(feature = "mongodb")]
mod mongodb;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "postgresql")]
mod postgresql;
#[cfg(feature = "s3")]
mod s3;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::outbound::Method;

use crate::node::Node;
use crate::support::gate::Gate;

const ONE: &str = "/2024-03/one";
const PATIENCE: Duration = Duration::from_secs(120);
/// Events that are published at once, and of how many records they tell.
const WAVE: usize = 300;
const RECORDS: u64 = 80;
/// A wave is several batches.
const BATCH: usize = 40;

/// Whether all of it is wanted: `scripts/check --destinations`.
fn all() -> bool {
    std::env::var("TIDEMILL_DESTINATIONS").as_deref() == Ok("all")
}

/// Says that a long one is left out.
fn long_only(what: &str) -> bool {
    if !all() {
        eprintln!("skipped: {what} takes long; `scripts/check --destinations` makes it");
    }
    all()
}

/// How a subscription writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Append,
    Mark,
    Remove,
}

/// What a mirror has of a record: the id of its last event, the number in its payload, and whether it is deleted.
type State = (String, u64, bool);

/// A server that can be looked into.
trait Store {
    /// A batch takes effect all at once.
    const WHOLE: bool = true;

    /// The ids of the events in the log, each as often as it is there.
    async fn log(&self) -> Vec<String>;
    /// The records of a mirror.
    async fn mirror(&self) -> Vec<(String, State)>;
    /// Kills the server, and starts it again on what it has on disk.
    async fn crash(&mut self, meanwhile: impl FnOnce());

    /// Changes with each batch that takes effect.
    async fn print(&self, shape: Shape) -> String {
        match shape {
            Shape::Append => {
                let mut log = self.log().await;
                log.sort();
                format!("{log:?}")
            }
            Shape::Mark | Shape::Remove => format!("{:?}", self.mirror().await),
        }
    }
}

/// Where in a batch the way breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The server does not get what decides.
    Before,
    /// It gets some of the rows.
    Middle,
    /// It has done it, and its answer is lost.
    After,
    /// It does it when the next process is at the same batch already.
    Late,
}

const MOMENTS: [Moment; 4] = [Moment::After, Moment::Middle, Moment::Late, Moment::Before];

/// Words on the way to a server.
#[derive(Clone, Copy)]
struct Words {
    /// Begins the rows of a batch.
    rows: &'static str,
    /// So many bytes behind that begins its second half.
    middle: usize,
    /// What the server has to get so that a batch takes effect.
    decides: &'static str,
}

/// An event that was accepted.
struct Sent {
    event: String,
    record: String,
    number: u64,
    deleted: bool,
}

/// A node with one destination and one subscription, and what was published.
struct World {
    folder: TempDir,
    node: Node,
    destination: String,
    subscription: String,
    shape: Shape,
    sent: Vec<Sent>,
    rng: fastrand::Rng,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

impl World {
    /// Set up as a user does it, up to the first batch.
    async fn open(kind: &str, mut settings: Value, shape: Shape) -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut node = Node::new(folder.path());
        let files = folder.path().join("files");
        node.env.push(("TIDEMILL__DESTINATIONS__FILES_PATH".into(), files.display().to_string()));
        node.start();
        node.ready().await;
        settings["maxRows"] = BATCH.into();
        settings["maxSeconds"] = 0.into();
        let post = async |path: &str, body: Value| node.call(Method::POST, &format!("{ONE}/{path}"), Some(&body)).await;
        post("topics", json!({"topic": "shop/carts"})).await;
        let made = post("destinations", json!({"type": kind, "name": "Kept", "settings": settings})).await;
        let destination = text(&made["destination"]["destinationId"]);
        let (shape_word, deletes) = match shape {
            Shape::Append => ("append", Value::Null),
            Shape::Mark => ("mirror", "mark".into()),
            Shape::Remove => ("mirror", "remove".into()),
        };
        let tried = post(&format!("destinations/{destination}/test"), json!({"shape": shape_word})).await;
        assert_eq!(tried["ok"], true, "{tried}");
        // Until the server is back.
        let waits: Vec<u32> = [vec![0, 0], vec![1; 98]].concat();
        let wish = json!({"destinationId": destination, "topic": ["shop/carts"], "shape": shape_word, "deletes": deletes,
            "retrySchedule": waits});
        let subscription = text(&post("webhooks", wish).await["subscription"]["subscriptionId"]);
        let seed = fastrand::u64(..);
        println!("{kind}, {shape:?}: seed {seed}");
        let rng = fastrand::Rng::with_seed(seed);
        Self { folder, node, destination, subscription, shape, sent: Vec::new(), rng }
    }

    /// Publishes a wave: few records, changed many times, some deleted, some of those made again.
    async fn publish(&mut self) {
        let first = self.sent.len() as u64;
        let all: Vec<(String, u64, bool)> = (first..first + WAVE as u64)
            .map(|number| (format!("c-{}", self.rng.u64(..RECORDS)), number, self.rng.u8(..8) == 0))
            .collect();
        let event = |(record, number, deleted): &(String, u64, bool)| {
            json!({"topic": "shop/carts", "updateType": if *deleted { "deleted" } else { "updated" },
                "dataPayload": {"id": record, "number": number, "note": "x".repeat(200)}})
        };
        let body: Vec<Value> = all.iter().map(event).collect();
        let answer = self.node.call(Method::POST, &format!("{ONE}/events"), Some(&body.into())).await;
        let ids = answer["eventIds"].as_array().unwrap_or_else(|| panic!("{answer}")).iter().map(text);
        let sent = ids.zip(all).map(|(event, (record, number, deleted))| Sent { event, record, number, deleted });
        self.sent.extend(sent);
        assert_eq!(self.sent.len() as u64, first + WAVE as u64);
    }

    /// What the destination must hold in the end, and what it holds that is something else.
    async fn differs(&self, store: &impl Store) -> Option<String> {
        if self.shape == Shape::Append {
            let mut held: BTreeMap<String, usize> = BTreeMap::new();
            for event in store.log().await {
                *held.entry(event).or_default() += 1;
            }
            let missing: Vec<&str> =
                self.sent.iter().map(|sent| sent.event.as_str()).filter(|event| !held.contains_key(*event)).collect();
            let twice: Vec<&String> = held.iter().filter(|(_, times)| **times > 1).map(|(event, _)| event).collect();
            let strange = held.len() + missing.len() - self.sent.len();
            let is_same = missing.is_empty() && twice.is_empty() && strange == 0;
            return (!is_same).then(|| format!("missing {missing:?}, not once {twice:?}, never sent {strange}"));
        }
        let mut last: BTreeMap<String, State> = BTreeMap::new();
        for Sent { event, record, number, deleted } in &self.sent {
            last.insert(record.clone(), (event.clone(), *number, *deleted));
        }
        if self.shape == Shape::Remove {
            last.retain(|_, (.., deleted)| !*deleted);
        }
        let (held, last): (Vec<_>, Vec<_>) = (store.mirror().await, last.into_iter().collect());
        let strange: Vec<_> = held.iter().filter(|row| !last.contains(row)).collect();
        let missing: Vec<_> = last.iter().filter(|row| !held.contains(row)).collect();
        let is_same = strange.is_empty() && missing.is_empty() && held.len() == last.len();
        (!is_same).then(|| format!("has {strange:?} in place of {missing:?}; {} rows, not {}", held.len(), last.len()))
    }

    /// How it stands, for messages.
    async fn shown(&self) -> String {
        let of = async |path: String| self.node.call(Method::GET, &format!("{ONE}/{path}"), None).await.to_string();
        let subscription = of(format!("webhooks/{}", self.subscription)).await;
        format!("{subscription}\n{}\n{}", of(format!("destinations/{}", self.destination)).await, self.node.log())
    }

    /// Waits until everything has been written, and sees to it that this is what was sent.
    async fn settles(&self, store: &impl Store) {
        let deadline = Instant::now() + PATIENCE;
        let path = format!("{ONE}/webhooks/{}", self.subscription);
        loop {
            let shown = self.node.call(Method::GET, &path, None).await["subscription"].clone();
            assert_eq!(shown["queue"]["dead"], 0, "{shown}");
            let differs = self.differs(store).await;
            if shown["queue"]["pending"] == 0 && differs.is_none() {
                return;
            }
            if Instant::now() > deadline {
                panic!("{differs:?}\n{}", self.shown().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the destination holds something else than `before`.
    async fn takes_effect(&self, store: &impl Store, before: &str) {
        let deadline = Instant::now() + PATIENCE;
        while store.print(self.shape).await == before {
            assert!(Instant::now() < deadline, "it takes no effect");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Arms the way for a batch of the next wave, publishes the wave, and waits until the batch is caught.
    async fn caught(&mut self, gate: &Gate, words: Words, moment: Moment) -> crate::support::gate::Catch {
        let skip = self.rng.usize(..5);
        let mut catch = match moment {
            Moment::Middle => gate.catch(words.rows, skip, words.middle),
            _ => gate.catch(words.decides, skip, 0),
        };
        self.publish().await;
        if !catch.caught().await {
            panic!("{moment:?}: no batch came by\n{}", self.shown().await);
        }
        catch
    }

    /// Kills the node in the middle of a batch, again and again.
    async fn is_killed<S: Store>(&mut self, store: &S, gate: &Gate, words: Words, moments: &[Moment]) {
        self.publish().await;
        self.settles(store).await;
        let mut late = Vec::new();
        for moment in moments {
            let catch = self.caught(gate, words, *moment).await;
            let before = store.print(self.shape).await;
            match moment {
                Moment::Before | Moment::Middle => {
                    self.node.kill();
                    let after = store.print(self.shape).await;
                    assert!(!S::WHOLE || after == before, "half of a batch took effect: {before} {after}");
                }
                Moment::After => {
                    catch.through();
                    self.takes_effect(store, &before).await;
                    self.node.kill();
                }
                Moment::Late => {
                    self.node.kill();
                    self.node.start();
                    gate.sees(words.rows).await;
                    catch.through();
                    self.takes_effect(store, &before).await;
                    late.push(catch);
                    self.node.ready().await;
                    continue;
                }
            }
            drop(catch);
            self.node.start();
            self.node.ready().await;
        }
        self.publish().await;
        self.settles(store).await;
        assert_eq!(self.node.stop(), Some(0), "{}", self.node.log());
    }

    /// Kills the server in the middle of a batch, again and again; the node goes on.
    async fn outlives(&mut self, store: &mut impl Store, gate: &Gate, words: Words, moments: &[Moment]) {
        self.publish().await;
        self.settles(store).await;
        for moment in moments {
            let catch = self.caught(gate, words, *moment).await;
            if *moment == Moment::After {
                let before = store.print(self.shape).await;
                catch.through();
                self.takes_effect(store, &before).await;
            }
            store.crash(|| drop(catch)).await;
        }
        self.publish().await;
        self.settles(store).await;
        assert_eq!(self.node.stop(), Some(0), "{}", self.node.log());
    }
}

/// As often as there is time for.
fn rounds(moments: &[Moment]) -> Vec<Moment> {
    moments.repeat(if all() { 2 } else { 1 })
}
