//! The admin listener: what the proxy is doing, for people and for programs, and what may be
//! changed while it runs (`doc/admin.md`).
//!
//! It has a thread and an event loop of its own, so a long list or a slow reader never keeps a
//! worker. It reads what the workers share and mails them what they are to do; each answers by
//! mail. Each connection carries one request.
//!
//! ```text
//!     Reading ──head and body whole──> answered, then lingering
//!        │
//!        ├── /events ──> Streaming: an event each second
//!        └── action ───> Acting: until every worker, or the main thread, has answered
//! ```

mod actions;
mod agent_check;
mod control;
mod events;
mod figures;
mod metrics;
mod page;
mod process;
mod sites;
pub(super) mod view;
mod wanted;

use std::sync::Arc;
use std::time::Duration;

use mio::Poll;
use rustls::ServerConfig;

use crate::config::AdminReads;
use crate::http::Limits;
use crate::http::reply::Reply;
use crate::http::request;
use crate::net::conn::Received;
use crate::net::event_loop::{self, EventLoop, Handler, LingerTimeouts, NextTurn};
use crate::net::sys;
use crate::net::tls::{Session, TlsError};
use crate::time::Millis;

use super::admin_token::AdminToken;
use super::listeners::{Accepted, Acceptor, Accepts, NewPeer, OpenListeners, Opened, Pause};
use super::operator::Answer;
use super::site_change::SiteAnswer;
use super::state::{AdminMail, Config, Shared};
use actions::{Acting, Step};
pub use control::Control;
use events::Kind;
use sites::FRESH;
use view::View;
use wanted::{Access, Refused, Wanted};

/// Most connections to the admin listeners.
const CONNECTIONS: usize = 256;

/// Most agent checks at once, beside these.
const CHECKS: usize = 64;

/// How long a request may take to come, and a reader may take nothing.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Between two events of a stream.
const INTERVAL: Duration = Duration::from_secs(1);

/// Between two looks at the slots that somebody waits for.
const SLOT_CHECK: Duration = Duration::from_millis(50);

/// How long a connection may linger.
const LINGER: Duration = Duration::from_secs(2);

const LIMITS: Limits = Limits { head: 16 << 10, fields: 100, target: 8 << 10, behind_proxy: false };

/// How much is read at once.
const READ: usize = 16 << 10;

/// What a connection of the admin thread is about.
pub(in crate::proxy) enum Role {
    /// Its request has not come whole.
    Reading { is_unix: bool },
    /// haproxy asks what it may send here; its line may still come.
    AgentCheck,
    /// It reads the stream of events. One that has not taken the last event when the next one is
    /// due gets none, and everything once it has: so it costs the memory of one event.
    Streaming { may_act: bool, is_behind: bool },
    /// It has asked for a change.
    Acting(Acting),
}

/// The admin thread.
pub(super) struct Admin {
    conns: EventLoop<Role>,
    shared: Arc<Shared>,
    config: Arc<Config>,
    acceptor: Acceptor,
    told: events::Told,
    next_event: Option<Millis>,
    control: Box<dyn Fn(Control) + Send>,
    /// The number of the last action.
    orders: u64,
}

impl Admin {
    pub(super) fn new(
        poll: Poll,
        shared: Arc<Shared>,
        config: Arc<Config>,
        control: Box<dyn Fn(Control) + Send>,
    ) -> Admin {
        let linger = LingerTimeouts { flush: TIMEOUT, fin: LINGER };
        Admin {
            conns: EventLoop::new(poll, shared.started, linger),
            shared,
            config,
            acceptor: Acceptor::default(),
            told: events::Told::default(),
            next_event: None,
            control,
            orders: 0,
        }
    }

    /// Runs until the process ends.
    ///
    /// # Errors
    /// As epoll_wait(2), which has no reason to fail.
    pub(super) fn run(mut self) -> std::io::Result<()> {
        event_loop::run(&mut self)
    }

    /// Accepts at these sockets.
    ///
    /// # Errors
    /// When one of them cannot be watched.
    pub(super) fn listen(&mut self, opened: Opened, open: &OpenListeners) -> std::io::Result<()> {
        self.acceptor.add(opened, open, self.conns.registry())
    }

