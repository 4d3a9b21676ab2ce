//! What a subscription may be: the rules beyond types.
//!
//! Always true: a refusal names its field. An address is judged here by its scheme and literal host only: names are judged
//! at every attempt.

use std::collections::BTreeMap;

use super::shape::{MASK, OrderingWord, Settings};
use super::target;
use crate::api::call::{Call, not_found, user_of};
use crate::api::options::Options;
use crate::api::shapes::future;
use crate::destinations::http::is_own_header;
use crate::domain::filter::Filter;
use crate::domain::id::{ConnectionId, WorkspaceNo};
use crate::domain::retry::Schedule;
use crate::domain::subscription::{Halt, HeaderValues, Signing, Subscription, WhileDisabled};
use crate::domain::time::Millis;
use crate::domain::topic::TopicPattern;
use crate::domain::version::ApiVersion;
use crate::domain::workspace::CustomTopic;
use crate::error::{Code, Error, Result};
use crate::store::Rows;

const TOPICS_MAX: usize = 100;
const DESCRIPTION_BYTES_MAX: usize = 1000;
const UPDATE_TYPES_MAX: usize = 20;
const WORD_BYTES_MAX: usize = 64;
const HEADERS_MAX: usize = 20;
const HEADER_BYTES_MAX: usize = 4096;
/// Deliveries per second that a subscription can ask to be limited to.
const RATE_MAX: f64 = 10_000.0;
const TIMEOUT_SECONDS_MAX: u32 = 60;
/// Custom topics of a workspace that are looked at.
const CUSTOM_TOPICS_MAX: usize = 10_000;

/// What the checks look at beside the body.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) workspace: WorkspaceNo,
    pub(super) version: ApiVersion,
    pub(super) now: Millis,
    pub(super) options: Options,
    /// Topics of connector events.
    pub(super) connector_topics: Vec<String>,
}

impl Context {
    pub(super) fn of(call: &Call) -> Result<Self> {
        Ok(Self {
            workspace: call.workspace()?,
            version: call.version,
            now: call.now(),
            options: call.state.options.clone(),
            connector_topics: call.state.connector_topics(),
        })
    }
}

/// Whether deliveries can be sent there, as far as it shows without asking anyone.
pub(super) fn address(call: &Call, text: &str) -> Result<()> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Error::invalid("address: it holds spaces or control characters"));
    }
    call.state.driver.check(text)
}

/// The topics, each once, if each of them can match something.
pub(super) fn topics(rows: &Rows, context: &Context, asked: &[String]) -> Result<Vec<String>> {
    if asked.is_empty() || asked.len() > TOPICS_MAX {
        return Err(Error::invalid(format!("topic: name 1 to {TOPICS_MAX} topics, such as [\"crm/contacts\"]")));
    }
    let custom = rows.objects::<CustomTopic>(context.workspace, None, CUSTOM_TOPICS_MAX)?.items;
    let others: Vec<&str> = custom
        .iter()
        .map(|topic| topic.name.as_str())
        .chain(context.connector_topics.iter().map(String::as_str))
        .collect();
    let mut topics: Vec<String> = Vec::with_capacity(asked.len());
    for text in asked {
        TopicPattern::parse(text, &others).map_err(|e| Error::new(Code::UnknownTopic, format!("topic: {e}")))?;
        if !topics.contains(text) {
            topics.push(text.clone());
        }
    }
    Ok(topics)
}

/// Lays the settings over a subscription. Headers are laid over `headers`.
pub(super) fn apply(
    rows: &Rows,
    context: &Context,
    mut settings: Settings,
    to: &mut Subscription,
    headers: &mut HeaderValues,
) -> Result<()> {
    target::apply(rows, context.workspace, &mut settings, to)?;
    let defaults = &context.options.subscription;
    if let Some(wish) = settings.is_enabled {
        to.is_enabled = wish.unwrap_or(true);
        if to.is_enabled {
            to.halt = Halt::No;
        }
    }
    flow(&settings, to)?;
    narrow(rows, context, settings.user_id, settings.connection_id, to)?;
    if let Some(version) = settings.api_version {
        to.api_version = version.map_or(context.version, Into::into);
    }
    if let Some(text) = settings.description {
        to.description = description(text.unwrap_or_default())?;
    }
    if let Some(types) = settings.update_type {
        to.update_types = update_types(types.unwrap_or_default())?;
    }
    if let Some(include) = settings.include {
        let default = || target::include(to);
        to.include = include.map_or_else(default, |words| words.into_iter().map(Into::into).collect());
        to.include.sort();
        to.include.dedup();
    }
    if let Some(word) = settings.while_disabled {
        to.while_disabled = word.map_or(WhileDisabled::Hold, Into::into);
    }
    if let Some(text) = settings.expires_at {
        to.expires_at = text.map(|text| future("expiresAt", &text, context.now)).transpose()?;
    }
    if let Some(number) = settings.max_in_flight {
        to.max_in_flight = within("maxInFlight", number, defaults.max_in_flight, defaults.max_in_flight_max)?;
    }
    if let Some(text) = settings.filter {
        to.filter = text.filter(|text| !text.is_empty()).map(filter).transpose()?;
    }
    if let Some(number) = settings.timeout_seconds {
        to.timeout_seconds = within("timeoutSeconds", number, defaults.timeout_seconds, TIMEOUT_SECONDS_MAX)?;
    }
    if let Some(waits) = settings.retry_schedule {
        if let Some(waits) = &waits {
            Schedule::new(waits.clone()).map_err(|e| Error::invalid(format!("retrySchedule: {e}")))?;
        }
        to.retry_schedule = waits;
    }
    if let Some(wish) = settings.headers {
        lay_headers(&context.options.header_prefix, wish, headers)?;
        to.header_names = headers.all.iter().map(|(name, _)| name.clone()).collect();
    }
    if let Some(wish) = settings.signing {
        let now = if wish.is_none() { defaults.signing } else { to.signing };
        let pick = |wish: Option<bool>, now: bool| wish.unwrap_or(now);
        let (rsa, hmac, ed25519) = wish.map_or((None, None, None), |w| (w.rsa, w.hmac, w.ed25519));
        to.signing =
            Signing { rsa: pick(rsa, now.rsa), hmac: pick(hmac, now.hmac), ed25519: pick(ed25519, now.ed25519) };
        if !(to.signing.rsa || to.signing.hmac || to.signing.ed25519) {
            return Err(Error::invalid("signing: leave at least one of rsa, hmac and ed25519 on"));
        }
    }
    target::check(rows, to)
}

