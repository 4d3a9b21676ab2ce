//! Parameters of integrations and connections: who may give which, and which of them never come out again.
//!
//! Always true: a secret parameter is stored encrypted and shown as `***`; sending `***` back leaves it as it is. Not
//! here: what a parameter may be (the connector's schema).

use serde_json::{Map, Value};

use super::call::Call;
use crate::connectors::{Connector, GivenBy, Parameters, Property};
use crate::domain::secret::Secret;
use crate::domain::workspace::Scope;
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Slot, Tx};

/// Stands for a secret in answers.
pub(super) const MASK: &str = "***";
/// All parameters of one owner together, as JSON text.
const BYTES_MAX: usize = 65_536;

/// Parameters in two parts, as they are stored.
#[derive(Clone, Default)]
pub(super) struct Split {
    open: Parameters,
    secret: Parameters,
}

fn object(text: &str) -> Result<Parameters> {
    if text.is_empty() { Ok(Map::new()) } else { serde_json::from_str(text).map_err(Error::internal) }
}

impl Split {
    /// The stored parameters of an integration or connection.
    pub(super) fn stored(rows: &Rows, owner: &[u8; 12], open: &str) -> Result<Self> {
        let secret = rows.secret_parameters(owner)?;
        Ok(Self { open: object(open)?, secret: object(secret.as_ref().map_or("", Secret::expose))? })
    }

    /// All of them.
    pub(super) fn whole(&self) -> Parameters {
        let mut all = self.open.clone();
        all.extend(self.secret.clone());
        all
    }

    /// Lays `given` over them: null takes away, the mask of a secret leaves it.
    pub(super) fn lay(&mut self, connector: &Connector, given: &Parameters) -> Result<()> {
        let secrets = connector.secret_parameters();
        for (name, value) in given {
            let is_secret = secrets.contains(&name.as_str());
            if is_secret && value.as_str() == Some(MASK) && self.secret.contains_key(name) {
                continue;
            }
            self.open.shift_remove(name);
            self.secret.shift_remove(name);
            if !value.is_null() {
                let part = if is_secret { &mut self.secret } else { &mut self.open };
                part.insert(name.clone(), value.clone());
            }
        }
        if self.open_text().len() + Value::Object(self.secret.clone()).to_string().len() > BYTES_MAX {
            return Err(Error::invalid(format!("parameters: at most {BYTES_MAX} bytes together")));
        }
        connector.parameters.check_part(&self.whole()).map_err(Error::invalid)?;
        Ok(())
    }

    /// The open ones, as the object's row keeps them.
    pub(super) fn open_text(&self) -> String {
        Value::Object(self.open.clone()).to_string()
    }

    /// Keeps the secret ones, encrypted.
    pub(super) fn put_secret(&self, tx: &mut Tx<'_>, owner: &[u8; 12]) -> Result<()> {
        let text = Secret::new(Value::Object(self.secret.clone()).to_string());
        tx.put_secret_text(owner, Slot::Parameters, &text)
    }

    /// As an answer shows them.
    pub(super) fn shown(&self) -> Parameters {
        let mut all = self.open.clone();
        all.extend(self.secret.keys().map(|name| (name.clone(), Value::from(MASK))));
        all
    }
}

/// Whether the caller's key has scope `admin`.
pub(super) fn is_admin(call: &Call) -> bool {
    call.caller.as_ref().is_some_and(|caller| caller.key.allows(Scope::Admin))
}

/// Refuses what an integration's caller may not set: where an app's hosts are fixed, another address asks for `admin`,
/// since the accounts' credentials would be sent there; so do parameters of which the connector says so.
pub(super) fn refuse_base_uri(connector: &Connector, before: &Split, given: &Parameters, admin: bool) -> Result<()> {
    let guarded = |name: &str| match name {
        "baseUri" => connector.base_uri.given_by != GivenBy::User,
        _ => connector.parameters.property(name).is_some_and(Property::needs_admin),
    };
    let is_new = |name: &str, asked: &Value| before.open.get(name).unwrap_or(&Value::Null) != asked;
    match given.iter().find(|(name, asked)| guarded(name) && is_new(name, asked)) {
        Some((name, _)) if !admin => {
            let message = format!("parameters.{name}: another address for this app takes a key with scope `admin`");
            Err(Error::new(Code::Forbidden, message))
        }
        _ => Ok(()),
    }
}

/// Refuses parameters that only the integration may have.
pub(super) fn refuse_integration_only(connector: &Connector, given: &Parameters) -> Result<()> {
    let only = connector.integration_only();
    match given.keys().find(|name| only.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let message = format!("parameters.{name}: this is set on the integration, not on a connection");
            Err(Error::invalid(message))
        }
    }
}

/// Refuses an address of an app that the node may not call, as far as it shows without asking anyone.
pub(super) fn refuse_address(call: &Call, url: &url::Url) -> Result<()> {
    call.state.deps.apps.policy().judge_url(url).map_err(|why| {
        let message = format!("parameters.baseUri: {why}; the operator can list networks in ingest.allow_networks");
        Error::new(Code::AddressForbidden, message)
    })
}
