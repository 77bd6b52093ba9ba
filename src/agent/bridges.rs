//! A bridge until its first request: dial, register, park, match.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::application::BEARER_KEYS;
use super::role::{Bridge, Role, Stage, TunnelPlace};
use super::slots::Slot;
use super::state::{Agent, NO_ANSWER, USER_TIMEOUT, closed, timed_out};
use crate::bridge::answer::{self, Answer};
use crate::bridge::extensions::Extensions;
use crate::bridge::proof::Nonce;
use crate::bridge::request::CONTINUE;
use crate::client::handshake::{Proving, unasked};
use crate::client::{MISSED_PINGS, PING_INTERVAL};
use crate::net::conn::Received;
use crate::net::connect;
use crate::net::sys::{SocketOptions, is_shortage};
use crate::upstream::Purpose;

/// Keepalive and TCP_USER_TIMEOUT. On a parked bridge missing pings show that the proxy's machine
/// is gone. A bridge that has served a request gets no pings; there these options find it out
/// within a minute.
const OPTIONS: SocketOptions =
    SocketOptions { keepalive: Duration::from_secs(15), user_timeout: USER_TIMEOUT };

/// How long one address of a proxy may take to connect before the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a proxy may take to answer a BRIDGE.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A proxy that closes a bridge this soon after accepting it did not want it: dialling again at
/// once would only repeat that.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// How long a matched bridge may take to get a slot and an upstream connection. By default the
/// proxy waits half a second for the acknowledgement; the rest is for the network and for the
/// timers' ticks.
const READY_TIMEOUT: Duration = Duration::from_millis(300);

/// How long a request's head may take to arrive, after the acknowledgement or its first byte. The
/// proxy has the whole head before it sends any of it.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How much is read at once. All answers to a BRIDGE fit, and to a deregistration.
pub(super) const ANSWER_READ: usize = 4 * 1024;

impl Agent {
    /// Dials up to `count` bridges, and stops at the first that fails.
    pub(super) fn dial_bridges(&mut self, proxy: usize, count: usize) {
        for _ in 0..count {
            let none = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            if !self.dial_bridge(proxy, 0, none) {
                break;
            }
        }
    }

    /// Dials the proxy's next address after `tried` others have failed, the last with `error`,
    /// until one can be dialled. False if none is left: then the proxy has failed.
    fn dial_bridge(&mut self, proxy: usize, tried: usize, mut error: io::Error) -> bool {
        for tried in tried.. {
            let Some(address) = self.proxies[proxy].addresses.get(tried) else { break };
            match self.dial_address(proxy, address, tried) {
                Ok(()) => return true,
                // No fault of the proxy's.
                Err(reason) if is_shortage(&reason) => {
                    self.note_shortage(&reason);
                    let now = self.now();
                    self.proxies[proxy].pause(now);
                    self.maintain_now();
                    return false;
                }
                Err(reason) => error = reason,
            }
        }
        self.proxy_failed(proxy, &error);
        false
    }

    fn dial_address(&mut self, proxy: usize, address: SocketAddr, tried: usize) -> io::Result<()> {
        let bridge = Bridge {
            proxy,
            application: self.proxies[proxy].application,
            address,
            extensions: Extensions::default(),
            deregistering: false,
            party: self.party(proxy),
            slot: false,
            tunnel: TunnelPlace::None,
            upstream: None,
            unread: None,
            stage: Stage::Connecting { tried },
        };
        let stream = connect::connect(address, &OPTIONS)?;
        let key = self.conns.insert(stream, address.ip(), Role::Bridge(bridge))?;
        self.conns[key].port = address.port();
        self.proxies[proxy].bridge_opened();
        if let Some(tls) = self.proxies[proxy].tls.clone()
            && let Err(what) = self.encrypt(key, &tls)
        {
            self.close(key);
            return Err(io::Error::other(what));
        }
        self.conns.set_deadline(key, CONNECT_TIMEOUT);
        Ok(())
    }

    /// The connect of a bridge may have completed.
    pub(super) fn bridge_connecting(&mut self, key: usize) {
        match self.conns[key].conn.is_connected() {
            Ok(true) => self.register(key),
            Ok(false) => {}
            Err(error) => self.bridge_unreachable(key, error),
        }
    }

