//! `tidemill connector run`: a connector tried against a real account, again with each save if it is watched.
//!
//! Always true: credentials come from a file that only its owner can read, from stdin or from the environment, never from
//! the command line; unified records go to stdout, everything else to stderr.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::super::{Context, Failure, Outcome, print, stop};
use crate::app::trial::{Given, Method, Said, Trials, Wish};
use crate::config::Config;
use crate::domain::time::Millis;

/// What is told below the options.
pub(super) const HELP: &str = "Credentials are JSON, as `POST /one/connections` takes them: {\"apiKey\":\"…\"}, \
    {\"accessToken\":\"…\",\"refreshToken\":\"…\"}, {\"username\":\"…\",\"password\":\"…\"}. They come from \
    --credentials (a file of mode 0600, or - for stdin), TIDEMILL_CREDENTIALS or TIDEMILL_CREDENTIALS_FILE.\n\n\
    Unified records go to stdout, one JSON object per line; what the app was asked goes to stderr.";
const VARIABLE: &str = "TIDEMILL_CREDENTIALS";
const VARIABLE_FILE: &str = "TIDEMILL_CREDENTIALS_FILE";
/// The largest credentials.
const CREDENTIALS_BYTES_MAX: u64 = 64 << 10;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The connector's folder, or the key of one that is installed
    folder: PathBuf,
    /// The app's address, where the connector knows none or another is meant
    #[arg(long, value_name = "URL")]
    base_uri: Option<String>,
    /// JSON credentials: a file that only you can read, or "-" for stdin
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// A file with the connection's and the integration's parameters, as one JSON object
    #[arg(long, value_name = "FILE")]
    parameters: Option<PathBuf>,
    /// A collection; may be given several times. Without it: all
    #[arg(long = "collection", value_name = "KEY")]
    collections: Vec<String>,
    /// pull, scan, deleted, fetch or account. Without it: pull, or scan where there is no pull
    #[arg(long, value_name = "METHOD")]
    method: Option<Method>,
    /// The record to fetch
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Only what changed since then (RFC 3339), for pull and deleted
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Pages to read of each list, at most
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pages: u32,
    /// Keep the answers as a test, for `connector test`; secrets are left out
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Run again whenever a file of the folder is saved, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// A private network that may be called, such as 127.0.0.0/8; may be given several times
    #[arg(long = "allow-network", value_name = "NETWORK")]
    allow_networks: Vec<ipnet::IpNet>,
}

pub(super) fn run(args: Args, mut config: Config, context: &Context) -> Outcome {
    config.ingest.allow_networks.extend(&args.allow_networks);
    if args.watch && !args.folder.is_dir() {
        return Err(Failure::Usage("--watch needs a folder to watch".to_owned()));
    }
    let watch = args.watch;
    let wish = wish(args, context)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Failed(format!("cannot start: {e}")))?;
    runtime.block_on(async {
        let trials = Trials::new(&config, wish, Arc::new(say))?;
        if !watch {
            return Ok(trials.once().await?);
        }
        tokio::select! {
            outcome = again(&trials) => outcome,
            () = stop::told() => Ok(()),
        }
    })
}

/// Runs now and after each save. What fails is told, and the next save tries again.
async fn again(trials: &Trials) -> Outcome {
    loop {
        if let Err(error) = trials.once().await {
            note(&Failure::from(error).sentence());
        }
        note("waiting for the next save; Ctrl-C ends it");
        trials.changed().await;
    }
}

fn wish(args: Args, context: &Context) -> Result<Wish, Failure> {
    let since = match &args.since {
        None => None,
        Some(text) => Some(
            Millis::parse_rfc3339(text)
                .ok_or_else(|| Failure::Usage(format!("--since {text:?} is no time such as 2026-01-31T12:00:00Z")))?,
        ),
    };
    let fetches = args.method == Some(Method::Fetch);
    if fetches != args.id.is_some() || (fetches && args.collections.len() != 1) {
        return Err(Failure::Usage(
            "--method fetch takes one --collection and the record's --id, and only it".to_owned(),
        ));
    }
    if since.is_some() && matches!(args.method, Some(Method::Scan | Method::Fetch | Method::Account)) {
        return Err(Failure::Usage("--since is for pull and deleted".to_owned()));
    }
    Ok(Wish {
        given: given(args.credentials, context)?,
        folder: args.folder,
        base_uri: args.base_uri,
        parameters: args.parameters,
        collections: args.collections,
        method: args.method,
        id: args.id,
        since,
        pages_max: args.pages,
        record: args.record,
    })
}

/// The credentials, from wherever they are; none are an empty object.
fn given(path: Option<PathBuf>, context: &Context) -> Result<Given, Failure> {
    let variable = |name: &str| context.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let path = path.or_else(|| variable(VARIABLE_FILE).map(PathBuf::from));
    let (text, of, file) = match (path, variable(VARIABLE)) {
        (Some(path), _) if path == Path::new("-") => (stdin()?, "stdin".to_owned(), None),
        (Some(path), _) => (private(&path)?, path.display().to_string(), Some(path)),
        (None, Some(text)) => (text, VARIABLE.to_owned(), None),
        (None, None) => return Ok(Given { credentials: Value::Object(serde_json::Map::new()), file: None }),
    };
    // The parser's own message would repeat a part of the text.
    let credentials = serde_json::from_str(&text).map_err(|e| {
        Failure::Failed(format!("{of}: the credentials are not JSON (line {}, column {})", e.line(), e.column()))
    })?;
    Ok(Given { credentials, file })
}

fn stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().take(CREDENTIALS_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// A file that nobody else may read.
fn private(path: &Path) -> Result<String, Failure> {
    let wrong = |why: &str| Failure::Failed(format!("{}: {why}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| wrong(&e.to_string()))?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(wrong("others may read these credentials: chmod 600 it first"));
    }
    let mut text = String::new();
    file.take(CREDENTIALS_BYTES_MAX).read_to_string(&mut text).map_err(|e| wrong(&e.to_string()))?;
    Ok(text)
}

fn say(said: Said<'_>) {
    match said {
        // A reader that went away has seen enough.
        Said::Record(record) => drop(print(&format!("{record}\n"))),
        Said::Asked(line) => drop(writeln!(std::io::stderr(), "{line}")),
        Said::Note(line) => note(line),
    }
}

fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "tidemill: {line}");
}
