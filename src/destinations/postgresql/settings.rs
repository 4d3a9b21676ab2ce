//! What can be set of a PostgreSQL destination, and what follows from it: where to, as whom, encrypted or not.
//!
//! Always true: a password comes from the settings and from nowhere else, and no message shows it; whoever encrypts also
//! checks whom he speaks to. Not here: connecting (`pool`), names inside the database beyond their form (`sql`).

use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslMode as Mode};
use url::Url;

use super::sql::NAME_MAX_BYTES;
use crate::error::{Error, Result};

/// What can be set.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Settings {
    /// `postgresql://user:password@host:5432/database?sslmode=verify-full`, in place of `host`, `port`, `database`,
    /// `user` and `password`.
    #[schemars(extend("writeOnly" = true))]
    url: Option<String>,
    /// The server's name or address.
    host: Option<String>,
    /// 5432 if not set.
    port: Option<u16>,
    database: Option<String>,
    user: Option<String>,
    #[schemars(extend("writeOnly" = true))]
    password: Option<String>,
    /// `verify-full` (the default): encrypted, and the server's certificate must be for its name. `disable`: plain, only
    /// to addresses in the networks that the node's operator allows.
    ssl_mode: Option<SslMode>,
    /// PEM: believe these certificates, and no others.
    ca_certificate: Option<String>,
    /// The schema of all tables. It must be there.
    #[serde(default = "default_schema")]
    pub(super) schema: String,
    /// The table of a log (`"shape": "append"`), made on first use.
    #[serde(default = "default_table")]
    pub(super) table: String,
    /// Before the name of each table of a mirror: `tm_` gives `tm_crm_contacts`.
    #[serde(default)]
    pub(super) table_prefix: String,
    /// The type of JSON columns.
    #[serde(default)]
    pub(super) json: JsonType,
    /// Connections at most: 1 to 4.
    #[serde(default = "default_connections")]
    #[schemars(range(min = 1, max = 4))]
    pub(super) max_connections: u32,
    /// Events in a batch at most.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1, max = 10_000))]
    pub(super) max_rows: u32,
    /// Seconds that an event may wait for others to join it.
    #[serde(default = "default_seconds")]
    #[schemars(range(min = 0, max = 3_600))]
    pub(super) max_seconds: u32,
    /// Seconds that writing one batch may take: 5 to 300.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 5, max = 300))]
    pub(super) timeout_seconds: u32,
}

fn default_schema() -> String {
    "public".to_owned()
}

fn default_table() -> String {
    "tidemill_events".to_owned()
}

fn default_connections() -> u32 {
    2
}

fn default_rows() -> u32 {
    1_000
}

fn default_seconds() -> u32 {
    1
}

fn default_timeout() -> u32 {
    30
}

/// How the connection is protected. There is no mode that encrypts without checking whom it speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SslMode {
    VerifyFull,
    Disable,
}

/// The type of JSON columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum JsonType {
    /// Parsed: quick to ask, indexable; keys lose their order, and U+0000 is written as six characters.
    #[default]
    Jsonb,
    /// The text as it stands, byte for byte.
    Json,
}

/// Where to, as whom, and how.
pub(super) struct Way {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) encrypted: bool,
    pub(super) ca: Option<String>,
    /// User, password, database; its `Debug` hides the password.
    pub(super) config: Config,
}

