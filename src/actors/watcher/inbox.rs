//! A connection's stored webhooks: understood, laid beside the snapshot, and settled.
//!
//! Always true: a webhook is settled in the commit of what it brought, so it counts once, also over a crash; what cannot
//! be understood is tried a bounded number of times and then parked with its reason; an app that cannot be reached costs
//! no try. A webhook is a hint: the record is fetched through the poll's own mapping, once for all webhooks that wait for
//! it, unless the connector declares the webhook's body complete. Not here: signatures (judged at the door).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::account::Account;
use super::changes::{Seen, Sighting};
use super::commit::{Absorb, Commit, Standing, Wish};
use super::request::{keep_log, request};
use super::{fields, told};
use crate::actors::Deps;
use crate::connectors::spec::WebhookBody;
use crate::connectors::{CallError, Change, ChangeKind, Collection, Of};
use crate::domain::event::Source;
use crate::domain::id::InboxId;
use crate::domain::record::record_id;
use crate::domain::secret::Secret;
use crate::domain::snapshot::Version;
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::{InboxRow, InboxState};

/// Webhooks looked at in one commit.
const ROWS_MAX: usize = 250;
/// Commits of one round, so that a flood of webhooks does not starve the polls.
const ROUNDS_MAX: usize = 50;
/// The wait after a first failure; it doubles with each further one.
const RETRY_START: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(600);

/// How far one row has come in this round.
enum Fate {
    Understood {
        note: String,
    },
    /// Later, without counting a try: the app could not be asked.
    Later {
        wait: Duration,
    },
    /// It cannot be understood as it is: counts a try.
    Failed {
        reason: String,
    },
}

struct Item {
    id: InboxId,
    row: InboxRow,
    fate: Fate,
}

/// What waits to be fetched or judged, in the order in which it came.
struct Job {
    collection: String,
    remote_id: String,
    rows: Vec<InboxId>,
    what: What,
}

enum What {
    Seen(Seen),
    Fetch,
}

/// What a step came to.
enum Stepped {
    On,
    /// The app could not be asked about any of them: no use in asking about the next ones now.
    Quiet(Duration),
    /// The connection is gone, or its credentials are refused.
    Stop,
}

/// Works through the webhooks that are due. True: the connection is gone, or its credentials are refused.
pub async fn work(deps: &Deps, account: &Arc<Account>) -> Result<bool> {
    let id = account.connection.id;
    for _ in 0..ROUNDS_MAX {
        let now = deps.clock.now();
        if deps.memory.quiet_until(&deps.rings, id).is_some_and(|until| now < until) {
            return Ok(false);
        }
        let (rows, _) = deps.store.inbox_due(&id.0, deps.memory.inbox_from(&id.0, now), now, ROWS_MAX)?;
        deps.memory.inbox_read(id.0, &rows, now);
        if rows.is_empty() {
            return Ok(false);
        }
        match step(deps, account, rows).await? {
            Stepped::On => {}
            Stepped::Quiet(wait) => deps.memory.quiet(&deps.rings, id, deps.clock.now().after(wait)),
            Stepped::Stop => return Ok(true),
        }
    }
    Ok(false)
}

/// One commit's worth.
async fn step(deps: &Deps, account: &Arc<Account>, rows: Vec<(InboxId, InboxRow)>) -> Result<Stepped> {
    let mut items = Vec::new();
    let mut jobs: Vec<Job> = Vec::new();
    let mut commit = Commit::default();
    for (id, mut row) in rows {
        let fate = match understand(deps, account, id, &mut row, &mut commit).await? {
            Ok(changes) => take(account, &mut jobs, &mut commit.erase, id, &row, changes),
            Err(error @ CallError::Unauthorized(_)) => {
                account.give_up(deps, &error.to_string()).await?;
                return Ok(Stepped::Stop);
            }
            Err(error) => fate_of(&error),
        };
        items.push(Item { id, row, fate });
    }
    jobs.retain(|job| !commit.erases(account.connector(), &job.collection, &job.remote_id));
    doubt(deps, account, &mut jobs)?;
    let fetched = fetch(deps, account, jobs, &mut items).await?;
    let Some(jobs) = fetched else { return Ok(Stepped::Stop) };
    judge(deps, account, jobs, &mut items, &mut commit).await?;
    let quiet = quiet(&items);
    settle(deps, items, &mut commit);
    Ok(match (commit.run(deps, account).await?, quiet) {
        (Standing::Gone, _) => Stepped::Stop,
        (Standing::There, Some(wait)) => Stepped::Quiet(wait),
        (Standing::There, None) => Stepped::On,
    })
}

/// How long to ask nothing, if the app could not be asked about any of these.
fn quiet(items: &[Item]) -> Option<Duration> {
    let wait = |item: &Item| match item.fate {
        Fate::Later { wait } => Some(wait),
        Fate::Understood { .. } | Fate::Failed { .. } => None,
    };
    items.iter().map(wait).collect::<Option<Vec<_>>>()?.into_iter().min()
}

