//! One entry under `map:` as one `site` line.

use std::net::IpAddr;

use super::output::{Output, Problem, word};
use super::yaml::{Entry, Node, Value, find, one_line, texts};
use super::{files, other, servers};

/// The original's default of `redeployment_sizelimit`, in bytes.
const REDEPLOY: &str = "16384";

/// The names in an entry that are converted.
const KNOWN: &[&str] = &[
    "incoming",
    "outgoing",
    "default",
    "key",
    "redeployable",
    "redeployment_sizelimit",
    "keepalive",
    "xforwardedfor",
    "backup",
    "sticky",
    "proxy",
    "servers",
    "directory",
    "groups",
    "docroot",
    "staticmask",
    "cache_directory",
    "cache_extensions",
    "sendfileroot",
    "enable_sendfile_404",
    "manager",
    "description",
];

/// Writes one entry. `defaults` apply to names that it does not have; `timeout` is the global one.
pub(super) fn write(
    item: &Node,
    defaults: Option<&Node>,
    timeout: &str,
    out: &mut Output,
) -> Result<(), Problem> {
    let Value::Map(own) = &item.value else {
        return Err(Problem::new(item.line, "map: an entry has names with values"));
    };
    let mut entries = own.clone();
    if let Some(Node { value: Value::Map(defaults), .. }) = defaults {
        let missing = |entry: &&Entry| !own.iter().any(|other| other.name == entry.name);
        entries.extend(defaults.iter().filter(missing).cloned());
    }
    let names = texts(&entries, "incoming")?;
    let Some(first) = names.first() else {
        return Err(Problem::new(item.line, "map: an entry has no incoming names"));
    };
    out.comment(&format!("{first} (line {})", item.line));
    // A logger among the defaults is that of all.
    let is_own = |entry: &&Entry| entry.name != "logger" || find(own, "logger").is_some();
    let is_unknown = |entry: &&Entry| !KNOWN.contains(&entry.name.as_str());
    for entry in entries.iter().filter(is_unknown).filter(is_own) {
        out.left_out(entry.line, &entry.name, other::why_of_site(&entry.name));
    }
    let mut words = vec![word(&names.join(","))];
    backends(&entries, item.line, &names, &mut words, out)?;
    files::files(&entries, &mut words, out)?;
    files::manager(&entries, &mut words, out)?;
    policies(&entries, timeout, &mut words)?;
    out.directive(item.line, "site", &words.join(" "));
    Ok(())
}

fn backends(
    entries: &[Entry],
    line: usize,
    names: &[String],
    words: &mut Vec<String>,
    out: &mut Output,
) -> Result<(), Problem> {
    let kind = find(entries, "proxy").map(|node| node.text("proxy")).transpose()?;
    match kind.map(str::to_ascii_lowercase).as_deref() {
        None | Some("keepalive") => {}
        Some("traditional") => return servers::write(entries, line, names, words, out),
        Some(_) => {
            return Err(Problem::new(line, "proxy: only keepalive and traditional are known"));
        }
    }
    let outgoing = find(entries, "outgoing").map_or(&[][..], Node::items);
    if outgoing.is_empty() {
        return Err(Problem::new(line, "an entry has no outgoing address"));
    }
    for to in outgoing {
        one_outgoing(to, words)?;
    }
    if let Some(key) = find(entries, "key") {
        words.push(format!("key={}", word(one_line(key, "key")?)));
    } else if outgoing.iter().any(|to| !is_loopback(to)) {
        out.comment("Without a key, backends on other machines are refused: give the site a key,");
        out.comment("or set open-bridges yes where every machine that can connect is trusted.");
    }
    Ok(())
}

/// An address, or a mapping of `to` with `match` or `prefix`.
fn one_outgoing(node: &Node, words: &mut Vec<String>) -> Result<(), Problem> {
    let Value::Map(entries) = &node.value else {
        words.push(format!("swiftiply={}", word(node.text("outgoing")?)));
        return Ok(());
    };
    let Some(to) = find(entries, "to") else {
        return Err(Problem::new(node.line, "outgoing: there is no `to`"));
    };
    words.push(format!("swiftiply={}", word(to.text("to")?)));
    for name in ["match", "prefix"] {
        if let Some(paths) = find(entries, name) {
            words.push(format!("{name}={}", word(one_line(paths, name)?)));
        }
    }
    match entries.iter().find(|entry| !["to", "match", "prefix"].contains(&entry.name.as_str())) {
        Some(entry) => {
            Err(Problem::new(entry.line, format!("outgoing: {} is not known", entry.name)))
        }
        None => Ok(()),
    }
}

/// The settings of the site's requests. Defaults of the original are written explicitly.
fn policies(entries: &[Entry], timeout: &str, words: &mut Vec<String>) -> Result<(), Problem> {
    let is = |name: &str| find(entries, name).is_some_and(Node::is_true);
    if is("default") {
        words.push("default".to_owned());
    }
    words.push(format!("timeout={timeout}"));
    if is("redeployable") {
        let size = match find(entries, "redeployment_sizelimit") {
            Some(node) => node.text("redeployment_sizelimit")?,
            None => REDEPLOY,
        };
        words.push(format!("redeploy={}", word(size)));
    }
    if find(entries, "keepalive").is_some_and(|node| !node.is_true()) {
        words.push("keepalive=no".to_owned());
    }
    let forwarded = if is("xforwardedfor") { "yes" } else { "no" };
    words.push(format!("forwarded={forwarded}"));
    if let Some(backup) = find(entries, "backup") {
        words.push(format!("backup={}", word(backup.text("backup")?)));
    }
    // Only swiftclient backends have ids.
    if is("sticky") && find(entries, "servers").is_none() {
        words.push("sticky=id".to_owned());
    }
    Ok(())
}

fn is_loopback(to: &Node) -> bool {
    // A mapping without `to` has no text either.
    let address = to.get("to").unwrap_or(to).text("to").ok();
    let host = address.and_then(|address| address.rsplit_once(':')).map_or("", |(host, _)| host);
    let number = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || number.is_ok_and(|number| number.is_loopback())
}
