//! The connector events: what of a global webhook can be switched on for one connection.
//!
//! Always true: as for the whole of `connectors::spec`. Not here: what comes of an event (`connectors::hooks`).

use super::{Method, Schema};
use crate::connectors::mapping::Mapping;

/// An event that is switched on per connection.
#[derive(Debug)]
pub struct ConnectorEvent {
    pub key: String,
    pub name: String,
    pub description: Option<String>,
    pub parameters: Schema,
    /// Switched on when an account is connected through an integration.
    pub default: bool,
    /// The collection whose diff the event goes through. None: its payload is delivered unchanged.
    pub collection: Option<OfCollection>,
    pub(in crate::connectors) kind: Option<Mapping>,
    pub(in crate::connectors) record: Option<Mapping>,
    pub(in crate::connectors) id: Option<Mapping>,
    pub(in crate::connectors) selector: Method<()>,
}

/// Which collection an event is about.
#[derive(Debug)]
pub enum OfCollection {
    /// Always this one.
    Key(String),
    /// What this makes of the payload.
    Told(Mapping),
}

impl OfCollection {
    /// Whether events of that collection may come.
    pub fn may_be(&self, key: &str) -> bool {
        match self {
            Self::Key(only) => only == key,
            Self::Told(_) => true,
        }
    }
}
