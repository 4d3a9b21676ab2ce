//! How many deliveries of a lane stand where: merge rows per (lane, hour, state).
//!
//! Always true: a count changes in the batch of what it counts; dropping a whole hour by range keeps the rest true.

use std::collections::HashMap;

use super::codec;
use super::keys::Key;
use super::rows::Rows;
use super::tables::Table;
use super::tx::Tx;
use crate::domain::id::LaneNo;
use crate::domain::time::Millis;
use crate::error::Result;

/// What is counted; numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Count {
    /// Owed: never attempted, or to be tried again.
    Pending = 1,
    Delivered = 2,
    Dead = 3,
    Cancelled = 4,
}

/// The counts of a lane over all hours that are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneCounts {
    pub pending: u64,
    pub delivered: u64,
    pub dead: u64,
    pub cancelled: u64,
}

/// What a batch adds to counts: lane (4), hour (4), state (1) → how many.
pub(super) type Deltas = HashMap<[u8; 9], i64>;

/// The hour that a time falls into.
pub(super) fn hour(at: Millis) -> u32 {
    u32::try_from(at.0 / 3_600_000).unwrap_or(u32::MAX)
}

impl Rows {
    /// The counts of a lane.
    pub fn lane_counts(&self, lane: LaneNo) -> Result<LaneCounts> {
        let mut sums = [0_i64; 5];
        self.walk_prefix(Table::Counts, &Key::lane(lane), |key, value| {
            let number = i64::from_le_bytes(codec::fixed("counts", value)?);
            if let Some(sum) = key.last().and_then(|state| sums.get_mut(usize::from(*state))) {
                *sum += number;
            }
            Ok(true)
        })?;
        let of = |count: Count| u64::try_from(sums[count as usize]).unwrap_or(0);
        Ok(LaneCounts {
            pending: of(Count::Pending),
            delivered: of(Count::Delivered),
            dead: of(Count::Dead),
            cancelled: of(Count::Cancelled),
        })
    }
}

impl Tx<'_> {
    /// Adds to a count of the hour in which the delivery was made.
    pub(super) fn count(&mut self, lane: LaneNo, made_at: Millis, count: Count, by: i64) -> Result<()> {
        let mut key = [0; 9];
        key[..4].copy_from_slice(&lane.0.to_be_bytes());
        key[4..8].copy_from_slice(&hour(made_at).to_be_bytes());
        key[8] = count as u8;
        *self.deltas.entry(key).or_default() += by;
        Ok(())
    }
}
