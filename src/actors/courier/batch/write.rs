//! One try of one batch: read, frozen, sent, settled.
//!
//! Always true: a batch is on disk before it leaves, unless its destination takes one that is cut anew; a fault of ours
//! uses up no try; it ends within the driver's time limit; what costs CPU time runs beside the exchanges of the runtime.
//! Not here: what a verdict leads to (`plan`, `settle`).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::line::Cue;
use super::load::{Loaded, Loading};
use super::{Target, backfill};
use crate::actors::courier::ended::FAILED_PAUSE;
use crate::actors::courier::lane::{Claim, Lane, LaneConfig};
use crate::actors::courier::outlet::{Outlet, Room};
use crate::destinations::driver::{Answer, Batch, Fault, Frozen, Verdict};
use crate::domain::delivery::{Cause, DeliveryState};
use crate::domain::event::Event;
use crate::domain::failure::Failure;
use crate::domain::id::{EventId, LaneNo, Seq};
use crate::domain::time::Millis;
use crate::domain::trouble::Trouble;
use crate::error::{Error, Result};
use crate::store::{Backfill, BatchRow, DeliveryRow, Due, GivenRecord, Settlement, Turn, Tx, Wait};

/// What is written.
pub(super) enum Work {
    /// A batch that was frozen before.
    Frozen(Seq, BatchRow),
    /// Deliveries that are to be frozen now, or when it is their turn.
    Fresh(Vec<Due>, Option<Cue>),
    /// The next of the present records.
    Backfill(Backfill),
}

impl Work {
    /// The deliveries in it.
    pub(super) fn seqs(&self) -> Vec<Seq> {
        match self {
            Self::Frozen(_, batch) => batch.members.iter().map(|due| due.seq).collect(),
            Self::Fresh(dues, _) => dues.iter().map(|due| due.seq).collect(),
            Self::Backfill(_) => Vec::new(),
        }
    }
}

/// A batch, and the request that it makes.
struct Ready {
    number: Seq,
    row: BatchRow,
    /// The events of its members and records.
    known: Vec<(Arc<Event>, EventId)>,
    /// The places of those that are sent.
    places: Vec<usize>,
    /// None: nothing is to be sent.
    request: Option<std::result::Result<Frozen, Verdict>>,
}

/// A try under way: everything that it needs.
pub(super) struct Try {
    pub(super) outlet: Arc<Outlet>,
    pub(super) config: Arc<LaneConfig>,
    pub(super) lane: Arc<Lane>,
    pub(super) target: Target,
}

impl Try {
    /// Begins it, on the runtime of its driver. The claims of its deliveries and its place among the node's attempts are
    /// given up once its outcome is in the store.
    pub(super) fn begin(self, work: Work, mut claims: Vec<Claim>, room: Room) {
        let runtime = self.target.opened.runtime.clone();
        runtime.spawn(async move {
            match self.run(work, &mut claims).await {
                Ok(()) => claims.into_iter().for_each(|claim| claim.settle(true)),
                Err(error) => {
                    tracing::error!(lane = self.number().0, error = error.chain(), "a batch was not settled");
                    tokio::time::sleep(FAILED_PAUSE).await;
                }
            }
            drop(room);
        });
    }

    pub(super) fn number(&self) -> LaneNo {
        self.config.subscription.lane
    }

    async fn run(&self, work: Work, claims: &mut Vec<Claim>) -> Result<()> {
        let ready = match work {
            Work::Frozen(number, row) => self.again(number, row).await?,
            Work::Fresh(dues, turn) => self.freeze(dues, turn, claims).await?,
            Work::Backfill(backfill) => self.freeze_records(backfill).await?,
        };
        match ready {
            Some(ready) => self.attempt(ready).await,
            None => Ok(()),
        }
    }

    /// Reads these deliveries, makes the request of those that fit, and freezes them, all in its turn. None: nothing is left
    /// to send, or they go back: it does not come to their turn, or what was read is not so any more.
    async fn freeze(&self, dues: Vec<Due>, turn: Option<Cue>, claims: &mut Vec<Claim>) -> Result<Option<Ready>> {
        let version = self.outlet.rings.subscriptions_version();
        let row = self.row(dues.clone(), Vec::new());
        let (row, Loaded { items, gone, rest }) = self.load(row, self.target.limits.bytes).await?;
        let ready = self.prepare(self.name().await?, row, items).await?;
        let is_their_turn = match turn {
            // A subscription that was changed or disabled meanwhile is looked at anew.
            Some(turn) => turn.await.is_ok() && version == self.outlet.rings.subscriptions_version(),
            None => true,
        };
        let wait = if self.target.limits.recuts { Wait::Applied } else { Wait::Durable };
        if !is_their_turn || !self.put(&ready, None, gone, wait).await? {
            self.lane.put_back(&dues);
            return Ok(None);
        }
        self.lane.put_back(&rest);
        let rest: HashSet<Seq> = rest.iter().map(|due| due.seq).collect();
        claims.extract_if(.., |claim| rest.contains(&claim.seq())).for_each(|claim| claim.settle(true));
        let now = self.outlet.clock.now();
        for ((event, _), _) in ready.known.iter().zip(&ready.row.members).filter(|(_, due)| due.turn == Turn::First) {
            self.outlet.metrics.accept_to_first_attempt.observe(now.since(event.accepted_at).as_secs_f64());
        }
        Ok((!ready.row.is_empty()).then_some(ready))
    }

