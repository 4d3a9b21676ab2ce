//! The eraser: takes erasures forward, each in small steps: records, stored webhooks, events with their deliveries, the disk.
//!
//! Always true: what it does is in the store, so a restart goes on where it was; `deleted` is told in the commit that makes
//! the tombstone, so once, whatever happens; a step reads and writes a bounded number of rows; a job has ended only when
//! the bytes are off the disk. Not here: what an erasure is (`domain::erasure`), its rows (`store::erase`), who asks for it
//! (`api`, `watcher::inbox`).

mod events;
mod records;
mod webhooks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, SpawnHandle, WrapFuture};

use super::Deps;
use super::courier::outlet::Outlet;
use super::supervisor::Wake;
use crate::connectors::Connector;
use crate::domain::audit::Act;
use crate::domain::connection::Connection;
use crate::domain::erasure::{Cause, Erasure, Stage};
use crate::domain::id::{ErasureId, WorkspaceNo};
use crate::domain::models::Catalogue;
use crate::domain::time::Millis;
use crate::error::{Error, Result};
use crate::store::{Rows, Tx};

/// Steps of one round.
const STEPS_MAX: usize = 20;
/// Erasures under way at the same time; the others wait for their turn.
const LIVE_MAX: usize = 100;
/// After a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// What it works with.
#[derive(Clone)]
pub struct Tools {
    pub deps: Deps,
    /// It holds bodies that were made of events, and knows what is in flight.
    pub outlet: Arc<Outlet>,
}

/// What follows from a step.
#[derive(Debug)]
pub enum Next {
    At(Millis),
    /// Nothing is left but the bytes on the disk.
    Disk(Box<Erasure>),
    /// It has ended, or is gone.
    Ended,
}

type Due = BTreeMap<(WorkspaceNo, ErasureId), Millis>;

/// The actor.
pub struct Eraser {
    tools: Tools,
    due: Due,
    /// A round is under way: it may take long, and the mailbox stays open meanwhile.
    is_busy: bool,
    /// Rung during a round.
    again: bool,
    timer: Option<SpawnHandle>,
}

impl Eraser {
    /// An eraser that has looked at nothing yet.
    pub fn new(tools: Tools) -> Self {
        Self { tools, due: Due::new(), is_busy: false, again: false, timer: None }
    }
}

impl Actor for Eraser {
    type Context = Context<Self>;
}

impl Handler<Wake> for Eraser {
    type Result = ();
    fn handle(&mut self, wake: Wake, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.is_busy, true) {
            self.again = true;
            return;
        }
        let (tools, due) = (self.tools.clone(), std::mem::take(&mut self.due));
        ctx.spawn(go_round(tools, due).into_actor(self).map(move |outcome, eraser, ctx| {
            eraser.is_busy = false;
            let now = eraser.tools.deps.clock.now();
            let mut next = match outcome {
                Ok(due) => {
                    eraser.due = due;
                    eraser.due.values().min().copied()
                }
                Err(error) => {
                    tracing::error!(error = error.chain(), "erasures could not be looked at; trying again");
                    Some(now.after(AGAIN))
                }
            };
            if std::mem::take(&mut eraser.again) {
                next = Some(now);
            }
            if let Some(timer) = eraser.timer.take() {
                ctx.cancel_future(timer);
            }
            eraser.timer = next.map(|at| ctx.notify_later(wake, at.since(now)));
        }));
    }
}

/// Takes the erasures forward whose time has come. Those that are through are taken off the disk together.
async fn go_round(tools: Tools, mut due: Due) -> Result<Due> {
    let live = tools.deps.store.blocking(|rows| rows.live_erasures(LIVE_MAX)).await?;
    due.retain(|id, _| live.contains(id));
    for id in live {
        due.entry(id).or_default();
    }
    let now = tools.deps.clock.now();
    let mut ready: Vec<_> = due.iter().map(|(id, at)| (*at, *id)).filter(|(at, _)| *at <= now).collect();
    ready.sort_unstable();
    let mut through = Vec::new();
    for (_, id) in ready.into_iter().take(STEPS_MAX) {
        match step(&tools, id).await {
            Ok(Next::At(at)) => drop(due.insert(id, at)),
            Ok(Next::Disk(job)) => through.push(*job),
            Ok(Next::Ended) => drop(due.remove(&id)),
            Err(error) => {
                tracing::error!(erasure = %id.1, error = error.chain(), "an erasure could not go on; trying again");
                due.insert(id, tools.deps.clock.now().after(AGAIN));
            }
        }
    }
    if through.is_empty() {
        return Ok(due);
    }
    let ids: Vec<_> = through.iter().map(|job| (job.workspace, job.id)).collect();
    match complete(&tools, through).await {
        Ok(()) => due.retain(|id, _| !ids.contains(id)),
        Err(error) => {
            tracing::error!(error = error.chain(), "erased bytes could not be taken off the disk; trying again");
            let at = tools.deps.clock.now().after(AGAIN);
            due.extend(ids.into_iter().map(|id| (id, at)));
        }
    }
    Ok(due)
}

