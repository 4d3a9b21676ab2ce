//! What the node tells its operator: the one table of metrics, the log's format, the names of spans.
//!
//! Always true: each metric stands once, in [`TABLE`]; names end in base units; no metric has more than
//! [`SERIES_MAX`] series, whatever its labels are fed with; no log line holds a secret (`domain::secret::Secret` prints
//! as `***`). Not here: who counts (each component gets a [`Metrics`] through its constructor), `/metrics` (`api`).

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::IsTerminal as _;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus::{Counter, Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry, TextEncoder};
use serde::Deserialize;

/// `[log]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    pub format: LogFormat,
    /// A `tracing_subscriber` filter.
    pub filter: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Names of spans, so that a log can be searched by them. `request`: a call of our API; `webhook`: one inbox row being
/// understood; `pull`: one look at an app; `attempt`: one try of a delivery; `script`: one call of a connector's
/// JavaScript.
pub mod span {
    pub const REQUEST: &str = "request";
    pub const WEBHOOK: &str = "webhook";
    pub const PULL: &str = "pull";
    pub const ATTEMPT: &str = "attempt";
    pub const SCRIPT: &str = "script";
}

/// Starts logging to stderr, and logs panics as errors. Call once, from `main`'s side.
///
/// # Errors
/// When the filter cannot be read, or logging was started before.
pub fn start_log(options: &Options) -> Result<(), String> {
    let filter = tracing_subscriber::EnvFilter::try_new(&options.filter).map_err(|e| format!("log.filter: {e}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match options.format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_ansi(false).try_init(),
    };
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "a thread panicked: {}", panic.payload_as_str().unwrap_or("no message"));
    }));
    started.map_err(|e| e.to_string())
}

/// How many label combinations one metric shows; any further one is counted under `other`.
pub const SERIES_MAX: usize = 500;

/// A metric with `N` labels and a bounded number of series.
pub struct Labelled<M, const N: usize> {
    make: Box<dyn Fn([&str; N]) -> M + Send + Sync>,
    known: RwLock<HashMap<u64, M>>,
}

impl<M: Clone, const N: usize> Labelled<M, N> {
    fn new(make: impl Fn([&str; N]) -> M + Send + Sync + 'static) -> Self {
        Self { make: Box::new(make), known: RwLock::new(HashMap::new()) }
    }

    /// The series of these label values, in the table's order. Hot paths keep what they get.
    pub fn with(&self, values: [&str; N]) -> M {
        let mut hasher = DefaultHasher::new();
        values.hash(&mut hasher);
        let key = hasher.finish();
        if let Some(series) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return series.clone();
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= SERIES_MAX {
            return (self.make)(["other"; N]);
        }
        let series = (self.make)(values);
        known.insert(key, series.clone());
        series
    }
}

/// A row of the table, for the docs and the checks.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// Upper bounds in seconds, for things between a memory access and a slow receiver.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0];

macro_rules! kind {
    (type counter) => { IntCounter };
    (type seconds_counter) => { Counter };
    (type gauge) => { IntGauge };
    (type seconds_gauge) => { Gauge };
    (type histogram) => { Histogram };
    (type counter $($label:ident)+) => { Labelled<IntCounter, { [$(stringify!($label)),+].len() }> };
    (type gauge $($label:ident)+) => { Labelled<IntGauge, { [$(stringify!($label)),+].len() }> };
    (touch $self:ident.$field:ident) => { let _ = &$self.$field; };
    (touch $self:ident.$field:ident $(, $label:ident)+) => { $self.$field.with([$(stringify!($label)),+]) };
    (name counter) => { "counter" };
    (name seconds_counter) => { "counter" };
    (name gauge) => { "gauge" };
    (name seconds_gauge) => { "gauge" };
    (name histogram) => { "histogram" };
    (new $r:ident, histogram, $name:literal, $help:expr) => {{
        let one = Histogram::with_opts(HistogramOpts::new($name, $help).buckets(SECONDS.to_vec()))?;
        $r.register(Box::new(one.clone()))?;
        one
    }};
    (new $r:ident, counter, $name:literal, $help:expr $(; $label:ident)+) => {{
        let vec = prometheus::IntCounterVec::new(Opts::new($name, $help), &[$(stringify!($label)),+])?;
        $r.register(Box::new(vec.clone()))?;
        Labelled::new(move |values| vec.with_label_values(&values))
    }};
    (new $r:ident, gauge, $name:literal, $help:expr $(; $label:ident)+) => {{
        let vec = prometheus::IntGaugeVec::new(Opts::new($name, $help), &[$(stringify!($label)),+])?;
        $r.register(Box::new(vec.clone()))?;
        Labelled::new(move |values| vec.with_label_values(&values))
    }};
    (new $r:ident, $kind:ident, $name:literal, $help:expr) => {{
        let one = <kind!(type $kind)>::with_opts(Opts::new($name, $help))?;
        $r.register(Box::new(one.clone()))?;
        one
    }};
}

