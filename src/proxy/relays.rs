//! What becomes of TLS connections when a new program takes over (`doc/upgrade.md`). The keys of their
//! records are here, so the old program keeps the sockets. In place of each the new one is given one
//! end of a pair of Unix sockets, and the old one only passes bytes on between the other end and the
//! connection, decrypted on one side: a *relay*. It ends with its connection.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::net::TcpStream;

use crate::http::reply::Reply;
use crate::net::conn::Received;
use crate::time::Millis;

use super::closing::{self, End};
use super::reason::Reason;
use super::role::{Bridge, Handshake, Role};
use super::through_old::Relayed;
use super::worker::Worker;

/// How many bytes a relay passes on in one direction before others have their turn.
const BUDGET: usize = 1 << 20;

/// Within which time after an upgrade the new program closes the bridges that come through the old
/// one, so that their backends dial it directly. They must not all do so at once.
const CLOSING: Duration = Duration::from_secs(4);

/// The first is closed after this time: by then requests that have waited for it have it.
const FIRST_CLOSED: Duration = Duration::from_secs(2);

/// How often a worker looks for bridges whose time has come.
const LOOK: Duration = Duration::from_millis(100);

/// What the new program is told of a bridge that has no request.
const DIAL_AGAIN: &str = "the proxy has been replaced by a new program; dial again";

/// What one direction of a relay has come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passed {
    /// Nothing more now.
    All,
    /// There may be more.
    Again,
    /// Its source has sent its FIN, and that has been passed on.
    End,
    /// One of the two connections is broken.
    Broken,
}

impl Worker {
    /// Both ends of a relay's Unix socket: the one for the new program, and ours.
    fn relay_pair() -> Option<(UnixStream, UnixStream)> {
        let (theirs, ours) = UnixStream::pair().ok()?;
        theirs.set_nonblocking(true).and_then(|()| ours.set_nonblocking(true)).ok()?;
        Some((theirs, ours))
    }

    /// What the new program must know of the TLS of a connection; nothing of a plain one.
    pub(super) fn relayed(&self, key: usize) -> Option<Relayed> {
        let connection = &self.conns[key];
        if let Some(session) = connection.conn.tls() {
            let identity = session.identity();
            return Some(Relayed {
                server_name: identity.server_name.clone(),
                asked_at: identity.asked_at.clone(),
                has_shown: session.agreed().peer_certificates().is_some(),
                shown: self.shown_by(key),
            });
        }
        let through = match connection.role()? {
            Role::ReadingHead { client, .. } | Role::Queued { client, .. } => &client.through_old,
            role => &role.bridge()?.through_old,
        };
        through.as_ref().map(|through| through.relayed.clone())
    }

    /// Gives the new program, by `send`, an end of a Unix socket in place of a TLS connection, which
    /// is a relay from then on. `None` if there are no descriptors for it, false if the new program has
    /// not taken it.
    pub(super) fn relay(
        &mut self,
        key: usize,
        send: impl FnOnce(&mut Worker, &dyn AsFd) -> bool,
    ) -> Option<bool> {
        let (theirs, ours) = Worker::relay_pair()?;
        let token = self.conns[key].token();
        let stream = TcpStream::from_std(OwnedFd::from(ours).into());
        let peer = self.conns[key].peer;
        let other = self.insert(stream, peer, Role::Relayed { other: token }).ok()?;
        if !send(self, &theirs) {
            self.end(other, End::Close);
            return Some(false);
        }
        let other_token = self.conns[other].token();
        let role = self.take_role(key);
        if let Some(bridge) = role.as_ref().and_then(Role::bridge) {
            closing::bridge_left(bridge, &mut self.scheduler, self.conns.now());
        }
        let (connection, ws) = self.conns.split(key);
        connection.conn.input.clear(&mut ws.pool);
        self.set_role(key, Role::Relayed { other: other_token });
        self.conns.clear_deadline(key);
        self.conns.requeue(key);
        Some(true)
    }

