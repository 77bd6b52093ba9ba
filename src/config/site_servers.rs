//! The servers of a site (`servers=`), and the TLS that some of them are spoken to with.

use std::fmt;
use std::path::PathBuf;

use super::address::has_port;
use super::destination::Destination;
use super::listen_tls::CertificateFiles;
use super::redis::{self, RedisList};
use super::values::quoted;

/// In front of a server that is spoken to by TLS.
const TLS: &str = "tls:";

/// The options that are about it.
pub(super) const TLS_OPTIONS: [&str; 3] = ["ca", "server-name", "client-cert"];

/// A server that the proxy dials itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteServer {
    /// Where it is.
    pub to: Destination,
    /// It is spoken to by TLS.
    pub tls: bool,
}

/// Whom the proxy trusts to be a site's server, and what it shows in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTls {
    /// Who may have issued the servers' certificates; without it, those that this machine trusts.
    pub ca: Option<PathBuf>,
    /// The name that a certificate must be for, in place of the one that is dialled.
    pub server_name: Option<String>,
    /// Shown to servers that ask for one.
    pub client_cert: Option<CertificateFiles>,
}

/// What the value of `servers=` names.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub servers: Vec<SiteServer>,
    /// Where Redis names more of them.
    pub redis: Vec<RedisList>,
}

impl Named {
    /// Reads the value of `servers=`.
    ///
    /// # Errors
    /// One sentence.
    pub fn read(value: &str) -> Result<Named, String> {
        let mut named = Named::default();
        for word in value.split(',') {
            if word.starts_with("rediss://") {
                return Err("Redis is not spoken to by TLS; write redis://".to_owned());
            }
            if word.starts_with(redis::SCHEME) {
                named.redis.push(RedisList::parse(word)?);
            } else {
                named.servers.push(SiteServer::parse(word)?);
            }
        }
        Ok(named)
    }
}

impl SiteServer {
    /// One that Redis names. It is a host or an address: what names a file of this machine is none.
    ///
    /// # Errors
    /// One sentence.
    pub(crate) fn named_by_redis(word: &str) -> Result<SiteServer, String> {
        // The port is as in the original.
        let with_port = if has_port(word) { word.to_owned() } else { format!("{word}:80") };
        match Destination::parse(&with_port) {
            Ok(to @ (Destination::Socket(_) | Destination::Name { .. })) => {
                Ok(SiteServer { to, tls: false })
            }
            _ => Err(format!("{} is no host with a port", quoted(word))),
        }
    }

    /// Reads a server, perhaps with `tls:` in front of it.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn parse(word: &str) -> Result<SiteServer, String> {
        match word.strip_prefix(TLS) {
            Some(to) => Ok(SiteServer { to: Destination::parse(to)?, tls: true }),
            None => Ok(SiteServer { to: Destination::parse(word)?, tls: false }),
        }
    }
}

impl ServerTls {
    /// Sets one of [`TLS_OPTIONS`].
    ///
    /// # Errors
    /// One sentence, without the name of the option.
    pub(super) fn set(&mut self, option: &str, value: &str) -> Result<(), String> {
        match (option, value) {
            (_, "") => return Err("is empty".to_owned()),
            ("ca", file) => self.ca = Some(file.into()),
            ("server-name", name) if name.bytes().all(|b| b.is_ascii_graphic()) => {
                self.server_name = Some(name.to_owned());
            }
            ("server-name", name) => return Err(format!("{} is no name", quoted(name))),
            (_, files) => {
                let (chain, key) = files.split_once(',').unwrap_or((files, files));
                if chain.is_empty() || key.is_empty() || key.contains(',') {
                    return Err("is followed by CERTIFICATE,KEY".to_owned());
                }
                let (chain, key) = (chain.into(), key.into());
                self.client_cert = Some(CertificateFiles { chain, key });
            }
        }
        Ok(())
    }

    /// What is wrong with it for these servers, in one sentence.
    pub(super) fn check(&self, servers: &[SiteServer]) -> Result<(), String> {
        let by_tls = || servers.iter().filter(|server| server.tls);
        if *self != ServerTls::default() && by_tls().next().is_none() {
            return Err(format!(
                "{} are for servers=tls:..., and there are none",
                TLS_OPTIONS.join(", ")
            ));
        }
        let is_unnamed = |server: &&SiteServer| matches!(server.to, Destination::Unix(_));
        match by_tls().find(is_unnamed) {
            Some(server) if self.server_name.is_none() => {
                Err(format!("{server} needs server-name=NAME, which its certificate is for"))
            }
            _ => Ok(()),
        }
    }

    /// Every file it needs.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let pair = self.client_cert.iter().flat_map(|files| [&files.chain, &files.key]);
        self.ca.iter().chain(pair)
    }
}

/// As in the file.
impl fmt::Display for SiteServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.tls { TLS } else { "" }, self.to)
    }
}

/// The options, as they would be written.
impl fmt::Display for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ca) = &self.ca {
            write!(f, " ca={}", ca.display())?;
        }
        if let Some(name) = &self.server_name {
            write!(f, " server-name={name}")?;
        }
        if let Some(CertificateFiles { chain, key }) = &self.client_cert {
            write!(f, " client-cert={},{}", chain.display(), key.display())?;
        }
        Ok(())
    }
}
