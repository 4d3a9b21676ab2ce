//! An erasure: a job that takes out of the store what is held of a user, of a connection, or of some of its records.
//!
//! Always true: what it goes over is fixed when it is made; how far it has come moves in the commits that erase, so a crash
//! repeats a step and tells nothing twice. The order of stored variants is their stored form: new ones are added at the
//! end. Not here: how rows are found and erased (`store::erase`, `actors::eraser`), who may ask (`api`).

use serde::{Deserialize, Serialize};

use super::event::{Event, Payload};
use super::id::{ConnectionId, ErasureId, IntegrationId, KeyId, LaneNo, Seq, UserId, WorkspaceNo};
use super::time::Millis;
use super::topic::SystemTopic;

/// Connections that one job goes over.
pub const CONNECTIONS_MAX: usize = 1_000;
/// Records that one job names.
pub const RECORDS_MAX: usize = 250;

/// A record as its app names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Named {
    /// None: whatever its topic.
    pub topic: Option<String>,
    pub remote_id: String,
}

/// What is erased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Everything of this user's connections, and what was published for the user.
    pub user: Option<UserId>,
    pub connections: Vec<ConnectionId>,
    /// Of the connections: their global webhooks lie there.
    pub integrations: Vec<IntegrationId>,
    /// Only of this topic.
    pub topic: Option<String>,
    /// Only these records; empty: all. Forgotten when the job has ended, since an app's id may be a person's address.
    pub records: Vec<Named>,
    /// Whether records were named.
    pub by_record: bool,
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// A call of the API with this key.
    Key(KeyId),
    /// A webhook of the app of this connection.
    Webhook(ConnectionId),
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Records become tombstones, and `deleted` is told of those that were there. `at`: which connection; `after`: the last
    /// row that was looked at.
    Records {
        at: u32,
        after: Option<[u8; 20]>,
    },
    /// Stored webhooks lose their bodies. `at`: which owner; up to `until`. Those that wait are waited for since `since`.
    Webhooks {
        at: u32,
        after: Seq,
        until: Seq,
        since: Millis,
    },
    /// Events go, with what their deliveries hold. `at`: which connection, where records are named.
    Events {
        at: u32,
        after: Seq,
        until: Seq,
    },
    /// The bytes go from the disk.
    Disk,
    Completed {
        at: Millis,
    },
}

/// How much was erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records that were there: `deleted` was told of each.
    pub records: u64,
    /// What was still held of records that were deleted before.
    pub tombstones: u64,
    pub webhooks: u64,
    pub events: u64,
    /// Deliveries that were owed, or dead, and ended without being sent.
    pub deliveries: u64,
}

/// Which ranges of the store hold erased bytes until they are compacted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    pub events: Option<(Seq, Seq)>,
    pub lanes: Option<(LaneNo, LaneNo)>,
}

impl Touched {
    /// An event was erased.
    pub fn event(&mut self, seq: Seq) {
        let (low, high) = self.events.unwrap_or((seq, seq));
        self.events = Some((low.min(seq), high.max(seq)));
    }
    /// Something of a lane's history was erased.
    pub fn lane(&mut self, lane: LaneNo) {
        let (low, high) = self.lanes.unwrap_or((lane, lane));
        self.lanes = Some((low.min(lane), high.max(lane)));
    }
}

/// The job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    pub id: ErasureId,
    pub workspace: WorkspaceNo,
    pub scope: Scope,
    pub cause: Cause,
    pub stage: Stage,
    pub counts: Counts,
    pub touched: Touched,
    pub created_at: Millis,
    pub updated_at: Millis,
}

impl Erasure {
    /// A job that has done nothing yet.
    pub fn new(id: ErasureId, workspace: WorkspaceNo, scope: Scope, cause: Cause, now: Millis) -> Self {
        Self {
            id,
            workspace,
            scope,
            cause,
            stage: Stage::Records { at: 0, after: None },
            counts: Counts::default(),
            touched: Touched::default(),
            created_at: now,
            updated_at: now,
        }
    }

    /// Whether there is still something to do.
    pub fn is_live(&self) -> bool {
        !matches!(self.stage, Stage::Completed { .. })
    }

