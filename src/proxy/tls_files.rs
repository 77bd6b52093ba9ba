//! The files that TLS listeners need: certificates, private keys, and the keys of session tickets.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use sha2::{Digest, Sha256};

use crate::config::{CertificateFiles, ClientCert, ListenTls, ServerTls, Settings, Site, Source};
use crate::tls::authority::Authority;
use crate::tls::certificate::Problem;
use crate::tls::{Certificate, ClientFiles, ClientTls, ServerOptions, Tickets, Verifier, server};

use super::file_texts::{read_public, read_secrets};
use super::problems::or_note;

/// At the end of the name of a file beside a certificate: its OCSP response in DER, as for haproxy.
const STAPLE: &str = "ocsp";

/// What verifies the certificates of peers, by the address of the listener at which they show them.
#[derive(Debug, Default)]
pub(super) struct Verifiers(HashMap<Arc<str>, Verifier>);

impl Verifiers {
    /// That of a listener, if it asks for certificates.
    pub(super) fn at(&self, listener: &str) -> Option<&Verifier> {
        self.0.get(listener)
    }
}

/// One listener.
#[derive(Clone)]
struct Listener {
    config: Arc<ServerConfig>,
    /// Its address, if it asks for the certificates of its peers.
    asks_at: Option<Arc<str>>,
}

/// What TLS listeners are made with.
#[derive(Clone, Default)]
pub(super) struct TlsFiles {
    /// By their places in the settings.
    listeners: Vec<Option<Listener>>,
    /// What verifies the certificates of peers.
    verifiers: Arc<Verifiers>,
    tickets: Option<Arc<Tickets>>,
    /// How the servers of sites are spoken to, by the name of the site.
    sites: HashMap<String, ClientTls>,
    /// Of everything that was read, to tell whether it has changed.
    digest: Vec<u8>,
}

impl TlsFiles {
    /// Reads the files that `settings`, which come from `source`, name.
    ///
    /// # Errors
    /// Everything that is wrong, one sentence each.
    pub(super) fn read(settings: &Settings, source: &Source) -> Result<TlsFiles, Vec<String>> {
        let mut problems = Vec::new();
        let mut reader = Reader { settings, source, digest: Sha256::new() };
        let mut sites = HashMap::new();
        for site in &settings.site {
            if site.servers.iter().any(|server| server.tls) {
                let read = reader.site(site).map_err(|what| vec![what]);
                let read = or_note(&mut problems, read);
                sites.extend(read.map(|tls| (site.name().to_owned(), tls)));
            }
        }
        if settings.listen.iter().all(|listen| listen.tls.is_none()) {
            return match problems.is_empty() {
                true => Ok(TlsFiles { sites, ..TlsFiles::default() }),
                false => Err(problems),
            };
        }
        reader.digest.update([u8::from(settings.ktls)]);
        let tickets = or_note(&mut problems, reader.tickets().map_err(|what| vec![what]));
        let tickets = tickets.map(Arc::new);
        let mut listeners = Vec::new();
        let mut verifiers = HashMap::new();
        for listen in &settings.listen {
            let made = match (&listen.tls, &tickets) {
                (Some(tls), Some(tickets)) => or_note(&mut problems, reader.listener(tls, tickets)),
                _ => None,
            };
            listeners.push(made.map(|(config, verifier)| {
                let asks_at = verifier.map(|verifier| {
                    let address: Arc<str> = listen.address.to_string().into();
                    verifiers.insert(Arc::clone(&address), verifier);
                    address
                });
                Listener { config, asks_at }
            }));
        }
        if !problems.is_empty() {
            // Several listeners may have the same file.
            let mut all = Vec::new();
            for problem in problems {
                if !all.contains(&problem) {
                    all.push(problem);
                }
            }
            return Err(all);
        }
        let verifiers = Arc::new(Verifiers(verifiers));
        let digest = reader.digest.finalize().to_vec();
        Ok(TlsFiles { listeners, verifiers, tickets, sites, digest })
    }

    /// What the sessions of the listener at this place in the settings are made with, if it is
    /// encrypted.
    pub(super) fn of_listener(&self, place: usize) -> Option<Arc<ServerConfig>> {
        Some(Arc::clone(&self.listeners.get(place)?.as_ref()?.config))
    }

    /// The address of the listener at this place, if it asks for the certificates of its peers.
    pub(super) fn asks_at(&self, place: usize) -> Option<Arc<str>> {
        self.listeners.get(place)?.as_ref()?.asks_at.clone()
    }

    /// How the servers of a site are spoken to.
    pub(super) fn of_site(&self, name: &str) -> Option<ClientTls> {
        self.sites.get(name).cloned()
    }

    /// Makes what is needed to speak to the servers of the site of this name, which was made at run
    /// time and names no files, and forgets what no site needs.
    ///
    /// # Errors
    /// What is wrong, one sentence each.
    pub(super) fn speak_to(&mut self, name: &str, settings: &Settings) -> Result<(), Vec<String>> {
        let by_tls = |site: &&Arc<Site>| site.servers.iter().any(|server| server.tls);
        let mut known = std::mem::take(&mut self.sites);
        let source = Source::default();
        let reader = Reader { settings, source: &source, digest: Sha256::new() };
        for site in settings.site.iter().filter(by_tls) {
            let tls = match known.remove(site.name()) {
                Some(tls) if site.name() != name => tls,
                _ => reader.site(site).map_err(|what| vec![what])?,
            };
            self.sites.insert(site.name().to_owned(), tls);
        }
        Ok(())
    }

