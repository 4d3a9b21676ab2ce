//! An engine without HTTP in a folder of its own.

use std::sync::Arc;

use tempfile::TempDir;
use tidemill::app::{self, Engine};
use tidemill::config::Config;
use tidemill::destinations::http::keys::{KeyKind, StoredKey};
use tidemill::destinations::http::sign::HmacKey;
use tidemill::domain::event::{Event, Payload, Source};
use tidemill::domain::id::{Seq, SubscriptionId, WorkspaceId, WorkspaceNo};
use tidemill::domain::subscription::{
    ApiVersion, Halt, Signing, SigningSecret, SigningSecrets, Subscription, WhileDisabled,
};
use tidemill::domain::time::Millis;
use tidemill::domain::workspace::Workspace;
use tidemill::store::{Slot, Store};
use tidemill::telemetry::Metrics;

/// The configuration of a test node: loopback is allowed, retries come quickly.
pub fn config(folder: &TempDir) -> Arc<Config> {
    let path = folder.path().join("data");
    let env = [
        ("TIDEMILL__STORAGE__PATH", path.display().to_string()),
        ("TIDEMILL__STORAGE__FREE_BYTES_MIN", "1".into()),
        ("TIDEMILL__DELIVERY__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]".into()),
        ("TIDEMILL__INGEST__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]".into()),
        ("TIDEMILL__DELIVERY__RETRY_SCHEDULE_SECONDS", "[0, 0, 0]".into()),
    ];
    let env = env.into_iter().map(|(name, value)| (name.to_owned(), value));
    Arc::new(Config::load(None, env).expect("a valid configuration"))
}

pub fn start(folder: &TempDir) -> Engine {
    Engine::start(config(folder), app::wall_clock(), Metrics::new().expect("metrics")).expect("the engine starts")
}

/// Makes the default workspace with signing keys.
pub async fn workspace(store: &Store) {
    store
        .change(|tx| {
            let id = WorkspaceId(tx.fresh_id()?);
            let now = tx.now();
            tx.put_object(&Workspace { no: WorkspaceNo(0), id, name: "default".into(), created_at: now })?;
            let keys = [KeyKind::Rsa, KeyKind::Ed25519].map(|kind| StoredKey::generate(kind, now, now));
            let keys = keys.into_iter().collect::<Result<Vec<_>, _>>()?;
            tx.put_secret(&id.0, Slot::SigningKeys, &keys)
        })
        .await
        .expect("the workspace is made");
}

/// Makes a subscription and answers its `whsec_` secret.
pub async fn subscribe(
    engine: &Engine,
    address: &str,
    change: impl FnOnce(&mut Subscription) + Send + 'static,
) -> (Subscription, String) {
    let address = address.to_owned();
    let made = engine
        .store
        .change(move |tx| {
            let mut subscription = Subscription {
                id: SubscriptionId(tx.fresh_id()?),
                workspace: WorkspaceNo(0),
                lane: tx.next_lane()?,
                address,
                topics: vec!["*".into()],
                is_enabled: true,
                halt: Halt::No,
                user: None,
                connection: None,
                api_version: ApiVersion::V2024_03,
                description: String::new(),
                update_types: Vec::new(),
                include: Vec::new(),
                while_disabled: WhileDisabled::Hold,
                expires_at: None,
                max_in_flight: 8,
                timeout_seconds: 15,
                retry_schedule: None,
                header_names: Vec::new(),
                signing: Signing { rsa: true, hmac: true, ed25519: true },
                from: Seq(0),
                created_at: tx.now(),
                updated_at: tx.now(),
                ordered: false,
                coalesce: false,
                rate_milli: None,
                filter: None,
                hook: None,
                destination: None,
                shape: Default::default(),
            };
            change(&mut subscription);
            let secret = HmacKey::generate()?.expose().to_owned();
            let secrets = SigningSecrets { all: vec![SigningSecret { text: secret.clone(), until: None }] };
            tx.put_secret(&subscription.id.0, Slot::SigningSecrets, &secrets)?;
            tx.put_object(&subscription)?;
            Ok((subscription, secret))
        })
        .await
        .expect("the subscription is made");
    engine.rings.subscriptions_changed();
    made
}

/// A published event with this payload.
pub fn event(topic: &str, payload: &str, now: Millis) -> Event {
    Event {
        workspace: WorkspaceNo(0),
        topic: topic.into(),
        update_type: Some("created".into()),
        connection: None,
        user: None,
        app: None,
        user_name: None,
        username: None,
        happened_at: now,
        accepted_at: now,
        payload: Payload::Plain(payload.into()),
        changed_fields: Vec::new(),
        previous: None,
        raw: None,
        source: Source::Published,
        unified_change: true,
        about: None,
    }
}
