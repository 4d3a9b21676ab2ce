//! What became of a delivery, and what its attempt holds until that is in the store.
//!
//! Always true: whatever way it ends, the claim goes with the hold, and only after the outcome is applied or given up.
//! Not here: making the attempt (`outlet`), what an outcome means (`domain::delivery`).

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::lane::{Claim, Lane, LaneConfig};
use super::notices;
use super::outlet::{Outlet, Room};
use crate::domain::delivery::DeliveryState;
use crate::domain::flow::Mark;
use crate::domain::id::LaneNo;
use crate::domain::time::Millis;
use crate::error::{Error, Result};
use crate::store::{Settlement, Tx};

/// What became of a delivery, until it is in the store.
pub(super) struct Ended {
    pub(super) settlement: Settlement,
    pub(super) after: Option<After>,
    pub(super) config: Arc<LaneConfig>,
    pub(super) lane: Arc<Lane>,
}

impl Ended {
    pub(super) fn write(&self, tx: &mut Tx<'_>) -> Result<()> {
        tx.settle_delivery(&self.settlement)?;
        self.after.as_ref().map_or(Ok(()), |after| after.write(tx, &self.config))
    }

    pub(super) fn applied(&self, outlet: &Outlet, hold: Hold) {
        let state = &self.settlement.row.state;
        match state {
            DeliveryState::Due { at, .. } => self.lane.due_again(*at, outlet.clock.now()),
            DeliveryState::Delivered { at } | DeliveryState::Dead { at, .. }
                if self.settlement.due.record.is_some() =>
            {
                self.lane.let_go(*at);
            }
            _ => {}
        }
        if self.after.as_ref().is_some_and(|after| after.back.is_some()) {
            outlet.rings.router();
        }
        hold.settle(matches!(state, DeliveryState::Delivered { .. }));
    }
}

/// What an attempt says about its lane, written with its outcome.
pub(super) struct After {
    pub(super) mark: Option<Mark>,
    /// The endpoint is back; since when it had failed.
    pub(super) back: Option<Millis>,
    pub(super) at: Millis,
}

impl After {
    pub(super) fn write(&self, tx: &mut Tx<'_>, config: &LaneConfig) -> Result<()> {
        let subscription = &config.subscription;
        if let Some(mark) = self.mark
            && tx.has_lane(subscription.lane)?
        {
            tx.put_lane_mark(subscription.lane, mark)?;
        }
        match self.back {
            Some(since) => notices::recovered(tx, subscription, since, self.at),
            None => Ok(()),
        }
    }
}

/// What an attempt holds until its outcome is in the store.
pub(super) struct Hold {
    claim: Claim,
    _room: Room,
}

impl Hold {
    pub(super) fn new(claim: Claim, room: Room) -> Self {
        Self { claim, _room: room }
    }

    /// The outcome is in the store.
    pub(super) fn settle(self, accepted: bool) {
        self.claim.settle(accepted);
    }

    /// A fault of ours: it is given back after a pause, so that a store in trouble is not asked in a tight loop.
    pub(super) fn fail(self, runtime: &Handle, lane: LaneNo, error: &Error) {
        tracing::error!(lane = lane.0, error = error.chain(), "an attempt was not settled");
        runtime.spawn(async move {
            tokio::time::sleep(FAILED_PAUSE).await;
            drop(self);
        });
    }
}

/// After a fault of ours.
pub(super) const FAILED_PAUSE: Duration = Duration::from_secs(1);