    fn accept_all(&mut self) {
        while let Some(listener) = self.acceptor.next_ready() {
            loop {
                match self.acceptor.accept(listener) {
                    Accepted::Peer(NewPeer { stream, address, accepts, encryption, .. }) => {
                        // Over its bound: closed at once.
                        if self.is_full(&accepts) {
                            continue;
                        }
                        let (role, timeout) = match accepts {
                            Accepts::AgentCheck => (Role::AgentCheck, agent_check::LINE_TIMEOUT),
                            Accepts::Admin { is_unix } => (Role::Reading { is_unix }, TIMEOUT),
                            _ => continue,
                        };
                        if let Ok(key) = self.conns.insert(stream, address.ip(), role) {
                            self.conns.set_deadline(key, timeout);
                            if let Some(tls) = encryption.tls {
                                self.start_tls(key, tls);
                            }
                        }
                    }
                    Accepted::Nothing => break,
                    Accepted::Ended => {
                        self.acceptor.close(listener, self.conns.registry());
                        break;
                    }
                    Accepted::Shortage(error) => {
                        log::warn!("admin: accept failed: {error}");
                        self.acceptor.pause(Pause::All, self.now());
                        return;
                    }
                }
            }
        }
    }

    /// Whether there are as many connections of this kind as there may be. Agent checks have a bound
    /// of their own: one who reaches their port must not keep the operator out.
    fn is_full(&self, accepts: &Accepts) -> bool {
        let is_check = |role: &Role| matches!(role, Role::AgentCheck);
        let checks = self.conns.iter().filter(|(_, c)| c.last_role().is_some_and(is_check)).count();
        match accepts {
            Accepts::AgentCheck => checks >= CHECKS,
            _ => self.conns.len() - checks >= CONNECTIONS,
        }
    }

    fn now(&self) -> Millis {
        self.conns.now().millis()
    }

    fn close(&mut self, key: usize) {
        let role = self.conns.take(key);
        self.conns.close(key, role);
    }

    /// Sends an answer and closes.
    fn answer(&mut self, key: usize, reply: Reply<'_>) {
        let mut out = Vec::new();
        Reply { close: true, ..reply }.write(&mut out);
        self.send_last(key, &out);
    }

    /// Sends `out` and closes.
    fn send_last(&mut self, key: usize, out: &[u8]) {
        let (connection, ws) = self.conns.split(key);
        let sent = connection.conn.send(out, &mut ws.pool);
        let role = self.conns.take(key);
        match sent {
            Ok(_) => self.conns.linger(key, role),
            Err(_) => self.conns.close(key, role),
        }
    }

    /// Reads what has come. True if it is more than before; false if there is nothing, or the
    /// connection has ended.
    fn receive(&mut self, key: usize) -> bool {
        let (connection, ws) = self.conns.split(key);
        let conn = &mut connection.conn;
        match conn.receive(&mut ws.scratch[..READ]) {
            Received::Bytes(count) => {
                conn.input.push(&ws.scratch[..count], &mut ws.pool);
                return true;
            }
            Received::Nothing => {}
            Received::End | Received::Broken(_) => self.close(key),
        }
        false
    }

    /// Whether a body of this many bytes has come. Reads what there is.
    fn has_body(&mut self, key: usize, length: usize) -> bool {
        while self.conns[key].conn.input.len() < length {
            if !self.receive(key) {
                return false;
            }
        }
        true
    }

    /// A connection that has not sent its request yet.
    fn read(&mut self, key: usize) {
        if !self.receive(key) {
            return;
        }
        let connection = &self.conns[key];
        let Some(&Role::Reading { is_unix }) = connection.role() else { return };
        let (input, config) = (connection.conn.input.bytes(), Arc::clone(&self.config));
        let mut storage = request::storage();
        let (wanted, head_only, len) = match request::parse(input, &mut storage, &LIMITS) {
            Ok(None) => return self.read_on(key),
            Err(bad) => return self.answer(key, Reply::new(bad.status, bad.reason)),
            Ok(Some(request)) => {
                let access = Access {
                    is_unix,
                    token: config.admin_token.as_ref().map(AdminToken::bytes),
                    reads_need_token: config.settings.admin_reads == AdminReads::Token,
                    names: &config.settings.admin_names,
                };
                (access.check(&request), request.is_head(), request.len)
            }
        };
        let (connection, ws) = self.conns.split(key);
        connection.conn.input.consume(len, &mut ws.pool);
        match wanted {
            Ok(wanted) => self.serve(key, wanted, head_only),
            Err(refused) => {
                let Refused { status, text, extra } = refused;
                self.answer(key, Reply { head_only, extra, ..Reply::new(status, text) });
            }
        }
    }

