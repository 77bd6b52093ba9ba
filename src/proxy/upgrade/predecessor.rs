//! In the new program: takes what the old one has.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config::Address;
use crate::net::sys;
use crate::process::activation::Passed;
use crate::process::channel::{Channel, Message};

use super::super::listener_names;
use super::super::listeners::{Bound, Inherited};
use super::notes::FORMAT;

/// How long the old program may take for its next message while it offers.
const OFFER_TIMEOUT: Duration = Duration::from_secs(5);

/// The program that this one replaces.
pub struct Predecessor {
    channel: Channel,
}

/// What it has.
#[derive(Default)]
pub struct Inheritance {
    pub(in crate::proxy) listeners: Vec<Inherited>,
    /// What systemd has opened.
    pub(in crate::proxy) passed: Vec<Passed>,
    /// The locked pidfile.
    pub pidfile: Option<File>,
    /// The zero of its clock.
    pub(in crate::proxy) started: Option<Instant>,
}

impl Predecessor {
    /// The program that has started this one to be replaced by it, if one has.
    ///
    /// # Errors
    /// One sentence.
    pub fn find() -> Result<Option<Predecessor>, String> {
        match Channel::inherited() {
            Ok(channel) => Ok(channel.map(|channel| Predecessor { channel })),
            Err(error) => Err(format!("cannot talk to the old program: {error}")),
        }
    }

    /// Receives what it offers.
    ///
    /// # Errors
    /// One sentence.
    pub fn receive_offer(&self) -> Result<Inheritance, String> {
        let lost = |error: io::Error| format!("the old program does not say what it has: {error}");
        self.channel.set_timeouts(None, Some(OFFER_TIMEOUT)).map_err(lost)?;
        let mut inheritance = Inheritance::default();
        loop {
            let message = self.channel.receive().map_err(lost)?;
            let message = message.ok_or("the old program has ended")?;
            let line: Value = serde_json::from_slice(message.parts().0).unwrap_or_default();
            match line["kind"].as_str() {
                Some("hello") => inheritance.hello(&line)?,
                Some("listener") => inheritance.listener(&line, message)?,
                Some("passed") => inheritance.passed(&line, message)?,
                Some("pidfile") => {
                    inheritance.pidfile = message.files.into_iter().next().map(File::from);
                }
                Some("offered") => break,
                _ => return Err("the old program says what this one does not know".to_owned()),
            }
        }
        self.channel.set_timeouts(None, None).map_err(lost)?;
        Ok(inheritance)
    }

    /// Tells it why this program does not serve.
    ///
    /// # Errors
    /// It does not listen.
    pub fn refuse(&self, problems: &[String]) -> io::Result<()> {
        let line = json!({ "kind": "refused", "problems": problems });
        self.channel.send(&line.to_string(), b"", &[])
    }

    /// Tells it that this program serves.
    ///
    /// # Errors
    /// It has ended.
    pub fn serving(&self) -> io::Result<()> {
        self.channel.send(&json!({ "kind": "serving" }).to_string(), b"", &[])
    }

    /// The next message about a connection, read; `None` when the old program has ended.
    pub(in crate::proxy) fn next(&self) -> Option<(Value, Message)> {
        let message = self.channel.receive().ok().flatten()?;
        Some((serde_json::from_slice(message.parts().0).unwrap_or_default(), message))
    }

    pub(in crate::proxy) fn set_receive_timeout(&self, timeout: Option<Duration>) {
        let _ = self.channel.set_timeouts(None, timeout);
    }
}

impl Inheritance {
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

    /// Sockets that systemd has opened under one name.
    fn passed(&mut self, line: &Value, message: Message) -> Result<(), String> {
        let name = line["name"].as_str().ok_or("the old program has a socket of no name")?;
        let passed = message.files.into_iter().map(|file| Passed { name: name.to_owned(), file });
        self.passed.extend(passed);
        Ok(())
    }

    fn listener(&mut self, line: &Value, message: Message) -> Result<(), String> {
        let read = || {
            let address = line["address"].as_str()?;
            let address = match address.strip_prefix("unix:") {
                Some(path) => Address::Unix(path.into()),
                None => Address::parse(address).ok()?,
            };
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
