//! Lines, which are connections to an application: dialling, keeping idle ones, and finding out
//! whether anybody is there.

use std::io;
use std::time::Duration;

use super::application::{Check, Health};
use super::proxies::keep_order;
use super::resolve::{For, Found};
use super::role::{Age, Bridge, Line, Need, Purpose, Role, Stage, Stay};
use super::service::Destination;
use super::services::Offer;
use super::worker::Agent;
use crate::backoff;
use crate::net::connect;
use crate::net::sys::SocketOptions;
use crate::net::token::Token;

/// Keepalive and TCP_USER_TIMEOUT of lines; an application on this machine cannot vanish without a
/// word, one elsewhere can.
const OPTIONS: SocketOptions =
    SocketOptions { keepalive: Duration::from_secs(30), user_timeout: Duration::from_secs(30) };

/// How long a line is kept idle unless the application has said how long it keeps it: shorter than
/// what application servers keep theirs for, where they keep them at all.
const IDLE: Duration = Duration::from_secs(30);

/// How long a probe may take, at each address.
const PROBE_WITHIN: Duration = Duration::from_secs(2);

/// How long the application may take to answer a connect for a request that stands in a bridge which
/// had no acknowledgement to give: a SYN that was lost is sent again after a second, and once more
/// after another two.
const LINE_WITHIN: Duration = Duration::from_secs(4);

impl Agent {
    /// Gets a bridge that has been given a place what else it needs: an idle line, or a new one.
    pub(super) fn supply(&mut self, key: usize) {
        let application = self.application_of(key);
        let Some(stage) = self.stage(self.slots[key].token(key)) else { return };
        // Before the acknowledgement a line must be known to be there.
        let look = match stage {
            Stage::Asking { request, .. } => !request.meta.is_surely_repeatable(),
            _ => true,
        };
        match self.take_idle(application, look) {
            Some(line) => self.use_line(key, line, Age::Reused),
            None => self.dial_for(key, stage),
        }
    }

    /// Has the bridge in slot `key`, which is at `stage`, go on with a line that is there.
    pub(super) fn use_line(&mut self, key: usize, line: Token, age: Age) {
        match self.stage(self.slots[key].token(key)) {
            Some(Stage::Matched(_)) => {
                let bridge = self.slots[key].token(key);
                self.set_purpose(line, Purpose::Kept { bridge, age });
                self.acknowledge(key, line);
            }
            Some(Stage::Asking { request, .. }) => {
                self.begin(key, (line, age), request, None);
                self.settle(key);
            }
            _ => {}
        }
    }

    /// Dials a line for the bridge in slot `key`, which has a place, and whose `stage` says what for.
    pub(super) fn dial_for(&mut self, key: usize, stage: Stage) {
        let application = self.application_of(key);
        let lacking = |need| match stage {
            Stage::Asking { request, .. } => Stage::Asking { request, need },
            _ => Stage::Matched(need),
        };
        let bridge = self.slots[key].token(key);
        let dialled = if self.applications[application].is_up() {
            self.dial_line(application, 0, Purpose::Dialled { bridge })
        } else {
            Err(io::Error::other("it was not there a moment ago"))
        };
        match dialled {
            Ok(line) => {
                self.set_stage(key, lacking(Need::Line(line)));
                // A bridge that has been matched is under a deadline already.
                if matches!(stage, Stage::Asking { .. }) {
                    self.set_deadline(key, LINE_WITHIN);
                }
            }
            Err(error) => {
                self.set_stage(key, lacking(Need::Place));
                self.release_place(application);
                self.application_failed(application, &error);
                self.undelivered(key);
            }
        }
    }

    fn dial_line(
        &mut self,
        application: usize,
        tried: usize,
        purpose: Purpose,
    ) -> io::Result<Token> {
        let app = &self.applications[application];
        let stream = match (&app.service.to, app.addresses.get(tried)) {
            (Destination::Unix(path), _) => connect::connect_unix(path)?,
            (_, Some(&address)) => connect::connect(address, &OPTIONS)?,
            (_, None) => {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
            }
        };
        self.insert(stream, Role::Line(Line { application, purpose }))
    }

    fn set_purpose(&mut self, line: Token, to: Purpose) {
        if let Role::Line(Line { purpose, .. }) = &mut self.slots[line.key()].role {
            *purpose = to;
        }
    }

    /// The connect of a line may have come off.
    pub(super) fn line_connects(&mut self, key: usize) {
        match self.slots[key].conn.is_connected() {
            Ok(true) => self.line_is_there(key),
            Ok(false) => {}
            Err(error) => self.line_failed(key, &error),
        }
    }

