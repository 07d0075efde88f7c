//! The gateway's certificate, where it speaks TLS.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate with its key, read and found to belong together.
#[derive(Debug)]
pub struct Identity(Arc<ServerConfig>);

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate file cannot be read")]
    Certificate,
    #[error("the private key file cannot be read")]
    Key,
    #[error("certificate and private key do not belong together")]
    Pair,
}

impl Identity {
    /// Reads two PEM files: the certificate with its chain, and its key.
    pub fn load(certificate: &Path, key: &Path) -> Result<Identity, TlsError> {
        let chain: Result<Vec<CertificateDer>, _> = CertificateDer::pem_file_iter(certificate)
            .map_err(|_| TlsError::Certificate)?
            .collect();
        let chain = chain.map_err(|_| TlsError::Certificate)?;
        if chain.is_empty() {
            return Err(TlsError::Certificate);
        }
        let key = PrivateKeyDer::from_pem_file(key).map_err(|_| TlsError::Key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| TlsError::Pair)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|_| TlsError::Pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Identity(Arc::new(config)))
    }

    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        tokio_rustls::TlsAcceptor::from(self.0.clone())
    }
}
