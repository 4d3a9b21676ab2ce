//! One try of one batch: read, frozen, sent, settled.
//!
//! Always true: a batch is on disk before it leaves, unless its destination takes one that is cut anew; a fault of ours
//! uses up no try; it ends within the driver's time limit; what costs CPU time runs beside the exchanges of the runtime.
//! Not here: what a verdict leads to (`plan`, `settle`).

use std::sync::Arc;
use std::time::Duration;

use super::load::{Loaded, Loading};
use super::{Target, backfill};
use crate::actors::courier::ended::FAILED_PAUSE;
use crate::actors::courier::lane::{Claim, Lane, LaneConfig};
use crate::actors::courier::outlet::{Outlet, Room};
use crate::destinations::driver::{Answer, Batch, Fault, Verdict};
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
    /// Deliveries that are to be frozen now.
    Fresh(Vec<Due>),
    /// The next of the present records.
    Backfill(Backfill),
}

impl Work {
    /// The deliveries in it.
    pub(super) fn seqs(&self) -> Vec<Seq> {
        match self {
            Self::Frozen(_, batch) => batch.members.iter().map(|due| due.seq).collect(),
            Self::Fresh(dues) => dues.iter().map(|due| due.seq).collect(),
            Self::Backfill(_) => Vec::new(),
        }
    }
}

/// A batch on disk, with the items of its members and records.
type Ready = (Seq, BatchRow, Vec<Loading>);

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
    pub(super) fn begin(self, work: Work, claims: Vec<Claim>, room: Room) {
        let runtime = self.target.opened.runtime.clone();
        runtime.spawn(async move {
            match self.run(work).await {
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

    async fn run(&self, work: Work) -> Result<()> {
        let ready = match work {
            Work::Frozen(number, row) => self.again(number, row).await?,
            Work::Fresh(dues) => self.freeze(dues).await?,
            Work::Backfill(backfill) => self.freeze_records(backfill).await?,
        };
        match ready {
            Some((number, row, items)) => self.attempt(number, row, items).await,
            None => Ok(()),
        }
    }

    /// Reads these deliveries and freezes those that fit. None: nothing is left to send.
    async fn freeze(&self, dues: Vec<Due>) -> Result<Option<Ready>> {
        let row = self.row(dues, Vec::new());
        let (row, loaded) = self.load(row, self.target.limits.bytes).await?;
        self.lane.put_back(&loaded.rest);
        for (loading, due) in loaded.items.iter().zip(&row.members).filter(|(_, due)| due.turn == Turn::First) {
            let waited = self.outlet.clock.now().since(loading.item.event.accepted_at);
            debug_assert_eq!(loading.item.delivery, due.seq);
            self.outlet.metrics.accept_to_first_attempt.observe(waited.as_secs_f64());
        }
        let wait = if self.target.limits.recuts { Wait::Applied } else { Wait::Durable };
        self.put(row, None, loaded, wait).await
    }

    /// Reads a batch that was frozen before. If an event of it is gone, or if it was meant for another destination, what is
    /// left is frozen anew, under another name.
    async fn again(&self, number: Seq, row: BatchRow) -> Result<Option<Ready>> {
        let (mut row, loaded) = self.load(row, usize::MAX).await?;
        let destination = self.target.destination.id;
        if loaded.gone.is_empty() && row.destination == destination {
            return Ok(Some((number, row, loaded.items)));
        }
        row.destination = destination;
        self.put(row, Some(number), loaded, Wait::Durable).await
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
        Ok(Some((number, row, loaded.items)))
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

    /// Puts a batch in place of the one before, and settles those whose events are gone. None: it is empty.
    async fn put(&self, row: BatchRow, before: Option<Seq>, loaded: Loaded, wait: Wait) -> Result<Option<Ready>> {
        let lane = self.number();
        let Loaded { items, gone, .. } = loaded;
        let frozen = row.clone();
        let put = move |tx: &mut Tx<'_>| {
            if let Some(before) = before {
                tx.delete_batch(lane, before)?;
            }
            let mut expired = 0;
            for due in gone {
                // None: erased, and settled with that.
                let Some(row) = tx.delivery(lane, due.seq)? else { continue };
                let row = DeliveryRow { state: DeliveryState::Dead { at: tx.now(), cause: Cause::Expired }, ..row };
                tx.settle_delivery(&Settlement { lane, due, row })?;
                expired += 1;
            }
            if frozen.is_empty() {
                return Ok((None, expired));
            }
            for due in &frozen.members {
                tx.stop_collapsing(lane, due)?;
            }
            let number = tx.next_seq()?;
            tx.put_batch(lane, number, &frozen)?;
            Ok((Some(number), expired))
        };
        let (number, expired) = self.outlet.store.append(wait, put).await?;
        self.outlet.metrics.deliveries_dead.with([Cause::Expired.slug()]).inc_by(expired);
        Ok(number.map(|number| (number, row, items)))
    }

    /// Sends a frozen batch and settles what came of it.
    async fn attempt(&self, number: Seq, row: BatchRow, items: Vec<Loading>) -> Result<()> {
        let known = items.iter().map(|loading| (loading.item.event.clone(), loading.item.id)).collect();
        let (places, sent) =
            items.into_iter().enumerate().filter(|(_, loading)| !loading.outlived).unzip::<_, _, _, Vec<_>>();
        let batch = Batch {
            id: format!("{:08x}-{:016x}", self.number().0, number.0),
            destination: row.destination,
            shape: row.shape,
            include: row.include.as_slice().into(),
            items: sent.into_iter().map(|loading| loading.item).collect(),
        };
        let began = self.outlet.clock.now();
        let started = tokio::time::Instant::now();
        let said = self.send(batch, places).await?;
        let took_ms = u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX);
        self.settle(Tried { number, row, said, began, took_ms, known }).await
    }

    /// One try within the driver's time. `places` are those of the items among the batch's members.
    async fn send(&self, batch: Batch, places: Vec<usize>) -> Result<Said> {
        if batch.items.is_empty() {
            return Ok(Said::default());
        }
        let driver = self.target.opened.driver.clone();
        let prepared = tokio::task::spawn_blocking(move || driver.prepare(&batch)).await.map_err(Error::internal)?;
        let frozen = match prepared {
            Ok(frozen) => frozen,
            Err(verdict) => return Ok(Said { whole: Some(verdict), suspects: places, ..Said::default() }),
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
            return Ok(said);
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
        Ok(said)
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
