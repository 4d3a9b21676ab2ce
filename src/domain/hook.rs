//! REST hooks: the names of events that iPaaS products subscribe to.
//!
//! Always true: a name means one topic (or pattern) and at most one update type, or it is refused with what may have
//! been meant; topics of the engine's own doings are none of a hook's business, since they tell of other subscriptions.
//! Not here: who may make a hook (`api`), what a subscription remembers of being one (`subscription`).

use super::models::Catalogue;
use super::subscription::Include;
use super::topic::{self, Kind, TopicPattern};

/// What the bodies of hooks carry: an iPaaS wants the event's type and the ISV's own user in the payload.
pub const INCLUDE: [Include; 3] = [Include::Topic, Include::EventId, Include::Username];

/// The longest name: a topic's two parts and a verb.
const NAME_BYTES_MAX: usize = 3 * topic::PART_BYTES_MAX + 2;

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookEvent {
    /// A topic or a pattern, as a subscription has it.
    pub topic: String,
    /// None: all.
    pub update_type: Option<String>,
}

/// Why a name means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEvent {
    #[error("{0}")]
    Unknown(topic::UnknownTopic),
    #[error("`{text}` may mean {}: write which", .topics.join(" or "))]
    Ambiguous { text: String, topics: Vec<String> },
    #[error("`{0}` is sent by the engine about itself; subscribe to it with POST /one/webhooks")]
    System(String),
    #[error("records of {topic} are created, updated or deleted, not `{verb}`")]
    Verb { topic: String, verb: String },
}

/// The event that a name means: `crm/contacts`, `crm/*`, `crm.contacts.updated`, `contact.updated`, `contacts`. `others`
/// are the topics that are not built in.
///
/// # Errors
/// It means none, or more than one.
pub fn event(text: &str, others: &[String]) -> Result<HookEvent, NotAnEvent> {
    let text = text.trim();
    if text.len() > NAME_BYTES_MAX {
        // It is compared with every topic letter by letter, and shown in the error.
        return Err(unknown(&text[..text.floor_char_boundary(NAME_BYTES_MAX)], others));
    }
    if text.ends_with('*') {
        return pattern(text, others);
    }
    let (noun, verb) = text.rsplit_once('.').map_or((text, None), |(noun, verb)| (noun, Some(verb)));
    for (noun, verb) in [(text, None), (noun, verb)] {
        if let Some(found) = names(others).find(|name| is_written(name, noun)) {
            return with(found, verb);
        }
    }
    for (noun, verb) in [(noun, verb), (text, None)] {
        let mut found: Vec<&str> = names(others).filter(|name| is_meant(name, noun)).collect();
        found.dedup();
        match found.as_slice() {
            [] => {}
            [one] => return with(one, verb),
            many => {
                let topics = many.iter().map(|topic| format!("`{topic}`")).collect();
                return Err(NotAnEvent::Ambiguous { text: text.to_owned(), topics });
            }
        }
    }
    Err(unknown(text, others))
}

fn pattern(text: &str, others: &[String]) -> Result<HookEvent, NotAnEvent> {
    match TopicPattern::parse(text, others).map_err(NotAnEvent::Unknown)? {
        TopicPattern::Category(name) if topic::is_reserved(&name) => Err(NotAnEvent::System(text.to_owned())),
        _ => Ok(HookEvent { topic: text.to_owned(), update_type: None }),
    }
}

/// Every topic that a hook can have.
fn names(others: &[String]) -> impl Iterator<Item = &str> {
    let data = Catalogue::embedded().models().iter().filter(|model| !model.system).map(|model| model.topic.as_str());
    data.chain(others.iter().map(String::as_str))
}

/// `crm/contacts` or `crm.contacts`.
fn is_written(name: &str, noun: &str) -> bool {
    name == noun || (!noun.contains('/') && name.replacen('/', ".", 1) == noun)
}

/// `contacts` or `contact`, however it is spelt.
fn is_meant(name: &str, noun: &str) -> bool {
    let noun = letters(noun);
    let singular = Catalogue::embedded().data(name).map(|model| letters(&model.singular()));
    let model = letters(topic::model(name));
    !noun.is_empty() && (noun == model || Some(&noun) == singular.as_ref() || format!("{noun}s") == model)
}

fn letters(text: &str) -> String {
    text.chars().filter(|c| *c != '-' && *c != '_').map(|c| c.to_ascii_lowercase()).collect()
}

