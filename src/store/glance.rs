//! A lane at a glance: whether it owes anything, and how old that is.
//!
//! Always true: where a mark is at hand, the queue is read from there, so what was settled before is not walked over. Not
//! here: the deliveries themselves (`deliveries`), who remembers the marks (`actors::courier`).

use super::keys::{self, Queued};
use super::rows::{Rows, Walk};
use super::tables::Table;
use crate::domain::id::{LaneNo, Seq};
use crate::domain::time::Millis;
use crate::error::Result;

/// Deliveries to be tried again among which the oldest is looked for.
const RETRIES_LOOKED_MAX: usize = 100;

/// Where a lane's queue begins, as far as is remembered. The default is its very start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Low {
    /// Fresh deliveries up to here are settled, in flight or among those to be tried again.
    pub fresh: Seq,
    /// Nothing is to be tried again before.
    pub retry: Millis,
    /// The oldest delivery in flight.
    pub in_flight: Option<Seq>,
}

impl Rows {
    /// When the oldest owed delivery of a lane was made. Of those to be tried again the next hundred are looked at: they
    /// stand in the order of their due times.
    pub fn oldest_pending(&self, lane: LaneNo, low: &Low) -> Result<Option<Millis>> {
        let fresh = self.fresh_deliveries(lane, low.fresh, 1)?;
        let retries = self.retry_deliveries_from(lane, low.retry, RETRIES_LOOKED_MAX)?;
        let retry = retries.into_iter().min_by_key(|due| due.seq);
        let replayed = self.replayed_deliveries(lane, Seq(0), 1)?;
        // What is parked stands behind an older one of its record, which is one of these.
        let seqs = fresh.into_iter().chain(retry).chain(replayed).map(|due| due.seq).chain(low.in_flight);
        let mut oldest = None::<Millis>;
        for seq in seqs {
            if let Some(row) = self.delivery(lane, seq)? {
                oldest = Some(oldest.map_or(row.made_at, |o| o.min(row.made_at)));
            }
        }
        Ok(oldest)
    }

    /// Whether a lane owes nothing and has nothing dead: a few seeks, where counting reads a row per hour that is kept.
    pub fn is_clear(&self, lane: LaneNo, low: &Low) -> Result<bool> {
        if low.in_flight.is_some() || !self.fresh_deliveries(lane, low.fresh, 1)?.is_empty() {
            return Ok(false);
        }
        if !self.retry_deliveries_from(lane, low.retry, 1)?.is_empty() {
            return Ok(false);
        }
        if !self.replayed_deliveries(lane, Seq(0), 1)?.is_empty() {
            return Ok(false);
        }
        let prefix = keys::queue(lane, Queued::Dead);
        let mut none = true;
        self.walk(Table::Queue, prefix.as_ref(), &prefix.clone().end(), Walk::Backward, |_, _| {
            none = false;
            Ok(false)
        })?;
        Ok(none)
    }
}
