//! `tidemill backup`: a copy of the store as it is now, while a node runs on it or not.
//!
//! Always true: a folder with the backup's name is whole. Not here: how a copy can be made of what is in use (`store`).

use std::path::{Path, PathBuf};

use serde_json::json;

use super::node::{Node, Reach, segment};
use super::{Context, Failure, Outcome, print};
use crate::app::offline::copy_folder;

const PATH: &str = "/node/backups";

/// Said below the help.
pub(super) const KEY_HELP: &str = "On a node, the operator's key opens this call, or, where none is set, a key of the \
                                   default workspace with scope admin: TIDEMILL_OPERATOR_KEY, TIDEMILL_API_KEY, their \
                                   _FILE forms or --key-file. A store that no node has open (storage.path) is worked on \
                                   itself, without a key.";

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    reach: Reach,
    /// A folder to make, best on another disk; without it the backup stays beside the store, in backups/
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

/// The variable that holds the key of calls about the node.
pub(super) fn key_variable(context: &Context) -> &'static str {
    let operator = "TIDEMILL_OPERATOR_KEY";
    let is_set = context.env.iter().any(|(name, _)| name.strip_suffix("_FILE").unwrap_or(name) == operator);
    if is_set { operator } else { "TIDEMILL_API_KEY" }
}

pub(super) fn run(args: Args, context: &Context) -> Outcome {
    if let Some(to) = args.to.as_ref().filter(|to| to.exists()) {
        return Err(Failure::Usage(format!("{} is there already; name a folder to be made", to.display())));
    }
    let node = args.reach.open(context, None, key_variable(context))?;
    let made = node.ask("POST", PATH, Some(&json!({})))?["backup"].take();
    let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
    let path = match &args.to {
        Some(to) => {
            let moved = move_out(&node, Path::new(&text("path")), &text("name"), to);
            moved.map_err(|failure| told(failure, &text("path")))?;
            to.display().to_string()
        }
        None => text("path"),
    };
    let is_json = args.reach.is_json();
    node.close()?;
    if is_json {
        let mut made = made;
        made["path"] = path.into();
        return print(&format!("{made:#}\n"));
    }
    print(&format!(
        "{path}\nThe master key is not in it: keep the one with the fingerprint {} in another place.\n",
        text("keyFingerprint")
    ))
}

fn told(failure: Failure, path: &str) -> Failure {
    Failure::Failed(format!("{}; the backup is whole in {path} on the node's machine", failure.sentence()))
}

/// Copies a backup away from the store, and deletes it there.
fn move_out(node: &Node, from: &Path, name: &str, to: &Path) -> Outcome {
    let mut unfinished = to.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)?;
    }
    copy_folder(from, &unfinished)
        .and_then(|()| std::fs::rename(&unfinished, to))
        .map_err(|error| Failure::Failed(format!("cannot copy to {}: {error}", to.display())))?;
    node.ask("DELETE", &format!("{PATH}/{}", segment(name)), None).map(drop)
}