    /// Reads the line of an agent check.
    fn read_agent_check(&mut self, key: usize) {
        let (connection, ws) = self.conns.split(key);
        let conn = &mut connection.conn;
        match conn.receive(&mut ws.scratch[..READ]) {
            Received::Bytes(count) => {
                conn.input.push(&ws.scratch[..count], &mut ws.pool);
                if agent_check::line(conn.input.bytes()).is_some() {
                    self.answer_agent_check(key);
                }
            }
            Received::Nothing => {}
            // It has nothing more to say.
            Received::End => self.answer_agent_check(key),
            Received::Broken(_) => self.close(key),
        }
    }

    /// Answers an agent check about what has come of its line.
    fn answer_agent_check(&mut self, key: usize) {
        let input = self.conns[key].conn.input.bytes();
        let line = agent_check::line(input).unwrap_or(input);
        let text = agent_check::answer(line, &self.shared, &self.config);
        self.send_last(key, text.as_bytes());
    }

    /// More of a request is to come.
    fn read_on(&mut self, key: usize) {
        if self.conns[key].conn.is_readable() {
            self.conns.requeue(key);
        }
    }

    fn serve(&mut self, key: usize, wanted: Wanted, head_only: bool) {
        let typed = |text, content_type| Reply {
            content_type,
            head_only,
            extra: FRESH,
            ..Reply::new(200, text)
        };
        match wanted {
            Wanted::Page => {
                let page = page::page();
                let reply = typed(&page.document, "text/html; charset=utf-8");
                self.answer(key, Reply { extra: &page.fields, ..reply });
            }
            Wanted::Metrics => {
                let view = View::take(&self.shared, &self.config);
                let bound = self.config.settings.metrics_hosts;
                let text = metrics::write(&self.shared, &self.config, &view, bound);
                self.answer(key, typed(text.trim_end(), metrics::CONTENT_TYPE));
            }
            Wanted::State => {
                let view = View::take(&self.shared, &self.config);
                let mut state = view.to_json(self.may_act(key));
                if let Some(members) = state.as_object_mut() {
                    members.append(&mut figures::members(&self.shared, &self.config));
                }
                let text = state.to_string();
                self.answer(key, typed(&text, "application/json"));
            }
            Wanted::Events if head_only => self.answer(key, typed("", "text/event-stream")),
            Wanted::Events => self.stream(key),
            Wanted::Health | Wanted::HealthOf(_) if self.shared.is_stopping() => {
                let reply = Reply::new(503, "the proxy is shutting down");
                self.answer(key, Reply { head_only, ..reply });
            }
            Wanted::Health => self.answer(key, Reply { head_only, ..Reply::new(200, "serving") }),
            Wanted::HealthOf(host) => {
                let reply = match self.is_connected(&host) {
                    true => Reply::new(200, "a bridge is connected"),
                    false => Reply::new(503, "no bridge is connected"),
                };
                self.answer(key, Reply { head_only, ..reply });
            }
            Wanted::Sites => {
                let text = sites::list(&self.config).to_string();
                self.answer(key, typed(&text, "application/json"));
            }
            Wanted::Site(name) => match sites::one(&name, &self.config, &self.shared) {
                Some((site, tag)) => {
                    let (text, extra) = (site.to_string(), sites::tagged(tag.as_deref()));
                    self.answer(key, Reply { extra: &extra, ..typed(&text, "application/json") });
                }
                None => {
                    let reply = Reply::new(404, "there is no such site");
                    self.answer(key, Reply { head_only, ..reply });
                }
            },
            Wanted::ChangeSite(asked) => {
                self.conns.change(key, |_| Role::Acting(Acting::Line(asked)));
                self.change_site(key);
            }
            Wanted::Act(verb, length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                self.conns.change(key, |_| Role::Acting(Acting::Body { verb, length }));
                self.act(key);
            }
        }
    }

