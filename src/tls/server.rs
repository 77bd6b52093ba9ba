//! What the proxy's TLS listeners are made with.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::authority::Verifier;
use super::certificate::Certificate;
use super::tickets::{ListenerTickets, Tickets};
use super::{ALPN, provider, versions};
use crate::config::TlsVersion;
use crate::net::ktls;
use crate::net::tls::note_server_name;

/// What a listener has.
pub(crate) struct ServerOptions {
    /// The first is shown to those who ask for no name, or for one that none is for.
    pub certificates: Vec<Certificate>,
    pub least: TlsVersion,
    /// What verifies the certificates of clients, which are asked for then (RFC 8446, section 4.3.2).
    pub clients: Option<Verifier>,
    pub tickets: Arc<Tickets>,
    /// The kernel encrypts, where it can.
    pub ktls: bool,
}

/// The settings of a listener's sessions.
///
/// # Errors
/// What does not fit together, in one sentence.
pub(crate) fn server(options: ServerOptions) -> Result<Arc<ServerConfig>, String> {
    let ServerOptions { certificates, least, clients, tickets, ktls } = options;
    let asks_for = clients.as_ref().map(|verifier| verifier.digest().to_vec()).unwrap_or_default();
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(least))
        .map_err(|error| error.to_string())?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier.for_handshakes()),
    };
    let names = Names::new(certificates).ok_or("no certificate is given")?;
    let mut config = builder.with_cert_resolver(Arc::new(names));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ticketer = Arc::new(ListenerTickets { tickets, of: asks_for });
    // A ticket holds all that is to be remembered (RFC 5077).
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.enable_secret_extraction = ktls && ktls::support().is_available();
    Ok(Arc::new(config))
}

/// Which certificate a client is shown: that for the very name it asks for, one for all names a level
/// below another, or the first of all (RFC 6066 section 3, RFC 6125 section 6.4.3).
#[derive(Debug)]
struct Names {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows `*.`.
    wildcards: HashMap<String, Arc<CertifiedKey>>,
    first: Arc<CertifiedKey>,
}

impl Names {
    /// `None` if there are no certificates. Of several for one name the first is taken.
    fn new(certificates: Vec<Certificate>) -> Option<Names> {
        let first = certificates.first()?.key();
        let mut names = Names { exact: HashMap::new(), wildcards: HashMap::new(), first };
        for certificate in &certificates {
            for name in certificate.names() {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(rest) => (&mut names.wildcards, rest),
                    None => (&mut names.exact, name.as_str()),
                };
                map.entry(name.to_owned()).or_insert_with(|| certificate.key());
            }
        }
        Some(names)
    }

    fn find(&self, name: &str) -> &Arc<CertifiedKey> {
        let above = name.split_once('.').map(|(_, above)| above);
        self.exact.get(name).or_else(|| self.wildcards.get(above?)).unwrap_or(&self.first)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let key = name.as_deref().map_or(&self.first, |name| self.find(name));
        note_server_name(name.as_deref());
        Some(Arc::clone(key))
    }
}
