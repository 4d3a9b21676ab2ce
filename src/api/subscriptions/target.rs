//! Subscriptions that write into a destination in place of sending to an address.
//!
//! Always true: a subscription has one of the two for life; it has a shape that its destination can write; into a user's
//! destination go that user's events only. Not here: destinations themselves (`api::destinations`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::AuthWish;
use super::shape::Settings;
use crate::api::call::not_found;
use crate::api::destinations::test::refuse_shape;
use crate::domain::destination::{Deletes, Destination, Shape};
use crate::domain::hook;
use crate::domain::id::{DestinationId, WorkspaceNo};
use crate::domain::subscription::{Include, Signing, Subscription, destination_address};
use crate::error::{Code, Error, Result};
use crate::store::{Backfill, Rows};

/// How a subscription writes into its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) enum ShapeWord {
    /// A log: one row per event.
    Append,
    /// A table per topic that equals the app's records.
    Mirror,
}

/// What a mirror does with a record that is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) enum DeletesWord {
    /// Its row stays, and says when it was deleted.
    Mark,
    /// Its row goes.
    Remove,
}

impl From<Deletes> for DeletesWord {
    fn from(of: Deletes) -> Self {
        match of {
            Deletes::Mark => Self::Mark,
            Deletes::Remove => Self::Remove,
        }
    }
}

/// How far the present records have been written.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BackfillView {
    /// `running` or `done`.
    status: &'static str,
    /// Records so far.
    written: u64,
    /// Records that the destination will never take.
    refused: u64,
    started_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
}

impl From<Backfill> for BackfillView {
    fn from(of: Backfill) -> Self {
        Self {
            status: if of.ended_at.is_some() { "done" } else { "running" },
            written: of.written,
            refused: of.refused,
            started_at: of.started_at.rfc3339_millis(),
            ended_at: of.ended_at.map(crate::domain::time::Millis::rfc3339_millis),
        }
    }
}

/// The words of a shape, for views.
pub(super) fn words(of: &Subscription) -> (Option<ShapeWord>, Option<DeletesWord>) {
    match (of.destination, of.shape) {
        (None, _) => (None, None),
        (Some(_), Shape::Append) => (Some(ShapeWord::Append), None),
        (Some(_), Shape::Mirror(deletes)) => (Some(ShapeWord::Mirror), Some(deletes.into())),
    }
}

/// The shape that two words mean.
pub(in crate::api) fn shape_of(shape: Option<ShapeWord>, deletes: Option<DeletesWord>) -> Result<Shape> {
    match (shape.unwrap_or(ShapeWord::Append), deletes) {
        (ShapeWord::Append, Some(_)) => {
            Err(Error::invalid("deletes: this is for the shape `mirror`; a log keeps everything"))
        }
        (ShapeWord::Append, None) => Ok(Shape::Append),
        (ShapeWord::Mirror, None) => Ok(Shape::Mirror(Deletes::default())),
        (ShapeWord::Mirror, Some(DeletesWord::Mark)) => Ok(Shape::Mirror(Deletes::Mark)),
        (ShapeWord::Mirror, Some(DeletesWord::Remove)) => Ok(Shape::Mirror(Deletes::Remove)),
    }
}

/// What is always in the rows of a destination, where nothing else is asked for.
pub(super) fn include(of: &Subscription) -> Vec<Include> {
    if of.destination.is_some() { hook::INCLUDE.to_vec() } else { Vec::new() }
}

/// The destination that a text means.
pub(super) fn find(rows: &Rows, workspace: WorkspaceNo, text: &str) -> Result<Destination> {
    let missing = || not_found(Code::DestinationNotFound, text);
    let id: DestinationId = text.parse().map_err(|_| missing())?;
    rows.destination(workspace, id)?.ok_or_else(missing)
}

/// What a new subscription is given: an address, or a destination.
pub(super) enum Target {
    Address(String),
    Destination(String),
}

impl Target {
    /// Exactly one of the two.
    pub(super) fn of(address: Option<String>, destination: Option<Option<String>>) -> Result<Self> {
        match (address, destination.flatten()) {
            (Some(address), None) => Ok(Self::Address(address)),
            (None, Some(id)) => Ok(Self::Destination(id)),
            (Some(_), Some(_)) => Err(Error::invalid(
                "destinationId: send `address` or `destinationId`, not both: one place per subscription",
            )),
            (None, None) => Err(Error::invalid(
                "address: say where events go: `address` (an absolute URL), or `destinationId` (POST /one/destinations)",
            )),
        }
    }
}

impl Target {
    /// Lays it over a new subscription; whether it is an address.
    pub(super) fn lay(self, rows: &Rows, to: &mut Subscription) -> Result<bool> {
        match self {
            Self::Address(address) => {
                to.address = address;
                Ok(true)
            }
            Self::Destination(text) => {
                let found = find(rows, to.workspace, &text)?;
                to.address = destination_address(found.id);
                to.destination = Some(found.id);
                to.include = include(to);
                Ok(false)
            }
        }
    }
}

