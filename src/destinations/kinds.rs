//! The table of kinds: every destination that this build has.

use serde_json::Value;

use super::driver::Kind;

/// All of them, in the order in which they are listed.
pub static KINDS: &[&Kind] = &[
    #[cfg(feature = "postgresql")]
    &super::postgresql::KIND,
    #[cfg(feature = "mysql")]
    &super::mysql::MYSQL,
    #[cfg(feature = "mysql")]
    &super::mysql::MARIADB,
    #[cfg(feature = "mongodb")]
    &super::mongodb::KIND,
    #[cfg(feature = "s3")]
    &super::s3::KIND,
    #[cfg(feature = "gcs")]
    &super::gcs::KIND,
    #[cfg(feature = "file")]
    &super::file::KIND,
    #[cfg(feature = "bigquery")]
    &super::bigquery::KIND,
    #[cfg(feature = "snowflake")]
    &super::snowflake::KIND,
    #[cfg(feature = "redshift")]
    &super::redshift::KIND,
    #[cfg(feature = "eventbridge")]
    &super::eventbridge::KIND,
    #[cfg(feature = "pubsub")]
    &super::pubsub::KIND,
    #[cfg(feature = "nats")]
    &super::nats::KIND,
];

/// The kind of that name.
pub fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}

impl Kind {
    /// The names of the secret settings.
    pub fn secrets(&self) -> Vec<String> {
        let schema = (self.schema)();
        let Some(Value::Object(properties)) = schema.get("properties") else { return Vec::new() };
        let is_secret = |property: &Value| property.get("writeOnly") == Some(&Value::Bool(true));
        properties.iter().filter(|(_, property)| is_secret(property)).map(|(name, _)| name.clone()).collect()
    }
}
