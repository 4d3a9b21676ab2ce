//! A cluster: the library's client, made on first use, with the gateway that it leaves by.
//!
//! Always true: the library never dials by itself; a client that was made under another policy of addresses is not used
//! again. Not here: what is written (`write`).

use std::sync::Arc;
use std::time::Duration;

use mongodb::bson::{Document, RawDocumentBuf};
use mongodb::options::{ClientOptions, Socks5Proxy};
use tokio::sync::Mutex;

use super::gateway::{self, Gateway};
use super::settings::Place;
use super::verdicts;
use crate::destinations::driver::{Fault, Verdict};
use crate::domain::address::Policy;
use crate::domain::trouble::Trouble;
use crate::outbound::Client;

/// Connections to each server at most.
const POOL_MAX: u32 = 8;
/// An unused connection is closed after this.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a server is looked for that can take the command.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The cluster that the settings name.
pub(super) struct Cluster {
    client: Client,
    place: Place,
    tls: Option<Arc<rustls::ClientConfig>>,
    made: Mutex<Option<Arc<Made>>>,
}

/// A client with its way out.
struct Made {
    library: mongodb::Client,
    gateway: Gateway,
    policy: Arc<Policy>,
}

impl Cluster {
    pub(super) fn new(client: Client, place: Place, tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        Self { client, place, tls, made: Mutex::default() }
    }

    /// Runs a command on the primary and answers with the document that it answers with.
    pub(super) async fn run(&self, command: RawDocumentBuf) -> Result<Document, Verdict> {
        let made = self.made().await?;
        let database = made.library.database(&self.place.database);
        match database.run_raw_command(command).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                let verdict = verdicts::judge(&error, made.gateway.take_trouble());
                // The library holds a server that refused to sign us in for unknown until it has looked at it again, up to
                // ten seconds later; what is asked next shall hear why.
                if matches!(verdict, Verdict::Config(_)) {
                    *self.made.lock().await = None;
                }
                Err(verdict)
            }
        }
    }

    async fn made(&self) -> Result<Arc<Made>, Verdict> {
        let mut made = self.made.lock().await;
        let policy = self.client.policy();
        if let Some(made) = made.as_ref().filter(|made| Arc::ptr_eq(&made.policy, &policy)) {
            return Ok(made.clone());
        }
        let fresh = Arc::new(self.make(policy).await?);
        *made = Some(fresh.clone());
        Ok(fresh)
    }

    async fn make(&self, policy: Arc<Policy>) -> Result<Made, Verdict> {
        let gateway = Gateway::open(self.client.clone(), self.tls.clone()).await;
        let gateway = gateway.map_err(|_| Verdict::Retry(Fault::new(Trouble::Failed, "the node has no port left")))?;
        // For mongodb+srv this asks the DNS for the cluster's hosts.
        let options = tokio::time::timeout(SELECTION_TIMEOUT, ClientOptions::parse(self.place.string.clone())).await;
        let options = options.map_err(|_| Verdict::way(crate::domain::failure::Failure::DnsFailed))?;
        let mut options = options.map_err(|error| verdicts::judge(&error, None))?;
        let way = Socks5Proxy::builder()
            .host("127.0.0.1")
            .port(gateway.port)
            .authentication((gateway::USER.to_owned(), gateway.password.clone()))
            .build();
        options.socks5_proxy = Some(way);
        // The gateway speaks it.
        options.tls = None;
        options.app_name = Some("tidemill".to_owned());
        options.max_pool_size = Some(POOL_MAX);
        options.min_pool_size = None;
        options.max_idle_time = Some(IDLE_MAX);
        options.connect_timeout = Some(SELECTION_TIMEOUT);
        options.server_selection_timeout = Some(SELECTION_TIMEOUT);
        let library = mongodb::Client::with_options(options).map_err(|error| verdicts::judge(&error, None))?;
        Ok(Made { library, gateway, policy })
    }
}