/// What a stored request says.
async fn understand(
    deps: &Deps,
    account: &Arc<Account>,
    id: InboxId,
    row: &mut InboxRow,
    commit: &mut Commit,
) -> Result<std::result::Result<Vec<Change>, CallError>> {
    let Some(event) = row.event.clone() else {
        let state = match &commit.webhook_state {
            Some(newer) => Some(newer.clone()),
            None => deps.store.webhook_state(&account.connection.id.0)?,
        };
        let request = request(deps, row);
        let known = account.connection.account.as_deref();
        let of = Of { state: state.as_ref().map(Secret::expose), account: known };
        let handled = account.call(deps, || account.session.handle_webhook(&request, of)).await?;
        return Ok(handled.map(|handled| {
            keep_log(row, handled.log);
            if let Some(state) = handled.state {
                commit.webhook_state = Some(Secret::new(state));
            }
            handled.changes
        }));
    };
    let text = String::from_utf8_lossy(&row.body).into_owned();
    let payload = match RawValue::from_string(text.clone()) {
        Ok(payload) => payload,
        Err(error) => return Ok(Err(CallError::BadAnswer(format!("the event is not JSON: {error}")))),
    };
    Ok(match account.session.event_change(&event, &payload) {
        Ok(Some(change)) => Ok(vec![change]),
        Ok(None) => {
            commit.told.push((told::plain(deps.clock.now(), account, id, row, &event, text), Some(id)));
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    })
}

/// Turns the changes of one row into jobs; hints of one record become one.
fn take(
    account: &Account,
    jobs: &mut Vec<Job>,
    erase: &mut Vec<(Wish, InboxId)>,
    id: InboxId,
    row: &InboxRow,
    changes: Vec<Change>,
) -> Fate {
    let wanted = &account.connection.collections;
    let mut notes = Vec::new();
    for change in changes {
        if let Some(wish) = Wish::of(account.connector(), &change) {
            erase.push((wish, id));
            continue;
        }
        let Some(c) = account.connector().collection(&change.collection) else {
            return Fate::Failed { reason: format!("the connector has no collection {:?}", change.collection) };
        };
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&c.key)) {
            notes.push(format!("{} is not wanted on this connection", c.key));
            continue;
        }
        let observed_at = row.received_at;
        let what = match (change.kind, change.record) {
            (ChangeKind::Deleted, record) => {
                let remote_updated_at = record.and_then(|record| record.updated_at);
                What::Seen(Seen::Gone { remote_updated_at, observed_at })
            }
            (_, Some(record)) if c.webhook_body == WebhookBody::Complete => {
                What::Seen(Seen::Record { record, observed_at })
            }
            _ => What::Fetch,
        };
        let known = jobs.iter_mut().find(|job| {
            let same = job.remote_id == change.remote_id && job.collection == change.collection;
            same && matches!((&job.what, &what), (What::Fetch, What::Fetch))
        });
        match known {
            Some(job) => job.rows.push(id),
            None => jobs.push(Job { collection: change.collection, remote_id: change.remote_id, rows: vec![id], what }),
        }
    }
    Fate::Understood { note: notes.join("; ") }
}

/// A webhook tells what was so once, and apps send them in any order: where it would bring a record back that is gone,
/// or take one away that was seen since, the app is asked what is so now.
fn doubt(deps: &Deps, account: &Account, jobs: &mut [Job]) -> Result<()> {
    let id = account.connection.id;
    let mut gone = HashSet::new();
    for job in jobs {
        let (What::Seen(seen), Some(c)) = (&job.what, account.connector().collection(&job.collection)) else {
            continue;
        };
        let record = record_id(id, &c.topic, &job.remote_id).into_bytes();
        let row = deps.store.snapshot_rows(id, &c.key, &[record])?.pop().flatten();
        let is_doubtful = match seen {
            Seen::Record { record: shown, observed_at } => {
                let version = Version { remote_updated_at: shown.updated_at, observed_at: *observed_at };
                gone.contains(&record) || row.is_some_and(|row| !row.is_live() && version.replaces(row.version))
            }
            Seen::Gone { observed_at, .. } => {
                gone.insert(record);
                row.is_some_and(|row| row.is_live() && row.version.observed_at > *observed_at)
            }
            Seen::Missing { .. } => false,
        };
        if is_doubtful {
            job.what = What::Fetch;
        }
    }
    Ok(())
}

