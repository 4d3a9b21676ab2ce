//! A look at the way to an address, phase by phase, for a person who wonders why nothing arrives.
//!
//! Always true: if any address is forbidden, the diagnosis says `address-forbidden` and nothing else, so that nobody
//! can map the inside network with it. A certificate is shown also when it is refused. Not here: the request itself.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use serde::Serialize;
use tokio::time::Instant;
use url::Url;

use super::certificate::{self, Certificate};
use super::connect::{self, Dial, Place};
use super::{Client, refused, tls};
use crate::domain::failure::Failure;
use crate::error;

/// The most certificates of a chain that are shown.
const CHAIN_MAX: usize = 10;

/// What was seen on the way. A phase that was not reached is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// The addresses that the DNS gave, or the literal one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ms: Option<u64>,
    /// `TLSv1_3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_version: Option<String>,
    /// The server's own certificate first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<Certificate>,
    /// The slug of what went wrong.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "slug")]
    pub failure: Option<Failure>,
}

fn slug<S: serde::Serializer>(failure: &Option<Failure>, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(failure.map_or("", Failure::slug))
}

impl Client {
    /// Resolves, connects and shakes hands, on a connection of its own, within `timeout`. Whatever goes wrong is in the
    /// diagnosis; an error is our own fault.
    pub async fn diagnose(&self, url: &Url, timeout: Duration) -> error::Result<Diagnosis> {
        let mut seen = Diagnosis::default();
        let walked = match self.policy().judge_url(url) {
            Err(why) => Err(refused(why)),
            Ok(()) => match tokio::time::timeout(timeout, self.walk(url, &mut seen)).await {
                Ok(walked) => walked?,
                Err(_) => Err(Failure::ConnectTimeout),
            },
        };
        seen.failure = walked.err();
        if seen.failure == Some(Failure::AddressForbidden) {
            return Ok(Diagnosis { failure: seen.failure, ..Diagnosis::default() });
        }
        Ok(seen)
    }

    async fn walk(&self, url: &Url, seen: &mut Diagnosis) -> error::Result<Result<(), Failure>> {
        let Some(place) = url.as_str().parse().ok().and_then(|uri| Place::of(&uri)) else {
            return Ok(Err(Failure::BadRequest));
        };
        let (config, recorder) = recording(self.shared.trust.roots())?;
        let dial = Dial {
            names: self.shared.names.clone(),
            tls: config,
            policy: self.policy(),
            timeout: self.shared.pool.connect_timeout,
            proxy: self.shared.proxy.clone(),
        };
        let walked = phases(&dial, &place, seen).await;
        seen.chain = recorder.chain();
        Ok(walked)
    }
}

async fn phases(dial: &Dial, place: &Place, seen: &mut Diagnosis) -> Result<(), Failure> {
    let started = Instant::now();
    let ips = dial.vetted(place).await?;
    seen.dns_ms = Some(millis(started));
    seen.addresses = ips.to_vec();
    let started = Instant::now();
    let tcp = tokio::time::timeout(dial.timeout, dial.reach(&ips, place.port));
    let tcp = tcp.await.unwrap_or(Err(Failure::ConnectTimeout))?;
    seen.connect_ms = Some(millis(started));
    if place.https {
        let started = Instant::now();
        let stream = connect::handshake(dial.tls.clone(), &place.host, tcp).await?;
        seen.tls_ms = Some(millis(started));
        seen.tls_version = stream.get_ref().1.protocol_version().map(|version| format!("{version:?}"));
    }
    Ok(())
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Judges as always, and remembers what it was shown.
#[derive(Debug)]
struct Recorder {
    /// None where nothing is trusted, so that nobody is believed.
    judge: Option<Arc<WebPkiServerVerifier>>,
    schemes: Vec<SignatureScheme>,
    shown: Mutex<Vec<CertificateDer<'static>>>,
}

impl Recorder {
    fn judge(&self) -> Result<&WebPkiServerVerifier, rustls::Error> {
        self.judge.as_deref().ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }
    fn chain(&self) -> Vec<Certificate> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.iter().filter_map(|der| certificate::read(der)).collect()
    }
}

fn recording(roots: &Arc<rustls::RootCertStore>) -> error::Result<(Arc<rustls::ClientConfig>, Arc<Recorder>)> {
    let builder = tls::builder()?;
    let provider = builder.crypto_provider().clone();
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let judge = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider).build().ok();
    let recorder = Arc::new(Recorder { judge, schemes, shown: Mutex::default() });
    let mut config = builder.dangerous().with_custom_certificate_verifier(recorder.clone()).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(config), recorder))
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = std::iter::once(end_entity).chain(intermediates).take(CHAIN_MAX);
        let shown = shown.map(|der| der.clone().into_owned()).collect();
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
        self.judge()?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge()?.verify_tls12_signature(message, certificate, signed)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge()?.verify_tls13_signature(message, certificate, signed)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
