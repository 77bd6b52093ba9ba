//! What is known of a connection that comes through an old program, which has its TLS (`relays.rs`).

use std::sync::Arc;

use crate::time::Millis;

use super::certificates::Shown;

/// What the new program must know of the TLS of a connection, which the old one keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Relayed {
    /// The name that a client has asked for.
    pub(in crate::proxy) server_name: Option<Arc<str>>,
    /// The listener, if it has asked for a certificate.
    pub(in crate::proxy) asked_at: Option<Arc<str>>,
    /// The peer has shown some certificate.
    pub(in crate::proxy) has_shown: bool,
    /// That certificate, if it could be read.
    pub(in crate::proxy) shown: Option<Shown>,
}

/// A connection that comes through an old program.
pub(super) struct ThroughOld {
    pub(super) relayed: Relayed,
    /// When it is to be closed, if it is a bridge.
    pub(super) until: Millis,
}

/// Shared by the client and the bridge that a connection becomes; nothing for most.
pub(super) type Through = Option<Arc<ThroughOld>>;

impl ThroughOld {
    /// The certificate that its peer has shown to the old program.
    pub(super) fn shown(&self) -> Option<&Shown> {
        self.relayed.shown.as_ref()
    }

    /// The name for which its client has shown a certificate, if it has.
    pub(super) fn shown_for(&self) -> Option<&str> {
        self.relayed.server_name.as_deref().filter(|_| self.relayed.has_shown)
    }
}
