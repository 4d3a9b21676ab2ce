//! `tidemill resume`: let a restored node go on, once its original is stopped.

use serde_json::json;

use super::backup::key_variable;
use super::node::Reach;
use super::{Context, Outcome};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    reach: Reach,
    /// The node that the backup is of does not run any more
    #[arg(long)]
    original_is_stopped: bool,
}

pub(super) fn run(args: Args, context: &Context) -> Outcome {
    let node = args.reach.open(context, None, key_variable(context))?;
    let body = json!({ "originalIsStopped": args.original_is_stopped });
    node.show("POST", "/node/resume", Some(&body), |_| "the node goes on\n".to_owned())
}
