//! The servers of a traditional site: named, or in Redis.

use super::output::{Output, Problem, word};
use super::yaml::{Entry, Node, Value, find, texts};

/// The port of a server without one.
const PORT: &str = "80";

/// Where the original looks for Redis.
const REDIS_HOST: &str = "127.0.0.1";
const REDIS_PORT: &str = "6379";

/// Writes the options for the servers that the proxy dials. `names` are those of the site.
pub(super) fn write(
    entries: &[Entry],
    line: usize,
    names: &[String],
    words: &mut Vec<String>,
    out: &mut Output,
) -> Result<(), Problem> {
    match find(entries, "directory").map(|node| node.text("directory")).transpose()? {
        None | Some("static") => {}
        Some("redis") => return redis(entries, names, words, out),
        Some(_) => return Err(Problem::new(line, "directory: only static and redis are known")),
    }
    let mut servers = texts(entries, "servers")?;
    servers.extend(of_groups(entries, out)?);
    if servers.is_empty() {
        out.left_out(line, "proxy", "no server is named here: bridges may serve this site");
        return Ok(());
    }
    let plain: Vec<String> = servers.iter().map(|server| plain(server)).collect();
    words.push(format!("servers={}", word(&plain.join(","))));
    Ok(())
}

/// The servers of groups that are for all paths.
fn of_groups(entries: &[Entry], out: &mut Output) -> Result<Vec<String>, Problem> {
    let mut servers = Vec::new();
    for group in find(entries, "groups").map_or(&[][..], Node::items) {
        let Value::Map(own) = &group.value else {
            return Err(Problem::new(group.line, "groups: a group has names with values"));
        };
        if find(own, "match").is_some() {
            let why = "servers that are dialled serve all paths of a site: have these dial the \
                       proxy, with an agent for a prefix";
            out.left_out(group.line, "groups", why);
        } else {
            servers.extend(texts(own, "servers")?);
        }
    }
    Ok(servers)
}

/// Each name has a list of its own, whose members serve one request at a time.
fn redis(
    entries: &[Entry],
    names: &[String],
    words: &mut Vec<String>,
    out: &mut Output,
) -> Result<(), Problem> {
    let servers = find(entries, "servers");
    let text = |name: &str| {
        let node = servers.and_then(|node| node.get(name));
        node.map(|node| node.text(name)).transpose()
    };
    let host = match text("host")?.unwrap_or(REDIS_HOST) {
        host if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        host => host.to_owned(),
    };
    let port = text("port")?.unwrap_or(REDIS_PORT);
    let database = match text("db")? {
        None | Some("0") => String::new(),
        Some(number) => format!("?db={number}"),
    };
    if let Some(node) = servers.and_then(|node| node.get("password")) {
        let why = "write it into a file, and name that in a line: redis-password FILE";
        out.left_out(node.line, "password", why);
    }
    let list = |name: &String| format!("redis://{host}:{port}/{name}{database}");
    let lists: Vec<String> = names.iter().map(list).collect();
    words.push(format!("servers={}", word(&lists.join(","))));
    words.push("max=1".to_owned());
    Ok(())
}

/// A server without its scheme and path, which the original ignores.
fn plain(server: &str) -> String {
    let server = server.strip_prefix("http://").unwrap_or(server);
    let server = server.split('/').next().unwrap_or(server);
    match server.rsplit(']').next().is_some_and(|behind| behind.contains(':')) {
        true => server.to_owned(),
        false => format!("{server}:{PORT}"),
    }
}
