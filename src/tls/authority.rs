//! Who may have issued the certificates of the other side (RFC 5280, section 6).

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error, RootCertStore};
use sha2::{Digest, Sha256};

use super::certificate::certificates;
use super::provider;

/// The certificates of issuers, and the lists of what they have taken back.
pub(crate) struct Authority {
    /// Of everything that was read.
    digest: Sha256,
    roots: Arc<RootCertStore>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
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
        let digest = Sha256::new_with_prefix(text);
        Ok(Authority { digest, roots: Arc::new(roots), revoked: Vec::new() })
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
        self.digest.update([0]);
        self.digest.update(text);
        Ok(self)
    }

    /// Verifies the certificates of clients. If one is not `required`, those without are let in.
    ///
    /// # Errors
    /// What does not fit together.
    pub(crate) fn verifier(self, required: bool) -> Result<Verifier, String> {
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
        let rustls = builder.build().map_err(|error| error.to_string())?;
        let digest = self.digest.chain_update([0, u8::from(required)]).finalize().into();
        Ok(Verifier { rustls, digest })
    }
}

/// Verifies the certificates of clients: in handshakes, and again later.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    rustls: Arc<dyn ClientCertVerifier>,
    digest: [u8; 32],
}

/// Why a certificate that has been good is so no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untrusted {
    Expired,
    /// It has been taken back, or so has its issuer.
    Revoked,
}

impl Verifier {
    /// Whether a chain of certificates, that of the peer first, lets somebody in, in Unix time.
    #[must_use]
    pub(crate) fn lets_in(&self, chain: &[CertificateDer<'_>], now: Duration) -> bool {
        let now = UnixTime::since_unix_epoch(now);
        let verified = chain
            .split_first()
            .map(|(leaf, issuers)| self.rustls.verify_client_cert(leaf, issuers, now));
        matches!(verified, Some(Ok(_)))
    }

    /// Whether a chain of certificates, that of the peer first, which has let somebody in, is still
    /// good, in Unix time.
    ///
    /// # Errors
    /// Why it is not. That a list of revoked certificates is out of date takes nothing back.
    pub(crate) fn is_still_good(
        &self,
        chain: &[CertificateDer<'_>],
        now: Duration,
    ) -> Result<(), Untrusted> {
        use CertificateError::{Expired, ExpiredContext};
        use CertificateError::{ExpiredRevocationList, ExpiredRevocationListContext};
        let Some((leaf, issuers)) = chain.split_first() else { return Err(Untrusted::Revoked) };
        let now = UnixTime::since_unix_epoch(now);
        match self.rustls.verify_client_cert(leaf, issuers, now) {
            Ok(_) => Ok(()),
            Err(Error::InvalidCertificate(why)) => match why {
                Expired | ExpiredContext { .. } => Err(Untrusted::Expired),
                ExpiredRevocationList | ExpiredRevocationListContext { .. } => Ok(()),
                _ => Err(Untrusted::Revoked),
            },
            Err(_) => Err(Untrusted::Revoked),
        }
    }

    /// For the settings of a listener.
    pub(super) fn for_handshakes(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.rustls)
    }

    /// Tells those with other issuers or other lists apart.
    pub(super) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}