    /// Passes on what has come, in both directions.
    pub(super) fn pass_relayed(&mut self, key: usize) {
        let Some(&Role::Relayed { other }) = self.conns.role(key) else { return };
        let Some(other) = self.conns.find(other) else { return self.end(key, End::Linger) };
        let ways = [[key, other], [other, key]];
        let passed = ways.map(|keys| self.pass_one_way(keys));
        if passed.contains(&Passed::Again) {
            self.conns.requeue(key);
        }
        if passed.contains(&Passed::Broken) {
            // What has come the other way is still passed on.
            let is_busy = |(passed, [_, to]): (Passed, [usize; 2])| match passed {
                Passed::Again => true,
                Passed::All => self.conns[to].conn.has_unsent(),
                Passed::End | Passed::Broken => false,
            };
            if !passed.into_iter().zip(ways).any(is_busy) {
                for (passed, [_, to]) in passed.into_iter().zip(ways) {
                    self.end_relayed(to, passed);
                }
            }
        } else if passed == [Passed::End; 2] {
            self.end(key, End::Close);
            self.end(other, End::Close);
        }
    }

    /// Ends the end of a relay to which so much has been passed: what was cut off must look cut off.
    /// One that has had our FIN has been given its time to close by the new program.
    fn end_relayed(&mut self, key: usize, passed: Passed) {
        let conn = &self.conns[key].conn;
        let is_over = conn.is_shut() && conn.output.is_empty();
        self.end(
            key,
            match passed {
                Passed::End if is_over => End::Close,
                Passed::End => End::Linger,
                Passed::All | Passed::Again | Passed::Broken => End::Reset,
            },
        );
    }

    fn pass_one_way(&mut self, keys: [usize; 2]) -> Passed {
        let Some(([from, to], ws)) = self.conns.pair(keys) else { return Passed::Broken };
        let mut passed = 0;
        loop {
            match to.flush(&mut ws.pool) {
                Ok(true) => {}
                Ok(false) => return Passed::All,
                Err(_) => return Passed::Broken,
            }
            if from.has_ended() {
                // One that has closed, and not only sent its FIN, takes nothing more either.
                if from.is_broken() {
                    return Passed::Broken;
                }
                to.shut_down();
                return Passed::End;
            }
            if passed >= BUDGET {
                return Passed::Again;
            }
            match from.receive(&mut ws.scratch) {
                Received::Bytes(count) => {
                    passed += count;
                    if to.send(&ws.scratch[..count], &mut ws.pool).is_err() {
                        return Passed::Broken;
                    }
                }
                // Without a close the loop finds the end, or nothing.
                Received::End if from.has_ended() => {}
                Received::End | Received::Broken(_) => return Passed::Broken,
                Received::Nothing if from.is_broken() => return Passed::Broken,
                Received::Nothing => return Passed::All,
            }
        }
    }

    /// When a bridge that comes through an old program is to be closed: each at another time.
    pub(super) fn close_through_old_at(&self) -> Millis {
        let number = self.shared.through_old.fetch_add(1, Ordering::Relaxed);
        // The golden section spreads any number of them evenly.
        let part = (number as f64 * 0.618_033_988_75).fract();
        let until = self.conns.now().millis() + FIRST_CLOSED + CLOSING.mul_f64(part);
        // Some may be busy then, or on their way between workers.
        let looks_until = (until + CLOSING).0;
        self.shared.close_through_old_until.fetch_max(looks_until, Ordering::SeqCst);
        until
    }

    /// Closes the bridges that come through an old program and whose time has come.
    pub(super) fn close_through_old(&mut self) {
        let now = self.conns.now().millis();
        if self.next_through_old().is_none_or(|at| now < at) {
            return;
        }
        self.through_old_at = now + LOOK;
        let is_due = move |bridge: &Bridge| {
            bridge.through_old.as_ref().is_some_and(|through| through.until <= now)
        };
        for key in self.conns.keys_with(|role| role.bridge().is_some_and(is_due)) {
            self.dismiss(key);
        }
        for key in self.idle_bridges(is_due) {
            match self.conns.role(key).and_then(Role::bridge) {
                Some(bridge) if bridge.handshake == Handshake::Fresh => {
                    self.reject(key, Reason::ShuttingDown, Reply::new(504, DIAL_AGAIN));
                }
                _ => self.end(key, End::Linger),
            }
        }
    }

    /// When to call [`Worker::close_through_old`].
    pub(super) fn next_through_old(&self) -> Option<Millis> {
        let until = Millis(self.shared.close_through_old_until.load(Ordering::Relaxed));
        (until >= self.through_old_at).then_some(self.through_old_at)
    }
}
