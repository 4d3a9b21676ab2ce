//! How a sub-command reaches a running node: its address, a key, and how answers are shown.
//!
//! Always true: a key comes from an argument, a file or a named variable, and is never printed, unless the node has just
//! made it. Not here: what is asked for (`keys`, `workspaces`).

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::http::Server;
use super::{Context, Failure, Outcome, print};

/// Arguments of every sub-command that calls a node.
#[derive(clap::Args)]
pub(super) struct Reach {
    /// The node
    #[arg(long, global = true, value_name = "URL", default_value = "http://127.0.0.1:7300")]
    url: String,
    /// A file that holds the key; else the environment's variable, or its _FILE form
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Print the node's answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

/// A node to call, and how to show what it says.
pub(super) struct Node {
    server: Server,
    json: bool,
}

/// One path segment of a call.
pub(super) fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

fn file_text(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path);
    Ok(text.map_err(|e| Failure::Failed(format!("cannot read {}: {e}", path.display())))?.trim().to_owned())
}

impl Reach {
    /// The node, opened with the key of `variable` (`TIDEMILL_API_KEY`), unless a file was named.
    pub(super) fn node(&self, context: &Context, variable: &str) -> Result<Node, Failure> {
        let set = |name: &str| context.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let key = match (&self.key_file, set(variable), set(&format!("{variable}_FILE"))) {
            (Some(file), _, _) => file_text(file)?,
            (None, Some(key), _) => key,
            (None, None, Some(file)) => file_text(Path::new(&file))?,
            (None, None, None) => return Err(Failure::Usage(format!("set {variable}, or say --key-file"))),
        };
        let parsed = url::Url::parse(&self.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        if parsed.is_none() {
            return Err(Failure::Usage(format!("--url {:?} is not an http or https address", self.url)));
        }
        Ok(Node { server: Server::new(&self.url, &key)?, json: self.json })
    }
}

impl Node {
    /// Whether answers are wanted as JSON.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// The node itself, for calls of another kind.
    pub(super) fn into_server(self) -> Server {
        self.server
    }

    /// Makes one call and shows its answer: as JSON, or as `text` makes of it.
    pub(super) fn show(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        text: impl Fn(&Value) -> String,
    ) -> Outcome {
        let answer = self.wait(self.server.ask(method, path, body))?;
        print(&if self.json { format!("{answer:#}\n") } else { text(&answer) })
    }

    /// Every item of a paged list under `name`, shown one per line.
    pub(super) fn show_all(&self, path: &str, name: &str, line: impl Fn(&Value) -> String) -> Outcome {
        let mut items = Vec::new();
        let mut next = format!("{path}?limit=250");
        loop {
            let mut answer = self.wait(self.server.ask("GET", &next, None))?;
            if let Value::Array(page) = answer[name].take() {
                items.extend(page);
            }
            match answer["next"].as_str() {
                Some(cursor) => next = format!("{path}?limit=250&cursor={}", segment(cursor)),
                None => break,
            }
        }
        if self.json {
            return print(&format!("{:#}\n", Value::Array(items)));
        }
        print(&items.iter().map(|item| line(item) + "\n").collect::<String>())
    }

    fn wait<T>(&self, call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|e| Failure::Failed(format!("cannot start: {e}")))?.block_on(call)
    }
}
