//! The answer of the info host: the three JSON objects of the original.

use std::fmt::Write as _;

use crate::http::reply::Reply;

use super::closing::End;
use super::role::{LETTERS, Letter};
use super::stats::sum;
use super::worker::Worker;

impl Worker {
    /// Answers a request for the info host, and closes the connection: such requests are too rare
    /// for keep-alive to matter.
    pub(super) fn answer_info(&mut self, key: usize, head_only: bool) {
        let text = self.info();
        self.answer_json(key, head_only, 200, &text);
    }

    /// Answers a request for the health URI: the counters, without any name.
    pub(super) fn answer_health(&mut self, key: usize, head_only: bool) {
        let mut text = self.counters();
        text.push('}');
        // So that a load balancer sends nothing more while `drain-delay` runs.
        let status = if self.shared.is_stopping() { 503 } else { 200 };
        self.answer_json(key, head_only, status, &text);
    }

    fn answer_json(&mut self, key: usize, head_only: bool, status: u16, text: &str) {
        let reply =
            Reply { content_type: "application/json", head_only, ..Reply::new(status, text) };
        self.end(key, End::Reply(reply));
    }

    /// The first two objects, without the end of the whole.
    fn counters(&self) -> String {
        let all = &self.shared.stats;
        let accepted = sum(all, |stats| &stats.accepted);
        let mut text = format!(
            "{{\"general\":{{\"Connections\":{accepted}}},\"state\":{{\"Connection State\":{{"
        );
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
        text.push_str("}}");
        text
    }
}
