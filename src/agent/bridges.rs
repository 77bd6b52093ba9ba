//! The life of a bridge until its first request: dial, register, parked, matched.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::proxies::put_first;
use super::role::{Bridge, Head, Need, Role, Stage, Stay};
use super::worker::Agent;
use crate::backoff::RECONNECT;
use crate::bridge::answer::{self, Answer};
use crate::bridge::extensions::Extensions;
use crate::bridge::request::CONTINUE;
use crate::client::announce::Announcement;
use crate::client::{MISSED_PINGS, PING_INTERVAL};
use crate::net::conn::Received;
use crate::net::connect;
use crate::net::sys::SocketOptions;
use crate::net::token::Token;

/// Keepalive and TCP_USER_TIMEOUT of bridges. A proxy whose machine has gone is noticed by its
/// missing pings while a bridge is parked; when the bridge has served a request there are none, and
/// this finds it within a minute.
const OPTIONS: SocketOptions =
    SocketOptions { keepalive: Duration::from_secs(15), user_timeout: Duration::from_secs(30) };

/// How long one address of a proxy may take to answer a connect, before the next is tried.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How long a proxy may take to answer a BRIDGE.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A bridge that a proxy closes so soon after it has accepted it, in milliseconds, was not wanted:
/// to dial again at once would make a circle.
const SHORT_LIFE: u64 = 1_000;

/// How long the proxy waits for an acknowledgement unless told otherwise is half a second. Within
/// this time there is a place and a line for the request, or it goes elsewhere; the rest is for the
/// way, and for the width of the timers' ticks.
const READY_WITHIN: Duration = Duration::from_millis(300);

/// How much of an answer to BRIDGE is read at once. All of them fit.
const ANSWER_READ: usize = 4 * 1024;

impl Agent {
    /// Dials the first of a proxy's addresses after `tried` that can be dialled at all. False when
    /// there is none; then the proxy has failed.
    pub(super) fn dial_bridge(&mut self, proxy: usize, tried: usize) -> bool {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for tried in tried.. {
            let Some(&address) = self.proxies[proxy].addresses.get(tried) else { break };
            match self.dial_address(proxy, address, tried) {
                Ok(()) => return true,
                Err(error) => last = error,
            }
        }
        self.proxy_failed(proxy, &last);
        false
    }

    fn dial_address(&mut self, proxy: usize, address: SocketAddr, tried: usize) -> io::Result<()> {
        let stream = connect::connect(address, &OPTIONS)?;
        let bridge = Bridge {
            proxy,
            address,
            known: Extensions::default(),
            stay: Stay::Stays,
            stage: Stage::Dialling { tried },
        };
        let token = self.insert(stream, Role::Bridge(bridge))?;
        self.proxies[proxy].bridges += 1;
        self.proxies[proxy].trying += 1;
        self.set_deadline(token.key(), CONNECT_WITHIN);
        Ok(())
    }

    /// The connect of a bridge may have come off.
    pub(super) fn bridge_connects(&mut self, key: usize) {
        match self.slots[key].conn.is_connected() {
            Ok(true) => self.register(key),
            Ok(false) => {}
            Err(error) => self.try_next_address(key, &error),
        }
    }

    fn try_next_address(&mut self, key: usize, error: &io::Error) {
        let Role::Bridge(Bridge { proxy, address, stage: Stage::Dialling { tried }, .. }) =
            self.slots[key].role
        else {
            return;
        };
        log::debug!("{address}: {error}");
        self.close(key);
        if tried + 1 < self.proxies[proxy].addresses.len() {
            self.dial_bridge(proxy, tried + 1);
        } else {
            self.proxy_failed(proxy, error);
        }
    }

    fn register(&mut self, key: usize) {
        let Role::Bridge(Bridge { proxy, address, .. }) = self.slots[key].role else { return };
        put_first(&mut self.proxies[proxy].addresses, address);
        self.set_stage(key, Stage::Registering);
        self.set_deadline(key, ANSWER_WITHIN);
        let proxy = &mut self.proxies[proxy];
        let plain = &self.applications[proxy.application].registration;
        if proxy.announcement.is_none() {
            proxy.announcement = Announcement::with_receipts(plain);
        }
        let request =
            proxy.announcement.as_ref().map_or(plain, |announcement| &announcement.register);
        match self.slots[key].conn.send(request, &mut self.ws.pool) {
            Ok(_) => self.listen(key),
            Err(error) => self.bridge_lost(key, &error),
        }
    }

