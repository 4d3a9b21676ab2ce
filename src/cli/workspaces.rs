//! `tidemill workspaces`: create, list and delete workspaces, on a running node or on a store that no node uses.

use clap::Subcommand;
use serde_json::{Value, json};

use super::node::{On, segment};
use super::{Context, Failure, Outcome};

const VARIABLE: &str = "TIDEMILL_OPERATOR_KEY";
const PATH: &str = "/workspaces";

/// Said below the help.
pub(super) const KEY_HELP: &str = "On a node, the operator's key opens these calls: TIDEMILL_OPERATOR_KEY, \
                                   TIDEMILL_OPERATOR_KEY_FILE or --key-file; the node must have the same as \
                                   security.operator_key. A store that no node has open (storage.path) is worked on \
                                   itself, without a key.";

pub(super) type Args = On<What>;

#[derive(Subcommand)]
pub(super) enum What {
    /// Make a workspace and print its first API key, this once.
    Create {
        /// Unique on the node
        name: String,
    },
    /// List the workspaces.
    List,
    /// Delete a workspace and all that is in it: users, connections, subscriptions, events and keys.
    Delete {
        /// As `list` shows it
        workspace_id: String,
        /// Do it; nothing of it can be brought back
        #[arg(long)]
        yes: bool,
    },
}

pub(super) fn run(args: Args, context: &Context) -> Outcome {
    if let What::Delete { workspace_id, yes: false } = &args.what {
        return Err(Failure::Usage(format!(
            "deleting workspace {workspace_id} takes everything in it and cannot be taken back; say --yes to do it"
        )));
    }
    let node = args.open(context, VARIABLE)?;
    match args.what {
        What::Create { name } => node.show("POST", PATH, Some(&json!({ "name": name })), |answer| {
            let key = answer["key"]["apiKey"].as_str().unwrap_or_default();
            format!("{}\n{key}\n", line(&answer["workspace"]))
        }),
        What::List => node.show_all(PATH, "workspaces", line),
        What::Delete { workspace_id, .. } => {
            let path = format!("{PATH}/{}", segment(&workspace_id));
            node.show("DELETE", &path, None, |_| format!("deleted {workspace_id}\n"))
        }
    }
}

fn line(workspace: &Value) -> String {
    let text = |name: &str| workspace[name].as_str().unwrap_or("-");
    format!("{}  created {}  {}", text("workspaceId"), text("createdAt"), text("name"))
}
