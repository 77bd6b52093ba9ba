//! The files that TLS listeners need: certificates, private keys, and the keys of session tickets.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use sha2::{Digest, Sha256};

use crate::config::{CertificateFiles, ClientCert, ListenTls, Settings, Source};
use crate::tls::authority::Authority;
use crate::tls::certificate::Problem;
use crate::tls::{Certificate, ClientCertificates, ServerOptions, Tickets, server};

use super::file_texts::{read_public, read_secrets};
use super::listeners::TlsListeners;
use super::problems::or_note;

/// At the end of the name of a file beside a certificate: its OCSP response in DER, as for haproxy.
const STAPLE: &str = "ocsp";

/// What TLS listeners are made with.
#[derive(Default)]
pub(super) struct TlsFiles {
    /// By their places in the settings.
    listeners: Vec<Option<Arc<ServerConfig>>>,
    tickets: Option<Arc<Tickets>>,
    /// Of everything that was read, to tell whether it has changed.
    digest: Vec<u8>,
}

impl TlsFiles {
    /// Reads the files that `settings`, which come from `source`, name.
    ///
    /// # Errors
    /// Everything that is wrong, one sentence each.
    pub(super) fn read(settings: &Settings, source: &Source) -> Result<TlsFiles, Vec<String>> {
        if settings.listen.iter().all(|listen| listen.tls.is_none()) {
            return Ok(TlsFiles::default());
        }
        let mut problems = Vec::new();
        let mut reader = Reader { settings, source, digest: Sha256::new() };
        let tickets = or_note(&mut problems, reader.tickets().map_err(|what| vec![what]));
        let tickets = tickets.map(Arc::new);
        let mut listeners = Vec::new();
        for listen in &settings.listen {
            let made = match (&listen.tls, &tickets) {
                (Some(tls), Some(tickets)) => or_note(&mut problems, reader.listener(tls, tickets)),
                _ => None,
            };
            listeners.push(made);
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
        Ok(TlsFiles { listeners, tickets, digest: reader.digest.finalize().to_vec() })
    }

    /// What the sessions of each listener are made with.
    pub(super) fn listeners(&self) -> &TlsListeners {
        &self.listeners
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
    ) -> Result<Arc<ServerConfig>, Vec<String>> {
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
        server(ServerOptions { certificates, least, clients, tickets })
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
            Err(error) => Err(vec![format!("cannot read {}: {error}", path.display())]),
        }
    }

    fn clients(&mut self, tls: &ListenTls) -> Result<Option<ClientCertificates>, Vec<String>> {
        let Some(path) = &tls.client_ca else { return Ok(None) };
        let told = |path: &Path, what: String| vec![format!("{} {what}", path.display())];
        let text = self.public(path)?;
        let mut authority = Authority::parse(text.as_bytes()).map_err(|what| told(path, what))?;
        if let Some(path) = &tls.client_crl {
            let text = self.public(path)?;
            authority = authority.revoke(text.as_bytes()).map_err(|what| told(path, what))?;
        }
        let required = tls.client_cert == ClientCert::Required;
        Ok(Some(ClientCertificates { authority, required }))
    }

    /// A file without secrets.
    fn public(&mut self, path: &Path) -> Result<String, Vec<String>> {
        let text = read_public(path, self.source)?;
        self.digest.update(&text);
        Ok(text)
    }
}
