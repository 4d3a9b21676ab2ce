//! Topics: `category/model` names, the patterns that subscriptions use, and what is near a name that is not there.
//!
//! Always true: a topic is two parts of 1 to 64 of `A-Za-z0-9_-`, so it fits a header, a path and a key as it is; the
//! pattern `*` never matches a system topic. Not here: what a topic's payload looks like (`models`), which custom topics
//! a workspace has registered (`store`), who listens to what (`actors::router`).

mod near;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::models::Catalogue;
pub use near::{NEAR_MAX, near};

/// The longest a part of a topic may be, in bytes.
pub const PART_BYTES_MAX: usize = 64;

/// The topic of the event that `POST /one/webhooks/{id}/test` sends. It cannot be subscribed to.
pub const PING: &str = "tidemill/ping";

/// A `category/model` name of the right shape; it need not exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Topic(String);

/// The text is not two parts of 1 to 64 of `A-Za-z0-9_-`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a topic: write category/model, each 1 to 64 of A-Z a-z 0-9 _ -")]
pub struct NotATopic(pub String);

impl Topic {
    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The part before the slash; for most apps also the category of the app.
    pub fn category(&self) -> &str {
        category(&self.0)
    }
    /// The part after the slash.
    pub fn model(&self) -> &str {
        model(&self.0)
    }
    /// What kind of topic it is.
    pub fn kind(&self) -> Kind {
        kind(&self.0)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Topic {
    type Err = NotATopic;
    fn from_str(text: &str) -> Result<Self, NotATopic> {
        match text.split_once('/') {
            Some((category, model)) if is_part(category) && is_part(model) => Ok(Self(text.to_owned())),
            _ => Err(NotATopic(text.chars().take(2 * PART_BYTES_MAX + 1).collect())),
        }
    }
}

/// The part of a topic before the slash.
pub fn category(topic: &str) -> &str {
    topic.split_once('/').map_or(topic, |(category, _)| category)
}

/// The part of a topic after the slash; of a system topic, the verb that is its `updateType`.
pub fn model(topic: &str) -> &str {
    topic.split_once('/').map_or("", |(_, model)| model)
}

fn is_part(text: &str) -> bool {
    (1..=PART_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Where a topic comes from, and so what `*` does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of the unified models.
    Data,
    /// The engine's own doings; `*` leaves them out, and nobody else can publish them.
    System,
    /// Registered by the workspace, or a connector's own event (`hubspot/deal-created`).
    Custom,
}

macro_rules! system_topics {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// The topics of the engine's own doings. The verb of each is its second part.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum SystemTopic { $($(#[$doc])* $name,)* }

        impl SystemTopic {
            /// All of them, in the order of the docs.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// `sync/completed`.
            pub const fn as_str(self) -> &'static str { match self { $(Self::$name => $text,)* } }
        }
    };
}

system_topics! {
    /// A user has connected an account.
    ConnectionCreated = "connection/created";
    /// A connection and its records are gone.
    ConnectionDeleted = "connection/deleted";
    /// The app no longer accepts the credentials.
    ConnectionAuthenticationFailure = "connection/authentication_failure";
    /// A first sync, a full scan or a sync that was asked for has begun.
    SyncStarted = "sync/started";
    /// … is complete.
    SyncCompleted = "sync/completed";
    /// A pull failed; its cursor stays.
    SyncFailed = "sync/failed";
    /// A full scan misses too many records to be believed at once.
    SyncHeld = "sync/held";
    /// A collection has not been polled for too long.
    PollerStalled = "poller/stalled";
    /// Settings, credentials or status of a connection have changed.
    ConnectionUpdated = "connection/updated";
    /// A webhook at the app is about to end and could not be renewed.
    WebhookExpiring = "webhook/expiring";
    /// A person must paste webhook URLs again.
    WebhookUrlChanged = "webhook/url-changed";
    /// A subscription no longer delivers.
    SubscriptionDisabled = "subscription/disabled";
    /// An endpoint that failed accepts deliveries again.
    SubscriptionRecovered = "subscription/recovered";
    /// Deliveries were given up.
    DeliveryDead = "delivery/dead";
    /// A destination refuses what only its owner can mend.
    DestinationPaused = "destination/paused";
    /// A destination that was paused is written again.
    DestinationResumed = "destination/resumed";
}

impl SystemTopic {
    /// What the event says in `updateType`: `completed`.
    pub fn verb(self) -> &'static str {
        model(self.as_str())
    }
    /// The one with this name.
    pub fn find(topic: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.as_str() == topic)
    }
}

