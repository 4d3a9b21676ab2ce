//! `tidemill verify`: check the signatures of a delivery.

use super::{Context, Failure, Outcome};

#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: Args, _context: &Context) -> Outcome {
    Err(Failure::Failed("verify is not in this version yet".to_owned()))
}