macro_rules! metrics {
    ($($field:ident = $kind:ident $name:literal [$($label:ident)*] $help:literal;)*) => {
        /// Every metric, as `/metrics`, the docs and the checks know it.
        pub const TABLE: &[Row] = &[$(Row {
            name: $name, kind: kind!(name $kind), labels: &[$(stringify!($label)),*], help: $help,
        }),*];

        /// The metrics of one node; clones count into the same.
        #[derive(Clone)]
        pub struct Metrics(Arc<Inner>);

        /// The metrics by name.
        pub struct Inner {
            registry: Registry,
            $(#[doc = $help] pub $field: kind!(type $kind $($label)*),)*
        }

        impl Inner {
            fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                $(let $field = kind!(new registry, $kind, $name, $help $(; $label)*);)*
                Ok(Self { registry, $($field),* })
            }

            /// Gives each metric a series, since one without any is not in the text.
            #[cfg(test)]
            fn touch(&self) {
                $(kind!(touch self.$field $(, $label)*);)*
            }
        }
    };
}

metrics! {
    build_info = gauge "tidemill_build_info" [version] "Always 1; the label says what runs.";
    requests = counter "tidemill_requests_total" [surface status] "Requests answered, by surface (api, inbox, page) and HTTP status.";
    connects = counter "tidemill_connects_total" [connector outcome] "Walks through the connect page by how they ended (connected, or the reason why not).";
    webhooks_received = counter "tidemill_webhooks_received_total" [connector verdict] "Webhooks of apps by verdict (verified, unsigned, unverified, bad-signature, unknown-token, too-large, unavailable).";
    webhooks_handled = counter "tidemill_webhooks_handled_total" [connector outcome] "Stored webhooks that were looked at: understood, failed (tried again), parked, expired (never judged).";
    journals = counter "tidemill_journal_steps_total" [connector outcome] "Steps of reading apps' journals: read (an entry was taken in), nothing (there was none), gap (changes may have been missed), skipped (an entry could not be read), or the failure's name.";
    commit = histogram "tidemill_commit_seconds" [] "From asking for a durable change to its sync.";
    polls = counter "tidemill_polls_total" [connector outcome] "Pulls and scans by outcome (ok, unauthorized, rate-limited, unavailable, refused, bad-answer, script, held, cut).";
    poll = histogram "tidemill_poll_seconds" [] "One pull or scan of one connection.";
    records_compared = counter "tidemill_records_compared_total" [result] "Records laid beside the snapshot: unchanged, created, updated, deleted, older.";
    events = counter "tidemill_events_total" [topic update_type] "Events appended to the log; custom topics count as custom.";
    attempts = counter "tidemill_attempts_total" [outcome] "Attempts of deliveries by outcome (accepted, or the error's code).";
    attempt = histogram "tidemill_attempt_seconds" [] "One attempt: name, connection, TLS, request, answer.";
    accept_to_first_attempt = histogram "tidemill_accept_to_first_attempt_seconds" [] "From taking an event in to its first attempt.";
    batches = counter "tidemill_batches_total" [kind outcome] "Batches sent to destinations, by kind of destination and outcome (accepted, or the error's code).";
    deliveries_pending = gauge "tidemill_deliveries_pending" [] "Deliveries that wait or are being tried.";
    oldest_pending = seconds_gauge "tidemill_oldest_pending_seconds" [] "Age of the oldest pending delivery.";
    deliveries_dead = counter "tidemill_deliveries_dead_total" [cause] "Deliveries that ended undelivered, by cause (exhausted, rejected, expired).";
    subscriptions = gauge "tidemill_subscriptions" [status] "Subscriptions by status.";
    erasures = counter "tidemill_erasures_total" [cause] "Erasures that have completed, by who asked (key, webhook).";
    forwards = counter "tidemill_forwards_total" [connector outcome] "Calls passed through to apps: answered, or the failure's name.";
    replays = gauge "tidemill_replays" [state] "Replays that have not ended, by state.";
    connections = gauge "tidemill_connections" [status] "Connections by status.";
    event_streams = gauge "tidemill_event_streams" [] "Streams of events that are open.";
    store_bytes = gauge "tidemill_store_bytes" [] "Size of the store on disk.";
    disk_free_bytes = gauge "tidemill_disk_free_bytes" [] "Free space of the disk that holds the store.";
    store_stall = seconds_counter "tidemill_store_stall_seconds_total" [] "Time in which the store slowed or stopped writes.";
    actor_restarts = counter "tidemill_actor_restarts_total" [actor] "Actors brought back after a panic.";
}

