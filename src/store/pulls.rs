//! The pull log (did we look, what did we find) and what a connection remembers of its collections.
//!
//! Always true: a collection's state and the snapshot rows it speaks of change in one commit. Not here: when to look
//! (`actors::watcher`).

use super::codec;
use super::keys::{self, Key};
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::tx::Tx;
use crate::domain::app_field::AppFields;
use crate::domain::connection::{CollectionState, Cursor, EventSwitch, Pull, Reselect, SyncRequest};
use crate::domain::id::{ConnectionId, PullId};
use crate::domain::pull::Bulk;
use crate::domain::time::Millis;
use crate::error::Result;

/// A page of pulls, newest first, and where the next page starts.
pub type PullSummary = (Vec<Pull>, Option<PullId>);

const STATE: u8 = 1;
const SYNC: u8 = 2;
const SWITCH: u8 = 3;
const CUSTOM_FIELD: u8 = 4;
const RESELECT: u8 = 5;
const APP_FIELDS: u8 = 6;
/// How far one of the values of a collection has been pulled.
const PART: u8 = 7;
/// How far a first sync by one operation of the app has come.
const BULK: u8 = 8;
/// When something of the connection was erased: see `erasures`.
pub(super) const ERASED: u8 = 9;

impl Rows {
    /// What is remembered of a collection.
    pub fn collection_state(&self, connection: ConnectionId, collection: &str) -> Result<CollectionState> {
        let key = Key::owner(&connection.0).u8(STATE).bytes(&keys::collection(collection));
        Ok(self.get(Table::Connections, key)?.unwrap_or_default())
    }

    /// What is remembered of all collections of a connection, without their names.
    pub fn collection_states(&self, connection: ConnectionId) -> Result<Vec<CollectionState>> {
        self.all_of(connection, STATE)
    }

    /// How far one of the values has been pulled that a collection is walked for.
    pub fn part_cursor(&self, connection: ConnectionId, collection: &str, value: &str) -> Result<Option<Cursor>> {
        self.get(Table::Connections, part(connection, collection, value))
    }

    /// How far a collection's first sync by one operation of the app has come. None: there is none.
    pub fn bulk(&self, connection: ConnectionId, collection: &str) -> Result<Option<Bulk>> {
        self.get(Table::Connections, bulk_key(connection, collection))
    }

    /// When something is due for a connection, as far as its rows tell. None: at once, since it was never looked at or a
    /// sync was asked for.
    pub fn next_due(&self, connection: ConnectionId) -> Result<Option<Millis>> {
        if !self.sync_requests(connection)?.is_empty() {
            return Ok(None);
        }
        let states = self.collection_states(connection)?;
        let reselect = self.reselect(connection)?.map(|wish| wish.due_at);
        let others = reselect.into_iter().chain(self.registration(connection)?.due_at);
        Ok(states.iter().flat_map(|state| [state.next_pull_at, state.next_scan_at]).flatten().chain(others).min())
    }

    /// Syncs that were asked for and have not run, oldest first.
    pub fn sync_requests(&self, connection: ConnectionId) -> Result<Vec<SyncRequest>> {
        self.all_of(connection, SYNC)
    }

    /// Connector events switched on for a connection.
    pub fn event_switches(&self, connection: ConnectionId) -> Result<Vec<EventSwitch>> {
        self.all_of(connection, SWITCH)
    }

    /// The wish that their selectors be asked for again.
    pub fn reselect(&self, connection: ConnectionId) -> Result<Option<Reselect>> {
        self.get(Table::Connections, Key::owner(&connection.0).u8(RESELECT))
    }

    /// Names of the custom fields seen in a collection.
    pub fn custom_fields(&self, connection: ConnectionId, collection: &str) -> Result<Vec<String>> {
        let key = Key::owner(&connection.0).u8(CUSTOM_FIELD).bytes(&keys::collection(collection));
        Ok(self.get(Table::Connections, key)?.unwrap_or_default())
    }

    /// The fields that the app says a collection has. None: it was never asked.
    pub fn app_fields(&self, connection: ConnectionId, collection: &str) -> Result<Option<AppFields>> {
        self.get(Table::Connections, app_fields_key(connection, collection))
    }

    fn all_of<T: serde::de::DeserializeOwned>(&self, connection: ConnectionId, what: u8) -> Result<Vec<T>> {
        let mut all = Vec::new();
        self.walk_prefix(Table::Connections, &Key::owner(&connection.0).u8(what), |_, value| {
            all.push(codec::decode(value)?);
            Ok(true)
        })?;
        Ok(all)
    }

    /// A page of a connection's pulls, newest first; `before` is an id.
    pub fn pulls(&self, connection: ConnectionId, before: Option<PullId>, limit: usize) -> Result<PullSummary> {
        let prefix = Key::owner(&connection.0);
        let end = match before {
            Some(id) => prefix.clone().bytes(&id.0).as_ref().to_vec(),
            None => prefix.clone().end(),
        };
        let mut pulls: Vec<Pull> = Vec::new();
        self.walk(Table::Pulls, prefix.as_ref(), &end, Walk::Backward, |_, value| {
            pulls.push(codec::decode(value)?);
            Ok(pulls.len() <= limit)
        })?;
        let next = (pulls.len() > limit).then(|| pulls.truncate(limit)).and_then(|()| pulls.last().map(|p| p.id));
        Ok((pulls, next))
    }

