//! One ISV's data, keys and settings; nothing crosses it. Users of the ISV and its API keys are here too.
//!
//! Not here: the secret text of a key (only its SHA-256 is kept), how an `Authorization` header is read (`api::auth`).

use serde::{Deserialize, Serialize};

use super::id::{KeyId, UserId, WorkspaceId, WorkspaceNo};
use super::time::Millis;

/// A workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    pub no: WorkspaceNo,
    pub id: WorkspaceId,
    pub name: String,
    pub created_at: Millis,
}

/// What a key may do; `Write` includes `Read`, `Admin` both. `Hooks` is for iPaaS products and includes nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    Hooks,
    Read,
    Write,
    Admin,
}

impl Scope {
    /// Whether a key with this scope may do what asks for `wanted`.
    pub fn covers(self, wanted: Self) -> bool {
        self == wanted || (self > wanted && wanted != Self::Hooks)
    }
}

/// An API key without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    pub id: KeyId,
    pub workspace: WorkspaceNo,
    pub name: String,
    pub scopes: Vec<Scope>,
    /// The user that the key is bound to, for `hooks` keys.
    pub user: Option<UserId>,
    pub expires_at: Option<Millis>,
    pub created_at: Millis,
    /// SHA-256 of the key's text.
    pub digest: [u8; 32],
}

impl ApiKey {
    /// Whether the key may do what asks for `wanted`.
    pub fn allows(&self, wanted: Scope) -> bool {
        self.scopes.iter().any(|s| s.covers(wanted))
    }
}

/// The ISV's customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub id: UserId,
    pub workspace: WorkspaceNo,
    /// The ISV's own name of the user, unique in the workspace.
    pub username: String,
    pub full_name: Option<String>,
    pub created_at: Millis,
}

impl User {
    /// `userName` of a body: the full name, else the username.
    pub fn display_name(&self) -> &str {
        self.full_name.as_deref().unwrap_or(&self.username)
    }
}

/// A topic of the ISV's own, registered so that it can be published and subscribed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomTopic {
    pub id: [u8; 12],
    pub workspace: WorkspaceNo,
    /// `category/model`.
    pub name: String,
    pub description: String,
    /// JSON Schema text; empty: none.
    pub schema: String,
    pub created_at: Millis,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_includes_read_and_admin_both() {
        assert!(
            Scope::Write.covers(Scope::Read) && Scope::Admin.covers(Scope::Write) && Scope::Admin.covers(Scope::Read)
        );
        assert!(
            !Scope::Read.covers(Scope::Write)
                && !Scope::Hooks.covers(Scope::Read)
                && !Scope::Admin.covers(Scope::Hooks)
        );
    }
}
