//! An app's journal: what it would push, kept by the app entry by entry, to be read by nodes that nothing can reach.
//!
//! An entry is a mark and the address of a file; the file holds the items of a webhook, which its `handle` understands as
//! if they had been pushed. Always true: the journal belongs to the app, not to an account, so it is read with a token of
//! the integration's own client, which goes nowhere but to the app; a file is read only from hosts that the connector
//! names, without credentials, and its address, which alone opens it, is never shown; what is read is bounded. Not here:
//! when it is read, the mark, and what a lost entry means (`actors::watcher::journal`); how it is declared (`file`).

mod file;

use std::io::Read as _;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use url::Url;

use self::file::WhenFile;
pub(super) use self::file::{JournalFile, compile};
use super::auth_files::OAuth2File;
use super::caller::{CallFailure, Caller};
use super::mapping::Env;
use super::mapping::path::Path;
use super::pick::Picker;
use super::refresh::{ask_token, read_token};
use super::rest::{CallRest, not_json};
use super::session::is_gone;
use super::spec::OwnWebhook;
use super::template::Template;
use super::{CallError, Connector, Credentials, Parameters, Session, fields};
use crate::outbound::Bytes;

/// What stands before the webhook's key where a connection's registration is at the journal, not at an address of ours.
const AT: &str = "journal:";
/// Bytes of one file, as it comes and unpacked.
const FILE_BYTES_MAX: usize = 16 << 20;
/// Items of one file.
const ITEMS_MAX: usize = 100_000;
/// Bytes of an entry's mark.
const OFFSET_BYTES_MAX: usize = 512;

/// A journal, compiled.
#[derive(Debug)]
pub struct Journal {
    /// How often it is asked for what is new.
    pub every: Duration,
    /// What is made at the app for each account, so that the journal tells of it.
    pub(super) account: Option<OwnWebhook>,
    when: WhenFile,
    pub(super) token: OAuth2File,
    first: CallRest,
    next: CallRest,
    latest: Option<CallRest>,
    offset: Path,
    file: Path,
    hosts: Template,
    items: Picker,
    /// For messages.
    items_at: String,
}

/// What the journal has after a mark.
#[derive(Debug)]
pub enum JournalStep {
    Entry(JournalEntry),
    /// Nothing that is newer.
    Nothing,
    /// It no longer knows the mark.
    Expired,
}

/// One entry.
pub struct JournalEntry {
    /// Its mark.
    pub offset: String,
    file: Url,
}

impl std::fmt::Debug for JournalEntry {
    /// The address alone opens the file.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalEntry").field("offset", &self.offset).finish_non_exhaustive()
    }
}

/// Where a connection's registration is at the journal of that global webhook: what takes the place of its address.
pub fn place(webhook_key: &str) -> String {
    format!("{AT}{webhook_key}")
}

/// The key of the global webhook, if a registration is at a journal.
pub fn key_of(place: &str) -> Option<&str> {
    place.strip_prefix(AT)
}

impl Journal {
    /// The integration's parameter that has it read, and the value that does.
    pub fn when(&self) -> (&str, &str) {
        (&self.when.parameter, &self.when.is)
    }

    /// Whether it is read by an integration with these parameters (an object, defaults included).
    pub fn is_on(&self, parameters: &Value) -> bool {
        parameters.get(&self.when.parameter).and_then(Value::as_str) == Some(self.when.is.as_str())
    }

    /// Its calls.
    pub(super) fn calls(&self) -> impl Iterator<Item = &CallRest> {
        [&self.first, &self.next].into_iter().chain(&self.latest)
    }

