//! What the info host answers: the original's three JSON objects, and more of our own.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use crate::config::Site;
use crate::exchange::RequestMeta;
use crate::http::reply::Reply;
use crate::routing::RouteShared;

use super::stats::{LETTERS, Stats};
use super::worker::Worker;

/// The place of `I`, "asking for info", among the letters.
const ASKING: usize = 6;

impl Worker {
    /// Answers a request for the info host. The request's bytes are on loan to the caller, so
    /// the connection is closed rather than kept: nobody asks so often.
    pub(super) fn answer_info(&mut self, key: usize, meta: &RequestMeta) {
        self.answer_json(key, meta, &self.info());
    }

    /// Answers a request for the health URI: the counters, without any name.
    pub(super) fn answer_health(&mut self, key: usize, meta: &RequestMeta) {
        let mut text = self.counters();
        text.push('}');
        self.answer_json(key, meta, &text);
    }

    fn answer_json(&mut self, key: usize, meta: &RequestMeta, text: &str) {
        let reply = Reply {
            content_type: "application/json",
            head_only: meta.to_head,
            ..Reply::new(200, text)
        };
        self.last_word(key, reply);
    }

    /// The first two of the original's objects, without the end of the whole.
    fn counters(&self) -> String {
        let all = &self.shared.stats;
        let sum = |of: fn(&Stats) -> u64| all.iter().map(of).sum::<u64>();
        let mut text = String::with_capacity(1024);
        let _ = write!(text, "{{\"general\":{{\"Connections\":{}", sum(|s| s.accepted.get()));
        let counters: [(&str, u64); 10] = [
            ("Exchanges", sum(|s| s.served.get())),
            ("Retries", sum(|s| s.retried.get())),
            ("Moves", sum(|s| s.moved.get())),
            ("Leaves", sum(|s| s.left.get())),
            ("Stale Events", sum(|s| s.stale.get())),
            ("Waiting", sum(|s| s.waiting.get())),
            ("Waiting Unserved", sum(|s| s.unserved.get())),
            ("Open Connections", self.shared.open_connections() as u64),
            ("Workers", all.len() as u64),
            ("Uptime Seconds", self.shared.started.elapsed().as_secs()),
        ];
        for (name, count) in counters {
            let _ = write!(text, ",\"{name}\":{count}");
        }
        let refused: [(&str, u64); 4] = [
            ("4xx", sum(|s| s.refused.bad.get())),
            ("502", sum(|s| s.refused.failed.get())),
            ("503", sum(|s| s.refused.full.get())),
            ("504", sum(|s| s.refused.late.get())),
        ];
        for (name, count) in refused {
            let _ = write!(text, ",\"Answered {name}\":{count}");
        }
        text.push_str("},\"state\":{\"Connection State\":{");
        for (place, letter) in LETTERS.iter().enumerate() {
            // Whoever reads this is counted as asking, not as what its connection was before.
            let here = u64::from(place == ASKING);
            let count = all.iter().map(|stats| stats.roles[place].get()).sum::<u64>() + here;
            let count = if place == 0 { count.saturating_sub(1) } else { count };
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
            // A path may hold what JSON wants escaped.
            let name = server.shown().replace('\\', "\\\\").replace('"', "\\\"");
            let (open, up) = (server.open(), u8::from(server.is_up()));
            let _ = write!(text, "{comma}\"{name}\":{{\"Open\":{open},\"Up\":{up}}}");
        }
        text.push_str("}}");
        text
    }

    /// One site: the bridges on its own routes, and its swiftclient backends by their ids. Bridges that have registered
    /// other sets of names are not among them.
    fn describe(&self, site: &Site, text: &mut String) {
        let specs = self.config.sites.specs_of(site);
        let routes: Vec<_> =
            specs.iter().filter_map(|spec| self.shared.directory.route(spec)).collect();
        // A server that is there is a member of its site's route, and no bridge.
        let servers = routes.first().map_or(0, |own| self.config.pools.up_on(own));
        let sum = |of: fn(&RouteShared) -> u32| routes.iter().map(|route| of(route)).sum::<u32>();
        let _ = write!(
            text,
            "\"{}\":{{\"bridges\":{},\"parked\":{},\"waiting\":{},\"backends\":{{",
            site.name(),
            sum(RouteShared::members).saturating_sub(servers),
            sum(RouteShared::parked),
            // The first is for all paths, so whoever waits for any waits for it too.
            routes.first().map_or(0, |own| own.waiting()),
        );
        for (place, (id, count)) in self.shared.guests.of(site.name()).into_iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let bridges = count.bridges.load(Ordering::Relaxed);
            let clients = count.clients.load(Ordering::Relaxed);
            let peer = count.peer;
            let _ = write!(
                text,
                "{comma}\"{id}\":{{\"address\":\"{peer}\",\"B\":{bridges},\"C\":{clients}}}"
            );
        }
        text.push_str("}}");
    }
}
