//! `tidemill sandbox`: a stand-in CRM and shop.

use super::{Context, Failure, Outcome, print, stop};
use crate::clock::Clock;
use crate::domain::time::Millis;
use crate::sandbox;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    options: sandbox::Options,
}

pub(super) fn run(args: Args, _context: &Context) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| Failure::Failed(format!("cannot start: {e}")))?;
    runtime.block_on(async {
        let accounts = args.options.accounts;
        let handle = sandbox::run(args.options, Clock::start(Millis(0))).await?;
        let url = handle.url();
        print(&format!(
            "The sandbox listens on {url}: {accounts} accounts, the first with the API key {}.\n\
             curl -H 'Authorization: Bearer {0}' '{url}/api/contacts?page_size=2'\n",
            handle.key(1)
        ))?;
        stop::told().await;
        handle.stop().await;
        Ok(())
    })
}
