//! What is done with a page beside its turn: it is asked for, and its records are hashed and mapped, while the page before
//! it is laid beside the snapshot and committed.
//!
//! Always true: pages are committed in the order in which they were asked for, one after the other, each with the cursor
//! that it allows; of what is done ahead nothing is written, and nothing of it depends on the snapshot; at most one page
//! is ahead. Not here: which page is next (`domain::pull`), what a record means (`domain::snapshot`).

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::account::Account;
use super::commit::Standing;
use crate::actors::Deps;
use crate::connectors::{AppRecord, CallError, Collection, Page};
use crate::domain::record::record_id;
use crate::domain::snapshot::{Hash, Hashed, IgnoredFields, raw_hash};
use crate::domain::time::Millis;
use crate::error::Result;

/// Parts that are made ready beside each other at most: others want the cores too.
const AT_ONCE_MAX: usize = 4;
/// Records of a part: few, so that whoever is done first takes the next.
const PART_RECORDS: usize = 125;

/// A record's id and hash, and perhaps what its mapping makes of it.
pub struct Ready {
    pub id: [u8; 16],
    /// The version of the mapping: made with another one, nothing of it counts but the id.
    pub mapping: [u8; 16],
    pub raw_hash: Hash,
    pub mapped: Option<Mapped>,
}

/// What the mapping makes of a record: it, with the names of custom fields that no record before it in its part of the page has;
/// or one sentence.
pub type Mapped = std::result::Result<(Hashed, Vec<String>), String>;

/// The answer to one page.
pub struct Answered {
    pub sent_at: Millis,
    /// The version of the mapping when it was asked for: it says which fields were asked for.
    pub mapping: [u8; 16],
    pub page: std::result::Result<Page, CallError>,
    /// One for each of the page's records, in their order; empty where they are not to be laid beside the snapshot as they
    /// are.
    pub ready: Vec<Ready>,
}

impl Answered {
    /// Makes a page's records ready. With `maps`, most of them will have to be mapped.
    pub async fn new(
        deps: &Deps,
        account: &Arc<Account>,
        c: &Collection,
        (sent_at, mapping): (Millis, [u8; 16]),
        answer: std::result::Result<Page, CallError>,
        maps: bool,
    ) -> Result<Self> {
        let mut page = match answer {
            Ok(page) if !page.partial && !page.ids_only && !page.records.is_empty() => page,
            page => return Ok(Self { sent_at, mapping, page, ready: Vec::new() }),
        };
        let records = Arc::new(std::mem::take(&mut page.records));
        let parts = (0..records.len()).step_by(PART_RECORDS).map(|from| {
            let (records, key, account) = (records.clone(), c.key.clone(), account.clone());
            deps.store.blocking(move |_| {
                let rest = records.get(from..).unwrap_or_default();
                let part = rest.get(..PART_RECORDS).unwrap_or(rest);
                Ok(account.connector().collection(&key).map(|c| make(&account, c, part, maps)).unwrap_or_default())
            })
        });
        let ready: Vec<Vec<Ready>> = stream::iter(parts).buffered(at_once()).try_collect().await?;
        let ready = ready.into_iter().flatten().collect();
        page.records = Arc::unwrap_or_clone(records);
        Ok(Self { sent_at, mapping, page: Ok(page), ready })
    }
}

/// Parts that are made ready beside each other: one for each core.
fn at_once() -> usize {
    // Asked once: it reads files.
    static CORES: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, NonZeroUsize::get));
    (*CORES).min(AT_ONCE_MAX)
}

fn make(account: &Account, c: &Collection, records: &[AppRecord], maps: bool) -> Vec<Ready> {
    let mapping = account.mapping_of(c);
    let ignored = IgnoredFields::new(&c.ignored_fields);
    let mut names = BTreeSet::new();
    let each = |record: &AppRecord| {
        let raw_hash = raw_hash(&mapping, record.raw.get());
        let mapped = (maps && !record.deleted).then(|| {
            let mapped = map(account, c, record, (raw_hash, &mapping), &ignored, &names);
            mapped.inspect(|(_, unknown)| names.extend(unknown.iter().cloned()))
        });
        let id = record_id(account.connection.id, &c.topic, &record.remote_id).into_bytes();
        Ready { id, mapping, raw_hash, mapped }
    };
    records.iter().map(each).collect()
}

/// Maps a record, of which this is the hash salted with this version of the mapping, and hashes what that makes; with the
/// names of its custom fields that are not among `names`.
pub fn map(
    account: &Account,
    c: &Collection,
    record: &AppRecord,
    (raw_hash, mapping): (Hash, &[u8; 16]),
    ignored: &IgnoredFields,
    names: &BTreeSet<String>,
) -> Mapped {
    account.session.map(c, record, |unified| {
        let unknown = unified.custom_names().filter(|name| !names.contains(*name)).map(str::to_owned).collect();
        (Hashed::new(raw_hash, mapping, unified, ignored), unknown)
    })
}

/// Commits a page while something else is done, such as asking for the next one. None: the connection is gone; then, and
/// where the commit fails, the other thing is not waited for.
pub async fn beside<T>(
    commit: impl Future<Output = Result<Standing>>,
    other: impl Future<Output = T>,
) -> Result<Option<T>> {
    let commit = async {
        match commit.await {
            Ok(Standing::There) => Ok(()),
            Ok(Standing::Gone) => Err(None),
            Err(error) => Err(Some(error)),
        }
    };
    let other = async { Ok::<T, Option<crate::error::Error>>(other.await) };
    match tokio::try_join!(commit, other) {
        Ok(((), done)) => Ok(Some(done)),
        Err(None) => Ok(None),
        Err(Some(error)) => Err(error),
    }
}
