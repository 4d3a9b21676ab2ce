//! What can be set for MySQL and MariaDB, and what follows from it.
//!
//! Always true: a [`Place`] is complete and plausible; nothing is taken from the machine's surroundings. Not here:
//! connecting (`link`).

use std::fmt;

use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use crate::destinations::rows::Names;
use crate::error::{Error, Result};

/// The longest name of a table (MySQL manual, "Identifier Length Limits").
pub(super) const NAME_MAX_CHARS: usize = 64;
/// Leaves room for a topic after it.
const PREFIX_MAX_CHARS: usize = 32;

/// What can be set.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Settings {
    /// `mysql://user:password@host:3306/database?ssl-mode=VERIFY_IDENTITY`, in place of `host`, `port`, `user`,
    /// `password`, `database` and `sslMode`. Special letters in it are percent-encoded.
    #[schemars(extend("writeOnly" = true))]
    url: Option<String>,
    /// A name or an address.
    host: Option<String>,
    /// 3306 if absent.
    #[schemars(range(min = 1))]
    port: Option<u16>,
    user: Option<String>,
    #[schemars(extend("writeOnly" = true))]
    password: Option<String>,
    /// The database that holds the tables. It must be there.
    database: Option<String>,
    /// `verify-full` if absent: TLS, and the server's certificate is for its name and from a trusted issuer.
    ssl_mode: Option<SslMode>,
    /// Who is trusted in place of the node's own list: certificates in PEM.
    ca_certificate: Option<String>,
    /// The name that the server's certificate is for, where it is not `host`.
    server_name: Option<String>,
    /// The table of a log: lower-case letters, digits and `_`.
    #[serde(default = "default_table")]
    table: String,
    /// Before the names of a mirror's tables: `tm_` gives `tm_crm_contacts`.
    #[serde(default)]
    table_prefix: String,
    /// Events in a batch at most.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1, max = 5_000))]
    pub(super) max_rows: u32,
    /// Seconds that an event may wait for others to join it.
    #[serde(default = "default_seconds")]
    #[schemars(range(min = 0, max = 3_600))]
    pub(super) max_seconds: u32,
}

fn default_table() -> String {
    Names::default().log
}

fn default_rows() -> u32 {
    1_000
}

fn default_seconds() -> u32 {
    1
}

/// How TLS is spoken. MySQL's own words are understood too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum SslMode {
    /// Encrypted, to the server that its certificate names.
    #[serde(rename = "verify-full", alias = "VERIFY_IDENTITY")]
    VerifyFull,
    /// Encrypted, to whoever answers.
    #[serde(rename = "require", alias = "REQUIRED")]
    Require,
    /// Not encrypted: only to addresses in networks that the node allows.
    #[serde(rename = "disable", alias = "DISABLED")]
    Disable,
}

impl SslMode {
    fn of(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().replace('_', "-").as_str() {
            "verify-full" | "verify-identity" => Some(Self::VerifyFull),
            "require" | "required" => Some(Self::Require),
            "disable" | "disabled" => Some(Self::Disable),
            _ => None,
        }
    }
}

/// Where it goes, and as whom.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) database: String,
    pub(super) ssl: SslMode,
    pub(super) ca: Option<String>,
    pub(super) server_name: Option<String>,
}

/// Without the password.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{} ({:?})", self.host, self.port, self.database, self.ssl)
    }
}

impl Settings {
    /// Where it goes.
    ///
    /// # Errors
    /// `invalid`, naming the setting.
    pub(super) fn place(&self) -> Result<Place> {
        let mut place = match &self.url {
            Some(url) => {
                let parts = [self.host.is_some(), self.port.is_some(), self.user.is_some(), self.password.is_some()];
                if parts.contains(&true) || self.database.is_some() || self.ssl_mode.is_some() {
                    let message = "settings.url: it says all of host, port, user, password, database and sslMode: \
                                   leave them out, or leave out the url";
                    return Err(Error::invalid(message));
                }
                of_url(url)?
            }
            None => Place {
                host: wanted("host", self.host.as_deref())?,
                port: self.port.unwrap_or(3306),
                user: wanted("user", self.user.as_deref())?,
                password: self.password.clone().unwrap_or_default(),
                database: wanted("database", self.database.as_deref())?,
                ssl: self.ssl_mode.unwrap_or(SslMode::VerifyFull),
                ca: None,
                server_name: None,
            },
        };
        if place.port == 0 {
            return Err(Error::invalid("settings.port: use 1 to 65535"));
        }
        let host = &place.host;
        if host.len() > 253 || host.contains(['/', '@', ' ', '\\', '\'']) {
            return Err(Error::invalid("settings.host: use a name or an address"));
        }
        if place.database.chars().count() > NAME_MAX_CHARS {
            return Err(Error::invalid("settings.database: use a name of up to 64 letters"));
        }
        if place.ssl != SslMode::VerifyFull && (self.ca_certificate.is_some() || self.server_name.is_some()) {
            let message = "settings.caCertificate, settings.serverName: they are only used with sslMode verify-full";
            return Err(Error::invalid(message));
        }
        place.ca = self.ca_certificate.clone();
        place.server_name = self.server_name.clone().filter(|name| !name.is_empty());
        Ok(place)
    }

