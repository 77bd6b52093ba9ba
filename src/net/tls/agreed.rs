//! What both sides of a session have agreed on, wherever its keys are.

use rustls::pki_types::CertificateDer;
use rustls::{CommonState, HandshakeKind, ProtocolVersion};

/// What both sides have agreed on.
#[derive(Clone, Copy)]
pub enum Agreed<'a> {
    /// As rustls knows it, which has the keys.
    Here(&'a CommonState),
    /// As it was when the kernel got the keys.
    Kept(&'a Kept),
}

/// What is kept of a session when the kernel gets its keys.
pub struct Kept {
    peer_certificates: Option<Vec<CertificateDer<'static>>>,
    handshake_kind: Option<HandshakeKind>,
    protocol_version: Option<ProtocolVersion>,
    alpn_protocol: Option<Vec<u8>>,
}

impl<'a> Agreed<'a> {
    /// The certificates that the peer has shown, its own first.
    #[must_use]
    pub fn peer_certificates(self) -> Option<&'a [CertificateDer<'static>]> {
        match self {
            Agreed::Here(state) => state.peer_certificates(),
            Agreed::Kept(kept) => kept.peer_certificates.as_deref(),
        }
    }

    /// Whether the handshake was one with certificates or with a ticket.
    #[must_use]
    pub fn handshake_kind(self) -> Option<HandshakeKind> {
        match self {
            Agreed::Here(state) => state.handshake_kind(),
            Agreed::Kept(kept) => kept.handshake_kind,
        }
    }

    /// The version of TLS.
    #[must_use]
    pub fn protocol_version(self) -> Option<ProtocolVersion> {
        match self {
            Agreed::Here(state) => state.protocol_version(),
            Agreed::Kept(kept) => kept.protocol_version,
        }
    }

    /// The protocol inside (ALPN, RFC 7301).
    #[must_use]
    pub fn alpn_protocol(self) -> Option<&'a [u8]> {
        match self {
            Agreed::Here(state) => state.alpn_protocol(),
            Agreed::Kept(kept) => kept.alpn_protocol.as_deref(),
        }
    }

    /// What is to be kept of it.
    pub(super) fn keep(self) -> Kept {
        Kept {
            peer_certificates: self.peer_certificates().map(<[_]>::to_vec),
            handshake_kind: self.handshake_kind(),
            protocol_version: self.protocol_version(),
            alpn_protocol: self.alpn_protocol().map(<[_]>::to_vec),
        }
    }
}
