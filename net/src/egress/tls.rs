//! Whom an account trusts.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

/// The roots that browsers trust.
pub(crate) fn public_roots() -> Arc<ClientConfig> {
    config(RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    })
}

/// The same and the certificates in a PEM file.
///
/// # Errors
/// The file cannot be read, holds no certificate, or one that is none.
pub(crate) fn roots_with(ca_file: &Path) -> io::Result<Arc<ClientConfig>> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let pem = std::fs::read(ca_file)?;
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let public = roots.len();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| invalid(error.to_string()))?;
    }
    if roots.len() == public {
        return Err(invalid("no certificate in it".to_owned()));
    }
    Ok(config(roots))
}

fn config(roots: RootCertStore) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Early data may be replayed by anyone on the way; a write must not be.
    config.enable_early_data = false;
    Arc::new(config)
}
