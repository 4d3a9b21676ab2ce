//! Lanes that owe something, that buried something, or whose endpoint fails.
//!
//! Always true: a lane that owes nothing costs a few seeks, from where its courier reads on. Not here: which are worst of
//! all workspaces (`super`).

use std::cmp::Reverse;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Eyes, Look, Rank, STEP};
use crate::api::subscriptions;
use crate::domain::subscription::Subscription;
use crate::domain::time::Millis;
use crate::domain::workspace::Workspace;
use crate::error::Result;
use crate::store::{LaneCounts, Rows};

/// A subscription's lane that is not as it should be.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LaneTrouble {
    subscription_id: String,
    /// Only where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace_id: Option<String>,
    address: String,
    /// `active`, `retrying`, `paused` or `disabled`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_reason: Option<String>,
    pending: u64,
    oldest_pending_at: Option<String>,
    dead: u64,
    /// The first failure since the last success.
    failing_since: Option<String>,
    /// Only one delivery is tried until the endpoint accepts again.
    breaker_open: bool,
    #[serde(skip)]
    rank: (Millis, Reverse<u64>, Millis),
}

impl Rank for LaneTrouble {
    type Key = (Millis, Reverse<u64>, Millis);
    fn rank(&self) -> Self::Key {
        self.rank
    }
}

/// Subscriptions by status, and what they owe together.
#[derive(Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LaneTotals {
    active: u64,
    retrying: u64,
    paused: u64,
    disabled: u64,
    breakers_open: u64,
    pending: u64,
    oldest_pending_at: Option<String>,
    dead: u64,
    #[serde(skip)]
    oldest: Option<Millis>,
}

impl LaneTotals {
    fn add(&mut self, status: &str, counts: LaneCounts, oldest: Option<Millis>, open: bool) {
        match status {
            "active" => self.active += 1,
            "retrying" => self.retrying += 1,
            "paused" => self.paused += 1,
            _ => self.disabled += 1,
        }
        self.breakers_open += u64::from(open);
        self.pending += counts.pending;
        self.dead += counts.dead;
        self.oldest = self.oldest.into_iter().chain(oldest).min();
        self.oldest_pending_at = self.oldest.map(Millis::rfc3339_millis);
    }
}

/// Looks at the lanes of a workspace.
pub(super) fn look(to: &mut Look, rows: &Rows, eyes: &Eyes, workspace: &Workspace) -> Result<()> {
    let mut before: Option<Vec<u8>> = None;
    loop {
        if to.subscriptions_left == 0 {
            to.complete = false;
            return Ok(());
        }
        let page = rows.subscriptions(workspace.no, before.as_deref(), STEP.min(to.subscriptions_left))?;
        to.subscriptions_left -= page.items.len().min(to.subscriptions_left);
        for subscription in &page.items {
            one(to, rows, eyes, workspace, subscription)?;
        }
        match page.next {
            None => return Ok(()),
            next => before = next,
        }
    }
}

fn one(to: &mut Look, rows: &Rows, eyes: &Eyes, workspace: &Workspace, of: &Subscription) -> Result<()> {
    let low = eyes.state.outlet.flights.low(of.lane);
    let (status, status_reason) = subscriptions::status_from(rows, of, &low, eyes.now)?;
    let mark = rows.lane_mark(of.lane)?;
    let counts = if rows.is_clear(of.lane, &low)? { LaneCounts::default() } else { rows.lane_counts(of.lane)? };
    let oldest = if counts.pending == 0 { None } else { rows.oldest_pending(of.lane, &low)? };
    to.subscription_totals.add(status, counts, oldest, mark.open);
    let fine = counts.pending == 0 && counts.dead == 0 && mark.failing_since.is_none() && status != "disabled";
    if fine {
        return Ok(());
    }
    let late = Millis(u64::MAX);
    to.lanes.push(LaneTrouble {
        subscription_id: of.id.to_string(),
        workspace_id: eyes.names_workspaces.then(|| workspace.id.to_string()),
        address: of.address.clone(),
        status,
        status_reason,
        pending: counts.pending,
        oldest_pending_at: oldest.map(Millis::rfc3339_millis),
        dead: counts.dead,
        failing_since: mark.failing_since.map(Millis::rfc3339_millis),
        breaker_open: mark.open,
        rank: (oldest.unwrap_or(late), Reverse(counts.dead), mark.failing_since.unwrap_or(late)),
    });
    Ok(())
}
