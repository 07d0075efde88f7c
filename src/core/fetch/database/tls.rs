//! Which authorities a database's certificate must come from.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::ConfigVerifierExt;

use crate::error::{Code, Failure};

pub fn no_name<E>(_: E) -> Failure {
    Failure::new(
        Code::TlsFailed,
        "\"host\" is not a name that a certificate can be for",
    )
}

/// `ca`: certificates in PEM; `None`: what the system trusts.
pub fn config(ca: Option<&str>) -> Result<ClientConfig, Failure> {
    let Some(ca) = ca else {
        return ClientConfig::with_platform_verifier().map_err(|_| {
            Failure::new(
                Code::TlsFailed,
                "the certificates that the system trusts could not be read",
            )
        });
    };
    let wrong = || {
        Failure::new(
            Code::InvalidConfig,
            "config's \"ca\" has no certificate in PEM",
        )
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots
            .add(certificate.map_err(|_| wrong())?)
            .map_err(|_| wrong())?;
    }
    if roots.is_empty() {
        return Err(wrong());
    }
    Ok(ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth())
}
