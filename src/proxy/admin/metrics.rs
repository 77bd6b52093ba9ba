//! The metrics in the text format of OpenMetrics 1.0.

use std::fmt::Write as _;

use crate::routing::{DURATION_BOUNDS, DURATIONS};

use super::super::reason::Reason;
use super::super::state::Shared;
use super::super::stats::{Counter, Histogram, Stats, sum};
use super::view::{HostRow, View};

/// `Content-Type` (OpenMetrics 1.0, "Overall Structure").
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The label of the hosts beyond the bound.
const OTHER: &str = "other";

/// Writes all metrics; at most `hosts` hosts have labels of their own, the busiest first.
/// `lost` is how many lines of the access log have been lost.
pub(super) fn write(shared: &Shared, view: &View, hosts: usize, lost: u64) -> String {
    let mut text = Text(String::with_capacity(16 * 1024));
    let all = &shared.stats;
    let total = |of: fn(&Stats) -> &Counter| sum(all, of);
    text.family("cloudbridge_build", "info", "The program.");
    text.sample("cloudbridge_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.family("cloudbridge_uptime_seconds", "gauge", "Time since the start.");
    text.float("cloudbridge_uptime_seconds", view.totals.uptime);
    text.family("cloudbridge_workers", "gauge", "Event loops.");
    text.sample("cloudbridge_workers", &[], all.len() as u64);
    text.family("cloudbridge_connections", "gauge", "Connections open now, of all kinds.");
    text.sample("cloudbridge_connections", &[], shared.open_connections() as u64);
    text.family("cloudbridge_draining", "gauge", "1 while the proxy shuts down.");
    text.sample("cloudbridge_draining", &[], view.totals.draining.into());
    for (name, help, of) in COUNTERS {
        text.family(name, "counter", help);
        text.sample(&format!("{name}_total"), &[], total(*of));
    }
    text.family("cloudbridge_own_answers", "counter", "Answers of the proxy itself, by status.");
    for (code, of) in OWN_ANSWERS {
        text.sample("cloudbridge_own_answers_total", &[("code", code)], total(*of));
    }
    text.family("cloudbridge_refusals", "counter", "What the proxy has refused, by reason.");
    for reason in Reason::ALL {
        let count = sum(all, |stats| stats.refusals.of(*reason));
        text.sample("cloudbridge_refusals_total", &[("reason", reason.word())], count);
    }
    let help = "Lines of the access log that nobody took in time.";
    text.family("cloudbridge_access_log_lost_lines", "counter", help);
    text.sample("cloudbridge_access_log_lost_lines_total", &[], lost);
    text.histogram(
        "cloudbridge_request_duration_seconds",
        "From the end of a request's head to the end of its response.",
        all,
        |stats| &stats.duration,
    );
    text.histogram(
        "cloudbridge_queue_duration_seconds",
        "From the end of a request's head until it had a bridge.",
        all,
        |stats| &stats.queued,
    );
    write_hosts(&mut text, view, hosts);
    text.0.push_str("# EOF\n");
    text.0
}

type Of = fn(&Stats) -> &Counter;

const COUNTERS: &[(&str, &str, Of)] = &[
    ("cloudbridge_accepted_connections", "Connections accepted.", |s| &s.accepted),
    ("cloudbridge_exchanges", "Requests whose response was passed on completely.", |s| &s.served),
    ("cloudbridge_retries", "Requests given to another bridge after one failed.", |s| &s.retried),
    ("cloudbridge_moves", "Bridges moved from one worker to another.", |s| &s.moved),
    ("cloudbridge_leaves", "Backends that have deregistered.", |s| &s.deregistrations),
    ("cloudbridge_stale_events", "Events about connections already gone.", |s| &s.stale),
];

const OWN_ANSWERS: &[(&str, Of)] = &[
    ("4xx", |s| &s.rejected.s4xx),
    ("502", |s| &s.rejected.s502),
    ("503", |s| &s.rejected.s503),
    ("504", |s| &s.rejected.s504),
];

/// The figures of several hosts added up.
#[derive(Default)]
struct Group {
    answers: [u64; 5],
    parked: u64,
    busy: u64,
    waiting: u64,
}

impl Group {
    fn add(&mut self, host: &HostRow) {
        for (sum, count) in self.answers.iter_mut().zip(host.counted.answers) {
            *sum += count;
        }
        self.parked += u64::from(host.parked);
        self.busy += u64::from(host.busy);
        self.waiting += u64::from(host.waiting);
    }
}

fn write_hosts(text: &mut Text, view: &View, bound: usize) {
    let mut order: Vec<&HostRow> = view.hosts.iter().collect();
    order.sort_by_key(|host| std::cmp::Reverse(host.counted.answers.iter().sum::<u64>()));
    let mut groups: Vec<(String, Group)> = Vec::new();
    let mut others = Group::default();
    for host in order {
        let label = format!("{}{}", host.hosts.join(","), host.prefix.trim_end_matches('/'));
        if groups.len() < bound {
            let mut group = Group::default();
            group.add(host);
            groups.push((label, group));
        } else {
            others.add(host);
        }
    }
    if view.hosts.len() > groups.len() {
        groups.push((OTHER.to_owned(), others));
    }
    text.family("cloudbridge_requests", "counter", "Requests answered by backends.");
    for (host, group) in &groups {
        for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(group.answers) {
            let labels = [("host", host.as_str()), ("code", class)];
            text.sample("cloudbridge_requests_total", &labels, count);
        }
    }
    text.family("cloudbridge_bridges", "gauge", "Bridges connected now.");
    for (host, group) in &groups {
        for (state, count) in [("parked", group.parked), ("busy", group.busy)] {
            let labels = [("host", host.as_str()), ("state", state)];
            text.sample("cloudbridge_bridges", &labels, count);
        }
    }
    text.family("cloudbridge_requests_waiting", "gauge", "Requests that wait for a bridge now.");
    for (host, group) in &groups {
        text.sample("cloudbridge_requests_waiting", &[("host", host)], group.waiting);
    }
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# TYPE {name} {kind}\n# HELP {name} {help}");
        if name.ends_with("_seconds") {
            let _ = writeln!(self.0, "# UNIT {name} seconds");
        }
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.0.push_str(name);
        for (place, (label, text)) in labels.iter().enumerate() {
            let open = if place == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{open}{label}=\"");
            for c in text.chars() {
                match c {
                    '"' => self.0.push_str("\\\""),
                    '\\' => self.0.push_str("\\\\"),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn float(&mut self, name: &str, value: f64) {
        let _ = writeln!(self.0, "{name} {value:.6}");
    }

    fn histogram(&mut self, name: &str, help: &str, all: &[Stats], of: fn(&Stats) -> &Histogram) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for class in 0..DURATIONS {
            below += all.iter().map(|stats| of(stats).classes[class].get()).sum::<u64>();
            let bound = match DURATION_BOUNDS.get(class) {
                Some(micros) => format!("{:?}", *micros as f64 / 1e6),
                None => "+Inf".to_owned(),
            };
            self.sample(&bucket, &[("le", &bound)], below);
        }
        self.sample(&format!("{name}_count"), &[], below);
        let micros: u64 = all.iter().map(|stats| of(stats).sum.get()).sum();
        self.float(&format!("{name}_sum"), micros as f64 / 1e6);
    }
}