    pub(super) fn bridge_unreachable(&mut self, key: usize, error: io::Error) {
        let Some(&Bridge { proxy, address, stage: Stage::Connecting { tried }, .. }) =
            self.bridge(key)
        else {
            return;
        };
        log::debug!("{address}: {error}");
        self.close(key);
        // Another program dials in this one's place, if there is one.
        if self.replaced.is_none() {
            self.dial_bridge(proxy, tried + 1, error);
        }
    }

    fn register(&mut self, key: usize) {
        let Some(&Bridge { proxy, application, address, .. }) = self.bridge(key) else { return };
        let app = &self.applications[application];
        let request = self.proxies[proxy].registration(address, &app.registration);
        let (first, proving) = match app.offer(request).first() {
            Ok((first, proving)) => (first.into_owned(), proving),
            Err(error) => return self.bridge_lost(key, &error),
        };
        self.set_stage(key, Stage::Registering { proving });
        self.conns.set_deadline(key, ANSWER_TIMEOUT);
        let (connection, ws) = self.conns.split(key);
        match connection.conn.send(&first, &mut ws.pool) {
            Ok(_) => self.read_answers(key),
            Err(error) => self.bridge_lost(key, &error),
        }
    }

    /// The proxy has sent a nonce: sends the BRIDGE with the proofs. True if an answer may follow.
    fn prove(&mut self, key: usize, challenge: Nonce) -> bool {
        let Some(&Bridge { proxy, application, address, stage, .. }) = self.bridge(key) else {
            return false;
        };
        let mut proving = match stage {
            Stage::Registering { proving } => proving,
            _ => Proving::Nothing,
        };
        let app = &self.applications[application];
        let request = self.proxies[proxy].registration(address, &app.registration);
        match app.offer(request).second(&mut proving, challenge) {
            Ok(second) => {
                self.set_stage(key, Stage::Registering { proving });
                let (connection, ws) = self.conns.split(key);
                match connection.conn.send(&second, &mut ws.pool) {
                    Ok(_) => return true,
                    Err(error) => self.bridge_lost(key, &error),
                }
            }
            Err(refused) => self.refused(key, refused.status, &refused.reason, None),
        }
        false
    }

    /// Reads the proxy's answers before the first request.
    pub(super) fn read_answers(&mut self, key: usize) {
        if self.pass_soon(key) {
            return;
        }
        let (connection, ws) = self.conns.split(key);
        let conn = &mut connection.conn;
        if let Err(error) = conn.flush(&mut ws.pool) {
            return self.bridge_lost(key, &error);
        }
        match conn.receive(&mut ws.scratch[..ANSWER_READ]) {
            Received::Nothing => return,
            Received::Bytes(count) => conn.input.push(&ws.scratch[..count], &mut ws.pool),
            // A refusal may have come before the FIN.
            Received::End => {}
            Received::Broken(error) => return self.bridge_lost(key, &error),
        }
        while self.answer(key) {}
        if !matches!(self.stage(key), Some(Stage::Registering { .. } | Stage::Parked { .. })) {
            return;
        }
        if self.pass_soon(key) {
            return;
        }
        let conn = &self.conns[key].conn;
        if conn.has_ended() {
            self.bridge_lost(key, &closed());
        } else if conn.is_readable() {
            self.conns.requeue(key);
        }
    }