    fn line_is_there(&mut self, key: usize) {
        let Role::Line(Line { application, purpose }) = self.slots[key].role else { return };
        let line = self.slots[key].token(key);
        match purpose {
            Purpose::Probe { tried } => {
                // It is not kept: an application server that serves one connection at a time would
                // wait for a request on it, and serve nobody.
                self.close(key);
                self.application_answers(application, tried);
            }
            Purpose::Dialled { bridge } if self.stage(bridge).is_some() => {
                self.use_line(bridge.key(), line, Age::New);
            }
            _ => self.close(key),
        }
    }

    fn line_failed(&mut self, key: usize, error: &io::Error) {
        let Role::Line(Line { application, purpose }) = self.slots[key].role else { return };
        self.close(key);
        match purpose {
            Purpose::Probe { tried } => self.probe_failed(application, tried, error),
            Purpose::Dialled { bridge } => {
                self.application_failed(application, error);
                if self.stage(bridge).is_some() {
                    self.undelivered(bridge.key());
                }
            }
            _ => {}
        }
    }

    /// A line's deadline has passed.
    pub(super) fn line_is_late(&mut self, key: usize, line: Line) {
        match line.purpose {
            // One that has been taken up since has no deadline, but was left in the wheel: to move it
            // is cheaper than to take it out and file it again with each request.
            Purpose::Idle => self.close(key),
            Purpose::Probe { .. } => {
                let error = io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
                self.line_failed(key, &error);
            }
            Purpose::Dialled { .. } | Purpose::Kept { .. } | Purpose::Responding { .. } => {}
        }
    }

    /// An idle line that is still open as far as is known; with `look`, at the price of a system
    /// call each, as far as the kernel knows.
    pub(super) fn take_idle(&mut self, application: usize, look: bool) -> Option<Token> {
        while let Some(line) = self.applications[application].idle.pop() {
            let conn = &mut self.slots[line.key()].conn;
            let looked_at = look || conn.is_readable();
            if !conn.is_broken() && (!looked_at || conn.probe_idle()) {
                return Some(line);
            }
            self.close(line.key());
        }
        None
    }

    /// Keeps a line for the next request; the application may have said for how many seconds.
    pub(super) fn keep_line(&mut self, key: usize, seconds: Option<u32>) {
        let Role::Line(Line { application, .. }) = self.slots[key].role else { return };
        let line = self.slots[key].token(key);
        let keep = seconds.map_or(IDLE, |seconds| IDLE.min(Duration::from_secs(seconds.into())));
        if !self.is_offered(key) {
            return self.close(key);
        }
        self.set_purpose(line, Purpose::Idle);
        self.set_deadline(key, keep);
        self.applications[application].idle.push(line);
    }

    /// Something has happened on a line that nobody uses: the application has closed it, or says
    /// something that nobody has asked for, such as "408 Request Timeout".
    pub(super) fn watch_line(&mut self, key: usize) {
        let Role::Line(Line { application, .. }) = self.slots[key].role else { return };
        let conn = &mut self.slots[key].conn;
        if conn.is_broken() || !conn.is_quiet() {
            self.close(key);
            // Perhaps it had been idle for too long, perhaps the application is gone. Better to
            // know before the next request does.
            self.check_application(application);
        }
    }

    /// Takes a line out of the tables.
    pub(super) fn line_is_gone(&mut self, key: usize, line: Line) {
        let token = self.slots[key].token(key);
        match line.purpose {
            Purpose::Idle => {
                let idle = &mut self.applications[line.application].idle;
                idle.retain(|kept| *kept != token);
            }
            Purpose::Kept { bridge, .. }
                if matches!(self.stage(bridge), Some(Stage::Ready { .. })) =>
            {
                self.set_stage(bridge.key(), Stage::Ready { line: None });
            }
            _ => {}
        }
    }

    /// One of an application's places is free again.
    pub(super) fn release_place(&mut self, application: usize) {
        let app = &mut self.applications[application];
        app.free += 1;
        if !app.queue.is_empty() {
            self.freed.push(application);
        } else if app.free == 1 {
            // While none was free, nothing was dialled.
            let now = self.now();
            self.tend_by(now);
        }
    }

    /// Gives the places that have become free to those who wait for one.
    pub(super) fn serve_queues(&mut self) {
        // What comes of it may free places again: that is for the next turn.
        for _ in 0..self.freed.len() {
            let application = self.freed.swap_remove(0);
            while let Some(bridge) = self.applications[application].next_in_queue() {
                let waits = matches!(
                    self.stage(bridge),
                    Some(Stage::Matched(Need::Place) | Stage::Asking { need: Need::Place, .. })
                );
                if waits {
                    self.applications[application].free -= 1;
                    self.supply(bridge.key());
                }
            }
            if self.applications[application].free > 0 {
                let now = self.now();
                self.tend_by(now);
            }
        }
    }