fn with(name: &str, verb: Option<&str>) -> Result<HookEvent, NotAnEvent> {
    let wrong = |verb: &str| NotAnEvent::Verb { topic: name.to_owned(), verb: verb.chars().take(64).collect() };
    let is_word = |verb: &str| {
        (1..=64).contains(&verb.len()) && verb.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    let update_type = match (verb, topic::kind(name)) {
        (None, _) => None,
        (Some("created" | "create"), _) => Some("created".to_owned()),
        (Some("updated" | "update"), _) => Some("updated".to_owned()),
        (Some("deleted" | "delete"), _) => Some("deleted".to_owned()),
        // The ISV's own events have verbs of their own.
        (Some(verb), Kind::Custom) if is_word(verb) => Some(verb.to_owned()),
        (Some(verb), _) => return Err(wrong(verb)),
    };
    Ok(HookEvent { topic: name.to_owned(), update_type })
}

fn unknown(text: &str, others: &[String]) -> NotAnEvent {
    let slashed = text.replacen('.', "/", 1);
    let engine = Catalogue::embedded().models().iter().any(|model| model.system && model.topic == slashed);
    if engine {
        return NotAnEvent::System(text.to_owned());
    }
    let noun = text.rsplit_once('.').map_or(text, |(noun, _)| noun);
    // The nearest are those of the models' names, which are plural.
    let near = [text.to_owned(), noun.to_owned(), format!("{noun}s")].iter().find_map(|text| {
        let mut near = topic::near(text, others);
        near.retain(|name| topic::kind(name) != Kind::System);
        (!near.is_empty()).then_some(near)
    });
    let near = near.unwrap_or_default();
    NotAnEvent::Unknown(topic::UnknownTopic { text: text.chars().take(130).collect(), near })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others() -> Vec<String> {
        ["desk/tickets", "desk/contacts-archive", "shop/time_entries"].map(str::to_owned).to_vec()
    }
    #[test]
    fn a_name_that_is_too_long_means_nothing_and_is_cut() {
        for text in ["contacts".to_owned() + &"-".repeat(100_000), "é".repeat(100_000)] {
            let error = read(&text).expect_err("too long").to_string();
            assert!(error.len() < 1_000, "{}", error.len());
        }
    }

    fn read(text: &str) -> Result<(String, Option<String>), NotAnEvent> {
        event(text, &others()).map(|found| (found.topic, found.update_type))
    }

    #[test]
    fn an_event_may_be_written_in_several_ways() {
        for (text, topic, kind) in [
            ("crm/contacts", "crm/contacts", None),
            ("crm.contacts", "crm/contacts", None),
            ("contacts", "crm/contacts", None),
            ("crm.contacts.updated", "crm/contacts", Some("updated")),
            ("crm/contacts.deleted", "crm/contacts", Some("deleted")),
            ("contact.updated", "crm/contacts", Some("updated")),
            ("contact.create", "crm/contacts", Some("created")),
            ("taxRate.created", "accounting/taxRates", Some("created")),
            ("tax_rates.created", "accounting/taxRates", Some("created")),
            ("opportunity.updated", "crm/opportunities", Some("updated")),
            ("desk.tickets.reopened", "desk/tickets", Some("reopened")),
            ("ticket.reopened", "desk/tickets", Some("reopened")),
            ("timeEntries", "shop/time_entries", None),
            (" order.created ", "commerce/orders", Some("created")),
            ("*", "*", None),
            ("crm/*", "crm/*", None),
            ("desk/*", "desk/*", None),
        ] {
            assert_eq!(read(text), Ok((topic.to_owned(), kind.map(str::to_owned))), "{text}");
        }
    }

    #[test]
    fn what_may_mean_two_things_is_refused_and_both_are_named() {
        let Err(NotAnEvent::Ambiguous { topics, .. }) = read("customer.updated") else { panic!("not ambiguous") };
        assert_eq!(topics, ["`accounting/customers`", "`commerce/customers`"]);
        let told = read("account").unwrap_err().to_string();
        assert!(told.contains("`crm/accounts`") && told.contains("`accounting/accounts`"), "{told}");
        assert_eq!(read("commerce.customers.updated").map(|(topic, _)| topic), Ok("commerce/customers".to_owned()));
    }

    #[test]
    fn what_means_nothing_is_refused_with_what_may_have_been_meant() {
        for (text, word) in
            [("contct.updated", "crm/contacts"), ("crm.contact", "crm/contacts"), ("x", "GET /one/topics")]
        {
            let told = read(text).unwrap_err().to_string();
            assert!(told.contains(word), "{text}: {told}");
        }
        for text in ["", ".", "..", "contact.", "*.updated", "/", "nothing/*"] {
            assert!(read(text).is_err(), "{text:?}");
        }
        let told = read("crm.contacts.merged").unwrap_err().to_string();
        assert!(told.contains("created, updated or deleted"), "{told}");
    }

    #[test]
    fn the_engines_own_topics_are_no_events_of_hooks() {
        for text in ["subscription/disabled", "delivery.dead", "sync/*", "connection/created"] {
            assert!(matches!(read(text), Err(NotAnEvent::System(_))), "{text}: {:?}", read(text));
        }
    }
}