    /// Acts on the answer at the front of the input. True if another may follow.
    fn answer(&mut self, key: usize) -> bool {
        let (connection, ws) = self.conns.split(key);
        let conn = &mut connection.conn;
        let mut waits = None;
        let (len, extensions) = match answer::parse(conn.input.bytes()) {
            Ok(None) => return false,
            Ok(Some(Answer::Final { complete: false, .. })) if !conn.has_ended() => return false,
            Ok(Some(Answer::Interim { len, extensions, waiting })) => {
                waits = waiting;
                (len, Some(extensions))
            }
            Ok(Some(Answer::Switch { len })) => (len, None),
            Ok(Some(Answer::Challenge { len, nonce })) => {
                conn.input.consume(len, &mut ws.pool);
                return self.prove(key, nonce);
            }
            Ok(Some(Answer::Final { status, reason, retry_after, .. })) => {
                self.refused(key, status, &reason, retry_after);
                return false;
            }
            Err(error) => {
                let what = format!("its answer to BRIDGE is not HTTP: {error}");
                self.unusable(key, &io::Error::other(what));
                return false;
            }
        };
        conn.input.consume(len, &mut ws.pool);
        let now = self.now();
        let Some(bridge) = self.bridge_mut(key) else { return false };
        let &mut Bridge { proxy, deregistering, .. } = bridge;
        if let Stage::Registering { .. } = bridge.stage {
            bridge.extensions = extensions.unwrap_or_default();
            bridge.stage = Stage::Parked { since: now };
            self.proxies[proxy].accepted();
            self.note_bridge();
            self.begin_to_listen(key);
            self.maintain_now();
        } else if let Some(waiting) = waits {
            self.hear(key, waiting);
        }
        if extensions.is_none() {
            self.matched(key);
        } else if !deregistering {
            self.conns.set_deadline(key, PING_INTERVAL * MISSED_PINGS);
        }
        extensions.is_some()
    }

    fn refused(&mut self, key: usize, status: u16, reason: &str, retry_after: Option<Duration>) {
        let Some(&Bridge { proxy, deregistering, stage, .. }) = self.bridge(key) else { return };
        self.close(key);
        let now = self.now();
        let proxy = &mut self.proxies[proxy];
        let is_unasked = matches!(stage, Stage::Registering { proving: Proving::Asked(_) });
        let reason = match (status, is_unasked) {
            (400 | 401, true) => unasked(reason, BEARER_KEYS),
            _ => reason.to_owned(),
        };
        match (status, stage) {
            _ if deregistering => {}
            // A proxy that drains tells all its bridges at once to dial again.
            (504, Stage::Parked { .. }) => proxy.released(now),
            (504, _) => proxy.failed(&io::Error::other(format!("504 {reason}")), now),
            _ => proxy.refused(status, &reason, retry_after, now),
        }
        self.maintain_now();
    }

    fn unusable(&mut self, key: usize, why: &io::Error) {
        let Some(&Bridge { proxy, .. }) = self.bridge(key) else { return };
        self.close(key);
        self.proxy_failed(proxy, why);
    }

    /// On a bridge that has served before, the proxy asks whether it is still there, or says how long
    /// requests wait.
    pub(super) fn read_switch(&mut self, key: usize) {
        let (connection, ws) = self.conns.split(key);
        let conn = &mut connection.conn;
        match answer::parse(conn.input.bytes()) {
            Ok(Some(Answer::Switch { len })) => {
                conn.input.consume(len, &mut ws.pool);
                self.matched(key);
            }
            Ok(None) => self.await_rest(key),
            Ok(Some(Answer::Interim { len, waiting: Some(waiting), .. })) if self.listens(key) => {
                let (connection, ws) = self.conns.split(key);
                connection.conn.input.consume(len, &mut ws.pool);
                self.hear(key, waiting);
                self.await_next(key);
            }
            Ok(Some(_)) | Err(_) => {
                self.bridge_lost(key, &io::Error::other("the proxy sent an answer for a request"));
            }
        }
    }

    /// The 101 has come: the bridge acknowledges once it has a slot and an upstream connection.
    fn matched(&mut self, key: usize) {
        let Some(bridge) = self.set_stage(key, Stage::Matched) else { return };
        let &mut Bridge { application, deregistering, .. } = bridge;
        self.conns.set_deadline(key, READY_TIMEOUT);
        // A deregistering bridge still serves requests until the proxy closes it.
        let offered = deregistering || self.is_offered(application);
        if !offered || !self.applications[application].health.is_up() {
            return self.close(key);
        }
        match self.take_slot(key) {
            Slot::Taken if self.has_reserved(key) => self.acknowledge(key),
            Slot::Taken => self.supply(key),
            Slot::Queued => {}
            Slot::None { limit } => self.give_back(key, limit, None),
        }
    }

