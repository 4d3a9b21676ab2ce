//! One look at an owner: everything that is due for it, and when to look again.
//!
//! Always true: one look at a time per owner; a paused connection and one whose credentials are refused are left alone,
//! their webhooks kept, those aside that ask for an erasure. Not here: who calls it (`watcher`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::account::{Account, Opened};
use super::run::{Ended, FULL_WAIT, Run};
use super::{confirm, farewell, fields, global, hook, inbox, plan, pulls, scans, selectors, wishes};
use crate::actors::Deps;
use crate::actors::handle::Owner;
use crate::connectors::{CallError, Collection};
use crate::domain::connection::{CollectionState, Connection, ConnectionStatus, Farewell, Integration, SyncRequest};
use crate::domain::pull::Task;
use crate::domain::time::Millis;
use crate::error::Result;

/// A connection that cannot work as it is set up is looked at again so late.
const WRONG_WAIT: Duration = Duration::from_secs(3600);

/// Does everything that is due for one owner; answers when it should be looked at again. None: when somebody rings.
///
/// # Errors
/// Ours alone (the store): what an app does wrong is a recorded outcome.
pub async fn look(deps: &Deps, owner: Owner) -> Result<Option<Millis>> {
    // Before all else, since it has minutes; also where nothing is polled.
    let confirms = confirm::tend(deps, owner).await?;
    let next = look_for(deps, owner).await?;
    Ok(confirms.into_iter().chain(next).min())
}

async fn look_for(deps: &Deps, owner: Owner) -> Result<Option<Millis>> {
    if let Some(connection) = deps.store.object_anywhere::<Connection>(&owner)? {
        // What waits for an app is large: each part of it stands on the heap.
        return Box::pin(look_at(deps, connection)).await;
    }
    if let Some(integration) = deps.store.object_anywhere::<Integration>(&owner)? {
        return global::look(deps, integration).await;
    }
    match deps.store.object_anywhere::<Farewell>(&owner)? {
        Some(farewell) => farewell::say(deps, farewell).await,
        None => Ok(None),
    }
}

async fn look_at(deps: &Deps, connection: Connection) -> Result<Option<Millis>> {
    let now = deps.clock.now();
    if deps.store.is_full() {
        return Ok(Some(now.after(FULL_WAIT)));
    }
    if matches!(connection.status, ConnectionStatus::Paused | ConnectionStatus::AuthFailed { .. }) {
        return wishes::grant(deps, connection).await;
    }
    let account = match Account::open(deps, connection.clone())? {
        Opened::Ready(account) => account,
        Opened::Wrong(why) => {
            set_status(deps, &connection, ConnectionStatus::Error { since: now, message: why }).await?;
            return Ok(Some(now.after(WRONG_WAIT)));
        }
    };
    if matches!(connection.status, ConnectionStatus::Error { .. }) {
        set_status(deps, &connection, ConnectionStatus::Active).await?;
    }
    if inbox::work(deps, &account).await? {
        // Its credentials may just have been refused.
        return wishes::grant(deps, connection).await;
    }
    let tended = [hook::tend(deps, &account).await?, selectors::tend(deps, &account).await?];
    for request in deps.store.sync_requests(connection.id)? {
        match Box::pin(asked(deps, &account, request)).await? {
            Ended::Stop => return Ok(None),
            Ended::Full => return Ok(Some(deps.clock.now().after(FULL_WAIT))),
            Ended::Done | Ended::Later | Ended::Failed(_) => {}
        }
    }
    for c in wanted(&account) {
        match Box::pin(due(deps, &account, c)).await? {
            Ended::Stop => return Ok(None),
            Ended::Full => return Ok(Some(deps.clock.now().after(FULL_WAIT))),
            Ended::Done | Ended::Later | Ended::Failed(_) => {}
        }
    }
    next(deps, &account, tended.into_iter().flatten().collect())
}

/// The collections that the connection wants.
pub(super) fn wanted(account: &Account) -> impl Iterator<Item = &Collection> {
    let wanted = account.connection.collections.as_ref();
    let is_wanted = move |c: &&Collection| wanted.is_none_or(|wanted| wanted.contains(&c.key));
    account.connector().collections.iter().filter(is_wanted)
}

/// What is due for a collection by its own timers.
async fn due(deps: &Deps, account: &Arc<Account>, c: &Collection) -> Result<Ended> {
    let id = account.connection.id;
    let mut state = deps.store.collection_state(id, &c.key)?;
    let now = deps.clock.now();
    let plan = plan::of(deps, account, c, &state);
    let due = plan.due(&state, now);
    if c.discovers_fields() {
        // What fields there are is found out when something is due, not at each look.
        let Some(task) = due else { return Ok(Ended::Done) };
        if let Err(error) = fields::ready(deps, account, c).await? {
            return unready(deps, account, c, task, &state, error).await;
        }
    }
    let mapping = account.mapping_of(c);
    let remaps = state.baseline_at.is_some() && state.mapped_by != mapping;
    let task = match due {
        _ if remaps && state.failures == 0 && c.pulls() => Task::Pull,
        _ if remaps && state.failures == 0 && c.scans() => Task::Scan,
        Some(task) => task,
        None => return Ok(Ended::Done),
    };
    let mut whole = false;
    if remaps && c.pulls() && task == Task::Pull {
        // Everything is read and mapped again; should it break off, it goes on where it was, as any first pull.
        state.cursor = None;
        state.mapped_by = mapping;
        let key = c.key.clone();
        let stored = state.clone();
        deps.store.append(crate::store::Wait::Applied, move |tx| tx.put_collection_state(id, &key, &stored)).await?;
        whole = true;
    }
    let first = state.baseline_at.is_none();
    let mode = match (first, task) {
        (true, _) => "first",
        (false, Task::Scan) => "full",
        (false, Task::Pull) if whole => "full",
        (false, Task::Pull) => "incremental",
    };
    let under_way = c.has_bulk() && deps.store.bulk(id, &c.key)?.is_some();
    let tell = !first || (state.cursor.is_none() && state.failures == 0 && !under_way);
    let mut run = Run::begin(deps, account, &[c], mode, None, tell).await?;
    one(&mut run, c, task, whole, false).await
}