    /// How the tables are called.
    ///
    /// # Errors
    /// `invalid`, naming the setting.
    pub(super) fn names(&self) -> Result<Names> {
        let is_plain = |name: &str| name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if self.table.is_empty() || self.table.len() > NAME_MAX_CHARS || !is_plain(&self.table) {
            return Err(Error::invalid("settings.table: use 1 to 64 lower-case letters, digits and `_`"));
        }
        if self.table_prefix.len() > PREFIX_MAX_CHARS || !is_plain(&self.table_prefix) {
            return Err(Error::invalid("settings.tablePrefix: use up to 32 lower-case letters, digits and `_`"));
        }
        Ok(Names { log: self.table.clone(), prefix: self.table_prefix.clone() })
    }

    /// Refuses numbers out of their range.
    ///
    /// # Errors
    /// `invalid`, naming the setting.
    pub(super) fn check_ranges(&self) -> Result<()> {
        crate::destinations::settings::batches(self.max_rows, 5_000, self.max_seconds).map(drop)
    }
}

fn wanted(name: &str, value: Option<&str>) -> Result<String> {
    match value.filter(|value| !value.is_empty()) {
        Some(value) => Ok(value.to_owned()),
        None => Err(Error::invalid(format!("settings.{name}: it is missing; give it, or settings.url"))),
    }
}

/// The url itself is secret, so no message repeats any of it.
fn of_url(text: &str) -> Result<Place> {
    let wrong = |what: &str| Error::invalid(format!("settings.url: {what}"));
    let form = "use mysql://user:password@host:3306/database, with special letters percent-encoded";
    let url = Url::parse(text).map_err(|_| wrong(form))?;
    if !matches!(url.scheme(), "mysql" | "mariadb") {
        return Err(wrong(form));
    }
    let decoded = |part: &str| percent_decode_str(part).decode_utf8().map(String::from).map_err(|_| wrong(form));
    let host = url.host_str().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let mut ssl = SslMode::VerifyFull;
    for (name, value) in url.query_pairs() {
        match name.to_ascii_lowercase().as_str() {
            "ssl-mode" | "sslmode" => {
                ssl = SslMode::of(&value).ok_or_else(|| wrong("ssl-mode: use verify-full, require or disable"))?;
            }
            _ => return Err(wrong("the only parameter that it may have is ssl-mode")),
        }
    }
    let place = Place {
        host: decoded(host)?,
        port: url.port().unwrap_or(3306),
        user: decoded(url.username())?,
        password: decoded(url.password().unwrap_or_default())?,
        database: decoded(url.path().trim_start_matches('/'))?,
        ssl,
        ca: None,
        server_name: None,
    };
    if [&place.host, &place.user, &place.database].iter().any(|part| part.is_empty()) {
        return Err(wrong(form));
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: serde_json::Value) -> Settings {
        serde_json::from_value(json).expect("settings")
    }

    #[test]
    fn a_url_says_what_the_single_settings_say() {
        let single = settings(serde_json::json!({
            "host": "db.example.com", "user": "tide", "password": "p@ss/word", "database": "events", "sslMode": "require",
        }));
        let url = "mysql://tide:p%40ss%2Fword@db.example.com/events?ssl-mode=REQUIRED";
        let url = settings(serde_json::json!({ "url": url }));
        assert_eq!(single.place().unwrap(), url.place().unwrap());
        assert!(!format!("{:?}", url.place().unwrap()).contains("p@ss"), "a password is never shown");
    }

    #[test]
    fn a_refused_url_is_not_repeated() {
        for url in [
            "mysql://tide:secret@/events",
            "http://tide:secret@h/events",
            "tide:secret",
            "mysql://tide:secret@h/d?x=secret",
        ] {
            let error = settings(serde_json::json!({ "url": url })).place().unwrap_err().to_string();
            assert!(error.contains("settings.url") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn tls_with_names_checked_is_what_is_spoken_unless_told_otherwise() {
        let place = settings(serde_json::json!({"host": "h", "user": "u", "database": "d"})).place().unwrap();
        assert_eq!(place.ssl, SslMode::VerifyFull);
        let place = settings(serde_json::json!({"url": "mysql://u:p@[2001:db8::1]:1/d"})).place().unwrap();
        assert_eq!((place.ssl, place.host.as_str(), place.port), (SslMode::VerifyFull, "2001:db8::1", 1));
    }
}
