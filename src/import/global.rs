//! The global settings: listeners and the process.

use super::output::{Output, Problem, word};
use super::yaml::{Entry, Node, Value, find, one_line};
use super::{other, site};

/// The default of the original.
const HEALTH: &str = "/swiftiply_health";

/// The log of a process in the background.
const LOG_FILE: &str = "/var/log/cloudbridge.log";

/// How long a request waits for a backend in the original by default.
const TIMEOUT: &str = "3s";

/// Where the original takes updates by default.
const UPDATES_HOST: &str = "127.0.0.1";
const UPDATES_PORT: &str = "9949";

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
    note(logger(entries, out));
    note(updates(entries, out));
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
    const KNOWN: &[&str] = &[
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
        "ssl",
        "updates",
        "logger",
    ];
    KNOWN.contains(&name)
}

/// Every address with every port, as in the original.
fn listeners(entries: &[Entry], out: &mut Output) -> Result<(), Problem> {
    let Some(ports) = find(entries, "cluster_port") else {
        return Err(Problem::new(1, "there is no cluster_port"));
    };
    let addresses = find(entries, "cluster_address").map_or(&[][..], Node::items);
    let encrypted = encrypted(entries)?;
    let mut listened = Vec::new();
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
            let tls = encrypted.iter().find(|tls| tls.at == place);
            let (line, tls) = match tls {
                Some(tls) => (tls.line, format!(" {}", word(&tls.option))),
                None => (address.line, String::new()),
            };
            out.directive(line, "listen", &format!("{} clients{tls}", word(&place)));
            listened.push(place);
        }
    }
    for tls in encrypted.iter().filter(|tls| !listened.contains(&tls.at)) {
        let why = "no cluster_address with a cluster_port is this one";
        out.left_out(tls.line, &format!("ssl at {}", tls.at), why);
    }
    Ok(())
}

/// An address with TLS in the original.
struct Encrypted {
    line: usize,
    at: String,
    /// Of our listener there.
    option: String,
}

fn encrypted(entries: &[Entry]) -> Result<Vec<Encrypted>, Problem> {
    let items = find(entries, "ssl").map_or(&[][..], Node::items);
    let with_address = items.iter().filter_map(|item| Some((item, item.get("at")?)));
    let read = |(item, at): (&Node, &Node)| {
        let file = |name: &str| match item.get(name) {
            Some(node) => one_line(node, name),
            None => Err(Problem::new(item.line, format!("ssl: there is no {name}"))),
        };
        let option = format!("tls={},{}", file("certfile")?, file("keyfile")?);
        Ok(Encrypted { line: item.line, at: at.text("at")?.to_owned(), option })
    };
    with_address.map(read).collect()
}

/// How much is logged. The log itself goes where that of this proxy goes.
fn logger(entries: &[Entry], out: &mut Output) -> Result<(), Problem> {
    let of_all = find(entries, "defaults").and_then(|defaults| defaults.get("logger"));
    let Some(logger) = find(entries, "logger").or(of_all) else { return Ok(()) };
    if let Some(kind) = logger.get("type")
        && !kind.text("type")?.eq_ignore_ascii_case("stderror")
    {
        let why = "the log goes to standard error or log-file, and requests to access-log, which \
                   may be syslog";
        out.left_out(kind.line, &format!("logger of type {}", kind.text("type")?), why);
    }
    let Some(level) = logger.get("level").or_else(|| logger.get("log_level")) else {
        return Ok(());
    };
    // Words by their first letter, as in the original. Without any log it is not run here.
    let name = match level.text("log_level")?.chars().next() {
        Some('d' | '0') => "error",
        Some('n' | '2') => "info",
        Some('f' | '3') => "debug",
        _ => "warn",
    };
    out.directive(level.line, "log-level", name);
    Ok(())
}

/// Where sites are changed at run time.
fn updates(entries: &[Entry], out: &mut Output) -> Result<(), Problem> {
    let Some(updates) = find(entries, "updates") else { return Ok(()) };
    let text = |name: &str| updates.get(name).map(|node| node.text(name)).transpose();
    if text("updater")? != Some("rest") {
        out.left_out(updates.line, "updates", "only updater: rest is known");
        return Ok(());
    }
    let host = match text("host")?.unwrap_or(UPDATES_HOST) {
        host if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        host => host.to_owned(),
    };
    let place = format!("{host}:{}", text("port")?.unwrap_or(UPDATES_PORT));
    out.comment(
        "Sites are changed here by PUT and DELETE (doc/admin.md), with the token in a file",
    );
    out.comment("that a line `admin-token FILE` names. Without that line they are only read.");
    out.directive(updates.line, "listen", &format!("{} admin", word(&place)));
    Ok(())
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
