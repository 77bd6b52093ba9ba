//! The global settings: listeners and the process.

use super::output::{Output, Problem, word};
use super::yaml::{Entry, Node, Value, find};
use super::{other, site};

/// The default of the original.
const HEALTH: &str = "/swiftiply_health";

/// The log of a process in the background.
const LOG_FILE: &str = "/var/log/cloudbridge.log";

/// How long a request waits for a backend in the original by default.
const TIMEOUT: &str = "3s";

/// Writes the flat file of a whole tree, and returns what is wrong.
pub(super) fn write(root: &Node, out: &mut Output) -> Vec<Problem> {
    let Value::Map(entries) = &root.value else {
        return vec![Problem::new(
            root.line,
            "there are no settings here: names with values are missing",
        )];
    };
    let mut problems = Vec::new();
    let mut note = |result: Result<(), Problem>| problems.extend(result.err());
    out.blank();
    note(listeners(entries, out));
    let health = find(entries, "health_check_uri");
    let line = health.map_or(1, |node| node.line);
    note(health.map_or(Ok(HEALTH), |node| node.text("health_check_uri")).map(|path| {
        out.directive(line, "health-uri", &word(path));
    }));
    // As the original does with unknown names if no site is the default.
    out.directive(1, "unknown-host", "404");
    note(process(entries, out));
    for entry in entries.iter().filter(|entry| !is_known(&entry.name)) {
        out.left_out(entry.line, &entry.name, other::why(&entry.name));
    }
    let timeout = find(entries, "timeout").map_or_else(|| Ok(TIMEOUT.to_owned()), seconds);
    let timeout = timeout.unwrap_or_else(|problem| {
        problems.push(problem);
        TIMEOUT.to_owned()
    });
    let defaults = find(entries, "defaults");
    let Some(map) = find(entries, "map") else {
        problems.push(Problem::new(root.line, "there is no map, and so no site"));
        return problems;
    };
    for item in map.items() {
        out.blank();
        if let Err(problem) = site::write(item, defaults, &timeout, out) {
            problems.push(problem);
        }
    }
    problems
}

/// Whether a name at the top level is converted.
fn is_known(name: &str) -> bool {
    const KNOWN: [&str; 13] = [
        "cluster_address",
        "cluster_port",
        "daemonize",
        "pidfile",
        "user",
        "group",
        "timeout",
        "health_check_uri",
        "descriptors",
        "epoll_descriptors",
        "defaults",
        "map",
        "swiftiply",
    ];
    KNOWN.contains(&name)
}

/// Every address with every port, as in the original.
fn listeners(entries: &[Entry], out: &mut Output) -> Result<(), Problem> {
    let Some(ports) = find(entries, "cluster_port") else {
        return Err(Problem::new(1, "there is no cluster_port"));
    };
    let addresses = find(entries, "cluster_address").map_or(&[][..], Node::items);
    let encrypted = encrypted(entries);
    for port in ports.items() {
        let number = port.text("cluster_port")?;
        if addresses.is_empty() {
            out.directive(port.line, "listen", &format!("*:{} clients", word(number)));
        }
        for address in addresses {
            let host = match address.text("cluster_address")? {
                host if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
                host => host.to_owned(),
            };
            let place = format!("{host}:{number}");
            if encrypted.contains(&place) {
                let why = "TLS is not supported, and this address used it: put haproxy in front";
                out.left_out(address.line, &format!("cluster_address {place}"), why);
            } else {
                out.directive(address.line, "listen", &format!("{} clients", word(&place)));
            }
        }
    }
    Ok(())
}

/// The addresses with TLS in the original.
fn encrypted(entries: &[Entry]) -> Vec<String> {
    let items = find(entries, "ssl").map_or(&[][..], Node::items);
    let at = |item: &Node| item.get("at")?.text("at").ok().map(str::to_owned);
    items.iter().filter_map(at).collect()
}

fn process(entries: &[Entry], out: &mut Output) -> Result<(), Problem> {
    if let Some(node) = find(entries, "daemonize").filter(|node| node.is_true()) {
        out.directive(node.line, "daemonize", "yes");
        out.comment("In the background there is no standard error: the log needs a file.");
        out.directive(node.line, "log-file", LOG_FILE);
    }
    for name in ["pidfile", "user", "group"] {
        if let Some(node) = find(entries, name) {
            out.directive(node.line, name, &word(node.text(name)?));
        }
    }
    let descriptors = find(entries, "epoll_descriptors").or_else(|| find(entries, "descriptors"));
    if let Some(node) = descriptors {
        out.directive(node.line, "descriptors", &word(node.text("descriptors")?));
    }
    Ok(())
}

/// A number of seconds, perhaps with a fraction, as a time of the flat file.
fn seconds(node: &Node) -> Result<String, Problem> {
    let text = node.text("timeout")?;
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds > 0.0 && seconds < 1e9 => {
            let millis = (seconds * 1000.0).round().max(1.0);
            Ok(if millis % 1000.0 == 0.0 {
                format!("{}s", millis / 1000.0)
            } else {
                format!("{millis}ms")
            })
        }
        _ => Err(Problem::new(node.line, "timeout: this is not a number of seconds above 0")),
    }
}
