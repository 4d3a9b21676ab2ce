//! What may have been meant by a topic that is not there.

use super::{PART_BYTES_MAX, category, known, model};

/// How many near matches an error lists.
pub const NEAR_MAX: usize = 5;

/// Topics that may have been meant by `text`, best first, at most [`NEAR_MAX`]. A pattern gets patterns.
pub fn near(text: &str, others: &[impl AsRef<str>]) -> Vec<String> {
    // Longer text is no slip of the pen, and the distance costs its square.
    let asked: String = text.chars().take(2 * PART_BYTES_MAX + 1).collect::<String>().to_lowercase();
    let wants_pattern = asked.ends_with("/*");
    let mut found: Vec<(usize, String)> = known(others)
        .filter_map(|topic| {
            let name = if wants_pattern { format!("{}/*", category(topic)) } else { topic.to_owned() };
            let lower = name.to_lowercase();
            // `contacts` and `crm.contacts` mean the model; so does the right model in the wrong category.
            let whole = distance(&asked, &lower);
            let part = asked.rsplit(['/', '.']).next().filter(|p| !wants_pattern && p.len() > 2);
            let part = part.map_or(usize::MAX, |p| distance(p, model(&lower)).saturating_add(1));
            let best = whole.min(part);
            (best <= 1 + asked.len().min(lower.len()) / 5).then_some((best, name))
        })
        .collect();
    found.sort();
    found.dedup();
    found.into_iter().take(NEAR_MAX).map(|(_, name)| name).collect()
}

/// How many letters to insert, delete, change or swap with their neighbour to get from one text to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (above[j] + usize::from(x != y)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::topic::TopicPattern;

    const NONE: &[&str] = &[];

    #[test]
    fn an_unknown_topic_lists_what_may_have_been_meant() {
        for (asked, meant) in [
            ("crm/contact", "crm/contacts"),
            ("CRM/Contacts", "crm/contacts"),
            ("contacts", "crm/contacts"),
            ("crm.contacts", "crm/contacts"),
            ("commerce/order", "commerce/orders"),
            ("accounting/tax-rates", "accounting/taxRates"),
            ("crn/*", "crm/*"),
            ("sync/complete", "sync/completed"),
            ("commerce/fulfilments", "commerce/fulfillments"),
        ] {
            let unknown = TopicPattern::parse(asked, NONE).unwrap_err();
            assert_eq!(unknown.near.first().map(String::as_str), Some(meant), "{asked}: {:?}", unknown.near);
            assert!(unknown.near.len() <= NEAR_MAX);
        }
        assert_eq!(TopicPattern::parse("zzzz/qqqqqq", NONE).unwrap_err().near, Vec::<String>::new());
        assert_eq!(TopicPattern::parse("", NONE).unwrap_err().near, Vec::<String>::new());
        assert!(TopicPattern::parse("tidemill/ping", NONE).is_err());
        assert!(TopicPattern::parse("**", NONE).is_err());
        assert!(TopicPattern::parse(&"x/".repeat(100_000), NONE).is_err());
    }
}
