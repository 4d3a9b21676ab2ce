//! Which events a replay sends again.
//!
//! Always true: an event whose newest delivery is still owed is left out, since it comes by itself; one that never had a
//! delivery is chosen only where the subscription wants it as it is now, its filter included; a look takes a bounded
//! number of rows and a bounded time. Not here: where candidates come from (`store::selects`), making deliveries
//! (`advance`).

use std::time::{Duration, Instant};

use super::super::router::Index;
use crate::domain::event::{Event, RecordKey};
use crate::domain::filter::{Verdict, View};
use crate::domain::id::{EventId, LaneNo, Seq};
use crate::domain::record::record_id;
use crate::domain::replay::{Selection, Wanted};
use crate::domain::subscription::{Subscription, WhileDisabled};
use crate::domain::time::Millis;
use crate::domain::topic::TopicPattern;
use crate::error::Result;
use crate::store::{Among, Rows, Standing, Store};

/// Candidates of one look.
pub(super) const LOOKED_MAX: usize = 500;
/// A look that has taken so long ends with the event that it is at.
const LOOK_TIME: Duration = Duration::from_millis(250);
/// Candidates that a dry run looks at, and how long it may take; beyond that its count is cut.
const COUNTED_MAX: u64 = 100_000;
const COUNT_TIME: Duration = Duration::from_secs(5);

/// A selection, ready to be asked.
pub struct Selector {
    lane: LaneNo,
    selection: Selection,
    pattern: Option<TopicPattern>,
    among: Among,
    /// The subscription alone, as if it had always been there.
    index: Index,
}

/// An event to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) event: Seq,
    pub(super) record: Option<RecordKey>,
}

/// What a look came to.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) chosen: Vec<Chosen>,
    /// Everything up to here was looked at.
    pub(super) reached: Seq,
    pub(super) looked: u64,
    pub(super) unjudged: u64,
}

/// What a replay would come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Events that would be sent again.
    pub chosen: u64,
    pub looked: u64,
    pub unjudged: u64,
    /// Whether everything was looked at.
    pub is_complete: bool,
}

enum Choice {
    Yes,
    No,
    Unjudged,
}

impl Selector {
    /// A subscription's events that fit.
    pub fn new(subscription: &Subscription, selection: &Selection) -> Self {
        let mut index = Index::default();
        let always = Subscription { from: Seq(0), while_disabled: WhileDisabled::Hold, ..subscription.clone() };
        index.add(always);
        let among = match (selection.wanted, &selection.topic, selection.connection, &selection.remote_id) {
            (Wanted::Dead, ..) => Among::Dead,
            // A pattern names no record.
            (_, Some(topic), Some(connection), Some(remote_id)) if !topic.contains('*') => {
                Among::Record(connection, record_id(connection, topic, remote_id).into_bytes())
            }
            _ => Among::Workspace(subscription.workspace),
        };
        let (lane, pattern) = (subscription.lane, selection.pattern());
        Self { lane, selection: selection.clone(), pattern, among, index }
    }

    /// Looks at what comes after `after`, up to and with `until`, until so many are chosen.
    pub(super) fn look(&self, rows: &Rows, (after, until): (Seq, Seq), chosen_max: usize, now: Millis) -> Result<Look> {
        let started = Instant::now();
        let (events, reached) = rows.events_among(self.lane, self.among, (after, until), LOOKED_MAX)?;
        let mut look = Look { reached: after, ..Look::default() };
        for seq in events {
            let is_late = look.looked > 0 && started.elapsed() > LOOK_TIME;
            if look.chosen.len() >= chosen_max || is_late {
                return Ok(look);
            }
            if let Some(event) = rows.event(seq)? {
                let record = event.record_key();
                match self.choose(rows, seq, &event, record.as_ref(), now)? {
                    Choice::Yes => look.chosen.push(Chosen { event: seq, record }),
                    Choice::No => {}
                    Choice::Unjudged => look.unjudged += 1,
                }
            }
            (look.looked, look.reached) = (look.looked + 1, seq);
        }
        look.reached = reached;
        Ok(look)
    }

    fn choose(&self, rows: &Rows, seq: Seq, event: &Event, record: Option<&RecordKey>, now: Millis) -> Result<Choice> {
        if !self.selection.takes(self.pattern.as_ref(), event) {
            return Ok(Choice::No);
        }
        Ok(match (self.selection.wanted, rows.standing(self.lane, seq, record)?) {
            (Wanted::Any, Standing::None) => self.wants(seq, event, now),
            (Wanted::Any, Standing::Delivered | Standing::Dead | Standing::Else)
            | (Wanted::Dead, Standing::Dead)
            | (Wanted::Delivered, Standing::Delivered) => Choice::Yes,
            (Wanted::Any | Wanted::Dead | Wanted::Delivered, _) => Choice::No,
        })
    }

    /// Whether the subscription, as it is now, wants an event.
    fn wants(&self, seq: Seq, event: &Event, now: Millis) -> Choice {
        let Some(taker) = self.index.takers(seq, event, now).pop() else { return Choice::No };
        match taker.filter {
            None => Choice::Yes,
            Some(Err(_)) => Choice::Unjudged,
            Some(Ok(filter)) => match filter.judge(&View::of(event, EventId::new(seq, event.workspace))) {
                Verdict::Yes => Choice::Yes,
                Verdict::No => Choice::No,
                Verdict::Failed(_) => Choice::Unjudged,
            },
        }
    }
}

/// Counts what a replay over these positions would send, up to a limit.
pub async fn count(store: &Store, selector: Selector, (start, until): (Seq, Seq), now: Millis) -> Result<Counted> {
    let (started, mut selector) = (Instant::now(), selector);
    let (mut counted, mut at) = (Counted::default(), start);
    while at < until && counted.looked < COUNTED_MAX && started.elapsed() < COUNT_TIME {
        let after = at;
        let look = store.blocking(move |rows| {
            let look = selector.look(rows, (after, until), usize::MAX, now)?;
            Ok((look, selector))
        });
        let (look, back) = look.await?;
        selector = back;
        counted.chosen += look.chosen.len() as u64;
        counted.looked += look.looked;
        counted.unjudged += look.unjudged;
        at = look.reached;
    }
    counted.is_complete = at >= until;
    Ok(counted)
}
