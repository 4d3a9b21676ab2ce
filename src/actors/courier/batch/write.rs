//! One try of one batch: read, frozen, sent, settled.
//!
//! Always true: a batch is on disk before it leaves, unless its destination takes one that is cut anew; a fault of ours
//! uses up no try; it ends within the driver's time limit. Not here: what a verdict leads to (`settle`).

use std::sync::Arc;
use std::time::Duration;

use super::load::{self, Loaded};
use super::{Target, backfill};
use crate::actors::courier::ended::FAILED_PAUSE;
use crate::actors::courier::lane::{Claim, Lane, LaneConfig};
use crate::actors::courier::outlet::{Outlet, Room};
use crate::destinations::driver::{Answer, Batch, Fault, Item, Verdict};
use crate::domain::delivery::{Cause, DeliveryState};
use crate::domain::event::Event;
use crate::domain::failure::Failure;
use crate::domain::id::{EventId, Seq};
use crate::domain::time::Millis;
use crate::domain::trouble::Trouble;
use crate::error::Result;
use crate::store::{Backfill, BatchRow, DeliveryRow, Due, GivenRecord, Settlement, Turn, Tx, Wait};

/// What is written.
pub(in crate::actors::courier) enum Work {
    /// A batch that was frozen before.
    Frozen(Seq, BatchRow),
    /// Deliveries that are to be frozen now.
    Fresh(Vec<Due>),
    /// The next of the present records.
    Backfill(Backfill),
    /// A batch whose name means nothing any more: its members wait again.
    Thaw(Seq),
}

impl Work {
    /// The deliveries in it.
    pub(super) fn seqs(&self) -> Vec<Seq> {
        match self {
            Self::Frozen(_, batch) => batch.members.iter().map(|due| due.seq).collect(),
            Self::Fresh(dues) => dues.iter().map(|due| due.seq).collect(),
            Self::Backfill(_) | Self::Thaw(_) => Vec::new(),
        }
    }
}

/// What a try holds until its outcome is in the store: the claims of its deliveries, and a place among the node's attempts.
pub(in crate::actors::courier) struct Hold {
    claims: Vec<Claim>,
    _room: Room,
}

impl Hold {
    pub(super) fn new(claims: Vec<Claim>, room: Room) -> Self {
        Self { claims, _room: room }
    }

    /// The outcome is in the store.
    pub(super) fn settle(self) {
        self.claims.into_iter().for_each(|claim| claim.settle(true));
    }

    /// These were not taken along: they wait again.
    fn give_back(&mut self, from: usize) {
        drop(self.claims.drain(from.min(self.claims.len())..));
    }
}

/// A try under way: everything that it needs.
pub(super) struct Try {
    pub(super) outlet: Arc<Outlet>,
    pub(super) config: Arc<LaneConfig>,
    pub(super) lane: Arc<Lane>,
    pub(super) target: Target,
}

impl Outlet {
    /// Writes one batch, on the runtime of its driver.
    pub(super) fn write(
        self: &Arc<Self>,
        config: Arc<LaneConfig>,
        lane: Arc<Lane>,
        target: Target,
        work: Work,
        hold: Hold,
    ) {
        let runtime = target.opened.runtime.clone();
        let number = config.subscription.lane;
        let this = Try { outlet: self.clone(), config, lane, target };
        runtime.spawn(async move {
            let mut hold = hold;
            match this.run(work, &mut hold).await {
                Ok(()) => hold.settle(),
                Err(error) => {
                    tracing::error!(lane = number.0, error = error.chain(), "a batch was not settled");
                    tokio::time::sleep(FAILED_PAUSE).await;
                }
            }
        });
    }
}

impl Try {
    async fn run(&self, work: Work, hold: &mut Hold) -> Result<()> {
        let (number, row, items) = match work {
            Work::Thaw(number) => {
                let lane = self.config.subscription.lane;
                self.outlet.store.append(Wait::Applied, move |tx| tx.delete_batch(lane, number)).await?;
                self.lane.look_again();
                return Ok(());
            }
            Work::Backfill(backfill) => match self.freeze_records(backfill).await? {
                Some(frozen) => frozen,
                None => return Ok(()),
            },
            Work::Fresh(dues) => match self.freeze(dues, hold).await? {
                Some(frozen) => frozen,
                None => return Ok(()),
            },
            Work::Frozen(number, row) => match self.again(number, row).await? {
                Some(frozen) => frozen,
                None => return Ok(()),
            },
        };
        self.attempt(number, row, items).await
    }