    /// The entry of an answer. None: there is none.
    fn entry(&self, body: &str, caller: &Caller) -> Result<Option<JournalEntry>, CallError> {
        if body.trim().is_empty() {
            return Ok(None);
        }
        let answer: Value = serde_json::from_str(body).map_err(|error| not_json(body, &error))?;
        let text = |path: &Path| match path.find(&answer) {
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        let (offset, file) = match (text(&self.offset), text(&self.file)) {
            (None, None) => return Ok(None),
            (Some(offset), Some(file)) => (offset, file),
            _ => return Err(CallError::BadAnswer("the entry lacks its mark, or the address of its file".to_owned())),
        };
        if offset.len() > OFFSET_BYTES_MAX {
            return Err(CallError::BadAnswer(format!("the entry's mark is longer than {OFFSET_BYTES_MAX} bytes")));
        }
        Ok(Some(JournalEntry { offset, file: self.address(&file, caller)? }))
    }

    /// Only a stand-in's file may come without TLS, as the stand-in itself does.
    fn address(&self, text: &str, caller: &Caller) -> Result<Url, CallError> {
        let url = Url::parse(text).ok().filter(|url| url.scheme() == "https" || caller.base.scheme() == "http");
        let url = url.ok_or_else(|| CallError::BadAnswer("the entry's file has no https address".to_owned()))?;
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let variables = caller.variables();
        let hosts = self.hosts.render(&Env::of(&variables)).unwrap_or_default();
        match hosts.split_ascii_whitespace().any(|allowed| is_below(&host, &allowed.to_ascii_lowercase())) {
            true => Ok(url),
            false => Err(CallError::AddressForbidden(format!(
                "the entry's file is at {host:?}, which is not among the hosts that its files may be at"
            ))),
        }
    }

    /// The items of a file, in its order.
    fn items(&self, file: &Bytes) -> Result<Vec<Box<RawValue>>, CallError> {
        let unpacked = unpacked(file)?;
        let text = std::str::from_utf8(unpacked.as_deref().unwrap_or(file))
            .map_err(|_| CallError::BadAnswer("the entry's file is not UTF-8 text".to_owned()))?;
        let picked = self.items.pick(text).map_err(|error| not_json(text, &error))?;
        let missing = || CallError::BadAnswer(format!("the entry's file has no list at {}", self.items_at));
        let list = picked.into_iter().next().flatten().ok_or_else(missing)?;
        let items: Vec<Box<RawValue>> = serde_json::from_str(list.get()).map_err(|_| missing())?;
        match items.len() <= ITEMS_MAX {
            true => Ok(items),
            false => Err(CallError::BadAnswer(format!("the entry's file has more than {ITEMS_MAX} items"))),
        }
    }
}

/// Whether a host is the allowed one, or below it.
fn is_below(host: &str, allowed: &str) -> bool {
    match allowed.strip_prefix("*.") {
        Some(parent) => !parent.is_empty() && host.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.')),
        None => host == allowed,
    }
}

/// A file that was packed (RFC 1952), unpacked. None: it was not.
fn unpacked(file: &[u8]) -> Result<Option<Vec<u8>>, CallError> {
    if !file.starts_with(&[0x1f, 0x8b]) {
        return Ok(None);
    }
    let mut plain = Vec::new();
    let most = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX);
    let read = MultiGzDecoder::new(file).take(most + 1).read_to_end(&mut plain);
    read.map_err(|error| CallError::BadAnswer(format!("the entry's file cannot be unpacked: {error}")))?;
    match plain.len() <= FILE_BYTES_MAX {
        true => Ok(Some(plain)),
        false => Err(too_long()),
    }
}

fn too_long() -> CallError {
    CallError::BadAnswer(format!("the entry's file is longer than {FILE_BYTES_MAX} bytes"))
}

impl Connector {
    /// The journals that an integration with these parameters reads in place of being pushed to, with the keys of their
    /// global webhooks. `given` may lack defaults.
    pub fn journals(&self, given: &Parameters) -> Vec<(&str, &Journal)> {
        let mut all = self.parameters.defaults();
        all.extend(given.clone());
        let all = Value::Object(all);
        let read = self.global_webhooks.iter().filter_map(|hook| Some((hook.key.as_str(), hook.journal.as_ref()?)));
        read.filter(|(_, journal)| journal.is_on(&all)).collect()
    }

    /// Whether there is any journal that could be read.
    pub fn has_journals(&self) -> bool {
        self.global_webhooks.iter().any(|hook| hook.journal.is_some())
    }

    /// What is registered at the app for a connection with these parameters (an object): its own webhook, or what a
    /// journal that is read needs; the place says which.
    pub fn registers_at(&self, parameters: &Value) -> Option<(Option<String>, &OwnWebhook)> {
        let of_journals = || {
            self.global_webhooks.iter().find_map(|hook| {
                let journal = hook.journal.as_ref().filter(|journal| journal.is_on(parameters))?;
                Some((Some(place(&hook.key)), journal.account.as_ref()?))
            })
        };
        self.webhook.as_ref().map(|own| (None, own)).or_else(of_journals)
    }

    /// What was registered there, whatever is read now.
    pub(super) fn registered_at(&self, place: &str) -> Option<&OwnWebhook> {
        match key_of(place) {
            None => self.webhook.as_ref(),
            Some(key) => self.global_webhook(key)?.journal.as_ref()?.account.as_ref(),
        }
    }
}

impl Session {
    /// The same as the app itself: with a fresh token of the integration's own client.
    ///
    /// # Errors
    /// The app's failure. A refused client is `Refused`: the account's own credentials have nothing to do with it.
    pub(super) async fn as_app(&self, token: &OAuth2File, at: Option<&Template>) -> Result<Session, CallError> {
        let mut caller = self.caller.opened_by(self.app_token(token).await?);
        if let Some(at) = at {
            let variables = self.caller.variables();
            let url = at.render_url(&Env::of(&variables)).and_then(|address| Url::parse(&address).ok());
            caller.moves_to(url.ok_or_else(|| {
                CallError::NotSupported("the address of the app's own calls is no URL; see its parameters".to_owned())
            })?);
        }
        Ok(Session { caller, fields: fields::Kept::default(), account: None })
    }

