//! A destination that does what a test tells it: it takes, loses its answer, refuses an event, a batch, or everything.
//!
//! Always true: a batch that comes again under its name must come with the same bytes, or it says so; what was taken is
//! there once per batch, as with every destination that knows a batch by its name.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use tidemill::destinations::driver::{
    Answer, Batch, Driver, Fault, Frozen, Kind, Limits, Opening, Part, Probe, Step, Verdict,
};
use tidemill::domain::failure::Failure;
use tidemill::domain::trouble::Trouble;
use tokio::sync::Semaphore;

/// The kind. Its settings name what it shares with the test.
pub static KIND: Kind = Kind {
    name: "stand-in",
    title: "Stand-in",
    about: "Of tests.",
    mirrors: true,
    schema: || schemars::schema_for!(Settings),
    open,
};

/// All kinds of tests.
pub static KINDS: &[&Kind] = &[&KIND];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Settings {
    name: String,
    #[serde(default = "rows")]
    rows: usize,
    #[serde(default = "bytes")]
    bytes: usize,
    #[serde(default)]
    age_millis: u64,
    #[serde(default)]
    recuts: bool,
    /// With which it takes anything.
    #[serde(default)]
    password: String,
}

fn rows() -> usize {
    1_000
}

fn bytes() -> usize {
    1 << 20
}

/// What the next try comes to. Without any it is taken.
#[derive(Clone, Debug)]
pub enum Act {
    /// Taken, but the answer is lost.
    Cut,
    /// Not taken.
    Refuse(Trouble),
    /// Never answered.
    Hang,
}

/// What it shares with its test.
#[derive(Default)]
pub struct Shared {
    pub acts: Mutex<VecDeque<Act>>,
    /// The next try waits for this one's permit before anything comes of it.
    pub gates: Mutex<VecDeque<Arc<Semaphore>>>,
    /// Every request that was made ready, by name.
    pub prepared: Mutex<Vec<String>>,
    /// Events that hold this text can never be written: the whole batch is refused.
    pub poison: Mutex<Option<String>>,
    /// The same, but it says which.
    pub poison_each: Mutex<Option<String>>,
    /// The password it wants; None: any.
    pub password: Mutex<Option<String>>,
    /// Batches that were taken, by name: their bodies.
    pub taken: Mutex<BTreeMap<String, Vec<String>>>,
    /// Every try: name, and its bytes.
    pub tries: Mutex<Vec<(String, String)>>,
}

