//! Builds a listener.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::announce::{Announcement, is_taken};
use super::listener::{BridgeListener, MISSED_PINGS, PING_INTERVAL, Shared};
use super::parked::Parked;
use super::places::Places;
use super::target::Target;
use crate::bridge::extensions::AGENT_OF_LIBRARY;
use crate::bridge::instance::{INSTANCE, INSTANCE_FORM, InstanceName};
use crate::bridge::{BackendToken, HostKey, pattern, request};
use crate::config::{CertificateFiles, SecretsMode};
use crate::http::{Limits, Predicates};
use crate::tls::ClientFiles;

/// The settings of a [`BridgeListener`]. Made by [`BridgeListener::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    proxy: String,
    scope: Scope,
    ping_interval: Duration,
    /// What program the proxy is told it is.
    agent: &'static str,
    tls: ClientFiles,
    secrets_mode: SecretsMode,
    places: Option<Places>,
}

/// What a backend registers for.
#[derive(Clone, PartialEq, Eq)]
pub struct Scope {
    /// Host patterns; if there is none, every host.
    pub hosts: Vec<String>,
    /// Path prefix.
    pub prefix: String,
    /// Host keys. Never shown.
    pub keys: Vec<String>,
    /// Whether the keys are sent as they are, and not proven; by default they are not.
    pub bearer_keys: Option<bool>,
    /// The name of the backend that stays the same when it comes again.
    pub instance: Option<String>,
    /// What a request must be like to come here, beside its host and path: names and values of `If-*`
    /// fields.
    pub predicates: Vec<(String, String)>,
}

impl BridgeListener {
    /// Starts to build a listener at a proxy, given as `host:port`, or as `host` for port 8079. After
    /// `tls://` it is dialled by TLS, and the port is 8443 unless another is given. Nothing is dialled before
    /// [`accept`](BridgeListener::accept).
    pub fn builder(proxy: impl Into<String>) -> Builder {
        Builder {
            proxy: proxy.into(),
            scope: Scope::default(),
            ping_interval: PING_INTERVAL,
            agent: AGENT_OF_LIBRARY,
            tls: ClientFiles::default(),
            secrets_mode: SecretsMode::default(),
            places: None,
        }
    }
}

impl Builder {
    /// Adds a host to serve: a name, `*.` and a name for all names below it, or `*` for every name.
    /// The default is `*`.
    #[must_use]
    pub fn host(mut self, pattern: impl Into<String>) -> Builder {
        self.scope.hosts.push(pattern.into());
        self
    }

    /// Serves only requests whose path begins with these whole segments, such as `/api`. The
    /// default is `/`.
    #[must_use]
    pub fn prefix(mut self, path: impl Into<String>) -> Builder {
        self.scope.prefix = path.into();
        self
    }

    /// Adds a host key, as `cloudbridge-key` prints it.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Builder {
        self.scope.keys.push(key.into());
        self
    }

    /// Takes only requests of a certain kind: the name and the value of an `If-*` field, such as
    /// `If-Method` and `GET, HEAD` (`doc/lanes.md`). May be called several times.
    #[must_use]
    pub fn predicate(mut self, name: impl Into<String>, value: impl Into<String>) -> Builder {
        self.scope.predicates.push((name.into(), value.into()));
        self
    }

    /// The name of this program, the same at all proxies and after a restart, and another in each
    /// process: clients of a sticky site come back to it. The default is none.
    #[must_use]
    pub fn instance(mut self, name: impl Into<String>) -> Builder {
        self.scope.instance = Some(name.into());
        self
    }

    /// Sends the host keys as they are, as the original proxy and earlier versions need them:
    /// everybody on the way, and a false proxy, can then use them. The default is to prove them, which
    /// gives nothing away, and to be refused by a proxy that does not ask for proofs.
    #[must_use]
    pub fn bearer_keys(mut self, allowed: bool) -> Builder {
        self.scope.bearer_keys = Some(allowed);
        self
    }

    /// The file of the issuers, in PEM, that the certificate of a `tls://` proxy may be from. The default are
    /// those that this machine trusts.
    #[must_use]
    pub fn ca(mut self, file: impl Into<PathBuf>) -> Builder {
        self.tls.ca = Some(file.into());
        self
    }

    /// The name, or IP address, that its certificate must be for. The default is the one that is dialled.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Builder {
        self.tls.server_name = Some(name.into());
        self
    }

    /// The files, in PEM, of a certificate with those between it and its issuer, and of its private key: shown
    /// to a `tls://` proxy that asks for one. Nobody but the key's owner and group may be able to read it.
    #[must_use]
    pub fn client_cert(mut self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Builder {
        let (chain, key) = (chain.into(), key.into());
        self.tls.certificate = Some(CertificateFiles { chain, key });
        self
    }

    /// The places that this listener shares with those at other proxies: a program that is parked at several
    /// serves so many requests at once, wherever they come from. Each listener should be accepted from by as
    /// many threads as there are places. Not for a single proxy, which needs none of it.
    /// [`AsyncBridgeListener::several`](super::AsyncBridgeListener) does this by itself.
    #[must_use]
    pub fn places(mut self, places: &Places) -> Builder {
        self.places = Some(places.clone());
        self
    }

    pub(crate) fn tls(self, tls: ClientFiles, secrets_mode: SecretsMode) -> Builder {
        Builder { tls, secrets_mode, ..self }
    }

    pub(crate) fn scope(self, scope: Scope) -> Builder {
        Builder { scope, ..self }
    }

    pub(crate) fn agent(self, agent: &'static str) -> Builder {
        Builder { agent, ..self }
    }

    /// The interval at which the proxy pings a parked bridge; the default is [`PING_INTERVAL`].
    /// After three missing pings the proxy counts as gone and is dialled again.
    #[must_use]
    pub fn ping_interval(mut self, interval: Duration) -> Builder {
        self.ping_interval = interval;
        self
    }

    /// The listener.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, with one sentence, for a host, prefix, key or interval that a proxy would
    /// refuse, and for files for TLS that cannot be read or used.
    pub fn build(self) -> io::Result<BridgeListener> {
        let silence = self.ping_interval.saturating_mul(MISSED_PINGS);
        if silence.is_zero() {
            return Err(invalid("the ping interval is zero".to_owned()));
        }
        let request = self.scope.request()?;
        let target = Target::new(&self.proxy, self.tls, self.secrets_mode).map_err(invalid)?;
        let announcement = match self.places {
            None => Announcement::of(&request, self.agent),
            Some(_) => Announcement::of_several(&request, self.agent),
        };
        // Without a token the proxy could not be told anything; then all wait for their turn here.
        let token = announcement.as_ref().map(|announcement| announcement.token);
        let token = token.unwrap_or_else(|| BackendToken::new(Default::default()));
        Ok(BridgeListener {
            shared: Arc::new(Shared {
                share: self.places.map(|places| Arc::new(places.share(token))),
                announcement,
                parked: Parked::default(),
                request,
                target,
                silence,
                bearer_keys: self.scope.sends_keys(),
                hint: match self.agent {
                    AGENT_OF_LIBRARY => "Builder::bearer_keys",
                    _ => "--bearer-keys",
                },
                failures: AtomicU32::new(0),
            }),
        })
    }
}

