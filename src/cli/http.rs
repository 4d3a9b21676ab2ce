//! Small JSON calls to a node and to the sandbox.
//!
//! Always true: a call ends within ten seconds and reads at most 16 MiB; one that is read piece by piece ends when
//! nothing comes for too long. These are addresses the user gave, so the
//! guarded client of the node is not needed; proxies of the environment are ignored all the same.

use std::time::Duration;

use serde_json::Value;

use super::Failure;

const TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_MAX: usize = 16 * 1024 * 1024;
/// Of a refusal, enough for its sentence.
const REFUSAL_MAX: usize = 64 * 1024;

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

    /// What it says, as the end of a call.
    pub(super) fn failure(&self, what: &str) -> Failure {
        let json = self.json();
        let said = json["message"].as_str().or(json["error"]["message"].as_str()).unwrap_or(&self.text);
        let said: String = said.chars().take(300).collect();
        Failure::Failed(format!("{what} answered {}: {said}", self.status))
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
        Err(answer.failure(&format!("{method} {}{path}", self.base)))
    }
}

impl Server {
    /// A GET whose answer goes on for as long as something comes at least every `silence`.
    pub(super) async fn open(&self, path: &str, headers: &[(&str, &str)], silence: Duration) -> Result<Open, Failure> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(TIMEOUT)
            .read_timeout(silence)
            .build()
            .map_err(|e| Failure::Failed(format!("cannot make an HTTP client: {e}")))?;
        // The query may be long, and names nothing that helps.
        let what = format!("GET {}{}", self.base, path.split('?').next().unwrap_or(path));
        let mut request = client.get(format!("{}{path}", self.base)).bearer_auth(&self.key);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.map_err(|e| Failure::Failed(format!("{what}: {}", cause(&e))))?;
        Ok(Open { answer, what })
    }
}

/// An answer that is read piece by piece.
pub(super) struct Open {
    answer: reqwest::Response,
    what: String,
}

impl Open {
    pub(super) fn status(&self) -> u16 {
        self.answer.status().as_u16()
    }

    /// The next piece; None at the end.
    pub(super) async fn piece(&mut self) -> Result<Option<bytes::Bytes>, Failure> {
        let piece = self.answer.chunk().await;
        piece.map_err(|e| Failure::Failed(format!("{}: {}", self.what, cause(&e))))
    }

    /// What a refusal says, and how long to wait if waiting helps.
    pub(super) async fn refusal(mut self) -> (Option<Duration>, Failure) {
        let status = self.status();
        let told = self.answer.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
        let waiting_helps = matches!(status, 429 | 500..=599);
        let patience = waiting_helps.then(|| Duration::from_secs(told.unwrap_or(5)));
        let mut bytes = Vec::new();
        while let Ok(Some(piece)) = self.piece().await {
            bytes.extend_from_slice(&piece);
            if bytes.len() > REFUSAL_MAX {
                break;
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let answer = Answer { status, text };
        (patience, answer.failure(&self.what))
    }
}

/// The innermost cause: "connection refused" rather than "error sending request".
pub(super) fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
