//! The metrics in the text format of OpenMetrics 1.0.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use crate::net::ktls;
use crate::routing::{DURATION_BOUNDS, DURATIONS};

use crate::process::line_writer::Reports;

use super::super::reason::Reason;
use super::super::shares::Shares;
use super::super::state::{Config, Shared};
use super::super::stats::{Admitted, Counter, Histogram, RETRIES, Stats, sum};
use super::super::upgrade::old_programs::OldProgram;
use super::figures;
use super::process::Process;
use super::view::{HostRow, View};

/// `Content-Type` (OpenMetrics 1.0, "Overall Structure").
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The label of the hosts beyond the bound.
const OTHER: &str = "other";

/// Writes all metrics; at most `hosts` hosts have labels of their own, the busiest first.
pub(super) fn write(shared: &Shared, config: &Config, view: &View, hosts: usize) -> String {
    let mut text = Text(String::with_capacity(16 * 1024));
    let all = &shared.stats;
    let total = |of: fn(&Stats) -> &Counter| sum(all, of);
    text.family("cloudbridge_build", "info", "The program.");
    text.sample("cloudbridge_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.family("cloudbridge_uptime_seconds", "gauge", "Time since the start.");
    text.float("cloudbridge_uptime_seconds", view.totals.uptime);
    text.family("cloudbridge_workers", "gauge", "Event loops.");
    text.sample("cloudbridge_workers", &[], all.len() as u64);
    write_connections(&mut text, shared, config);
    text.family("cloudbridge_draining", "gauge", "1 while the proxy shuts down.");
    text.sample("cloudbridge_draining", &[], view.totals.draining.into());
    write_old_programs(&mut text, shared);
    for (name, help, of) in COUNTERS {
        text.family(name, "counter", help);
        text.sample(&format!("{name}_total"), &[], total(*of));
    }
    text.family(
        "cloudbridge_retries",
        "counter",
        "Requests given to another bridge after one failed, by who may have seen them.",
    );
    for (place, kind) in RETRIES.iter().enumerate() {
        let count = sum(all, |stats| &stats.retried[place]);
        text.sample("cloudbridge_retries_total", &[("kind", kind)], count);
    }
    text.family(
        "cloudbridge_bridges_without_key",
        "counter",
        "Bridges closed because their host key is no longer good.",
    );
    for (place, reason) in ["revoked", "expired"].into_iter().enumerate() {
        let count = sum(all, |stats| &stats.lost_keys[place]);
        text.sample("cloudbridge_bridges_without_key_total", &[("reason", reason)], count);
    }
    text.family("cloudbridge_tls_handshakes", "counter", "TLS handshakes, by how they ended.");
    let handshakes: [(&str, Of); 3] = [
        ("full", |s| &s.handshakes_full),
        ("resumed", |s| &s.handshakes_resumed),
        ("failed", |s| &s.handshakes_failed),
    ];
    for (result, of) in handshakes {
        text.sample("cloudbridge_tls_handshakes_total", &[("result", result)], total(of));
    }
    text.family(
        "cloudbridge_bridges_admitted",
        "counter",
        "Bridges that registered, by what admitted them.",
    );
    for by in Admitted::ALL {
        let count = sum(all, |stats| &stats.admitted[by as usize]);
        text.sample("cloudbridge_bridges_admitted_total", &[("by", by.label())], count);
    }
    text.family(
        "cloudbridge_bearer_bridges",
        "gauge",
        "Bridges connected whose host keys were sent as they are.",
    );
    let bearers = view.backends.iter().map(|backend| backend.bearer as u64).sum();
    text.sample("cloudbridge_bearer_bridges", &[], bearers);
    text.family(
        "cloudbridge_ktls_available",
        "gauge",
        "1 while the kernel encrypts TLS connections.",
    );
    let is_available = ktls::is_in_use() && config.settings.ktls;
    text.sample("cloudbridge_ktls_available", &[], u64::from(is_available));
    let about = "TLS connections that the kernel has encrypted.";
    text.family("cloudbridge_ktls_connections", "counter", about);
    text.sample("cloudbridge_ktls_connections_total", &[], total(|s| &s.offloaded));
    text.family("cloudbridge_client_bytes", "counter", "Bytes of requests and responses.");
    let traffic: [(&str, Of); 2] =
        [("received", |s| &s.client_received), ("sent", |s| &s.client_sent)];
    for (direction, of) in traffic {
        let labels = [("direction", direction)];
        text.sample("cloudbridge_client_bytes_total", &labels, total(of));
    }
    text.family("cloudbridge_lost_log_lines", "counter", "Lines that could not be written.");
    for (log, reports) in [("log", Reports::Inline), ("access", Reports::ToLog(""))] {
        text.sample("cloudbridge_lost_log_lines_total", &[("log", log)], reports.lost());
    }
    text.family("cloudbridge_silent_backends", "gauge", "Backends that have gone silent.");
    text.sample("cloudbridge_silent_backends", &[], shared.backends.suspects() as u64);
    text.family("cloudbridge_requests_unserved", "gauge", "Requests that wait for unknown names.");
    text.sample("cloudbridge_requests_unserved", &[], total(|s| &s.unserved));
    text.family("cloudbridge_pipes", "gauge", "Pipes that hold bytes of a body.");
    text.sample("cloudbridge_pipes", &[], total(|s| &s.pipes_lent));
    let (calls, failures) = shared.managers.counts();
    text.family("cloudbridge_manager_calls", "counter", "Calls of the managers of sites.");
    text.sample("cloudbridge_manager_calls_total", &[], calls);
    text.family("cloudbridge_manager_failures", "counter", "Those of them that have failed.");
    text.sample("cloudbridge_manager_failures_total", &[], failures);
    write_authoriser(&mut text, shared);
    text.family("cloudbridge_own_answers", "counter", "Answers of the proxy itself, by status.");
    for (code, of) in OWN_ANSWERS {
        text.sample("cloudbridge_own_answers_total", &[("code", code)], total(*of));
    }
    text.family("cloudbridge_refusals", "counter", "What the proxy has refused, by reason.");
    for reason in Reason::ALL {
        let count = sum(all, |stats| stats.refusals.of(*reason));
        text.sample("cloudbridge_refusals_total", &[("reason", reason.word())], count);
    }
    text.histogram(
        "cloudbridge_request_duration_seconds",
        "From the end of a request's head to the end of its response.",
        &[("", all.as_slice())],
        |stats| &stats.duration,
    );
    text.histogram(
        "cloudbridge_queue_duration_seconds",
        "From the end of a request's head until it had a bridge.",
        &[("", all.as_slice())],
        |stats| &stats.queued,
    );
    let workers: Vec<String> = (0..all.len()).map(|worker| worker.to_string()).collect();
    let workers: Vec<(&str, &[Stats])> =
        workers.iter().map(String::as_str).zip(all.chunks(1)).collect();
    text.histogram(
        "cloudbridge_loop_lag_seconds",
        "How late a worker's turn comes, ten times a second while it is busy.",
        &workers,
        |stats| &stats.lag,
    );
    text.family("cloudbridge_worker_clients", "gauge", "Clients of each worker.");
    for (worker, stats) in &workers {
        let clients = stats.iter().map(Stats::clients).sum();
        text.sample("cloudbridge_worker_clients", &[("worker", worker)], clients);
    }
    write_process(&mut text, shared);
    write_hosts(&mut text, view, hosts);
    text.0.push_str("# EOF\n");
    text.0
}

fn write_authoriser(text: &mut Text, shared: &Shared) {
    let (authoriser, of) = (&shared.authoriser, &shared.authoriser.counts);
    text.family(
        "cloudbridge_authorise_questions",
        "counter",
        "Questions about registrations, by their answers.",
    );
    let answers = [("allowed", &of.allowed), ("refused", &of.refused), ("failed", &of.failed)];
    for (answer, count) in answers {
        let count = count.load(Ordering::Relaxed);
        text.sample("cloudbridge_authorise_questions_total", &[("answer", answer)], count);
    }
    let about = "Registrations whose answer was at hand.";
    text.family("cloudbridge_authorise_kept_answers", "counter", about);
    let kept = of.kept.load(Ordering::Relaxed);
    text.sample("cloudbridge_authorise_kept_answers_total", &[], kept);
    let about = "Questions that wait for an answer.";
    text.family("cloudbridge_authorise_waiting", "gauge", about);
    text.sample("cloudbridge_authorise_waiting", &[], authoriser.waiting() as u64);
}

type Of = fn(&Stats) -> &Counter;

const COUNTERS: &[(&str, &str, Of)] = &[
    ("cloudbridge_accepted_connections", "Connections accepted.", |s| &s.accepted),
    (
        "cloudbridge_proxy_headers_refused",
        "Connections closed because no valid PROXY header came.",
        |s| &s.headers_refused,
    ),
    ("cloudbridge_exchanges", "Requests whose response was passed on completely.", |s| &s.served),
    (
        "cloudbridge_delivered_failures",
        "Failures of backends with a request that their application may have seen.",
        |s| &s.delivered,
    ),
    (
        "cloudbridge_given_back",
        "Requests that backends without a place for them have given back.",
        |s| &s.given_back,
    ),
    ("cloudbridge_files", "Responses from files.", |s| &s.files),
    (
        "cloudbridge_file_reads",
        "Times that a thread opened or read a file because it was not in memory.",
        |s| &s.file_reads,
    ),
    ("cloudbridge_challenges", "Backends asked to prove their host keys.", |s| &s.challenges),
    (
        "cloudbridge_passed_connections",
        "New connections that went to another worker, which had fewer clients.",
        |s| &s.passed,
    ),
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
    withdrawn: u64,
    busy: u64,
    waiting: u64,
}

impl Group {
    fn add(&mut self, host: &HostRow) {
        for (sum, count) in self.answers.iter_mut().zip(host.counted.answers) {
            *sum += count;
        }
        self.parked += u64::from(host.parked);
        self.withdrawn += u64::from(host.withdrawn);
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
        let paths = host.prefix.trim_end_matches('/');
        let predicates: String =
            host.predicates.iter().map(|predicate| format!(" [{predicate}]")).collect();
        let label = format!("{}{paths}{predicates}", host.hosts.join(","));
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
        let states =
            [("parked", group.parked), ("withdrawn", group.withdrawn), ("busy", group.busy)];
        for (state, count) in states {
            let labels = [("host", host.as_str()), ("state", state)];
            text.sample("cloudbridge_bridges", &labels, count);
        }
    }
    text.family("cloudbridge_requests_waiting", "gauge", "Requests that wait for a bridge now.");
    for (host, group) in &groups {
        text.sample("cloudbridge_requests_waiting", &[("host", host)], group.waiting);
    }
}

/// Connections by kind, and how many there may be.
fn write_connections(text: &mut Text, shared: &Shared, config: &Config) {
    text.family("cloudbridge_connections", "gauge", "Connections open now.");
    for (place, kind) in figures::KINDS[..figures::KINDS_SHOWN].iter().enumerate() {
        let count = figures::connections(&shared.stats, place);
        text.sample("cloudbridge_connections", &[("kind", kind)], count);
    }
    let limit = shared.connection_limit(config);
    let shares = Shares::of(limit, config.pools.servers().next().is_some());
    text.family("cloudbridge_connections_max", "gauge", "Connections that there may be.");
    for (share, most) in [
        ("all", limit),
        ("accepted", shares.accepted),
        ("clients", shares.clients),
        ("bridges", shares.bridges),
    ] {
        text.sample("cloudbridge_connections_max", &[("share", share)], most as u64);
    }
}

/// Programs that this one has replaced and that still run, and what they have.
fn write_old_programs(text: &mut Text, shared: &Shared) {
    let old = shared.old_programs.all();
    let sum = |of: fn(&OldProgram) -> u64| old.iter().map(of).sum::<u64>();
    text.family("cloudbridge_old_programs", "gauge", "Replaced programs that still run.");
    text.sample("cloudbridge_old_programs", &[], old.len() as u64);
    let help = "What replaced programs still have in progress.";
    text.family("cloudbridge_old_programs_busy", "gauge", help);
    for (kind, count) in
        [("tunnel", sum(|old| old.tunnels)), ("exchange", sum(|old| old.exchanges))]
    {
        text.sample("cloudbridge_old_programs_busy", &[("kind", kind)], count);
    }
    let help = "Connections of replaced programs.";
    text.family("cloudbridge_old_programs_connections", "gauge", help);
    text.sample("cloudbridge_old_programs_connections", &[], sum(|old| old.connections));
}

/// The metrics that every Prometheus client library has.
fn write_process(text: &mut Text, shared: &Shared) {
    let process = Process::read();
    if let Some(cpu) = process.cpu {
        text.family("process_cpu_seconds", "counter", "Processor time, user and system.");
        text.float("process_cpu_seconds_total", cpu.as_secs_f64());
    }
    text.family("process_start_time_seconds", "gauge", "When the process began, since 1970.");
    let began = shared.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    text.float("process_start_time_seconds", began.as_secs_f64());
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Memory in use.", process.resident),
        ("process_virtual_memory_bytes", "Addresses in use.", process.virtual_memory),
        ("process_open_fds", "Descriptors open.", process.open_fds),
        ("process_max_fds", "Descriptors that may be open.", Some(shared.descriptors as u64)),
        ("process_threads", "Threads.", process.threads),
    ] {
        if let Some(value) = value {
            text.family(name, "gauge", help);
            text.sample(name, &[], value);
        }
    }
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# TYPE {name} {kind}\n# HELP {name} {help}");
        for unit in ["seconds", "bytes"] {
            if name.strip_suffix(unit).is_some_and(|name| name.ends_with('_')) {
                let _ = writeln!(self.0, "# UNIT {name} {unit}");
            }
        }
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.labelled(name, labels);
        let _ = writeln!(self.0, " {value}");
    }

    fn labelled(&mut self, name: &str, labels: &[(&str, &str)]) {
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
    }

    fn float(&mut self, name: &str, value: f64) {
        let _ = writeln!(self.0, "{name} {value:.6}");
    }

    /// For each worker with a name, or of all together under the name "".
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        workers: &[(&str, &[Stats])],
        of: fn(&Stats) -> &Histogram,
    ) {
        self.family(name, "histogram", help);
        for (worker, all) in workers {
            self.buckets(name, worker, all, of);
        }
    }

    fn buckets(&mut self, name: &str, worker: &str, all: &[Stats], of: fn(&Stats) -> &Histogram) {
        let labels = [("worker", worker)];
        let labels = if worker.is_empty() { &[][..] } else { &labels[..] };
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for class in 0..DURATIONS {
            below += all.iter().map(|stats| of(stats).classes[class].get()).sum::<u64>();
            let bound = match DURATION_BOUNDS.get(class) {
                Some(micros) => format!("{:?}", *micros as f64 / 1e6),
                None => "+Inf".to_owned(),
            };
            let le = [("le", bound.as_str())];
            self.sample(&bucket, &[labels, &le[..]].concat(), below);
        }
        self.sample(&format!("{name}_count"), labels, below);
        let micros: u64 = all.iter().map(|stats| of(stats).sum.get()).sum();
        self.labelled(&format!("{name}_sum"), labels);
        let _ = writeln!(self.0, " {:.6}", micros as f64 / 1e6);
    }
}