    /// One pull.
    pub fn pull(&self, connection: ConnectionId, id: PullId) -> Result<Option<Pull>> {
        self.get(Table::Pulls, Key::owner(&connection.0).bytes(&id.0))
    }
}

fn part(connection: ConnectionId, collection: &str, value: &str) -> Key {
    let of = Key::owner(&connection.0).u8(PART).bytes(&keys::collection(collection));
    of.bytes(&keys::collection(value))
}

impl Tx<'_> {
    /// Writes how far one of the values has been pulled that a collection is walked for.
    pub fn put_part_cursor(
        &mut self,
        connection: ConnectionId,
        collection: &str,
        value: &str,
        cursor: &Cursor,
    ) -> Result<()> {
        self.put(Table::Connections, part(connection, collection, value), cursor)
    }

    /// Writes how far a collection's first sync by one operation has come. None: it is over.
    pub fn put_bulk(&mut self, connection: ConnectionId, collection: &str, bulk: Option<&Bulk>) -> Result<()> {
        let key = bulk_key(connection, collection);
        match bulk {
            Some(bulk) => self.put(Table::Connections, key, bulk),
            None => self.delete(Table::Connections, key),
        }
    }

    /// Writes what is remembered of a collection.
    pub fn put_collection_state(
        &mut self,
        connection: ConnectionId,
        collection: &str,
        state: &CollectionState,
    ) -> Result<()> {
        self.put(Table::Connections, Key::owner(&connection.0).u8(STATE).bytes(&keys::collection(collection)), state)
    }

    /// Notes a sync that somebody asked for.
    pub fn put_sync_request(&mut self, connection: ConnectionId, request: &SyncRequest) -> Result<()> {
        self.put(Table::Connections, Key::owner(&connection.0).u8(SYNC).bytes(&request.pull.0), request)
    }

    /// Forgets a sync that has run.
    pub fn delete_sync_request(&mut self, connection: ConnectionId, pull: PullId) -> Result<()> {
        self.delete(Table::Connections, Key::owner(&connection.0).u8(SYNC).bytes(&pull.0))
    }

    /// Switches a connector event on, once per event and selector.
    pub fn put_event_switch(&mut self, connection: ConnectionId, switch: &EventSwitch) -> Result<()> {
        let name = format!("{}\n{}", switch.event, switch.selector);
        self.put(Table::Connections, Key::owner(&connection.0).u8(SWITCH).text(&name), switch)
    }

    /// Switches a connector event off.
    pub fn delete_event_switch(&mut self, connection: ConnectionId, switch: &EventSwitch) -> Result<()> {
        let name = format!("{}\n{}", switch.event, switch.selector);
        self.delete(Table::Connections, Key::owner(&connection.0).u8(SWITCH).text(&name))
    }

    /// Wishes that the selectors of the switched-on events be asked for again, if there are any.
    pub fn ask_reselect(&mut self, connection: ConnectionId) -> Result<()> {
        let now = self.now();
        match self.event_switches(connection)?.is_empty() {
            true => Ok(()),
            false => self.put_reselect(connection, &Reselect { asked_at: now, tries: 0, due_at: now }),
        }
    }

    /// Writes how far the wish has come.
    pub fn put_reselect(&mut self, connection: ConnectionId, wish: &Reselect) -> Result<()> {
        self.put(Table::Connections, Key::owner(&connection.0).u8(RESELECT), wish)
    }

    /// Forgets a wish that was granted.
    pub fn delete_reselect(&mut self, connection: ConnectionId) -> Result<()> {
        self.delete(Table::Connections, Key::owner(&connection.0).u8(RESELECT))
    }

    /// Writes the names of the custom fields seen in a collection.
    pub fn put_custom_fields(&mut self, connection: ConnectionId, collection: &str, names: &[String]) -> Result<()> {
        let key = Key::owner(&connection.0).u8(CUSTOM_FIELD).bytes(&keys::collection(collection));
        self.put(Table::Connections, key, &names)
    }

    /// Writes the fields that the app says a collection has.
    pub fn put_app_fields(&mut self, connection: ConnectionId, collection: &str, fields: &AppFields) -> Result<()> {
        self.put(Table::Connections, app_fields_key(connection, collection), fields)
    }

    /// Writes a pull, new or further on.
    pub fn put_pull(&mut self, pull: &Pull) -> Result<()> {
        self.put(Table::Pulls, Key::owner(&pull.connection.0).bytes(&pull.id.0), pull)
    }
}

/// connection (12), 8, collection (4).
fn bulk_key(connection: ConnectionId, collection: &str) -> Key {
    Key::owner(&connection.0).u8(BULK).bytes(&keys::collection(collection))
}

/// connection (12), 6, collection (4).
fn app_fields_key(connection: ConnectionId, collection: &str) -> Key {
    Key::owner(&connection.0).u8(APP_FIELDS).bytes(&keys::collection(collection))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_the_key_of_an_apps_fields_are_pinned() {
        let key = app_fields_key(ConnectionId([0xab; 12]), "contacts");
        assert_eq!(hex::encode(key.as_ref()), "abababababababababababab06aa5af408");
        let key = bulk_key(ConnectionId([0xab; 12]), "contacts");
        assert_eq!(hex::encode(key.as_ref()), "abababababababababababab08aa5af408");
    }
}
