//! One attempt outside the queue, looked at closely: what `POST …/{id}/test` shows.
//!
//! Always true: it leaves nothing in the store and moves no lane; it ends within twice the subscription's timeout. Not
//! here: who may ask (`api`).

use std::sync::Arc;
use std::time::Duration;

use super::lane::LaneConfig;
use super::outlet::Outlet;
use crate::destinations::{Parcel, Trial};
use crate::domain::id::{EventId, LaneNo};
use crate::error::{Error, Result};
use crate::outbound::Bytes;

/// Beyond twice its timeout an attempt is given up.
const GRACE: Duration = Duration::from_secs(2);

impl Outlet {
    /// Sends `body` to a lane's destination now, signed as a delivery would be. None if the subscription is gone.
    ///
    /// # Errors
    /// Our own faults only; the destination's are in the trial.
    pub async fn try_out(
        self: &Arc<Self>,
        lane: LaneNo,
        event: EventId,
        topic: &str,
        body: Bytes,
    ) -> Result<Option<Trial>> {
        let outlet = self.clone();
        let read = tokio::task::spawn_blocking(move || LaneConfig::read(&outlet, lane));
        let Some(config) = read.await.map_err(Error::internal)?? else { return Ok(None) };
        let (runtime, driver) = self.driver().ok_or_else(|| Error::unavailable("the node is stopping", 5))?;
        let parcel = Parcel {
            address: config.address,
            topic: topic.into(),
            event,
            body,
            attempt: 1,
            replay: false,
            at: self.clock.now(),
            wall: self.clock.wall(),
            signing: config.signing,
            secrets: config.secrets,
            keys: config.keys,
            headers: config.headers,
            timeout: config.timeout,
        };
        let limit = parcel.timeout * 2 + GRACE;
        let attempt = runtime.spawn(async move { tokio::time::timeout(limit, driver.try_out(&parcel)).await });
        let trial = attempt.await.map_err(Error::internal)?;
        trial.map_err(|_| Error::internal("a test of a destination did not end"))?.map(Some)
    }
}
