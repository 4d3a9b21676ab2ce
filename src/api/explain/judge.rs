//! One subscription and the last event of a record: what became of it, or which wish it misses.
//!
//! Always true: a delivery that is there counts more than any rule, since the rules are asked with the settings of now;
//! filters together take a bounded time. Not here: the rules (`domain::interest`).

use std::time::{Duration, Instant};

use super::shape::Judged;
use crate::api::deliveries::{self, DeliveryView};
use crate::api::state::State;
use crate::api::subscriptions;
use crate::domain::event::Event;
use crate::domain::filter::{Filter, Verdict, View};
use crate::domain::id::{EventId, Seq};
use crate::domain::interest::{Miss, miss};
use crate::domain::subscription::Subscription;
use crate::domain::time::Millis;
use crate::domain::topic::TopicPattern;
use crate::error::Result;
use crate::store::Rows;

/// What all filters of one explanation may take.
const FILTERS_BUDGET: Duration = Duration::from_secs(1);

/// The event that subscriptions are asked about.
pub(super) struct Case<'a> {
    pub(super) state: &'a State,
    /// Where it is in the log. None: there is none yet, and `event` is what one would be like.
    pub(super) seq: Option<Seq>,
    pub(super) event: Event,
    pub(super) routed: Seq,
    pub(super) now: Millis,
    view: Option<View>,
    spent: Duration,
}

impl<'a> Case<'a> {
    pub(super) fn new(state: &'a State, seq: Option<Seq>, event: Event, routed: Seq, now: Millis) -> Self {
        Self { state, seq, event, routed, now, view: None, spent: Duration::ZERO }
    }

    pub(super) fn judge(&mut self, rows: &Rows, of: &Subscription) -> Result<Judged> {
        let delivery = match self.seq {
            Some(seq) => deliveries::newest(rows, &self.state.outlet.flights, of, (seq, &self.event))?,
            None => None,
        };
        let (verdict, message) = match &delivery {
            Some(delivery) => self.of_delivery(rows, of, delivery)?,
            None => self.of_rules(of),
        };
        Ok(Judged { subscription_id: of.id.to_string(), address: of.address.clone(), verdict, message, delivery })
    }

    fn of_delivery(&self, rows: &Rows, of: &Subscription, delivery: &DeliveryView) -> Result<(&'static str, String)> {
        let error = delivery.last_error();
        let because = error.map_or_else(String::new, |(_, sentence)| format!(": {sentence}"));
        let owed = matches!(delivery.status(), "pending" | "retrying");
        if owed && !of.delivers(self.now) {
            let low = self.state.outlet.flights.low(of.lane);
            let (_, reason) = subscriptions::status_from(rows, of, &low, self.now)?;
            let reason = reason.unwrap_or_else(|| "it is off".to_owned());
            return Ok(("held", format!("the delivery waits in the queue, since the subscription is off ({reason})")));
        }
        Ok(match delivery.status() {
            "delivered" => ("delivered", "it was delivered".to_owned()),
            "pending" => ("pending", "the delivery waits for its first attempt".to_owned()),
            "inFlight" => ("in-flight", "the delivery is being tried at this moment".to_owned()),
            "retrying" => ("retrying", format!("the last attempt failed{because}; it is tried again")),
            "dead" if error.is_some_and(|(code, _)| code == "filter-failed") => {
                ("filter-failed", format!("nothing was sent{because}; the delivery has the reason"))
            }
            "dead" => ("dead", format!("it was given up{because}; `resend` sends it again")),
            "cancelled" => ("cancelled", "the delivery was cancelled, as when a backlog is skipped".to_owned()),
            "superseded" => ("superseded", "it collapsed into a later update of the record (`coalesce`)".to_owned()),
            _ => ("unknown", "its delivery is in a state that has no sentence".to_owned()),
        })
    }

    /// There is no delivery: which wish does the event miss?
    fn of_rules(&mut self, of: &Subscription) -> (&'static str, String) {
        let patterns: Vec<TopicPattern> = of.topics.iter().filter_map(|t| TopicPattern::restore(t).ok()).collect();
        let seq = self.seq.unwrap_or(Seq(u64::MAX));
        if self.seq.is_none() {
            // What would come: of a type that it asks for.
            self.event.update_type = of.update_types.first().cloned().or_else(|| Some("updated".to_owned()));
        }
        let missed = miss(of, &patterns, seq, &self.event, self.now);
        match missed.map(|miss| sentence(miss, of, &self.event)) {
            Some((verdict, message)) => (verdict, message.to_owned()),
            None => match self.seq {
                None => ("would-get", "it would get an event of this record; there is none yet".to_owned()),
                Some(seq) => self.of_filter(of, seq),
            },
        }
    }

    fn of_filter(&mut self, of: &Subscription, seq: Seq) -> (&'static str, String) {
        let verdict = match of.filter.as_deref() {
            None => Verdict::Yes,
            Some(_) if self.spent > FILTERS_BUDGET => {
                return ("not-judged", "its filter was not asked: those before took too long".to_owned());
            }
            Some(text) => self.ask(text, seq),
        };
        match verdict {
            Verdict::No => ("filtered", "its filter says no to this event".to_owned()),
            Verdict::Failed(reason) => ("filter-failed", format!("its filter cannot judge this event: {reason}")),
            Verdict::Yes if seq > self.routed => ("not-routed-yet", "the event is about to be queued".to_owned()),
            Verdict::Yes => {
                let message = "it asks for such events, but has no delivery of this one: it is kept no longer, or the \
                               subscription was set up otherwise, or off, when the event came";
                ("no-delivery", message.to_owned())
            }
        }
    }

    fn ask(&mut self, text: &str, seq: Seq) -> Verdict {
        let started = Instant::now();
        let filter = match Filter::parse(text) {
            Ok(filter) => filter,
            Err(why) => return Verdict::Failed(why.to_string()),
        };
        let id = EventId::new(seq, self.event.workspace);
        let view = self.view.get_or_insert_with(|| View::of(&self.event, id));
        let verdict = filter.judge(view);
        self.spent += started.elapsed();
        verdict
    }
}

fn sentence(miss: Miss, of: &Subscription, event: &Event) -> (&'static str, String) {
    match miss {
        Miss::Topic => ("not-asked", format!("it asks for {}, not for {}", of.topics.join(", "), event.topic)),
        Miss::User => ("other-user", "it is narrowed to another user".to_owned()),
        Miss::Connection => ("other-connection", "it is narrowed to another connection".to_owned()),
        Miss::UpdateType => {
            let what = event.update_type.as_deref().unwrap_or("no type");
            ("other-update-type", format!("it asks for {} only; this is {what}", of.update_types.join(", ")))
        }
        Miss::RawOnly => {
            let message = "only the app's own record changed, nothing of the unified one; `include` `raw` gets those";
            ("raw-only", message.to_owned())
        }
        Miss::Older => ("made-later", "it was made after this event".to_owned()),
        Miss::Itself => ("about-itself", "the event is about this subscription".to_owned()),
        Miss::Expired => ("expired", "it has expired".to_owned()),
        Miss::Off => ("dropped", "it is off, and drops what comes meanwhile (`whileDisabled`)".to_owned()),
    }
}
