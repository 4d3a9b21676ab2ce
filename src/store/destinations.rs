//! Destinations among the objects of the registry.
//!
//! Always true: a name is there once in a workspace; one that belongs to a user is listed under him. Not here: their
//! secret settings (`secrets`), what is written there (`batches`).

use super::registry::{Entity, SPACE_DESTINATION, Unique};
use crate::domain::destination::Destination;
use crate::domain::id::WorkspaceNo;

impl Entity for Destination {
    const KIND: u8 = 9;
    fn key(&self) -> [u8; 12] {
        self.id.0
    }
    fn home(&self) -> WorkspaceNo {
        self.workspace
    }
    fn unique(&self) -> Vec<Unique> {
        vec![Unique { space: SPACE_DESTINATION, workspace: Some(self.workspace), text: self.name.clone() }]
    }
    fn parents(&self) -> Vec<[u8; 12]> {
        self.user.iter().map(|u| u.0).collect()
    }
}