/// Fetches what must be fetched. None: the connection stops.
async fn fetch(deps: &Deps, account: &Arc<Account>, jobs: Vec<Job>, items: &mut [Item]) -> Result<Option<Vec<Job>>> {
    let mut ready = Vec::new();
    for mut job in jobs {
        if matches!(job.what, What::Fetch) {
            let Some(c) = account.connector().collection(&job.collection) else { continue };
            if !c.fetches() {
                ready.push(job);
                continue;
            }
            let sent_at = deps.clock.now();
            let answer = match fields::ready(deps, account, c).await? {
                Ok(()) => fields::call(deps, account, c, || account.session.fetch(c, &job.remote_id)).await?,
                Err(error) => Err(error),
            };
            job.what = What::Seen(match answer {
                Ok(Some(record)) if record.remote_id != job.remote_id => {
                    // What was asked for was merged into another record (HubSpot), or has a longer id (Salesforce).
                    let (collection, rows, remote_id) =
                        (job.collection.clone(), job.rows.clone(), record.remote_id.clone());
                    let what = What::Seen(Seen::Record { record, observed_at: sent_at });
                    ready.push(Job { collection, remote_id, rows, what });
                    Seen::Gone { remote_updated_at: None, observed_at: sent_at }
                }
                Ok(Some(record)) => Seen::Record { record, observed_at: sent_at },
                Ok(None) => Seen::Gone { remote_updated_at: None, observed_at: sent_at },
                Err(error @ CallError::Unauthorized(_)) => {
                    account.give_up(deps, &error.to_string()).await?;
                    return Ok(None);
                }
                Err(error) => {
                    for item in items.iter_mut().filter(|item| job.rows.contains(&item.id)) {
                        item.fate = fate_of(&error);
                    }
                    continue;
                }
            });
        }
        ready.push(job);
    }
    Ok(Some(ready))
}

/// Lays the jobs beside the snapshot, collection by collection.
async fn judge(
    deps: &Deps,
    account: &Arc<Account>,
    jobs: Vec<Job>,
    items: &mut [Item],
    commit: &mut Commit,
) -> Result<()> {
    let mut by_collection: HashMap<String, (Vec<Sighting>, Vec<InboxId>, bool)> = HashMap::new();
    for job in jobs {
        let entry = by_collection.entry(job.collection).or_default();
        entry.1.extend(job.rows.iter().copied());
        match job.what {
            What::Seen(what) => {
                let last = job.rows.last().copied();
                let source = last.map_or(Source::Engine, Source::Webhook);
                entry.0.push(Sighting { remote_id: job.remote_id, what, source, inbox: last, ready: None });
            }
            // Nobody can fetch it: the next look at the app finds it.
            What::Fetch => entry.2 = true,
        }
    }
    for (key, (sightings, rows, look)) in by_collection {
        let Some(c) = account.connector().collection(&key) else { continue };
        account.note_other();
        let absorb = Absorb { deps, account, collection: c, fresh: None };
        let (judged, mut state) = absorb.judge(sightings).await?;
        for (row, problem) in &judged.problems {
            if let Some(item) = items.iter_mut().find(|item| Some(item.id) == *row) {
                item.fate = Fate::Failed { reason: problem.clone() };
            }
        }
        let received = items.iter().filter(|item| rows.contains(&item.id)).map(|item| item.row.received_at).max();
        state.last_webhook_at = state.last_webhook_at.max(received);
        if look {
            look_soon(c, &mut state, deps.clock.now());
        }
        commit.collections.push((key, judged, state));
    }
    Ok(())
}

fn look_soon(c: &Collection, state: &mut crate::domain::connection::CollectionState, now: Millis) {
    // A failing app is left alone until its back-off is over.
    let due = if state.failures == 0 { Some(now) } else { return };
    match c.pulls() {
        true => state.next_pull_at = due,
        false => state.next_scan_at = due,
    }
}

fn settle(deps: &Deps, items: Vec<Item>, commit: &mut Commit) {
    let now = deps.clock.now();
    let mut postponed = HashSet::new();
    for mut item in items {
        let tries = match item.row.state {
            InboxState::Waiting { tries } => tries,
            _ => 0,
        };
        let mut due = now;
        item.row.state = match item.fate {
            Fate::Understood { note } => InboxState::Done { at: now, events: Vec::new(), handed_to: Vec::new(), note },
            Fate::Later { wait } => {
                due = now.after(wait);
                postponed.insert(item.id);
                InboxState::Waiting { tries }
            }
            Fate::Failed { reason } if tries + 1 >= deps.handle_tries_max => InboxState::Parked { at: now, reason },
            Fate::Failed { reason } => {
                due = now.after(RETRY_START.saturating_mul(1 << tries.min(10)).min(RETRY_MAX));
                keep_log(&mut item.row, vec![format!("try {}: {reason}", tries + 1)]);
                InboxState::Waiting { tries: tries + 1 }
            }
        };
        commit.inbox.push((item.id, item.row, due));
    }
    commit.keep_wishes();
    // What a postponed webhook brought besides is brought again, and then nothing has changed.
    commit.told.retain(|(_, inbox)| inbox.is_none_or(|id| !postponed.contains(&id)));
}

/// What an app's or script's failure means for a webhook.
fn fate_of(error: &CallError) -> Fate {
    let waits = matches!(error, CallError::RateLimited { .. } | CallError::Unavailable { .. });
    if waits {
        let wait = error.retry_after().unwrap_or(Duration::from_secs(30)).clamp(Duration::from_secs(1), RETRY_MAX);
        return Fate::Later { wait };
    }
    Fate::Failed { reason: error.to_string() }
}