    /// A fresh token of the integration's own client.
    async fn app_token(&self, token: &OAuth2File) -> Result<Credentials, CallError> {
        let variables = self.caller.variables();
        let scope = token.scope(&Env::of(&variables));
        let mut form = vec![("grant_type".to_owned(), "client_credentials".to_owned())];
        if !scope.is_empty() {
            form.push(("scope".to_owned(), scope));
        }
        let sent_at = self.caller.clock.now();
        let answer = ask_token(&self.caller, token, form).await.map_err(as_app)?;
        Ok(Credentials::Token(read_token(&answer, sent_at).map_err(as_app)?))
    }

    /// The entry after a mark; the first one that there still is, without a mark.
    ///
    /// # Errors
    /// The app's failure.
    pub async fn journal_step(&self, journal: &Journal, offset: Option<&str>) -> Result<JournalStep, CallError> {
        let Some(offset) = offset else {
            let first = self.journal_entry(journal, &journal.first, None).await?;
            return Ok(first.flatten().map_or(JournalStep::Nothing, JournalStep::Entry));
        };
        if let Some(next) = self.journal_entry(journal, &journal.next, Some(offset)).await? {
            return Ok(next.map_or(JournalStep::Nothing, JournalStep::Entry));
        }
        let Some(latest) = &journal.latest else { return Ok(JournalStep::Expired) };
        let latest = self.journal_entry(journal, latest, None).await?.flatten();
        if latest.is_none_or(|latest| latest.offset == offset) {
            // Nothing is newer than what was read; or there is nothing at all.
            return Ok(JournalStep::Nothing);
        }
        // It may have come between the two questions.
        let next = self.journal_entry(journal, &journal.next, Some(offset)).await?.flatten();
        Ok(next.map_or(JournalStep::Expired, JournalStep::Entry))
    }

    /// What one call shows. The outer None: the app says that there is no such thing.
    async fn journal_entry(
        &self,
        journal: &Journal,
        call: &CallRest,
        offset: Option<&str>,
    ) -> Result<Option<Option<JournalEntry>>, CallError> {
        let mark = json!({ "offset": offset });
        match self.as_app_call(journal, call, &mark).await {
            Ok(body) => journal.entry(&body, &self.caller).map(Some),
            Err(failure) if is_gone(&failure, &call.gone) => Ok(None),
            Err(failure) => Err(as_app(failure.error)),
        }
    }

    /// A call with the app's token: a fresh one, where the one in use has ended or is refused.
    async fn as_app_call(&self, journal: &Journal, call: &CallRest, mark: &Value) -> Result<String, CallFailure> {
        let mut variables = self.caller.variables();
        variables.push(("journal", mark));
        let outgoing = call.request(&Env::of(&variables)).map_err(CallFailure::silent)?;
        if self.credentials().token().is_some() {
            match self.caller.call(outgoing.clone()).await {
                Err(CallFailure { error: CallError::Unauthorized(_), .. }) => {}
                answer => return answer.map(|incoming| incoming.body),
            }
        }
        self.adopt(self.app_token(&journal.token).await.map_err(CallFailure::silent)?);
        self.caller.call(outgoing).await.map(|incoming| incoming.body)
    }

    /// The items of an entry's file.
    ///
    /// # Errors
    /// `PageExpired`: the address is no longer good; `BadAnswer`: the file cannot be read; or another failure.
    pub async fn journal_items(
        &self,
        journal: &Journal,
        entry: &JournalEntry,
    ) -> Result<Vec<Box<RawValue>>, CallError> {
        let answer = self.caller.read_whole(entry.file.clone(), FILE_BYTES_MAX).await?;
        match answer.status {
            200 if answer.cut => Err(too_long()),
            200 => journal.items(&answer.body),
            403 | 404 | 410 => Err(CallError::PageExpired("the entry's file is not there any more".to_owned())),
            408 | 429 | 500..=599 => Err(CallError::unavailable(format!("status {} for the file", answer.status))),
            status => Err(CallError::Refused { status, message: "the entry's file cannot be read".to_owned() }),
        }
    }
}

/// A refused client of the integration's is no matter of the account's credentials: nobody need connect it again.
pub(super) fn as_app(error: CallError) -> CallError {
    match error {
        CallError::Unauthorized(message) => CallError::Refused {
            status: 401,
            message: format!("the app does not accept the integration's own client: {message}"),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests;
