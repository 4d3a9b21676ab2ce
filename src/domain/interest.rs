//! Whether a subscription wants an event, and if not, which of its wishes the event does not meet.
//!
//! Always true: whoever routes an event and whoever explains why it was not routed ask the same rule. Not here: the
//! filter, which costs CPU time (`domain::filter`), and the queue (`store`).

use super::event::Event;
use super::id::Seq;
use super::subscription::{Include, Subscription, WhileDisabled};
use super::time::Millis;
use super::topic::TopicPattern;

/// What an event lacks for a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// None of its topics and patterns is the event's.
    Topic,
    /// It is narrowed to another user.
    User,
    /// It is narrowed to another connection.
    Connection,
    /// It asks for other update types.
    UpdateType,
    /// Only the app's own record changed, and it does not ask for that.
    RawOnly,
    /// The event is older than the subscription.
    Older,
    /// The event is about the subscription itself.
    Itself,
    /// It has expired.
    Expired,
    /// It is off, and drops what comes meanwhile.
    Off,
}

/// The first wish of a subscription that the event at `seq` does not meet; None: it is wanted, if the filter agrees.
pub fn miss(of: &Subscription, patterns: &[TopicPattern], seq: Seq, event: &Event, now: Millis) -> Option<Miss> {
    let of_type = |wanted: &[String]| event.update_type.as_ref().is_some_and(|t| wanted.contains(t));
    if !patterns.iter().any(|pattern| pattern.matches(&event.topic)) {
        Some(Miss::Topic)
    } else if of.user.is_some() && of.user != event.user {
        Some(Miss::User)
    } else if of.connection.is_some() && of.connection != event.connection {
        Some(Miss::Connection)
    } else if !of.update_types.is_empty() && !of_type(&of.update_types) {
        Some(Miss::UpdateType)
    } else if !event.unified_change && !of.include.contains(&Include::Raw) {
        Some(Miss::RawOnly)
    } else if seq <= of.from {
        Some(Miss::Older)
    } else if event.about == Some(of.id) {
        Some(Miss::Itself)
    } else if of.expires_at.is_some_and(|at| at <= now) {
        Some(Miss::Expired)
    } else if of.while_disabled == WhileDisabled::Drop && !of.delivers(now) {
        Some(Miss::Off)
    } else {
        None
    }
}
