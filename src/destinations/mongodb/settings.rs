//! What can be set for MongoDB, and what follows from it.
//!
//! Always true: a connection string that asks for anything of this machine (files, a proxy, credentials of its
//! surroundings) is refused; no message repeats any of it. Not here: connecting (`cluster`).

use mongodb::options::{AuthMechanism, ConnectionString, HostInfo, ServerAddress, Tls};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::destinations::rows::Names;
use crate::error::{Error, Result};

/// What can be set.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Settings {
    /// The connection string: `mongodb+srv://user:password@cluster.example.com/` or
    /// `mongodb://user:password@host:27017,host:27017/?replicaSet=rs0&tls=true`.
    #[schemars(extend("writeOnly" = true))]
    url: String,
    /// The database that holds the collections; the one of the connection string if absent.
    database: Option<String>,
    /// Who is trusted in place of the node's own list: certificates in PEM.
    pub(super) ca_certificate: Option<String>,
    /// The collection of a log: letters, digits, `_`, `-` and `.`.
    #[serde(default = "default_collection")]
    collection: String,
    /// Before the names of a mirror's collections: `tm_` gives `tm_crm_contacts`.
    #[serde(default)]
    collection_prefix: String,
    /// Events in a batch at most.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1, max = 10_000))]
    pub(super) max_rows: u32,
    /// Seconds that an event may wait for others to join it.
    #[serde(default = "default_seconds")]
    #[schemars(range(min = 0, max = 3_600))]
    pub(super) max_seconds: u32,
}

fn default_collection() -> String {
    Names::default().log
}

fn default_rows() -> u32 {
    1_000
}

fn default_seconds() -> u32 {
    1
}

/// Where it goes.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) string: ConnectionString,
    pub(super) database: String,
    pub(super) encrypted: bool,
}

impl Settings {
    /// Where it goes.
    ///
    /// # Errors
    /// `invalid`, naming the setting.
    pub(super) fn place(&self) -> Result<Place> {
        let wrong = |what: &str| Err(Error::invalid(format!("settings.url: {what}")));
        // The library's own words repeat what was given, password and all.
        let Ok(string) = ConnectionString::parse(&self.url) else {
            return wrong(
                "use mongodb://user:password@host:27017/ or mongodb+srv://…, with special letters percent-encoded",
            );
        };
        if let HostInfo::HostIdentifiers(hosts) = &string.host_info
            && !hosts.iter().all(|host| matches!(host, ServerAddress::Tcp { .. }))
        {
            return wrong("use hosts, not sockets of this machine");
        }
        if string.socks5_proxy.is_some() {
            return wrong("leave out proxyHost: the node's operator says by which proxy others are reached");
        }
        #[expect(deprecated, reason = "the library refuses it later, with a message that cannot be told apart")]
        if string.socket_timeout.is_some() {
            return wrong("leave out socketTimeoutMS");
        }
        let encrypted = match &string.tls {
            Some(Tls::Enabled(options)) => {
                if options.ca_file_path.is_some() || options.cert_key_file_path.is_some() {
                    return wrong("leave out tlsCAFile and tlsCertificateKeyFile: give settings.caCertificate");
                }
                if options.allow_invalid_certificates == Some(true) {
                    return wrong(
                        "certificates are always checked: give settings.caCertificate and leave out tlsInsecure",
                    );
                }
                true
            }
            Some(Tls::Disabled) | None => false,
        };
        let mechanism = string.credential.as_ref().and_then(|credential| credential.mechanism.as_ref());
        match mechanism {
            None | Some(AuthMechanism::ScramSha1 | AuthMechanism::ScramSha256) => {}
            Some(AuthMechanism::Plain) if encrypted => {}
            Some(AuthMechanism::Plain) => return wrong("authMechanism PLAIN needs tls=true"),
            Some(_) => return wrong("authMechanism: use SCRAM-SHA-256, SCRAM-SHA-1 or PLAIN"),
        }
        if self.ca_certificate.is_some() && !encrypted {
            return Err(Error::invalid("settings.caCertificate: it is only used with tls=true in the url"));
        }
        let database = self.database.clone().or_else(|| string.default_database.clone()).unwrap_or_default();
        let is_plain = |c: char| !c.is_control() && !"/\\. \"$*<>:|?".contains(c);
        if database.is_empty() || database.len() > 63 || !database.chars().all(is_plain) {
            let message = "settings.database: give a name of up to 63 letters, here or in the url's path";
            return Err(Error::invalid(message));
        }
        Ok(Place { string, database, encrypted })
    }

    /// How the collections are called.
    ///
    /// # Errors
    /// `invalid`, naming the setting.
    pub(super) fn names(&self) -> Result<Names> {
        let is_plain = |name: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
            !name.starts_with("system.") && !name.starts_with('.') && name.bytes().all(plain)
        };
        if self.collection.is_empty() || self.collection.len() > 100 || !is_plain(&self.collection) {
            return Err(Error::invalid("settings.collection: use 1 to 100 letters, digits, `_`, `-` and `.`"));
        }
        if self.collection_prefix.len() > 32 || !is_plain(&self.collection_prefix) {
            return Err(Error::invalid("settings.collectionPrefix: use up to 32 letters, digits, `_`, `-` and `.`"));
        }
        Ok(Names { log: self.collection.clone(), prefix: self.collection_prefix.clone() })
    }

    /// Refuses numbers out of their range.
    ///
    /// # Errors
    /// `invalid`, naming the setting.
    pub(super) fn check_ranges(&self) -> Result<()> {
        crate::destinations::settings::batches(self.max_rows, 10_000, self.max_seconds).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Result<Place> {
        let settings: Settings = serde_json::from_value(serde_json::json!({ "url": url })).expect("settings");
        settings.place()
    }

    #[test]
    fn nothing_of_this_machine_can_be_asked_for() {
        for url in [
            "mongodb://%2Ftmp%2Fmongodb.sock/d",
            "mongodb://u:secret@h/d?proxyHost=10.0.0.1",
            "mongodb://u:secret@h/d?tls=true&tlsCAFile=/etc/passwd",
            "mongodb://u:secret@h/d?tls=true&tlsCertificateKeyFile=/etc/passwd",
            "mongodb://u:secret@h/d?tls=true&tlsAllowInvalidCertificates=true",
            "mongodb://h/d?authMechanism=MONGODB-X509&tls=true",
            "mongodb://u:secret@h/d?authMechanism=PLAIN",
            "mongodb://u:sec@ret@h/d",
            "http://u:secret@h/d",
        ] {
            let error = place(url).err().unwrap_or_else(|| panic!("{url}")).to_string();
            assert!(
                error.contains("settings.url") && !error.contains("secret") && !error.contains("sec@ret"),
                "{error}"
            );
        }
    }

    #[test]
    fn tls_is_as_the_connection_string_says() {
        assert!(!place("mongodb://h/d").unwrap().encrypted);
        assert!(place("mongodb://h/d?tls=true").unwrap().encrypted);
        assert!(place("mongodb+srv://cluster.example.com/d").unwrap().encrypted);
        assert!(place("mongodb://h/").err().unwrap().to_string().contains("settings.database"));
    }
}
