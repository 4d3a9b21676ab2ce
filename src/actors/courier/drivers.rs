//! Destinations that are open: one driver each, shared by all lanes that write there, on one of the runtimes.
//!
//! Always true: a driver has the settings of the revision that it was opened for, and goes when they change; it has the
//! guarded client of its runtime and no other way out. Not here: what is written (`batch`), who may ask (`api`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

use super::destinations::{object, stopping};
use super::outlet::Outlet;
use crate::destinations::driver::Driver;
use crate::domain::destination::Destination;
use crate::domain::id::DestinationId;
use crate::domain::secret::Secret;
use crate::error::Result;

/// Drivers that are kept open at most; the next one takes the place of any other.
const OPEN_MAX: usize = 1024;

/// The open ones.
#[derive(Default)]
pub(super) struct Drivers(Mutex<HashMap<DestinationId, (u32, Opened)>>);

/// A driver with the runtime that it belongs to.
#[derive(Clone)]
pub(super) struct Opened {
    pub(super) runtime: Handle,
    pub(super) driver: Arc<dyn Driver>,
}

impl Outlet {
    /// Opens a destination with these secret settings (JSON object text). Nothing is connected yet.
    fn open_destination(&self, destination: &Destination, secrets: Option<&Secret>) -> Result<Opened> {
        // Ids that are drawn one after the other differ in their last byte.
        let last = destination.id.0.last().copied().map_or(0, usize::from);
        let (runtime, post) = self.runtime(last).ok_or_else(stopping)?;
        let opening = self.opening(&post, destination, &object(secrets.map(Secret::expose))?)?;
        // Some drivers begin tasks of their own.
        let _inside = runtime.enter();
        let driver = (self.kind(destination)?.open)(opening)?;
        Ok(Opened { runtime, driver })
    }

    /// The driver of a destination as it is set now; None: there is no such destination. It reads, so it may wait for the
    /// disk.
    pub(super) fn destination(&self, id: DestinationId) -> Result<Option<(Destination, Result<Opened>)>> {
        let found: Option<Destination> = self.store.object_anywhere(&id.0)?;
        let mut open = self.drivers.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(destination) = found else {
            open.remove(&id);
            return Ok(None);
        };
        if let Some((revision, opened)) = open.get(&id)
            && *revision == destination.revision
        {
            return Ok(Some((destination, Ok(opened.clone()))));
        }
        let secrets = self.store.destination_secrets(&id.0)?;
        let opened = self.open_destination(&destination, secrets.as_ref());
        if open.len() >= OPEN_MAX
            && let Some(other) = open.keys().next().copied()
        {
            open.remove(&other);
        }
        open.remove(&id);
        if let Ok(opened) = &opened {
            open.insert(id, (destination.revision, opened.clone()));
        }
        Ok(Some((destination, opened)))
    }
}