/// How fast, and in which order.
fn flow(settings: &Settings, to: &mut Subscription) -> Result<()> {
    if let Some(word) = settings.ordering {
        to.ordered = word == Some(OrderingWord::Record);
    }
    if let Some(wish) = settings.coalesce {
        to.coalesce = wish.unwrap_or(false);
    }
    if let Some(rate) = settings.rate_per_second {
        to.rate_milli = rate.map(per_second).transpose()?;
    }
    Ok(())
}

fn filter(text: String) -> Result<String> {
    match Filter::parse(&text) {
        Ok(_) => Ok(text),
        Err(why) => Err(Error::invalid(format!("filter: {why}"))),
    }
}

fn narrow(
    rows: &Rows,
    context: &Context,
    user: Option<Option<String>>,
    connection: Option<Option<String>>,
    to: &mut Subscription,
) -> Result<()> {
    if let Some(wish) = user {
        let found = wish.filter(|text| !text.is_empty()).map(|text| user_of(rows, context.workspace, &text));
        to.user = found.transpose()?.map(|user| user.id);
    }
    if let Some(wish) = connection {
        to.connection =
            wish.filter(|text| !text.is_empty()).map(|text| connection_of(rows, context, &text)).transpose()?;
    }
    if let (Some(user), Some(connection)) = (to.user, to.connection)
        && rows.connection(context.workspace, connection)?.is_some_and(|c| c.user != user)
    {
        return Err(Error::invalid("connectionId: this connection belongs to another user than `userId`"));
    }
    Ok(())
}

fn connection_of(rows: &Rows, context: &Context, text: &str) -> Result<ConnectionId> {
    let missing = || not_found(Code::ConnectionNotFound, text);
    let id: ConnectionId = text.parse().map_err(|_| missing())?;
    rows.connection(context.workspace, id)?.map(|found| found.id).ok_or_else(missing)
}

fn description(text: String) -> Result<String> {
    if text.len() > DESCRIPTION_BYTES_MAX {
        return Err(Error::invalid(format!("description: use at most {DESCRIPTION_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn update_types(types: Vec<String>) -> Result<Vec<String>> {
    let word = |text: &String| {
        (1..=WORD_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    if types.len() > UPDATE_TYPES_MAX || !types.iter().all(word) {
        let message = format!("updateType: list up to {UPDATE_TYPES_MAX} words such as created, updated, deleted");
        return Err(Error::invalid(message));
    }
    Ok(types)
}

fn within(field: &str, number: Option<u32>, default: u32, max: u32) -> Result<u32> {
    match number {
        None => Ok(default),
        Some(number) if (1..=max).contains(&number) => Ok(number),
        Some(_) => Err(Error::invalid(format!("{field}: use a number from 1 to {max}"))),
    }
}

/// Deliveries in a thousand seconds.
pub(super) fn per_second(rate: f64) -> Result<u32> {
    if !(0.001..=RATE_MAX).contains(&rate) {
        return Err(Error::invalid(format!("ratePerSecond: use a number from 0.001 to {RATE_MAX}")));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to ten millions")]
    Ok((rate * 1000.0).round() as u32)
}

fn lay_headers(prefix: &str, wish: Option<BTreeMap<String, Option<String>>>, to: &mut HeaderValues) -> Result<()> {
    let Some(wish) = wish else {
        to.all.clear();
        return Ok(());
    };
    for (name, value) in wish {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || name.len() > 128 || !name.bytes().all(token) {
            let shown: String = name.chars().take(64).collect();
            return Err(Error::invalid(format!("headers: `{shown}` is not a header name")));
        }
        if is_own_header(&name, prefix) {
            return Err(Error::invalid(format!("headers: `{name}` is set by the node itself")));
        }
        let at = to.all.iter().position(|(known, _)| known.eq_ignore_ascii_case(&name));
        match (value, at) {
            // A client that sends back what it was shown does not mean to change it.
            (Some(value), Some(_)) if value == MASK => {}
            (Some(value), at) => {
                let visible = |b: u8| (b' '..=b'~').contains(&b) || b == b'\t';
                if value.len() > HEADER_BYTES_MAX || value.trim() != value || !value.bytes().all(visible) {
                    let message =
                        format!("headers: the value of `{name}` must be visible ASCII, without spaces around");
                    return Err(Error::invalid(message));
                }
                match at {
                    Some(at) => to.all[at] = (name, value),
                    None => to.all.push((name, value)),
                }
            }
            (None, Some(at)) => drop(to.all.remove(at)),
            (None, None) => {}
        }
    }
    let bytes: usize = to.all.iter().map(|(name, value)| name.len() + value.len()).sum();
    if to.all.len() > HEADERS_MAX || bytes > 4 * HEADER_BYTES_MAX {
        let message = format!("headers: at most {HEADERS_MAX}, of {} bytes together", 4 * HEADER_BYTES_MAX);
        return Err(Error::invalid(message));
    }
    Ok(())
}
