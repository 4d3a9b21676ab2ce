//! The addresses to which an integration lets browsers go, as an object beside it.
//!
//! Always true: it has its integration's id, so it is put, also with an empty list, and deleted with the integration
//! alone: secrets go with an id. Not here: what may stand in the list (`domain::returns`).

use super::registry::Entity;
use crate::domain::id::WorkspaceNo;
use crate::domain::returns::ReturnUrls;

impl Entity for ReturnUrls {
    const KIND: u8 = 20;
    fn key(&self) -> [u8; 12] {
        self.integration.0
    }
    fn home(&self) -> WorkspaceNo {
        self.workspace
    }
}