    /// Reads a batch that was frozen before. If an event of it is gone, or if it was meant for another destination, what is
    /// left is frozen anew, under another name.
    async fn again(&self, number: Seq, row: BatchRow) -> Result<Option<Ready>> {
        let (mut row, Loaded { items, gone, .. }) = self.load(row, usize::MAX).await?;
        let destination = self.target.destination.id;
        if gone.is_empty() && row.destination == destination {
            return self.prepare(number, row, items).await.map(Some);
        }
        row.destination = destination;
        let ready = self.prepare(self.name().await?, row, items).await?;
        self.put(&ready, Some(number), gone, Wait::Durable).await?;
        Ok((!ready.row.is_empty()).then_some(ready))
    }

    /// Reads the next present records and freezes them. None: there are none among those that were looked at.
    async fn freeze_records(&self, backfill: Backfill) -> Result<Option<Ready>> {
        let (outlet, config, limits) = (self.outlet.clone(), self.config.clone(), self.target.limits);
        let read = move |_: &_| backfill::read(&outlet, &config, backfill, limits);
        let (backfill, records) = self.outlet.store.blocking(read).await?;
        let lane = self.number();
        let row = self.row(Vec::new(), records);
        let frozen = row.clone();
        // How far the reading has come and what was read are one commit.
        let put = move |tx: &mut Tx<'_>| {
            tx.put_backfill(lane, &backfill)?;
            if frozen.is_empty() {
                return Ok(None);
            }
            let number = tx.next_seq()?;
            tx.put_batch(lane, number, &frozen)?;
            Ok(Some(number))
        };
        let Some(number) = self.outlet.store.append(Wait::Durable, put).await? else { return Ok(None) };
        let (row, loaded) = self.load(row, usize::MAX).await?;
        self.prepare(number, row, loaded.items).await.map(Some)
    }

    async fn load(&self, mut row: BatchRow, bytes: usize) -> Result<(BatchRow, Loaded)> {
        let (outlet, lane) = (self.outlet.clone(), self.number());
        let load = move |_: &_| outlet.load(lane, &mut row, bytes).map(|loaded| (row, loaded));
        self.outlet.store.blocking(load).await
    }

    fn row(&self, members: Vec<Due>, records: Vec<GivenRecord>) -> BatchRow {
        let (destination, subscription) = (&self.target.destination, &self.config.subscription);
        BatchRow {
            destination: destination.id,
            revision: destination.revision,
            shape: subscription.shape,
            version: subscription.api_version,
            include: self.config.include.to_vec(),
            members,
            records,
            at: self.outlet.clock.now(),
            tries: 0,
            made: 0,
            attempts: Vec::new(),
        }
    }

    /// A name that no batch has had.
    async fn name(&self) -> Result<Seq> {
        self.outlet.store.append(Wait::Applied, |tx| tx.next_seq()).await
    }

    /// Makes the request of a batch.
    async fn prepare(&self, number: Seq, row: BatchRow, items: Vec<Loading>) -> Result<Ready> {
        let known = items.iter().map(|loading| (loading.item.event.clone(), loading.item.id)).collect();
        let (places, sent) =
            items.into_iter().enumerate().filter(|(_, loading)| !loading.outlived).unzip::<_, _, _, Vec<_>>();
        if sent.is_empty() {
            return Ok(Ready { number, row, known, places, request: None });
        }
        let batch = Batch {
            id: format!("{:08x}-{:016x}", self.number().0, number.0),
            destination: row.destination,
            shape: row.shape,
            include: row.include.as_slice().into(),
            version: row.version,
            items: sent.into_iter().map(|loading| loading.item).collect(),
        };
        let driver = self.target.opened.driver.clone();
        let request = tokio::task::spawn_blocking(move || driver.prepare(&batch)).await.map_err(Error::internal)?;
        Ok(Ready { number, row, known, places, request: Some(request) })
    }

    /// Puts a batch in place of the one before, if there is one, and settles those whose events are gone. A batch of none is
    /// put nowhere. False: one that was never tried is not owed any more (it was cancelled, erased, or is part of a newer
    /// one now), and nothing is done.
    async fn put(&self, ready: &Ready, before: Option<Seq>, gone: Vec<Due>, wait: Wait) -> Result<bool> {
        let (lane, number) = (self.number(), ready.number);
        let frozen = ready.row.clone();
        let put = move |tx: &mut Tx<'_>| {
            match before {
                Some(before) => tx.delete_batch(lane, before)?,
                None => {
                    for due in &frozen.members {
                        if !tx.is_queued(lane, due)? {
                            return Ok(None);
                        }
                    }
                }
            }
            let mut expired = 0;
            for due in gone {
                // None: erased, and settled with that.
                let Some(row) = tx.delivery(lane, due.seq)? else { continue };
                let row = DeliveryRow { state: DeliveryState::Dead { at: tx.now(), cause: Cause::Expired }, ..row };
                tx.settle_delivery(&Settlement { lane, due, row })?;
                expired += 1;
            }
            for due in &frozen.members {
                tx.stop_collapsing(lane, due)?;
            }
            if !frozen.is_empty() {
                tx.put_batch(lane, number, &frozen)?;
            }
            Ok(Some(expired))
        };
        let Some(expired) = self.outlet.store.append(wait, put).await? else { return Ok(false) };
        self.outlet.metrics.deliveries_dead.with([Cause::Expired.slug()]).inc_by(expired);
        Ok(true)
    }

    /// Sends a frozen batch and settles what came of it. Behind one that is tried for the first time the next may stand,
    /// unless the subscription's rate holds it back.
    async fn attempt(&self, ready: Ready) -> Result<()> {
        let Ready { number, row, known, places, request } = ready;
        let is_first = row.made == 0 && row.records.is_empty();
        let ahead = (is_first && self.config.subscription.per_second().is_none()).then(|| self.lane.line.open());
        if ahead.is_some() {
            self.outlet.rings.lane(self.number());
        }
        let began = self.outlet.clock.now();
        let started = tokio::time::Instant::now();
        let said = match request {
            Some(request) => self.send(request, places).await,
            None => Said::default(),
        };
        let took_ms = u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX);
        self.settle(Tried { number, row, said, began, took_ms, known }, ahead).await
    }

    /// One try within the driver's time. `places` are those of the items among the batch's members.
    async fn send(&self, request: std::result::Result<Frozen, Verdict>, places: Vec<usize>) -> Said {
        let frozen = match request {
            Ok(frozen) => frozen,
            Err(verdict) => return Said { whole: Some(verdict), suspects: places, ..Said::default() },
        };
        for note in &frozen.notes {
            tracing::warn!(destination = %self.target.destination.id, note, "a value was put beside its column");
        }
        let mut refused: Vec<Option<Fault>> = vec![None; places.len()];
        for (item, fault) in &frozen.refused {
            if let Some(slot) = refused.get_mut(*item) {
                *slot = Some(fault.clone());
            }
        }
        let mut said = Said::default();
        for (place, fault) in places.iter().zip(&refused) {
            match fault {
                Some(fault) => said.each.push((*place, Verdict::Row(fault.clone()))),
                None => said.suspects.push(*place),
            }
        }
        if said.suspects.is_empty() {
            return said;
        }
        let limit = self.target.limits.timeout.max(Duration::from_secs(1));
        let answer = match tokio::time::timeout(limit, self.target.opened.driver.send(&frozen)).await {
            Ok(answer) => answer,
            Err(_) => Answer::All(Verdict::Retry(Fault::way(Failure::ResponseTimeout))),
        };
        match answer {
            Answer::All(verdict) => said.whole = Some(verdict),
            Answer::Each(all) if all.len() == places.len() => {
                let judged = places.into_iter().zip(all).zip(refused).filter(|(_, refused)| refused.is_none());
                said.each.extend(judged.map(|(judged, _)| judged));
                said.suspects.clear();
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

/// What a driver said of a batch, by the places of its members and records. What is named nowhere is done.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Of each of these, by itself.
    pub(super) each: Vec<(usize, Verdict)>,
    /// Of all the others together.
    pub(super) whole: Option<Verdict>,
    pub(super) suspects: Vec<usize>,
}

/// A try that has ended.
pub(super) struct Tried {
    pub(super) number: Seq,
    pub(super) row: BatchRow,
    pub(super) said: Said,
    pub(super) began: Millis,
    pub(super) took_ms: u32,
    /// The events of its members and records.
    pub(super) known: Vec<(Arc<Event>, EventId)>,
}
