//! What is wrong around a node: whether it answers, whether apps reach it, its clock, its disk, its master key.
//!
//! Always true: nothing is changed, no store is opened, no key is asked for or told. Not here: what is inside the store
//! (`offline::check_store`), arguments and printing (`cli`).

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::api::{WHO, Who};
use crate::config::Config;
use crate::domain::address::Policy;
use crate::domain::failure::Failure;
use crate::error::Result;
use crate::outbound::{Client, Method, Request};
use crate::store;

/// A node says who it is within this time.
const TIMEOUT: Duration = Duration::from_secs(10);
const WHO_BYTES_MAX: usize = 4096;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// False: somebody has to do something.
    pub is_well: bool,
    /// What it is, and what to do.
    pub text: String,
}

fn well(text: impl Into<String>) -> Finding {
    Finding { is_well: true, text: text.into() }
}

fn ill(text: impl Into<String>) -> Finding {
    Finding { is_well: false, text: text.into() }
}

/// Looks at everything, one after the other.
///
/// # Errors
/// The trusted certificates cannot be read.
pub async fn examine(config: &Config) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    // The operator's own addresses: wherever they lead is right. The public one is asked for as apps are called.
    let everywhere = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|network| network.parse().ok()).collect();
    let policy = Arc::new(Policy::new(everywhere, true));
    let direct = Client::new(&super::outbound_options(config, None)?, policy.clone())?;
    let outside = Client::new(&super::outbound_options(config, config.ingest.proxy_url.as_ref())?, policy)?;
    let listen = config.server.listen;
    let host = if listen.ip().is_unspecified() { [127, 0, 0, 1].into() } else { listen.ip() };
    let here = format!("http://{}", std::net::SocketAddr::new(host, listen.port()));
    let ours = who(&direct, &here).await;
    findings.push(match &ours {
        Ok(_) => well(format!("a node answers at {here}")),
        Err(why) => ill(format!("no node answers at {here} ({why}): start `tidemill serve`, or mend server.listen")),
    });
    findings.push(match &config.server.public_url {
        None => ill(
            "server.public_url is not set: no webhook is registered at any app, everything is polled; set the address \
             under which apps reach this node",
        ),
        Some(url) => public(&outside, url, ours.ok()).await,
    });
    findings.push(clock());
    findings.push(disk(config));
    findings.push(master_key(config));
    Ok(findings)
}

async fn who(client: &Client, base: &str) -> std::result::Result<Who, String> {
    let url = Url::parse(&format!("{}{WHO}", base.trim_end_matches('/'))).map_err(|error| error.to_string())?;
    let mut request = Request::new(Method::GET, url);
    (request.timeout, request.read_limit) = (TIMEOUT, WHO_BYTES_MAX);
    let answer = client.send(request).await.map_err(|failure: Failure| failure.sentence().to_owned())?;
    let status = answer.status;
    serde_json::from_slice(&answer.body).map_err(|_| format!("status {status}, and it is no node's answer"))
}

async fn public(client: &Client, url: &Url, ours: Option<Who>) -> Finding {
    match (who(client, url.as_str()).await, ours) {
        (Ok(who), Some(ours)) if who == ours => well(format!("{url} leads to this node")),
        (Ok(who), Some(ours)) if who.store_id == ours.store_id => {
            ill(format!("{url} leads to another process with the same store: one of the two must be stopped"))
        }
        (Ok(_), Some(_)) => ill(format!("{url} leads to another node: mend server.public_url, or the proxy in front")),
        (Ok(_), None) => ill(format!("{url} leads to a node that does not listen at server.listen of this machine")),
        (Err(why), _) => ill(format!(
            "{url} does not lead here ({why}): check its DNS name, the proxy or tunnel in front, and that it passes \
             {WHO} on"
        )),
    }
}

/// Whether the system says that its clock is kept in time.
#[allow(unsafe_code, reason = "adjtimex has no safe form in the standard library")]
fn clock() -> Finding {
    // SAFETY: a timex of zeros is a valid one, and asks for nothing to be changed.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `timex` is whole, and the call fills it.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state == libc::TIME_ERROR || state < 0 {
        return ill(
            "the system does not say that its clock is kept in time: signatures carry a time that receivers compare with \
             theirs; run an NTP client such as chrony",
        );
    }
    well("the clock is kept in time")
}

fn disk(config: &Config) -> Finding {
    let storage = &config.storage;
    let (free, wanted) = (store::free_bytes(&storage.path), storage.free_bytes_min.get());
    let path = storage.path.display();
    if !storage.path.exists() {
        return ill(format!("there is no {path}: the first start makes it; set storage.path"));
    }
    if free < wanted {
        return ill(format!(
            "{free} bytes are free on the disk of {path}, below storage.free_bytes_min ({wanted}): inbound calls get 503; \
             make room, or lower retention.*"
        ));
    }
    well(format!("{free} bytes are free on the disk of {path}"))
}

fn master_key(config: &Config) -> Finding {
    if config.security.master_key.is_some() {
        return well("the master key comes from the configuration");
    }
    let file = config.storage.path.join("master.key");
    let shown = file.display();
    match std::fs::metadata(&file) {
        Err(error) => ill(format!("{shown} cannot be read: {error}; without it the store does not open")),
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            ill(format!("{shown} can be read by others: chmod 600 {shown}"))
        }
        Ok(_) => well(format!("{shown} is there, and only its owner can read it; keep a copy apart from the backups")),
    }
}
