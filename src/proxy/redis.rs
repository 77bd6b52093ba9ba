//! Asks Redis again and again which servers sites have (`servers=redis://...`): a thread for each
//! Redis, because it may be slow or away. What it names goes to the main thread, which puts it in
//! force.
//!
//! While a Redis is away its servers stay as they are, and the log says so once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::config::{Redis, RedisList, SiteServer};
use crate::upstream::redis::{Connection, MAX_MEMBERS};

use super::redis_password::RedisPassword;
use super::state::Config;

/// How many members that are no servers the log names.
const SHOWN: usize = 3;

/// What Redis names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub(super) list: RedisList,
    /// In the order of the list, or sorted if it is a set.
    pub(super) servers: Vec<SiteServer>,
}

/// The threads that ask.
pub(super) struct Watch {
    report: Arc<dyn Fn(Found) + Send + Sync>,
    /// What the log has said to be away, over reloads too.
    away: Arc<Mutex<HashSet<String>>>,
    /// A thread ends when its sender is dropped.
    running: Vec<Sender<()>>,
}

impl Watch {
    /// Passes what is found to `report`, each time that Redis is asked.
    pub(super) fn new(report: impl Fn(Found) + Send + Sync + 'static) -> Watch {
        Watch { report: Arc::new(report), away: Arc::default(), running: Vec::new() }
    }

    /// Asks about the lists of `config` from now on, and about no others.
    pub(super) fn begin(&mut self, config: &Config) {
        self.end();
        let mut all: BTreeMap<&Redis, BTreeSet<&RedisList>> = BTreeMap::new();
        for list in config.settings.site.iter().flat_map(|site| &site.redis) {
            all.entry(&list.redis).or_default().insert(list);
        }
        for (redis, lists) in all {
            let (running, stop) = mpsc::channel();
            let asker = Asker {
                redis: redis.clone(),
                lists: lists.into_iter().cloned().map(|list| (list, None)).collect(),
                password: config.redis_password.clone(),
                interval: config.settings.redis_interval,
                report: Arc::clone(&self.report),
                away: Arc::clone(&self.away),
                stop,
            };
            match thread::Builder::new().name("redis".to_owned()).spawn(move || asker.run()) {
                Ok(_) => self.running.push(running),
                Err(error) => log::error!("{redis}: there is no thread to ask it: {error}"),
            }
        }
    }

    /// Asks no more.
    pub(super) fn end(&mut self) {
        self.running.clear();
    }
}

/// A thread that asks one Redis.
struct Asker {
    redis: Redis,
    /// Each with what it held last.
    lists: Vec<(RedisList, Option<Vec<Vec<u8>>>)>,
    password: Option<RedisPassword>,
    interval: Duration,
    report: Arc<dyn Fn(Found) + Send + Sync>,
    away: Arc<Mutex<HashSet<String>>>,
    stop: Receiver<()>,
}

impl Asker {
    fn run(mut self) {
        loop {
            self.ask();
            match self.stop.recv_timeout(self.interval) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => return,
            }
        }
    }

    /// Asks about every list over one connection.
    fn ask(&mut self) {
        let password = self.password.as_ref().map(RedisPassword::bytes);
        let opened = Connection::open(&self.redis, password);
        let shown = self.redis.to_string();
        let mut connection = match opened {
            Ok(connection) => connection,
            Err(why) => return self.is_away(shown, &why),
        };
        self.is_back(&shown);
        for at in 0..self.lists.len() {
            let list = self.lists[at].0.clone();
            let found = connection.members(&list.key);
            // A reload may have ended this thread meanwhile, and the next one knows more.
            if self.stop.try_recv() == Err(TryRecvError::Disconnected) {
                return;
            }
            match found {
                Ok(members) => {
                    self.is_back(&list.to_string());
                    self.found(at, members);
                }
                Err(why) => self.is_away(list.to_string(), &why),
            }
        }
    }

    /// A list has been read.
    fn found(&mut self, at: usize, members: Vec<Vec<u8>>) {
        let (list, last) = &mut self.lists[at];
        let is_news = last.as_ref() != Some(&members);
        let (servers, malformed) = sorted_out(&members);
        if is_news {
            warn(list, &malformed, members.len());
            *last = Some(members);
        }
        (self.report)(Found { list: list.clone(), servers });
    }

    fn is_away(&self, what: String, why: &str) {
        if !self.away().contains(&what) {
            log::warn!("{what} cannot be read: {why}; the servers that it named last stay");
            self.away().insert(what);
        }
    }

    fn is_back(&self, what: &str) {
        if self.away().remove(what) {
            log::info!("{what} can be read again");
        }
    }

    fn away(&self) -> MutexGuard<'_, HashSet<String>> {
        // Each change leaves it whole.
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The members that are servers, and what is wrong with the others.
fn sorted_out(members: &[Vec<u8>]) -> (Vec<SiteServer>, Vec<String>) {
    let (mut servers, mut malformed) = (Vec::new(), Vec::new());
    for member in members {
        let text = String::from_utf8_lossy(member);
        match SiteServer::named_by_redis(&text) {
            Ok(server) => servers.push(server),
            Err(what) => malformed.push(what),
        }
    }
    (servers, malformed)
}

fn warn(list: &RedisList, malformed: &[String], members: usize) {
    for what in malformed.iter().take(SHOWN) {
        log::warn!("{list}: {what}; it is left out");
    }
    if let more @ 1.. = malformed.len().saturating_sub(SHOWN) {
        log::warn!("{list}: {more} more of its members are no servers");
    }
    if members >= MAX_MEMBERS {
        log::warn!("{list}: only its first {MAX_MEMBERS} members are used");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_are_no_servers_are_left_out() {
        let members = ["10.0.0.5:3000", "unix:/run/x", "app.test", "a b:1", "", "[::1]:80", "3000"];
        let members: Vec<Vec<u8>> = members.iter().map(|m| m.as_bytes().to_vec()).collect();
        let (servers, malformed) = sorted_out(&members);
        let shown: Vec<String> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.5:3000", "app.test:80", "[::1]:80"]);
        assert_eq!(malformed.len(), 4);
        assert_eq!(malformed[0], "\"unix:/run/x\" is no host with a port");
    }
}