impl fmt::Display for SystemTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// True if names of this category belong to the engine, now or in a later version.
pub fn is_reserved(category_name: &str) -> bool {
    category_name == category(PING) || SystemTopic::ALL.iter().any(|t| category(t.as_str()) == category_name)
}

/// What kind of topic a name is, whether or not it exists.
pub fn kind(topic: &str) -> Kind {
    if is_reserved(category(topic)) {
        Kind::System
    } else if Catalogue::embedded().data(topic).is_some() {
        Kind::Data
    } else {
        Kind::Custom
    }
}

/// Why a name cannot be registered with `POST /one/topics`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCustom {
    #[error(transparent)]
    Shape(#[from] NotATopic),
    #[error("`{0}` is a built-in topic and needs no registration")]
    BuiltIn(String),
    #[error("`{0}` is reserved: categories of system topics cannot be extended")]
    Reserved(String),
}

/// Checks the name of a custom topic.
pub fn custom(text: &str) -> Result<Topic, NotCustom> {
    let topic: Topic = text.parse()?;
    match topic.kind() {
        Kind::Custom => Ok(topic),
        Kind::Data => Err(NotCustom::BuiltIn(topic.0)),
        Kind::System if SystemTopic::find(text).is_some() => Err(NotCustom::BuiltIn(topic.0)),
        Kind::System => Err(NotCustom::Reserved(topic.0)),
    }
}

/// One entry of a subscription's `topic`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TopicPattern {
    /// `*`: data and custom topics.
    All,
    /// `crm/*`, or `sync/*`.
    Category(String),
    /// A topic.
    Exact(Topic),
}

/// A pattern that can never match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownTopic {
    /// What was asked for, cut to the longest a topic can be.
    pub text: String,
    /// What may have been meant, best first.
    pub near: Vec<String>,
}

impl fmt::Display for UnknownTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a topic", self.text)?;
        match self.near.split_last() {
            None => f.write_str("; GET /one/topics lists them all"),
            Some((last, [])) => write!(f, "; did you mean `{last}`?"),
            Some((last, rest)) => write!(f, "; did you mean `{}` or `{last}`?", rest.join("`, `")),
        }
    }
}

impl std::error::Error for UnknownTopic {}

impl TopicPattern {
    /// Reads a pattern that can match something: a built-in topic, or one of `others` (the workspace's custom topics and
    /// the events of its connectors).
    pub fn parse(text: &str, others: &[impl AsRef<str>]) -> Result<Self, UnknownTopic> {
        let mut known = known(others);
        if text == "*" {
            return Ok(Self::All);
        }
        if let Some(category_name) = text.strip_suffix("/*") {
            if known.clone().any(|t| category(t) == category_name) {
                return Ok(Self::Category(category_name.to_owned()));
            }
        } else if known.any(|t| t == text)
            && let Ok(topic) = text.parse()
        {
            return Ok(Self::Exact(topic));
        }
        Err(UnknownTopic { text: text.chars().take(2 * PART_BYTES_MAX + 1).collect(), near: near(text, others) })
    }
    /// Reads back what [`Display`](fmt::Display) wrote, without asking whether it exists: topics of a removed connector
    /// stay in their subscriptions.
    pub fn restore(text: &str) -> Result<Self, NotATopic> {
        match text.strip_suffix("/*") {
            Some(category_name) if is_part(category_name) => Ok(Self::Category(category_name.to_owned())),
            None if text == "*" => Ok(Self::All),
            _ => text.parse().map(Self::Exact),
        }
    }
    /// Does an event of `topic` match?
    pub fn matches(&self, topic: &str) -> bool {
        match self {
            Self::All => !is_reserved(category(topic)),
            Self::Category(name) => category(topic) == name,
            Self::Exact(exact) => exact.as_str() == topic,
        }
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Category(name) => write!(f, "{name}/*"),
            Self::Exact(topic) => f.write_str(topic.as_str()),
        }
    }
}

