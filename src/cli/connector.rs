//! `tidemill connector`: make, validate and run a connector's folder.

use super::{Context, Failure, Outcome};

#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: Args, _context: &Context) -> Outcome {
    Err(Failure::Failed("connector is not in this version yet".to_owned()))
}
