//! A stored webhook as connectors see it, and what scripts say of it.
//!
//! Always true: a row keeps a bounded number of lines. Not here: what follows from it (`inbox`, `global`).

use crate::actors::Deps;
use crate::connectors::WebhookRequest;
use crate::store::InboxRow;

/// Lines of a script's log that are kept with a row.
const LOG_LINES_MAX: usize = 100;

/// Adds lines to what is kept with a row.
pub fn keep_log(row: &mut InboxRow, lines: Vec<String>) {
    row.log.extend(lines);
    let surplus = row.log.len().saturating_sub(LOG_LINES_MAX);
    row.log.drain(..surplus);
}

/// A stored request as connectors see it.
pub fn request(deps: &Deps, row: &InboxRow) -> WebhookRequest {
    let base = deps.public_url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()).unwrap_or_default();
    let query = row.uri.split_once('?').map_or("", |(_, query)| query);
    WebhookRequest {
        method: row.method.to_uppercase(),
        url: format!("{base}{}", row.uri),
        query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        headers: row
            .headers
            .iter()
            .map(|(name, value)| (name.to_lowercase(), String::from_utf8_lossy(value).into_owned()))
            .collect(),
        body: crate::outbound::Bytes::from(row.body.clone()),
        received_at: row.received_at,
    }
}
