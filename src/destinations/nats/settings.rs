//! What can be set for NATS, and what follows from it.
//!
//! Always true: a [`Way`] is complete and plausible; no message repeats a secret; nothing is taken from the machine's
//! surroundings. Not here: connecting (`link`).

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::nkey::UserKey;
use crate::domain::secret::Secret;
use crate::error::{Error, Result};
use crate::outbound::Client;

/// Each may take its time to refuse a connection.
const SERVERS_MAX: usize = 5;
/// Of a whole subject a server takes about 4 KB (`max_control_line`).
const PREFIX_MAX_BYTES: usize = 128;

/// What can be set.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Settings {
    /// Servers of one cluster, tried in this order: all `tls://host:4222`, which is encrypted, or all `nats://host:4222`,
    /// which is not.
    #[schemars(length(min = 1, max = 5))]
    servers: Vec<String>,
    /// What subjects begin with: `tidemill` gives `tidemill.crm.contacts`.
    #[serde(default = "default_prefix")]
    pub(super) subject_prefix: String,
    /// What subjects end with.
    #[serde(default)]
    pub(super) subject: Subject,
    user: Option<String>,
    /// That of `user`.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    password: Option<Secret>,
    /// In place of `user` and `password`.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    token: Option<Secret>,
    /// The seed of a user's nkey, `SU…`, in place of `user` and `password`.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    nkey_seed: Option<Secret>,
    /// The text of a `.creds` file (JWT and seed), in place of `user` and `password`.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    creds: Option<Secret>,
    /// Who is trusted in place of the node's own list: certificates in PEM.
    ca_certificate: Option<String>,
    /// For servers that verify their clients: a certificate and its chain in PEM.
    client_certificate: Option<String>,
    /// The key of `clientCertificate` in PEM.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    client_key: Option<Secret>,
    /// For servers whose first word is encrypted (`handshake_first`).
    #[serde(default)]
    tls_first: bool,
    /// What the subjects begin with on which acknowledgements come back.
    #[serde(default = "default_inbox")]
    inbox_prefix: String,
    /// Events in a batch at most.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1, max = 5_000))]
    pub(super) max_rows: u32,
    /// Seconds that an event may wait for others to join it.
    #[serde(default = "default_seconds")]
    #[schemars(range(min = 0, max = 3_600))]
    pub(super) max_seconds: u32,
}

/// What a subject ends with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Subject {
    /// The topic: `tidemill.crm.contacts`.
    #[default]
    Topic,
    /// And the connection's id.
    Connection,
    /// And the connection's and the record's id.
    Record,
}

fn default_prefix() -> String {
    "tidemill".to_owned()
}

fn default_inbox() -> String {
    "_INBOX".to_owned()
}

fn default_rows() -> u32 {
    1_000
}

fn default_seconds() -> u32 {
    1
}

/// A server.
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
}

/// Who we are.
pub(super) enum Identity {
    Nobody,
    User(String, Secret),
    Token(Secret),
    Key(UserKey),
    Jwt(Secret, UserKey),
}

/// Where it goes, how, and as whom.
pub(super) struct Way {
    pub(super) places: Vec<Place>,
    /// None: not encrypted.
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) tls_first: bool,
    pub(super) identity: Identity,
    pub(super) inbox_prefix: String,
}

impl Settings {
    /// Where it goes.
    ///
    /// # Errors
    /// `invalid`, naming the setting.
    pub(super) fn way(&self, client: &Client) -> Result<Way> {
        if !is_subject(&self.subject_prefix) {
            return Err(Error::invalid(format!("settings.subjectPrefix: {SUBJECT_FORM}")));
        }
        if !is_subject(&self.inbox_prefix) {
            return Err(Error::invalid(format!("settings.inboxPrefix: {SUBJECT_FORM}")));
        }
        let (places, encrypted) = self.places()?;
        let has_tls_settings = self.ca_certificate.is_some()
            || self.client_certificate.is_some()
            || self.client_key.is_some()
            || self.tls_first;
        if !encrypted && has_tls_settings {
            let message = "settings.caCertificate, clientCertificate, clientKey, tlsFirst: they are only used with \
                           servers of the form tls://host:4222";
            return Err(Error::invalid(message));
        }
        let tls = if encrypted { Some(Arc::new(self.tls(client)?)) } else { None };
        let identity = self.identity()?;
        Ok(Way { places, tls, tls_first: self.tls_first, identity, inbox_prefix: self.inbox_prefix.clone() })
    }

