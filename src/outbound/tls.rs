//! Whom we believe, and what a failed handshake is called.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};

use super::options::TlsOptions;
use crate::domain::failure::Failure;
use crate::error::{Error, Result};

/// The trusted certificates, loaded once and shared by all clients.
#[derive(Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
    roots: Arc<RootCertStore>,
    /// The same, for libraries that speak TLS by themselves.
    certificates: Arc<[CertificateDer<'static>]>,
}

impl Trust {
    /// Loads `tls.ca_file`, or the system's certificates. Fails if the file cannot be read or holds no certificate; a
    /// system without any is only warned of, since a node may call no one.
    pub fn load(options: &TlsOptions) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let mut certificates = Vec::new();
        let path = &options.ca_file;
        if path.as_os_str().is_empty() {
            certificates = rustls_native_certs::load_native_certs().certs;
            certificates.retain(|certificate| roots.add(certificate.clone()).is_ok());
            if certificates.is_empty() {
                tracing::warn!(
                    "the system trusts no certificate, so every https call will fail: install ca-certificates"
                );
            }
        } else {
            read(path, &mut roots, &mut certificates)?;
        }
        let roots = Arc::new(roots);
        let mut config = builder()?.with_root_certificates(roots.clone()).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), roots, certificates: certificates.into() })
    }

    pub(super) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    pub(super) fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    pub(super) fn certificates(&self) -> &Arc<[CertificateDer<'static>]> {
        &self.certificates
    }
}

fn read(path: &Path, roots: &mut RootCertStore, all: &mut Vec<CertificateDer<'static>>) -> Result<()> {
    let wrong = |what: &str| Error::invalid(format!("tls.ca_file: {} {what}", path.display()));
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong("cannot be read").because(e))? {
        let certificate = certificate.map_err(|e| wrong("is not PEM").because(e))?;
        roots.add(certificate.clone()).map_err(|e| wrong("holds a certificate that cannot be used").because(e))?;
        all.push(certificate);
    }
    if roots.is_empty() { Err(wrong("holds no certificate")) } else { Ok(()) }
}

/// A client configuration with the one cryptography library of the house.
pub(super) fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(Error::internal)
}

/// The name to ask the server's certificate for: a final dot is for the DNS only.
pub(super) fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.strip_suffix('.').unwrap_or(host).to_owned()).ok()
}

/// Names a failed handshake.
pub(super) fn classify(error: &io::Error) -> Failure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => classify_certificate(why),
        Some(_) => Failure::TlsFailed,
        None if error.kind() == io::ErrorKind::TimedOut => Failure::ConnectTimeout,
        None => Failure::TlsFailed,
    }
}

fn classify_certificate(why: &CertificateError) -> Failure {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext,
    };
    match why {
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => Failure::TlsExpired,
        NotValidForName | NotValidForNameContext { .. } => Failure::TlsNameMismatch,
        _ => Failure::TlsUntrusted,
    }
}