    /// Whether the page should offer actions.
    fn may_act(&self, key: usize) -> bool {
        let is_unix = matches!(self.conns.role(key), Some(Role::Reading { is_unix: true }));
        is_unix || self.config.admin_token.is_some()
    }

    /// Whether root or the user of this process is at the other end.
    fn is_of_own_user(&self, key: usize) -> bool {
        let user = sys::peer_user(&self.conns[key].conn.as_fd());
        user.is_ok_and(|user| user.is_some_and(|uid| uid == 0 || uid == sys::acting_as().uid))
    }

    /// Whether a bridge that serves `host` is connected, by whatever pattern.
    fn is_connected(&self, host: &str) -> bool {
        let routes = self.shared.directory.routes();
        routes.iter().any(|route| route.spec().has_host(host) && route.members() > 0)
    }

    /// Begins a stream of events.
    fn stream(&mut self, key: usize) {
        let may_act = self.may_act(key);
        let state = self.told.begin(|| View::take(&self.shared, &self.config), may_act);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                    Cache-Control: no-store\r\nX-Accel-Buffering: no\r\nConnection: close\r\n\r\n";
        self.conns.change(key, |_| Role::Streaming { may_act, is_behind: false });
        self.next_event.get_or_insert(self.conns.now().millis() + INTERVAL);
        self.send_event(key, &format!("{head}{state}"));
    }

    /// Sends a reader of the stream an event, which it must begin to take in time.
    fn send_event(&mut self, key: usize, event: &str) {
        let (connection, ws) = self.conns.split(key);
        let sent = connection.conn.send(event.as_bytes(), &mut ws.pool);
        match (sent, connection.conn.output.is_empty()) {
            (Err(_), _) => self.close(key),
            (Ok(_), true) => self.conns.clear_deadline(key),
            (Ok(_), false) => self.conns.set_deadline(key, TIMEOUT),
        }
    }

    /// Sends on what a reader of the stream has not taken yet.
    fn pour(&mut self, key: usize) {
        let (connection, ws) = self.conns.split(key);
        let before = connection.conn.output.len();
        let flushed = connection.conn.flush(&mut ws.pool);
        let left = connection.conn.output.len();
        if flushed.is_err() || connection.conn.has_hung_up() {
            self.close(key);
        } else if left == 0 {
            self.conns.clear_deadline(key);
        } else if left < before {
            self.conns.set_deadline(key, TIMEOUT);
        }
    }

    /// Sends each reader of the stream what is new to it.
    fn send_events(&mut self) {
        let now = self.now();
        if self.next_event.is_none_or(|at| now < at) {
            return;
        }
        let readers = self.conns.keys_with(|role| matches!(role, Role::Streaming { .. }));
        if readers.is_empty() {
            self.next_event = None;
            self.told.forget();
            return;
        }
        self.next_event = Some(now + INTERVAL);
        let mut news = self.told.advance(View::take(&self.shared, &self.config));
        for key in readers {
            let has_taken_all = self.conns[key].conn.output.is_empty();
            let Some(Role::Streaming { may_act, is_behind }) = self.conns.role_mut(key) else {
                continue;
            };
            let (may_act, was_behind) = (*may_act, *is_behind);
            *is_behind = !has_taken_all;
            if has_taken_all {
                let kind = if was_behind { Kind::Whole } else { Kind::Change };
                self.send_event(key, self.told.event(&mut news, kind, may_act));
            }
        }
    }

    fn start_tls(&mut self, key: usize, config: Arc<ServerConfig>) {
        let (connection, ws) = self.conns.split(key);
        match Session::server(config) {
            Ok(session) => {
                connection.conn.start_tls(session, &mut ws.pool);
                self.conns.requeue(key);
            }
            Err(error) => self.handshake_failed(key, TlsError::Protocol(error)),
        }
    }

