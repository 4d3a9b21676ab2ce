//! The receiver: takes deliveries on loopback and checks both signatures with verifiers that are not ours, as an
//! existing Alloy receiver and a Standard Webhooks receiver would.
//!
//! Always true: a delivery is answered 200 only when both signatures verify; what waits to be shown is bounded, and a
//! full list answers 503, so that nothing is lost.

use std::net::TcpListener;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use rsa::PublicKey;
use rsa::pkcs1v15::{Signature, VerifyingKey};
use rsa::pkcs8::DecodePublicKey;
use rsa::signature::Verifier;
use sha2::Sha256;
use standardwebhooks::Webhook;
use tokio::sync::{RwLock, mpsc};

use crate::cli::Failure;
use crate::cli::http::Server;
use crate::clock::Clock;
use crate::domain::time::Millis;

/// Deliveries that wait to be shown.
const WAITING_MAX: usize = 10_000;
const BODY_MAX: usize = 8 * 1024 * 1024;

/// A delivery that arrived and verified, or did not.
pub(super) struct Arrival {
    pub(super) event: String,
    pub(super) topic: String,
    pub(super) attempt: String,
    pub(super) body: String,
    pub(super) at: Millis,
    /// What is wrong with each signature: RSA, then Standard Webhooks.
    pub(super) verdict: [Result<(), String>; 2],
}

impl Arrival {
    /// Whether both signatures verified.
    pub(super) fn good(&self) -> bool {
        self.verdict.iter().all(Result::is_ok)
    }
}

struct Desk {
    node: Server,
    address: String,
    header_prefix: String,
    secret: Webhook,
    keys: RwLock<Vec<VerifyingKey<Sha256>>>,
    arrivals: mpsc::Sender<Arrival>,
    clock: Clock,
}

/// What a receiver needs to know.
pub(super) struct Setup {
    pub(super) listener: TcpListener,
    /// The subscription's address, exactly.
    pub(super) address: String,
    /// `whsec_…`.
    pub(super) secret: String,
    pub(super) header_prefix: String,
    pub(super) node: Server,
    pub(super) clock: Clock,
}

/// Starts the receiver.
pub(super) async fn start(setup: Setup) -> Result<(ServerHandle, mpsc::Receiver<Arrival>), Failure> {
    let failed = |what: String| Failure::Failed(what);
    let secret = Webhook::new(&setup.secret).map_err(|e| failed(format!("the subscription's secret: {e}")))?;
    let (arrivals, waiting) = mpsc::channel(WAITING_MAX);
    let keys = RwLock::new(public_keys(&setup.node).await?);
    let (node, address, header_prefix, clock) = (setup.node, setup.address, setup.header_prefix, setup.clock);
    let desk = web::Data::new(Desk { node, address, header_prefix, secret, keys, arrivals, clock });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(desk.clone())
            .app_data(web::PayloadConfig::new(BODY_MAX))
            .service(web::resource("/events").route(web::post().to(take)))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(2)
    .listen(setup.listener)
    .map_err(|e| failed(format!("cannot start the receiver: {e}")))?
    .run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok((handle, waiting))
}

/// The node's public keys, the signing one first.
async fn public_keys(node: &Server) -> Result<Vec<VerifyingKey<Sha256>>, Failure> {
    const END: &str = "-----END PUBLIC KEY-----";
    let answer = node.call("GET", "/security/public_key.pem", None).await?;
    let keys: Vec<_> = answer
        .text
        .split_inclusive(END)
        .filter_map(|pem| PublicKey::from_public_key_pem(pem.trim()).ok())
        .map(VerifyingKey::new)
        .collect();
    if keys.is_empty() {
        let base = node.base();
        return Err(Failure::Failed(format!("{base}/security/public_key.pem holds no RSA key ({})", answer.status)));
    }
    Ok(keys)
}

async fn take(desk: web::Data<Desk>, request: HttpRequest, body: String) -> HttpResponse {
    let header = |name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let rsa = header(&format!("{}-signature", desk.header_prefix));
    let arrival = Arrival {
        event: header("webhook-id"),
        topic: header(&format!("{}-topic", desk.header_prefix)),
        attempt: header("tidemill-attempt"),
        at: desk.clock.now(),
        verdict: [desk.check_rsa(&rsa, &body).await, desk.check_standard(&request, &body)],
        body,
    };
    let good = arrival.good();
    match desk.arrivals.try_send(arrival) {
        Err(_) => HttpResponse::ServiceUnavailable().insert_header(("retry-after", "5")).finish(),
        Ok(()) if good => HttpResponse::Ok().body("thank you"),
        Ok(()) => HttpResponse::BadRequest().body("a signature does not verify"),
    }
}

impl Desk {
    /// RSASSA-PKCS1-v1_5 with SHA-256 over method, address and body; the keys are fetched again when none fits.
    async fn check_rsa(&self, signature: &str, body: &str) -> Result<(), String> {
        if signature.is_empty() {
            return Err("is missing".into());
        }
        let bytes = hex::decode(signature).map_err(|_| "is not hexadecimal".to_owned())?;
        let signature = Signature::try_from(bytes.as_slice()).map_err(|e| e.to_string())?;
        let signed = format!("POST{}{body}", self.address);
        let fits = |keys: &[VerifyingKey<Sha256>]| keys.iter().any(|k| k.verify(signed.as_bytes(), &signature).is_ok());
        if fits(&self.keys.read().await) {
            return Ok(());
        }
        if let Ok(fresh) = public_keys(&self.node).await {
            *self.keys.write().await = fresh;
        }
        if fits(&self.keys.read().await) { Ok(()) } else { Err("does not verify".into()) }
    }

    fn check_standard(&self, request: &HttpRequest, body: &str) -> Result<(), String> {
        use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
        let mut headers = HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            let value = request.headers().get(name).and_then(|v| HeaderValue::from_bytes(v.as_bytes()).ok());
            if let Some(value) = value {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        self.secret.verify(body.as_bytes(), &headers).map_err(|e| e.to_string())
    }
}