    fn places(&self) -> Result<(Vec<Place>, bool)> {
        let form = "settings.servers: use 1 to 5 of the form tls://host:4222, or nats://host:4222 in a network that the \
                    node allows, without a user or password in them";
        if !(1..=SERVERS_MAX).contains(&self.servers.len()) {
            return Err(Error::invalid(form));
        }
        let mut places = Vec::new();
        let mut encrypted = Vec::new();
        for server in &self.servers {
            let url = Url::parse(server.trim()).map_err(|_| Error::invalid(form))?;
            let host = url.host_str().unwrap_or_default();
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            let bare = url.username().is_empty()
                && url.password().is_none()
                && matches!(url.path(), "" | "/")
                && url.query().is_none()
                && url.fragment().is_none();
            let port = url.port().unwrap_or(4222);
            let known = matches!(url.scheme(), "nats" | "tls");
            if !bare || !known || port == 0 || host.is_empty() || host.len() > 253 || host.contains('%') {
                return Err(Error::invalid(form));
            }
            encrypted.push(url.scheme() == "tls");
            places.push(Place { host: host.to_owned(), port });
        }
        let all = encrypted.iter().all(|tls| *tls);
        if !all && encrypted.contains(&true) {
            return Err(Error::invalid("settings.servers: use tls:// for all of them, or nats:// for all of them"));
        }
        Ok((places, all))
    }

    fn tls(&self, client: &Client) -> Result<ClientConfig> {
        let mut config = client
            .tls_config(self.ca_certificate.as_deref())
            .map_err(|error| Error::invalid(format!("settings.caCertificate: {error}")))?;
        let (chain, key) = match (&self.client_certificate, &self.client_key) {
            (None, None) => return Ok(config),
            (Some(chain), Some(key)) => (chain, key),
            _ => return Err(Error::invalid("settings.clientCertificate, settings.clientKey: give both or neither")),
        };
        let wrong = |what: &str| Error::invalid(format!("settings.{what}: it is not PEM that can be used"));
        let chain: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| wrong("clientCertificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|_| wrong("clientKey"))?;
        let pair = CertifiedKey::from_der(chain, key, config.crypto_provider()).map_err(|_| {
            Error::invalid("settings.clientKey: it is not the key of settings.clientCertificate, or of an unknown kind")
        })?;
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(pair));
        Ok(config)
    }

    fn identity(&self) -> Result<Identity> {
        let given = [self.user.is_some(), self.token.is_some(), self.nkey_seed.is_some(), self.creds.is_some()];
        if given.iter().filter(|given| **given).count() > 1 {
            let message = "settings: give one of user (with password), token, nkeySeed and creds, not several";
            return Err(Error::invalid(message));
        }
        if self.user.is_some() != self.password.is_some() {
            return Err(Error::invalid("settings.user, settings.password: give both or neither"));
        }
        if let (Some(user), Some(password)) = (&self.user, &self.password) {
            return Ok(Identity::User(user.clone(), password.clone()));
        }
        if let Some(token) = &self.token {
            return Ok(Identity::Token(token.clone()));
        }
        if let Some(seed) = &self.nkey_seed {
            let key = UserKey::of_seed(seed.expose().trim());
            return key.map(Identity::Key).ok_or_else(|| Error::invalid("settings.nkeySeed: use a user's seed, `SU…`"));
        }
        let Some(creds) = &self.creds else { return Ok(Identity::Nobody) };
        let form = "settings.creds: use the text of a user's .creds file, with its JWT and its seed";
        let found = block(creds.expose(), "NATS USER JWT").zip(block(creds.expose(), "USER NKEY SEED"));
        let (jwt, seed) = found.ok_or_else(|| Error::invalid(form))?;
        let key = UserKey::of_seed(seed).ok_or_else(|| Error::invalid(form))?;
        Ok(Identity::Jwt(Secret::new(jwt), key))
    }
}

const SUBJECT_FORM: &str = "use up to 128 letters, digits, `-` and `_`, in parts with a dot between";

/// NATS docs, "Subject-Based Messaging", sections "Characters allowed and recommended for subject names": tokens with dots
/// between, no blanks, `*` or `>`, and `$` is for the system.
fn is_subject(text: &str) -> bool {
    let is_token =
        |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    text.len() <= PREFIX_MAX_BYTES && text.split('.').all(is_token)
}

/// The line between `-----BEGIN {name}-----` and the next dashes.
fn block<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(&format!("BEGIN {name}-----"))?;
    let (inside, _) = after.split_once("---")?;
    Some(inside.trim()).filter(|inside| !inside.is_empty() && !inside.contains(char::is_whitespace))
}
