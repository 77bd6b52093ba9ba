//! The agent's unit says what the agent understands. tests/packaging has what systemd says about all units.

use crate::common::Proxy;
use cloudbridge::agent::options::{self, Command as Asked};
use std::fs;
use std::path::Path;

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(path).expect("a file that is shipped")
}

/// What stands behind `key=` in a unit.
#[track_caller]
fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {key}= in:\n{unit}"))
}

#[test]
fn the_agents_unit_is_a_command_line_and_leaves_it_its_grace() {
    let proxy = Proxy::start();
    proxy.write("key", &cloudbridge::bridge::hostkey::legacy_key("sesame", 1, "shop.example.com"));
    let dir = proxy.dir().display().to_string();
    let example = shipped("packaging/agent.conf");
    proxy.write(
        "shop.conf",
        &example.replace("/etc/cloudbridge-agent/shop.key", &format!("{dir}/key")),
    );
    let unit = shipped("conf/cloudbridge-agent@.service");
    let line =
        value(&unit, "ExecStart").replace("/etc/cloudbridge-agent/%i", &format!("{dir}/shop"));
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    assert_eq!(words[0], "/usr/local/bin/cloudbridge-agent");
    let serve = match options::parse(&words[1..], |_| None) {
        Ok(Asked::Serve(serve)) => serve,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(serve.services[0].scope.keys.len(), 1);
    let stop: u64 = value(&unit, "TimeoutStopSec").parse().expect("seconds");
    assert!(stop > serve.grace.as_secs());
    // Stopped before its application, and with it.
    assert!(value(&unit, "After").contains("%i.service"));
    assert_eq!(value(&unit, "PartOf"), "%i.service");
}
