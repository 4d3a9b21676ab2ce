//! How many requests one connection may send: a token bucket over the clock, corrected by what the app's headers say. An
//! app that counts some calls besides (HubSpot its searches) has further buckets, by name.
//!
//! Always true: pure but for its lock; nothing waits in here. Not here: who waits (`connectors::session`), and how often
//! an app is looked at (the watcher).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use super::habits::Habits;
use super::spec::Connector;
use crate::domain::time::Millis;

/// The longest wait that an app can impose through its headers.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// A connector's declared budget.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetSpec {
    /// So many requests …
    pub requests: u32,
    /// … in each stretch of this length.
    pub per: Duration,
    pub headers: BudgetHeaders,
}

/// What an app calls its rate headers; names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetHeaders {
    /// `used/limit` in one header.
    pub usage: Option<UsageHeader>,
    /// How many requests are left.
    pub remaining: Option<String>,
    /// When there will be more.
    pub reset: Option<String>,
    #[serde(default, rename = "resetIn")]
    pub reset_in: ResetIn,
}

/// A header such as `api-usage=896/15000` (Salesforce's `Sforce-Limit-Info`) or `32/40` (Shopify's
/// `X-Shopify-Shop-Api-Call-Limit`): what is used, and of how much.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UsageHeader {
    pub header: String,
    /// The name before `=`, where the header tells several things.
    pub part: Option<String>,
    /// How long to be silent when all is used; the budget's own stretch where it is not said.
    #[serde(default, deserialize_with = "wait")]
    #[schemars(with = "Option<super::files::Span>")]
    pub wait: Option<Duration>,
}

fn wait<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    super::files::Span::deserialize(deserializer).map(|span| Some(span.0))
}

/// What is used, and of how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub used: u64,
    pub limit: u64,
}

impl UsageHeader {
    /// Reads the header's value.
    fn read(&self, value: &str) -> Option<Usage> {
        let text = match &self.part {
            None => value,
            Some(part) => {
                value.split([',', ';', ' ']).find_map(|item| item.trim().strip_prefix(part)?.strip_prefix('='))?
            }
        };
        let (used, limit) = text.trim().split_once('/')?;
        let limit: String = limit.chars().take_while(char::is_ascii_digit).collect();
        Some(Usage { used: used.trim().parse().ok()?, limit: limit.parse().ok()? })
    }
}

/// What the reset header counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ResetIn {
    /// Seconds from now, perhaps with a fraction.
    #[default]
    Seconds,
    Milliseconds,
    /// Unix seconds.
    EpochSeconds,
}

/// One connection's requests.
#[derive(Debug)]
pub struct Budget {
    /// What was learnt of the account's app beside its limits.
    pub habits: Habits,
    spec: Option<BudgetSpec>,
    state: Mutex<State>,
    named: Vec<(String, Budget)>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// Requests that may go now, in thousandths.
    tokens_milli: u64,
    filled_at: Millis,
    /// The app asked for silence until then.
    blocked_until: Millis,
    /// What the app last said of its limit, where it does.
    usage: Option<Usage>,
}

