//! What can be set of a Redshift destination, and what is refused.
//!
//! Always true: names of schemas and tables are plain, so that they can stand in statements. Not here: the bucket and the
//! credentials (`destinations::aws`).

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Error, Result};

/// What can be set.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// A provisioned cluster. Or `workgroupName`.
    pub cluster_identifier: Option<String>,
    /// A workgroup of Redshift Serverless. Or `clusterIdentifier`.
    pub workgroup_name: Option<String>,
    pub database: String,
    /// The database user, with `clusterIdentifier`. Or `secretArn`.
    pub db_user: Option<String>,
    /// A secret of Secrets Manager with the user and password.
    pub secret_arn: Option<String>,
    /// The role of the cluster that COPY reads the bucket with: its ARN, or `default`.
    pub copy_role_arn: String,
    #[serde(default = "default_schema")]
    pub schema: String,
    /// The table of a log.
    #[serde(default = "default_table")]
    pub table: String,
    /// What tables of a mirror begin with.
    #[serde(default)]
    pub table_prefix: String,
    /// What keys in the bucket begin with.
    #[serde(default = "default_prefix")]
    pub staging_prefix: String,
    /// The region of the bucket, if it is another one.
    pub bucket_region: Option<String>,
    /// Another address of the Data API.
    pub endpoint: Option<String>,
    /// Events in a batch at most.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1, max = 50_000))]
    pub max_rows: u32,
    /// Seconds that an event may wait for others to join it.
    #[serde(default = "default_seconds")]
    #[schemars(range(min = 0, max = 3_600))]
    pub max_seconds: u32,
}

fn default_schema() -> String {
    "public".to_owned()
}

fn default_table() -> String {
    "tidemill_events".to_owned()
}

fn default_prefix() -> String {
    "tidemill-staging".to_owned()
}

fn default_rows() -> u32 {
    10_000
}

fn default_seconds() -> u32 {
    60
}

impl Settings {
    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// `invalid`, with the setting's name.
    pub fn check(&mut self) -> Result<()> {
        let refuse = |text: &str| Err(Error::invalid(format!("settings.{text}")));
        if self.cluster_identifier.is_some() == self.workgroup_name.is_some() {
            return refuse("clusterIdentifier: give it or `workgroupName`");
        }
        if self.cluster_identifier.is_some() && self.db_user.is_some() == self.secret_arn.is_some() {
            return refuse("dbUser: give it or `secretArn`");
        }
        if self.workgroup_name.is_some() && self.db_user.is_some() {
            return refuse("dbUser: a workgroup takes the user of the credentials, or `secretArn`");
        }
        let is_name = |text: &str, max: usize| {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            text.len() <= max && text.bytes().all(plain) && !text.starts_with(|c: char| c.is_ascii_digit())
        };
        if self.database.is_empty() || self.database.len() > 127 {
            return refuse("database: name the database");
        }
        for (name, text) in [("schema", &self.schema), ("table", &self.table)] {
            if text.is_empty() || !is_name(text, 120) {
                return refuse(&format!("{name}: use up to 120 lower-case letters, digits and `_`, no digit first"));
            }
        }
        if !is_name(&self.table_prefix, 60) {
            return refuse("tablePrefix: use up to 60 lower-case letters, digits and `_`, no digit first");
        }
        let role = self.copy_role_arn.as_str();
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b":/_+=,.@-".contains(&b);
        if role != "default" && !(role.starts_with("arn:aws") && role.contains(":role/") && role.bytes().all(is_plain))
        {
            return refuse("copyRoleArn: use the ARN of a role that the cluster has, or `default`");
        }
        self.staging_prefix = self.staging_prefix.trim_matches('/').to_owned();
        let is_part = |part: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'=');
            !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain)
        };
        if self.staging_prefix.len() > 512 || !self.staging_prefix.split('/').all(is_part) {
            return refuse("stagingPrefix: use up to 512 letters, digits, `.`, `_`, `-` and `=`, divided by `/`");
        }
        crate::destinations::settings::batches(self.max_rows, 50_000, self.max_seconds).map(drop)
    }
}