    /// Reads what the proxy says before there is a request.
    pub(super) fn listen(&mut self, key: usize) {
        let conn = &mut self.slots[key].conn;
        if let Err(error) = conn.flush(&mut self.ws.pool) {
            return self.bridge_lost(key, &error);
        }
        match conn.receive(&mut self.ws.scratch[..ANSWER_READ]) {
            Received::Nothing => return,
            Received::Bytes(count) => {
                conn.input.push(&self.ws.scratch[..count], &mut self.ws.pool);
            }
            // A refusal may have come before it.
            Received::End => {}
            Received::Broken(error) => return self.bridge_lost(key, &error),
        }
        while self.hear(key) {}
        match self.slots[key].role {
            Role::Bridge(Bridge { stage: Stage::Registering | Stage::Parked { .. }, .. }) => {}
            _ => return,
        }
        if self.slots[key].conn.has_ended() {
            let why = io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
            self.bridge_lost(key, &why);
        } else if self.slots[key].conn.is_readable() {
            self.again(key);
        }
    }

    /// Acts on the answer at the front of the input. True if another may follow.
    fn hear(&mut self, key: usize) -> bool {
        let Role::Bridge(Bridge { proxy, stage, stay, .. }) = self.slots[key].role else {
            return false;
        };
        let conn = &mut self.slots[key].conn;
        match answer::parse(conn.input.bytes()) {
            Ok(None) => false,
            Ok(Some(Answer::Final { complete: false, .. })) if !conn.has_ended() => false,
            Ok(Some(Answer::Interim { len, extensions: known })) => {
                conn.input.consume(len, &mut self.ws.pool);
                if stay == Stay::Stays {
                    self.set_deadline(key, PING_INTERVAL * MISSED_PINGS);
                }
                if let Role::Bridge(bridge) = &mut self.slots[key].role
                    && matches!(stage, Stage::Registering)
                {
                    bridge.known = known;
                    let since = self.now();
                    self.set_stage(key, Stage::Parked { since });
                    self.proxy_accepted(proxy);
                }
                true
            }
            Ok(Some(Answer::Switch { len })) => {
                conn.input.consume(len, &mut self.ws.pool);
                if matches!(stage, Stage::Registering) {
                    self.proxy_accepted(proxy);
                }
                self.matched(key);
                false
            }
            Ok(Some(Answer::Final { .. })) if stay == Stay::Leaves => {
                self.close(key);
                false
            }
            Ok(Some(Answer::Final { status: 504, .. }))
                if matches!(stage, Stage::Parked { .. }) =>
            {
                // It is its way to say "dial again" to all of its bridges at once.
                self.close(key);
                self.proxy_lost(proxy, RECONNECT.spread());
                false
            }
            Ok(Some(Answer::Final { status: 504, reason, .. })) => {
                self.close(key);
                self.proxy_failed(proxy, &io::Error::other(format!("504 {reason}")));
                false
            }
            Ok(Some(Answer::Final { status, reason, retry_after, .. })) => {
                self.close(key);
                self.proxy_refused(proxy, status, &reason, retry_after);
                false
            }
            Err(error) => {
                self.close(key);
                let what = format!("its answer to BRIDGE is not HTTP: {error}");
                self.proxy_failed(proxy, &io::Error::other(what));
                false
            }
        }
    }

    /// The 101 has come: the bridge acknowledges as soon as it has a place and a line.
    fn matched(&mut self, key: usize) {
        let Role::Bridge(Bridge { stay, .. }) = self.slots[key].role else { return };
        self.set_stage(key, Stage::Matched(Need::Place));
        self.set_deadline(key, READY_WITHIN);
        let application = self.application_of(key);
        // One that leaves serves what comes before the proxy closes it.
        let wanted = self.is_offered(key) || stay == Stay::Leaves;
        if !wanted || !self.applications[application].is_up() {
            return self.close(key);
        }
        if self.applications[application].take_place() {
            return self.supply(key);
        }
        let token = self.slots[key].token(key);
        self.applications[application].queue.push_back(token);
    }

    /// Says that the bridge is still here: `line` is there for the request.
    pub(super) fn acknowledge(&mut self, key: usize, line: Token) {
        self.set_stage(key, Stage::Ready { line: Some(line) });
        self.set_deadline(key, super::requests::REQUEST_WITHIN);
        if self.slots[key].conn.send(CONTINUE, &mut self.ws.pool).is_err() {
            self.close(key);
        }
    }

