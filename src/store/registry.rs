//! Workspaces, keys, users, integrations, connections, subscriptions, topics: objects with an id.
//!
//! Always true: an object, its place in its workspace's list, its unique names and its links to parents change in one
//! commit. Not here: secrets (`secrets`), what an API answers (`api`).

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::keys::Key;
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::tx::Tx;
use crate::domain::connection::{Connection, Farewell, Integration};
use crate::domain::destination::Destination;
use crate::domain::id::{
    ConnectionId, DestinationId, IntegrationId, KeyId, LaneNo, SubscriptionId, UserId, WorkspaceId, WorkspaceNo,
};
use crate::domain::subscription::Subscription;
use crate::domain::workspace::CustomTopic;
use crate::domain::workspace::{ApiKey, User, Workspace};
use crate::error::Result;

/// A name that must be unique, and among what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    pub(super) space: u8,
    /// None: unique on the node.
    pub(super) workspace: Option<WorkspaceNo>,
    pub(super) text: String,
}

impl Unique {
    fn key(&self) -> Key {
        let no = self.workspace.unwrap_or(WorkspaceNo(u32::MAX));
        Key::new().u8(self.space).u32(no.0).text(&self.text)
    }
}

/// An object that the registry keeps.
pub trait Entity: Serialize + DeserializeOwned + Send + 'static {
    /// The kind's byte in keys; never reused.
    const KIND: u8;
    /// The object's id.
    fn key(&self) -> [u8; 12];
    /// The workspace it belongs to.
    fn home(&self) -> WorkspaceNo;
    /// Names that no other object may have.
    fn unique(&self) -> Vec<Unique> {
        Vec::new()
    }
    /// Objects that it hangs on, so that it can be listed under them.
    fn parents(&self) -> Vec<[u8; 12]> {
        Vec::new()
    }
}

/// A page of a list, newest first.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Where the next page starts: pass it as `before`. None on the last page.
    pub next: Option<Vec<u8>>,
}

const SPACE_USERNAME: u8 = 1;
const SPACE_KEY_DIGEST: u8 = 2;
const SPACE_WORKSPACE_NAME: u8 = 3;
const SPACE_SUBSCRIPTION: u8 = 4;
const SPACE_ACCOUNT: u8 = 5;
const SPACE_TOPIC: u8 = 6;
/// Webhook tokens: see `Tx::put_token`.
const SPACE_TOKEN: u8 = 7;
/// Lane and workspace numbers, so that the numbers in keys lead back to their objects.
const SPACE_LANE: u8 = 8;
const SPACE_WORKSPACE_NO: u8 = 9;
/// Names of destinations: see `destinations`.
pub(super) const SPACE_DESTINATION: u8 = 10;

fn numbered(space: u8, number: u32) -> Unique {
    Unique { space, workspace: None, text: number.to_string() }
}

impl Entity for Workspace {
    const KIND: u8 = 1;
    fn key(&self) -> [u8; 12] {
        self.id.0
    }
    // Workspaces are listed by the operator, so they all live in the default one.
    fn home(&self) -> WorkspaceNo {
        WorkspaceNo::DEFAULT
    }
    fn unique(&self) -> Vec<Unique> {
        let name = Unique { space: SPACE_WORKSPACE_NAME, workspace: None, text: self.name.clone() };
        vec![name, numbered(SPACE_WORKSPACE_NO, self.no.0)]
    }
}

impl Entity for ApiKey {
    const KIND: u8 = 2;
    fn key(&self) -> [u8; 12] {
        self.id.0
    }
    fn home(&self) -> WorkspaceNo {
        self.workspace
    }
    fn unique(&self) -> Vec<Unique> {
        vec![Unique { space: SPACE_KEY_DIGEST, workspace: None, text: hex::encode(self.digest) }]
    }
    fn parents(&self) -> Vec<[u8; 12]> {
        self.user.iter().map(|u| u.0).collect()
    }
}

