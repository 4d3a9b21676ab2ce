//! What a replay is asked for with, and how it is shown.
//!
//! Always true: a refusal names its field. Not here: what is done with it (`replays`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::actors::replayer::Counted;
use crate::api::call::not_found;
use crate::api::subscriptions::check::{self, Context};
use crate::domain::id::ConnectionId;
use crate::domain::replay::{Replay, ReplayState, Selection, Wanted};
use crate::domain::subscription::Subscription;
use crate::domain::time::Millis;
use crate::error::{Code, Error, Result};
use crate::store::Rows;

const REMOTE_ID_BYTES_MAX: usize = 1024;

/// A word of `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum StatusWord {
    /// The newest delivery of the event is dead.
    Dead,
    /// The newest delivery of the event was accepted.
    Delivered,
    /// Whatever became of it, also if there never was one; not what is still owed.
    #[default]
    Any,
}

impl From<StatusWord> for Wanted {
    fn from(word: StatusWord) -> Self {
        match word {
            StatusWord::Dead => Self::Dead,
            StatusWord::Delivered => Self::Delivered,
            StatusWord::Any => Self::Any,
        }
    }
}

impl From<Wanted> for StatusWord {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Dead => Self::Dead,
            Wanted::Delivered => Self::Delivered,
            Wanted::Any => Self::Any,
        }
    }
}

/// What is to be sent again.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct NewReplay {
    /// Events taken in at or after this time (RFC 3339) …
    from: String,
    /// … and before this one.
    to: String,
    /// A topic, `crm/*` or `*`; all if left out.
    #[serde(default)]
    topic: Option<String>,
    /// `any` if left out.
    #[serde(default)]
    status: StatusWord,
    #[serde(default)]
    connection_id: Option<String>,
    /// Of the record with this id at its app.
    #[serde(default)]
    remote_id: Option<String>,
    /// Deliveries per second at most, 0.001 to 10,000; as fast as the subscription goes if left out.
    #[serde(default)]
    pub(super) rate_per_second: Option<f64>,
    /// Counts, and makes nothing.
    #[serde(default)]
    pub(super) dry_run: bool,
}

/// What a replay would send.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CountView {
    /// Events that would be sent again.
    count: u64,
    /// False: the count was cut, and there may be more. A replay has no such limit.
    is_complete: bool,
    /// Events, or dead letters, that were looked at.
    looked: u64,
    /// Events that the subscription's filter cannot judge: they would be left out.
    unjudged: u64,
}

impl CountView {
    pub(super) fn of(counted: Counted) -> Self {
        Self {
            count: counted.chosen,
            is_complete: counted.is_complete,
            looked: counted.looked,
            unjudged: counted.unjudged,
        }
    }
}

/// What is to be sent again, as it was asked for.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SelectionView {
    from: String,
    to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    status: StatusWord,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_id: Option<String>,
}

/// How far it is.
#[derive(Serialize, JsonSchema)]
pub(super) struct CountsView {
    /// Events, or dead letters, looked at.
    looked: u64,
    /// Events that the subscription's filter could not judge, so that they were left out.
    unjudged: u64,
    /// Deliveries made.
    made: u64,
    /// Of those: wait for their first attempt.
    waiting: u64,
    /// Of those: failed, and will be tried again by the subscription's schedule.
    retrying: u64,
    delivered: u64,
    dead: u64,
    cancelled: u64,
}

/// A replay.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReplayView {
    replay_id: String,
    subscription_id: String,
    /// `running`, `paused`, `cancelling`, `completed` (everything was tried at least once) or `cancelled`.
    state: &'static str,
    /// Why a running one makes nothing now.
    #[serde(skip_serializing_if = "Option::is_none")]
    state_reason: Option<&'static str>,
    selection: SelectionView,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_per_second: Option<f64>,
    /// How much of the log was looked at, from 0 to 1.
    progress: f64,
    counts: CountsView,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct OneReplay {
    pub(super) replay: ReplayView,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DryRun {
    pub(super) dry_run: CountView,
}

/// The replay, or with `dryRun` what it would send.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "it is rendered at once")]
pub(super) enum Asked {
    Made(OneReplay),
    Counted(DryRun),
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Replays {
    pub(super) replays: Vec<ReplayView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

pub(super) fn view(rows: &Rows, of: &Replay, subscription: &Subscription, now: Millis) -> Result<ReplayView> {
    let came = rows.replay_counts(of.id)?;
    let waiting = of.made.saturating_sub(came.tried);
    let idle = of.state == ReplayState::Running && !subscription.delivers(now);
    let selection = &of.selection;
    Ok(ReplayView {
        replay_id: of.id.to_string(),
        subscription_id: of.subscription.to_string(),
        state: of.state.text(),
        state_reason: idle.then_some("the subscription does not deliver now; it goes on when that does"),
        selection: SelectionView {
            from: selection.from.rfc3339_millis(),
            to: selection.to.rfc3339_millis(),
            topic: selection.topic.clone(),
            status: selection.wanted.into(),
            connection_id: selection.connection.map(|id| id.to_string()),
            remote_id: selection.remote_id.clone(),
        },
        rate_per_second: of.pace.map(|pace| f64::from(pace.rate_milli) / 1000.0),
        #[expect(clippy::cast_precision_loss, reason = "at most a thousand")]
        progress: of.progress_milli() as f64 / 1000.0,
        counts: CountsView {
            looked: of.looked,
            unjudged: of.unjudged,
            made: of.made,
            waiting,
            retrying: of.made.saturating_sub(came.ended() + waiting),
            delivered: came.delivered,
            dead: came.dead,
            cancelled: came.cancelled,
        },
        created_at: of.created_at.rfc3339_millis(),
        updated_at: of.updated_at.rfc3339_millis(),
        ended_at: match of.state {
            ReplayState::Completed { at } | ReplayState::Cancelled { at } => Some(at.rfc3339_millis()),
            ReplayState::Running | ReplayState::Paused | ReplayState::Cancelling => None,
        },
    })
}

/// The rules beyond types.
pub(super) fn selection(rows: &Rows, context: &Context, asked: &NewReplay) -> Result<Selection> {
    let time = |field: &str, text: &str| {
        Millis::parse_rfc3339(text)
            .ok_or_else(|| Error::invalid(format!("{field}: use RFC 3339, such as 2024-04-19T16:57:18Z")))
    };
    let (from, to) = (time("from", &asked.from)?, time("to", &asked.to)?);
    if from >= to {
        return Err(Error::invalid("to: use a time after `from`"));
    }
    if let Some(topic) = &asked.topic {
        check::topics(rows, context, std::slice::from_ref(topic))?;
    }
    let connection = match asked.connection_id.as_deref().filter(|text| !text.is_empty()) {
        // One that is gone may have left events.
        Some(text) => Some(text.parse::<ConnectionId>().map_err(|_| not_found(Code::ConnectionNotFound, text))?),
        None => None,
    };
    let remote_id = asked.remote_id.clone().filter(|text| !text.is_empty());
    if remote_id.as_ref().is_some_and(|text| text.len() > REMOTE_ID_BYTES_MAX) {
        return Err(Error::invalid(format!("remoteId: use at most {REMOTE_ID_BYTES_MAX} bytes")));
    }
    Ok(Selection { from, to, topic: asked.topic.clone(), wanted: asked.status.into(), connection, remote_id })
}