    /// Something has happened on a bridge from which nothing is read now: it may have gone.
    pub(super) fn watch_bridge(&mut self, key: usize) {
        let conn = &self.slots[key].conn;
        if conn.is_broken() || conn.has_hung_up() {
            self.close(key);
        }
    }

    /// A bridge's deadline has passed.
    pub(super) fn bridge_is_late(&mut self, key: usize, stage: Stage) {
        let timed_out = |what| io::Error::new(io::ErrorKind::TimedOut, what);
        match stage {
            Stage::Dialling { .. } => {
                self.try_next_address(key, &timed_out("it does not answer"));
            }
            Stage::Registering => {
                self.bridge_lost(key, &timed_out("it does not answer a BRIDGE"));
            }
            Stage::Parked { .. } => self.bridge_lost(key, &timed_out("it has fallen silent")),
            Stage::Matched(Need::Place) => self.no_place(key),
            Stage::Matched(Need::Line(_)) | Stage::Asking { need: Need::Line(_), .. } => {
                let application = self.application_of(key);
                self.application_failed(application, &timed_out("it does not answer"));
                self.undelivered(key);
            }
            Stage::Ready { .. } => self.no_request(key),
            Stage::Idle(Head::Begun) => self.close(key),
            Stage::Idle(Head::Unread) if !self.is_offered(key) || self.leaves(key) => {
                self.close(key)
            }
            Stage::Idle(Head::Unread) => {}
            Stage::Asking { .. } | Stage::Requesting { .. } => {}
        }
    }

    /// A request has come for which there was no place in time: it goes elsewhere. So must those
    /// that would come to the other bridges that are parked at the same proxy.
    fn no_place(&mut self, key: usize) {
        let Role::Bridge(Bridge { proxy, .. }) = self.slots[key].role else { return };
        self.close(key);
        self.close_bridges(|bridge| {
            bridge.proxy == proxy && matches!(bridge.stage, Stage::Parked { .. })
        });
    }

    /// Closes every bridge that `which` names.
    pub(super) fn close_bridges(&mut self, which: impl Fn(&Bridge) -> bool) {
        let chosen = |role: &Role| matches!(role, Role::Bridge(bridge) if which(bridge));
        let keys: Vec<usize> =
            self.slots.iter().filter(|(_, slot)| chosen(&slot.role)).map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.close(key));
    }

    /// A bridge on which no request is under way has been lost.
    pub(super) fn bridge_lost(&mut self, key: usize, why: &io::Error) {
        let Role::Bridge(Bridge { proxy, stage, stay, .. }) = self.slots[key].role else { return };
        self.close(key);
        if stay == Stay::Leaves {
            return;
        }
        match stage {
            Stage::Dialling { .. } | Stage::Registering => self.proxy_failed(proxy, why),
            Stage::Parked { since } if self.now() < since + SHORT_LIFE => {
                self.proxy_failed(proxy, why);
            }
            Stage::Parked { .. } | Stage::Idle(_) => {
                log::debug!("a bridge to {} is gone: {why}", self.proxies[proxy].name);
                self.proxy_lost(proxy, Duration::ZERO);
            }
            // The proxy has its reasons, such as a client that has gone; it is there.
            _ => {}
        }
    }

    /// Takes a bridge out of the tables.
    pub(super) fn bridge_is_gone(&mut self, bridge: Bridge) {
        let Bridge { proxy, stage, .. } = bridge;
        let now = self.now();
        let proxy = &mut self.proxies[proxy];
        let application = proxy.application;
        proxy.bridges -= 1;
        if matches!(stage, Stage::Dialling { .. } | Stage::Registering) {
            proxy.trying -= 1;
        }
        if stage.has_place() {
            self.release_place(application);
        }
        if let Some(line) = stage.own_line()
            && self.is_live(line)
        {
            self.close(line.key());
        }
        self.tend_by(now);
    }

    /// The application for which the bridge in slot `key` is there.
    pub(super) fn application_of(&self, key: usize) -> usize {
        match self.slots[key].role {
            Role::Bridge(Bridge { proxy, .. }) => self.proxies[proxy].application,
            Role::Line(line) => line.application,
            Role::Farewell(_) | Role::Leaving | Role::Closed => 0,
        }
    }
}
