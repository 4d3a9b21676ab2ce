//! How a sub-command reaches a node, or the store that no node uses, and how answers are shown.
//!
//! Always true: without `--url`, a store in `storage.path` that no node has open is worked on itself, and no key is asked
//! for, since whoever can open it may do everything; a key comes from an argument, a file or a named variable, and is
//! never printed, unless it has just been made. Not here: what is asked for (`keys`, `workspaces`).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::http::{Answer, Server};
use super::{Context, Failure, Outcome, print};
use crate::app::desk::{self, Desk};

/// Arguments of a sub-command with actions on a node or a store.
#[derive(clap::Args)]
pub(super) struct On<W: clap::Subcommand> {
    #[command(flatten)]
    reach: Reach,
    /// On a store that no node has open: the workspace, by name or id [default: the default one]
    #[arg(long, global = true, value_name = "WORKSPACE")]
    workspace: Option<String>,
    #[command(subcommand)]
    pub(super) what: W,
}

/// How to reach what is worked on.
#[derive(clap::Args)]
pub(super) struct Reach {
    /// The node [default: server.listen of the configuration]
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// A file that holds the key; else the environment's variable, or its _FILE form
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Print the node's answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

/// What is called, and how to show what it says.
pub(super) struct Node {
    way: Way,
    json: bool,
}

enum Way {
    Node(Server),
    Store(Box<Desk>),
}

/// One path segment of a call.
pub(super) fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

fn file_text(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path);
    Ok(text.map_err(|e| Failure::Failed(format!("cannot read {}: {e}", path.display())))?.trim().to_owned())
}

impl<W: clap::Subcommand> On<W> {
    /// The store if it is free and no node was named; else the node, opened with the key of `variable`.
    pub(super) fn open(&self, context: &Context, variable: &str) -> Result<Node, Failure> {
        self.reach.open(context, self.workspace.as_deref(), variable)
    }
}

impl Reach {
    /// The store if it is free and no node was named; else the node, opened with the key of `variable`.
    pub(super) fn open(&self, context: &Context, workspace: Option<&str>, variable: &str) -> Result<Node, Failure> {
        let json = self.json;
        if self.url.is_none() {
            let config = context.config()?;
            if desk::is_free(&config) {
                let desk = Desk::open(config, workspace)?;
                return Ok(Node { way: Way::Store(Box::new(desk)), json });
            }
        }
        if workspace.is_some() {
            let message = "--workspace is for a store that no node has open; a node knows the workspace by the key";
            return Err(Failure::Usage(message.to_owned()));
        }
        Ok(Node { way: Way::Node(self.server(context, variable)?), json })
    }

    /// Whether answers are wanted as JSON.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// The node, with the key of `variable` (`TIDEMILL_API_KEY`), unless a file was named.
    pub(super) fn server(&self, context: &Context, variable: &str) -> Result<Server, Failure> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => {
                let listen = context.config()?.server.listen;
                let host = if listen.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { listen.ip() };
                format!("http://{}", SocketAddr::new(host, listen.port()))
            }
        };
        let set = |name: &str| context.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let key = match (&self.key_file, set(variable), set(&format!("{variable}_FILE"))) {
            (Some(file), _, _) => file_text(file)?,
            (None, Some(key), _) => key,
            (None, None, Some(file)) => file_text(Path::new(&file))?,
            (None, None, None) => return Err(Failure::Usage(format!("set {variable}, or say --key-file"))),
        };
        let parsed = url::Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        if parsed.is_none() {
            return Err(Failure::Usage(format!("--url {url:?} is not an http or https address")));
        }
        Server::new(&url, &key)
    }
}

impl Node {
    /// Makes one call and shows its answer: as JSON, or as `text` makes of it.
    pub(super) fn show(
        self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        text: impl Fn(&Value) -> String,
    ) -> Outcome {
        let answer = self.ask(method, path, body)?;
        let shown = if self.json { format!("{answer:#}\n") } else { text(&answer) };
        self.close()?;
        print(&shown)
    }

    /// Every item of a paged list under `name`, shown one per line.
    pub(super) fn show_all(self, path: &str, name: &str, line: impl Fn(&Value) -> String) -> Outcome {
        let mut items = Vec::new();
        let mut next = format!("{path}?limit=250");
        loop {
            let mut answer = self.ask("GET", &next, None)?;
            if let Value::Array(page) = answer[name].take() {
                items.extend(page);
            }
            match answer["next"].as_str() {
                Some(cursor) => next = format!("{path}?limit=250&cursor={}", segment(cursor)),
                None => break,
            }
        }
        let json = self.json;
        self.close()?;
        if json {
            return print(&format!("{:#}\n", Value::Array(items)));
        }
        print(&items.iter().map(|item| line(item) + "\n").collect::<String>())
    }

    /// A call that must succeed.
    pub(super) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        match &self.way {
            Way::Node(server) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(|e| Failure::Failed(format!("cannot start: {e}")))?;
                runtime.block_on(server.ask(method, path, body))
            }
            Way::Store(desk) => {
                let (status, text) = desk.call(method, path, body);
                let answer = Answer { status, text };
                match status {
                    200..=299 => Ok(answer.json()),
                    _ => Err(answer.failure(&format!("{method} {path} on the store"))),
                }
            }
        }
    }

    /// What was changed is on disk when this returns.
    pub(super) fn close(self) -> Outcome {
        match self.way {
            Way::Node(_) => Ok(()),
            Way::Store(desk) => Ok(desk.close()?),
        }
    }
}