/// Reads and checks the settings.
pub(super) fn read(settings: Map<String, Value>) -> Result<(Settings, Way)> {
    let settings: Settings = crate::destinations::settings::own(settings)?;
    for (name, value) in [("schema", &settings.schema), ("table", &settings.table)] {
        if value.is_empty() || value.len() > NAME_MAX_BYTES || value.contains('\0') {
            return Err(Error::invalid(format!("settings.{name}: use 1 to {NAME_MAX_BYTES} bytes")));
        }
    }
    if settings.table_prefix.len() > 32 || settings.table_prefix.contains('\0') {
        return Err(Error::invalid("settings.tablePrefix: use at most 32 bytes"));
    }
    let ranges = [
        ("maxConnections", settings.max_connections, 1, 4),
        ("maxRows", settings.max_rows, 1, 10_000),
        ("maxSeconds", settings.max_seconds, 0, 3_600),
        ("timeoutSeconds", settings.timeout_seconds, 5, 300),
    ];
    for (name, value, from, to) in ranges {
        if !(from..=to).contains(&value) {
            return Err(Error::invalid(format!("settings.{name}: use {from} to {to}")));
        }
    }
    let way = way(&settings)?;
    Ok((settings, way))
}

fn way(settings: &Settings) -> Result<Way> {
    let mut way = match &settings.url {
        Some(url) => {
            let parts = [&settings.host, &settings.database, &settings.user, &settings.password];
            if parts.iter().any(|part| part.is_some()) || settings.port.is_some() {
                let message =
                    "settings.url: give it without host, port, database, user and password, or give those alone";
                return Err(Error::invalid(message));
            }
            of_url(url)?
        }
        None => of_parts(settings)?,
    };
    if let Some(mode) = settings.ssl_mode {
        way.encrypted = mode == SslMode::VerifyFull;
    }
    way.ca.clone_from(&settings.ca_certificate);
    if way.ca.is_some() && !way.encrypted {
        return Err(Error::invalid("settings.caCertificate: nothing is encrypted; set sslMode to verify-full"));
    }
    way.config.ssl_mode(if way.encrypted { Mode::Require } else { Mode::Disable });
    Ok(way)
}

fn of_parts(settings: &Settings) -> Result<Way> {
    let given = |name: &str, value: &Option<String>| match value.as_deref() {
        Some(text) if !text.is_empty() && !text.contains('\0') => Ok(text.to_owned()),
        Some(_) => Err(Error::invalid(format!("settings.{name}: it is empty, or has a NUL"))),
        None => Err(Error::invalid(format!("settings.{name}: it is missing; give url, or host, database and user"))),
    };
    let host = given("host", &settings.host)?;
    if host.contains(['/', '@', ',', ' ']) {
        return Err(Error::invalid(
            "settings.host: give one name or address; sockets and lists of hosts are not supported",
        ));
    }
    let mut config = config(&given("user", &settings.user)?, &given("database", &settings.database)?);
    if let Some(password) = &settings.password {
        config.password(password);
    }
    Ok(Way { host, port: settings.port.unwrap_or(5432), encrypted: true, ca: None, config })
}

fn config(user: &str, database: &str) -> Config {
    let mut config = Config::new();
    config.user(user).dbname(database).application_name("tidemill");
    config
}

