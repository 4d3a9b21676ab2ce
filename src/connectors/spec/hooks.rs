//! Webhooks, as a connector's folder describes them.
//!
//! Not here: what is asked of the app for them (`connectors::hooks`), what their requests mean (`connectors::webhook`).

use std::time::Duration;

use serde_json::Value;

use super::Method;
use crate::connectors::instructions::Instructions;
use crate::connectors::rest::CallRest;
use crate::connectors::{Handshake, Journal, verify};

/// A connection's own webhook at the app.
#[derive(Debug)]
pub struct OwnWebhook {
    pub name: String,
    pub verify: Option<verify::Spec>,
    pub handshake: Option<Handshake>,
    /// By then the app has its answer.
    pub deadline: Option<Duration>,
    /// Names of elements and members whose content is taken out before anything is stored.
    pub redact: Vec<String>,
    /// How long a registration lives, where `subscribe` does not say: renewed by half of it.
    pub lifetime: Option<Duration>,
    /// What a person must do in the app.
    pub instructions: Option<Instructions>,
    /// Parameters without which there is no such webhook.
    pub(in crate::connectors) needs: Vec<String>,
    pub(in crate::connectors) subscribe: Method<CallRest>,
    pub(in crate::connectors) check: Method<CallRest>,
    pub(in crate::connectors) handle: Method<()>,
    pub(in crate::connectors) refresh: Method<CallRest>,
    pub(in crate::connectors) unsubscribe: Method<CallRest>,
}

impl OwnWebhook {
    /// Whether `handle` is a script, so that it may have an answer for the app.
    pub fn handled_by_script(&self) -> bool {
        matches!(self.handle, Method::Script(_))
    }
    /// Whether we register it; otherwise a person pastes its URL into the app.
    pub fn registers(&self) -> bool {
        matches!(self.subscribe, Method::Rest(_) | Method::Script(_))
    }
    /// Whether a person must do something in the app, also where we register a part of it: what comes is known only once
    /// something came.
    pub fn pastes(&self) -> bool {
        !self.registers() || self.instructions.is_some()
    }
    /// A parameter that it needs and that is not among these (an object).
    pub fn lacks(&self, parameters: &Value) -> Option<&str> {
        let is_set = |name: &&String| parameters.get(*name).is_some_and(|value| !value.is_null() && value != "");
        self.needs.iter().find(|name| !is_set(name)).map(String::as_str)
    }
    /// Whether the app can be asked if a registration is still there.
    pub fn checks(&self) -> bool {
        matches!(self.check, Method::Rest(_) | Method::Script(_))
    }
    /// Whether a registration can be renewed in place; otherwise it is registered anew.
    pub fn renews(&self) -> bool {
        matches!(self.refresh, Method::Rest(_) | Method::Script(_))
    }
}

/// One webhook of the app for all accounts.
#[derive(Debug)]
pub struct GlobalWebhook {
    pub key: String,
    pub name: String,
    pub description: Option<String>,
    /// What a person must do in the app.
    pub instructions: Option<Instructions>,
    pub verify: Option<verify::Spec>,
    pub handshake: Option<Handshake>,
    pub deadline: Option<Duration>,
    /// What can be read in place of being pushed.
    pub journal: Option<Journal>,
    pub(in crate::connectors) handle: Method<()>,
}