/// Without its fields a collection cannot be asked for anything.
async fn unready(
    deps: &Deps,
    account: &Arc<Account>,
    c: &Collection,
    task: Task,
    state: &CollectionState,
    error: CallError,
) -> Result<Ended> {
    let mode = if state.baseline_at.is_none() { "first" } else { "incremental" };
    let mut run = Run::begin(deps, account, &[c], mode, None, state.failures == 0).await?;
    run.fail(c, task, error).await
}

/// What somebody asked for.
async fn asked(deps: &Deps, account: &Arc<Account>, request: SyncRequest) -> Result<Ended> {
    let chosen = |c: &&Collection| request.collections.is_empty() || request.collections.contains(&c.key);
    let collections: Vec<&Collection> = wanted(account).filter(chosen).collect();
    let mode = if request.full { "full" } else { "incremental" };
    let approve = request.approve_deletes;
    let full = request.full;
    let mut run = Run::begin(deps, account, &collections, mode, Some(request), true).await?;
    if collections.is_empty() {
        return run.close_now().await;
    }
    run.left = collections.len();
    for c in collections {
        run.left -= 1;
        let ended = match (full && c.scans(), c.pulls()) {
            (true, true) => {
                // A scan may show ids alone; then the list of changes is read from its beginning.
                run.left += 1;
                let scanned = one(&mut run, c, Task::Scan, false, approve).await?;
                run.left -= 1;
                match scanned {
                    Ended::Done if run.ids_only => one(&mut run, c, Task::Pull, true, false).await?,
                    Ended::Done if run.left == 0 => run.close_now().await?,
                    other => other,
                }
            }
            (true, false) => one(&mut run, c, Task::Scan, false, approve).await?,
            (false, true) => one(&mut run, c, Task::Pull, full, false).await?,
            (false, false) => one(&mut run, c, Task::Scan, false, approve).await?,
        };
        match ended {
            Ended::Done => {}
            Ended::Failed(_) if run.goes_on() && run.left > 0 => {}
            Ended::Failed(_) if run.goes_on() => return run.close_now().await,
            other => return Ok(other),
        }
    }
    Ok(Ended::Done)
}

/// One task, measured.
async fn one(run: &mut Run<'_>, c: &Collection, task: Task, whole: bool, approve: bool) -> Result<Ended> {
    let started = Instant::now();
    let ready = fields::ready(run.deps, run.account, c).await?;
    run.mapping = run.account.mapping_of(c);
    let ended = match (ready, task) {
        (Err(error), _) => run.fail(c, task, error).await?,
        (Ok(()), Task::Pull) => Box::pin(pulls::pull(run, c, whole)).await?,
        (Ok(()), Task::Scan) => Box::pin(scans::scan(run, c, approve)).await?,
    };
    let outcome = match &ended {
        Ended::Done if run.pull.outcome == "held" => "held",
        Ended::Done => "ok",
        Ended::Later => "cut",
        Ended::Full => "cut",
        Ended::Failed(error) => error.slug(),
        Ended::Stop => "unauthorized",
    };
    let connector = &run.account.connector().key;
    run.deps.metrics.polls.with([connector, outcome]).inc();
    run.deps.metrics.poll.observe(started.elapsed().as_secs_f64());
    Ok(ended)
}

/// When the next thing is due for the connection, beside `times`.
fn next(deps: &Deps, account: &Account, mut times: Vec<Millis>) -> Result<Option<Millis>> {
    let id = account.connection.id;
    let now = deps.clock.now();
    let (due, later) = deps.store.inbox_due(&id.0, deps.memory.inbox_from(&id.0, now), now, 1)?;
    let quiet = deps.memory.quiet_until(&deps.rings, id).unwrap_or_default();
    times.extend(if due.is_empty() { later } else { Some(now) }.map(|at| at.max(quiet)));
    if !deps.store.sync_requests(id)?.is_empty() {
        times.push(deps.clock.now().after(FULL_WAIT));
    }
    for c in wanted(account) {
        let state = deps.store.collection_state(id, &c.key)?;
        times.extend(plan::of(deps, account, c, &state).next(&state));
    }
    Ok(times.into_iter().min())
}

async fn set_status(deps: &Deps, connection: &Connection, status: ConnectionStatus) -> Result<()> {
    let (id, workspace) = (connection.id, connection.workspace);
    deps.store
        .change(move |tx| {
            let Some(mut connection) = tx.connection(workspace, id)? else { return Ok(()) };
            let same = matches!((&connection.status, &status),
                (ConnectionStatus::Error { message: a, .. }, ConnectionStatus::Error { message: b, .. }) if a == b);
            // A person may have paused it meanwhile.
            if same || matches!(connection.status, ConnectionStatus::Paused | ConnectionStatus::AuthFailed { .. }) {
                return Ok(());
            }
            connection.status = status;
            connection.updated_at = tx.now();
            tx.put_object(&connection)
        })
        .await
}
