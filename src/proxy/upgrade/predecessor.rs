//! In the new program: takes what the old one has.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::config::SiteUpdates;
use crate::net::sys;
use crate::process::activation::Passed;
use crate::process::channel::Message;
use crate::process::upgrade::Predecessor;

use super::super::dial::named::NamedServers;
use super::super::listener_names;
use super::super::listeners::{Bound, Inherited};
use super::super::sticky_keys::SECRET;
use super::notes::{self, FORMAT};
use super::root_files::RootFiles;

/// What the old program has.
#[derive(Default)]
pub struct Inheritance {
    pub(in crate::proxy) listeners: Vec<Inherited>,
    /// What it read as root.
    pub root_files: RootFiles,
    /// What systemd has opened.
    pub(in crate::proxy) passed: Vec<Passed>,
    /// The table of the bridges that systemd keeps.
    pub(in crate::proxy) bridge_table: Option<OwnedFd>,
    /// The keys of session tickets that clients have.
    pub(in crate::proxy) ticket_keys: Vec<[u8; 32]>,
    /// The secrets that cookies are signed with that clients have.
    pub(in crate::proxy) sticky_keys: Vec<[u8; SECRET]>,
    /// The sites that were made at run time.
    pub updates: SiteUpdates,
    /// What Redis has named.
    pub(in crate::proxy) named: NamedServers,
    /// The locked pidfile.
    pub pidfile: Option<File>,
    /// The zero of its clock.
    pub(in crate::proxy) started: Option<Instant>,
}

impl Inheritance {
    /// Receives what the old program offers.
    ///
    /// # Errors
    /// One sentence.
    pub fn receive(from: &Predecessor) -> Result<Inheritance, String> {
        let mut inheritance = Inheritance::default();
        from.receive_offer(|line, message| {
            match line["kind"].as_str() {
                Some("hello") => inheritance.hello(line)?,
                Some("listener") => inheritance.listener(line, message)?,
                Some("passed") => inheritance.passed(line, message)?,
                Some("pidfile") => {
                    inheritance.pidfile = message.files.into_iter().next().map(File::from);
                }
                Some("bridges") => inheritance.bridge_table = message.files.into_iter().next(),
                Some("tickets") => {
                    inheritance.ticket_keys = notes::read_tickets(line)
                        .ok_or("the old program has keys of tickets of no kind")?;
                    // Others of this user could read them here.
                    sys::protect_memory();
                }
                Some("sticky") => {
                    inheritance.sticky_keys = notes::read_sticky_keys(line)
                        .ok_or("the old program has secrets of cookies of no kind")?;
                    sys::protect_memory();
                }
                Some("file") => inheritance.file(line, message)?,
                Some("sites") => inheritance.sites(message)?,
                Some("named") => inheritance.named(message)?,
                _ => return Err("the old program says what this one does not know".to_owned()),
            }
            Ok(())
        })?;
        Ok(inheritance)
    }

    fn hello(&mut self, line: &Value) -> Result<(), String> {
        let (format, version) = (line["format"].as_u64(), line["version"].as_str());
        if format != Some(FORMAT) {
            let version = version.unwrap_or("of unknown version");
            let own = env!("CARGO_PKG_VERSION");
            return Err(format!("cloudbridge {own} cannot replace one {version}: restart it"));
        }
        // Both clocks run on: what has passed since then is known exactly.
        let micros = |name: &str| Duration::from_micros(line[name].as_u64().unwrap_or(0));
        let age = micros("now") + sys::monotonic().saturating_sub(micros("monotonic"));
        self.started = Instant::now().checked_sub(age);
        Ok(())
    }

    fn file(&mut self, line: &Value, message: Message) -> Result<(), String> {
        let (path, file) = (line["path"].as_str(), message.files.into_iter().next());
        let (path, file) = path.zip(file).ok_or("the old program offers no file")?;
        // Before anything else is done: from now on others of this user could read it here.
        sys::protect_memory();
        self.root_files.add(path.into(), file.into());
        Ok(())
    }

    fn sites(&mut self, message: Message) -> Result<(), String> {
        // There are keys in it.
        sys::protect_memory();
        let bytes = read(message).ok_or("the old program offers no file of its sites")?;
        let read = SiteUpdates::from_bytes(Path::new("the sites of the old program"), &bytes);
        self.updates = read.map_err(|problems| problems[0].to_string())?;
        Ok(())
    }

    fn named(&mut self, message: Message) -> Result<(), String> {
        let bytes = read(message).ok_or("the old program offers no file of its servers")?;
        let note = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        self.named = NamedServers::from_note(&note);
        Ok(())
    }

    /// Sockets that systemd has opened under one name.
    fn passed(&mut self, line: &Value, message: Message) -> Result<(), String> {
        let name = line["name"].as_str().ok_or("the old program has a socket of no name")?;
        let passed = message.files.into_iter().map(|file| Passed { name: name.to_owned(), file });
        self.passed.extend(passed);
        Ok(())
    }

    fn listener(&mut self, line: &Value, message: Message) -> Result<(), String> {
        let read = || {
            let address = notes::read_address(line["address"].as_str()?)?;
            let name = listener_names::of(&address, line["what"].as_str()?);
            Some((address, name, line["shown"].as_str()?.to_owned()))
        };
        let (address, name, shown) = read().ok_or("the old program has a listener of no kind")?;
        let bound = Bound { shown, sockets: message.files };
        if bound.sockets.is_empty() {
            return Err(format!("the old program offers no socket for {address}"));
        }
        match self.listeners.last_mut().filter(|_| line["more"] == true) {
            Some(last) => match last.bound.iter_mut().find(|known| known.shown == bound.shown) {
                Some(known) => known.sockets.extend(bound.sockets),
                None => last.bound.push(bound),
            },
            None => self.listeners.push(Inherited { name, bound: vec![bound] }),
        }
        Ok(())
    }
}

/// What the file in a message holds.
fn read(message: Message) -> Option<Vec<u8>> {
    let mut file = File::from(message.files.into_iter().next()?);
    let mut bytes = Vec::new();
    file.rewind().ok()?;
    file.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