    /// Sees to it that every application that is not there is looked for.
    pub(super) fn tend_applications(&mut self) {
        for application in 0..self.applications.len() {
            if self.applications[application].offer == Offer::Withdrawn {
                continue;
            }
            match self.applications[application].health {
                Health::Down { failures, at } if at <= self.now() => {
                    self.probe(application, failures)
                }
                Health::Doubted { at } if at <= self.now() => {
                    self.applications[application].health = Health::Checking(Check::Second);
                    self.probe_address(application, 0);
                }
                Health::Down { at, .. } | Health::Doubted { at } => self.tend_by(at),
                Health::Up | Health::Checking(_) | Health::Probing { .. } => {}
            }
        }
    }

    fn probe(&mut self, application: usize, failures: u32) {
        let app = &mut self.applications[application];
        app.health = Health::Probing { failures };
        match &app.service.to {
            // Whoever has come back may have come back at another address.
            Destination::Name { host, port } => {
                self.resolver.ask(For::Application(application), host, *port);
            }
            Destination::Unix(_) | Destination::Socket(_) => self.probe_address(application, 0),
        }
    }

    /// The addresses of an application have been looked up, for a probe.
    pub(super) fn application_found(&mut self, application: usize, found: Found) {
        match found {
            Ok(found) => {
                keep_order(&mut self.applications[application].addresses, found);
                self.probe_address(application, 0);
            }
            Err(error) => self.application_failed(application, &error),
        }
    }

    fn probe_address(&mut self, application: usize, tried: usize) {
        if !self.is_serving() {
            return;
        }
        match self.dial_line(application, tried, Purpose::Probe { tried }) {
            Ok(line) => self.set_deadline(line.key(), PROBE_WITHIN),
            Err(error) => self.probe_failed(application, tried, &error),
        }
    }

    fn probe_failed(&mut self, application: usize, tried: usize, error: &io::Error) {
        if tried + 1 < self.applications[application].addresses.len() {
            self.probe_address(application, tried + 1);
        } else {
            self.application_failed(application, error);
        }
    }

    /// Looks whether an application that was there still is, unless that is being done.
    fn check_application(&mut self, application: usize) {
        let serving = self.is_serving();
        let app = &mut self.applications[application];
        if app.health == Health::Up && serving {
            app.health = Health::Checking(Check::First);
            self.probe_address(application, 0);
        }
    }

    /// An application has taken a probe's connection, after so many of its addresses that had not.
    fn application_answers(&mut self, application: usize, tried: usize) {
        let now = self.now();
        let app = &mut self.applications[application];
        if tried < app.addresses.len() {
            app.addresses.rotate_left(tried);
        }
        if app.answered(now) {
            log::info!("the application at {} is there", app.service.to);
        }
        self.tend_by(now);
    }

    /// An application could not be reached. While it is away nothing is parked for it: a request
    /// that finds no bridge here goes elsewhere, or waits at the proxy.
    pub(super) fn application_failed(&mut self, application: usize, why: &io::Error) {
        let now = self.now();
        let app = &mut self.applications[application];
        let was_up = app.is_up();
        if app.failed(now, backoff::random()) {
            log::warn!(
                "the application at {} cannot be reached: {why}; no bridge is parked for it until \
                 it is back",
                app.service.to
            );
        } else {
            log::debug!("the application at {} cannot be reached: {why}", app.service.to);
        }
        self.tend_by(now);
        if was_up {
            self.withdraw(application);
        }
    }

    /// Has all bridges of an application closed on which there is nothing to do: by the proxy, if it knows how to. What
    /// still comes over them until then cannot be delivered, and goes elsewhere.
    fn withdraw(&mut self, application: usize) {
        let of: Vec<bool> =
            self.proxies.iter().map(|proxy| proxy.application == application).collect();
        self.say_farewell(|bridge| of[bridge.proxy]);
        let idle = |role: &Role, quiet: bool| match role {
            Role::Bridge(Bridge { stay: Stay::Leaves, .. }) => false,
            Role::Bridge(Bridge { stage, .. }) => match stage {
                Stage::Dialling { .. } | Stage::Registering | Stage::Parked { .. } => true,
                // With a request in it, it is closed when the request has been read: a proxy that
                // cannot send it again is told so.
                Stage::Idle(_) => quiet,
                _ => false,
            },
            _ => false,
        };
        let keys: Vec<usize> = self
            .slots
            .iter()
            .filter(|(_, slot)| idle(&slot.role, slot.conn.is_idle()))
            .map(|(key, _)| key)
            .filter(|key| self.application_of(*key) == application)
            .collect();
        keys.into_iter().for_each(|key| self.close(key));
    }
}
