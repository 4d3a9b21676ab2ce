//! `/one/{category}/{model}`: a connection's records as the engine last saw them.
//!
//! Always true: a record is shown exactly as its events carry it; pages follow the snapshot's own order, which never
//! changes, so a walk sees each record that stays once. Not here: fetching from the app (`actors::watcher`).

use serde_json::Value;

use super::call::{Call, not_found};
use super::connections;
use super::paging::{self, Paging};
use super::reply::Reply;
use super::route::{PAGED, Param, Route, group};
use super::state::State;
use crate::domain::body;
use crate::domain::connection::Connection;
use crate::domain::id::{ConnectionId, WorkspaceNo};
use crate::domain::models::{Catalogue, Model};
use crate::domain::record::record_id;
use crate::domain::snapshot::SnapshotRow;
use crate::domain::time::Millis;
use crate::domain::topic;
use crate::domain::version::ApiVersion;
use crate::error::{Code, Error, Result};
use crate::store::Rows;

/// Rows looked at for one page.
const LOOKED_AT_MAX: usize = 10_000;
/// A page is ended early when its records have so many bytes.
const PAGE_BYTES_MAX: usize = 16 << 20;
const JSON: &str = "application/json";

const FILTERS: &[Param] = &[
    Param { name: "connectionId", about: "Whose records. Required." },
    Param { name: "remoteUpdatedAtMin", about: "Changed at the app at or after this time (RFC 3339)." },
    Param { name: "remoteUpdatedAtMax", about: "Changed at the app at or before this time." },
    Param { name: "remoteCreatedAtMin", about: "Made at the app at or after this time." },
    Param { name: "remoteCreatedAtMax", about: "Made at the app at or before this time." },
];

pub(super) fn routes() -> Vec<Route> {
    let of = [Param { name: "connectionId", about: "Whose record. Required." }];
    let routes = vec![
        Route::get("/{version}/one/{category}/{model}", "List the cached records of a connection", list)
            .query(PAGED)
            .query(FILTERS)
            .gives::<Value>(),
        Route::get("/{version}/one/{category}/{model}/count", "Count the cached records of a connection", count)
            .query(FILTERS)
            .gives::<Value>(),
        Route::get("/{version}/one/{category}/{model}/{id}", "A cached record, by its id or the app's", show)
            .query(&of)
            .gives::<Value>(),
    ];
    group("records", routes)
}

/// The error for a topic that is not there, with what may have been meant.
pub(super) fn unknown(name: &str) -> Error {
    let data = Catalogue::embedded().models().iter().filter(|m| !m.system).map(|m| m.topic.as_str());
    let near = topic::near(name, &data.collect::<Vec<_>>());
    let hint = if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) };
    let shown: String = name.chars().take(130).collect();
    Error::new(Code::UnknownTopic, format!("topic: there is no `{shown}`{hint}"))
}

/// The keys of the connection's collections with this topic.
pub(super) fn collections(state: &State, rows: &Rows, connection: &Connection, topic: &str) -> Result<Vec<String>> {
    let connector = connections::connector(state, rows, connection)?;
    let all = connector.iter().flat_map(|connector| connector.collections.iter());
    Ok(all.filter(|c| c.topic == topic).map(|c| c.key.clone()).collect())
}

/// What a path and its query mean.
struct Wanted {
    workspace: WorkspaceNo,
    connection: ConnectionId,
    /// None: a topic of the workspace's own.
    model: Option<&'static Model>,
    topic: String,
    version: ApiVersion,
    updated: (Option<Millis>, Option<Millis>),
    created: (Option<Millis>, Option<Millis>),
}

impl Wanted {
    fn of(call: &Call) -> Result<Self> {
        let (category, name) = (call.param("category")?, call.param("model")?);
        let model = Catalogue::embedded().by_path(category, name);
        let topic = model.map_or_else(|| format!("{category}/{name}"), |model| model.topic.clone());
        let connection = call.query_id("connectionId", Code::ConnectionNotFound)?;
        if model.is_none() && (connection.is_none() || topic::custom(&topic).is_err()) {
            let shown: String = call.head.uri.chars().take(200).collect();
            let message = format!("there is nothing at {shown}, and no topic of that name; see /openapi.json");
            return Err(Error::new(Code::TopicNotFound, message));
        }
        Ok(Self {
            workspace: call.workspace()?,
            connection: connection
                .ok_or_else(|| Error::new(Code::Malformed, "connectionId: say whose records, as in ?connectionId=…"))?,
            model,
            topic,
            version: call.version,
            updated: (call.query_time("remoteUpdatedAtMin")?, call.query_time("remoteUpdatedAtMax")?),
            created: (call.query_time("remoteCreatedAtMin")?, call.query_time("remoteCreatedAtMax")?),
        })
    }

    fn plural(&self) -> &str {
        self.model.map_or_else(|| topic::model(&self.topic), Model::plural)
    }

    fn singular(&self) -> String {
        self.model.map_or_else(|| "record".to_owned(), Model::singular)
    }

