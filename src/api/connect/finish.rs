//! How a visit ends: at the address that the link named, by a message to the page that opened this one, or with a page.
//!
//! Always true: a browser goes only to an address, and a message only to an origin, of the integration's own list, read
//! at that very moment; each end is counted and logged, with its reason and without a secret. Not here: reasons
//! (`reason`).

use serde_json::json;
use url::Url;

use super::choice::returns;
use super::html::{escape, onward, page, redirect, telling};
use super::reason::Reason;
use super::visits::Visit;
use crate::api::call::Call;
use crate::api::connections;
use crate::api::reply::Reply;
use crate::domain::id::{ConnectionId, IntegrationId};
use crate::domain::returns::ReturnUrls;
use crate::error::Result;
use crate::store::Rows;

/// What came of it.
pub type Outcome = std::result::Result<ConnectionId, Reason>;

/// Which app it was about.
pub struct About {
    pub integration: Option<IntegrationId>,
    /// The connector's key.
    pub connector: String,
    /// For the person.
    pub name: String,
    /// A form was sent: see [`onward`].
    pub by_form: bool,
    /// `/connect` with the path prefix.
    pub path: String,
}

/// Counts and logs an end.
pub fn record(call: &Call, connector: &str, outcome: Outcome, detail: &str) {
    let word = outcome.map_or_else(Reason::slug, |_| "connected");
    call.state.metrics.connects.with([connector, word]).inc();
    let connection = outcome.ok().map(|id| id.to_string());
    tracing::info!(connector, outcome = word, connection, detail, "an account was asked for at the connect page");
}

/// A failure of which it is not known whose it is.
pub fn stranger(call: &Call, reason: Reason) -> Result<Reply> {
    record(call, "unknown", Err(reason), "");
    page(reason.status(), "Not connected", &format!("<h1>That did not work</h1><p>{}</p>", escape(reason.text())))
}

/// What the person must still do in the app, a line per paragraph; indented lines are to be pasted as they are.
fn steps(instructions: &str) -> String {
    let mut shown = "<h2>To be told of changes at once</h2>".to_owned();
    let lines: Vec<&str> = instructions.lines().filter(|line| !line.trim().is_empty()).collect();
    for part in lines.chunk_by(|one, next| one.starts_with(' ') && next.starts_with(' ')) {
        let text = escape(&part.join("\n"));
        shown.push_str(&if text.starts_with(' ') { format!("<pre>{text}</pre>") } else { format!("<p>{text}</p>") });
    }
    shown
}

/// The end of a visit's walk through one app.
pub async fn finish(call: &Call, visit: &Visit, about: &About, outcome: Outcome, detail: &str) -> Result<Reply> {
    record(call, &about.connector, outcome, detail);
    let (wanted, seen) = (about.integration, visit.clone());
    let list = call
        .read(move |rows: &Rows| wanted.map_or(Ok(None), |integration| returns(rows, &seen, integration)))
        .await?
        .unwrap_or(ReturnUrls { integration: IntegrationId([0; 12]), workspace: visit.workspace, urls: Vec::new() });
    let url = visit.wish.return_url.as_deref().and_then(|text| Url::parse(text).ok()).filter(|url| list.allows(url));
    if let Some(mut url) = url {
        let (name, value) = match outcome {
            Ok(id) => ("connectionId", id.to_string()),
            Err(reason) => ("error", reason.slug().to_owned()),
        };
        url.query_pairs_mut().append_pair(name, &value);
        let host = url.host_str().unwrap_or_default().to_owned();
        return if about.by_form { onward(url.as_str(), &host) } else { redirect(url.as_str()) };
    }
    let name = escape(&about.name);
    let again = escape(&about.path);
    let to_do = match outcome {
        Ok(id) => connections::to_paste(call, visit.workspace, id).await?.map(|to_do| steps(&to_do.instructions)),
        Err(_) => None,
    };
    let (status, title, body) = match outcome {
        Ok(_) => (
            200,
            "Connected",
            format!(
                "<h1>{name} is connected</h1>{}<p>You can close this page now.</p><p><a href=\"{again}\">Connect another account</a></p>",
                to_do.unwrap_or_default()
            ),
        ),
        Err(reason) => (
            reason.status(),
            "Not connected",
            format!(
                "<h1>{name} is not connected</h1><p>{}</p><p><a class=\"button\" href=\"{again}\">Try again</a></p>",
                escape(reason.text())
            ),
        ),
    };
    match visit.wish.origin.as_deref().filter(|origin| list.allows_origin(origin)) {
        Some(origin) => {
            let message = match outcome {
                Ok(id) => json!({"type": "tidemill/connected", "connectionId": id.to_string()}),
                Err(reason) => json!({"type": "tidemill/not-connected", "error": reason.slug()}),
            };
            telling(status, title, &body, &message.to_string(), origin)
        }
        None => page(status, title, &body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_pasted_keeps_its_lines() {
        let shown = steps("First, go there:\n\n    if (a < b) {\n      c();\n    }\nThen here.\nDone.\n");
        let expected =
            "<p>First, go there:</p><pre>    if (a &lt; b) {\n      c();\n    }</pre><p>Then here.</p><p>Done.</p>";
        assert!(shown.ends_with(expected), "{shown}");
    }
}
