//! The state as tables for people.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::Value;

/// A table of the hosts.
pub(super) fn hosts(state: &Value) -> String {
    let mut rows =
        vec![["HOST", "FREE", "BUSY", "WAITING", "OLDEST", "REQUESTS", ""].map(str::to_owned)];
    for host in list(&state["hosts"]) {
        let drained = if host["drained"] == true { "drained" } else { "" };
        rows.push([
            served(host),
            free(host),
            number(&host["busy"]),
            number(&host["waiting"]),
            if host["waiting"] == 0 { "-".to_owned() } else { time(&host["oldest"]) },
            list(&host["answers"]).iter().filter_map(Value::as_u64).sum::<u64>().to_string(),
            drained.to_owned(),
        ]);
    }
    table(&rows)
}

/// What a route serves: hosts, path, and predicates in brackets.
fn served(host: &Value) -> String {
    let predicates = list(&host["predicates"]).iter().map(|one| format!(" [{}]", text(one)));
    let prefix = text(&host["prefix"]);
    let predicates: String = predicates.collect();
    format!("{}{}{predicates}", names(&host["hosts"]), prefix.trim_end_matches('/'))
}

/// A line of the settings for each site, or for one.
pub(super) fn site_lines(answer: &Value) -> String {
    let one = std::slice::from_ref(answer);
    let all = answer["sites"].as_array().map_or(one, Vec::as_slice);
    let mut lines = String::new();
    for site in all {
        let made = if site["from"] == "run-time" { " # made at run time" } else { "" };
        // Writes to a string do not fail.
        let _ = writeln!(lines, "site {}{made}", text(&site["line"]));
    }
    lines
}

/// A table of the backends, or of those that serve `host`.
pub(super) fn backends(state: &Value, host: Option<&str>) -> String {
    let mut rows = vec![
        [
            "ID",
            "ADDRESS",
            "HOST",
            "FREE",
            "BUSY",
            "REQUESTS",
            "SINCE",
            "KEY",
            "BEARER",
            "AGENT",
            "LAST ERROR",
        ]
        .map(str::to_owned),
    ];
    let serves = |backend: &&Value| {
        host.is_none_or(|host| list(&backend["hosts"]).iter().any(|name| name == host))
    };
    for backend in list(&state["backends"]).iter().filter(serves) {
        let ago = |at: &Value| {
            let now = state["totals"]["at"].as_f64().unwrap_or(0.0);
            age((now - at.as_f64().unwrap_or(0.0)).max(0.0) as u64)
        };
        rows.push([
            text(&backend["id"]),
            text(&backend["address"]),
            names(&backend["hosts"]),
            free(backend),
            number(&backend["busy"]),
            number(&backend["served"]),
            ago(&backend["since"]),
            admitted(backend),
            number(&backend["bearer"]),
            text(&backend["agent"]),
            last(&backend["last_error"], state),
        ]);
    }
    table(&rows)
}

/// How many slots are free, and how many bridges are none because their backends have no place.
fn free(row: &Value) -> String {
    match row["withdrawn"].as_u64().unwrap_or(0) {
        0 => number(&row["parked"]),
        withdrawn => format!("{} ({withdrawn} withdrawn)", number(&row["parked"])),
    }
}

/// By which key or certificate a backend has been let in.
fn admitted(backend: &Value) -> String {
    let certificate = &backend["certificate"];
    if certificate.is_null() {
        return text(&backend["key"]);
    }
    let until = certificate["expires"].as_i64().and_then(|at| Timestamp::from_second(at).ok());
    let until = until.map(|at| format!(" until {at}")).unwrap_or_default();
    let certificate = format!("{}{until}", text(&certificate["holder"]));
    match backend["key"].is_null() {
        true => certificate,
        false => format!("{}; {certificate}", text(&backend["key"])),
    }
}

/// A table of the sites of the settings, with the calls of those who start their backends.
pub(super) fn sites(state: &Value) -> String {
    let mut rows = vec![
        ["SITE", "FREE", "BRIDGES", "WAITING", "CALLS", "FAILURES", "LAST FAILURE"]
            .map(str::to_owned),
    ];
    for (name, site) in state["sites"].as_object().into_iter().flatten() {
        let manager = &site["manager"];
        let count = |member: &str| match manager.is_null() {
            true => "-".to_owned(),
            false => number(&manager[member]),
        };
        rows.push([
            text(&Value::from(name.as_str())),
            free(site),
            number(&site["bridges"]),
            number(&site["waiting"]),
            count("calls"),
            count("failures"),
            last(&manager["last_failure"], state),
        ]);
    }
    table(&rows)
}

/// How long ago something went wrong, and what.
fn last(wrong: &Value, state: &Value) -> String {
    if wrong["text"].is_null() {
        return "-".to_owned();
    }
    let now = state["totals"]["at"].as_f64().unwrap_or(0.0);
    let ago = (now - wrong["at"].as_f64().unwrap_or(0.0)).max(0.0) as u64;
    format!("{} ago: {}", age(ago), text(&wrong["text"]))
}

