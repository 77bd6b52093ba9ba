//! In the new program: takes what the old one has.

use std::fs::File;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::config::Address;
use crate::net::sys;
use crate::process::channel::Message;
use crate::process::upgrade::Predecessor;

use super::super::listeners::{Bound, Inherited};
use super::notes::FORMAT;
use super::root_files::RootFiles;

/// What the old program has.
#[derive(Default)]
pub struct Inheritance {
    pub(in crate::proxy) listeners: Vec<Inherited>,
    /// What it read as root.
    pub root_files: RootFiles,
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
                Some("pidfile") => {
                    inheritance.pidfile = message.files.into_iter().next().map(File::from);
                }
                Some("file") => inheritance.file(line, message)?,
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
        self.root_files.add(path.into(), file.into());
        Ok(())
    }

    fn listener(&mut self, line: &Value, message: Message) -> Result<(), String> {
        let read = || {
            let address = line["address"].as_str()?;
            let address = match address.strip_prefix("unix:") {
                Some(path) => Address::Unix(path.into()),
                None => Address::parse(address).ok()?,
            };
            Some((address, line["what"].as_str()?.to_owned(), line["shown"].as_str()?.to_owned()))
        };
        let (address, what, shown) = read().ok_or("the old program has a listener of no kind")?;
        let bound = Bound { shown, sockets: message.files };
        if bound.sockets.is_empty() {
            return Err(format!("the old program offers no socket for {address}"));
        }
        match self.listeners.last_mut().filter(|_| line["more"] == true) {
            Some(last) => match last.bound.iter_mut().find(|known| known.shown == bound.shown) {
                Some(known) => known.sockets.extend(bound.sockets),
                None => last.bound.push(bound),
            },
            None => self.listeners.push(Inherited { address, what, bound: vec![bound] }),
        }
        Ok(())
    }
}
