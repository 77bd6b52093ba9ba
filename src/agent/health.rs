//! `--healthz`: tells an orchestrator whether the agent has bridges. The agent's own thread answers, so
//! one that hangs says nothing.

use std::io;
use std::time::Duration;

use super::exchange_config::CONFIG;
use super::healthz::{Healthz, Inherited};
use super::role::{Role, Stage};
use super::state::{Agent, Life, USER_TIMEOUT};
use crate::config::Address;
use crate::http::reply::Reply;
use crate::http::request;
use crate::net::conn::Received;
use crate::net::event_loop::Connection;
use crate::net::listener;
use crate::net::sys::SocketOptions;
use crate::net::token::Token;

/// How long a question may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Most of them at once; others are closed.
const MOST: usize = 64;

/// How much of a question is read at once.
const READ: usize = 4 * 1024;

const OPTIONS: SocketOptions =
    SocketOptions { keepalive: Duration::from_secs(30), user_timeout: USER_TIMEOUT };

impl Agent {
    /// Opens where questions come, which wait until they are accepted; where the program listens that this
    /// one replaces, if that is there.
    ///
    /// # Errors
    /// As bind(2) and listen(2), or the resolver's.
    pub(super) fn answer_at(
        &mut self,
        address: &Address,
        inherited: Option<Inherited>,
    ) -> io::Result<()> {
        let shown = address.to_string();
        let listener = match inherited.filter(|inherited| inherited.address == shown) {
            Some(Inherited { socket, .. }) => listener::share(&socket, &shown, 1)?.pop(),
            None => match address.resolve()?.first() {
                Some(address) => listener::open(*address, 1, &OPTIONS)?.pop(),
                None => None,
            },
        };
        let listener = listener.ok_or(io::ErrorKind::NotFound)?;
        log::info!("/healthz is answered on {listener}");
        self.healthz = Some(Healthz { listener, address: shown, is_watched: false });
        Ok(())
    }

    /// Begins to accept questions, or leaves them to a program that replaces this one.
    pub(super) fn listen_for_askers(&mut self, is_on: bool) {
        let Some(healthz) = self.healthz.as_mut().filter(|healthz| healthz.is_watched != is_on)
        else {
            return;
        };
        healthz.is_watched = is_on;
        let registry = self.conns.registry();
        let done = match is_on {
            true => healthz.listener.watch(registry, Token::listener(0).into()),
            false => healthz.listener.unwatch(registry),
        };
        if let Err(error) = done {
            log::error!("/healthz: {error}");
        }
    }

    pub(super) fn accept_askers(&mut self) {
        let mut count = self.conns.keys_with(|role| matches!(role, Role::Asker)).len();
        loop {
            let Some(healthz) = &self.healthz else { return };
            let (stream, peer) = match healthz.listener.accept() {
                Ok(connection) => connection,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The next one is accepted with those that wait.
                Err(error) => return self.note_shortage(&error),
            };
            if count == MOST {
                continue;
            }
            match self.conns.insert(stream, peer.ip(), Role::Asker) {
                Ok(key) => {
                    self.conns.set_deadline(key, TIMEOUT);
                    count += 1;
                }
                Err(error) => self.note_shortage(&error),
            }
        }
    }

    /// Whether every connection left is one on which health is asked for. These do not keep the agent
    /// from exiting.
    pub(super) fn has_only_askers(&self) -> bool {
        let is_asker =
            |connection: &Connection<Role>| matches!(connection.role(), Some(Role::Asker));
        self.conns.len() <= MOST && self.conns.iter().all(|(_, connection)| is_asker(connection))
    }

    /// Reads a question, and answers it.
    pub(super) fn read_question(&mut self, key: usize) {
        let (connection, ws) = self.conns.split(key);
        let conn = &mut connection.conn;
        match conn.receive(&mut ws.scratch[..READ]) {
            Received::Bytes(count) => conn.input.push(&ws.scratch[..count], &mut ws.pool),
            Received::Nothing => return,
            Received::End | Received::Broken(_) => return self.close(key),
        }
        let mut storage = request::storage();
        let request = match request::parse(conn.input.bytes(), &mut storage, &CONFIG.limits) {
            Ok(Some(request)) => request,
            Ok(None) if conn.is_readable() => return self.conns.requeue(key),
            Ok(None) => return,
            Err(bad) => return self.reply(key, false, bad.status, bad.reason),
        };
        let head_only = request.method == "HEAD";
        let is_read = head_only || request.method == "GET";
        match (request.path, is_read) {
            ("/healthz", true) => {
                let (status, text) = self.health();
                self.reply(key, head_only, status, &text);
            }
            ("/healthz", false) => {
                let reply = Reply::new(405, "GET and HEAD are answered");
                self.send_reply(key, Reply { extra: "Allow: GET, HEAD\r\n", ..reply });
            }
            _ => self.reply(key, head_only, 404, "there is only /healthz"),
        }
    }

    /// What is answered: 200 while every application has a bridge that waits or serves, at whichever
    /// proxy.
    fn health(&self) -> (u16, String) {
        if self.life != Life::Serving {
            return (503, "shutting down".to_owned());
        }
        let mut has_bridges = vec![false; self.applications.len()];
        for (_, connection) in self.conns.iter() {
            if let Some(Role::Bridge(bridge)) = connection.role() {
                let is_accepted =
                    !matches!(bridge.stage, Stage::Connecting { .. } | Stage::Registering { .. });
                has_bridges[bridge.application] |= is_accepted;
            }
        }
        // Those that the program that this one replaces still has.
        for proxy in self.proxies.iter().filter(|proxy| proxy.elsewhere > 0) {
            has_bridges[proxy.application] = true;
        }
        let served = self.applications.iter().zip(has_bridges).filter(|(app, _)| !app.withdrawn);
        let without: Vec<String> =
            served.filter(|(_, has)| !has).map(|(app, _)| app.service.to.to_string()).collect();
        match without.is_empty() {
            true => (200, "ok".to_owned()),
            false => (503, format!("no bridge for {}", without.join(", "))),
        }
    }
}
