//! Which subscriptions an event goes to.
//!
//! Always true: an event of one workspace meets only subscriptions of that workspace. Not here: reading the log.

use std::collections::HashMap;

use crate::domain::event::Event;
use crate::domain::filter::Filter;
use crate::domain::id::{LaneNo, Seq, WorkspaceNo};
use crate::domain::interest::miss;
use crate::domain::subscription::Subscription;
use crate::domain::time::Millis;
use crate::domain::topic::TopicPattern;
use crate::store::Care;

/// What the router needs of a subscription.
#[derive(Debug)]
struct Entry {
    subscription: Subscription,
    patterns: Vec<TopicPattern>,
    filter: Option<Judge>,
}

/// A filter, or why the stored text is none any more.
type Judge = std::result::Result<Filter, String>;

/// A lane that gets an event, if its filter says so.
pub struct Taker<'a> {
    pub lane: LaneNo,
    pub care: Care,
    /// What the filter says costs CPU time, so it is asked off the threads of actors.
    pub filter: Option<&'a Judge>,
}

/// The subscriptions of the node, by workspace and by the topics that they name outright.
#[derive(Debug, Default)]
pub struct Index {
    entries: Vec<Entry>,
    /// Subscriptions of which every entry is a plain topic.
    named: HashMap<(WorkspaceNo, String), Vec<usize>>,
    /// Those with a pattern.
    patterned: HashMap<WorkspaceNo, Vec<usize>>,
}

impl Index {
    /// Adds a subscription. One whose topics cannot be read any more matches nothing, and is told in the log.
    pub fn add(&mut self, subscription: Subscription) {
        let number = self.entries.len();
        let home = subscription.workspace;
        let mut patterns = Vec::new();
        for text in &subscription.topics {
            match TopicPattern::restore(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => tracing::warn!(subscription = %subscription.id, %error, "a topic is not understood"),
            }
        }
        if subscription.topics.iter().any(|t| t.contains('*')) {
            self.patterned.entry(home).or_default().push(number);
        } else {
            for topic in &subscription.topics {
                let numbers = self.named.entry((home, topic.clone())).or_default();
                // The same topic twice in one list must not mean two deliveries.
                if numbers.last() != Some(&number) {
                    numbers.push(number);
                }
            }
        }
        let filter = subscription.filter.as_deref().map(|text| Filter::parse(text).map_err(|e| e.to_string()));
        self.entries.push(Entry { subscription, patterns, filter });
    }

    /// The lanes that get the event at `seq`, as far as it shows without asking their filters.
    pub fn takers(&self, seq: Seq, event: &Event, now: Millis) -> Vec<Taker<'_>> {
        let named = self.named.get(&(event.workspace, event.topic.clone()));
        let patterned = self.patterned.get(&event.workspace);
        let numbers = named.into_iter().chain(patterned).flatten();
        numbers
            .filter_map(|n| self.entries.get(*n))
            .filter(|e| e.wants(seq, event, now))
            .map(|e| Taker { lane: e.subscription.lane, care: Care::of(&e.subscription), filter: e.filter.as_ref() })
            .collect()
    }
}

impl Entry {
    fn wants(&self, seq: Seq, event: &Event, now: Millis) -> bool {
        miss(&self.subscription, &self.patterns, seq, event, now).is_none()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::event::{Payload, Source};
    use crate::domain::id::{ConnectionId, SubscriptionId, UserId};
    use crate::domain::subscription::{ApiVersion, Halt, Include, Signing, WhileDisabled};

    pub(crate) fn subscription(number: u32, topics: &[&str]) -> Subscription {
        Subscription {
            id: SubscriptionId([u8::try_from(number).unwrap_or(255); 12]),
            workspace: WorkspaceNo(1),
            lane: LaneNo(number),
            address: "https://example.com/".into(),
            topics: topics.iter().map(ToString::to_string).collect(),
            is_enabled: true,
            halt: Halt::No,
            user: None,
            connection: None,
            api_version: ApiVersion::V2024_03,
            description: String::new(),
            update_types: Vec::new(),
            include: Vec::new(),
            while_disabled: WhileDisabled::Hold,
            expires_at: None,
            max_in_flight: 1,
            timeout_seconds: 15,
            retry_schedule: None,
            header_names: Vec::new(),
            signing: Signing { rsa: true, hmac: true, ed25519: true },
            from: Seq(10),
            created_at: Millis(0),
            updated_at: Millis(0),
            ordered: false,
            coalesce: false,
            rate_milli: None,
            filter: None,
            hook: None,
            destination: None,
            shape: crate::domain::destination::Shape::Append,
        }
    }

    pub(crate) fn event(topic: &str) -> Event {
        Event {
            workspace: WorkspaceNo(1),
            topic: topic.into(),
            update_type: Some("updated".into()),
            connection: Some(ConnectionId([1; 12])),
            user: Some(UserId([2; 12])),
            app: None,
            user_name: None,
            username: None,
            happened_at: Millis(0),
            accepted_at: Millis(0),
            payload: Payload::Plain("{}".into()),
            changed_fields: Vec::new(),
            previous: None,
            raw: None,
            source: Source::Published,
            unified_change: true,
            about: None,
        }
    }

    fn lanes(subscriptions: Vec<Subscription>, seq: u64, event: &Event) -> Vec<u32> {
        let mut index = Index::default();
        subscriptions.into_iter().for_each(|s| index.add(s));
        index.takers(Seq(seq), event, Millis(1)).into_iter().map(|taker| taker.lane.0).collect()
    }

    #[test]
    fn topics_patterns_and_scope_choose_the_lanes() {
        let all = || {
            vec![
                subscription(1, &["crm/contacts", "crm/contacts"]),
                subscription(2, &["crm/*", "crm/contacts"]),
                subscription(3, &["commerce/orders"]),
                Subscription { user: Some(UserId([9; 12])), ..subscription(4, &["*"]) },
                Subscription { update_types: vec!["deleted".into()], ..subscription(5, &["*"]) },
                Subscription { workspace: WorkspaceNo(2), ..subscription(6, &["*"]) },
            ]
        };
        assert_eq!(lanes(all(), 11, &event("crm/contacts")), [1, 2]);
        assert_eq!(lanes(all(), 10, &event("crm/contacts")), Vec::<u32>::new());
    }

    #[test]
    fn an_event_about_a_subscription_never_goes_to_it() {
        let event = Event { about: Some(SubscriptionId([1; 12])), ..event("subscription/disabled") };
        let both = vec![subscription(1, &["subscription/*"]), subscription(2, &["subscription/disabled"])];
        assert_eq!(lanes(both, 11, &event), [2]);
    }

    #[test]
    fn a_raw_change_goes_only_to_those_who_ask_for_raw() {
        let event = Event { unified_change: false, ..event("crm/contacts") };
        let raw = Subscription { include: vec![Include::Raw], ..subscription(2, &["*"]) };
        assert_eq!(lanes(vec![subscription(1, &["*"]), raw], 11, &event), [2]);
    }
}