impl Entity for User {
    const KIND: u8 = 3;
    fn key(&self) -> [u8; 12] {
        self.id.0
    }
    fn home(&self) -> WorkspaceNo {
        self.workspace
    }
    fn unique(&self) -> Vec<Unique> {
        vec![Unique { space: SPACE_USERNAME, workspace: Some(self.workspace), text: self.username.clone() }]
    }
}

impl Entity for Integration {
    const KIND: u8 = 4;
    fn key(&self) -> [u8; 12] {
        self.id.0
    }
    fn home(&self) -> WorkspaceNo {
        self.workspace
    }
}

impl Entity for Connection {
    const KIND: u8 = 5;
    fn key(&self) -> [u8; 12] {
        self.id.0
    }
    fn home(&self) -> WorkspaceNo {
        self.workspace
    }
    fn unique(&self) -> Vec<Unique> {
        let text = self.account.as_ref().map(|a| format!("{}\n{}\n{a}", self.user, self.connector));
        text.map(|text| Unique { space: SPACE_ACCOUNT, workspace: Some(self.workspace), text }).into_iter().collect()
    }
    fn parents(&self) -> Vec<[u8; 12]> {
        std::iter::once(self.user.0).chain(self.integration.map(|i| i.0)).collect()
    }
}

impl Entity for Subscription {
    const KIND: u8 = 6;
    fn key(&self) -> [u8; 12] {
        self.id.0
    }
    fn home(&self) -> WorkspaceNo {
        self.workspace
    }
    fn unique(&self) -> Vec<Unique> {
        let wish = Unique { space: SPACE_SUBSCRIPTION, workspace: Some(self.workspace), text: self.wish() };
        vec![wish, numbered(SPACE_LANE, self.lane.0)]
    }
    fn parents(&self) -> Vec<[u8; 12]> {
        let narrowed = self.user.map(|u| u.0).into_iter().chain(self.connection.map(|c| c.0));
        narrowed.chain(self.destination.map(|d| d.0)).collect()
    }
}

impl Entity for CustomTopic {
    const KIND: u8 = 7;
    fn key(&self) -> [u8; 12] {
        self.id
    }
    fn home(&self) -> WorkspaceNo {
        self.workspace
    }
    fn unique(&self) -> Vec<Unique> {
        vec![Unique { space: SPACE_TOPIC, workspace: Some(self.workspace), text: self.name.clone() }]
    }
}

impl Entity for Farewell {
    const KIND: u8 = 8;
    fn key(&self) -> [u8; 12] {
        self.connection.id.0
    }
    fn home(&self) -> WorkspaceNo {
        self.connection.workspace
    }
}

fn object_key(kind: u8, id: &[u8; 12]) -> Key {
    Key::new().u8(kind).bytes(id)
}

impl Rows {
    /// The object with that id in that workspace; an id of another workspace is as good as none.
    pub fn object<T: Entity>(&self, workspace: WorkspaceNo, id: &[u8; 12]) -> Result<Option<T>> {
        Ok(self.object_anywhere::<T>(id)?.filter(|o| o.home() == workspace))
    }

    /// The object with that id, for the engine itself.
    pub fn object_anywhere<T: Entity>(&self, id: &[u8; 12]) -> Result<Option<T>> {
        self.get(Table::Objects, object_key(T::KIND, id))
    }

    /// A page of the workspace's objects of a kind, newest first.
    pub fn objects<T: Entity>(&self, workspace: WorkspaceNo, before: Option<&[u8]>, limit: usize) -> Result<Page<T>> {
        let prefix = Key::new().u8(T::KIND).u32(workspace.0);
        self.page(Table::ByWorkspace, &prefix, before, limit)
    }

    /// A page of the objects of a kind under a parent, newest first.
    pub fn children<T: Entity>(&self, parent: &[u8; 12], before: Option<&[u8]>, limit: usize) -> Result<Page<T>> {
        let prefix = Key::owner(parent).u8(T::KIND);
        self.page(Table::Links, &prefix, before, limit)
    }

