//! Connections of the agent that are encrypted: to proxies, and to applications.

use super::role::Role;
use super::service::Encryption;
use super::state::Agent;
use crate::net::tls::TlsError;

impl Agent {
    /// Encrypts a connection that is being made. It is ready once its handshake is done.
    ///
    /// # Errors
    /// What is wrong with the name, in one sentence.
    pub(super) fn encrypt(&mut self, key: usize, encryption: &Encryption) -> Result<(), String> {
        let session = encryption.tls.session(&encryption.host)?;
        let (connection, ws) = self.conns.split(key);
        connection.conn.start_tls(session, &mut ws.pool);
        Ok(())
    }

    /// A connection that is to be encrypted could not be made.
    pub(super) fn encryption_failed(&mut self, key: usize, error: TlsError) {
        let error = error.into();
        match self.conns.role(key) {
            Some(Role::Bridge(_)) => self.bridge_unreachable(key, error),
            Some(Role::Upstream(_)) => self.connect_failed(key, &error),
            Some(Role::Deregistration(_)) => self.deregistration_failed(key, &error),
            Some(Role::Asker) | None => {}
        }
    }
}
