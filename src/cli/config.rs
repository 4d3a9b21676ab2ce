//! `tidemill config`: what is in force, and where each setting comes from.

use super::{Context, Outcome, print};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Print the built-in file instead, with every key, its default and its reason.
    #[arg(long)]
    manual: bool,
}

pub(super) fn run(args: Args, context: &Context) -> Outcome {
    if args.manual { print(crate::config::EMBEDDED) } else { print(context.config()?.masked()) }
}