    fn page<T: Entity>(&self, table: Table, prefix: &Key, before: Option<&[u8]>, limit: usize) -> Result<Page<T>> {
        let end = match before {
            Some(id) => prefix.clone().bytes(id).as_ref().to_vec(),
            None => prefix.clone().end(),
        };
        let mut ids: Vec<[u8; 12]> = Vec::new();
        self.walk(table, prefix.as_ref(), &end, Walk::Backward, |key, _| {
            ids.push(super::codec::fixed("list", key.get(prefix.as_ref().len()..).unwrap_or_default())?);
            Ok(ids.len() <= limit)
        })?;
        let next = (ids.len() > limit).then(|| ids.truncate(limit)).and_then(|()| ids.last().map(|id| id.to_vec()));
        let mut items = Vec::with_capacity(ids.len());
        for id in &ids {
            items.extend(self.object_anywhere::<T>(id)?);
        }
        Ok(Page { items, next })
    }

    /// Every object of a kind on the node, oldest first, for starting up.
    pub fn every_object<T: Entity>(&self, mut each: impl FnMut(T) -> Result<()>) -> Result<()> {
        self.walk_prefix(Table::Objects, &Key::new().u8(T::KIND), |_, value| {
            each(super::codec::decode(value)?)?;
            Ok(true)
        })
    }

    fn by_unique(&self, unique: &Unique) -> Result<Option<[u8; 12]>> {
        self.raw(Table::Unique, unique.key())?.map(|id| super::codec::fixed("unique", &id)).transpose()
    }

    /// The user with that username.
    pub fn user_by_name(&self, workspace: WorkspaceNo, username: &str) -> Result<Option<User>> {
        let unique = Unique { space: SPACE_USERNAME, workspace: Some(workspace), text: username.to_owned() };
        self.by_unique(&unique)?.map_or(Ok(None), |id| self.object(workspace, &id))
    }

    /// The user whom an id or a username means.
    pub fn user(&self, workspace: WorkspaceNo, id_or_name: &str) -> Result<Option<User>> {
        if let Ok(id) = id_or_name.parse::<UserId>()
            && let Some(user) = self.object::<User>(workspace, &id.0)?
        {
            return Ok(Some(user));
        }
        self.user_by_name(workspace, id_or_name)
    }

    /// The API key with that SHA-256.
    pub fn api_key_by_digest(&self, digest: &[u8; 32]) -> Result<Option<ApiKey>> {
        let unique = Unique { space: SPACE_KEY_DIGEST, workspace: None, text: hex::encode(digest) };
        self.by_unique(&unique)?.map_or(Ok(None), |id| self.object_anywhere(&id))
    }

    /// Whether a lane has a subscription.
    pub fn has_lane(&self, lane: LaneNo) -> Result<bool> {
        Ok(self.by_unique(&numbered(SPACE_LANE, lane.0))?.is_some())
    }

    /// The subscription that owns a lane.
    pub fn subscription_by_lane(&self, lane: LaneNo) -> Result<Option<Subscription>> {
        let id = self.by_unique(&numbered(SPACE_LANE, lane.0))?;
        id.map_or(Ok(None), |id| self.object_anywhere(&id))
    }

    /// The subscription with that wish (`domain::subscription::wish`).
    pub fn subscription_by_wish(&self, workspace: WorkspaceNo, text: String) -> Result<Option<Subscription>> {
        let unique = Unique { space: SPACE_SUBSCRIPTION, workspace: Some(workspace), text };
        self.by_unique(&unique)?.map_or(Ok(None), |id| self.object(workspace, &id))
    }

    /// The workspace with that number.
    pub fn workspace_by_no(&self, no: WorkspaceNo) -> Result<Option<Workspace>> {
        let id = self.by_unique(&numbered(SPACE_WORKSPACE_NO, no.0))?;
        id.map_or(Ok(None), |id| self.object_anywhere(&id))
    }

