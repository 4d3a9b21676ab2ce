//! An engine without HTTP for benches: its events and subscriptions.

use std::sync::Arc;

use tempfile::TempDir;
use tidemill::app::{self, Engine};
use tidemill::config::Config;
use tidemill::destinations::http::keys::{KeyKind, StoredKey};
use tidemill::domain::event::{Event, Payload, Source};
use tidemill::domain::id::{Seq, SubscriptionId, WorkspaceId, WorkspaceNo};
use tidemill::domain::subscription::{
    ApiVersion, Halt, Signing, SigningSecret, SigningSecrets, Subscription, WhileDisabled,
};
use tidemill::domain::time::Millis;
use tidemill::domain::workspace::Workspace;
use tidemill::error::Result;
use tidemill::store::{Slot, Tx};
use tidemill::telemetry::Metrics;

/// What HMAC alone costs, and everything together.
pub const HMAC: Signing = Signing { rsa: false, hmac: true, ed25519: false };
pub const ALL: Signing = Signing { rsa: true, hmac: true, ed25519: true };
/// The secret of every subscription.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BODY_BYTES: usize = 1024;

fn payload(n: usize) -> String {
    format!(r#"{{"id":"c-{n}","note":"{}"}}"#, "x".repeat(BODY_BYTES - 200))
}

/// The published event number `n`, about 1 KiB as a body.
pub fn event(n: usize, now: Millis) -> Event {
    Event {
        topic: "shop/carts".into(),
        update_type: Some("created".into()),
        source: Source::Published,
        ..Event::blank(WorkspaceNo(0), Payload::Plain(payload(n)), now)
    }
}

/// Fresh signing keys of a workspace.
pub fn keys() -> Vec<StoredKey> {
    let key = |kind| StoredKey::generate(kind, Millis(0), Millis(0)).expect("a key");
    vec![key(KeyKind::Rsa), key(KeyKind::Ed25519)]
}

/// An engine on a store of its own.
pub fn start(folder: &TempDir) -> Engine {
    let env = [
        ("TIDEMILL__STORAGE__PATH", folder.path().join("data").display().to_string()),
        ("TIDEMILL__STORAGE__FREE_BYTES_MIN", "1".into()),
        ("TIDEMILL__DELIVERY__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]".into()),
    ];
    let env = env.into_iter().map(|(name, value)| (name.to_owned(), value));
    let config = Config::load(None, env).expect("a valid configuration");
    Engine::start(Arc::new(config), app::wall_clock(), Metrics::new().expect("metrics")).expect("the engine starts")
}

/// Makes subscriptions to everything, each with a path of its own on that port.
pub async fn subscribe(
    engine: &Engine,
    endpoints: usize,
    signing: Signing,
    port: u16,
    is_enabled: bool,
) -> Vec<Subscription> {
    let workspace = engine.store.change(move |tx| {
        let (id, now) = (WorkspaceId(tx.fresh_id()?), tx.now());
        tx.put_object(&Workspace { no: WorkspaceNo(0), id, name: "default".into(), created_at: now })?;
        tx.put_secret(&id.0, Slot::SigningKeys, &keys())
    });
    workspace.await.expect("a workspace");
    let mut made = Vec::new();
    for n in 0..endpoints {
        let address = format!("http://127.0.0.1:{port}/{n}");
        let max_in_flight = if endpoints == 1 { 64 } else { 16 };
        let make = move |tx: &mut Tx<'_>| {
            let subscription = Subscription { is_enabled, signing, max_in_flight, ..blank(tx, address)? };
            let secrets = SigningSecrets { all: vec![SigningSecret { text: SECRET.into(), until: None }] };
            tx.put_secret(&subscription.id.0, Slot::SigningSecrets, &secrets)?;
            tx.put_object(&subscription)?;
            Ok(subscription)
        };
        made.push(engine.store.change(make).await.expect("subscribed"));
    }
    engine.rings.subscriptions_changed();
    made
}

fn blank(tx: &mut Tx<'_>, address: String) -> Result<Subscription> {
    let now = tx.now();
    Ok(Subscription {
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
        max_in_flight: 16,
        timeout_seconds: 15,
        retry_schedule: None,
        header_names: Vec::new(),
        signing: HMAC,
        from: Seq(0),
        created_at: now,
        updated_at: now,
        ordered: false,
        coalesce: false,
        rate_milli: None,
        filter: None,
        hook: None,
        destination: None,
        shape: Default::default(),
    })
}
