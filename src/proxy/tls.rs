//! The handshakes of connections that are encrypted. The event loop makes them; what follows is ours.

use std::sync::Arc;

use rustls::{HandshakeKind, ServerConfig};

use crate::net::log_limiter;
use crate::net::tls::{Session, TlsError};

use super::closing::End;
use super::worker::Worker;

impl Worker {
    /// Encrypts a connection from now on. What it has sent already begins its handshake.
    pub(super) fn start_tls(&mut self, key: usize, config: &Arc<ServerConfig>) {
        match Session::server(Arc::clone(config)) {
            Ok(session) => {
                let (connection, ws) = self.conns.split(key);
                connection.conn.start_tls(session, &mut ws.pool);
                self.conns.requeue(key);
            }
            Err(error) => self.handshake_lost(key, &TlsError::Protocol(error)),
        }
    }

    pub(super) fn handshake_won(&mut self, key: usize) {
        let Some(session) = self.conns[key].conn.tls() else { return };
        let stats = self.stats();
        match session.agreed().handshake_kind() {
            Some(HandshakeKind::Resumed) => stats.handshakes_resumed.add(1),
            _ => stats.handshakes_full.add(1),
        }
    }

    /// A handshake has failed. A peer that only connects, such as a health check, has not begun one.
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