    /// The stable word for where it is.
    pub fn stage_text(&self) -> &'static str {
        match self.stage {
            Stage::Records { .. } => "records",
            Stage::Webhooks { .. } => "webhooks",
            Stage::Events { .. } => "events",
            Stage::Disk => "disk",
            Stage::Completed { .. } => "completed",
        }
    }

    /// It has ended: what it was about is forgotten, as far as it may name a person.
    pub fn complete(&mut self, at: Millis) {
        self.stage = Stage::Completed { at };
        self.scope.records.clear();
        self.updated_at = at;
    }
}

impl Scope {
    /// Whose stored webhooks may tell of it: the connections, then their integrations.
    pub fn owners(&self) -> Vec<[u8; 12]> {
        let connections = self.connections.iter().map(|id| id.0);
        connections.chain(self.integrations.iter().map(|id| id.0)).collect()
    }

    /// Whether an event is of a user or connection that is erased whole, and holds anything.
    pub fn takes(&self, event: &Event) -> bool {
        let of_connection = event.connection.is_some_and(|id| self.connections.contains(&id));
        let of_user = self.user.is_some() && event.user == self.user;
        let of_topic = self.topic.as_ref().is_none_or(|topic| *topic == event.topic);
        // What the engine tells of a connection names its user, and nothing else of anybody.
        let is_told = SystemTopic::find(&event.topic).is_some() && self.user.is_none();
        (of_connection || of_user) && of_topic && !is_told && holds_anything(event)
    }

    /// Whether a text may tell of one of the records: it holds its id, and not as a part of another one.
    pub fn is_mentioned(&self, text: &[u8]) -> bool {
        self.records.iter().any(|named| mentions(text, named.remote_id.as_bytes()))
    }
}

/// Whether there is anything in an event that an erasure takes out. What it tells itself (`deleted`, with nothing but ids)
/// stays.
pub fn holds_anything(event: &Event) -> bool {
    match &event.payload {
        Payload::Record { fields, deleted, .. } => {
            !(*deleted && fields == "{}" && event.previous.is_none() && event.raw.is_none())
        }
        Payload::Plain(_) => true,
    }
}

fn mentions(text: &[u8], id: &[u8]) -> bool {
    let is_word = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    if id.is_empty() {
        return false;
    }
    let found = |(at, part): (usize, &[u8])| {
        let before = at.checked_sub(1).and_then(|at| text.get(at));
        part == id && !is_word(before) && !is_word(text.get(at + id.len()))
    };
    text.windows(id.len()).enumerate().any(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_whole_and_not_inside_another() {
        for (text, id, is_there) in [
            (r#"{"id":42}"#, "42", true),
            (r#"{"id":142}"#, "42", false),
            (r#"{"id":"con_42"}"#, "con_42", true),
            ("[421,4]", "42", false),
            ("42", "42", true),
            ("", "42", false),
            ("id=ann%40example.com", "ann@example.com", false),
            ("a gid://shop/Customer/42?x", "42", true),
        ] {
            assert_eq!(mentions(text.as_bytes(), id.as_bytes()), is_there, "{text} {id}");
        }
        assert!(!mentions(b"anything", b""));
    }

    #[test]
    fn a_job_reads_back_as_it_was_stored() {
        let scope = Scope {
            user: Some(UserId([1; 12])),
            connections: vec![ConnectionId([2; 12])],
            integrations: vec![IntegrationId([3; 12])],
            topic: Some("crm/contacts".into()),
            records: vec![Named { topic: None, remote_id: "42".into() }],
            by_record: true,
        };
        let cause = Cause::Key(KeyId([4; 12]));
        let mut job = Erasure::new(ErasureId([5; 12]), WorkspaceNo(6), scope, cause, Millis(7));
        job.touched.event(Seq(9));
        job.touched.event(Seq(3));
        job.touched.lane(LaneNo(8));
        assert_eq!(job.touched.events, Some((Seq(3), Seq(9))));
        let bytes = postcard::to_stdvec(&job).unwrap();
        assert_eq!(postcard::from_bytes::<Erasure>(&bytes).unwrap(), job);
        job.complete(Millis(10));
        assert!(!job.is_live() && job.scope.records.is_empty() && job.scope.by_record);
    }
}
