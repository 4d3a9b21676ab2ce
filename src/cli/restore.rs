//! `tidemill restore`: put a backup where the store belongs.

use std::path::PathBuf;

use super::{Context, Outcome, print};
use crate::app::offline::restore_store;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The backup's folder; it is copied to storage.path, where no store may be
    #[arg(value_name = "FOLDER")]
    from: PathBuf,
}

pub(super) fn run(args: Args, context: &Context) -> Outcome {
    let config = context.config()?;
    print(&restore_store(&config, &args.from)?)
}