    /// Whether an upstream connection is reserved for the bridge and good: it has acknowledged a 101
    /// before, and no request has followed.
    fn has_reserved(&mut self, key: usize) -> bool {
        let reserved = self.bridge(key).and_then(|bridge| bridge.upstream);
        let Some(upstream) = reserved.and_then(|reserved| self.conns.find(reserved)) else {
            return false;
        };
        let good = self.conns[upstream].conn.probe_idle();
        if !good {
            self.close(upstream);
        }
        good
    }

    /// Tells the proxy that the bridge is alive and that the application can take the request.
    pub(super) fn acknowledge(&mut self, key: usize) {
        self.set_stage(key, Stage::Acknowledged);
        self.conns.set_deadline(key, REQUEST_TIMEOUT);
        let (connection, ws) = self.conns.split(key);
        if connection.conn.send(CONTINUE, &mut ws.pool).is_err() {
            self.close(key);
        }
    }

    /// An event on a bridge that is not being read: it may have closed.
    pub(super) fn watch_bridge(&mut self, key: usize) {
        let conn = &self.conns[key].conn;
        if conn.is_broken() || conn.has_hung_up() {
            self.close(key);
        }
    }

    pub(super) fn bridge_timed_out(&mut self, key: usize) {
        let Some(bridge) = self.bridge(key) else { return };
        let &Bridge { application, slot, upstream, deregistering, .. } = bridge;
        match bridge.stage {
            Stage::Connecting { .. } => self.bridge_unreachable(key, timed_out(NO_ANSWER)),
            Stage::Registering { .. } => {
                self.bridge_lost(key, &timed_out("it does not answer a BRIDGE"))
            }
            Stage::Parked { .. } => self.bridge_lost(key, &timed_out("its pings have stopped")),
            Stage::Matched if !slot => self.no_slot(key),
            // The application has taken the connection, and nothing is wrong with it so far.
            Stage::Matched if self.is_on_trial(upstream) => self.close(key),
            Stage::Matched | Stage::Pending(_) if upstream.is_some() => {
                self.application_failed(application, Purpose::Requests, &timed_out(NO_ANSWER));
                self.undelivered(key);
            }
            Stage::Acknowledged => self.no_request(key),
            Stage::Idle { begun } if begun || deregistering || !self.is_offered(application) => {
                self.close(key);
            }
            Stage::Idle { .. }
            | Stage::Matched
            | Stage::Pending(_)
            | Stage::Exchanging { .. }
            | Stage::Discarding => {}
        }
    }

    /// No slot became free in time, so the request must go elsewhere, and so must those that would
    /// come over the bridges parked at the same proxy.
    fn no_slot(&mut self, key: usize) {
        let Some(&Bridge { proxy, .. }) = self.bridge(key) else { return };
        self.close(key);
        let beside =
            |bridge: &Bridge| bridge.proxy == proxy && matches!(bridge.stage, Stage::Parked { .. });
        let parked = self.conns.keys_with(|role| matches!(role, Role::Bridge(b) if beside(b)));
        parked.into_iter().for_each(|key| self.close(key));
    }

    /// A bridge without a request is lost.
    pub(super) fn bridge_lost(&mut self, key: usize, why: &io::Error) {
        let Some(&Bridge { proxy, stage, deregistering, .. }) = self.bridge(key) else { return };
        self.close(key);
        let now = self.now();
        match stage {
            _ if deregistering => {}
            Stage::Connecting { .. } | Stage::Registering { .. } => self.proxy_failed(proxy, why),
            Stage::Parked { since } if now < since + SHORT_LIFE => self.proxy_failed(proxy, why),
            Stage::Parked { .. } | Stage::Idle { .. } => {
                self.proxies[proxy].lost(why, now);
                self.maintain_now();
            }
            // The proxy is up. It may have closed because the client is gone.
            _ => {}
        }
    }

    fn proxy_failed(&mut self, proxy: usize, why: &io::Error) {
        let now = self.now();
        self.proxies[proxy].failed(why, now);
        self.maintain_now();
    }
}