/// Takes one step.
///
/// # Errors
/// The store's.
pub async fn step(tools: &Tools, (workspace, id): (WorkspaceNo, ErasureId)) -> Result<Next> {
    let found = tools.deps.store.blocking(move |rows| rows.erasure(workspace, id)).await?;
    let Some(job) = found else { return Ok(Next::Ended) };
    match job.stage {
        Stage::Records { .. } => records::step(tools, job).await,
        Stage::Webhooks { .. } => webhooks::step(tools, job).await,
        Stage::Events { .. } => events::step(tools, job).await,
        Stage::Disk => Ok(Next::Disk(Box::new(job))),
        Stage::Completed { .. } => Ok(Next::Ended),
    }
}

/// Takes the bytes off the disk, and ends the jobs.
///
/// # Errors
/// The store's: the bytes may still be there, and the jobs go on.
pub async fn complete(tools: &Tools, jobs: Vec<Erasure>) -> Result<()> {
    let deps = &tools.deps;
    deps.store.scrub(&jobs).await?;
    let ids: Vec<_> = jobs.iter().map(|job| (job.workspace, job.id)).collect();
    let change = move |tx: &mut Tx<'_>| {
        let mut ended = Vec::new();
        for (workspace, id) in ids {
            let Some(mut job) = tx.erasure(workspace, id)?.filter(|job| job.stage == Stage::Disk) else { continue };
            job.complete(tx.now());
            tx.put_erasure(&job)?;
            let act = Act::ErasureCompleted { erasure: id, counts: job.counts };
            tx.put_audit(workspace, job.cause.into(), act)?;
            ended.push(job);
        }
        Ok(ended)
    };
    for job in deps.store.change(change).await? {
        let cause = match job.cause {
            Cause::Key(_) => "key",
            Cause::Webhook(_) => "webhook",
        };
        deps.metrics.erasures.with([cause]).inc();
        tracing::info!(erasure = %job.id, counts = ?job.counts, "an erasure has completed");
    }
    Ok(())
}

/// Changes a job if it still stands where the step found it, together with what the step changes.
async fn advance(
    tools: &Tools,
    before: &Erasure,
    change: impl FnOnce(&mut Tx<'_>, &mut Erasure) -> Result<()> + Send + 'static,
) -> Result<Next> {
    let (workspace, id, stage) = (before.workspace, before.id, before.stage.clone());
    let change = move |tx: &mut Tx<'_>| {
        if let Some(mut job) = tx.erasure(workspace, id)?.filter(|job| job.stage == stage) {
            change(tx, &mut job)?;
            job.updated_at = tx.now();
            tx.put_erasure(&job)?;
        }
        Ok(())
    };
    tools.deps.store.change(change).await?;
    Ok(Next::At(tools.deps.clock.now()))
}

/// The connector of a connection as it is set up; None: it is not on this node any more, or cannot be used.
fn connector(rows: &Rows, deps: &Deps, connection: &Connection) -> Result<Option<Arc<Connector>>> {
    let Some(connector) = deps.connectors.get(&connection.connector) else { return Ok(None) };
    let given = super::watcher::account::given_parameters(rows, connection)?;
    Ok(Some(connector.specialise(&given).unwrap_or(connector)))
}

/// The topics that a record without a topic may have: those of its connector, and all that there are.
fn topics(connector: Option<&Connector>) -> Vec<String> {
    let own = connector.into_iter().flat_map(|connector| connector.collections.iter().map(|c| c.topic.clone()));
    let all = Catalogue::embedded().models().iter().filter(|model| !model.system).map(|model| model.topic.clone());
    let mut topics: Vec<String> = own.chain(all).collect();
    topics.sort_unstable();
    topics.dedup();
    topics
}

/// A place in a job's list; one past its end is none.
fn at(list: u32) -> Result<usize> {
    usize::try_from(list).map_err(Error::internal)
}
