//! What the API is told, out of several sections.

use std::time::Duration;

use super::Config;
use crate::api::{Options, SubscriptionDefaults};
use crate::domain::setting;
use crate::domain::subscription::Signing;

impl Config {
    /// The options of the API.
    pub fn api(&self) -> Options {
        let (server, security, delivery) = (&self.server, &self.security, &self.delivery);
        let signs = |kind| delivery.signing.contains(&kind);
        Options {
            body_bytes_max: server.body_bytes_max.get(),
            webhook_bytes_max: self.ingest.body_bytes_max.get(),
            read_timeout: Duration::from_secs(server.request_timeout_seconds.get()),
            webhook_answer_timeout: Duration::from_secs(self.ingest.answer_timeout_seconds.get()),
            public_url: server.public_url.clone(),
            ops_elsewhere: self.ops.listen.is_some_and(|address| address != server.listen),
            api_key: security.api_key.clone(),
            operator_key: security.operator_key.clone(),
            connect_token_life: Duration::from_secs(security.connect_token_seconds.get()),
            header_prefix: delivery.header_prefix.clone(),
            subscription: SubscriptionDefaults {
                signing: Signing {
                    rsa: signs(setting::Signing::Rsa),
                    hmac: signs(setting::Signing::Hmac),
                    ed25519: signs(setting::Signing::Ed25519),
                },
                timeout_seconds: u32::try_from(delivery.timeout_seconds.get()).unwrap_or(u32::MAX),
                max_in_flight: delivery.in_flight_per_subscription.get(),
                max_in_flight_max: u32::try_from(delivery.in_flight_total.get()).unwrap_or(u32::MAX),
            },
            poll_interval_seconds_min: self.polling.interval_seconds_min.get(),
            storage_path: self.storage.path.clone(),
        }
    }
}
