//! A certificate with its chain and its private key (RFC 5280), read from PEM (RFC 7468).

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use super::provider;

/// A certificate, and what proves that it is ours.
#[derive(Clone)]
pub(crate) struct Certificate {
    /// The DNS names it is for (RFC 5280, section 4.2.1.6), in lower case.
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl Certificate {
    /// Reads a chain, the certificate of the server first, and its private key. `staple` is an OCSP
    /// response (RFC 6960) in DER.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence that begins with the name of the file. Nothing of the
    /// key is shown.
    pub(crate) fn parse(
        chain: &[u8],
        key: &[u8],
        staple: Option<Vec<u8>>,
    ) -> Result<Certificate, Problem> {
        let chain = certificates(chain).map_err(Problem::Chain)?;
        let Some(leaf) = chain.first() else {
            return Err(Problem::Chain("holds no certificate".to_owned()));
        };
        let names = names_of(leaf).map_err(Problem::Chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            Problem::Key(match error {
                pem::Error::NoItemsFound => "holds no private key".to_owned(),
                _ => "holds no private key that can be read".to_owned(),
            })
        })?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                Problem::Key("is the key of another certificate".to_owned())
            }
            _ => Problem::Key("holds a private key of an unknown kind".to_owned()),
        })?;
        Ok(Certificate { names, key: Arc::new(CertifiedKey { ocsp: staple, ..key }) })
    }

    /// The names it is for. One may begin with `*.`.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

/// In which file something is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    Chain(String),
    Key(String),
}

/// All certificates in a text.
///
/// # Errors
/// What is wrong, as the end of a sentence.
pub(super) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|_| "holds a certificate that cannot be read".to_owned())
}

/// The DNS names that a certificate is for, in lower case.
///
/// # Errors
/// What is wrong, as the end of a sentence.
pub(super) fn names_of(certificate: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let certificate = EndEntityCert::try_from(certificate)
        .map_err(|error| format!("holds a certificate that is not valid: {error:?}"))?;
    Ok(certificate.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

/// Without the key.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).finish_non_exhaustive()
    }
}