    fn is_filtered(&self) -> bool {
        [self.updated.0, self.updated.1, self.created.0, self.created.1].iter().any(Option::is_some)
    }

    /// Whether a row is asked for; one whose time is not known is in no interval.
    fn takes(&self, row: &SnapshotRow) -> bool {
        let within = |at: Option<Millis>, (min, max): (Option<Millis>, Option<Millis>)| {
            (min.is_none() && max.is_none())
                || at.is_some_and(|at| min.is_none_or(|min| at >= min) && max.is_none_or(|max| at <= max))
        };
        row.is_live()
            && within(row.version.remote_updated_at, self.updated)
            && within(row.remote_created_at, self.created)
    }

    /// The keys of the collections; a topic that nobody knows is a 404.
    fn collections(&self, state: &State, rows: &Rows) -> Result<Vec<String>> {
        let connection = connections::find(rows, self.workspace, self.connection)?;
        let keys = collections(state, rows, &connection, &self.topic)?;
        if keys.is_empty() && self.model.is_none() {
            return Err(not_found(Code::TopicNotFound, &self.topic));
        }
        Ok(keys)
    }

    fn render(&self, id: [u8; 16], row: &SnapshotRow) -> String {
        body::record(&row.payload(uuid::Uuid::from_bytes(id)), self.version)
    }
}

/// A JSON object of a name and a value that is JSON already.
fn object(name: &str, value: &str, next: Option<String>) -> Result<Reply> {
    let name = serde_json::to_string(name).map_err(Error::internal)?;
    // A cursor is letters, digits, `-` and `_`.
    let next = next.map_or_else(String::new, |next| format!(r#","next":"{next}""#));
    Ok(Reply::text(JSON, format!("{{{name}:{value}{next}}}")))
}

async fn list(call: Call) -> Result<Reply> {
    let (wanted, page, state) = (Wanted::of(&call)?, Paging::of(&call)?, call.state.clone());
    let start = page.before_exactly::<17>()?;
    let read = move |rows: &Rows| {
        let keys = wanted.collections(&state, rows)?;
        let (first, mut after) = match start {
            None => (0, None),
            Some([at, record @ ..]) => (usize::from(at), Some(record)),
        };
        let (mut records, mut bytes, mut looked_at) = (Vec::<String>::new(), 0, 0_usize);
        // The last row that was looked at, once the page is full.
        let mut next: Option<[u8; 17]> = None;
        for (at, key) in keys.iter().enumerate().skip(first) {
            let mut last: Option<[u8; 16]> = after;
            rows.walk_snapshot(wanted.connection, key, after.as_ref(), |id, row| {
                let is_full = records.len() >= page.limit || looked_at >= LOOKED_AT_MAX || bytes > PAGE_BYTES_MAX;
                if is_full {
                    let mut mark = [0; 17];
                    mark[0] = u8::try_from(at).unwrap_or(u8::MAX);
                    // Nothing of this collection may have been looked at yet: then it starts from its beginning.
                    mark[1..].copy_from_slice(&last.unwrap_or_default());
                    next = Some(mark);
                    return Ok(false);
                }
                looked_at += 1;
                last = Some(id);
                if wanted.takes(&row) {
                    let record = wanted.render(id, &row);
                    bytes += record.len();
                    records.push(record);
                }
                Ok(true)
            })?;
            if next.is_some() {
                break;
            }
            after = None;
        }
        object(wanted.plural(), &format!("[{}]", records.join(",")), next.map(paging::next))
    };
    call.read(read).await
}

async fn count(call: Call) -> Result<Reply> {
    let (wanted, state) = (Wanted::of(&call)?, call.state.clone());
    let read = move |rows: &Rows| {
        let mut count = 0_u64;
        for key in wanted.collections(&state, rows)? {
            if wanted.is_filtered() {
                rows.walk_snapshot(wanted.connection, &key, None, |_, row| {
                    count += u64::from(wanted.takes(&row));
                    Ok(true)
                })?;
            } else {
                count += rows.collection_state(wanted.connection, &key)?.records;
            }
        }
        object("count", &count.to_string(), None)
    };
    call.read(read).await
}

async fn show(call: Call) -> Result<Reply> {
    let (wanted, state, text) = (Wanted::of(&call)?, call.state.clone(), call.param("id")?.to_owned());
    let read = move |rows: &Rows| {
        // An app's own ids may look like ours.
        let ours = uuid::Uuid::try_parse(&text).ok();
        let theirs = record_id(wanted.connection, &wanted.topic, &text);
        for key in wanted.collections(&state, rows)? {
            for id in ours.iter().chain([&theirs]).map(|id| id.into_bytes()) {
                if let Some(row) = rows.snapshot(wanted.connection, &key, &id)?.filter(SnapshotRow::is_live) {
                    return object(&wanted.singular(), &wanted.render(id, &row), None);
                }
            }
        }
        Err(not_found(Code::RecordNotFound, &text))
    };
    call.read(read).await
}
