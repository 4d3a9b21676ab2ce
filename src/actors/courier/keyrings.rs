//! The workspaces' signing keys, opened.
//!
//! Always true: what was read before a change is not kept after it. Not here: which key signs when
//! (`destinations::http::keys`), changing them (`api`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::outlet::Outlet;
use crate::destinations::http::keys::{KeyRing, StoredKey};
use crate::domain::id::WorkspaceNo;
use crate::error::{Error, Result};
use crate::store::Slot;

/// Keys that were opened before.
#[derive(Default)]
pub(super) struct KeyRings(Mutex<Opened>);

#[derive(Default)]
struct Opened {
    /// Moves with each change.
    era: u64,
    rings: HashMap<WorkspaceNo, Arc<KeyRing>>,
}

impl KeyRings {
    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlet {
    /// The signing keys of a workspace.
    pub fn keys_of(&self, workspace: WorkspaceNo) -> Result<Arc<KeyRing>> {
        let era = {
            let opened = self.keys.lock();
            if let Some(keys) = opened.rings.get(&workspace) {
                return Ok(keys.clone());
            }
            opened.era
        };
        let id = self.store.workspace_by_no(workspace)?.ok_or_else(|| Error::internal("a lane has no workspace"))?.id;
        let stored: Vec<StoredKey> = self.store.secret(&id.0, Slot::SigningKeys)?.unwrap_or_default();
        let keys = Arc::new(KeyRing::open(&stored, self.options.key_overlap)?);
        let mut opened = self.keys.lock();
        if opened.era == era {
            opened.rings.insert(workspace, keys.clone());
        }
        Ok(keys)
    }

    /// A workspace's keys were changed: they are read again, by the lanes too.
    pub fn keys_changed(&self) {
        let mut opened = self.keys.lock();
        opened.era += 1;
        opened.rings.clear();
        drop(opened);
        self.rings.subscriptions_changed();
    }
}
