//! `tidemill keys`: create, list and revoke API keys, on a running node or on a store that no node uses.

use clap::Subcommand;
use serde_json::{Value, json};

use super::node::{On, segment};
use super::{Context, Outcome};

const VARIABLE: &str = "TIDEMILL_API_KEY";
const PATH: &str = "/2024-03/one/keys";

/// Said below the help.
pub(super) const KEY_HELP: &str = "On a node, a key with scope admin opens these calls: TIDEMILL_API_KEY, \
                                   TIDEMILL_API_KEY_FILE or --key-file. A store that no node has open (storage.path) \
                                   is worked on itself, without a key.";

pub(super) type Args = On<What>;

#[derive(Subcommand)]
pub(super) enum What {
    /// Make a key and print it, this once.
    Create {
        /// For people, up to 256 bytes
        name: String,
        /// read, write (includes read), admin (includes both), or hooks; may be given several times
        #[arg(long = "scope", value_name = "SCOPE", required = true, value_parser = ["read", "write", "admin", "hooks"])]
        scopes: Vec<String>,
        /// The user, by id or username, that a hooks key is bound to
        #[arg(long, value_name = "USER")]
        user: Option<String>,
        /// RFC 3339; without it the key does not expire
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// List the keys, without their texts.
    List,
    /// Revoke a key; it stops working at once.
    Revoke {
        /// As `list` shows it
        key_id: String,
    },
}

pub(super) fn run(args: Args, context: &Context) -> Outcome {
    let node = args.open(context, VARIABLE)?;
    match args.what {
        What::Create { name, scopes, user, expires_at } => {
            let mut body = json!({ "name": name, "scopes": scopes });
            if let Some(user) = user {
                body["userId"] = user.into();
            }
            if let Some(time) = expires_at {
                body["expiresAt"] = time.into();
            }
            node.show("POST", PATH, Some(&body), |answer| {
                let key = &answer["key"];
                format!("{}\n{}\n", line(key), key["apiKey"].as_str().unwrap_or_default())
            })
        }
        What::List => node.show_all(PATH, "keys", line),
        What::Revoke { key_id } => {
            node.show("DELETE", &format!("{PATH}/{}", segment(&key_id)), None, |_| format!("revoked {key_id}\n"))
        }
    }
}

/// Id, scopes, times and name: the name comes last, since it may hold spaces.
fn line(key: &Value) -> String {
    let text = |name: &str| key[name].as_str().unwrap_or("-").to_owned();
    let scopes: Vec<&str> = key["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let (id, created, expires) = (text("keyId"), text("createdAt"), text("expiresAt"));
    format!("{id}  {:<12} created {created}  expires {expires}  {}", scopes.join(","), text("name"))
}
