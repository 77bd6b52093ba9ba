//! The command line and the settings file: what starts, what only prints, and how each failure says
//! in one sentence what is wrong.

use crate::common::{Bridge, Client, Proxy, Run, Setup, on_time, skipped};
use std::net::TcpListener;
use std::time::Duration;

/// Fails unless the run ended with an error and one line of complaint that holds all of these.
#[track_caller]
fn assert_one_sentence(run: &Run, parts: &[&str]) {
    assert!(!run.status.success(), "{run:?}");
    assert_eq!(run.err.trim_end().lines().count(), 1, "{run:?}");
    for part in parts {
        assert!(run.err.contains(part), "no {part:?} in {run:?}");
    }
    assert!(!run.err.contains("panicked"), "{run:?}");
}

#[test]
fn help_lists_the_flags_and_the_settings() {
    for flag in ["-h", "--help"] {
        let run = Run::new(&[flag], &[]);
        assert!(run.status.success(), "{run:?}");
        for part in
            ["-h", "-v", "-s", "-i", "-c", "-t", "-w", "wait-timeout", "bridge-ack-timeout", "8079"]
        {
            assert!(run.out.contains(part), "no {part:?} in {run:?}");
        }
        assert!(run.err.is_empty(), "{run:?}");
    }
}

#[test]
fn version_is_one_line() {
    for flag in ["-v", "--version"] {
        let run = Run::new(&[flag], &[]);
        assert!(run.status.success(), "{run:?}");
        let start = format!("cloudbridge {} (", env!("CARGO_PKG_VERSION"));
        assert!(run.out.starts_with(&start) && run.out.ends_with(")\n"), "{run:?}");
        assert_eq!(run.out.lines().count(), 1, "{run:?}");
    }
}

#[test]
fn the_shipped_settings_file_is_good() {
    let conf = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/cloudbridge.conf");
    let run = Run::new(&["-t", "-c", conf], &[]);
    assert!(run.status.success(), "{run:?}");
}

#[test]
fn checking_prints_every_problem_with_its_line_and_starts_nothing() {
    let conf = "# a comment\nlisten 127.0.0.1:0\n\nwait-timout 5s\nping-interval soon\nlisten nowhere at all\n";
    let run = Run::new(&["-t", "-c", "{dir}/c.conf"], &[("c.conf", conf)]);
    assert!(!run.status.success(), "{run:?}");
    for part in ["{dir}/c.conf:4: ", "{dir}/c.conf:5: ", "{dir}/c.conf:6: "] {
        let lines = run.err.lines().filter(|line| line.contains(part)).count();
        assert_eq!(lines, 1, "{part} in {run:?}");
    }
    // The typo is recognised.
    assert!(run.err.contains("wait-timeout"), "{run:?}");
}

/// All in one go: otherwise each costs another try.
#[test]
fn files_that_are_missing_are_told_with_everything_else() {
    let conf = "listen 127.0.0.1:0\nnonsense 3\nsecrets {dir}/secrets\n\
                error-page 404 {dir}/page.html\nuser no-such-user\naccess-log {dir}/log\n";
    let run = Run::new(&["-t", "-c", "{dir}/c.conf"], &[("c.conf", conf)]);
    assert_eq!(run.status.code(), Some(1), "{run:?}");
    let parts = ["c.conf:2: ", "no-such-user", "/secrets: ", "/page.html: "];
    for (line, part) in run.err.lines().zip(parts) {
        assert!(line.contains(part), "no {part:?} in {line:?}");
    }
    assert_eq!(run.err.lines().count(), parts.len(), "{run:?}");
}

#[test]
fn a_bad_line_keeps_it_from_starting() {
    let run = Run::new(&["-c", "{dir}/c.conf"], &[("c.conf", "nonsense yes\n")]);
    assert!(!run.status.success(), "{run:?}");
    assert!(run.err.contains("{dir}/c.conf:1: "), "{run:?}");
}

#[test]
fn a_missing_settings_file_is_one_sentence() {
    let run = Run::new(&["-c", "{dir}/none.conf"], &[]);
    assert_one_sentence(&run, &["{dir}/none.conf", "No such file"]);
}

#[test]
fn a_missing_secrets_file_is_one_sentence() {
    let run = Run::new(&["-s", "{dir}/none", "127.0.0.1:0"], &[]);
    assert_one_sentence(&run, &["{dir}/none", "No such file"]);
}

#[test]
fn a_bad_line_of_the_secrets_is_named_and_not_shown() {
    let run = Run::new(
        &["-s", "{dir}/secrets", "127.0.0.1:0"],
        &[("secrets", "1600000000:fine\nhunter2\n")],
    );
    assert_one_sentence(&run, &["{dir}/secrets:2: "]);
    assert!(!run.err.contains("hunter2"), "{run:?}");
}

#[test]
fn a_port_that_is_taken_is_one_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address").to_string();
    let run = Run::new(&[&address], &[]);
    assert_one_sentence(&run, &[&address, "in use"]);
}

#[test]
fn an_address_that_is_none_is_one_sentence() {
    assert_one_sentence(&Run::new(&["127.0.0.1:99999"], &[]), &["99999"]);
}

#[test]
fn an_unknown_flag_is_one_sentence() {
    let run = Run::new(&["--frobnicate"], &[]);
    assert_one_sentence(&run, &["frobnicate"]);
    assert_eq!(run.status.code(), Some(2), "{run:?}");
}

/// Its backends have half a second to acknowledge.
#[test]
fn the_originals_command_line_works_as_it_did() {
    on_time(Duration::from_millis(250), || {
        let proxy = Setup::new()
            .args(&["-s", "{dir}/secrets", "-i", "info.test", "127.0.0.1:0", "127.0.0.1:0"])
            .file("secrets", "1600000000:second\n")
            .start_without_file(2);
        let [first, second] = proxy.addresses()[..] else {
            panic!("not two listeners: {:?}", proxy.addresses());
        };
        proxy.info_host();
        let mut bridge = Bridge::connect_to(first);
        bridge.send(
            "BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\
             Host-Key: adb7c404c49597d34e253d48aba583c439491d84:1700000000:a.test\r\n\r\n",
        );
        bridge.expect_exact("HTTP/1.1 100 Continue\r\n\r\n");
        let mut client = Client::connect_to(second);
        client.send_get("a.test", "/");
        bridge.serve_to(&mut client, "met");
    });
}

#[test]
fn flags_win_over_the_file() {
    let proxy =
        Setup::new().settings("info-host file.test").args(&["-i", "info.test", "-w", "1"]).start();
    proxy.info_host();
}

#[test]
fn it_listens_on_ipv6_too() {
    if TcpListener::bind("[::1]:0").is_err() {
        return skipped("this machine has no IPv6");
    }
    let proxy = Proxy::with("listen [::1]:0\nlisten *:0");
    let [six, any] = proxy.addresses()[..] else {
        panic!("not two listeners: {:?}", proxy.addresses());
    };
    let mut bridge = Bridge::connect_to(six);
    bridge.send("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    bridge.expect_exact("HTTP/1.1 100 Continue\r\n\r\n");
    for address in
        [six, ([127, 0, 0, 1], any.port()).into(), ([0, 0, 0, 0, 0, 0, 0, 1], any.port()).into()]
    {
        let mut client = Client::connect_to(address);
        client.send_get("a.test", "/");
        let request = bridge.accept_request();
        let from = request.field("x-forwarded-for");
        assert_eq!(from, Some(if address.is_ipv4() { "127.0.0.1" } else { "::1" }));
        bridge.respond_to(&mut client, "met");
    }
}
