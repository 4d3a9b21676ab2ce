//! The receivers of a test without HTTP: a driver that notes what comes and answers as it is told.
//!
//! Always true: it outlives the node, so a node that dies and comes back meets the same receivers; a postbox that is shut
//! neither notes nor answers anything more, and what is under way in it ends as the node's own fault. Time is the node's own clock, never the machine's. Not here: what an answer
//! means for a delivery (`domain::delivery`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tidemill::actors::courier::outlet::MakePost;
use tidemill::clock::Clock;
use tidemill::destinations::{Parcel, Post, Report, Trial};
use tidemill::domain::delivery::{Attempt, AttemptError, Outcome};
use tidemill::domain::failure::Failure;
use tidemill::domain::id::EventId;
use tidemill::domain::time::Millis;
use tidemill::error::{Error, Result};
use tokio::sync::watch;

/// What a receiver does with an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Answers with this status, and this `Retry-After`.
    Answer(u16, Option<String>),
    /// Cuts the connection.
    Cut,
    /// Nobody is there.
    Refuse,
    /// Says nothing until the attempt's timeout, on the node's clock.
    Hang,
}

/// An attempt that came.
#[derive(Clone, Debug)]
pub struct Came {
    pub address: Arc<str>,
    pub event: EventId,
    pub attempt: u32,
    pub replay: bool,
    pub body: String,
    /// On the node's clock.
    pub at: Millis,
    pub act: Act,
    /// The place of its beginning among all that happens to the receivers.
    pub began: u64,
    pub ended: Option<Ended>,
}

/// How an attempt ended, as its receiver sees it.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub at: Millis,
    pub outcome: Outcome,
    /// Its place among all that happens to the receivers.
    pub turn: u64,
}

type Answers = Box<dyn Fn(&Parcel) -> Act + Send + Sync>;

struct Inner {
    came: Mutex<Vec<Came>>,
    answers: Mutex<Answers>,
    /// Goes up with everything that happens: attempts, their ends, steps of the clock.
    turns: watch::Sender<u64>,
    /// Only what comes to this address is noted.
    only: Mutex<Option<&'static str>>,
    clock: Clock,
}

/// All receivers of a test; clones are the same.
#[derive(Clone)]
pub struct Postbox(Arc<Inner>);

/// The postbox as one node sees it.
#[derive(Clone)]
pub struct Slot {
    postbox: Postbox,
    shut: watch::Sender<bool>,
}

