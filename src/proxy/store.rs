//! Listening sockets that systemd keeps for the next process (`FileDescriptorStoreMax=`,
//! systemd.service(5)): while a process is restarted, or after it was killed, connections wait in
//! their backlogs and none is refused.
//!
//! systemd keeps the sockets of an address under one name, all or none of them: the kernel spreads
//! connections over all that are open, and each must have somebody who accepts there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::net::listener;
use crate::process::activation::Passed;
use crate::process::notify;

use super::bridge_store;
use super::listener_names;
use super::listeners::{Bound, Inherited, ListenerSet};
use super::passed::PassedSockets;

/// What systemd keeps.
#[derive(Default)]
pub(super) struct Store {
    kept: Vec<Kept>,
    /// How many places of it are not for listening sockets.
    others: usize,
    /// The last warning.
    left_out: Vec<String>,
}

/// The sockets of a listener.
#[derive(PartialEq, Eq)]
struct Kept {
    name: String,
    /// What tells them from others; none if that is not known.
    sockets: Vec<u64>,
}

/// Tells the sockets that systemd has opened from those that it has kept for a process before this
/// one.
pub(super) fn sort(all: Vec<Passed>) -> (PassedSockets, Vec<Inherited>) {
    let is_kept = |passed: &Passed| listener_names::is_one(&passed.name);
    let (kept, opened): (Vec<_>, Vec<_>) = all.into_iter().partition(is_kept);
    let mut inherited: Vec<Inherited> = Vec::new();
    for Passed { name, file } in kept {
        let shown = match listener::place_of(&file) {
            Ok(shown) => listener_names::unix_place(&name).unwrap_or(shown),
            Err(what) => {
                log::warn!("a socket that systemd has kept as {name} cannot be used: {what}");
                continue;
            }
        };
        let at = match inherited.iter().position(|known| known.name == name) {
            Some(at) => at,
            None => {
                inherited.push(Inherited { name, bound: Vec::new() });
                inherited.len() - 1
            }
        };
        let bound = &mut inherited[at].bound;
        match bound.iter_mut().find(|bound| bound.shown == shown) {
            Some(bound) => bound.sockets.push(file),
            None => bound.push(Bound { shown, sockets: vec![file] }),
        }
    }
    (PassedSockets::new(opened), inherited)
}

impl Store {
    /// A store from which `kept` has come. It may also have sockets of `replaced`, which the program
    /// has that this one replaces.
    pub(super) fn new(kept: &[Inherited], replaced: &[Inherited]) -> Store {
        let kept = kept.iter().map(|old| {
            let sockets = distinct(&old.bound).and_then(|sockets| identities(&sockets));
            Kept { name: old.name.clone(), sockets: sockets.unwrap_or_default() }
        });
        let replaced =
            replaced.iter().map(|old| Kept { name: old.name.clone(), sockets: Vec::new() });
        Store { kept: kept.chain(replaced).collect(), ..Store::default() }
    }

    /// Leaves places for bridges beside these listeners' sockets. Returns how many.
    pub(super) fn leave_places(&mut self, listeners: &ListenerSet) -> usize {
        let count = |(_, _, bound): (_, _, &[Bound])| distinct(bound).map_or(0, |all| all.len());
        let sockets = listeners.all().map(count).sum();
        self.others = bridge_store::places(notify::store_size(), sockets);
        self.others
    }

    /// Has systemd keep the sockets of these listeners, and no others. Call it before sockets are
    /// closed: connections to one that only systemd has would wait for nobody.
    pub(super) fn update(&mut self, listeners: &ListenerSet) {
        let size = notify::store_size().saturating_sub(self.others);
        let wanted = if size > 0 { by_name(listeners) } else { Vec::new() };
        let (mut kept, mut files, mut left_out, mut count) = (vec![], vec![], vec![], 0);
        for (name, address, sockets) in wanted {
            count += sockets.len();
            if count > size {
                left_out.push(address);
                continue;
            }
            match identities(&sockets) {
                Ok(sockets) => kept.push(Kept { name, sockets }),
                Err(error) => {
                    log::warn!("systemd does not keep {address}: {error}");
                    continue;
                }
            }
            files.push(sockets);
        }
        // First, because systemd takes no more than there is room for.
        for old in self.kept.iter().filter(|old| !kept.contains(old)) {
            notify::forget(&old.name);
        }
        for (new, files) in kept.iter().zip(files).filter(|(new, _)| !self.kept.contains(new)) {
            let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            notify::store(&new.name, &files);
        }
        if !left_out.is_empty() && left_out != self.left_out {
            let left_out = left_out.join(", ");
            log::warn!(
                "FileDescriptorStoreMax={} is too small for {count} sockets: \
                 systemd does not keep {left_out}",
                size + self.others
            );
        }
        *self = Store { kept, others: self.others, left_out };
        self.leave_files(listeners);
    }

    /// Leaves the files of Unix sockets that systemd keeps to the next process.
    pub(super) fn leave_files(&self, listeners: &ListenerSet) {
        listeners.leave_files(|name| self.kept.iter().any(|kept| kept.name == name));
    }
}

/// The sockets of each name, and an address that has it. Several listeners at ports that the kernel
/// has chosen may have the same.
fn by_name(listeners: &ListenerSet) -> Vec<(String, String, Vec<OwnedFd>)> {
    let mut all: Vec<(String, String, Vec<OwnedFd>)> = Vec::new();
    for (address, what, bound) in listeners.all() {
        let sockets = match distinct(bound) {
            Ok(sockets) => sockets,
            Err(error) => {
                log::warn!("systemd does not keep {address}: {error}");
                continue;
            }
        };
        let name = listener_names::of(address, &what);
        match all.iter_mut().find(|(known, _, _)| *known == name) {
            Some((_, _, known)) => known.extend(sockets),
            None => all.push((name, address.to_string(), sockets)),
        }
    }
    all
}

fn distinct(bound: &[Bound]) -> io::Result<Vec<OwnedFd>> {
    let all: io::Result<Vec<_>> =
        bound.iter().map(|bound| listener::distinct(&bound.sockets)).collect();
    Ok(all?.into_iter().flatten().collect())
}

/// In an order that does not depend on that of the sockets.
fn identities(sockets: &[OwnedFd]) -> io::Result<Vec<u64>> {
    let mut all = sockets.iter().map(listener::identity).collect::<io::Result<Vec<_>>>()?;
    all.sort_unstable();
    Ok(all)
}
