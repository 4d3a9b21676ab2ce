//! `tidemill demo`: makes a user, an integration, a connection and a subscription on a running node, each only if it is
//! not there yet, and prints one line per event that arrives.
//!
//! ```text
//! sandbox ──webhook, poll──▶ node ──signed POST──▶ receiver ──▶ show
//! ```
//!
//! Always true: it uses nothing but the public API, and checks both signatures with verifiers that are not ours.

mod receiver;
mod setup;
mod show;

use std::io::IsTerminal as _;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use super::{Context, Failure, Outcome, print, stop};
use crate::cli::http::Server;
use crate::clock::Clock;
use crate::domain::time::Millis;

const READY_POLL: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub(super) struct Args {
    /// The node
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7300")]
    node: String,
    /// A full-access key of the node; else TIDEMILL_API_KEY, or the file below
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// A file that holds the key; else TIDEMILL_API_KEY_FILE
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// The sandbox
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7400")]
    sandbox: String,
    /// Where the receiver listens
    #[arg(long, default_value = "127.0.0.1:7401")]
    listen: SocketAddr,
    /// Wait so long for node and sandbox to answer
    #[arg(long, value_name = "N", default_value_t = 60)]
    wait_seconds: u64,
    /// End after so many events; else at Ctrl-C
    #[arg(long, value_name = "N")]
    events: Option<u64>,
}

impl Args {
    fn key(&self, context: &Context) -> Result<String, Failure> {
        let from_env = |name: &str| context.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        if let Some(key) = self.api_key.clone() {
            return Ok(key);
        }
        let file = match &self.api_key_file {
            Some(file) => Some(file.clone()),
            None => match from_env("TIDEMILL_API_KEY") {
                Some(key) => return Ok(key),
                None => from_env("TIDEMILL_API_KEY_FILE").map(PathBuf::from),
            },
        };
        let Some(file) = file else {
            return Err(Failure::Usage("say --api-key or --api-key-file, or set TIDEMILL_API_KEY".into()));
        };
        let text = std::fs::read_to_string(&file);
        Ok(text.map_err(|e| Failure::Failed(format!("cannot read {}: {e}", file.display())))?.trim().to_owned())
    }
}

pub(super) fn run(args: Args, context: &Context) -> Outcome {
    let key = args.key(context)?;
    let header_prefix = context.config()?.delivery.header_prefix;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::Failed(format!("cannot start: {e}")))?;
    runtime.block_on(async {
        tokio::select! {
            outcome = demo(&args, &key, header_prefix) => outcome,
            () = stop::told() => print("\n"),
        }
    })
}

async fn demo(args: &Args, key: &str, header_prefix: String) -> Outcome {
    let node = Server::new(&args.node, key)?;
    let sandbox = setup::Sandbox::new(&args.sandbox)?;
    let wait = Duration::from_secs(args.wait_seconds.min(3_600));
    until_it_answers(&node, "/health/ready", wait).await?;
    until_it_answers(sandbox.server(), "/control/settings", wait).await?;
    let listener = TcpListener::bind(args.listen)
        .map_err(|e| Failure::Failed(format!("the receiver cannot listen on {}: {e}", args.listen)))?;
    let local = listener.local_addr().map_err(|e| Failure::Failed(e.to_string()))?;
    let address = format!("http://{local}/events");
    let user = setup::user(&node).await?;
    let secret = setup::subscription(&node, &address).await?;
    let clock = Clock::start(Millis(0));
    let receiver =
        receiver::Setup { listener, address: address.clone(), secret, header_prefix, node: node.clone(), clock };
    let (server, mut arrivals) = receiver::start(receiver).await?;
    let integration = setup::integration(&node, &sandbox).await?;
    setup::connection(&node, &user, &integration).await?;
    print(&setup::introduction(&node, &sandbox, key, &address))?;
    let mut show = show::Show::new(node, sandbox, std::io::stdout().is_terminal());
    let mut seen = 0;
    while let Some(arrival) = arrivals.recv().await {
        print(&show.line(&arrival).await)?;
        seen += 1;
        if args.events.is_some_and(|wanted| seen >= wanted) {
            break;
        }
    }
    server.stop(true).await;
    if show.bad() == 0 { Ok(()) } else { Err(Failure::Failed(format!("{} signatures did not verify", show.bad()))) }
}

/// Waits until a path answers with success.
async fn until_it_answers(server: &Server, path: &str, wait: Duration) -> Outcome {
    let tries = wait.as_millis() / READY_POLL.as_millis();
    let mut last = Failure::Failed(format!("{} does not answer", server.base()));
    for _ in 0..=tries {
        match server.ask("GET", path, None).await {
            Ok(_) => return Ok(()),
            Err(failure) => last = failure,
        }
        tokio::time::sleep(READY_POLL).await;
    }
    Err(last)
}
