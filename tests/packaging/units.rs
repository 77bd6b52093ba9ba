//! The units: what systemd finds wrong with them, and what they leave to somebody who has taken a
//! program over.

use crate::tools::{Dir, has, programs, root, run, source};
use std::path::PathBuf;
use std::process::Command;

/// As `systemd-analyze security` has it, from 0 to 100.
const MOST_EXPOSED: &str = "20";

const SERVICES: &[&str] = &["cloudbridge.service", "cloudbridge-agent@.service"];

/// Copies of the units that name the built programs.
fn copied(dir: &Dir) -> Vec<PathBuf> {
    let programs = format!("{}/", programs().display());
    let copy = |name: &&str| {
        let text = source(&format!("conf/{name}")).replace("/usr/local/bin/", &programs);
        dir.write(name, &text)
    };
    SERVICES.iter().chain(&["cloudbridge.socket"]).map(copy).collect()
}

/// Whether systemd-analyze can do this here.
fn can_analyze(verb: &[&str]) -> bool {
    if !has("systemd-analyze") {
        return false;
    }
    let text = run(Command::new("systemd-analyze").arg("--version"));
    let version = text.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    // `security` of files is there since 250.
    if version < 250 {
        println!("skipped: this systemd-analyze is too old for {verb:?}");
    }
    version >= 250
}

#[test]
fn systemd_finds_nothing_wrong() {
    if !can_analyze(&["verify"]) {
        return;
    }
    let dir = Dir::new();
    for unit in copied(&dir) {
        let mut command = Command::new("systemd-analyze");
        let output = command.args(["verify", "--man=no"]).arg(&unit).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // It also says what it thinks of the units of this machine.
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("cloudbridge")).collect();
        assert!(ours.is_empty(), "{ours:?}");
    }
}

#[test]
fn units_are_not_exposed() {
    if !can_analyze(&["security"]) {
        return;
    }
    for unit in SERVICES {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--no-pager", "--offline=true"]);
        let text = run(command
            .arg(format!("--threshold={MOST_EXPOSED}"))
            .arg(root().join("conf").join(unit)));
        assert!(text.contains("Overall exposure level"), "{text}");
    }
}

/// A reload checks the settings first, and `KillMode=` leaves no old program of an upgrade behind.
#[test]
fn reloads_check_and_a_stop_ends_all() {
    for unit in SERVICES {
        let text = source(&format!("conf/{unit}"));
        let values = |name: &str| {
            let start = format!("{name}=");
            let lines = text.lines().filter_map(|line| line.strip_prefix(start.as_str()));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let reload = values("ExecReload");
        assert_eq!(reload.len(), 2, "{unit}");
        assert_eq!(reload[0], format!("{} -t", values("ExecStart")[0]), "{unit}");
        assert_eq!(reload[1], "/bin/kill -HUP $MAINPID", "{unit}");
        assert_eq!(values("KillMode"), ["control-group"], "{unit}");
        assert_eq!(values("NotifyAccess"), ["all"], "{unit}");
        assert!(
            values("ExecStop")[0].contains("tail --pid="),
            "{unit}: systemd waits for no main process"
        );
    }
}

#[test]
fn logrotate_reads_its_file() {
    if !has("logrotate") {
        return;
    }
    let dir = Dir::new();
    // Here there is no user of this name.
    let text =
        source("packaging/logrotate.conf").replace("su cloudbridge cloudbridge", "su root root");
    let file = dir.write(
        "logrotate",
        &text.replace("/var/log/cloudbridge", &dir.path().display().to_string()),
    );
    dir.write("access.log", "a line\n");
    let state = dir.path().join("state");
    let said = run(Command::new("logrotate").arg("--debug").arg("--state").arg(state).arg(&file));
    assert!(!said.contains("error"), "{said}");
    assert!(said.contains("considering log") && said.contains("access.log"), "{said}");
}
