//! Certificates, keys and tickets: what TLS connections are made with.
//!
//! Everything here ends in the settings of a rustls server or client. What happens on one connection
//! is in [`crate::net::tls`].

pub(crate) mod authority;
pub(crate) mod certificate;
pub(crate) mod client;
pub(crate) mod peer;
pub(crate) mod server;
pub(crate) mod tickets;

pub(crate) use authority::{Untrusted, Verifier};
pub(crate) use certificate::Certificate;
pub(crate) use client::ClientFiles;
pub use client::ClientTls;
pub(crate) use peer::PeerCertificate;
pub(crate) use server::{ServerOptions, server};
pub(crate) use tickets::Tickets;

use std::sync::{Arc, LazyLock};

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};

use crate::config::TlsVersion;

/// The only protocol that is spoken inside (ALPN, RFC 7301).
const ALPN: &[u8] = b"http/1.1";

/// The cryptography, the same for all connections.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// The versions that are spoken.
fn versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
    match least {
        TlsVersion::V12 => BOTH,
        TlsVersion::V13 => &BOTH[..1],
    }
}