impl Postbox {
    /// Receivers on this clock, that do as `answers` says.
    pub fn new(clock: Clock, answers: impl Fn(&Parcel) -> Act + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            came: Mutex::default(),
            answers: Mutex::new(Box::new(answers)),
            turns: watch::Sender::new(0),
            only: Mutex::default(),
            clock,
        }))
    }

    /// Does something else from now on.
    pub fn answers(&self, answers: impl Fn(&Parcel) -> Act + Send + Sync + 'static) {
        *self.0.answers.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(answers);
    }

    /// Notes only what comes to this address, so that a flood to others takes no memory.
    pub fn note_only(&self, address: &'static str) {
        *self.0.only.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// The way of one node to the receivers.
    pub fn slot(&self) -> Slot {
        Slot { postbox: self.clone(), shut: watch::Sender::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Came>> {
        self.0.came.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that came.
    pub fn came(&self) -> Vec<Came> {
        self.lock().clone()
    }

    /// How many attempts came.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// What came to each address.
    pub fn by_address(&self) -> BTreeMap<Arc<str>, Vec<Came>> {
        let mut all = BTreeMap::<_, Vec<Came>>::new();
        for came in self.came() {
            all.entry(came.address.clone()).or_default().push(came);
        }
        all
    }

    /// Puts the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.clock.raise(self.0.clock.now().after(by));
        self.turn();
    }

    /// Something happened; answers its place.
    fn turn(&self) -> u64 {
        let mut place = 0;
        self.0.turns.send_modify(|turns| {
            *turns += 1;
            place = *turns;
        });
        place
    }

    /// Waits until it fits: looked at after whatever happens, and a few times each second. None: not within a minute, which
    /// is a failure to be told, not a measure of speed.
    pub async fn until<T>(&self, mut fits: impl FnMut(&[Came]) -> Option<T>) -> Option<T> {
        let mut turns = self.0.turns.subscribe();
        let look = async {
            loop {
                if let Some(found) = fits(&self.lock()) {
                    return found;
                }
                // The store has no bell for tests: what depends on it is asked again.
                let _ = tokio::time::timeout(Duration::from_millis(20), turns.changed()).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), look).await.ok()
    }

    /// Notes an attempt; answers its number. None: its node is dead.
    fn note(&self, parcel: &Parcel, act: &Act, shut: &watch::Sender<bool>) -> Option<usize> {
        let mut came = self.lock();
        if *shut.borrow() {
            return None;
        }
        came.push(Came {
            address: parcel.address.clone(),
            event: parcel.event,
            attempt: parcel.attempt,
            replay: parcel.replay,
            body: String::from_utf8_lossy(&parcel.body).into_owned(),
            at: parcel.at,
            act: act.clone(),
            began: self.turn(),
            ended: None,
        });
        Some(came.len() - 1)
    }

    async fn outcome(&self, parcel: &Parcel, act: &Act) -> (Outcome, Option<u16>) {
        let failed = |failure| (Outcome::Refused(AttemptError::Exchange(failure)), None);
        match act {
            Act::Answer(status, retry_after) => {
                let outcome = Outcome::of_answer(*status, retry_after.as_deref(), self.0.clock.now());
                (outcome, Some(*status))
            }
            Act::Cut => failed(Failure::ConnectionClosed),
            Act::Refuse => failed(Failure::ConnectFailed),
            Act::Hang => {
                let (until, mut turns) = (parcel.at.after(parcel.timeout), self.0.turns.subscribe());
                while self.0.clock.now() < until {
                    if turns.changed().await.is_err() {
                        break;
                    }
                }
                failed(Failure::ResponseTimeout)
            }
        }
    }
}

impl Slot {
    /// Makes the drivers of a node.
    pub fn driver(&self) -> MakePost {
        let slot = self.clone();
        Arc::new(move || Ok(Arc::new(slot.clone()) as Arc<dyn Post>))
    }

    /// The node is dead: whatever it still sends does not arrive, also what was on its way here. Answers how many attempts
    /// had come by then. Whoever looks at the postbox in [`Postbox::until`] holds up its answer.
    pub fn shut(&self) -> usize {
        let came = self.postbox.lock();
        self.shut.send_replace(true);
        came.len()
    }

    /// The node is dead; may be asked while looking at the postbox.
    pub fn is_shut(&self) -> bool {
        *self.shut.borrow()
    }

    /// None: its node is dead.
    async fn take(&self, parcel: &Parcel) -> Option<Report> {
        let postbox = &self.postbox;
        let act = postbox.0.answers.lock().unwrap_or_else(PoisonError::into_inner)(parcel);
        let only = *postbox.0.only.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match only.is_none_or(|only| only == parcel.address.as_ref()) {
            true => Some(postbox.note(parcel, &act, &self.shut)?),
            false => None,
        };
        let (outcome, status) = postbox.outcome(parcel, &act).await;
        let now = postbox.0.clock.now();
        if let Some(number) = number {
            let mut came = postbox.lock();
            came[number].ended = Some(Ended { at: now, outcome, turn: postbox.turn() });
        }
        let duration_ms = u32::try_from(now.since(parcel.at).as_millis()).unwrap_or(u32::MAX);
        let attempt = Attempt {
            at: parcel.at,
            duration_ms,
            status,
            error: outcome.error(),
            answer: String::new(),
            body_cut: false,
        };
        Some(Report { outcome, attempt })
    }
}

impl Post for Slot {
    fn check(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn deliver<'a>(&'a self, parcel: &'a Parcel) -> BoxFuture<'a, Result<Report>> {
        async move {
            let mut shut = self.shut.subscribe();
            let is_shut = || Error::unavailable("the node is dead", 1);
            if *shut.borrow_and_update() {
                return Err(is_shut());
            }
            tokio::select! {
                report = self.take(parcel) => report.ok_or_else(is_shut),
                _ = shut.changed() => Err(is_shut()),
            }
        }
        .boxed()
    }

    fn try_out<'a>(&'a self, _: &'a Parcel) -> BoxFuture<'a, Result<Trial>> {
        async { Err(Error::invalid("a postbox is not tried out")) }.boxed()
    }
}
