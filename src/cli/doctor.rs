//! `tidemill doctor`: what is wrong around a node, and what to do.

use super::{Context, Failure, Outcome, print};
use crate::app::doctor::examine;

#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: Args, context: &Context) -> Outcome {
    let config = context.config()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(examine(&config))?;
    let line = |finding: &crate::app::doctor::Finding| {
        format!("{}  {}\n", if finding.is_well { "ok" } else { "no" }, finding.text)
    };
    print(&findings.iter().map(line).collect::<String>())?;
    match findings.iter().filter(|finding| !finding.is_well).count() {
        0 => Ok(()),
        count => Err(Failure::Failed(format!("{count} of {} things need a hand", findings.len()))),
    }
}
