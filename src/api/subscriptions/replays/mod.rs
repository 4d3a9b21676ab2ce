//! `…/webhooks/{id}/replays` and `/one/replays`: sending many events again, as durable jobs.
//!
//! Always true: what a replay goes over is fixed when it is made; a subscription has a bounded number of replays, under way
//! and kept. Not here: which events are chosen and when they are sent (`actors::replayer`).

mod shape;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use schemars::JsonSchema;
use serde::Deserialize;

use self::shape::{Asked, CountView, DryRun, NewReplay, OneReplay, Replays, selection, view};
use super::check::{self, Context};
use super::{Call, find, id_of};
use crate::actors::replayer::{self, Selector};
use crate::api::call::not_found;
use crate::api::paging::{self, Paging};
use crate::api::reply::Reply;
use crate::api::route::{PAGED, Param, Route, group};
use crate::domain::id::{ReplayId, SubscriptionId, WorkspaceNo};
use crate::domain::replay::{Pace, Replay, ReplayState};
use crate::domain::subscription::Subscription;
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Tx};

/// Replays of one subscription that may be under way, paused ones included.
const LIVE_MAX: usize = 5;
/// Replays of one subscription that are kept; the oldest that have ended go first.
const KEPT_MAX: usize = 100;
/// Subscriptions that a list without `subscriptionId` goes over.
const LANES_MAX: usize = 10_000;

/// A body without fields.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

pub(in crate::api) fn routes() -> Vec<Route> {
    let of = [Param { name: "subscriptionId", about: "Of this subscription." }];
    let routes = vec![
        Route::post("/{version}/one/webhooks/{subscriptionId}/replays", "Send many events again", create)
            .takes::<NewReplay>()
            .gives::<Asked>(),
        Route::get("/{version}/one/replays", "List replays", list).query(PAGED).query(&of).gives::<Replays>(),
        Route::get("/{version}/one/replays/{replayId}", "Show a replay with its progress", show).gives::<OneReplay>(),
        Route::post("/{version}/one/replays/{replayId}/pause", "Make no more for now", pause)
            .takes::<Nothing>()
            .gives::<OneReplay>(),
        Route::post("/{version}/one/replays/{replayId}/resume", "Go on", resume)
            .takes::<Nothing>()
            .gives::<OneReplay>(),
        Route::post("/{version}/one/replays/{replayId}/cancel", "Make no more, and cancel what waits", cancel)
            .takes::<Nothing>()
            .gives::<OneReplay>(),
    ];
    group("replays", routes)
}

async fn create(call: Call) -> Result<Reply> {
    let (asked, workspace, id) = (call.json::<NewReplay>()?, call.workspace()?, id_of(&call)?);
    let (context, now) = (Context::of(&call)?, call.now());
    let rate_milli = asked.rate_per_second.map(check::per_second).transpose()?;
    let dry_run = asked.dry_run;
    let read = move |rows: &Rows| {
        let to = find(rows, workspace, id)?;
        let selection = selection(rows, &context, &asked)?;
        let range = rows.replay_range(selection.from, selection.to)?;
        Ok((to, selection, range))
    };
    let (to, selection, (start, until)) = call.read(read).await?;
    if dry_run {
        let counted = replayer::count(&call.state.store, Selector::new(&to, &selection), (start, until), now).await?;
        return Reply::json(&Asked::Counted(DryRun { dry_run: CountView::of(counted) }));
    }
    let change = move |tx: &mut Tx<'_>| {
        let (to, now) = (find(tx, workspace, id)?, tx.now());
        if tx.live_replays_of(to.lane)? >= LIVE_MAX {
            let message = format!(
                "{LIVE_MAX} replays of this subscription are under way; cancel one of them, or wait until one has ended"
            );
            return Err(Error::new(Code::Conflict, message));
        }
        let replay = Replay {
            id: ReplayId::new(tx.next_seq()?, to.lane),
            subscription: to.id,
            selection,
            pace: rate_milli.map(|rate_milli| Pace::new(rate_milli, now)),
            state: ReplayState::Running,
            start,
            until,
            cursor: start,
            looked: 0,
            made: 0,
            unjudged: 0,
            created_at: now,
            updated_at: now,
        };
        tx.forget_replays(to.lane, KEPT_MAX - 1)?;
        tx.put_replay(&replay)?;
        Ok((Reply::json(&Asked::Made(OneReplay { replay: view(tx, &replay, &to, now)? }))?, ()))
    };
    let (reply, ()) = call.change(change).await?;
    call.state.rings.replays_changed();
    Ok(reply)
}

/// A replay of this workspace, with its subscription.
fn one(rows: &Rows, workspace: WorkspaceNo, id: ReplayId) -> Result<(Replay, Subscription)> {
    let missing = || not_found(Code::ReplayNotFound, &id.to_string());
    let subscription = rows.subscription_by_lane(id.parts().1)?.filter(|s| s.workspace == workspace);
    let subscription = subscription.ok_or_else(missing)?;
    Ok((rows.replay(id)?.ok_or_else(missing)?, subscription))
}

