//! Host names, looked up by other threads: the system's resolver can take seconds.

use crate::net::resolver;

/// What a name is looked up for; the numbers are indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    Proxy(usize),
    Cluster(usize),
    /// For a probe of the application.
    Application(usize),
    /// To see whether the application has moved.
    Refresh(usize),
}

/// The threads that look names up.
pub(super) type Resolver = resolver::Resolver<Lookup>;

/// A host name that is looked up from time to time.
pub(super) struct Name {
    pub host: String,
    port: u16,
    under_way: bool,
}

impl Name {
    pub fn new(host: String, port: u16) -> Name {
        Name { host, port, under_way: false }
    }

    /// Begins a lookup, unless one is under way.
    pub fn ask(&mut self, resolver: &Resolver, lookup: Lookup) {
        if !std::mem::replace(&mut self.under_way, true) {
            resolver.ask(lookup, &self.host, self.port);
        }
    }

    /// Notes that the lookup has been answered.
    pub fn answered(&mut self) {
        self.under_way = false;
    }
}
