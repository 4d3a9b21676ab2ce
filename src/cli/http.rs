//! Small JSON calls to a node and to the sandbox.
//!
//! Always true: a call ends within ten seconds and reads at most 16 MiB. These are addresses the user gave, so the
//! guarded client of the node is not needed; proxies of the environment are ignored all the same.

use std::time::Duration;

use serde_json::Value;

use super::Failure;

const TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// One server, and the key that is sent to it.
#[derive(Clone)]
pub(super) struct Server {
    client: reqwest::Client,
    base: String,
    key: String,
}

/// A status and its body.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
}

impl Answer {
    /// The body as JSON; null if it is not.
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

impl Server {
    /// A server at `base`, e.g. `http://127.0.0.1:7300`.
    pub(super) fn new(base: &str, key: &str) -> Result<Self, Failure> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()
            .map_err(|e| Failure::Failed(format!("cannot make an HTTP client: {e}")))?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), key: key.to_owned() })
    }
    /// Its address without a slash at the end.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// One call, whatever its status.
    pub(super) async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let failed = |e: reqwest::Error| Failure::Failed(format!("{method} {}{path}: {}", self.base, cause(&e)));
        let method_of = method.parse().map_err(|_| Failure::Usage(format!("{method} is not a method")))?;
        let mut request = self.client.request(method_of, format!("{}{path}", self.base)).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let mut answer = request.send().await.map_err(failed)?;
        let status = answer.status().as_u16();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > ANSWER_MAX {
                return Err(Failure::Failed(format!("{method} {}{path}: the answer is too long", self.base)));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Answer { status, text: String::from_utf8_lossy(&bytes).into_owned() })
    }

    /// A call that must succeed.
    pub(super) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let answer = self.call(method, path, body).await?;
        if (200..300).contains(&answer.status) {
            return Ok(answer.json());
        }
        let json = answer.json();
        let said = json["message"].as_str().or(json["error"]["message"].as_str()).unwrap_or(&answer.text);
        let said: String = said.chars().take(300).collect();
        Err(Failure::Failed(format!("{method} {}{path} answered {}: {said}", self.base, answer.status)))
    }
}

/// The innermost cause: "connection refused" rather than "error sending request".
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
