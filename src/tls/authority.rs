//! Who may have issued the certificates of the other side (RFC 5280, section 6).

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};

use super::certificate::certificates;
use super::provider;

/// The certificates of issuers, and the lists of what they have taken back.
pub(crate) struct Authority {
    roots: Arc<RootCertStore>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    digest: Sha256,
}

impl Authority {
    /// Reads the issuers' certificates.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence that begins with the name of the file.
    pub(crate) fn parse(text: &[u8]) -> Result<Authority, String> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(text)? {
            roots
                .add(certificate)
                .map_err(|error| format!("holds a certificate that issues none: {error}"))?;
        }
        if roots.is_empty() {
            return Err("holds no certificate".to_owned());
        }
        Ok(Authority {
            roots: Arc::new(roots),
            revoked: Vec::new(),
            digest: Sha256::new_with_prefix(text),
        })
    }

    /// Reads lists of revoked certificates (RFC 5280, section 5).
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence.
    pub(crate) fn revoke(mut self, text: &[u8]) -> Result<Authority, String> {
        self.revoked = CertificateRevocationListDer::pem_slice_iter(text)
            .collect::<Result<_, _>>()
            .map_err(|_| "holds a list that cannot be read".to_owned())?;
        if self.revoked.is_empty() {
            return Err("holds no list of revoked certificates".to_owned());
        }
        self.digest.update(Sha256::digest(text));
        Ok(self)
    }

    /// Of all that it knows.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }

    /// Verifies the certificates of clients. If one is not `required`, those without are let in.
    ///
    /// # Errors
    /// What does not fit together.
    pub(super) fn verifier(self, required: bool) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let builder = WebPkiClientVerifier::builder_with_provider(self.roots, provider());
        let has_lists = !self.revoked.is_empty();
        let builder = builder.with_crls(self.revoked);
        // Of an issuer without a list nothing is known to be revoked. An old list is none.
        let builder = if has_lists {
            builder.allow_unknown_revocation_status().enforce_revocation_expiration()
        } else {
            builder
        };
        let builder = if required { builder } else { builder.allow_unauthenticated() };
        builder.build().map_err(|error| error.to_string())
    }
}
