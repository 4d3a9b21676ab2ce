//! Where the records are in an answer: `$.items`, or inside the items of a list: `$.data.orders.edges[*].node`,
//! `$.data.orders.nodes[*].fulfillments`.
//!
//! Always true: at most one `[*]`. Not here: reading them (`connectors::rest`).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};

use super::mapping::path::Path;

/// The text between a list and what is inside its items.
const EACH: &str = "[*]";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locator {
    pub list: Path,
    /// In an item of the list: the record, or a list of records.
    pub inner: Option<Path>,
}

impl Locator {
    /// Reads a locator. The error is one sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((list, inner)) = text.split_once(EACH) else {
            return Ok(Self { list: Path::parse(text)?, inner: None });
        };
        let inner = inner.strip_suffix(EACH).unwrap_or(inner);
        if inner.contains(EACH) {
            return Err(format!("{text:?} goes into more than one list"));
        }
        let inner = match inner {
            "" => None,
            inner => Some(Path::parse(&format!("${inner}"))?),
        };
        Ok(Self { list: Path::parse(list)?, inner })
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.list)?;
        match &self.inner {
            None => Ok(()),
            Some(inner) => write!(f, "{EACH}{}", inner.to_string().trim_start_matches('$')),
        }
    }
}

impl<'de> Deserialize<'de> for Locator {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_may_be_inside_the_items_of_a_list() {
        for text in ["$.items", "$", "$.data.orders.edges[*].node", "$.data.orders.nodes[*].fulfillments"] {
            assert_eq!(Locator::parse(text).unwrap().to_string(), text);
        }
        let nested = Locator::parse("$.a[*].b[*]").unwrap();
        assert_eq!((nested.list.to_string(), nested.inner.unwrap().to_string()), ("$.a".into(), "$.b".into()));
        assert_eq!(Locator::parse("$.a[*]").unwrap().inner, None);
        assert!(Locator::parse("$.a[*].b[*].c").unwrap_err().contains("more than one list"));
        assert!(Locator::parse("a[*].b").is_err());
    }
}