/// A table of the programs that have been replaced and still run.
pub(super) fn old_programs(state: &Value) -> String {
    let mut rows = vec![["PROCESS", "TUNNELS", "REQUESTS", "CONNECTIONS"].map(str::to_owned)];
    for program in list(&state["old_programs"]) {
        let members = ["process", "tunnels", "exchanges", "connections"];
        rows.push(members.map(|member| number(&program[member])));
    }
    table(&rows)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn names(value: &Value) -> String {
    list(value).iter().map(text).collect::<Vec<_>>().join(",")
}

/// Without control characters: names come from strangers, and go to a terminal.
fn text(value: &Value) -> String {
    match value.as_str() {
        None | Some("") => "-".to_owned(),
        Some(text) => text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
    }
}

fn number(value: &Value) -> String {
    value.as_u64().unwrap_or(0).to_string()
}

fn time(value: &Value) -> String {
    match value.as_u64().unwrap_or(0) {
        millis @ 0..10_000 => format!("{millis}ms"),
        millis => age(millis / 1000),
    }
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Columns as wide as their longest cell.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn predicates_are_in_brackets() {
        let fields = json!(["If-Method: GET, HEAD", "If-Cookie: canary"]);
        let host = json!({ "hosts": ["a.test"], "prefix": "/", "predicates": fields });
        assert_eq!(served(&host), "a.test [If-Method: GET, HEAD] [If-Cookie: canary]");
    }

    #[test]
    fn hosts_are_a_table() {
        let mut state = json!({ "hosts": [
            { "hosts": ["a.test", "*.b.test"], "prefix": "/api", "parked": 3, "busy": 1,
              "waiting": 2, "oldest": 65_000, "answers": [0, 5, 0, 1, 0], "drained": true },
            { "hosts": ["\u{1b}[2J"], "prefix": "/", "parked": 0, "busy": 0,
              "waiting": 0, "oldest": 0, "answers": [0, 0, 0, 0, 0], "drained": false },
        ]});
        let table = "HOST                 FREE  BUSY  WAITING  OLDEST  REQUESTS\n\
             a.test,*.b.test/api  3     1     2        65s     6         drained\n\
             ?[2J                 0     0     0        -       0\n";
        assert_eq!(hosts(&state), table);
        state["hosts"][0]["withdrawn"] = json!(0);
        assert_eq!(hosts(&state), table);
        state["hosts"][0]["withdrawn"] = json!(2);
        assert!(hosts(&state).contains("  3 (2 withdrawn)  1     2  "), "{}", hosts(&state));
    }

    #[test]
    fn old_programs_are_a_table() {
        let program = |process: u32, tunnels: u32| json!({ "process": process, "tunnels": tunnels, "exchanges": 1, "connections": 9 });
        let state = json!({ "old_programs": [program(4711, 3), program(42, 0)] });
        assert_eq!(
            old_programs(&state),
            "PROCESS  TUNNELS  REQUESTS  CONNECTIONS\n\
             4711     3        1         9\n\
             42       0        1         9\n"
        );
    }

    #[test]
    fn sites_are_a_table() {
        let failure = json!({ "at": 8100, "text": "it has answered 500" });
        let state = json!({ "totals": { "at": 8200.5 }, "sites": {
            "a.test": { "parked": 1, "withdrawn": 0, "bridges": 2, "waiting": 0, "manager": null },
            "*.b.test": { "parked": 0, "bridges": 0, "waiting": 3,
                          "manager": { "calls": 7, "failures": 2, "last_failure": failure } },
        }});
        assert_eq!(
            sites(&state),
            "SITE      FREE  BRIDGES  WAITING  CALLS  FAILURES  LAST FAILURE\n\
             *.b.test  0     0        3        7      2         100s ago: it has answered 500\n\
             a.test    1     2        0        -      -         -\n"
        );
    }

    #[test]
    fn backends_may_be_those_of_one_host() {
        let backend = |id: &str, host: &str| {
            json!({ "id": id, "address": "10.0.0.1", "hosts": [host], "parked": 1, "busy": 0,
                    "served": 7, "since": 1000, "key": null, "bearer": 1, "agent": "x/1",
                    "last_error": { "at": 8100, "text": "it \u{1b}fell silent" } })
        };
        let state = json!({ "totals": { "at": 8200.5 }, "backends": [
            backend("1f", "a.test"), backend("2f", "b.test"),
        ]});
        assert_eq!(backends(&state, None).lines().count(), 3);
        assert_eq!(
            backends(&state, Some("b.test")),
            "ID  ADDRESS   HOST    FREE  BUSY  REQUESTS  SINCE  KEY  BEARER  AGENT  LAST ERROR\n\
             2f  10.0.0.1  b.test  1     0     7         2h     -    1       x/1    100s ago: it ?fell silent\n"
        );
    }
}
