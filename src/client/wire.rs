//! The sending side of a bridge whose program shares its places: what the program writes, and messages of ours
//! between its responses.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::connection::Connection;
use super::messages::Responses;

/// The connection, and what the program writes to it.
pub(super) struct Wire {
    pub connection: Connection,
    writing: Mutex<Writing>,
    /// Everything passes.
    pub is_tunnel: AtomicBool,
    /// A part of the last request is still to come.
    pub is_in_body: AtomicBool,
}

#[derive(Default)]
pub(super) struct Writing {
    pub responses: Responses,
    /// What is to be sent before anything else, from `sent` on.
    pub owed: Vec<u8>,
    sent: usize,
    /// With the last byte that is owed a response is over.
    pub is_over: bool,
    /// A request has a place.
    pub has_place: bool,
    /// A 101 was acknowledged, so a request is to follow.
    pub expects: bool,
}

impl Wire {
    pub fn new(connection: Connection) -> Wire {
        let (writing, is_tunnel, is_in_body) = Default::default();
        Wire { connection, writing, is_tunnel, is_in_body }
    }

    pub fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message, without waiting, unless a response is under way; with `if_idle`, or a request is
    /// here.
    /// Returns whether it is sent.
    pub fn say(&self, message: &[u8], if_idle: bool) -> bool {
        let Ok(mut writing) = self.writing.try_lock() else { return false };
        let is_open = writing.responses.is_between() && writing.owed.is_empty();
        if !is_open || if_idle && (writing.has_place || writing.expects) {
            return false;
        }
        match self.connection.send_now(message) {
            Ok(count) => writing.owed.extend_from_slice(&message[count..]),
            Err(_) => return false,
        }
        true
    }

    /// Sends what is owed. What is left at an error can be sent later.
    pub fn flush(&self, writing: &mut Writing) -> io::Result<()> {
        while writing.sent < writing.owed.len() {
            match (&self.connection).write(&writing.owed[writing.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => writing.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // An idle bridge keeps no storage.
        (writing.owed, writing.sent) = (Vec::new(), 0);
        Ok(())
    }
}
