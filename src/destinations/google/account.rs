//! Accounts of Google as their files describe them: a service account's key, or workload identity federation.
//!
//! Always true: an account is whole when it is read, or the setting is refused by name, without showing any of it; a
//! file that says where on the machine to find a token (`credential_source`) is not followed. Not here: how a token is
//! had.

use serde::Deserialize;
use url::Url;

use crate::destinations::rs256::Key;
use crate::domain::secret::Secret;
use crate::error::{Error, Result};

/// The longest file that is read.
const FILE_MAX_BYTES: usize = 32 * 1024;

/// Who we are.
pub enum Account {
    Service(Service),
    External(External),
}

/// A service account with its key.
pub struct Service {
    pub client_email: String,
    pub key: Key,
    pub private_key_id: Option<String>,
    pub token_uri: Url,
    pub project_id: Option<String>,
}

/// An identity of another provider that Google trusts.
pub struct External {
    pub audience: String,
    pub subject_token_type: String,
    pub subject_token: Secret,
    pub token_url: Url,
    /// `generateAccessToken` of the service account to act for.
    pub impersonate: Option<Url>,
}

/// The file as Google's console writes it.
#[derive(Deserialize)]
struct File {
    #[serde(rename = "type")]
    kind: String,
    client_email: Option<String>,
    private_key: Option<Secret>,
    private_key_id: Option<String>,
    token_uri: Option<String>,
    project_id: Option<String>,
    audience: Option<String>,
    subject_token_type: Option<String>,
    token_url: Option<String>,
    service_account_impersonation_url: Option<String>,
}

impl Account {
    /// The account of `settings.credentials`, with `settings.subjectToken`.
    ///
    /// # Errors
    /// `invalid`, with the setting's name.
    pub fn read(credentials: &Secret, subject_token: Option<Secret>) -> Result<Self> {
        let text = credentials.expose();
        if text.len() > FILE_MAX_BYTES {
            return Err(bad("it is longer than such a file is"));
        }
        // What serde says of a text may show a part of it.
        let file: File = serde_json::from_str(text)
            .map_err(|_| bad("give the whole text of the account's JSON file, as one string"))?;
        match file.kind.as_str() {
            "service_account" => service(file),
            "external_account" => external(file, subject_token),
            _ => Err(bad("its `type` must be `service_account` or `external_account`")),
        }
    }

    /// For the owner's eyes.
    pub fn name(&self) -> &str {
        match self {
            Self::Service(service) => &service.client_email,
            Self::External(external) => &external.audience,
        }
    }
}

fn bad(what: &str) -> Error {
    Error::invalid(format!("settings.credentials: {what}"))
}

fn missing(name: &str) -> Error {
    bad(&format!("it has no `{name}`"))
}

fn url(name: &str, text: Option<&str>, own: &str) -> Result<Url> {
    let url = Url::parse(text.unwrap_or(own)).ok().filter(|url| url.host().is_some());
    url.ok_or_else(|| bad(&format!("its `{name}` is no address")))
}

fn service(file: File) -> Result<Account> {
    let key = file.private_key.ok_or_else(|| missing("private_key"))?;
    Ok(Account::Service(Service {
        client_email: file.client_email.ok_or_else(|| missing("client_email"))?,
        key: Key::read(key.expose()).map_err(|why| bad(&format!("its `private_key`: {why}")))?,
        private_key_id: file.private_key_id,
        token_uri: url("token_uri", file.token_uri.as_deref(), "https://oauth2.googleapis.com/token")?,
        project_id: file.project_id,
    }))
}

fn external(file: File, subject_token: Option<Secret>) -> Result<Account> {
    let impersonate = file.service_account_impersonation_url.as_deref();
    let impersonate = impersonate.map(|text| url("service_account_impersonation_url", Some(text), "")).transpose()?;
    let subject_token = subject_token.filter(|token| !token.expose().is_empty()).ok_or_else(|| {
        Error::invalid("settings.subjectToken: an external account needs the token of its own identity provider here")
    })?;
    Ok(Account::External(External {
        audience: file.audience.ok_or_else(|| missing("audience"))?,
        subject_token_type: file.subject_token_type.ok_or_else(|| missing("subject_token_type"))?,
        subject_token,
        token_url: url("token_url", file.token_url.as_deref(), "https://sts.googleapis.com/v1/token")?,
        impersonate,
    }))
}
