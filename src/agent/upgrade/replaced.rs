//! In the old agent: starts the new one, and leaves everything to it.
//!
//! ```text
//!   1. what becomes of each service here; what is left of it
//!   2. idle connections to applications, then parked and idle bridges
//!   3. each of these that a request has released, at the end of the turn, until nothing is left
//! ```
//!
//! A bridge is not read once it may go: a request that comes at that moment stays in the kernel, and
//! is served by the one that has the bridge.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::super::proxies::{Place, Proxy};
use super::super::role::{Bridge, Role, Stage, Upstream, UpstreamState};
use super::super::state::{Agent, Life, Mail};
use super::encrypted::{DIALLED_TIMEOUT, hear};
use super::notes::{self, Left, LeftAt, MovedBridge, MovedConnection, MovedStage, Served};
use super::progress::{Replaced, SuccessorEnd};
use crate::net::token::Token;
use crate::process::channel::Channel;
use crate::process::notify;
use crate::process::upgrade::{Offer, Stage as Doing, Successor, Unwanted, Watch, parent};
use crate::time::Millis;

/// When to try again what the new program has not taken.
const AGAIN: Duration = Duration::from_millis(20);

/// How long the last messages of a program that has ended may take. They are there.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Agent {
    /// What the agent is doing, as far as upgrades are concerned.
    pub(in crate::agent) fn doing(&self) -> Doing {
        match self.life {
            Life::Serving if self.upgrades.starting.is_some() => Doing::Upgrading,
            Life::Serving => Doing::Serving,
            Life::Replaced { .. } => Doing::Replaced,
            Life::Leaving { .. } | Life::Over => Doing::Draining,
        }
    }

    /// Starts the program anew, in a thread of its own, which says what has come of it.
    pub(in crate::agent) fn upgrade(&mut self) {
        if let Some(why) = self.doing().refuses() {
            return log::warn!("USR2: {why}");
        }
        let program = self.upgrades.program.clone();
        log::info!("upgrade: starting {}", program.path.display());
        let mut offer = Offer::new(notes::hello());
        if let Some(healthz) = &self.healthz {
            healthz.offer(&mut offer);
        }
        offer.finish();
        let mailbox = Arc::clone(&self.mailbox);
        let unwanted = Unwanted::default();
        let theirs = unwanted.clone();
        let start =
            move || mailbox.send(Mail::Upgraded(program.start(&offer, &theirs).map(Box::new)));
        match thread::Builder::new().name("upgrade".to_owned()).spawn(start) {
            Ok(_) => self.upgrades.starting = Some(unwanted),
            Err(error) => refused(&[error.to_string()]),
        }
    }

    /// A new program serves, or it has been given up.
    pub(in crate::agent) fn upgraded(&mut self, result: Result<Box<Successor>, Vec<String>>) {
        self.upgrades.starting = None;
        let successor = match result {
            // This program is to end, and so is that.
            Ok(successor) if !self.is_serving() => return successor.kill(),
            Ok(successor) => successor,
            Err(_) if !self.is_serving() => return,
            Err(problems) => return refused(&problems),
        };
        let read: Option<Vec<Served>> = successor.serves.iter().map(Served::read).collect();
        let Some(new) = read else {
            successor.kill();
            return refused(&["the new program does not say what it serves".to_owned()]);
        };
        let process = successor.process;
        log::info!("upgrade: process {process} serves; this one finishes what is in flight");
        notify::replaced_by(process);
        parent::set_replaced(true);
        self.tell_predecessor(true);
        let (channel, watch) = successor.watch();
        let channel = Arc::new(channel);
        let (mailbox, theirs) = (Arc::clone(&self.mailbox), Arc::clone(&channel));
        let heard = Arc::clone(&self.mailbox);
        let watch = move || {
            let end = wait(watch, theirs, move || heard.send(Mail::SuccessorDialled));
            mailbox.send(Mail::SuccessorEnded(end));
        };
        if let Err(error) = thread::Builder::new().name("watch".to_owned()).spawn(watch) {
            // It is only missed if the new program fails.
            log::warn!("upgrade: cannot watch the new program: {error}");
        }
        self.be_replaced(channel, &new);
    }

    fn be_replaced(&mut self, channel: Arc<Channel>, new: &[Served]) {
        let old = self
            .applications
            .iter()
            .map(|app| (!app.withdrawn).then(|| Served::of(&app.service, &app.registration)));
        let successors = notes::successors(&old.collect::<Vec<_>>(), new);
        self.life = Life::Replaced { until: self.now() + self.upgrade_timeout };
        self.close_probes();
        self.listen_for_askers(false);
        self.upgrades.was_replaced = true;
        let mut replaced = Replaced::new(channel, successors, self.now() + DIALLED_TIMEOUT);
        for at in 0..self.applications.len() {
            let app = &self.applications[at];
            match replaced.successor(at) {
                None if app.withdrawn => {}
                None => {
                    replaced.withdrawn.push(app.service.clone());
                    self.withdraw(at);
                }
                Some(successor) => {
                    let gone = |place: Place| successor.proxies[place.at].is_none();
                    let proxies = self.proxies.iter().enumerate();
                    let proxies =
                        proxies.filter(|(_, proxy)| proxy.application == at && gone(proxy.place));
                    let proxies: Vec<usize> = proxies.map(|(proxy, _)| proxy).collect();
                    self.close_unoccupied_of(|bridge| proxies.contains(&bridge.proxy));
                }
            }
        }
        self.replaced = Some(replaced);
    }

    /// The probes and checks of applications under way are the new program's business.
    fn close_probes(&mut self) {
        let is_probe = |role: &Role| match role {
            Role::Upstream(upstream) => {
                matches!(upstream.state, UpstreamState::Probing { .. } | UpstreamState::Checking)
            }
            _ => false,
        };
        self.conns.keys_with(is_probe).into_iter().for_each(|key| self.close(key));
    }

    /// The new program has ended.
    pub(in crate::agent) fn successor_ended(&mut self, end: &SuccessorEnd) {
        self.requeue_ready();
        let Some(replaced) = self.replaced.take() else { return };
        match (end, self.life) {
            (SuccessorEnd::Failed(how), Life::Replaced { .. }) => {
                log::error!("the new program has ended ({how}): this one goes on");
                self.go_on(&replaced);
            }
            // What it has been told to end holds for this one, too.
            (SuccessorEnd::Told, Life::Replaced { .. }) => {
                self.life = Life::Serving;
                self.is_told |= parent::has_passed_stop();
                self.shut_down();
            }
            (SuccessorEnd::Failed(_) | SuccessorEnd::Told, Life::Leaving { .. }) => {
                self.leave_all();
            }
            // Its bridges have the same tokens as those here: nothing may be deregistered.
            (SuccessorEnd::Replaced, Life::Replaced { .. } | Life::Leaving { .. }) => {
                log::info!("the new program has ended, in whose place another serves");
                if let Life::Replaced { .. } = self.life {
                    self.life = Life::Leaving { until: self.now() + self.grace };
                }
                self.end_after_requests();
            }
            (_, Life::Serving | Life::Over) => {}
        }
    }

    /// Goes on as before the upgrade. What had gone over is lost, and dialled again.
    fn go_on(&mut self, replaced: &Replaced) {
        self.life = Life::Serving;
        for app in &mut self.applications {
            app.resume();
        }
        // The new program may have told them anything.
        (0..self.proxies.len()).for_each(|proxy| self.tell_again(proxy));
        for service in &replaced.withdrawn {
            if let Err(what) = self.add(service) {
                log::error!("{}: {what}", service.to);
            }
        }
        self.listen_for_askers(true);
        self.upgrades.was_replaced = false;
        notify::ready();
        parent::set_replaced(false);
        self.tell_predecessor(false);
        self.maintain_now();
    }

    /// Tells the program that this one has replaced, if it still lives, whether another has replaced
    /// this one.
    fn tell_predecessor(&self, is_replaced: bool) {
        if let Some(replacing) = &self.replacing {
            replacing.predecessor.set_replaced(is_replaced);
        }
    }

    /// Lets a connection go over at the end of this turn, if there is a new program and nothing is in
    /// progress on it. If so, it must not be read.
    pub(in crate::agent) fn pass_soon(&mut self, key: usize) -> bool {
        let is_passing = self.replaced.as_ref().is_some_and(|replaced| replaced.again.is_none());
        if !is_passing {
            return false;
        }
        if !self.is_movable(key) {
            return self.close_if_unwanted(key);
        }
        let token = self.conns[key].token();
        if let Some(replaced) = &mut self.replaced {
            replaced.ready.push(token);
        }
        true
    }

    /// Whether a connection can go over as it is.
    fn is_movable(&mut self, key: usize) -> bool {
        // The keys of its records are here.
        if !self.is_free_to_go(key) || !self.conns[key].conn.can_move() {
            return false;
        }
        let (connection, ws) = self.conns.split(key);
        let conn = &mut connection.conn;
        // What is broken or has ended is for the program that has used it.
        !conn.is_broken()
            && !conn.has_hung_up()
            && Channel::fits(conn.input.len())
            && conn.flush(&mut ws.pool).is_ok_and(|all| all)
    }

    /// Whether nothing is in progress on a connection, and the new program has a use for it.
    fn is_free_to_go(&self, key: usize) -> bool {
        let Some(replaced) = &self.replaced else { return false };
        match self.conns.role(key) {
            Some(Role::Bridge(bridge)) => {
                matches!(bridge.stage, Stage::Parked { .. } | Stage::Idle { .. })
                    && !bridge.deregistering
                    && place_there(replaced, &self.proxies[bridge.proxy]).is_some()
            }
            Some(Role::Upstream(Upstream { application, state: UpstreamState::Idle, .. })) => {
                replaced.successor(*application).is_some_and(|app| app.takes_connections)
            }
            _ => false,
        }
    }

    /// Closes an idle bridge to a proxy that the new program does not have, and a connection to an
    /// application that it could not use. True if it was one.
    fn close_if_unwanted(&mut self, key: usize) -> bool {
        let Some(replaced) = &self.replaced else { return false };
        let is_unwanted = match self.conns.role(key) {
            Some(Role::Bridge(bridge)) => {
                matches!(bridge.stage, Stage::Idle { .. })
                    && !bridge.deregistering
                    && self.conns[key].conn.is_idle()
                    && place_there(replaced, &self.proxies[bridge.proxy]).is_none()
            }
            Some(Role::Upstream(Upstream { application, state: UpstreamState::Idle, .. })) => {
                !self.conns[key].conn.can_move()
                    || replaced.successor(*application).is_none_or(|app| !app.takes_connections)
            }
            _ => false,
        };
        if is_unwanted {
            self.close(key);
        }
        is_unwanted
    }

    /// Passes on what is free to go. The last work of a turn.
    pub(in crate::agent) fn pass_on(&mut self) {
        let now = self.now();
        if let Life::Replaced { until } = self.life
            && now >= until
        {
            log::warn!("the time for what is in flight is over");
            self.shut_down();
        }
        self.leave_encrypted_in_time();
        let Some(replaced) = self.replaced.as_ref().filter(|replaced| replaced.has_work(now))
        else {
            return;
        };
        let channel = Arc::clone(&replaced.channel);
        if self.pass_with(&channel).is_err() {
            self.requeue_ready();
            if let Some(replaced) = &mut self.replaced {
                replaced.again = Some(now + AGAIN);
            }
        }
    }

    /// # Errors
    /// The new program has not taken a message.
    fn pass_with(&mut self, channel: &Channel) -> io::Result<()> {
        let Some(replaced) = &mut self.replaced else { return Ok(()) };
        if replaced.again.take().is_some() {
            if !replaced.has_described {
                self.describe(channel)?;
            }
            self.find_ready();
        }
        self.pass_ready(channel)?;
        self.say_left(channel, false)?;
        match &mut self.replaced {
            Some(replaced) if !replaced.has_passed => {
                channel.send(notes::PASSED, b"", &[])?;
                replaced.has_passed = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Says how the applications are, the tokens of the bridges, and how much there is.
    fn describe(&mut self, channel: &Channel) -> io::Result<()> {
        let now = self.now();
        let Some(replaced) = &self.replaced else { return Ok(()) };
        for (at, app) in self.applications.iter().enumerate() {
            if let Some(successor) = replaced.successor(at) {
                let line = notes::application(successor.service, &app.condition(now));
                channel.send(&line, b"", &[])?;
            }
        }
        // Those that stay are deregistered without the new program's.
        for proxy in self.proxies.iter().filter(|proxy| proxy.tls.is_none()) {
            if let Some((service, place)) = place_there(replaced, proxy)
                && let Some(announcement) = &proxy.announcement
            {
                channel.send(&notes::token(service, place, &announcement.token), b"", &[])?;
            }
        }
        self.say_left(channel, true)?;
        channel.send(notes::TOLD, b"", &[])?;
        if let Some(replaced) = &mut self.replaced {
            replaced.has_described = true;
        }
        Ok(())
    }

    /// Finds everything that is free to go, in its order: first the connections to the applications,
    /// so that a request finds one; then the bridges, the one that has been parked longest first.
    fn find_ready(&mut self) {
        let mut ready: Vec<Token> =
            self.applications.iter().flat_map(|app| app.idle.iter().copied()).collect();
        let mut bridges: Vec<(Millis, Token)> = Vec::new();
        for (_, connection) in self.conns.iter() {
            match connection.role() {
                Some(Role::Bridge(Bridge { stage: Stage::Parked { since }, .. })) => {
                    bridges.push((*since, connection.token()));
                }
                Some(Role::Bridge(Bridge { stage: Stage::Idle { .. }, .. })) => {
                    bridges.push((Millis(u64::MAX), connection.token()));
                }
                _ => {}
            }
        }
        bridges.sort_by_key(|(since, _)| *since);
        ready.extend(bridges.into_iter().map(|(_, token)| token));
        if let Some(replaced) = &mut self.replaced {
            replaced.ready = ready;
        }
    }

    /// Passes on what is ready to go. What is not taken, or is no longer free, is read here.
    fn pass_ready(&mut self, channel: &Channel) -> io::Result<()> {
        let Some(replaced) = &mut self.replaced else { return Ok(()) };
        let ready = std::mem::take(&mut replaced.ready);
        replaced.has_changed |= !ready.is_empty();
        let mut passed = Ok(());
        for token in ready {
            let Some(key) = self.conns.find(token) else { continue };
            if passed.is_ok() && self.is_movable(key) {
                passed = self.pass(channel, key);
                if passed.is_ok() {
                    self.depart(key);
                    continue;
                }
            }
            if !self.close_if_unwanted(key) {
                self.conns.requeue(key);
            }
        }
        passed
    }

    fn pass(&self, channel: &Channel, key: usize) -> io::Result<()> {
        let Some(replaced) = &self.replaced else { return Ok(()) };
        let connection = &self.conns[key];
        let conn = &connection.conn;
        let left = self.conns.deadline(key).map(|at| at.since(self.conns.now().millis()));
        let line = match connection.role() {
            Some(Role::Bridge(bridge)) => {
                let proxy = &self.proxies[bridge.proxy];
                let Some((service, place)) = place_there(replaced, proxy) else { return Ok(()) };
                let stage = match bridge.stage {
                    Stage::Parked { since } => MovedStage::Parked { ago: self.now().since(since) },
                    Stage::Idle { begun } => MovedStage::Idle { begun },
                    _ => return Ok(()),
                };
                let &Bridge { address, extensions, .. } = bridge;
                let moved = MovedBridge { proxy: place, address, extensions, stage, left };
                notes::bridge(service, &moved)
            }
            Some(Role::Upstream(upstream)) => {
                let Some(successor) = replaced.successor(upstream.application) else {
                    return Ok(());
                };
                let &Upstream { carried_body, last_had_body, client, .. } = upstream;
                let peer = connection.peer;
                let moved = MovedConnection { peer, carried_body, last_had_body, client, left };
                notes::connection(successor.service, &moved)
            }
            _ => return Ok(()),
        };
        channel.send(&line, conn.input.bytes(), &[conn.as_fd()])
    }

    /// A connection is the new program's from now on. Its socket stays open there.
    fn depart(&mut self, key: usize) {
        let token = self.conns[key].token();
        let mut connection = match self.conns.remove(key) {
            Ok(connection) => connection,
            Err(error) => {
                log::warn!("a connection cannot be released: {error}");
                return self.close(key);
            }
        };
        connection.conn.input.clear(&mut self.conns.ws.pool);
        match connection.role() {
            Some(Role::Bridge(bridge)) => {
                self.proxies[bridge.proxy].bridge_closed(true);
                self.listener_left(token, bridge);
            }
            Some(Role::Upstream(upstream)) => {
                self.applications[upstream.application].idle.retain(|idle| *idle != token);
            }
            Some(Role::Deregistration(_) | Role::Asker) | None => {}
        }
    }

    /// Says what is left here of each service, where that is news. With `all`, everything is still
    /// here: each place of a request may be taken.
    fn say_left(&mut self, channel: &Channel, all: bool) -> io::Result<()> {
        for at in 0..self.applications.len() {
            let Some(replaced) = &self.replaced else { return Ok(()) };
            let Some(service) = replaced.successor(at).map(|successor| successor.service) else {
                continue;
            };
            let app = &self.applications[at];
            let mut left = Left {
                requests: if all { app.service.limit } else { app.slots.claimed() },
                tunnels: app.tunnels_taken(),
                proxies: Vec::new(),
            };
            // The new program dials all encrypted ones.
            let plain = |proxy: &&Proxy| proxy.application == at && proxy.tls.is_none();
            for proxy in self.proxies.iter().filter(plain) {
                let (bridges, tunnels) = (proxy.claimed(), proxy.sharing.tunnels);
                if let Some((_, place)) = place_there(replaced, proxy)
                    && bridges + tunnels > 0
                {
                    let requests = app.busy_of(proxy.sharing.party);
                    left.proxies.push(LeftAt { place, bridges, requests, tunnels });
                }
            }
            if replaced.said[at] == left {
                continue;
            }
            channel.send(&notes::left(service, &left), b"", &[])?;
            if let Some(replaced) = &mut self.replaced {
                replaced.said[at] = left;
            }
        }
        if let Some(replaced) = &mut self.replaced {
            replaced.has_changed = false;
        }
        Ok(())
    }

    /// What was ready to go, and has not gone, is read here.
    fn requeue_ready(&mut self) {
        let Some(replaced) = &mut self.replaced else { return };
        for token in std::mem::take(&mut replaced.ready) {
            if let Some(key) = self.conns.find(token) {
                self.conns.requeue(key);
            }
        }
    }
}

/// Which service of the new program the bridges of a proxy belong to, and which proxy of that.
fn place_there(replaced: &Replaced, proxy: &Proxy) -> Option<(usize, Place)> {
    let successor = replaced.successor(proxy.application)?;
    let at = successor.proxies[proxy.place.at]?;
    Some((successor.service, Place { at, ..proxy.place }))
}

/// A thread's work: waits until the new program has ended, and learns how. Calls `dialled` when that
/// has its bridges.
fn wait(watch: Watch, channel: Arc<Channel>, dialled: impl Fn() + Send + 'static) -> SuccessorEnd {
    let theirs = Arc::clone(&channel);
    let hear = move || hear(&theirs, dialled);
    let hearing = thread::Builder::new().name("hear".to_owned()).spawn(hear);
    if let Err(error) = &hearing {
        // Its bridges are deregistered later.
        log::warn!("upgrade: cannot hear the new program: {error}");
    }
    let how = watch.wait();
    // Its last words are read before the end of the channel. Without the thread they are there.
    let is_replaced = match hearing {
        Ok(hearing) => hearing.join().unwrap_or(false),
        Err(_) => {
            let _ = channel.set_timeouts(Some(LAST_WORDS), Some(LAST_WORDS));
            self::hear(&channel, || {})
        }
    };
    match how {
        _ if is_replaced => SuccessorEnd::Replaced,
        Some(how) => SuccessorEnd::Failed(how),
        None => SuccessorEnd::Told,
    }
}

fn refused(problems: &[String]) {
    problems.iter().for_each(|problem| log::error!("upgrade: {problem}"));
    log::error!("upgrade: nothing has changed: this program goes on");
}
