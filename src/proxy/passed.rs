//! Sockets that systemd has opened for the proxy (socket activation), by their names
//! (`FileDescriptorName=`, systemd.socket(5)).
//!
//! They are systemd's: the proxy accepts there while its settings name them, and never closes them.
//! A connection to one that the settings do not name waits until they do.

use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;

use crate::config::Address;
use crate::net::listener;
use crate::process::activation::Passed;

/// All sockets that systemd has opened.
#[derive(Default)]
pub(super) struct PassedSockets(Vec<Passed>);

impl PassedSockets {
    pub(super) fn new(all: Vec<Passed>) -> PassedSockets {
        PassedSockets(all)
    }

    /// The sockets of this name, and where each listens.
    ///
    /// # Errors
    /// One sentence: there is none, or one of them takes no connections.
    pub(super) fn of(&self, name: &str) -> Result<Vec<(String, &OwnedFd)>, String> {
        let found: Vec<_> = self.0.iter().filter(|passed| passed.name == name).collect();
        if found.is_empty() {
            return Err(match self.names().as_slice() {
                [] => "systemd has passed no socket to this process".to_owned(),
                names => format!("systemd has passed no socket of this name, but {}", list(names)),
            });
        }
        found.into_iter().map(|Passed { file, .. }| Ok((listener::place_of(file)?, file))).collect()
    }

    /// Whether the sockets of this name are all Unix sockets.
    pub(super) fn are_unix(&self, name: &str) -> bool {
        self.of(name).is_ok_and(|all| all.iter().all(|(place, _)| listener::is_unix(place)))
    }

    /// Warns of those whose names are not used.
    pub(super) fn warn_of_idle(&self, is_used: impl Fn(&str) -> bool) {
        for Passed { name, file } in self.0.iter().filter(|passed| !is_used(&passed.name)) {
            let place = match listener::place_of(file) {
                Ok(place) => format!("at {place}: connections wait there"),
                Err(what) => what,
            };
            log::warn!("systemd:{name} is not in the settings ({place})");
        }
    }

    /// Why an address is in use, if one of these sockets listens there; otherwise nothing.
    pub(super) fn hint(&self, address: &Address, error: &io::Error) -> String {
        if error.kind() != io::ErrorKind::AddrInUse {
            return String::new();
        }
        let wanted: Vec<String> = match address {
            Address::Unix(_) => vec![address.to_string()],
            _ => address.resolve().into_iter().flatten().map(|one| one.to_string()).collect(),
        };
        let listens = |passed: &&Passed| {
            listener::place_of(&passed.file).is_ok_and(|place| wanted.contains(&place))
        };
        match self.0.iter().find(listens) {
            Some(passed) => format!("; a socket of systemd listens there: systemd:{}", passed.name),
            None => String::new(),
        }
    }

    /// By name, for a program that replaces this one.
    pub(super) fn all(&self) -> &[Passed] {
        &self.0
    }

    /// Each name once.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for Passed { name, .. } in &self.0 {
            if !names.contains(&&**name) {
                names.push(name);
            }
        }
        names
    }
}

/// `a`, `a and b`, `a, b and c`.
fn list(names: &[&str]) -> String {
    let mut text = String::new();
    for (at, name) in names.iter().enumerate() {
        let before = match at {
            0 => "",
            at if at + 1 == names.len() => " and ",
            _ => ", ",
        };
        let _ = write!(text, "{before}{name}");
    }
    text
}
