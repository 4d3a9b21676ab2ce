//! `tidemill demo`: a user, a connection and a subscription on a running node, and a receiver that prints what arrives.

use super::{Context, Failure, Outcome};

#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: Args, _context: &Context) -> Outcome {
    Err(Failure::Failed("demo is not in this version yet".to_owned()))
}
