//! `tidemill serve`: run a node until it is told to stop.

use super::{Context, Failure, Outcome};
use crate::{app, telemetry};

#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: Args, context: &Context) -> Outcome {
    let config = context.config()?;
    telemetry::start_log(&config.log).map_err(Failure::Failed)?;
    Ok(app::block_on(config, super::stop::told())?)
}
