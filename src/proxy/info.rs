//! The answer of the info host: the three JSON objects of the original, and our additions.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::Site;
use crate::http::reply::Reply;

use super::closing::End;
use super::role::{LETTERS, Letter, Route};

use super::stats::{Counter, Stats, sum};
use super::worker::Worker;

impl Worker {
    /// Answers a request for the info host, and closes the connection: such requests are too rare
    /// for keep-alive to matter.
    pub(super) fn answer_info(&mut self, key: usize, head_only: bool) {
        let text = self.info();
        self.answer_json(key, head_only, &text);
    }

    /// Answers a request for the health URI: the counters, without any name.
    pub(super) fn answer_health(&mut self, key: usize, head_only: bool) {
        let mut text = self.counters();
        text.push('}');
        self.answer_json(key, head_only, &text);
    }

    fn answer_json(&mut self, key: usize, head_only: bool, text: &str) {
        let reply = Reply { content_type: "application/json", head_only, ..Reply::new(200, text) };
        self.end(key, End::Reply(reply));
    }

    /// The first two of the original's objects, without the end of the whole.
    fn counters(&self) -> String {
        let all = &self.shared.stats;
        let sum = |of: fn(&Stats) -> &Counter| sum(all, of);
        let mut text = String::with_capacity(1024);
        let _ = write!(text, "{{\"general\":{{\"Connections\":{}", sum(|s| &s.accepted));
        let counters = [
            ("Exchanges", sum(|s| &s.served)),
            ("Retries", sum(|s| &s.retried)),
            ("Delivered Failures", sum(|s| &s.delivered)),
            ("Silent Backends", self.shared.backends.suspects() as u64),
            ("Moves", sum(|s| &s.moved)),
            ("Leaves", sum(|s| &s.deregistrations)),
            ("Stale Events", sum(|s| &s.stale)),
            ("Waiting", sum(|s| &s.waiting)),
            ("Waiting Unserved", sum(|s| &s.unserved)),
            ("Pipes Lent", sum(|s| &s.pipes_lent)),
            ("Open Connections", self.shared.open_connections() as u64),
            ("Workers", all.len() as u64),
            ("Uptime Seconds", self.shared.started.elapsed().as_secs()),
        ];
        for (name, count) in counters {
            let _ = write!(text, ",\"{name}\":{count}");
        }
        let rejected: [(&str, u64); 4] = [
            ("4xx", sum(|s| &s.rejected.s4xx)),
            ("502", sum(|s| &s.rejected.s502)),
            ("503", sum(|s| &s.rejected.s503)),
            ("504", sum(|s| &s.rejected.s504)),
        ];
        for (name, count) in rejected {
            let _ = write!(text, ",\"Answered {name}\":{count}");
        }
        text.push_str("},\"state\":{\"Connection State\":{");
        for (place, letter) in LETTERS.iter().enumerate() {
            let mut count = all.iter().fold(0u64, |sum, s| sum.wrapping_add(s.at(place).get()));
            // This connection counts as asking, not in its former state.
            match place {
                _ if place == Letter::Unknown as usize => count = count.saturating_sub(1),
                _ if place == Letter::Info as usize => count += 1,
                _ => {}
            }
            let comma = if place == 0 { "" } else { "," };
            let _ = write!(text, "{comma}\"{letter}\":{count}");
        }
        text.push_str("}}");
        text
    }

    fn info(&self) -> String {
        let mut text = self.counters();
        text.push_str(",\"host keys\":{");
        for (place, (name, bridges, clients)) in self.shared.keys.all().into_iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let _ = write!(text, "{comma}\"{name}\":{{\"B\":{bridges},\"C\":{clients}}}");
        }
        text.push_str("},\"sites\":{");
        for (place, site) in self.config.sites.all().iter().enumerate() {
            text.push_str(if place == 0 { "" } else { "," });
            self.describe(site, &mut text);
        }
        text.push_str("},\"servers\":{");
        for (place, server) in self.config.pools.servers().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            // A path may contain characters that JSON must escape.
            let name = server.shown().replace('\\', "\\\\").replace('"', "\\\"");
            let (open, up) = (server.open(), u8::from(server.is_up()));
            let _ = write!(text, "{comma}\"{name}\":{{\"Open\":{open},\"Up\":{up}}}");
        }
        text.push_str("}}");
        text
    }

    /// One site: the bridges on its own routes, and its swiftclient backends by id. Bridges
    /// registered for other sets of names are not included.
    fn describe(&self, site: &Site, text: &mut String) {
        let specs = self.config.sites.specs_of(site);
        let routes: Vec<Arc<Route>> =
            specs.iter().filter_map(|spec| self.shared.directory.route(spec)).collect();
        // A server that is up is a member of its site's route, and no bridge.
        let servers = routes.first().map_or(0, |own| self.config.pools.up_on(own));
        let members: u32 = routes.iter().map(|route| route.members()).sum();
        let parked: u32 = routes.iter().map(|route| route.parked()).sum();
        let _ = write!(
            text,
            "\"{}\":{{\"bridges\":{},\"parked\":{},\"waiting\":{},\"backends\":{{",
            site.name(),
            members.saturating_sub(servers),
            parked,
            // The first serves all paths: a request that waits for another route waits for it too.
            routes.first().map_or(0, |own| own.waiting()),
        );
        for (place, (id, count)) in
            self.shared.swiftclient_backends.of(site.name()).into_iter().enumerate()
        {
            let comma = if place == 0 { "" } else { "," };
            let bridges = count.usage.bridges.load(Ordering::Relaxed);
            let clients = count.usage.clients.load(Ordering::Relaxed);
            let peer = count.peer;
            let _ = write!(
                text,
                "{comma}\"{id}\":{{\"address\":\"{peer}\",\"B\":{bridges},\"C\":{clients}}}"
            );
        }
        text.push_str("}}");
    }
}