/// The connection URI of PostgreSQL's docs (libpq, connection strings), with one host.
fn of_url(text: &str) -> Result<Way> {
    const FORM: &str = "settings.url: write postgresql://user:password@host:5432/database, other characters as %xx";
    let url = Url::parse(text).map_err(|_| Error::invalid(FORM))?;
    let decoded = |text: &str| match percent_decode_str(text).decode_utf8() {
        Ok(text) if !text.contains('\0') => Ok(text.into_owned()),
        _ => Err(Error::invalid(FORM)),
    };
    let host = decoded(url.host_str().unwrap_or_default())?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host).to_owned();
    let database = decoded(url.path().trim_start_matches('/'))?;
    let is_ours = matches!(url.scheme(), "postgres" | "postgresql");
    if !is_ours || host.is_empty() || host.contains(['/', ',']) || database.is_empty() || url.username().is_empty() {
        return Err(Error::invalid(FORM));
    }
    let mut config = config(&decoded(url.username())?, &database);
    if let Some(password) = url.password() {
        config.password(percent_decode_str(password).collect::<Vec<u8>>());
    }
    let mut encrypted = true;
    for (name, value) in url.query_pairs() {
        match (&*name, &*value) {
            ("sslmode", "disable") => encrypted = false,
            // Whatever asks for or allows encryption gets the checked one.
            ("sslmode", "allow" | "prefer" | "require" | "verify-ca" | "verify-full") => {}
            ("channel_binding", "require") => drop(config.channel_binding(ChannelBinding::Require)),
            ("channel_binding", "prefer" | "disable") | ("connect_timeout", _) => {}
            ("application_name", value) => drop(config.application_name(value)),
            ("options", value) => drop(config.options(value)),
            (name, _) => {
                let message = format!("settings.url: {name} cannot be set here, or not to this value");
                return Err(Error::invalid(message));
            }
        }
    }
    Ok(Way { host, port: url.port().unwrap_or(5432), encrypted, ca: None, config })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn way(settings: Value) -> Result<Way> {
        let Value::Object(settings) = settings else { panic!("{settings}") };
        read(settings).map(|(_, way)| way)
    }

    #[test]
    fn a_url_says_all_that_the_parts_say() {
        let url = "postgresql://us%40er:p%2Fw@[::1]:6432/d%20b?sslmode=require&options=endpoint%3Dx";
        let way = way(json!({ "url": url })).unwrap();
        assert_eq!((way.host.as_str(), way.port, way.encrypted), ("::1", 6432, true));
        assert_eq!(way.config.get_user(), Some("us@er"));
        assert_eq!(way.config.get_password(), Some(&b"p/w"[..]));
        assert_eq!(way.config.get_dbname(), Some("d b"));
        assert_eq!(way.config.get_options(), Some("endpoint=x"));
        assert_eq!(way.config.get_ssl_mode(), Mode::Require);
    }

    #[test]
    fn nothing_is_plain_unless_it_is_said() {
        assert!(way(json!({"host": "h", "database": "d", "user": "u"})).unwrap().encrypted);
        for mode in ["allow", "prefer", "require", "verify-ca", "verify-full"] {
            assert!(way(json!({"url": format!("postgres://u@h/d?sslmode={mode}")})).unwrap().encrypted, "{mode}");
        }
        assert!(!way(json!({"url": "postgres://u@h/d?sslmode=disable"})).unwrap().encrypted);
        assert!(!way(json!({"url": "postgres://u@h/d", "sslMode": "disable"})).unwrap().encrypted);
    }

    #[test]
    fn what_is_wrong_is_named_without_the_password() {
        let wrong = [
            (json!({"url": "postgres://u:s3cret@h/d", "host": "h"}), "settings.url"),
            (json!({"url": "postgres://u:s3cret@h1,h2/d"}), "settings.url"),
            (json!({"url": "postgres://u:s3cret@h/d?passfile=x"}), "passfile"),
            (json!({"url": "mysql://u:s3cret@h/d"}), "settings.url"),
            (json!({"url": "postgres://h/d"}), "settings.url"),
            (json!({"url": "host=h user=u password=s3cret"}), "settings.url"),
            (json!({"database": "d", "user": "u", "password": "s3cret"}), "settings.host"),
            (json!({"host": "/run/postgresql", "database": "d", "user": "u", "password": "s3cret"}), "settings.host"),
            (json!({"host": "h", "database": "d", "user": "u", "password": "s3cret", "sslMode": "require"}), "require"),
            (json!({"host": "h", "database": "d", "user": "u", "table": "x".repeat(64)}), "settings.table"),
            (json!({"host": "h", "database": "d", "user": "u", "maxConnections": 5}), "settings.maxConnections"),
            (json!({"host": "h", "database": "d", "user": "u", "sslMode": "disable", "caCertificate": ""}), "caCert"),
        ];
        for (settings, named) in wrong {
            let error = way(settings.clone()).err().unwrap_or_else(|| panic!("{settings} is taken")).to_string();
            assert!(error.contains(named) && !error.contains("s3cret"), "{settings}: {error}");
        }
    }
}
