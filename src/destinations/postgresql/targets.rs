//! What a part of a batch is written to, as text.
//!
//! Always true: the text says how and for which topic, and with the settings that gives the table. Not here: the table's
//! columns (`destinations::rows`).

use std::fmt;

use super::sql::Write;
use crate::destinations::rows::{self, Names, Table};
use crate::domain::destination::{Deletes, Shape};

/// `append`, or `mirror crm/contacts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Log,
    Mirror { topic: String },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log => f.write_str("append"),
            Self::Mirror { topic } => write!(f, "mirror {topic}"),
        }
    }
}

impl Target {
    /// The target that a text names.
    pub(super) fn of(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            None if text == "append" => Some(Self::Log),
            Some(("mirror", topic)) => Some(Self::Mirror { topic: topic.to_owned() }),
            _ => None,
        }
    }

    /// That of an event of a topic.
    pub(super) fn at(shape: Shape, topic: &str) -> Self {
        match shape {
            Shape::Append => Self::Log,
            Shape::Mirror(_) => Self::Mirror { topic: topic.to_owned() },
        }
    }

    /// Its table.
    pub(super) fn table(&self, names: &Names) -> Table {
        match self {
            Self::Log => rows::table(Shape::Append, "", names),
            // What becomes of deleted records makes no difference to the table.
            Self::Mirror { topic } => rows::table(Shape::Mirror(Deletes::Mark), topic, names),
        }
    }

    /// How rows are written to it.
    pub(super) fn write(&self) -> Write {
        match self {
            Self::Log => Write::Append,
            Self::Mirror { .. } => Write::Mirror,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_reads_as_it_was_written() {
        for target in [Target::Log, Target::Mirror { topic: "my app/a b".to_owned() }] {
            assert_eq!(Target::of(&target.to_string()), Some(target));
        }
        assert_eq!(Target::of("something"), None);
    }
}