    /// Advances an action.
    fn act(&mut self, key: usize) {
        let Some(Role::Acting(Acting::Body { verb, length })) = self.conns.role(key) else {
            return;
        };
        let (verb, length) = (*verb, *length);
        if !self.has_body(key, length) {
            return;
        }
        let body = &self.conns[key].conn.input.bytes()[..length];
        let request = match actions::Request::read(body) {
            Ok(request) => request,
            Err(problem) => return self.answer(key, Reply::new(400, &problem)),
        };
        if request.names_program() && !self.is_of_own_user(key) {
            let text = "only root and the proxy's own user may name a program, over a Unix socket";
            return self.answer(key, Reply::new(403, text));
        }
        self.orders += 1;
        let id = self.orders;
        self.conns.clear_deadline(key);
        match request.begin(verb, id, &self.shared, self.now()) {
            Step::Answer(status, text) => self.answer(key, Reply::new(status, &text)),
            Step::Acting(acting) => {
                self.conns.change(key, |_| Role::Acting(acting));
                self.check_slots();
            }
            Step::Controlled(control) => {
                log::info!("admin: {verb:?}");
                self.conns.change(key, |_| Role::Acting(Acting::Controlled { key: id }));
                (self.control)(control);
            }
            Step::Order(order) => {
                log::info!("admin: {verb:?} {:?}", order.selector);
                let left = self.shared.mailboxes.len();
                let acting = Acting::Ordered { order: id, verb, left, closed: 0, finishing: 0 };
                self.conns.change(key, |_| Role::Acting(acting));
                let order = Arc::new(order);
                for mailbox in &self.shared.mailboxes {
                    mailbox.send(super::state::Mail::Order(Arc::clone(&order)));
                }
            }
        }
    }

    /// A worker has carried out an order.
    fn done(&mut self, answer: &Answer) {
        let is_it = |role: &Role| matches!(role, Role::Acting(Acting::Ordered { order, .. }) if *order == answer.order);
        let Some(key) = self.conns.keys_with(is_it).pop() else { return };
        let Some(Role::Acting(Acting::Ordered { verb, left, closed, finishing, .. })) =
            self.conns.role_mut(key)
        else {
            return;
        };
        *left -= 1;
        *closed += answer.closed;
        *finishing += answer.finishing;
        if *left == 0 {
            let text = actions::outcome(*verb, *closed, *finishing);
            self.answer(key, Reply::new(200, &text));
        }
    }

    /// The connection that waits for the main thread's answer with this number.
    fn awaiting(&self, id: u64) -> Option<usize> {
        let is_it =
            |role: &Role| matches!(role, Role::Acting(Acting::Controlled { key }) if *key == id);
        self.conns.keys_with(is_it).pop()
    }

    /// The main thread has answered.
    fn controlled(&mut self, id: u64, answer: Result<Vec<String>, Vec<String>>) {
        let Some(key) = self.awaiting(id) else { return };
        let (status, lines) = match answer {
            Ok(lines) => (200, lines),
            Err(problems) => (422, problems),
        };
        self.answer(key, Reply::new(status, &lines.join("\n")));
    }

    /// The body of a change has come, or some of it.
    fn change_site(&mut self, key: usize) {
        let length = match self.conns.role(key) {
            Some(Role::Acting(Acting::Line(asked))) => asked.length.unwrap_or(0),
            _ => return,
        };
        if !self.has_body(key, length) {
            return;
        }
        let Some(Role::Acting(Acting::Line(asked))) = self.conns.role(key) else { return };
        let change = asked.change(&self.conns[key].conn.input.bytes()[..length]);
        match change {
            Err(problem) => self.answer(key, Reply::new(400, problem)),
            Ok(change) => {
                self.orders += 1;
                let id = self.orders;
                self.conns.clear_deadline(key);
                self.conns.change(key, |_| Role::Acting(Acting::Controlled { key: id }));
                (self.control)(Control::Site(id, change));
            }
        }
    }

    /// The main thread has changed a site, or not.
    fn site_changed(&mut self, id: u64, answer: &SiteAnswer) {
        let Some(key) = self.awaiting(id) else { return };
        let extra = sites::tagged(answer.tag.as_deref());
        let reply = Reply::new(answer.status, &answer.text);
        self.answer(key, Reply { extra: &extra, ..reply });
    }