    /// Reads these deliveries and freezes those that fit. None: nothing is left to send.
    async fn freeze(&self, dues: Vec<Due>, hold: &mut Hold) -> Result<Option<(Seq, BatchRow, Vec<Item>)>> {
        let (loaded, dues) = self.read(dues).await?;
        hold.give_back(loaded.looked);
        let gone: Vec<Due> = loaded.gone.iter().filter_map(|place| dues.get(*place)).copied().collect();
        let kept: Vec<usize> = loaded.items.iter().map(|(place, _)| *place).collect();
        let members = kept.iter().filter_map(|place| dues.get(*place)).copied().collect();
        let items: Vec<Item> = loaded.items.into_iter().map(|(_, item)| item).collect();
        self.first_seen(&items, &dues);
        let row = self.row(members, Vec::new());
        let wait = if self.target.limits.recuts { Wait::Applied } else { Wait::Durable };
        let frozen = self.put(row, None, gone, wait).await?;
        Ok(frozen.map(|(number, row)| (number, row, items)))
    }

    /// Reads a batch that was frozen before. If an event of it is gone, the rest is frozen anew, under another name.
    async fn again(&self, number: Seq, row: BatchRow) -> Result<Option<(Seq, BatchRow, Vec<Item>)>> {
        if row.members.is_empty() {
            let items = load::given(&self.config, &row);
            return Ok(Some((number, row, items)));
        }
        let (outlet, config, members) = (self.outlet.clone(), self.config.clone(), row.members.clone());
        let loaded = self.outlet.store.blocking(move |_| outlet.load(&config, &members, usize::MAX)).await?;
        let items: Vec<Item> = loaded.items.iter().map(|(_, item)| item.clone()).collect();
        if loaded.gone.is_empty() {
            return Ok(Some((number, row, items)));
        }
        let kept: Vec<usize> = loaded.items.iter().map(|(place, _)| *place).collect();
        let gone = loaded.gone.iter().filter_map(|place| row.members.get(*place)).copied().collect();
        let frozen = self.put(row.part(&kept), Some(number), gone, Wait::Durable).await?;
        Ok(frozen.map(|(number, row)| (number, row, items)))
    }

