//! How connections come into the worker's tables, change what they are, and leave.
//!
//! Closing is in two steps: a connection that is closed is out of the lobby and of every queue
//! at once, but its slot is freed only at the end of the turn, when nobody holds its key.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::Interest;
use mio::net::TcpStream;
use slab::Slab;

use crate::net::conn::Conn;
use crate::net::token::{self, Token};

use super::role::{Role, Slot};
use super::worker::Worker;

impl Worker {
    /// Takes a socket into the tables.
    ///
    /// # Errors
    /// When the kernel does not want to watch it; then it is closed.
    pub(super) fn insert(
        &mut self,
        stream: TcpStream,
        peer: IpAddr,
        role: Role,
    ) -> io::Result<usize> {
        self.generation = token::next_generation(self.generation);
        let entry = self.slots.vacant_entry();
        let key = entry.key();
        let mut conn = Conn::new(stream);
        let token = Token::conn(key, self.generation).into();
        self.poll.registry().register(
            conn.source(),
            token,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.shared.stats[self.index].roles[role.letter()].add(1);
        entry.insert(Slot {
            conn,
            role,
            peer,
            generation: self.generation,
            queue_seen: 0,
            line: None,
            server: None,
        });
        Ok(key)
    }

    /// Makes connection `key` something else; returns what it was.
    pub(super) fn set_role(&mut self, key: usize, role: Role) -> Role {
        let stats = &self.shared.stats[self.index];
        let slot = &mut self.slots[key];
        let (old, new) = (slot.role.letter(), role.letter());
        if old != new {
            stats.roles[old].less();
            stats.roles[new].add(1);
        }
        std::mem::replace(&mut slot.role, role)
    }

    /// The connections whose role is one of `which`.
    pub(super) fn slots_with(&self, which: impl Fn(&Role) -> bool) -> Vec<usize> {
        self.slots.iter().filter(|(_, slot)| which(&slot.role)).map(|(key, _)| key).collect()
    }

    /// Does `what` to every connection whose role is one of `which`.
    pub(super) fn each_slot(
        &mut self,
        which: impl Fn(&Role) -> bool,
        what: fn(&mut Worker, usize),
    ) {
        self.slots_with(which).into_iter().for_each(|key| what(self, key));
    }

    /// The two connections of an exchange.
    pub(super) fn pair(slots: &mut Slab<Slot>, keys: [usize; 2]) -> Option<[&mut Slot; 2]> {
        slots.get_disjoint_mut(keys).ok()
    }

    /// Sets the deadline of `key` to `after` from now; zero means none.
    pub(super) fn set_deadline(&mut self, key: usize, after: Duration) {
        if after.is_zero() {
            self.timers.clear(key);
        } else {
            let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX / 2);
            self.timers.set(key, crate::time::Millis(self.now.millis() + after));
        }
    }

    /// Notes how much the kernel holds for `key`, which does not keep up. Whether some of it has
    /// gone since that was last noted.
    pub(super) fn note_queue(&mut self, key: usize) -> bool {
        let slot = &mut self.slots[key];
        let now = slot.conn.send_queue();
        std::mem::replace(&mut slot.queue_seen, now) > now
    }

    /// Has `key` driven again, after the others.
    pub(super) fn again(&mut self, key: usize) {
        let token = self.slots[key].token(key);
        self.runnable.push_back(token);
    }

    /// Closes connection `key`, whatever it is; the slot is freed at the end of the turn. An
    /// exchange that it is part of must have been dissolved before.
    pub(super) fn close(&mut self, key: usize) {
        match self.set_role(key, Role::Closed) {
            Role::Closed => return,
            role => self.role_is_over(role),
        }
        self.timers.clear(key);
        self.dying.push(key);
    }

    /// Takes a connection that was `role` out of the tables of that role.
    pub(super) fn role_is_over(&mut self, role: Role) {
        match role {
            Role::Waiting { waiter, .. } => {
                self.lobby.forget(waiter);
            }
            Role::Parked { bridge, ticket } => {
                self.lobby.unpark(ticket);
                self.bridge_is_gone(&bridge);
            }
            Role::Responding { bridge, .. } => self.responder_is_gone(&bridge),
            Role::Settling { bridge, .. } | Role::Matched { bridge } => {
                self.bridge_is_gone(&bridge);
            }
            Role::Dialling(attempt) => self.dialling.ends(attempt),
            Role::Reading(_)
            | Role::Announcing { .. }
            | Role::Requesting { .. }
            | Role::Leaving
            | Role::Closed => {}
        }
    }

    /// Frees a closed slot; dropping the socket closes it, and with that the kernel forgets it.
    pub(super) fn free(&mut self, key: usize) {
        self.write_line(key, 0, 0);
        let mut slot = self.slots.remove(key);
        slot.conn.input.clear(&mut self.ws.pool);
        slot.conn.output.clear(&mut self.ws.pool);
        self.shared.stats[self.index].roles[slot.role.letter()].less();
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        if slot.server.is_some() {
            // In this order: the server must not see one connection too many.
            drop(slot);
            self.line_is_free();
        }
    }

    /// Takes a slot out of the tables without closing its socket.
    pub(super) fn remove(&mut self, key: usize) -> Slot {
        let slot = self.slots.remove(key);
        self.timers.clear(key);
        self.shared.stats[self.index].roles[slot.role.letter()].less();
        slot
    }
}
