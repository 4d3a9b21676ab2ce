//! The handshake of REST hooks: a request with `X-Hook-Secret` that the receiver gives back.
//!
//! Always true: it leaves nothing in the store and moves no lane; the address is judged as a delivery's is. Not here:
//! what follows from it (`api`).

use std::sync::Arc;
use std::time::Duration;

use super::outlet::Outlet;
use crate::destinations::http::HOOK_SECRET;
use crate::destinations::http::sign::HmacKey;
use crate::destinations::{Parcel, Signing, Trial};
use crate::domain::id::EventId;
use crate::domain::secret::Secret;
use crate::domain::topic::PING;
use crate::error::{Error, Result};

/// For the whole exchange: whoever subscribes waits for it.
const TIMEOUT: Duration = Duration::from_secs(5);

impl Outlet {
    /// Sends `{}` with the secret to an address, signed as a delivery would be.
    ///
    /// # Errors
    /// Our own faults only; the receiver's are in the trial.
    pub async fn handshake(
        self: &Arc<Self>,
        event: EventId,
        address: &str,
        secret: &Secret,
        signing: Signing,
    ) -> Result<Trial> {
        let (outlet, workspace) = (self.clone(), event.parts().1);
        let read = tokio::task::spawn_blocking(move || outlet.keys_of(workspace));
        let keys = read.await.map_err(Error::internal)??;
        let (runtime, driver) = self.driver().ok_or_else(|| Error::unavailable("the node is stopping", 5))?;
        let parcel = Parcel {
            address: address.into(),
            topic: PING.into(),
            event,
            body: "{}".into(),
            attempt: 1,
            replay: false,
            at: self.clock.now(),
            wall: self.clock.wall(),
            signing,
            secrets: Arc::new([HmacKey::parse(secret)?]),
            keys,
            headers: Arc::new([(HOOK_SECRET.to_owned(), secret.clone())]),
            timeout: TIMEOUT,
        };
        let limit = TIMEOUT * 3;
        let attempt = runtime.spawn(async move { tokio::time::timeout(limit, driver.try_out(&parcel)).await });
        let trial = attempt.await.map_err(Error::internal)?;
        trial.map_err(|_| Error::internal("a handshake did not end"))?
    }
}
