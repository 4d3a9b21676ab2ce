//! What an attempt of a delivery would be made of now, for whoever wants to look at it or to repeat it by hand.
//!
//! Always true: nothing is sent and nothing is stored. What collapsed into a delivery is known only while it is owed, so
//! of one that has ended the body may lack fields that were changed before. Not here: how it is shown (`api`).

use super::bodies::{Bodies, Body};
use super::lane::LaneConfig;
use super::outlet::Outlet;
use crate::destinations::Parcel;
use crate::domain::body;
use crate::domain::id::{EventId, LaneNo, Seq};
use crate::domain::time::Millis;
use crate::error::Result;
use crate::outbound::Bytes;
use crate::store::{DeliveryRow, Due};

impl Outlet {
    /// The parcel of the delivery at `seq`, as its last attempt had it, at the time of now; as its first one will have it,
    /// if there was none. None: its event or its subscription is gone, or it is no
    /// HTTP endpoint that it goes to. It reads, so it may wait for the disk.
    pub fn repeat(&self, lane: LaneNo, seq: Seq, row: &DeliveryRow) -> Result<Option<Parcel>> {
        let Some(config) = LaneConfig::read(self, lane)? else { return Ok(None) };
        if config.subscription.destination.is_some() {
            return Ok(None);
        }
        let Some(event) = self.store.event(row.event)? else { return Ok(None) };
        let (version, include) = (config.subscription.api_version, &config.include);
        let id = EventId::new(row.event, event.workspace);
        let body = match self.store.merged(lane, seq)? {
            Some(merged) => Bodies::merged(&self.store, row.event, merged, version, include)?.map(|body| body.bytes),
            None => Some(Bytes::from(body::render(&event, id, version, include))),
        };
        let Some(body) = body else { return Ok(None) };
        Ok(Some(Parcel {
            address: config.address,
            topic: event.topic.as_str().into(),
            event: id,
            body,
            attempt: u32::try_from(row.attempts.len()).unwrap_or(u32::MAX).max(1),
            replay: row.replay,
            at: self.clock.now(),
            wall: self.clock.wall(),
            signing: config.signing,
            secrets: config.secrets,
            keys: config.keys,
            headers: config.headers,
            timeout: config.timeout,
        }))
    }
}

/// The parcel of an attempt that begins at these two times: the node's, and the machine's.
pub(super) fn parcel(
    config: &LaneConfig,
    body: &Body,
    due: &Due,
    attempt: u32,
    replay: bool,
    at: (Millis, Millis),
) -> Parcel {
    Parcel {
        address: config.address.clone(),
        topic: body.topic.clone(),
        event: EventId::new(due.event, body.event.workspace),
        body: body.bytes.clone(),
        attempt,
        replay,
        at: at.0,
        wall: at.1,
        signing: config.signing,
        secrets: config.secrets.clone(),
        keys: config.keys.clone(),
        headers: config.headers.clone(),
        timeout: config.timeout,
    }
}
