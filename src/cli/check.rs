//! `tidemill check`: open a store that no node uses, read all of it, and report its health.

use super::{Context, Outcome, print};
use crate::app::offline::check_store;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Only say whether the store would be upgraded, and to which version
    #[arg(long)]
    upgrade_dry_run: bool,
}

pub(super) fn run(args: Args, context: &Context) -> Outcome {
    let config = context.config()?;
    print(&check_store(&config, args.upgrade_dry_run)?)
}
