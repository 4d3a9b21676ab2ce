//! How tables are called.
//!
//! Always true: no two topics have the same table, and the name of a topic's table depends on nothing but the topic and
//! the prefix. Not here: what a database makes of a name (its driver quotes it).

use sha2::{Digest, Sha256};

use super::values::snake;
use crate::domain::id::DestinationId;
use crate::domain::models::Catalogue;

/// The longest name of a mirror's table: the least that a database takes (PostgreSQL's docs, 4.1.1: NAMEDATALEN - 1).
const NAME_MAX_BYTES: usize = 63;
/// Letters of the mark of a name that could be another topic's too.
const MARK_LETTERS: usize = 8;

/// How tables are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The table of a log.
    pub log: String,
    /// Before the topic's own name in a mirror: `tm_` gives `tm_crm_contacts`.
    pub prefix: String,
}

impl Default for Names {
    fn default() -> Self {
        Self { log: "tidemill_events".to_owned(), prefix: String::new() }
    }
}

impl Names {
    /// What a test of a destination writes to: tables that no subscription has, of this destination alone.
    pub fn of_test(destination: DestinationId) -> Self {
        let id = destination.to_string();
        // Short, since some databases take 64 letters.
        let log = format!("tidemill_test_{}", id.get(id.len().saturating_sub(8)..).unwrap_or_default());
        Self { prefix: format!("{log}_"), log }
    }

    /// A topic's table in a mirror: `crm/contacts` is `crm_contacts`. A name that another topic could have too, or that is
    /// too long, ends with a mark of the topic: `my_app/orders` is `my_app_orders_` and eight letters.
    pub(super) fn mirror(&self, topic: &str) -> String {
        let mut name = format!("{}{}", self.prefix, plain(topic));
        if name.len() <= NAME_MAX_BYTES && is_alone(topic) {
            return name;
        }
        let mark = mark(topic);
        name.truncate(name.floor_char_boundary(NAME_MAX_BYTES - 1 - mark.len()));
        format!("{name}_{mark}")
    }
}

fn plain(topic: &str) -> String {
    snake(&topic.replace('/', "_"))
}

fn mark(topic: &str) -> String {
    let mut mark = hex::encode(Sha256::digest(topic));
    mark.truncate(MARK_LETTERS);
    mark
}

/// Whether no other topic has the same plain name. A category without `_` ends at the first one; what looks like a mark,
/// and what a built-in topic is called, is not to be had.
fn is_alone(topic: &str) -> bool {
    let catalogue = Catalogue::embedded();
    if catalogue.data(topic).is_some() {
        return true;
    }
    let Some((category, model)) = topic.split_once('/') else { return false };
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_marked = model.rsplit_once('_').is_some_and(|(_, end)| end.len() == MARK_LETTERS && is_hex(end));
    category.bytes().all(is_letter)
        && model.bytes().all(|b| is_letter(b) || b == b'_')
        && !is_marked
        && catalogue.models().iter().all(|built_in| plain(&built_in.topic) != plain(topic))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_topics_have_the_same_table() {
        let names = Names { prefix: "tm_".to_owned(), ..Names::default() };
        let long = "x".repeat(64);
        let mut topics: Vec<String> = Catalogue::embedded().models().iter().map(|model| model.topic.clone()).collect();
        for topic in [
            "a/b_c",
            "a_b/c",
            "a/b-c",
            "a-b/c",
            "a/b_C",
            "a/B_c",
            "A/b_c",
            "a/bC",
            "Crm/contacts",
            "crm/Contacts",
            "accounting/company_info",
        ] {
            topics.push(topic.to_owned());
        }
        topics.extend([format!("{long}/{long}"), format!("{long}/{}", "y".repeat(64)), format!("a/{long}")]);
        // What another topic's mark makes of it.
        topics.push(format!("a/b_c_{}", mark("a_b/c")));
        let tables: HashSet<String> = topics.iter().map(|topic| names.mirror(topic)).collect();
        assert_eq!(tables.len(), topics.len(), "{tables:?}");
        assert!(tables.iter().all(|table| table.len() <= NAME_MAX_BYTES), "{tables:?}");
    }

    #[test]
    fn a_table_is_called_like_its_topic_where_no_other_can_be() {
        let table = |topic| Names::default().mirror(topic);
        assert_eq!(table("crm/contacts"), "crm_contacts");
        assert_eq!(table("accounting/companyInfo"), "accounting_company_info");
        assert_eq!(table("acme/line_items"), "acme_line_items");
        assert_eq!(table("my_app/orders"), format!("my_app_orders_{}", mark("my_app/orders")));
    }
}
