//! `cloudbridge demo`, which `make run` starts: its clients see no error while backends are stopped
//! and killed, and whatever ends it leaves nothing behind.

use crate::common::{Process, eventually, is_alive, run_well, signal};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The programs of a demo, without the demo: a proxy, two applications and two agents.
const PROCESSES: usize = 5;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge"));
    command.arg("demo").args(args).stdin(Stdio::null());
    // What the reader's shell has is not for the demo.
    command.env("BRIDGE_HOSTS", "other.test").env("NOTIFY_SOCKET", "/nowhere");
    command
}

/// A demo that counts.
#[track_caller]
fn start() -> (Process, Vec<u32>) {
    let demo = Process::spawn("the demo", &mut command(&["0"]));
    let mut children = Vec::new();
    eventually("all processes run", || {
        children = children_of(demo.id());
        children.len() >= PROCESSES
    });
    demo.await_log("Ctrl-C ends everything.");
    (demo, children)
}

fn children_of(process: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(text.split_whitespace().filter_map(|number| number.parse::<u32>().ok()));
    }
    children
}

#[track_caller]
fn assert_gone(children: &[u32]) {
    eventually("no process is left", || children.iter().all(|child| !is_alive(*child)));
}

/// The number behind a word of the last line that counts.
#[track_caller]
fn count(line: &str, word: &str) -> u64 {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|found| *found == word).unwrap_or_else(|| panic!("{line}"));
    words[at + 1].replace(',', "").parse().unwrap_or_else(|_| panic!("{line}"))
}

/// Eight seconds, and a minute with `CLOUDBRIDGE_LONG=1`.
#[test]
fn clients_see_no_error_while_backends_are_stopped_and_killed() {
    let long = std::env::var("CLOUDBRIDGE_LONG").is_ok_and(|value| value == "1");
    let seconds = if long { 60 } else { 8 };
    let mut demo =
        Process::spawn("the demo", &mut command(&["--seconds", &seconds.to_string(), "0"]));
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until && demo.exit_status().is_none() {
        std::thread::sleep(Duration::from_millis(100));
    }
    let status = demo.wait_exit();
    let log = demo.log();
    let line = log.lines().rfind(|line| line.starts_with("requests ")).expect("a count");
    assert_eq!(count(line, "errors"), 0, "{log}");
    assert!(status.success(), "{status}: {log}");
    // A busy machine is slow, but two more every eight seconds are fifteen in a minute.
    assert!(count(line, "restarts") >= seconds * 15 / 60, "{line}");
    assert!(count(line, "requests") > 10 * seconds, "{line}");
}

#[test]
fn each_signal_to_stop_ends_all_of_it() {
    for name in ["INT", "TERM", "HUP"] {
        let (mut demo, children) = start();
        demo.signal(name);
        let status = demo.wait_exit();
        assert!(status.success(), "{name}: {status}: {}", demo.log());
        assert!(demo.log().contains("errors 0"), "{}", demo.log());
        assert_gone(&children);
    }
}

#[test]
fn processes_that_hang_are_ended() {
    let (mut demo, children) = start();
    children.iter().for_each(|child| signal(*child, "STOP"));
    demo.signal("INT");
    demo.wait_exit();
    assert_gone(&children);
}

#[test]
fn a_demo_that_is_killed_leaves_nothing() {
    let (demo, children) = start();
    demo.signal("KILL");
    assert_gone(&children);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let output = command(&[&port.to_string()]).output().expect("the demo");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let expected = format!("cloudbridge demo: 127.0.0.1:{port} is taken: choose another port");
    assert!(said.starts_with(&expected) && said.contains("make run PORT="), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn the_command_line_is_explained() {
    let help = run_well(&mut command(&["-h"]));
    assert!(help.starts_with("Usage: cloudbridge demo [OPTIONS] [PORT]\n"), "{help}");
    let output = command(&["http"]).output().expect("the demo");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "cloudbridge demo: \"http\" is not a port; -h lists the options\n");
}
