//! `journal:` of a global webhook's spec.yml, and what is made at the app for each account so that the journal tells of it:
//! read, checked and compiled.
//!
//! Not here: reading a journal (`connectors::journal`).

use std::time::Duration;

use serde::Deserialize;

use super::Journal;
use crate::connectors::auth_files::OAuth2File;
use crate::connectors::compile::Builder;
use crate::connectors::files::{CallFile, Span};
use crate::connectors::folder::SpecError;
use crate::connectors::mapping::path::Path;
use crate::connectors::pick::Picker;
use crate::connectors::rest::CallRest;
use crate::connectors::spec::{Life, Method, OwnWebhook};
use crate::connectors::template::Template;
use crate::connectors::{Connector, auth};

/// `journal:` of `global-webhooks/<key>/spec.yml`.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JournalFile {
    /// The parameter of the integration that chooses it in place of pushes.
    when: WhenFile,
    /// How often it is asked for what is new.
    every: Span,
    /// Where the integration's own client gets the token that opens it.
    token: OAuth2File,
    /// The first entry that the app still has.
    first: CallFile,
    /// The entry after `{{journal.offset}}`.
    next: CallFile,
    /// The newest entry: asked for where `next` is not there, to tell "nothing new" from "no longer known".
    latest: Option<CallFile>,
    /// Where an answer has the mark of its entry, …
    offset: Path,
    /// … and the address of its file.
    file: Path,
    /// The hosts that files may be at, separated by spaces; `*.example.com` is every host below that.
    hosts: Template,
    /// Where the items are in a file.
    items: Path,
}

/// A parameter and its value.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WhenFile {
    pub(super) parameter: String,
    pub(super) is: String,
}

/// Compiles what a global webhook's spec says of a journal; `dir` is the webhook's folder.
pub fn compile(
    builder: &Builder<'_>,
    dir: &str,
    name: &str,
    file: Option<JournalFile>,
) -> Result<Option<Journal>, SpecError> {
    let account = account(builder, dir, name)?;
    let path = format!("{dir}/spec.yml");
    let Some(file) = file else {
        return match account {
            None => Ok(None),
            Some(_) => Err(SpecError::in_file(path, "what is made at the app for each account belongs to a journal")
                .field("journal")),
        };
    };
    let wrong = |field: &str, message: &str| Err(SpecError::in_file(path.clone(), message).field(field));
    if file.every.0 < Duration::from_secs(1) {
        return wrong("journal.every", "at least 1s");
    }
    if !file.next.path.uses("journal") {
        return wrong("journal.next.path", "it does not say after which entry: use {{journal.offset}}");
    }
    let call = |field: &str, call: &CallFile| {
        CallRest::new(&path, call).map_err(|error| error.field(format!("journal.{field}")))
    };
    Ok(Some(Journal {
        every: file.every.0,
        account,
        first: call("first", &file.first)?,
        next: call("next", &file.next)?,
        latest: file.latest.as_ref().map(|latest| call("latest", latest)).transpose()?,
        when: file.when,
        token: file.token,
        offset: file.offset,
        file: file.file,
        hosts: file.hosts,
        items: Picker::new(&[Some(&file.items)]),
        items_at: file.items.to_string(),
    }))
}

/// What is made at the app for each account: the calls of a connection's own webhook, without what comes in.
fn account(builder: &Builder<'_>, dir: &str, name: &str) -> Result<Option<OwnWebhook>, SpecError> {
    let life = Life::read(builder, dir)?;
    if !life.makes() {
        return match life.calls().find(|(_, call)| call.is_there()) {
            None => Ok(None),
            Some((name, _)) => Err(SpecError::in_file(format!("{dir}/{name}"), "subscribe is missing beside it")),
        };
    }
    Ok(Some(OwnWebhook {
        name: name.to_owned(),
        verify: None,
        handshake: None,
        deadline: None,
        redact: Vec::new(),
        lifetime: None,
        instructions: None,
        needs: Vec::new(),
        handle: Method::Missing,
        life,
    }))
}

impl Journal {
    /// What is wrong with it in a connector: the field and a sentence.
    pub fn fault(&self, connector: &Connector) -> Option<(&'static str, String)> {
        let name = &self.when.parameter;
        let Some(parameter) = connector.parameters.property(name) else {
            return Some(("journal.when.parameter", format!("there is no parameter {name:?}")));
        };
        if !parameter.choices().contains(&self.when.is) {
            return Some(("journal.when.is", format!("{:?} is none of what {name} may be", self.when.is)));
        }
        if !connector.integration_only().contains(&name.as_str()) {
            let message = format!("a journal is an integration's: {name} needs `x-givenBy: integration`");
            return Some(("journal.when.parameter", message));
        }
        let token = auth::any_token();
        auth::choose(&connector.auth, &token, None).is_none().then(|| {
            ("journal.token", "spec.yml has no way of auth by which a token is sent: bearer or oauth2".to_owned())
        })
    }
}