impl std::ops::Deref for Metrics {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Metrics {
    /// A fresh set, all at zero.
    ///
    /// # Errors
    /// When the table names a metric twice or not as Prometheus allows, as a test would show.
    pub fn new() -> Result<Self, prometheus::Error> {
        let inner = Inner::new()?;
        inner.build_info.with([env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self(Arc::new(inner)))
    }

    /// All metrics in Prometheus' text format, version 0.0.4.
    ///
    /// # Errors
    /// When a value cannot be written as text.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.0.registry.gather())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn names_are_unique_and_end_in_base_units() {
        let names: std::collections::HashSet<_> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len());
        for row in TABLE {
            assert!(row.name.starts_with("tidemill_") && row.help.ends_with('.'), "{row:?}");
            assert_eq!(row.kind == "counter", row.name.ends_with("_total"), "{row:?}");
            assert!(row.kind != "histogram" || row.name.ends_with("_seconds"), "{row:?}");
        }
    }

    #[test]
    fn labels_are_bounded() {
        let metrics = Metrics::new().expect("the table is valid");
        for n in 0..SERIES_MAX + 10 {
            metrics.events.with([&n.to_string(), "created"]).inc();
        }
        let text = metrics.encode().expect("encodes");
        assert_eq!(text.matches("\ntidemill_events_total{").count(), SERIES_MAX + 1);
        assert!(text.contains("tidemill_events_total{topic=\"other\",update_type=\"other\"} 10\n"));
    }

    #[test]
    fn promtool_has_no_complaint() {
        let metrics = Metrics::new().expect("the table is valid");
        metrics.touch();
        let text = metrics.encode().expect("encodes");
        for row in TABLE {
            assert!(text.contains(&format!("# TYPE {} {}\n", row.name, row.kind)), "{} is not in the text", row.name);
        }
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is there; `scripts/deps --tests` installs it");
        promtool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("read by promtool");
        let said = promtool.wait_with_output().expect("ended");
        assert!(
            said.status.success(),
            "{}{}",
            String::from_utf8_lossy(&said.stdout),
            String::from_utf8_lossy(&said.stderr)
        );
    }

    #[test]
    fn clones_count_into_the_same() {
        let metrics = Metrics::new().expect("the table is valid");
        metrics.clone().attempts.with(["accepted"]).inc();
        assert_eq!(metrics.attempts.with(["accepted"]).get(), 1);
    }
}
