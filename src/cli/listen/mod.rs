//! `tidemill listen`: what a subscription would get, over the stream: printed, or sent on to an address of one's own.
//!
//! ```text
//! node ──GET /one/events/stream──▶ listen ──print, or signed POST──▶ http://localhost:3000
//! ```
//!
//! Always true: a stream that breaks is taken up after the last event that was dealt with; what cannot get better by
//! waiting (a wrong key, an event that is kept no longer) ends it with one sentence. Each event is sent on once: trying
//! again is what a subscription does.

mod forward;
mod sse;

use std::time::Duration;

use serde_json::Value;

use self::forward::Forward;
use self::sse::{Message, Parser};
use super::http::Server;
use super::node::{Reach, segment};
use super::{Context, Failure, Outcome, is_read, print, stop};
use crate::clock::Clock;
use crate::domain::time::Millis;

/// A key with scope `read` opens the stream, one with `write` has it signed.
const VARIABLE: &str = "TIDEMILL_API_KEY";
/// Three heartbeats of a node that says nothing of its own.
const SILENCE_MAX: Duration = Duration::from_secs(46);
/// Before coming back, as long as the node has not said.
const RETRY: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
#[command(after_help = "The key comes from TIDEMILL_API_KEY, TIDEMILL_API_KEY_FILE or --key-file. Printing takes the \
                        scope read, --forward-to takes write, since the node signs for that address.")]
pub(super) struct Args {
    #[command(flatten)]
    reach: Reach,
    /// A topic, "crm/*" or "*"; may be given several times. Without it: all data topics and your own
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only this user's events: id or username
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only this connection's events
    #[arg(long, value_name = "ID")]
    connection: Option<String>,
    /// What bodies carry beside their usual keys: changedFields, previous, raw, topic, eventId, username
    #[arg(long = "include", value_name = "WORD", value_delimiter = ',')]
    include: Vec<String>,
    /// The shape of the bodies
    #[arg(long, value_name = "VERSION", default_value = "2024-03", value_parser = ["2023-12", "2024-03"])]
    api_version: String,
    /// Begin after this event, or with the "oldest" that is kept; else with the next one
    #[arg(long, value_name = "EVENT")]
    after: Option<String>,
    /// Send each event there, with the headers and signatures of a real delivery
    #[arg(long, value_name = "URL")]
    forward_to: Option<String>,
    /// Sign for this address instead, if your receiver knows itself by another one
    #[arg(long, value_name = "URL", requires = "forward_to")]
    sign_as: Option<String>,
    /// The whsec_… secret that your receiver checks v1 with; else one is drawn and printed
    #[arg(long, value_name = "SECRET", env = "TIDEMILL_LISTEN_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// End after so many events; else at Ctrl-C
    #[arg(long, value_name = "N")]
    events: Option<u64>,
}

/// What is listened to, and what is done with it.
struct Listen {
    server: Server,
    /// Path and query, without the position.
    path: String,
    /// Where to begin, as long as nothing has come.
    after: Option<String>,
    forward: Option<Forward>,
    json: bool,
    wanted: Option<u64>,
    clock: Clock,
}

/// How a stream ended.
enum Ended {
    /// All that was wanted has come.
    Done,
    /// Come back after this long.
    Broken(Duration, String),
}

pub(super) fn run(args: Args, context: &Context) -> Outcome {
    let (json, server) = (args.reach.is_json(), args.reach.server(context, VARIABLE)?);
    let path = path(&args);
    let forward = match args.forward_to {
        Some(address) => Some(Forward::new(address, args.secret)?),
        None => None,
    };
    let clock = Clock::start(Millis(0));
    let listen = Listen { server, path, after: args.after, forward, json, wanted: args.events, clock };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Failure::Failed(format!("cannot start: {e}")))?.block_on(async {
        tokio::select! {
            outcome = listen.run() => outcome,
            () = stop::told() => Ok(()),
        }
    })
}