    /// The custom topic of that name.
    pub fn custom_topic(&self, workspace: WorkspaceNo, name: &str) -> Result<Option<CustomTopic>> {
        let unique = Unique { space: SPACE_TOPIC, workspace: Some(workspace), text: name.to_owned() };
        self.by_unique(&unique)?.map_or(Ok(None), |id| self.object(workspace, &id))
    }

    /// The owner of a webhook token (a connection or an integration), by the token's SHA-256.
    pub fn token_owner(&self, token: &str) -> Result<Option<[u8; 12]>> {
        self.by_unique(&Unique { space: SPACE_TOKEN, workspace: None, text: token.to_owned() })
    }

    /// The first other object that has one of these unique names.
    pub fn rival<T: Entity>(&self, object: &T) -> Result<Option<[u8; 12]>> {
        for unique in object.unique() {
            if let Some(id) = self.by_unique(&unique)?
                && id != object.key()
            {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

impl Tx<'_> {
    /// Puts an object, new or changed. The caller has looked for a `rival` in the same (exclusive) commit.
    pub fn put_object<T: Entity>(&mut self, object: &T) -> Result<()> {
        let id = object.key();
        if let Some(before) = self.object_anywhere::<T>(&id)? {
            self.unlink(&before)?;
        }
        self.put(Table::Objects, object_key(T::KIND, &id), object)?;
        self.put_raw(Table::ByWorkspace, Key::new().u8(T::KIND).u32(object.home().0).bytes(&id), &[])?;
        for unique in object.unique() {
            self.put_raw(Table::Unique, unique.key(), &id)?;
        }
        for parent in object.parents() {
            self.put_raw(Table::Links, Key::owner(&parent).u8(T::KIND).bytes(&id), &[])?;
        }
        Ok(())
    }

    /// Deletes an object with its names, links and secrets. What it owns elsewhere has functions of its own.
    pub fn delete_object<T: Entity>(&mut self, object: &T) -> Result<()> {
        let id = object.key();
        self.unlink(object)?;
        self.delete(Table::Objects, object_key(T::KIND, &id))?;
        self.delete(Table::ByWorkspace, Key::new().u8(T::KIND).u32(object.home().0).bytes(&id))?;
        self.delete_secrets(&id)
    }

    fn unlink<T: Entity>(&mut self, object: &T) -> Result<()> {
        for unique in object.unique() {
            self.delete(Table::Unique, unique.key())?;
        }
        for parent in object.parents() {
            self.delete(Table::Links, Key::owner(&parent).u8(T::KIND).bytes(&object.key()))?;
        }
        Ok(())
    }

    /// Makes a webhook token lead to its owner.
    pub fn put_token(&mut self, token: &str, owner: &[u8; 12]) -> Result<()> {
        let unique = Unique { space: SPACE_TOKEN, workspace: None, text: token.to_owned() };
        self.put_raw(Table::Unique, unique.key(), owner)
    }

    /// Makes a webhook token lead nowhere.
    pub fn delete_token(&mut self, token: &str) -> Result<()> {
        let unique = Unique { space: SPACE_TOKEN, workspace: None, text: token.to_owned() };
        self.delete(Table::Unique, unique.key())
    }
}

macro_rules! typed {
    ($($get:ident, $list:ident, $id:ty, $of:ty;)*) => {
        impl Rows {$(
            /// The object with that id in that workspace.
            pub fn $get(&self, workspace: WorkspaceNo, id: $id) -> Result<Option<$of>> {
                self.object(workspace, &id.0)
            }
            /// A page of them, newest first.
            pub fn $list(&self, workspace: WorkspaceNo, before: Option<&[u8]>, limit: usize) -> Result<Page<$of>> {
                self.objects(workspace, before, limit)
            }
        )*}
    };
}

typed! {
    workspace, workspaces, WorkspaceId, Workspace;
    api_key, api_keys, KeyId, ApiKey;
    user_by_id, users, UserId, User;
    integration, integrations, IntegrationId, Integration;
    connection, connections, ConnectionId, Connection;
    subscription, subscriptions, SubscriptionId, Subscription;
    destination, destinations, DestinationId, Destination;
}
