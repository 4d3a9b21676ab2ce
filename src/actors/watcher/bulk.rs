//! A large first sync by one operation of the app: it writes all records to a file, which is read piece by piece.
//!
//! Always true: how far the file has been read is in the commit of what was read, so that a crash repeats a piece and loses
//! none; what the file shows was observed when it was asked for, so that whatever was seen since is newer; the list of
//! changes is then read from that moment on, so that what changed meanwhile is not lost. Where the app refuses the
//! operation, or it fails or expires, the lists are walked as ever. Not here: what is asked (`connectors::bulk`).

use std::time::Duration;

use super::changes::Tally;
use super::commit::{Commit, Standing};
use super::fields;
use super::pulls::{commit_page, sightings};
use super::run::{Ended, Run};
use crate::connectors::{BulkFile, BulkProgress, BulkStart, CallError, Collection};
use crate::domain::connection::{CollectionState, Cursor};
use crate::domain::event::Source;
use crate::domain::pull::{Bulk, Task};
use crate::domain::time::Millis;
use crate::error::Result;

/// How long the app is first left alone with an operation; the wait doubles.
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// So long one look waits for it in all; then it is looked at again as often.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// An operation that has not ended by then never will.
const OPERATION_MAX: Duration = Duration::from_secs(24 * 3600);
/// What is asked of the file at once; doubled where one record is longer.
const PIECE_BYTES: usize = 4 << 20;
/// Addresses of the file that are asked for in one look: each is good for days.
const ADDRESSES_MAX: u32 = 3;

/// What a step comes to.
enum Step<T> {
    On(T),
    Ended(Ended),
    /// Walk the lists.
    Lists,
}

/// An operation that runs, or has run.
struct Running {
    operation: String,
    asked_at: Millis,
    offset: u64,
}

impl Running {
    fn row(&self) -> Bulk {
        Bulk::Running { operation: self.operation.clone(), asked_at: self.asked_at, offset: self.offset }
    }
}

/// Reads all records by one operation, where the app can, there are many, and it is the first time. None: go on with the
/// list of changes, from where the cursor now stands.
pub async fn first(
    run: &mut Run<'_>,
    c: &Collection,
    state: &CollectionState,
    sum: &mut Tally,
) -> Result<Option<Ended>> {
    if !c.has_bulk() || state.baseline_at.is_some() || state.cursor.is_some() {
        return Ok(None);
    }
    let running = match run.deps.store.bulk(run.account.connection.id, &c.key)? {
        Some(Bulk::GivenUp) => return Ok(None),
        Some(Bulk::Running { operation, asked_at, offset }) => Step::On(Running { operation, asked_at, offset }),
        Some(Bulk::Waiting { since }) => start(run, c, Some(since)).await?,
        None => match is_large(run, c).await? {
            Step::On(()) => start(run, c, None).await?,
            Step::Ended(ended) => Step::Ended(ended),
            Step::Lists => return Ok(None),
        },
    };
    let mut running = match running {
        Step::On(running) => running,
        Step::Ended(ended) => return Ok(Some(ended)),
        Step::Lists => return Ok(None),
    };
    for _ in 0..ADDRESSES_MAX {
        let file = match finished(run, c, &running).await? {
            Step::On(file) => file,
            Step::Ended(ended) => return Ok(Some(ended)),
            Step::Lists => return Ok(None),
        };
        match read(run, c, &file, &mut running, sum).await? {
            Step::On(true) | Step::Lists => return Ok(None),
            Step::On(false) => {}
            Step::Ended(ended) => return Ok(Some(ended)),
        }
    }
    give_up(run, c, "its file cannot be read any more").await?;
    Ok(None)
}

/// What a failure of a call means: a passing one is tried again later, any other leads back to the lists.
async fn failed<T>(run: &mut Run<'_>, c: &Collection, error: CallError) -> Result<Step<T>> {
    match error {
        CallError::Unauthorized(_) | CallError::RateLimited { .. } | CallError::Unavailable { .. } => {
            run.fail(c, Task::Pull, error).await.map(Step::Ended)
        }
        error => {
            give_up(run, c, &error.to_string()).await?;
            Ok(Step::Lists)
        }
    }
}

/// Notes that the lists are to be walked.
async fn give_up(run: &Run<'_>, c: &Collection, why: &str) -> Result<()> {
    let connection = run.account.connection.id;
    tracing::warn!(%connection, collection = c.key, why, "no first sync by one operation: the lists are walked");
    put(run, c, Bulk::GivenUp).await.map(drop)
}

async fn put(run: &Run<'_>, c: &Collection, bulk: Bulk) -> Result<Standing> {
    let commit = Commit { bulk: Some((c.key.clone(), Some(bulk))), ..Commit::default() };
    commit.run(run.deps, run.account).await
}

/// Whether there are so many records that an operation is worth it. How many cannot be told: the lists are walked.
async fn is_large(run: &mut Run<'_>, c: &Collection) -> Result<Step<()>> {
    let session = &run.account.session;
    match fields::call(run.deps, run.account, c, || session.bulk_is_large(c)).await? {
        Ok(true) => Ok(Step::On(())),
        Ok(false) => Ok(Step::Lists),
        Err(error) => failed(run, c, error).await,
    }
}

