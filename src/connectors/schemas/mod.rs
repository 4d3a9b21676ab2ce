//! JSON Schemas of a connector's YAML files, for editors: made from the very types that read them.
//!
//! Always true: every kind of YAML file that a folder may hold has one; what a schema refuses, the loader refuses too (a
//! schema knows less: names that lead nowhere are found by `connector check`). Not here: parameters of a connector
//! (`connectors::schema`), the unified models (`domain::models`).

mod expression;
mod types;

use std::path::Path;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

pub use self::expression::Expression;
use super::SpecError;
use super::bulk::BulkFileSpec;
use super::compile_parts::{EventFile, GlobalWebhookFile, WebhookFile};
use super::fields_rest::{FieldsFile, QueryFieldsFile};
use super::files::{CallFile, CollectionFile, ConnectorFile, FetchFile, ListFile};
use super::graphql::{QueryCallFile, QueryFetchFile, QueryListFile};
use super::subscriptions::SubscriptionsFile;
use super::testing::TestFile;
use super::values::SharedFile;

/// Where `connector new` puts them, beside the files; hidden folders are no part of a connector.
pub const FOLDER: &str = ".schemas";

/// One kind of file.
struct Kind {
    name: &'static str,
    title: &'static str,
    /// The files, from the connector's folder on; `*` is any one name.
    files: &'static [&'static str],
    make: fn() -> Value,
}

/// All kinds.
const KINDS: &[Kind] = &[
    Kind {
        name: "bulk",
        title: "A large first sync by one operation of the app",
        files: &["data/*/bulk.graphql.yml"],
        make: of::<BulkFileSpec>,
    },
    Kind {
        name: "call",
        title: "One call whose outcome is an expression",
        files: &[
            "account.rest.yml",
            "check.rest.yml",
            "bulk/start.rest.yml",
            "bulk/status.rest.yml",
            "webhook/subscribe.rest.yml",
            "webhook/refresh.rest.yml",
            "webhook/check.rest.yml",
            "webhook/unsubscribe.rest.yml",
            "global-webhooks/*/subscribe.rest.yml",
            "global-webhooks/*/refresh.rest.yml",
            "global-webhooks/*/check.rest.yml",
            "global-webhooks/*/unsubscribe.rest.yml",
            "webhook/subscriptions/*/list.rest.yml",
            "webhook/subscriptions/*/make.rest.yml",
            "webhook/subscriptions/*/remove.rest.yml",
            "global-webhooks/*/subscriptions/*/list.rest.yml",
            "global-webhooks/*/subscriptions/*/make.rest.yml",
            "global-webhooks/*/subscriptions/*/remove.rest.yml",
        ],
        make: of::<CallFile>,
    },
    Kind {
        name: "collection",
        title: "One kind of record in the app",
        files: &["data/*/spec.yml"],
        make: of::<CollectionFile>,
    },
    Kind { name: "connector", title: "A connector", files: &["spec.yml"], make: of::<ConnectorFile> },
    Kind {
        name: "event",
        title: "An event that is switched on per connection",
        files: &["events/*/spec.yml"],
        make: of::<EventFile>,
    },
    Kind {
        name: "fetch",
        title: "One record of the app",
        files: &["data/*/fetch.rest.yml", "shared/fetch.rest.yml"],
        make: of::<FetchFile>,
    },
    Kind {
        name: "fields",
        title: "The fields that an account has",
        files: &["data/*/fields.rest.yml", "shared/fields.rest.yml"],
        make: of::<FieldsFile>,
    },
    Kind {
        name: "global-webhook",
        title: "One webhook of the app for all accounts",
        files: &["global-webhooks/*/spec.yml"],
        make: of::<GlobalWebhookFile>,
    },
    Kind {
        name: "list",
        title: "A list of the app, page by page",
        files: &[
            "data/*/pull.rest.yml",
            "data/*/scan.rest.yml",
            "data/*/deleted.rest.yml",
            "data/*/ties.rest.yml",
            "data/*/touched.rest.yml",
            "shared/pull.rest.yml",
            "shared/scan.rest.yml",
            "shared/deleted.rest.yml",
            "shared/ties.rest.yml",
            "shared/touched.rest.yml",
        ],
        make: of::<ListFile>,
    },
    Kind {
        name: "mapping",
        title: "An expression",
        files: &[
            "data/*/record.map.yml",
            "webhook/handle.map.yml",
            "global-webhooks/*/handle.map.yml",
            "events/*/get-event-selector.map.yml",
        ],
        make: of::<Expression>,
    },
    Kind {
        name: "query-call",
        title: "One query whose outcome is an expression",
        files: &[
            "account.graphql.yml",
            "check.graphql.yml",
            "bulk/start.graphql.yml",
            "bulk/status.graphql.yml",
            "webhook/subscribe.graphql.yml",
            "webhook/refresh.graphql.yml",
            "webhook/check.graphql.yml",
            "webhook/unsubscribe.graphql.yml",
            "global-webhooks/*/subscribe.graphql.yml",
            "global-webhooks/*/refresh.graphql.yml",
            "global-webhooks/*/check.graphql.yml",
            "global-webhooks/*/unsubscribe.graphql.yml",
            "webhook/subscriptions/*/list.graphql.yml",
            "webhook/subscriptions/*/make.graphql.yml",
            "webhook/subscriptions/*/remove.graphql.yml",
            "global-webhooks/*/subscriptions/*/list.graphql.yml",
            "global-webhooks/*/subscriptions/*/make.graphql.yml",
            "global-webhooks/*/subscriptions/*/remove.graphql.yml",
        ],
        make: of::<QueryCallFile>,
    },
    Kind {
        name: "query-fetch",
        title: "One record of the app, by a query",
        files: &["data/*/fetch.graphql.yml"],
        make: of::<QueryFetchFile>,
    },
    Kind {
        name: "query-fields",
        title: "The fields that an account has, by a query",
        files: &["data/*/fields.graphql.yml", "shared/fields.graphql.yml"],
        make: of::<QueryFieldsFile>,
    },
    Kind {
        name: "query-list",
        title: "A list of the app, query by query",
        files: &[
            "data/*/pull.graphql.yml",
            "data/*/scan.graphql.yml",
            "data/*/deleted.graphql.yml",
            "data/*/ties.graphql.yml",
            "data/*/touched.graphql.yml",
        ],
        make: of::<QueryListFile>,
    },
    Kind {
        name: "shared",
        title: "What holds for each collection that does not say it",
        files: &["shared/spec.yml"],
        make: of::<SharedFile>,
    },
    Kind {
        name: "subscriptions",
        title: "What an app must have so that it tells of changes",
        files: &["webhook/subscriptions/*/spec.yml", "global-webhooks/*/subscriptions/*/spec.yml"],
        make: of::<SubscriptionsFile>,
    },
    Kind { name: "tests", title: "Tests of a connector", files: &["tests/*.yml"], make: of::<TestFile> },
    Kind {
        name: "webhook",
        title: "A connection's own webhook",
        files: &["webhook/spec.yml"],
        make: of::<WebhookFile>,
    },
];

