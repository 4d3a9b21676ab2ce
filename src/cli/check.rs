//! `tidemill check`: open a store and report its health.

use super::{Context, Failure, Outcome};

#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: Args, _context: &Context) -> Outcome {
    Err(Failure::Failed("check is not in this version yet".to_owned()))
}