    /// Whether files of sites hold something else than those of `old`.
    pub(super) fn sites_differ(&self, old: &TlsFiles) -> bool {
        self.sites != old.sites
    }

    /// What verifies the certificates of peers.
    pub(super) fn verifiers(&self) -> &Arc<Verifiers> {
        &self.verifiers
    }

    /// The keys of session tickets, if there are any.
    pub(super) fn tickets(&self) -> Option<&Arc<Tickets>> {
        self.tickets.as_ref()
    }

    /// Goes on with what must not change at a reload: keys of tickets that clients still have.
    pub(super) fn take_over(&self, old: &TlsFiles) {
        if let (Some(tickets), Some(old)) = (&self.tickets, &old.tickets) {
            tickets.take_over(old);
        }
    }

    /// Whether files hold something else than those of `old`.
    pub(super) fn differ(&self, old: &TlsFiles) -> bool {
        self.digest != old.digest
    }
}

struct Reader<'s> {
    settings: &'s Settings,
    source: &'s Source,
    digest: Sha256,
}

impl Reader<'_> {
    fn tickets(&mut self) -> Result<Tickets, String> {
        let Some(path) = &self.settings.tls_ticket_keys else { return Tickets::random() };
        let text =
            read_secrets(path, self.settings, self.source, true).map_err(|all| all.join("; "))?;
        self.digest.update(&text);
        Tickets::parse(&text).map_err(|what| format!("{} {what}", path.display()))
    }

    fn listener(
        &mut self,
        tls: &ListenTls,
        tickets: &Arc<Tickets>,
    ) -> Result<(Arc<ServerConfig>, Option<Verifier>), Vec<String>> {
        let mut problems = Vec::new();
        let mut certificates = Vec::new();
        for files in &tls.certificates {
            certificates.extend(or_note(&mut problems, self.certificate(files)));
        }
        let clients = or_note(&mut problems, self.clients(tls)).flatten();
        if !problems.is_empty() {
            return Err(problems);
        }
        let (least, tickets) = (self.settings.tls_min, Arc::clone(tickets));
        let (ktls, verifier) = (self.settings.ktls, clients.clone());
        server(ServerOptions { certificates, least, clients, tickets, ktls })
            .map(|config| (config, verifier))
            .map_err(|what| vec![format!("tls={}: {what}", tls.certificates[0].chain.display())])
    }

    fn certificate(&mut self, files: &CertificateFiles) -> Result<Certificate, Vec<String>> {
        let CertificateFiles { chain, key } = files;
        let mut problems = Vec::new();
        let key_text = or_note(&mut problems, read_secrets(key, self.settings, self.source, true));
        let chain_text = if chain == key {
            key_text.clone()
        } else {
            or_note(&mut problems, self.public(chain))
        };
        let (Some(chain_text), Some(key_text)) = (chain_text, key_text) else {
            return Err(problems);
        };
        self.digest.update(&chain_text);
        self.digest.update(&key_text);
        let staple = self.staple(chain)?;
        Certificate::parse(chain_text.as_bytes(), key_text.as_bytes(), staple).map_err(|problem| {
            let (path, what) = match &problem {
                Problem::Chain(what) => (chain, what),
                Problem::Key(what) => (key, what),
            };
            vec![format!("{} {what}", path.display())]
        })
    }

    /// The OCSP response beside a certificate, if there is one.
    fn staple(&mut self, chain: &Path) -> Result<Option<Vec<u8>>, Vec<String>> {
        let mut name = chain.as_os_str().to_owned();
        name.push(".");
        name.push(STAPLE);
        let path = PathBuf::from(name);
        match std::fs::read(&path) {
            Ok(bytes) => {
                self.digest.update(&bytes);
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // Where only root may read, as a start has, it may not be there at all.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                log::warn!("cannot read {}: {error}: no OCSP answer is stapled", path.display());
                Ok(None)
            }
            Err(error) => Err(vec![format!("cannot read {}: {error}", path.display())]),
        }
    }

    fn clients(&mut self, tls: &ListenTls) -> Result<Option<Verifier>, Vec<String>> {
        let Some(path) = &tls.client_ca else { return Ok(None) };
        let told = |path: &Path, what: String| vec![format!("{} {what}", path.display())];
        let text = self.public(path)?;
        let mut authority = Authority::parse(text.as_bytes()).map_err(|what| told(path, what))?;
        if let Some(path) = &tls.client_crl {
            let text = self.public(path)?;
            authority = authority.revoke(text.as_bytes()).map_err(|what| told(path, what))?;
        }
        let required = tls.client_cert == ClientCert::Required;
        authority.verifier(required).map(Some).map_err(|what| vec![format!("client-ca=: {what}")])
    }

    /// How the servers of a site are spoken to.
    fn site(&self, site: &Site) -> Result<ClientTls, String> {
        let ServerTls { ca, server_name, client_cert } = site.tls.clone();
        let files = ClientFiles { ca, server_name, certificate: client_cert };
        let public = |path: &Path| read_public(path, self.source).map(String::into_bytes);
        let secret = |path: &Path| read_secrets(path, self.settings, self.source, true);
        ClientTls::read(
            &files,
            "ca=",
            |path| public(path).map_err(|all| all.join("; ")),
            |path| secret(path).map_err(|all| all.join("; ")),
        )
        .map_err(|what| format!("site {}: {what}", site.name()))
    }

    /// A file without secrets.
    fn public(&mut self, path: &Path) -> Result<String, Vec<String>> {
        let text = read_public(path, self.source)?;
        self.digest.update(&text);
        Ok(text)
    }
}
