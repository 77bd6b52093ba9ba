//! What TLS connections that we open are made with.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};

use super::certificate::{Certificate, certificates};
use super::{ALPN, provider, versions};
use crate::config::TlsVersion;

/// How many servers' tickets are kept for later connections.
const TICKETS: usize = 64;

/// Whom we trust, and who we are.
pub(crate) struct ClientOptions {
    pub roots: Roots,
    pub least: TlsVersion,
    /// Shown to servers that ask for one.
    pub certificate: Option<Certificate>,
}

/// The issuers whose certificates are accepted.
pub(crate) struct Roots(Arc<RootCertStore>);

impl Roots {
    /// Reads the issuers' certificates.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence that begins with the name of the file.
    pub(crate) fn parse(text: &[u8]) -> Result<Roots, String> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(text)? {
            roots.add(certificate).map_err(|error| format!("holds no issuer: {error}"))?;
        }
        if roots.is_empty() {
            return Err("holds no certificate".to_owned());
        }
        Ok(Roots(Arc::new(roots)))
    }

    /// Those that this machine trusts.
    ///
    /// # Errors
    /// One sentence, when there are none.
    pub(crate) fn of_system() -> Result<Roots, String> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // Some of a system's certificates may be of old kinds, which trust nobody.
        roots.add_parsable_certificates(found.certs);
        match found.errors.first() {
            _ if !roots.is_empty() => Ok(Roots(Arc::new(roots))),
            Some(error) => Err(format!("this machine's issuers of certificates: {error}")),
            None => Err("this machine trusts no issuer of certificates".to_owned()),
        }
    }
}

/// The settings of our sessions.
///
/// # Errors
/// What does not fit together, in one sentence.
pub(crate) fn client(options: ClientOptions) -> Result<Arc<ClientConfig>, String> {
    let ClientOptions { roots, least, certificate } = options;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(least))
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots.0);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => builder.with_client_cert_resolver(Arc::new(
            rustls::sign::SingleCertAndKey::from(certificate.key()),
        )),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::in_memory_sessions(TICKETS);
    Ok(Arc::new(config))
}
