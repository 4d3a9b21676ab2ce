//! What was found, as sentences with stable codes.
//!
//! Always true: a code never changes its meaning; sentences may. The most telling finding stands first. Not here: looking
//! things up (`find`), what became of an event in a subscription (`judge`).

use super::find::is_wanted;
use super::shape::{Finding, Judged, WebhookSeen};
use crate::domain::connection::{CollectionState, Connection, ConnectionStatus, Pull, Registration, WebhookState};
use crate::domain::event::{Event, Source};
use crate::domain::id::Seq;
use crate::domain::snapshot::SnapshotRow;
use crate::domain::time::Millis;

/// Everything that was looked up.
pub(super) struct Evidence<'a> {
    pub(super) connection: &'a Connection,
    /// How its own webhook is doing at the app.
    pub(super) registration: &'a Registration,
    pub(super) states: &'a [(String, CollectionState)],
    pub(super) id: [u8; 16],
    pub(super) snapshot: Option<&'a SnapshotRow>,
    /// Newest first.
    pub(super) events: &'a [(Seq, Event)],
    pub(super) pulls: &'a [Pull],
    pub(super) inbox: &'a [WebhookSeen],
    pub(super) subscriptions: &'a [Judged],
}

fn finding(code: &'static str, message: impl Into<String>) -> Finding {
    Finding { code, message: message.into() }
}

/// What was found, the most telling first.
pub(super) fn findings(of: &Evidence<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(of.connection());
    found.extend(of.registration());
    for (key, state) in of.states {
        of.collection(key, state, &mut found);
    }
    of.webhooks(&mut found);
    found.extend(of.record());
    found.extend(of.sent());
    found.push(of.looked());
    found
}

/// What stands between the app and the log, so that a later change than the last event may be missing.
const IN_THE_WAY: &[&str] = &[
    "connection-paused",
    "connection-auth-failed",
    "connection-error",
    "collection-left-out",
    "delete-held",
    "looks-fail",
    "webhook-parked",
    "webhook-waiting",
];

/// The same for whoever reads one sentence only: what stands in the way, then the last event and what became of it.
pub(super) fn summary(of: &Evidence<'_>, findings: &[Finding]) -> String {
    let tells = |finding: &&Finding| match of.events.is_empty() {
        true => finding.code != "no-subscription",
        false => IN_THE_WAY.contains(&finding.code) || matches!(finding.code, "event" | "sent" | "no-subscription"),
    };
    let most = if of.events.is_empty() { 2 } else { 3 };
    let told: Vec<&str> = findings.iter().filter(tells).take(most).map(|f| f.message.as_str()).collect();
    let mut text = told.join("; ");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text + "."
}