/// Lays what is for destinations alone over a subscription, and refuses what is for addresses alone. `settings` lose what
/// was read.
pub(super) fn apply(rows: &Rows, workspace: WorkspaceNo, settings: &mut Settings, to: &mut Subscription) -> Result<()> {
    let (shape, deletes) = (settings.shape.take(), settings.deletes.take());
    match settings.destination_id.take() {
        None => {}
        Some(None) => {
            return Err(Error::invalid("destinationId: a subscription keeps a destination; name another one"));
        }
        Some(Some(_)) if to.destination.is_none() => {
            let message = "destinationId: a subscription with an address keeps to addresses; make a new one for the \
                           destination";
            return Err(Error::invalid(message));
        }
        Some(Some(id)) => {
            let found = find(rows, workspace, &id)?;
            to.destination = Some(found.id);
            to.address = destination_address(found.id);
        }
    }
    if to.destination.is_none() {
        if shape.is_some() || deletes.is_some() {
            return Err(Error::invalid("shape, deletes: these are for subscriptions with a `destinationId`"));
        }
        return Ok(());
    }
    refuse_for_addresses(settings)?;
    if shape.is_some() || deletes.is_some() {
        let (now_shape, now_deletes) = words(to);
        let shape = shape.map_or(now_shape, |wish| Some(wish.unwrap_or(ShapeWord::Append)));
        let deletes = match deletes {
            Some(wish) => wish,
            None if shape == Some(ShapeWord::Mirror) => now_deletes,
            None => None,
        };
        to.shape = shape_of(shape, deletes)?;
    }
    Ok(())
}

fn refuse_for_addresses(settings: &Settings) -> Result<()> {
    let has_headers = settings.headers.as_ref().is_some_and(|wish| wish.as_ref().is_some_and(|all| !all.is_empty()));
    let asked = [
        ("headers", has_headers, CREDENTIALS),
        ("signing", settings.signing.as_ref().is_some_and(Option::is_some), CREDENTIALS),
        ("maxInFlight", settings.max_in_flight.is_some_and(|wish| wish.is_some()), BATCHES),
        ("timeoutSeconds", settings.timeout_seconds.is_some_and(|wish| wish.is_some()), TIMEOUTS),
    ];
    match asked.iter().find(|(_, is_asked, _)| *is_asked) {
        Some((name, _, why)) => Err(for_addresses(name, why)),
        None => Ok(()),
    }
}

/// Why something is for addresses alone.
const CREDENTIALS: &str = "a destination has its credentials in its own settings, and nothing is signed there";
const BATCHES: &str = "into a destination one batch of a subscription is on its way at a time; how large a batch may be is \
                       in the destination's own settings";
const TIMEOUTS: &str = "how long a batch may take is the destination's own affair, and its page in docs/destinations says \
                        how long";

fn for_addresses(name: &str, why: &str) -> Error {
    Error::invalid(format!("{name}: this is for addresses; {why}"))
}

/// The same of what is kept apart.
pub(super) fn refuse_auth(of: &Subscription, wish: Option<&Option<AuthWish>>) -> Result<()> {
    let is_asked = wish.is_some_and(Option::is_some);
    if of.destination.is_some() && is_asked { Err(for_addresses("auth", CREDENTIALS)) } else { Ok(()) }
}

/// What must hold of a subscription as a whole, after all of it was laid.
pub(super) fn check(rows: &Rows, of: &mut Subscription) -> Result<()> {
    let Some(id) = of.destination else { return Ok(()) };
    // Nothing is signed.
    of.signing = Signing { rsa: false, hmac: false, ed25519: false };
    let destination = rows.destination(of.workspace, id)?;
    let destination = destination.ok_or_else(|| not_found(Code::DestinationNotFound, &id.to_string()))?;
    refuse_shape(&destination, of.shape)?;
    match destination.user {
        Some(user) if of.user != Some(user) => Err(Error::invalid(format!(
            "userId: this destination belongs to user {user}, so only that user's events go there; narrow the subscription \
             with `userId`"
        ))),
        _ => Ok(()),
    }
}

/// Refuses a call that is for addresses alone.
pub(super) fn refuse(of: &Subscription, what: &str) -> Result<()> {
    match of.destination {
        None => Ok(()),
        Some(_) => Err(Error::invalid(format!(
            "{what}: this subscription writes into a destination; that is for addresses alone"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Seq;
    use crate::domain::time::Millis;

    #[test]
    fn a_shape_is_what_its_words_say() {
        use DeletesWord::{Mark, Remove};
        use ShapeWord::{Append, Mirror};
        for (shape, deletes, means) in [
            (None, None, Shape::Append),
            (Some(Append), None, Shape::Append),
            (Some(Mirror), None, Shape::Mirror(Deletes::Mark)),
            (Some(Mirror), Some(Mark), Shape::Mirror(Deletes::Mark)),
            (Some(Mirror), Some(Remove), Shape::Mirror(Deletes::Remove)),
        ] {
            assert_eq!(shape_of(shape, deletes).unwrap(), means);
        }
        assert!(shape_of(None, Some(Remove)).unwrap_err().message.starts_with("deletes: "));
    }

    #[test]
    fn a_backfill_shows_how_far_it_is_and_when_it_ended() {
        let mut backfill = Backfill {
            from: Seq(1),
            connection: None,
            after: None,
            written: 7,
            refused: 0,
            started_at: Millis(0),
            ended_at: None,
        };
        let shown = |of: &Backfill| serde_json::to_value(BackfillView::from(of.clone())).unwrap();
        assert_eq!(
            shown(&backfill),
            serde_json::json!({
                "status": "running", "written": 7, "refused": 0, "startedAt": "1970-01-01T00:00:00.000Z",
            })
        );
        backfill.ended_at = Some(Millis(1));
        let shown = shown(&backfill);
        assert_eq!(
            (shown["status"].as_str(), shown["endedAt"].as_str()),
            (Some("done"), Some("1970-01-01T00:00:00.001Z"))
        );
    }
}
