//! Rules that a value's type cannot say.
//!
//! Always true: a broken rule names its key. Not here: types and unknown keys (`layers`).

use super::{Config, Log};
use crate::domain::secret::Secret;
use crate::outbound::Proxy;

/// A key of 20 bytes or more cannot be guessed by trying, if it is at all random.
const KEY_BYTES_MIN: usize = 20;

/// What receivers are promised.
const KEY_OVERLAP_SECONDS_MIN: u64 = 86_400;

type Broken = (&'static str, String);

/// The first rule that does not hold, as (key, what is wrong and what to do).
pub(super) fn rules(config: &Config) -> Result<(), Broken> {
    long_enough("security.api_key", config.security.api_key.as_ref())?;
    long_enough("security.operator_key", config.security.operator_key.as_ref())?;
    public_url(config)?;
    delivery(config)?;
    proxy("delivery.proxy_url", config.delivery.proxy_url.as_ref())?;
    proxy("ingest.proxy_url", config.ingest.proxy_url.as_ref())?;
    if config.security.key_overlap_seconds.get() < KEY_OVERLAP_SECONDS_MIN {
        let message = "use 86400 (a day) or more: receivers may rely on reading the key pages once a day";
        return Err(("security.key_overlap_seconds", message.to_owned()));
    }
    filter(&config.log)?;
    percent("ingest.unverified_disk_percent_max", config.ingest.unverified_disk_percent_max, 100)?;
    percent("polling.jitter_percent", config.polling.jitter_percent, 50)?;
    if config.polling.interval_seconds < config.polling.interval_seconds_min {
        return Err(("polling.interval_seconds", "it must not be less than polling.interval_seconds_min".to_owned()));
    }
    Ok(())
}

fn long_enough(key: &'static str, secret: Option<&Secret>) -> Result<(), Broken> {
    match secret {
        Some(secret) if secret.expose().len() < KEY_BYTES_MIN => {
            Err((key, format!("use {KEY_BYTES_MIN} bytes or more, for example from `openssl rand -hex 24`")))
        }
        _ => Ok(()),
    }
}

fn public_url(config: &Config) -> Result<(), Broken> {
    let Some(url) = &config.server.public_url else { return Ok(()) };
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if !matches!(url.scheme(), "http" | "https") || !plain {
        let message = "use an http or https address, with a path at most, such as https://hooks.example.com/tidemill";
        return Err(("server.public_url", message.to_owned()));
    }
    Ok(())
}

fn delivery(config: &Config) -> Result<(), Broken> {
    let delivery = &config.delivery;
    let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if delivery.header_prefix.is_empty() || !delivery.header_prefix.bytes().all(token) {
        return Err(("delivery.header_prefix", "use lower-case letters, digits and hyphens".to_owned()));
    }
    if !(1..=60).contains(&delivery.timeout_seconds.get()) {
        return Err(("delivery.timeout_seconds", "use 1 to 60".to_owned()));
    }
    if !(1..=100).contains(&delivery.retry_schedule_seconds.len()) {
        return Err(("delivery.retry_schedule_seconds", "list 1 to 100 waits, one before each attempt".to_owned()));
    }
    if delivery.signing.is_empty() {
        return Err(("delivery.signing", "name at least one of rsa, hmac and ed25519".to_owned()));
    }
    percent("delivery.retry_jitter_percent", delivery.retry_jitter_percent, 50)
}

fn proxy(key: &'static str, url: Option<&Secret>) -> Result<(), Broken> {
    url.map_or(Ok(()), |url| Proxy::parse(url).map(|_| ()).map_err(|e| (key, e.to_string())))
}

fn filter(log: &Log) -> Result<(), Broken> {
    tracing_subscriber::EnvFilter::try_new(&log.filter)
        .map(|_| ())
        .map_err(|e| ("log.filter", format!("{e}; use a level such as info, or target=level pairs")))
}

fn percent(key: &'static str, value: u8, max: u8) -> Result<(), Broken> {
    if value > max { Err((key, format!("use 0 to {max}"))) } else { Ok(()) }
}