/// Asks for the operation.
async fn start(run: &mut Run<'_>, c: &Collection, waiting: Option<Millis>) -> Result<Step<Running>> {
    let asked_at = run.deps.clock.now();
    let session = &run.account.session;
    match fields::call(run.deps, run.account, c, || session.bulk_start(c)).await? {
        Ok(BulkStart::Running(operation)) => {
            let running = Running { operation, asked_at, offset: 0 };
            Ok(match put(run, c, running.row()).await? {
                Standing::There => Step::On(running),
                Standing::Gone => Step::Ended(Ended::Stop),
            })
        }
        Ok(BulkStart::Busy) => {
            let since = waiting.unwrap_or(asked_at);
            if asked_at.since(since) > OPERATION_MAX {
                give_up(run, c, "the app is busy with another one").await?;
                return Ok(Step::Lists);
            }
            if put(run, c, Bulk::Waiting { since }).await? == Standing::Gone {
                return Ok(Step::Ended(Ended::Stop));
            }
            let why = "the app is busy with another operation; this one is asked for again soon";
            run.put_off(c, Task::Pull, WAIT_MAX, why).await.map(Step::Ended)
        }
        Ok(BulkStart::Refused(why)) => {
            give_up(run, c, &why).await?;
            Ok(Step::Lists)
        }
        Err(error) => failed(run, c, error).await,
    }
}

/// Waits until the operation has ended, or as long as one look may.
async fn finished(run: &mut Run<'_>, c: &Collection, running: &Running) -> Result<Step<BulkFile>> {
    let (mut wait, mut waited) = (WAIT_FIRST, Duration::ZERO);
    loop {
        if let Some(ended) = run.between_pages().await? {
            return Ok(Step::Ended(ended));
        }
        let session = &run.account.session;
        match fields::call(run.deps, run.account, c, || session.bulk_progress(&running.operation)).await? {
            Ok(BulkProgress::Done(file)) => return Ok(Step::On(file)),
            Ok(BulkProgress::Failed(why)) => {
                give_up(run, c, &why).await?;
                return Ok(Step::Lists);
            }
            Ok(BulkProgress::Running) => {}
            Err(error) => return failed(run, c, error).await,
        }
        if run.deps.clock.now().since(running.asked_at) > OPERATION_MAX {
            give_up(run, c, "it has not ended within a day").await?;
            return Ok(Step::Lists);
        }
        if waited + wait > WAIT_MAX {
            let why = "the app still writes its records to a file; the next look goes on";
            return run.put_off(c, Task::Pull, WAIT_MAX, why).await.map(Step::Ended);
        }
        tokio::time::sleep(wait).await;
        waited += wait;
        wait *= 2;
    }
}

/// Reads the file to its end; the last commit sets the cursor. False: the address is no longer good; another one may be.
async fn read(
    run: &mut Run<'_>,
    c: &Collection,
    file: &BulkFile,
    running: &mut Running,
    sum: &mut Tally,
) -> Result<Step<bool>> {
    // The app's own clock, if it is behind ours.
    let from = file.asked_at.map_or(running.asked_at, |at| at.min(running.asked_at));
    let (source, mut bytes) = (Source::Poll(run.pull.id), PIECE_BYTES);
    loop {
        if let Some(ended) = run.between_pages().await? {
            return Ok(Step::Ended(ended));
        }
        let (session, offset) = (&run.account.session, running.offset);
        let piece = match session.bulk_piece(c, file, offset, bytes).await {
            Ok(piece) => piece,
            Err(CallError::PageExpired(_)) => return Ok(Step::On(false)),
            Err(error) => return failed(run, c, error).await,
        };
        if piece.next == offset && !piece.is_last {
            bytes = match bytes.checked_mul(2).filter(|bytes| *bytes <= session.answer_bytes_max()) {
                Some(bytes) => bytes,
                None => {
                    return failed(run, c, CallError::BadAnswer("a record of the file is too long".to_owned())).await;
                }
            };
            continue;
        }
        bytes = PIECE_BYTES;
        run.pull.pages = run.pull.pages.saturating_add(1);
        running.offset = piece.next;
        let (row, is_last) = (running.row(), piece.is_last);
        let records = sightings(piece.records, Vec::new(), running.asked_at, &source);
        let commit = commit_page(run, c, records, sum, |_, state, commit, _| {
            if is_last {
                state.cursor = Some(Cursor { time: from, ..Cursor::default() });
                // What was deleted while the operation ran may be in the file: it is asked for from there on.
                state.last_pull_at = Some(from);
            }
            commit.bulk = Some((c.key.clone(), (!is_last).then_some(row)));
        });
        if commit.await? == Standing::Gone {
            return Ok(Step::Ended(Ended::Stop));
        }
        if is_last {
            return Ok(Step::On(true));
        }
        if run.is_late(true) {
            return run.cut(c, Task::Pull).await.map(Step::Ended);
        }
    }
}
