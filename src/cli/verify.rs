//! `tidemill verify`: check the signatures of a delivery, as a receiver should, and say what is wrong.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Context, Failure, Outcome, print};
use crate::app::verify::{Judgement, Received, verify};
use crate::clock::Clock;
use crate::domain::time::Millis;

/// The largest file that is read: bodies of deliveries are far smaller.
const FILE_BYTES_MAX: u64 = 64 << 20;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The body, byte for byte as it was received; "-" is stdin.
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// A header, as "name: value"; may be given more than once.
    #[arg(long = "header", value_name = "HEADER")]
    header: Vec<String>,
    /// A file with one "name: value" per line; other lines are passed over.
    #[arg(long, value_name = "FILE")]
    headers: Option<PathBuf>,
    /// The subscription's address exactly as it was given, for the RSA signature.
    #[arg(long, value_name = "URL")]
    address: Option<String>,
    /// The subscription's secret (whsec_…), for v1. Better by the environment than on the command line.
    #[arg(long, value_name = "SECRET", env = "TIDEMILL_VERIFY_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// The node's public keys: what /security/public_key.pem or /.well-known/jwks.json says.
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// How far webhook-timestamp may be from now.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    tolerance: u64,
    /// Judge the time as of then (RFC 3339), for a delivery that was kept.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
}

pub(super) fn run(args: Args, context: &Context) -> Outcome {
    let body = read(&args.body)?;
    let mut lines = args.header.join("\n");
    if let Some(path) = &args.headers {
        lines.push('\n');
        lines.push_str(&text(path)?);
    }
    let keys = args.keys.as_deref().map(text).transpose()?;
    let now = match &args.at {
        None => Clock::start(Millis(0)).now(),
        Some(at) => Millis::parse_rfc3339(at)
            .ok_or_else(|| Failure::Usage(format!("--at {at:?} is no time such as 2026-01-31T12:00:00Z")))?,
    };
    let config = context.config()?;
    let headers = headers(&lines);
    if headers.is_empty() {
        return Err(Failure::Usage("give the delivery's headers, by --header or --headers".to_owned()));
    }
    let verdicts = verify(&Received {
        headers: &headers,
        body: &body,
        address: args.address.as_deref(),
        secret: args.secret.as_deref(),
        public_keys: keys.as_deref(),
        header_prefix: &config.delivery.header_prefix,
        now,
        tolerance: Duration::from_secs(args.tolerance),
    });
    let mut out = String::new();
    for verdict in &verdicts {
        let mark = match verdict.judgement {
            Judgement::Good => "good",
            Judgement::Bad => "BAD",
            Judgement::Unchecked => "unchecked",
        };
        let _ = writeln!(out, "{mark:9}  {}: {}", verdict.about, verdict.sentence);
    }
    print(&out)?;
    let has = |judgement| verdicts.iter().any(|v| v.judgement == judgement);
    let signed = verdicts.iter().any(|v| v.judgement == Judgement::Good && v.about != "webhook-timestamp");
    match (has(Judgement::Bad), signed) {
        (true, _) => Err(Failure::Failed("the delivery is not to be trusted".to_owned())),
        (false, false) => Err(Failure::Failed("no signature was checked".to_owned())),
        (false, true) => Ok(()),
    }
}

fn headers(lines: &str) -> Vec<(String, String)> {
    let pairs = lines.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

fn text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read(path)?).map_err(|_| Failure::Failed(format!("{} is not text", path.display())))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |e: std::io::Error| Failure::Failed(format!("cannot read {}: {e}", path.display()));
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
    }
    Ok(bytes)
}