    /// Reads the next present records and freezes them. None: there are no more.
    async fn freeze_records(&self, backfill: Backfill) -> Result<Option<(Seq, BatchRow, Vec<Item>)>> {
        let (outlet, config, limits) = (self.outlet.clone(), self.config.clone(), self.target.limits);
        let read = move |_: &_| backfill::read(&outlet, &config, backfill, limits);
        let (backfill, records) = self.outlet.store.blocking(read).await?;
        let lane = self.config.subscription.lane;
        if records.is_empty() {
            let put = move |tx: &mut Tx<'_>| tx.put_backfill(lane, &backfill);
            self.outlet.store.append(Wait::Applied, put).await?;
            return Ok(None);
        }
        let row = self.row(Vec::new(), records);
        let frozen = row.clone();
        // How far the reading has come and what was read are one commit.
        let put = move |tx: &mut Tx<'_>| {
            let number = tx.next_seq()?;
            tx.put_backfill(lane, &backfill)?;
            tx.put_batch(lane, number, &frozen)?;
            Ok(number)
        };
        let number = self.outlet.store.append(Wait::Durable, put).await?;
        let items = load::given(&self.config, &row);
        Ok(Some((number, row, items)))
    }

    async fn read(&self, dues: Vec<Due>) -> Result<(Loaded, Vec<Due>)> {
        let (outlet, config, bytes) = (self.outlet.clone(), self.config.clone(), self.target.limits.bytes);
        self.outlet.store.blocking(move |_| Ok((outlet.load(&config, &dues, bytes)?, dues))).await
    }

    fn row(&self, members: Vec<Due>, records: Vec<GivenRecord>) -> BatchRow {
        let at = self.outlet.clock.now();
        let (destination, revision) = (self.target.destination.id, self.target.destination.revision);
        BatchRow { destination, revision, members, records, at, tries: 0, made: 0, attempts: Vec::new() }
    }

    /// Puts a batch in place of the one before, and settles those whose events are gone. None: it is empty.
    async fn put(
        &self,
        row: BatchRow,
        before: Option<Seq>,
        gone: Vec<Due>,
        wait: Wait,
    ) -> Result<Option<(Seq, BatchRow)>> {
        let lane = self.config.subscription.lane;
        let expired = u64::try_from(gone.len()).unwrap_or(u64::MAX);
        let frozen = row.clone();
        let put = move |tx: &mut Tx<'_>| {
            if let Some(before) = before {
                tx.delete_batch(lane, before)?;
            }
            for due in gone {
                let row = DeliveryRow::unattempted(&due, tx.now());
                let row = DeliveryRow { state: DeliveryState::Dead { at: tx.now(), cause: Cause::Expired }, ..row };
                tx.settle_delivery(&Settlement { lane, due, row })?;
            }
            if frozen.is_empty() {
                return Ok(None);
            }
            for due in &frozen.members {
                tx.stop_collapsing(lane, due)?;
            }
            let number = tx.next_seq()?;
            tx.put_batch(lane, number, &frozen)?;
            Ok(Some(number))
        };
        let number = self.outlet.store.append(wait, put).await?;
        self.outlet.metrics.deliveries_dead.with([Cause::Expired.slug()]).inc_by(expired);
        Ok(number.map(|number| (number, row)))
    }

    /// Counts how long the oldest of these waited for its first attempt.
    fn first_seen(&self, items: &[Item], dues: &[Due]) {
        let first = |item: &&Item| dues.iter().any(|due| due.seq == item.delivery && due.turn == Turn::First);
        if let Some(item) = items.iter().find(first) {
            let waited = self.outlet.clock.now().since(item.event.accepted_at);
            self.outlet.metrics.accept_to_first_attempt.observe(waited.as_secs_f64());
        }
    }

    /// Sends a frozen batch and settles what came of it.
    async fn attempt(&self, number: Seq, row: BatchRow, items: Vec<Item>) -> Result<()> {
        let (mut places, mut sent) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
        for (place, item) in items.into_iter().enumerate() {
            let outlived = match row.members.get(place) {
                Some(due) => self.outlet.is_outlived(&self.config, due, &item)?,
                None => false,
            };
            if !outlived {
                places.push(place);
                sent.push(item);
            }
        }
        let batch = load::batch(&self.config, &row, number, sent);
        let began = self.outlet.clock.now();
        let started = tokio::time::Instant::now();
        let said = self.send(&batch, &places).await;
        let took_ms = u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX);
        let known =
            batch.items.iter().zip(&places).map(|(item, place)| (*place, item.event.clone(), item.id)).collect();
        self.settle(Tried { number, row, said, began, took_ms, known }).await
    }

    /// One try within the driver's time.
    async fn send(&self, batch: &Batch, places: &[usize]) -> Said {
        let driver = &self.target.opened.driver;
        if batch.items.is_empty() {
            return Said::default();
        }
        let frozen = match driver.prepare(batch) {
            Ok(frozen) => frozen,
            Err(verdict) => return Said { whole: Some(verdict), suspects: places.to_vec(), ..Said::default() },
        };
        for note in &frozen.notes {
            tracing::warn!(destination = %self.target.destination.id, note, "a value was put beside its column");
        }
        let place_of = |item: usize| places.get(item).copied();
        let mut said = Said::default();
        let refused = frozen.refused.iter().filter_map(|(item, fault)| Some((place_of(*item)?, fault.clone())));
        said.refused = refused.collect();
        let is_refused = |place: &usize| said.refused.iter().any(|(refused, _)| refused == place);
        said.suspects = places.iter().copied().filter(|place| !is_refused(place)).collect();
        if said.suspects.is_empty() {
            return said;
        }
        let limit = self.target.limits.timeout.max(Duration::from_secs(1));
        let answer = match tokio::time::timeout(limit, driver.send(&frozen)).await {
            Ok(answer) => answer,
            Err(_) => Answer::All(Verdict::Retry(Fault::way(Failure::ResponseTimeout))),
        };
        match answer {
            Answer::All(verdict) => said.whole = Some(verdict),
            Answer::Each(all) if all.len() == places.len() => {
                said.each =
                    places.iter().copied().zip(all).filter(|(place, _)| said.suspects.contains(place)).collect();
            }
            // A driver that says too little is not believed.
            Answer::Each(_) => {
                let fault = Fault::new(Trouble::Failed, "the answer does not fit the batch");
                said.whole = Some(Verdict::Retry(fault));
            }
        }
        said
    }
}

/// What a driver said of a batch, by the places of its members. What is named nowhere is done.
#[derive(Default)]
pub(super) struct Said {
    /// Of all suspects together.
    pub(super) whole: Option<Verdict>,
    pub(super) suspects: Vec<usize>,
    /// Of each.
    pub(super) each: Vec<(usize, Verdict)>,
    /// What can never be written here, whatever becomes of the others.
    pub(super) refused: Vec<(usize, Fault)>,
}

/// A try that has ended.
pub(super) struct Tried {
    pub(super) number: Seq,
    pub(super) row: BatchRow,
    pub(super) said: Said,
    pub(super) began: Millis,
    pub(super) took_ms: u32,
    /// The events that were looked at, by place.
    pub(super) known: Vec<(usize, Arc<Event>, EventId)>,
}