/// Every topic there is: data, system, and `others`.
fn known(others: &[impl AsRef<str>]) -> impl Iterator<Item = &str> + Clone {
    let built_in = Catalogue::embedded().models().iter().map(|m| m.topic.as_str());
    built_in.chain(others.iter().map(AsRef::as_ref))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &[&str] = &[];

    fn pattern(text: &str) -> TopicPattern {
        TopicPattern::parse(text, &["acme/invoices", "hubspot/deal-created"]).unwrap()
    }

    #[test]
    fn a_star_means_data_and_custom_topics_only() {
        for topic in ["crm/contacts", "commerce/fulfillments", "acme/invoices", "hubspot/deal-created"] {
            assert!(pattern("*").matches(topic), "{topic}");
        }
        for topic in SystemTopic::ALL {
            assert!(!pattern("*").matches(topic.as_str()), "{topic}");
        }
        assert!(!pattern("*").matches(PING));
    }

    #[test]
    fn a_category_matches_its_topics_and_no_others() {
        assert!(pattern("crm/*").matches("crm/contacts"));
        assert!(!pattern("crm/*").matches("crmx/contacts"));
        assert!(pattern("sync/*").matches("sync/completed"));
        assert!(pattern("acme/*").matches("acme/anything"));
        assert!(pattern("crm/contacts").matches("crm/contacts"));
        assert!(!pattern("crm/contacts").matches("crm/contact"));
    }

    #[test]
    fn an_unknown_topic_is_told_in_one_sentence() {
        let sentence = TopicPattern::parse("crm/contact", NONE).unwrap_err().to_string();
        assert_eq!(sentence, "`crm/contact` is not a topic; did you mean `crm/contacts`?");
    }

    #[test]
    fn patterns_read_back_as_they_were_written() {
        for text in ["*", "crm/*", "crm/contacts", "gone-connector/thing"] {
            assert_eq!(TopicPattern::restore(text).unwrap().to_string(), text);
        }
        assert!(TopicPattern::restore("a/b/*").is_err());
    }

    #[test]
    fn a_custom_topic_is_two_plain_parts_outside_the_reserved_categories() {
        assert!(custom("acme/Invoices_2-x").is_ok());
        assert!(custom("crm/tickets").is_ok());
        let long = "x".repeat(64);
        assert!(custom(&format!("{long}/{long}")).is_ok());
        assert!(custom(&format!("{long}x/y")).is_err());
        for bad in ["", "a", "a/", "/b", "a/b/c", "a b/c", "ä/b", "*", "a/*"] {
            assert!(matches!(custom(bad), Err(NotCustom::Shape(_))), "{bad}");
        }
        assert!(matches!(custom("crm/contacts"), Err(NotCustom::BuiltIn(_))));
        assert!(matches!(custom("sync/completed"), Err(NotCustom::BuiltIn(_))));
        assert!(matches!(custom("sync/paused"), Err(NotCustom::Reserved(_))));
        assert!(matches!(custom(PING), Err(NotCustom::Reserved(_))));
    }

    #[test]
    fn a_system_topic_says_its_verb() {
        assert_eq!(SystemTopic::SyncCompleted.verb(), "completed");
        assert_eq!(SystemTopic::ConnectionAuthenticationFailure.verb(), "authentication_failure");
        assert_eq!(SystemTopic::find("delivery/dead"), Some(SystemTopic::DeliveryDead));
        assert_eq!(SystemTopic::find("delivery/alive"), None);
    }

    #[test]
    fn each_system_topic_has_its_schema_and_each_schema_its_topic() {
        let files: std::collections::BTreeSet<_> =
            Catalogue::embedded().models().iter().filter(|m| m.system).map(|m| m.topic.as_str()).collect();
        let table: std::collections::BTreeSet<_> = SystemTopic::ALL.iter().map(|t| t.as_str()).collect();
        assert_eq!(files, table);
    }
}