    /// Answers those who wait for slots.
    fn check_slots(&mut self) {
        let now = self.now();
        let waiting = |role: &Role| matches!(role, Role::Acting(Acting::Slots { .. }));
        for key in self.conns.keys_with(waiting) {
            let Some(Role::Acting(Acting::Slots { host, count, until })) = self.conns.role(key)
            else {
                continue;
            };
            let free = actions::slots(&self.shared, host);
            if free >= *count {
                self.answer(key, Reply::new(200, &format!("{free} free")));
            } else if now >= *until {
                let text = format!("only {free} free in time");
                self.answer(key, Reply::new(504, &text));
            }
        }
    }

    fn is_waiting_for_slots(&self) -> bool {
        self.conns.iter().any(|(_, connection)| {
            matches!(connection.role(), Some(Role::Acting(Acting::Slots { .. })))
        })
    }
}

impl Handler for Admin {
    type Role = Role;
    type Lent = ();

    fn conns(&mut self) -> &mut EventLoop<Role> {
        &mut self.conns
    }

    fn listener_ready(&mut self, index: usize) {
        self.acceptor.mark_ready(index);
    }

    fn mail(&mut self) {
        let mut mail = Vec::new();
        self.shared.admin.empty(&mut mail);
        for item in mail {
            match item {
                AdminMail::Reload { config, opened, listeners } => {
                    for key in self.acceptor.update(&listeners) {
                        self.acceptor.close(key, self.conns.registry());
                    }
                    if let Err(error) = self.listen(opened, &listeners) {
                        log::error!("admin: cannot listen: {error}");
                    }
                    self.config = config;
                }
                AdminMail::Done(answer) => self.done(&answer),
                AdminMail::Controlled { key, answer } => self.controlled(key, answer),
                AdminMail::SiteChanged { key, answer } => self.site_changed(key, &answer),
                AdminMail::Replaced(true) => {
                    self.acceptor.suspend(self.conns.registry());
                    // They come again, and then to the new program.
                    let streams = |role: &Role| matches!(role, Role::Streaming { .. });
                    let keys = self.conns.keys_with(streams);
                    keys.into_iter().for_each(|key| self.conns.close(key, None));
                }
                AdminMail::Replaced(false) => {
                    if let Err(error) = self.acceptor.resume_suspended(self.conns.registry()) {
                        log::error!("admin: cannot accept again: {error}");
                    }
                }
                // Nobody waits any more if it took too long.
                AdminMail::End(reached) => _ = reached.send(()),
            }
        }
    }

    fn ready(&mut self, key: usize) {
        match self.conns.role(key) {
            Some(Role::Reading { .. }) => self.read(key),
            Some(Role::AgentCheck) => self.read_agent_check(key),
            Some(Role::Acting(Acting::Body { .. })) => self.act(key),
            Some(Role::Acting(Acting::Line(_))) => self.change_site(key),
            Some(Role::Streaming { .. }) => self.pour(key),
            Some(Role::Acting(_)) => {
                let (connection, ws) = self.conns.split(key);
                let flushed = connection.conn.flush(&mut ws.pool);
                if flushed.is_err() || connection.conn.has_hung_up() {
                    self.close(key);
                }
            }
            None => {}
        }
    }

    fn handshake_failed(&mut self, key: usize, error: TlsError) {
        log::info!("admin: TLS with {} failed: {error}", self.conns[key].address());
        self.close(key);
    }

    fn timeout(&mut self, key: usize) {
        match self.conns.role(key) {
            Some(Role::AgentCheck) => self.answer_agent_check(key),
            _ => self.close(key),
        }
    }

    fn end_of_turn(&mut self) {
        self.accept_all();
        self.send_events();
        self.check_slots();
    }

    fn next_turn(&mut self) -> NextTurn {
        let now = self.now();
        if self.acceptor.paused_until().is_some_and(|until| now >= until) {
            self.acceptor.resume();
        }
        if self.acceptor.has_ready() {
            return NextTurn::Now;
        }
        let slots = self.is_waiting_for_slots().then(|| now + SLOT_CHECK);
        let times = [self.next_event, slots, self.acceptor.paused_until()];
        NextTurn::Wait(times.into_iter().flatten().min().unwrap_or(NextTurn::NEVER))
    }
}