fn path(args: &Args) -> String {
    let mut query = Vec::new();
    let mut add = |name: &str, value: &str| query.push(format!("{name}={}", segment(value)));
    args.topics.iter().for_each(|topic| add("topic", topic));
    args.include.iter().for_each(|word| add("include", word));
    args.user.iter().for_each(|user| add("userId", user));
    args.connection.iter().for_each(|id| add("connectionId", id));
    if let Some(address) = args.sign_as.as_ref().or(args.forward_to.as_ref()) {
        add("sign", address);
    }
    format!("/{}/one/events/stream?{}", args.api_version, query.join("&"))
}

impl Listen {
    async fn run(mut self) -> Outcome {
        if let Some(forward) = &self.forward {
            print(&forward.introduction())?;
        }
        let mut parser = Parser::default();
        let (mut seen, mut failures) = (0, 0_u32);
        loop {
            let before = parser.last_id.clone();
            match self.follow(&mut parser, &mut seen).await? {
                Ended::Done => return Ok(()),
                Ended::Broken(wait, why) => {
                    failures = if parser.last_id == before { failures.saturating_add(1) } else { 0 };
                    let wait = wait.max(wait.saturating_mul(1 << failures.min(4)).min(RETRY_MAX));
                    self.note(&format!("{why}; coming back in {} s", wait.as_secs().max(1)))?;
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// What is not an event goes to stderr, so that stdout stays what it is.
    fn note(&self, text: &str) -> Outcome {
        use std::io::Write as _;
        writeln!(std::io::stderr(), "tidemill: {text}").map_err(Failure::from)
    }

    /// Follows one connection until it ends.
    async fn follow(&mut self, parser: &mut Parser, seen: &mut u64) -> Result<Ended, Failure> {
        parser.begin();
        let mut path = self.path.clone();
        if let (Some(after), None) = (&self.after, &parser.last_id) {
            path.push_str(&format!("&after={}", segment(after)));
        }
        let headers: Vec<_> = parser.last_id.iter().map(|id| ("last-event-id", id.as_str())).collect();
        let wait = |parser: &Parser| parser.retry_ms.map_or(RETRY, Duration::from_millis);
        let mut answer = match self.server.open(&path, &headers, SILENCE_MAX).await {
            Ok(answer) => answer,
            // The first time there may be a wrong address; later there was a node.
            Err(failure) if parser.last_id.is_none() => return Err(failure),
            Err(failure) => return Ok(Ended::Broken(wait(parser), failure.sentence())),
        };
        if answer.status() != 200 {
            let (patience, failure) = answer.refusal().await;
            return match patience {
                Some(patience) => Ok(Ended::Broken(patience, failure.sentence())),
                None => Err(failure),
            };
        }
        loop {
            let piece = match answer.piece().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(Ended::Broken(wait(parser), "the node ended the stream".to_owned())),
                Err(failure) => return Ok(Ended::Broken(wait(parser), failure.sentence())),
            };
            let too_long = |_| Failure::Failed("the node sent an event that is too long".to_owned());
            for message in parser.take(&piece).map_err(too_long)? {
                *seen += 1;
                if !self.deal_with(&message).await? || self.wanted.is_some_and(|wanted| *seen >= wanted) {
                    return Ok(Ended::Done);
                }
            }
        }
    }

    /// Prints a message, or sends it on; false when nobody reads what is printed any more.
    async fn deal_with(&self, message: &Message) -> Result<bool, Failure> {
        let line = |update_type: &str| {
            let time = self.clock.now().rfc3339_seconds();
            let time = time.get(11..19).unwrap_or_default();
            format!("{time} {:<18} {update_type:<9} {}", message.event, message.id)
        };
        let Some(forward) = &self.forward else {
            let body = one_line(&message.data);
            return is_read(&if self.json { format!("{body}\n") } else { format!("{}  {body}\n", line(&kind(&body))) });
        };
        let sent = forward.send(&message.data).await?;
        if self.json {
            return is_read(&format!("{}\n", sent.json(&message.id, &message.event)));
        }
        is_read(&format!("{}  {}\n", line(&kind(&sent.body)), sent.told()))
    }
}

/// A body whose publisher broke it into lines, as one.
fn one_line(body: &str) -> String {
    body.replace('\n', " ")
}

fn kind(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    body["updateType"].as_str().unwrap_or("-").to_owned()
}
