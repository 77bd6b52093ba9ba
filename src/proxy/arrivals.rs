//! After the program has replaced another: the thread that takes what comes from it.

use std::collections::HashMap;
use std::iter::Cycle;
use std::os::fd::OwnedFd;
use std::slice;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::net::mailbox::Mailbox;
use crate::process::upgrade::Predecessor;

use super::in_use_elsewhere::Noted;
use super::role::ParkedBridge;
use super::state::{Mail, Shared};
use super::upgrade::moved_tunnel::TunnelArrival;
use super::upgrade::notes::{self, Arrival, Moved, MovedRole, PartOf};
use super::upgrade::old_programs::{Absent, Busy};

/// How long a program that replaces another waits for the other one's bridges before it accepts.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(2);

/// What comes from the old program. Workers take connections in turn.
pub(super) struct Arrivals<'s> {
    old: &'s Predecessor,
    shared: &'s Shared,
    workers: Cycle<slice::Iter<'s, Mailbox<Mail>>>,
    accepts: bool,
    /// Connections so far; a tunnel is two.
    count: u64,
    /// What clients have sent that does not fit into one message.
    parts: HashMap<PartOf, Vec<u8>>,
    absent: Absent<ParkedBridge>,
    in_use: Noted,
}

impl<'s> Arrivals<'s> {
    pub(super) fn new(old: &'s Predecessor, shared: &'s Shared) -> Arrivals<'s> {
        Arrivals {
            old,
            shared,
            workers: shared.mailboxes.iter().cycle(),
            accepts: false,
            count: 0,
            parts: HashMap::new(),
            absent: Absent::default(),
            in_use: Noted::default(),
        }
    }

    /// Takes what comes, until the old program has ended.
    pub(super) fn receive(mut self) {
        self.old.set_receive_timeout(Some(ARRIVAL_TIMEOUT));
        loop {
            let Some(message) = self.old.next() else {
                if self.accepts {
                    break;
                }
                // It has ended, or takes too long.
                log::warn!("the old program's bridges do not come");
                self.begin_accepting();
                continue;
            };
            if notes::has_bridges(&message) {
                let count = message.files.len() as u64;
                self.mail(Some(Mail::ArriveAll(message)), count);
                continue;
            }
            let (line, bytes) = (message.line(), message.parts().1.to_vec());
            self.take(&line, message.files, bytes);
        }
        // The last ones must be in the tables of a worker before it may end.
        await_workers(self.shared);
        self.in_use.clear(self.shared);
        self.absent.clear(&self.shared.directory, self.shared.now());
        self.shared.old_programs.clear();
        self.shared.has_predecessor.store(false, Ordering::SeqCst);
        if let Some(store) = &self.shared.bridge_store {
            store.look_after_others();
        }
        log::info!(
            "upgrade: the old program has ended; {} connections have come from it",
            self.count
        );
    }

    fn take(&mut self, line: &Value, mut files: Vec<OwnedFd>, bytes: Vec<u8>) {
        match line["kind"].as_str() {
            Some("connection") => {
                let moved = notes::Moved::read(line);
                let arrival = moved.zip(files.pop()).and_then(|(moved, socket)| {
                    let bytes = self.complete(&moved, bytes)?;
                    Some(Box::new(Arrival { socket, moved, bytes }))
                });
                self.mail(arrival.map(Mail::Arrive), 1);
            }
            Some("part") => {
                let Some((of, at)) = notes::read_part(line) else { return };
                let parts = self.parts.entry(of).or_default();
                // If it is sent again, it is sent from the beginning.
                parts.truncate(at);
                parts.extend_from_slice(&bytes);
            }
            Some("tunnel") => {
                let arrival = TunnelArrival::read(line, files, &bytes).map(Box::new);
                self.mail(arrival.map(Mail::ArriveTunnel), 2);
            }
            Some("route") => {
                let Some(spec) = notes::read_route(line) else { return };
                let (shared, Busy { bridges: busy, of }) = (self.shared, notes::read_busy(line));
                if self.absent.set(&shared.directory, spec.clone(), busy, shared.now()) {
                    shared.mailboxes.iter().for_each(Mailbox::wake);
                }
                self.in_use.set(shared, &spec, &of);
                let instances = notes::read_instances(line);
                if busy == 0 || !instances.is_empty() {
                    self.mail(Some(Mail::Expect(spec, instances)), 0);
                }
            }
            Some("programs") => self.shared.old_programs.hear(line),
            Some("drained") => {
                let drained = line["drained"].as_array().into_iter().flatten();
                self.shared.drained.remove(|_| true);
                let selectors = drained.filter_map(notes::read_selector);
                selectors.for_each(|selector| _ = self.shared.drained.add(&selector));
            }
            Some("bridges-gone") if !self.accepts => {
                await_workers(self.shared);
                self.begin_accepting();
                log::info!("upgrade: {} bridges have come from the old program", self.count);
            }
            _ => {}
        }
    }

    /// Everything that the client has sent, if the message is about one.
    fn complete(&mut self, moved: &Moved, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let MovedRole::Client(client) = &moved.role else { return Some(bytes) };
        let Some((of, at)) = client.before else { return Some(bytes) };
        let parts = self.parts.remove(&of)?;
        (parts.len() == at).then(|| [parts, bytes].concat())
    }

    /// Mails a worker something with so many connections.
    fn mail(&mut self, mail: Option<Mail>, connections: u64) {
        match (mail, self.workers.next()) {
            (Some(mail), Some(mailbox)) => {
                mailbox.send(mail);
                self.count += connections;
            }
            _ => log::error!("upgrade: a connection is lost: part of its message is missing"),
        }
    }

    fn begin_accepting(&mut self) {
        self.accepts = true;
        begin_accepting(self.shared);
        self.old.set_receive_timeout(None);
    }
}

/// Has the workers go on with bridges that the process before this one has left, and accept when
/// they are here.
pub(super) fn take_up(shared: &Shared, bridges: Vec<Arrival>) {
    let count = bridges.len();
    for (bridge, mailbox) in bridges.into_iter().zip(shared.mailboxes.iter().cycle()) {
        mailbox.send(Mail::Arrive(Box::new(bridge)));
    }
    await_workers(shared);
    begin_accepting(shared);
    log::info!("{count} bridges of the process before this one are parked again");
}

/// Waits until every worker has done what it has been told so far.
fn await_workers(shared: &Shared) {
    let (sender, receiver) = mpsc::channel();
    for mailbox in &shared.mailboxes {
        mailbox.send(Mail::Report(sender.clone()));
    }
    drop(sender);
    let until = Instant::now() + ARRIVAL_TIMEOUT;
    while receiver.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok() {}
}

/// Makes every worker accept: the old program's bridges are here, or it has ended.
pub(super) fn begin_accepting(shared: &Shared) {
    shared.mailboxes.iter().for_each(|mailbox| mailbox.send(Mail::BeginAccepting));
}