impl Evidence<'_> {
    fn connection(&self) -> Option<Finding> {
        let at = |since: &Millis| since.rfc3339_seconds();
        match &self.connection.status {
            ConnectionStatus::Active => None,
            ConnectionStatus::Paused => Some(finding(
                "connection-paused",
                "the connection is paused: nothing is looked at, and webhooks are kept for later",
            )),
            ConnectionStatus::AuthFailed { since, message } => Some(finding(
                "connection-auth-failed",
                format!("the app has refused the credentials since {} ({message}): connect again", at(since)),
            )),
            ConnectionStatus::Error { since, message } => Some(finding(
                "connection-error",
                format!("the connection cannot work as it is set up, since {} ({message})", at(since)),
            )),
        }
    }

    fn registration(&self) -> Option<Finding> {
        let Registration { failures, error, .. } = self.registration;
        let what = match self.connection.webhook {
            WebhookState::Registered { .. } => "renew or find",
            WebhookState::None { .. } | WebhookState::Wanted { .. } => "make",
        };
        (*failures > 0).then(|| {
            let message = format!(
                "the last {failures} tries to {what} the connection's webhook at the app failed: {error}; polls go on"
            );
            finding("webhook-registration-fails", message)
        })
    }

    fn collection(&self, key: &str, state: &CollectionState, found: &mut Vec<Finding>) {
        if !is_wanted(self.connection, key) {
            found.push(finding("collection-left-out", format!("the connection leaves `{key}` out (`collections`)")));
            return;
        }
        if state.held.binary_search(&self.id).is_ok() {
            let message = format!(
                "a full scan of `{key}` no longer finds the record, but so many are gone that the deletion waits for the \
                 next complete scan, or for a sync with `approveDeletes`"
            );
            found.push(finding("delete-held", message));
        }
        if state.failures > 0 {
            let message = format!("the last {} looks at `{key}` failed: {}", state.failures, state.error);
            found.push(finding("looks-fail", message));
        }
        if state.baseline_at.is_none() {
            let message =
                format!("the first sync of `{key}` is not complete, so what was there before makes no events");
            found.push(finding("first-sync-incomplete", message));
        }
    }

    fn webhooks(&self, found: &mut Vec<Finding>) {
        let mention = |state: &str| self.inbox.iter().find(|one| one.state == state && one.mentions_record);
        if let Some(parked) = mention("parked") {
            let why = parked.note.as_deref().unwrap_or("no reason is known");
            let message = format!(
                "a webhook of {} that mentions the record could not be understood ({why}); `reprocess` tries it again",
                parked.received_at
            );
            found.push(finding("webhook-parked", message));
        }
        if let Some(waiting) = mention("waiting") {
            let message = format!("a webhook of {} that mentions the record waits", waiting.received_at);
            found.push(finding("webhook-waiting", message));
        }
    }

    fn record(&self) -> Option<Finding> {
        if let Some((_, event)) = self.events.first() {
            return Some(self.event(event));
        }
        let Some(row) = self.snapshot else {
            let message = "no look and no webhook has told of such a record: the app does not show it to this account, \
                           it has another id there, or it was not looked for yet";
            return Some(finding("record-unknown", message));
        };
        Some(match row.last_event {
            Some(_) => finding(
                "events-gone",
                format!(
                    "its last event is past its retention; it was last seen to change {}",
                    row.updated_at.rfc3339_seconds()
                ),
            ),
            None if !row.is_live() => finding("record-deleted", "it was deleted without an event"),
            None => {
                let message = format!(
                    "it has made no event: it was there when the first sync took stock ({}), and has not changed since in \
                     anything that a subscriber can see",
                    row.created_at.rfc3339_seconds()
                );
                finding("unchanged", message)
            }
        })
    }

    fn event(&self, event: &Event) -> Finding {
        let how = match event.source {
            Source::Webhook(_) => "by a webhook",
            Source::Poll(_) => "by a look at what changed",
            Source::Scan(_) => "by a full scan",
            Source::Published | Source::Engine => "here",
        };
        let what = event.update_type.as_deref().unwrap_or("event");
        let mut message =
            format!("its last event is `{what}` of {}, noticed {how}", event.happened_at.rfc3339_seconds());
        if let Some(row) = self.snapshot.filter(|row| row.version.observed_at > event.accepted_at) {
            let seen = row.version.observed_at.rfc3339_seconds();
            message.push_str(&format!("; it was seen again at {seen} without a change that makes an event"));
        }
        finding("event", message)
    }

    fn sent(&self) -> Option<Finding> {
        if self.subscriptions.is_empty() {
            return Some(finding("no-subscription", "the workspace has no subscription that could get anything"));
        }
        if self.events.is_empty() {
            return None;
        }
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for judged in self.subscriptions {
            match counts.iter_mut().find(|(verdict, _)| *verdict == judged.verdict) {
                Some((_, count)) => *count += 1,
                None => counts.push((judged.verdict, 1)),
            }
        }
        counts.sort_by_key(|(verdict, _)| *verdict != "delivered");
        let told: Vec<String> = counts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
        Some(finding("sent", format!("of {} subscriptions: {}", self.subscriptions.len(), told.join(", "))))
    }

    fn looked(&self) -> Finding {
        let Some(last) = self.pulls.first() else {
            return finding("never-looked", "the app was not asked for such records within the kept looks");
        };
        let ended =
            last.ended_at.map_or_else(|| "is running".to_owned(), |at| format!("ended {}", at.rfc3339_seconds()));
        let message = format!(
            "the last look ({}) {ended}: {}, {} records seen, {} created, {} updated, {} deleted",
            last.mode, last.outcome, last.records, last.created, last.updated, last.deleted
        );
        finding("looked", message)
    }
}
