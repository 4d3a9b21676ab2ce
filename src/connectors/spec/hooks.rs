//! Webhooks, as a connector's folder describes them.
//!
//! Not here: what is asked of the app for them (`connectors::hooks`), what their requests mean (`connectors::webhook`).

use std::time::Duration;

use serde_json::Value;

use super::Method;
use crate::connectors::compile::Builder;
use crate::connectors::instructions::Instructions;
use crate::connectors::rest::CallRest;
use crate::connectors::schema::Schema;
use crate::connectors::subscriptions::Subscriptions;
use crate::connectors::{Handshake, Journal, SpecError, verify};

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
    pub(in crate::connectors) handle: Method<()>,
    pub(in crate::connectors) life: Life,
}

/// How what the app must have is made there, looked after and taken away: by four calls, or one by one where it is several
/// things.
#[derive(Debug)]
pub(in crate::connectors) struct Life {
    pub subscribe: Method<CallRest>,
    pub check: Method<CallRest>,
    pub refresh: Method<CallRest>,
    pub unsubscribe: Method<CallRest>,
    /// In place of the four.
    pub subscriptions: Vec<Subscriptions>,
}

impl Life {
    /// What the folder `dir` says of it.
    pub fn read(builder: &Builder<'_>, dir: &str) -> Result<Self, SpecError> {
        let call = |name: &str| builder.call(&format!("{dir}/{name}"));
        let life = Self {
            subscribe: call("subscribe")?,
            check: call("check")?,
            refresh: call("refresh")?,
            unsubscribe: call("unsubscribe")?,
            subscriptions: Subscriptions::all(builder, dir)?,
        };
        let others = [("check", &life.check), ("refresh", &life.refresh), ("unsubscribe", &life.unsubscribe)];
        let written = [("subscribe", &life.subscribe)].into_iter().chain(others).find(|(_, call)| call.is_there());
        match written {
            Some((name, _)) if !life.subscriptions.is_empty() => {
                let message = "the folder subscriptions says the same; it must be one or the other";
                Err(SpecError::in_file(format!("{dir}/{name}"), message))
            }
            _ => Ok(life),
        }
    }
    /// Whether anything is made at the app.
    pub fn makes(&self) -> bool {
        self.has_subscriptions() || matches!(self.subscribe, Method::Rest(_) | Method::Script(_))
    }
    /// Whether it is several things, each of which is looked for and made by itself.
    pub fn has_subscriptions(&self) -> bool {
        !self.subscriptions.is_empty()
    }
    /// What it says of parameters; `dir` is the webhook's folder.
    pub fn check(&self, dir: &str, schema: &Schema) -> Result<(), SpecError> {
        let unknown = |kind: &Subscriptions| kind.needs.iter().find(|name| schema.property(name).is_none()).cloned();
        match self.subscriptions.iter().find_map(|kind| Some((kind, unknown(kind)?))) {
            None => Ok(()),
            Some((kind, name)) => {
                let path = format!("{dir}/subscriptions/{}/spec.yml", kind.key);
                Err(SpecError::in_file(path, format!("there is no parameter {name:?}")).field("needs"))
            }
        }
    }
    /// The calls, each with the name of its file in the webhook's folder.
    pub fn calls(&self) -> impl Iterator<Item = (String, &Method<CallRest>)> {
        let four = [
            ("subscribe", &self.subscribe),
            ("refresh", &self.refresh),
            ("unsubscribe", &self.unsubscribe),
            ("check", &self.check),
        ];
        let four = four.into_iter().map(|(name, call)| (name.to_owned(), call));
        four.chain(self.subscriptions.iter().flat_map(Subscriptions::calls))
    }
}

impl OwnWebhook {
    /// Whether `handle` is a script, so that it may have an answer for the app.
    pub fn handled_by_script(&self) -> bool {
        matches!(self.handle, Method::Script(_))
    }
    /// Whether we register it; otherwise a person pastes its URL into the app.
    pub fn registers(&self) -> bool {
        self.life.makes()
    }
    /// Whether a person must do something in the app, also where we register a part of it: what comes is known only once
    /// something came.
    pub fn pastes(&self) -> bool {
        !self.registers() || self.instructions.is_some()
    }
    /// A parameter that it needs and that is not among these (an object).
    pub fn lacks(&self, parameters: &Value) -> Option<&str> {
        lacking(&self.needs, parameters)
    }
    /// Whether the app can be asked if a registration is still there; where there are several, a renewal asks.
    pub fn checks(&self) -> bool {
        matches!(self.life.check, Method::Rest(_) | Method::Script(_))
    }
    /// Whether a registration can be renewed in place; otherwise it is registered anew.
    pub fn renews(&self) -> bool {
        self.life.has_subscriptions() || matches!(self.life.refresh, Method::Rest(_) | Method::Script(_))
    }
}

/// The first of these names that is not among these parameters (an object).
pub(in crate::connectors) fn lacking<'n>(needs: &'n [String], parameters: &Value) -> Option<&'n str> {
    let is_set = |name: &&String| parameters.get(*name).is_some_and(|value| !value.is_null() && value != "");
    needs.iter().find(|name| !is_set(name)).map(String::as_str)
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

impl GlobalWebhook {
    /// What is made at the app for each account, where its journal is read.
    pub(in crate::connectors) fn account(&self) -> Option<&OwnWebhook> {
        self.journal.as_ref()?.account.as_ref()
    }
}