impl Budget {
    /// The full budgets of one connection to an app.
    pub fn of(connector: &Connector, now: Millis) -> Self {
        let named = connector.budgets.iter().map(|(name, spec)| (name.clone(), Self::new(Some(spec.clone()), now)));
        Self { named: named.collect(), ..Self::new(connector.budget.clone(), now) }
    }
    /// For an app that is not asked in earnest.
    pub fn unlimited(now: Millis) -> Self {
        Self::new(None, now)
    }
    /// A full budget. None: only the app's own answers slow it down.
    fn new(spec: Option<BudgetSpec>, now: Millis) -> Self {
        let full = spec.as_ref().map_or(0, |s| u64::from(s.requests) * 1000);
        let state = Mutex::new(State { tokens_milli: full, filled_at: now, blocked_until: Millis(0), usage: None });
        Self { habits: Habits::default(), spec, state, named: Vec::new() }
    }
    /// The budgets that a call spends: the one of that name first, which is the smaller, and the connection's.
    pub fn spent_by<'b>(&'b self, name: Option<&str>) -> impl Iterator<Item = &'b Self> + use<'b> {
        let named = name.and_then(|name| self.named.iter().find(|(known, _)| known == name));
        named.map(|(_, budget)| budget).into_iter().chain([self])
    }
    /// Takes one request, or says how long to wait for it.
    pub fn take(&self, now: Millis) -> Result<(), Duration> {
        let mut state = self.lock();
        if state.blocked_until > now {
            return Err(state.blocked_until.since(now));
        }
        let Some(spec) = &self.spec else { return Ok(()) };
        let full = u64::from(spec.requests) * 1000;
        let per_ms = u64::try_from(spec.per.as_millis()).unwrap_or(u64::MAX).max(1);
        let elapsed = now.0.saturating_sub(state.filled_at.0).min(per_ms);
        let fresh = elapsed * full / per_ms;
        if fresh > 0 {
            state.tokens_milli = (state.tokens_milli + fresh).min(full);
            state.filled_at = now;
        }
        if state.tokens_milli >= 1000 {
            state.tokens_milli -= 1000;
            return Ok(());
        }
        let missing = 1000 - state.tokens_milli;
        Err(Duration::from_millis((missing * per_ms).div_ceil(full.max(1)).max(1)))
    }
    /// Takes note of what an answer's headers say.
    pub fn heed<'h>(&self, header: impl Fn(&str) -> Option<&'h str>, now: Millis) {
        let Some(spec) = &self.spec else { return };
        if let Some(told) = &spec.headers.usage
            && let Some(usage) = header(&told.header).and_then(|value| told.read(value))
        {
            let mut state = self.lock();
            state.usage = Some(usage);
            if usage.used >= usage.limit {
                let wait = told.wait.unwrap_or(spec.per).min(WAIT_MAX);
                state.blocked_until = state.blocked_until.max(now.after(wait));
            }
        }
        let read =
            |name: &Option<String>| name.as_deref().and_then(&header).and_then(|text| text.trim().parse::<f64>().ok());
        let (Some(remaining), reset) = (read(&spec.headers.remaining), read(&spec.headers.reset)) else { return };
        let mut state = self.lock();
        // Another process may share the account: believe the smaller of the two counts.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from float saturates")]
        let remaining_milli = (remaining.max(0.0) * 1000.0) as u64;
        state.tokens_milli = state.tokens_milli.min(remaining_milli);
        if remaining < 1.0 {
            let wait = reset.and_then(|reset| reset_wait(spec.headers.reset_in, reset, now)).unwrap_or(spec.per);
            state.blocked_until = state.blocked_until.max(now.after(wait.min(WAIT_MAX)));
        }
    }
    /// What the app last said of its limit, in words for people.
    pub fn told(&self) -> Option<String> {
        let usage = self.lock().usage?;
        Some(format!("{} of {} requests are used", usage.used, usage.limit))
    }
    /// The app said 429 (or the like): silence for so long.
    pub fn block(&self, wait: Duration, now: Millis) {
        let mut state = self.lock();
        state.blocked_until = state.blocked_until.max(now.after(wait.min(WAIT_MAX)));
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is three plain numbers, sound whatever a panicked holder did.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reset_wait(unit: ResetIn, reset: f64, now: Millis) -> Option<Duration> {
    match unit {
        ResetIn::Seconds => Duration::try_from_secs_f64(reset).ok(),
        ResetIn::Milliseconds => Duration::try_from_secs_f64(reset / 1000.0).ok(),
        ResetIn::EpochSeconds => {
            let at = Duration::try_from_secs_f64(reset).ok()?;
            Some(at.saturating_sub(Duration::from_millis(now.0)))
        }
    }
}

/// `Retry-After` as seconds (also with a fraction, as Shopify and Zoho write it) or as an HTTP date.
pub fn retry_after(text: &str, now: Millis) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        if seconds.is_nan() {
            return None;
        }
        return Duration::try_from_secs_f64(seconds.max(0.0)).ok().map(|wait| wait.min(WAIT_MAX));
    }
    let date = text.strip_suffix("GMT").map_or_else(|| text.to_owned(), |t| format!("{t}+0000"));
    let stamp = jiff::fmt::rfc2822::parse(&date).ok()?.timestamp();
    let at = u64::try_from(stamp.as_millisecond()).ok()?;
    Some(Millis(at).since(now).min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(requests: u32, per_s: u64) -> Budget {
        let headers =
            BudgetHeaders { remaining: Some("left".into()), reset: Some("reset".into()), ..Default::default() };
        Budget::new(Some(BudgetSpec { requests, per: Duration::from_secs(per_s), headers }), Millis(0))
    }

    #[test]
    fn a_budget_refills_evenly() {
        let budget = budget(10, 10);
        for _ in 0..10 {
            assert_eq!(budget.take(Millis(0)), Ok(()));
        }
        assert_eq!(budget.take(Millis(0)), Err(Duration::from_secs(1)));
        assert_eq!(budget.take(Millis(400)), Err(Duration::from_millis(600)));
        assert_eq!(budget.take(Millis(1000)), Ok(()));
        assert!(budget.take(Millis(1000)).is_err());
        for _ in 0..10 {
            assert_eq!(budget.take(Millis(60_000)), Ok(()), "a long pause fills it, no more");
        }
        assert!(budget.take(Millis(60_000)).is_err());
    }

    #[test]
    fn the_apps_own_count_is_believed_when_it_is_smaller() {
        let budget = budget(100, 10);
        let header = |name: &str| if name == "left" { Some("0") } else { Some("2.5") };
        budget.heed(header, Millis(0));
        assert_eq!(budget.take(Millis(0)), Err(Duration::from_millis(2_500)));
        assert!(budget.take(Millis(2_600)).is_ok());
    }

    #[test]
    fn a_call_that_counts_twice_spends_its_own_budget_first_and_the_connections_too() {
        let search = ("search".to_owned(), budget(2, 1));
        let both = Budget { named: vec![search], ..budget(3, 10) };
        let take = |name: Option<&str>| both.spent_by(name).try_for_each(|one| one.take(Millis(0)));
        assert_eq!(take(Some("search")), Ok(()));
        assert_eq!(take(Some("search")), Ok(()));
        assert_eq!(take(Some("search")), Err(Duration::from_millis(500)), "its own is used up");
        assert_eq!(take(None), Ok(()), "the others go on");
        assert_eq!(take(None), Err(Duration::from_millis(3_334)), "all of them count for the connection");
        assert_eq!(both.spent_by(Some("unknown")).count(), 1);
    }

    #[test]
    fn used_of_a_limit_is_read_in_both_forms_and_silences_when_all_is_used() {
        let read = |part: Option<&str>, value: &str| {
            let header = UsageHeader { header: "x".into(), part: part.map(str::to_owned), wait: None };
            header.read(value).map(|usage| (usage.used, usage.limit))
        };
        assert_eq!(read(Some("api-usage"), "api-usage=896/15000"), Some((896, 15000)));
        let both = "api-usage=25/5000; per-app-api-usage=17/250(appName=sample)";
        assert_eq!(read(Some("api-usage"), both), Some((25, 5000)));
        assert_eq!(read(Some("per-app-api-usage"), both), Some((17, 250)));
        assert_eq!(read(None, "32/40"), Some((32, 40)));
        for bad in ["", "896", "a/b", "other=1/2"] {
            assert_eq!(read(Some("api-usage"), bad), None, "{bad}");
        }
        let usage = UsageHeader { header: "used".into(), part: None, wait: Some(Duration::from_secs(900)) };
        let headers = BudgetHeaders { usage: Some(usage), ..Default::default() };
        let spec = BudgetSpec { requests: 10, per: Duration::from_secs(1), headers };
        let budget = Budget::new(Some(spec), Millis(0));
        budget.heed(|_| Some("39/40"), Millis(0));
        assert!(budget.take(Millis(0)).is_ok());
        budget.heed(|_| Some("40/40"), Millis(0));
        assert_eq!(budget.take(Millis(0)), Err(Duration::from_secs(900)));
        assert_eq!(budget.told().as_deref(), Some("40 of 40 requests are used"));
        assert!(budget.take(Millis(900_001)).is_ok(), "after the silence one request tries again");
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        let now = Millis(1_769_860_800_000);
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(" 2.5 ", now), Some(Duration::from_millis(2_500)));
        assert_eq!(retry_after("Sat, 31 Jan 2026 12:01:00 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("Sat, 31 Jan 2026 11:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("1e300", now), None);
        assert_eq!(retry_after("NaN", now), None);
    }
}
