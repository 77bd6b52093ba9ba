//! What TLS connections that we open are made with.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use sha2::{Digest, Sha256};

use super::certificate::{Certificate, Problem, certificates};
use super::{ALPN, provider, versions};
use crate::config::{CertificateFiles, SecretsMode, TlsVersion, read_secret};
use crate::net::ktls;
use crate::net::tls::Session;

/// How many servers' tickets are kept for later connections.
const TICKETS: usize = 64;

/// How long the issuers that this machine trusts are not read again: one start may need them for many
/// services.
const SYSTEM_ROOTS: Duration = Duration::from_secs(10);

/// Whom we trust, and who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientFiles {
    /// The issuers whose certificates are accepted; without it, those that this machine trusts.
    pub ca: Option<PathBuf>,
    /// The name that the server's certificate must be for, in place of the one that is dialled.
    pub server_name: Option<String>,
    /// Shown to servers that ask for one.
    pub certificate: Option<CertificateFiles>,
}

/// What was read from these files. Two are equal if they have come from the same bytes.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    digest: [u8; 32],
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &ClientTls) -> bool {
        (&self.server_name, self.digest) == (&other.server_name, other.digest)
    }
}

impl Eq for ClientTls {}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Reads the files. The private key may have only the permissions that `mode` allows.
    ///
    /// # Errors
    /// What is wrong, in one sentence.
    pub(crate) fn load(files: &ClientFiles, mode: SecretsMode) -> Result<ClientTls, String> {
        let public = |path: &Path| {
            std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let secret = |path: &Path| {
            let secret = read_secret(path, mode)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            secret.exposed.map_or(Ok(secret.text), Err)
        };
        ClientTls::read(files, "--ca", public, secret)
    }

    /// The same, with files that are read by these. The setting that names issuers is called
    /// `ca_option`.
    ///
    /// # Errors
    /// What is wrong, in one sentence.
    pub(crate) fn read(
        files: &ClientFiles,
        ca_option: &str,
        public: impl Fn(&Path) -> Result<Vec<u8>, String>,
        secret: impl Fn(&Path) -> Result<String, String>,
    ) -> Result<ClientTls, String> {
        let mut digest = Sha256::new();
        let roots = match &files.ca {
            None => system_roots(ca_option)?,
            Some(path) => {
                let text = public(path)?;
                digest.update(&text);
                Arc::new(roots(&text).map_err(|what| format!("{} {what}", path.display()))?)
            }
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(TlsVersion::V12))
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let mut config = match &files.certificate {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let (chain, key) = (public(&files.chain)?, secret(&files.key)?);
                digest.update(&chain);
                digest.update(&key);
                let certificate = certificate_of(files, &chain, &key)?;
                builder
                    .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.key())))
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::in_memory_sessions(TICKETS);
        config.enable_secret_extraction = ktls::support().is_available();
        let server_name = files.server_name.as_deref().map(server_name).transpose()?;
        Ok(ClientTls { config: Arc::new(config), server_name, digest: digest.finalize().into() })
    }

    /// Our part of a connection to `host`, which is a name or an IP address.
    ///
    /// # Errors
    /// What is wrong with the name, in one sentence.
    pub(crate) fn session(&self, host: &str) -> Result<Session, String> {
        let name = self.name(host)?;
        Session::client(Arc::clone(&self.config), name).map_err(|error| error.to_string())
    }

    /// As [`ClientTls::session`], for a socket that blocks.
    ///
    /// # Errors
    /// What is wrong with the name, in one sentence.
    pub(crate) fn connection(&self, host: &str) -> Result<ClientConnection, String> {
        let name = self.name(host)?;
        ClientConnection::new(Arc::clone(&self.config), name).map_err(|error| error.to_string())
    }

    fn name(&self, host: &str) -> Result<ServerName<'static>, String> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => server_name(host),
        }
    }
}

/// The name that a certificate must be for.
///
/// # Errors
/// One sentence.
pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| format!("{host:?} is no name that a certificate can be for"))
}

fn certificate_of(
    files: &CertificateFiles,
    chain: &[u8],
    key: &str,
) -> Result<Certificate, String> {
    Certificate::parse(chain, key.as_bytes(), None).map_err(|problem| match problem {
        Problem::Chain(what) => format!("{} {what}", files.chain.display()),
        Problem::Key(what) => format!("{} {what}", files.key.display()),
    })
}

/// Reads issuers' certificates.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the name of the file.
fn roots(text: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(text)? {
        let added = roots.add(certificate);
        added.map_err(|error| format!("holds a certificate that issues none: {error}"))?;
    }
    if roots.is_empty() {
        return Err("holds no certificate".to_owned());
    }
    Ok(roots)
}

/// The issuers that this machine trusts.
///
/// # Errors
/// One sentence, when there are none.
fn system_roots(ca_option: &str) -> Result<Arc<RootCertStore>, String> {
    static READ: Mutex<Option<(Instant, Arc<RootCertStore>)>> = Mutex::new(None);
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, roots)) = &*read
        && at.elapsed() < SYSTEM_ROOTS
    {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some of a system's certificates may be of kinds that nobody trusts any more.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(format!(
            "this machine trusts no issuer of certificates{why}; name one by {ca_option}"
        ));
    }
    let roots = Arc::new(roots);
    *read = Some((Instant::now(), Arc::clone(&roots)));
    Ok(roots)
}