impl Shared {
    /// The bodies that it holds, in the order of the batches' names.
    pub fn held(&self) -> Vec<String> {
        lock(&self.taken).values().flatten().cloned().collect()
    }
    /// The names of all tries.
    pub fn names(&self) -> Vec<String> {
        lock(&self.tries).iter().map(|(name, _)| name.clone()).collect()
    }
    /// How many requests were made ready.
    pub fn ready(&self) -> usize {
        lock(&self.prepared).len()
    }
    /// The next try waits until this gets a permit.
    pub fn gate(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        lock(&self.gates).push_back(gate.clone());
        gate
    }
    /// Tells it what to do next.
    pub fn will(&self, act: Act) {
        lock(&self.acts).push_back(act);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

static SHARED: Mutex<Option<HashMap<String, Arc<Shared>>>> = Mutex::new(None);

/// What the stand-in of that name shares.
pub fn shared(name: &str) -> Arc<Shared> {
    lock(&SHARED).get_or_insert_default().entry(name.to_owned()).or_default().clone()
}

struct StandIn {
    settings: Settings,
    shared: Arc<Shared>,
}

fn open(opening: Opening) -> tidemill::error::Result<Arc<dyn Driver>> {
    let settings: Settings = serde_json::from_value(serde_json::Value::Object(opening.settings))
        .map_err(|error| tidemill::error::Error::invalid(format!("settings: {error}")))?;
    let shared = shared(&settings.name);
    Ok(Arc::new(StandIn { settings, shared }))
}

impl StandIn {
    fn judge(&self, frozen: &Frozen, lines: &[String]) -> Option<Answer> {
        let wanted = lock(&self.shared.password).clone();
        if wanted.is_some_and(|wanted| wanted != self.settings.password) {
            return Some(Answer::All(Verdict::Config(Fault::new(Trouble::CredentialsRefused, "no such password"))));
        }
        if let Some(poison) = &*lock(&self.shared.poison)
            && lines.iter().any(|line| line.contains(poison))
        {
            return Some(Answer::All(Verdict::Row(Fault::new(Trouble::ValueRefused, "a poisoned row"))));
        }
        if let Some(poison) = &*lock(&self.shared.poison_each) {
            let verdicts: Vec<Verdict> = lines
                .iter()
                .map(|line| match line.contains(poison) {
                    true => Verdict::Row(Fault::new(Trouble::ValueRefused, "a poisoned row")),
                    false => Verdict::Done,
                })
                .collect();
            let good = lines.iter().zip(&verdicts).filter(|(_, v)| **v == Verdict::Done).map(|(line, _)| line.clone());
            lock(&self.shared.taken).insert(frozen.id.clone(), good.collect());
            return Some(Answer::Each(verdicts));
        }
        None
    }
}

impl Driver for StandIn {
    fn limits(&self) -> Limits {
        Limits {
            rows: self.settings.rows,
            bytes: self.settings.bytes,
            age: Duration::from_millis(self.settings.age_millis),
            timeout: Duration::from_secs(3_600),
            recuts: self.settings.recuts,
        }
    }

    fn prepare(&self, batch: &Batch) -> Result<Frozen, Verdict> {
        let lines: Vec<String> =
            batch.items.iter().map(|item| String::from_utf8_lossy(&batch.body(item)).into_owned()).collect();
        let items = (0..batch.items.len()).collect();
        let part = Part { target: "it".into(), body: lines.join("\n").into(), items };
        let (items, id) = (batch.items.len(), batch.id.clone());
        lock(&self.shared.prepared).push(id.clone());
        Ok(Frozen { id, parts: vec![part], items, refused: Vec::new(), notes: Vec::new() })
    }

    fn send<'a>(&'a self, frozen: &'a Frozen) -> BoxFuture<'a, Answer> {
        async move {
            let body: String =
                frozen.parts.iter().map(|part| String::from_utf8_lossy(&part.body).into_owned()).collect();
            let lines: Vec<String> = body.lines().map(str::to_owned).collect();
            {
                let mut tries = lock(&self.shared.tries);
                let before = tries.iter().find(|(name, _)| *name == frozen.id);
                assert!(before.is_none_or(|(_, bytes)| *bytes == body), "{} came with other bytes", frozen.id);
                tries.push((frozen.id.clone(), body));
            }
            let gate = lock(&self.shared.gates).pop_front();
            if let Some(gate) = gate {
                let _ = gate.acquire().await;
            }
            let act = lock(&self.shared.acts).pop_front();
            match act {
                Some(Act::Hang) => {
                    lock(&self.shared.taken).insert(frozen.id.clone(), lines);
                    std::future::pending().await
                }
                Some(Act::Refuse(trouble)) => Answer::All(Verdict::Retry(Fault::new(trouble, "as told"))),
                Some(Act::Cut) => {
                    lock(&self.shared.taken).insert(frozen.id.clone(), lines);
                    Answer::All(Verdict::Retry(Fault::way(Failure::ConnectionClosed)))
                }
                None => self.judge(frozen, &lines).unwrap_or_else(|| {
                    lock(&self.shared.taken).insert(frozen.id.clone(), lines);
                    Answer::All(Verdict::Done)
                }),
            }
        }
        .boxed()
    }

    fn test<'a>(&'a self, _: &'a Probe) -> BoxFuture<'a, Vec<Step>> {
        let step = Step { name: "connect", took: Duration::ZERO, fault: None, found: "a stand-in".to_owned() };
        futures_util::future::ready(vec![step]).boxed()
    }
}
