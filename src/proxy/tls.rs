//! The handshakes of connections that are encrypted. The event loop makes them; what follows is ours.

use std::sync::Arc;

use rustls::HandshakeKind;

use crate::net::log_limiter;
use crate::net::tls::{Session, TlsError};

use super::closing::End;
use super::listeners::Encryption;
use super::role::Role;
use super::worker::Worker;

impl Worker {
    /// Encrypts a connection from now on, if its listener does. What it has sent already begins its
    /// handshake. False if it is not encrypted.
    pub(super) fn start_tls(&mut self, key: usize, encryption: &Encryption) -> bool {
        let Some(config) = &encryption.tls else { return false };
        match Session::server(Arc::clone(config)) {
            Ok(mut session) => {
                session.set_asked_at(encryption.asks_at.clone());
                let (connection, ws) = self.conns.split(key);
                connection.conn.start_tls(session, &mut ws.pool);
                self.conns.requeue(key);
            }
            Err(error) => self.handshake_lost(key, &TlsError::Protocol(error)),
        }
        true
    }

    pub(super) fn handshake_won(&mut self, key: usize) {
        let connection = &self.conns[key];
        let is_dialled = connection.role().is_some_and(Role::is_dialled);
        let Some(session) = connection.conn.tls().filter(|_| !is_dialled) else { return };
        let stats = self.stats();
        match session.agreed().handshake_kind() {
            Some(HandshakeKind::Resumed) => stats.handshakes_resumed.add(1),
            _ => return stats.handshakes_full.add(1),
        }
        // A ticket does not say whether the certificate of the first handshake is still good.
        let identity = session.identity();
        let (Some(chain), Some(asked_at)) =
            (session.agreed().peer_certificates(), &identity.asked_at)
        else {
            return;
        };
        let verifier = self.config.tls.verifiers().at(asked_at);
        let now = self.shared.moment().unix;
        if verifier.is_none_or(|verifier| !verifier.lets_in(chain, now)) {
            let error = rustls::CertificateError::Revoked;
            self.handshake_lost(key, &TlsError::Protocol(error.into()));
        }
    }

    /// A handshake has failed. One whose peer only connects, such as a health check, is no failure.
    pub(super) fn handshake_lost(&mut self, key: usize, error: &TlsError) {
        let has_begun = self.conns[key].conn.tls().is_some_and(Session::has_begun);
        if has_begun {
            self.stats().handshakes_failed.add(1);
            if let Some(count) = self.handshake_failed.allow(self.conns.now().millis()) {
                let others = log_limiter::suppressed(count, " failed");
                let peer = self.conns[key].address();
                log::info!("TLS with {peer} failed: {error}{others}");
            }
        }
        // The peer is told why, and reads it if nothing of its own is left unread here.
        self.end(key, if error.is_told() { End::Linger } else { End::Close });
    }
}