impl Scope {
    /// Whether its keys are sent as they are.
    pub(crate) fn sends_keys(&self) -> bool {
        self.bearer_keys == Some(true)
    }

    /// The BRIDGE request. Every part is checked by the proxy's own rules, so that none can smuggle
    /// in a line of its own.
    pub(crate) fn request(&self) -> io::Result<Vec<u8>> {
        let prefix = request::prefix(&self.prefix).map_err(|refusal| {
            invalid(format!("bad prefix {:?}: {}", self.prefix, refusal.text))
        })?;
        let prefix = if prefix.is_empty() { "/" } else { &prefix };
        let mut request = format!("BRIDGE {prefix} HTTP/1.1\r\nExpect: 100-continue\r\n");
        let every = [String::from("*")];
        let hosts = if self.hosts.is_empty() { &every[..] } else { &self.hosts };
        for host in hosts {
            pattern::parse(host.as_bytes())
                .map_err(|bad| invalid(format!("bad host {host:?}: {bad}")))?;
            // Verbatim: the original proxy compares hosts and keys as text.
            request += &format!("Host: {host}\r\n");
        }
        for key in &self.keys {
            HostKey::parse(key.as_bytes()).map_err(|bad| invalid(format!("bad key: {bad}")))?;
            request += &format!("Host-Key: {key}\r\n");
        }
        let mut known = Predicates::default();
        for (name, value) in &self.predicates {
            known
                .take(name, value.as_bytes())
                .unwrap_or_else(|| Err("there is no such predicate".to_owned()))
                .map_err(|bad| invalid(format!("bad {name} {value:?}: {bad}")))?;
            request += &format!("{name}: {value}\r\n");
        }
        if let Some(name) = &self.instance {
            InstanceName::parse(name.as_bytes())
                .ok_or_else(|| invalid(format!("bad instance {name:?}: {INSTANCE_FORM}")))?;
            request += &format!("{INSTANCE}: {name}\r\n");
        }
        request += "\r\n";
        match request::parse(request.as_bytes(), &Limits::default()) {
            Ok(Some(_)) if !self.sends_keys() && !is_taken(request.as_bytes()) => Err(invalid(
                "there is no room for the proof of the keys: one field less".to_owned(),
            )),
            Ok(Some(_)) => Ok(request.into_bytes()),
            Ok(None) => Err(invalid("the registration is too long".to_owned())),
            Err(refusal) => Err(invalid(refusal.text)),
        }
    }
}

impl Default for Scope {
    /// All requests, without a key.
    fn default() -> Scope {
        let (hosts, keys) = (Vec::new(), Vec::new());
        let (prefix, predicates) = (String::from("/"), Vec::new());
        Scope { hosts, prefix, keys, bearer_keys: None, instance: None, predicates }
    }
}

/// Without the keys.
impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scope { hosts, prefix, keys, .. } = self;
        let how = if self.sends_keys() { "bearer keys" } else { "keys" };
        write!(f, "{hosts:?} below {prefix:?} with {} {how}", keys.len())
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
