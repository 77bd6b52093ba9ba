//! The units for systemd in `conf/` say what the programs understand.

use crate::common::{Proxy, skipped};
use cloudbridge::agent::options::{self, Command as Asked};
use std::fs;
use std::path::Path;
use std::process::Command;

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name);
    fs::read_to_string(path).expect("a unit that is shipped")
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
    proxy.write("key", &cloudbridge::bridge::hostkey::legacy_key("sesame", 1, "app.example.com"));
    let unit = shipped("cloudbridge-agent.service");
    let dir = proxy.dir().display().to_string();
    let line = value(&unit, "ExecStart").replace("${CREDENTIALS_DIRECTORY}", &dir);
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
    assert!(value(&unit, "After").contains("app.service"));
    assert_eq!(value(&unit, "PartOf"), "app.service");
}

#[test]
fn systemd_finds_no_fault_with_the_units() {
    let there = Command::new("systemd-analyze").arg("--version").output();
    if !there.is_ok_and(|output| output.status.success()) {
        return skipped("systemd-analyze is not installed");
    }
    let proxy = Proxy::start();
    // The programs must be where a unit says, and so must the units that it names.
    let built = Path::new(env!("CARGO_BIN_EXE_cloudbridge")).parent().expect("a directory");
    proxy.write("app.service", "[Service]\nExecStart=/bin/sleep 1\n");
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    for name in ["cloudbridge.service", "cloudbridge.socket", "cloudbridge-agent.service"] {
        let unit = shipped(name).replace("/usr/local/bin/", &format!("{}/", built.display()));
        proxy.write(name, &unit);
        verify.arg(proxy.dir().join(name));
    }
    let output = verify.output().expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
}
