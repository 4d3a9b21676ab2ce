//! The guarded way out for protocols that are not HTTP: addresses judged, connections made, TLS by the house's rules.
//!
//! Always true: as for HTTP: what is dialled is what was judged, one refused address refuses the name, and the node's
//! proxy is gone through if there is one. Not here: what is spoken on the connection (`destinations`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;

use super::connect::{Dial, Place};
use super::{Client, tls};
use crate::domain::failure::Failure;
use crate::error::{Error, Result as Outcome};

impl Client {
    /// All addresses of a host, judged. `encrypted`: TLS will be spoken, so public addresses are allowed as for https.
    ///
    /// # Errors
    /// `DnsFailed`, `AddressForbidden`, `HttpsRequired`.
    pub async fn vetted(&self, host: &str, port: u16, encrypted: bool) -> Result<Arc<[IpAddr]>, Failure> {
        let place = Place { https: encrypted, host: host.to_owned(), port };
        self.raw_dial(Duration::MAX).vetted(&place).await
    }

    /// A connection to a host, its address judged, within `timeout`.
    ///
    /// # Errors
    /// As [`Client::vetted`], and `ConnectFailed`, `ConnectTimeout`, those of a proxy.
    pub async fn dial(&self, host: &str, port: u16, encrypted: bool, timeout: Duration) -> Result<TcpStream, Failure> {
        let dial = self.raw_dial(timeout);
        let place = Place { https: encrypted, host: host.to_owned(), port };
        let made = async {
            let ips = dial.vetted(&place).await?;
            dial.reach(&ips, port).await
        };
        tokio::time::timeout(timeout, made).await.unwrap_or(Err(Failure::ConnectTimeout))
    }

    /// Whether connections leave by the node's proxy, so that a library that dials by itself cannot be used.
    pub fn has_proxy(&self) -> bool {
        self.shared.proxy.is_some()
    }

    /// The trusted certificates of the node, for a library that speaks TLS by itself.
    pub fn trusted(&self) -> &[CertificateDer<'static>] {
        self.shared.trust.certificates()
    }

    /// How TLS is spoken: with the trusted certificates of the node, or with those of `ca` (PEM) alone. No ALPN.
    ///
    /// # Errors
    /// `invalid` if `ca` holds no certificate.
    pub fn tls_config(&self, ca: Option<&str>) -> Outcome<ClientConfig> {
        let roots = match ca {
            None => self.shared.trust.roots().clone(),
            Some(pem) => Arc::new(roots_of(pem)?),
        };
        Ok(tls::builder()?.with_root_certificates(roots).with_no_client_auth())
    }

    fn raw_dial(&self, timeout: Duration) -> Dial {
        Dial {
            names: self.shared.names.clone(),
            tls: self.shared.trust.config().clone(),
            policy: self.policy(),
            timeout,
            proxy: self.shared.proxy.clone(),
        }
    }
}

fn roots_of(pem: &str) -> Outcome<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|e| Error::invalid("the certificates are not PEM").because(e))?;
        roots.add(certificate).map_err(|e| Error::invalid("a certificate cannot be used").because(e))?;
    }
    if roots.is_empty() { Err(Error::invalid("there is no certificate in the PEM text")) } else { Ok(roots) }
}

/// What a failed TLS handshake is called.
pub fn classify_tls(error: &std::io::Error) -> Failure {
    tls::classify(error)
}