/// Draft 7, which every editor knows.
fn of<T: JsonSchema>() -> Value {
    SchemaSettings::draft07().into_generator().into_root_schema_for::<T>().to_value()
}

/// All schemas: the name of the file and what is in it.
pub fn all() -> Vec<(String, Value)> {
    let one = |kind: &Kind| {
        let mut schema = (kind.make)();
        schema["title"] = kind.title.into();
        (file_name(kind), schema)
    };
    KINDS.iter().map(one).collect()
}

/// The schema that a file of a connector's folder goes by, if it is one of the YAML files that the format has.
pub fn of_file(path: &str) -> Option<String> {
    KINDS.iter().find(|kind| kind.files.iter().any(|pattern| fits(pattern, path))).map(file_name)
}

fn file_name(kind: &Kind) -> String {
    format!("{}.schema.json", kind.name)
}

fn fits(pattern: &str, path: &str) -> bool {
    let (mut wanted, mut there) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), there.next()) {
            (None, None) => return true,
            (Some(wanted), Some(there)) => {
                let fits = match wanted.split_once('*') {
                    Some((start, end)) => there.starts_with(start) && there.ends_with(end),
                    None => wanted == there,
                };
                if !fits {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

/// The settings of VS Code (its YAML extension) that give each file its schema. `schemas`: where they are, seen from the
/// opened folder; `connector`: the name of the connector's folder, or `connectors/*`.
pub fn editor_settings(schemas: &str, connector: &str) -> Value {
    let mut by_schema = Map::new();
    for kind in KINDS {
        // Patterns of one name would fit in any folder.
        let anchored =
            |file: &&str| if file.contains('/') { (*file).to_owned() } else { format!("{connector}/{file}") };
        by_schema.insert(format!("{schemas}/{}", file_name(kind)), kind.files.iter().map(anchored).collect());
    }
    json!({ "yaml.schemas": by_schema })
}

/// Writes all schemas into a folder, which is made; those of an earlier version are replaced.
///
/// # Errors
/// The disk does not take them.
pub fn write(folder: &Path) -> Result<Vec<String>, SpecError> {
    let wrong = |error: std::io::Error| SpecError::in_file(folder.to_string_lossy(), error.to_string());
    std::fs::create_dir_all(folder).map_err(wrong)?;
    let mut written = Vec::new();
    for (name, schema) in all() {
        std::fs::write(folder.join(&name), format!("{schema:#}\n")).map_err(wrong)?;
        written.push(name);
    }
    Ok(written)
}

#[cfg(test)]
mod tests;
