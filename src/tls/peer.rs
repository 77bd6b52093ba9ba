//! The certificate that a peer has shown.

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_cert::der::Decode;

use super::certificate::names_of;

/// Most characters of a subject that are kept.
const SUBJECT_SHOWN: usize = 128;

/// A certificate of a peer, with what came along to verify it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PeerCertificate {
    /// The peer's own first.
    chain: Box<[CertificateDer<'static>]>,
    names: Box<[String]>,
    subject: String,
    not_after: u64,
}

impl PeerCertificate {
    /// Reads a chain, the peer's own certificate first.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence.
    pub(crate) fn read(chain: &[CertificateDer<'_>]) -> Result<PeerCertificate, String> {
        let leaf = chain.first().ok_or("holds no certificate")?;
        let unreadable = |error| format!("holds a certificate that cannot be read: {error}");
        let read = x509_cert::Certificate::from_der(leaf).map_err(unreadable)?;
        let read = read.tbs_certificate();
        let subject = read.subject().to_string();
        Ok(PeerCertificate {
            names: names_of(leaf)?.into(),
            // It goes to logs and terminals.
            subject: subject
                .chars()
                .take(SUBJECT_SHOWN)
                .map(|c| if c.is_control() { '?' } else { c })
                .collect(),
            not_after: read.validity().not_after.to_unix_duration().as_secs(),
            chain: chain.iter().map(|part| part.clone().into_owned()).collect(),
        })
    }

    /// The certificates, the peer's own first.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The DNS names it is for (RFC 5280, section 4.2.1.6), in lower case. One may begin with `*.`.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The last Unix second at which it is valid (RFC 5280, section 4.1.2.5).
    pub(crate) fn not_after(&self) -> u64 {
        self.not_after
    }

    /// Whose it is, for people: its subject (RFC 4514), or its first name if it has none.
    pub(crate) fn holder(&self) -> &str {
        match (&*self.subject, self.names.first()) {
            ("", Some(name)) => name,
            ("", None) => "nobody",
            (subject, _) => subject,
        }
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerCertificate").field("names", &self.names).finish_non_exhaustive()
    }
}