async fn list(call: Call) -> Result<Reply> {
    let (workspace, page, now) = (call.workspace()?, Paging::of(&call)?, call.now());
    let before = page.before_exactly::<12>()?.map(ReplayId);
    let of = call.query_id::<SubscriptionId>("subscriptionId", Code::SubscriptionNotFound)?;
    let read = move |rows: &Rows| {
        let subscriptions = match of {
            Some(id) => vec![find(rows, workspace, id)?],
            None => rows.subscriptions(workspace, None, LANES_MAX)?.items,
        };
        let mut ids = newest(rows, &subscriptions, before, page.limit + 1)?;
        let more = ids.len() > page.limit;
        ids.truncate(page.limit);
        let next = ids.last().filter(|_| more).map(|id| paging::next(id.0));
        let mut replays = Vec::new();
        for id in ids {
            let (replay, subscription) = one(rows, workspace, id)?;
            replays.push(view(rows, &replay, &subscription, now)?);
        }
        Reply::json(&Replays { replays, next })
    };
    call.read(read).await
}

/// The newest replays of these subscriptions before `before`, newest first. Ids sort by creation.
fn newest(
    rows: &Rows,
    subscriptions: &[Subscription],
    before: Option<ReplayId>,
    limit: usize,
) -> Result<Vec<ReplayId>> {
    let mut kept: BinaryHeap<Reverse<ReplayId>> = BinaryHeap::new();
    for subscription in subscriptions {
        // No two replays have the same sequence, whatever their lanes.
        let seq = before.map(|id| id.parts().0);
        for id in rows.replays(subscription.lane, seq, limit)? {
            if kept.len() == limit && kept.peek().is_some_and(|Reverse(oldest)| id < *oldest) {
                break;
            }
            kept.push(Reverse(id));
            if kept.len() > limit {
                kept.pop();
            }
        }
    }
    Ok(kept.into_sorted_vec().into_iter().map(|Reverse(id)| id).collect())
}

async fn show(call: Call) -> Result<Reply> {
    let (workspace, id, now) = (call.workspace()?, call.id::<ReplayId>("replayId", Code::ReplayNotFound)?, call.now());
    let read = move |rows: &Rows| {
        let (replay, subscription) = one(rows, workspace, id)?;
        Reply::json(&OneReplay { replay: view(rows, &replay, &subscription, now)? })
    };
    call.read(read).await
}

async fn pause(call: Call) -> Result<Reply> {
    turn(call, |replay, _| match replay.state {
        ReplayState::Running | ReplayState::Paused => Ok(ReplayState::Paused),
        state => Err(ended(state)),
    })
    .await
}

async fn resume(call: Call) -> Result<Reply> {
    turn(call, |replay, _| match replay.state {
        ReplayState::Running | ReplayState::Paused => Ok(ReplayState::Running),
        state => Err(ended(state)),
    })
    .await
}

async fn cancel(call: Call) -> Result<Reply> {
    turn(call, |replay, owed| match replay.state {
        ReplayState::Running | ReplayState::Paused | ReplayState::Cancelling => Ok(ReplayState::Cancelling),
        // What failed is tried again for days: that can be cancelled too.
        ReplayState::Completed { .. } if owed > 0 => Ok(ReplayState::Cancelling),
        ReplayState::Completed { .. } => {
            Err(Error::new(Code::Conflict, "nothing that this replay has made is owed any more"))
        }
        state @ ReplayState::Cancelled { .. } => Ok(state),
    })
    .await
}

fn ended(state: ReplayState) -> Error {
    let text = match state {
        ReplayState::Cancelling => "the replay is being cancelled",
        ReplayState::Cancelled { .. } => "the replay was cancelled",
        _ => "the replay has completed",
    };
    Error::new(Code::Conflict, format!("{text}; make another one"))
}

/// Changes the state of a replay; `next` is given how many of its deliveries are owed.
async fn turn(call: Call, next: fn(&Replay, u64) -> Result<ReplayState>) -> Result<Reply> {
    let Nothing {} = call.json()?;
    let (workspace, id) = (call.workspace()?, call.id::<ReplayId>("replayId", Code::ReplayNotFound)?);
    let change = move |tx: &mut Tx<'_>| {
        let ((mut replay, subscription), now) = (one(tx, workspace, id)?, tx.now());
        let owed = replay.made.saturating_sub(tx.replay_counts(id)?.ended());
        let state = next(&replay, owed)?;
        if state != replay.state {
            (replay.state, replay.updated_at) = (state, now);
            tx.put_replay(&replay)?;
        }
        Ok((Reply::json(&OneReplay { replay: view(tx, &replay, &subscription, now)? })?, ()))
    };
    let (reply, ()) = call.change(change).await?;
    call.state.rings.replays_changed();
    Ok(reply)
}
