//! What the configuration tells the actors.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};

use serde::Deserialize;

use crate::domain::setting;

/// `[polling]`: when connections look at their apps.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Polling {
    pub interval_seconds: NonZeroU32,
    /// Where the app pushes.
    pub reconcile_interval_seconds: NonZeroU32,
    pub full_scan_interval_seconds: NonZeroU32,
    pub interval_seconds_min: NonZeroU32,
    pub jitter_percent: u8,
    pub concurrent_max: NonZeroUsize,
    pub pull_seconds_max: NonZeroU64,
    pub backoff_seconds_max: NonZeroU64,
}

/// `[retention]`: how long things are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    pub events_seconds: NonZeroU64,
    pub undelivered_seconds: NonZeroU64,
    pub delivered_seconds: NonZeroU64,
    pub inbox_seconds: NonZeroU64,
    pub unverified_seconds: NonZeroU64,
    pub pulls_seconds: NonZeroU64,
    pub tombstones_seconds: NonZeroU64,
    pub audit_seconds: NonZeroU64,
    #[serde(deserialize_with = "setting::optional")]
    pub bytes_max: Option<NonZeroU64>,
    pub interval_seconds: NonZeroU64,
}
