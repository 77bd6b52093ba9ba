//! The process as scripts and service managers see it: background, pidfile, user, limits,
//! readiness.

use crate::common::{
    Bridge, Client, Daemon, Proxy, Run, Setup, Systemd, Wire, eventually, free_address, is_gone,
    logged, skipped,
};
use std::fs::{Permissions, metadata, read_to_string, rename, set_permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// The user that every Linux has and that may do nothing: its name and its numbers.
const NOBODY: &str = "nobody";

/// Whether this is root, who may become somebody else; says so if not.
fn is_root() -> bool {
    let ours = metadata("/proc/self").expect("/proc").uid();
    if ours != 0 {
        skipped("only root can become another user");
    }
    ours == 0
}

/// The numbers on this line of /proc/PID/status.
fn ids(daemon: &Daemon, name: &str) -> Vec<u32> {
    let status = daemon.kernel("status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of status");
    line.split_whitespace().map(|number| number.parse().expect("a number")).collect()
}

/// The uid and gid of [`NOBODY`].
fn nobody() -> (u32, u32) {
    let users = read_to_string("/etc/passwd").expect("/etc/passwd");
    let line = users.lines().find(|line| line.starts_with("nobody:")).expect("nobody");
    let fields: Vec<&str> = line.split(':').collect();
    (fields[2].parse().expect("a uid"), fields[3].parse().expect("a gid"))
}

/// A request is served by the proxy at the daemon's first address.
#[track_caller]
fn assert_serves(daemon: &Daemon) {
    let mut bridge = Bridge::connect_to(daemon.address());
    bridge.send("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    bridge.expect_exact("HTTP/1.1 100 Continue\r\n\r\n");
    let mut client = Client::connect_to(daemon.address());
    client.send_get("a.test", "/");
    bridge.serve_to(&mut client, "served");
}

#[test]
fn daemon_serves_when_the_command_has_ended() {
    let daemon = Daemon::new("listen 127.0.0.1:0");
    daemon.start();
    // No waiting here: it serves already.
    let mut wire = Wire::connect(daemon.address());
    wire.send("GET / HTTP/1.1\r\nHost: info.test\r\n\r\n");
    assert_eq!(wire.read_head().status(), 200);
    drop(wire);
    assert_serves(&daemon);
    // proc(5): the session is field 6; it is nobody's leader, and has no terminal (field 7).
    let stat = daemon.kernel("stat");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let (session, terminal) = (fields[3], fields[4]);
    assert_ne!(session, daemon.number().expect("a number").to_string());
    assert_eq!(terminal, "0");
    daemon.stop();
    assert!(daemon.log().contains("all done"), "{}", daemon.log());
    assert!(!daemon.path("pid").exists());
}

/// The tests know which listeners speak TLS. A port that one had is anybody's later.
#[test]
fn a_daemon_serves_at_a_port_where_another_proxy_spoke_tls() {
    let settings = format!("listen {}", free_address());
    drop(Setup::new().settings(&settings).over_tls().start());
    let daemon = Daemon::new(&settings);
    daemon.start();
    assert_serves(&daemon);
}

#[test]
fn an_error_at_the_start_reaches_the_terminal_and_the_exit_code() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address");
    let daemon = Daemon::new(&format!("listen {address}"));
    let output = daemon.launch();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with(&format!("cloudbridge: cannot listen on {address}: ")), "{said}");
    assert!(daemon.log().contains(logged::CANNOT_LISTEN), "{}", daemon.log());
    assert!(!daemon.path("pid").exists());
}

#[test]
fn daemon_reports_bad_settings_before_it_forks() {
    let daemon = Daemon::new("nonsense yes");
    let output = daemon.launch();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("conf:7: "), "{output:?}");
}

#[test]
fn a_second_proxy_with_the_same_pidfile_does_not_start() {
    let daemon = Daemon::new("listen 127.0.0.1:0");
    daemon.start();
    let number = daemon.number().expect("a number");
    let output = daemon.launch();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("is held by process {number}: it is already running")),
        "{said}"
    );
    assert_eq!(daemon.number(), Some(number));
    assert_serves(&daemon);
}

#[test]
fn a_pidfile_that_a_crash_left_is_taken_over() {
    let daemon = Daemon::new("listen 127.0.0.1:0");
    daemon.start();
    let first = daemon.number().expect("a number");
    daemon.signal("KILL");
    eventually("it is gone", || is_gone(first));
    assert!(daemon.path("pid").exists());
    daemon.start();
    assert_ne!(daemon.number(), Some(first));
}

#[test]
fn in_the_foreground_the_pidfile_is_kept_too() {
    let mut proxy = Proxy::with("pidfile {dir}/pid");
    let pidfile = proxy.dir().join("pid");
    eventually("the pidfile has its number", || {
        read_to_string(&pidfile).is_ok_and(|text| text.ends_with('\n'))
    });
    proxy.terminate();
    assert!(proxy.wait_exit().success());
    assert!(!pidfile.exists());
}

#[test]
fn the_log_file_is_opened_anew_on_sighup() {
    let daemon = Daemon::new("listen 127.0.0.1:0");
    daemon.start();
    rename(daemon.path("log"), daemon.path("log.1")).expect("rename");
    daemon.signal("HUP");
    daemon.await_log(logged::READ_AGAIN);
    let old = read_to_string(daemon.path("log.1")).expect("the old log");
    assert!(old.contains("listening on") && !old.contains("read again"), "{old}");
}

#[test]
fn user_setting_gives_up_root_after_listening() {
    if !is_root() {
        return;
    }
    let daemon = Daemon::new(&format!(
        "listen 127.0.0.1:0\nuser {NOBODY}\nsecrets {{dir}}/secrets\naccess-log {{dir}}/access"
    ));
    let secrets = daemon.write("secrets", "1600000000:second\n");
    set_permissions(&secrets, Permissions::from_mode(0o600)).expect("chmod");
    daemon.start();
    let (uid, gid) = nobody();
    assert_eq!(ids(&daemon, "Uid:"), [uid; 4]);
    assert_eq!(ids(&daemon, "Gid:"), [gid; 4]);
    assert!(!ids(&daemon, "Groups:").contains(&0));
    for file in ["log", "access"] {
        assert_eq!(metadata(daemon.path(file)).expect(file).uid(), uid, "{file}");
    }
    // It knows the secrets that it read as root, and says that it will not read them again.
    let expected = format!("a reload will fail: user {NOBODY} cannot read {}", secrets.display());
    daemon.await_log(&expected);
    daemon.signal("HUP");
    daemon.await_log(logged::NOTHING_CHANGED);
    daemon.await_log(&format!("(files are opened as user {NOBODY} now)"));
    std::os::unix::fs::chown(&secrets, Some(uid), None).expect("chown");
    daemon.signal("HUP");
    daemon.await_log(logged::READ_AGAIN);
    daemon.stop();
    // The directory is not nobody's: the file stays, and says nothing wrong.
    assert_eq!(read_to_string(daemon.path("pid")).expect("the pidfile"), "");
}

/// The new program is started by that user, and can read neither the settings nor the secrets.
#[test]
fn an_upgrade_needs_no_root_for_what_root_has_read() {
    if !is_root() {
        return;
    }
    let daemon =
        Daemon::new(&format!("listen 127.0.0.1:0\nuser {NOBODY}\nsecrets {{dir}}/secrets"));
    let secrets = daemon.write("secrets", "1600000000:second\n");
    for file in [&secrets, &daemon.path("conf")] {
        set_permissions(file, Permissions::from_mode(0o600)).expect("chmod");
    }
    daemon.start();
    let (uid, _) = nobody();
    let mut old = daemon.number();
    for _ in 0..2 {
        daemon.signal("USR2");
        eventually("a new program serves, or says why not", || {
            let number = daemon.number();
            if daemon.log().contains("cannot start") {
                return true;
            }
            number.is_some() && number != old
        });
        if daemon.log().contains("Permission denied (os error 13)") {
            eprintln!("skipped: user {NOBODY} may not start the program where it was built");
            daemon.stop();
            return;
        }
        assert_eq!(ids(&daemon, "Uid:"), [uid; 4]);
        eventually("the old one has ended", || old.is_none_or(is_gone));
        old = daemon.number();
    }
    let kept = format!("{} may not be read by this user", secrets.display());
    eventually("both have said so", || daemon.log().matches(&kept).count() == 2);
    // A key of these secrets is still needed, and good.
    let mut bridge = Bridge::connect_to(daemon.address());
    bridge.send("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(bridge.read_refusal().status(), 401);
    // What a reload would read has not changed: it fails as before.
    daemon.signal("HUP");
    daemon.await_log(logged::NOTHING_CHANGED);
    daemon.stop();
}

#[test]
fn the_group_may_be_another_than_the_users_own() {
    if !is_root() {
        return;
    }
    let daemon = Daemon::new(&format!("listen 127.0.0.1:0\nuser {NOBODY}\ngroup daemon"));
    daemon.start();
    assert_ne!(ids(&daemon, "Gid:"), [nobody().1; 4]);
    daemon.await_log("running as user nobody, group daemon");
}

#[test]
fn check_finds_an_unknown_user() {
    let daemon = Daemon::new("user nobody-here");
    let output = daemon.launch_with(|command| command.arg("-t"));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "cloudbridge: user: there is no user \"nobody-here\" on this machine\n"
    );
}

#[test]
fn max_descriptors_sets_the_limit() {
    let daemon = Daemon::new("listen 127.0.0.1:0\ndescriptors 512");
    daemon.start();
    let limits = daemon.kernel("limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    assert_eq!(line.split_whitespace().nth(3), Some("512"), "{line}");
}

#[test]
fn systemd_is_told_when_it_serves_and_when_it_leaves() {
    let daemon = Daemon::new("listen 127.0.0.1:0");
    let systemd = Systemd::new();
    let socket = systemd.notify_socket();
    let output = daemon.launch_with(|command| command.env("NOTIFY_SOCKET", &socket));
    assert!(output.status.success(), "{output:?}");
    let number = daemon.number().expect("a number");
    assert_eq!(systemd.next().lines, ["STATUS=starting"]);
    assert_eq!(systemd.next_state().lines, ["READY=1", &format!("MAINPID={number}")]);
    daemon.stop();
    assert_eq!(systemd.next_state().lines, ["STOPPING=1"]);
}

#[test]
fn daemonize_without_a_log_file_is_refused() {
    let run = Run::new(&["-d", "127.0.0.1:0"], &[]);
    assert_eq!(run.status.code(), Some(1), "{run:?}");
    assert!(run.err.contains("set log-file too"), "{run:?}");
}

#[test]
fn dash_f_names_the_settings_file_as_the_original_did() {
    let run = Run::new(&["-t", "-f", "{dir}/c"], &[("c", "workers 1\n")]);
    assert!(run.status.success(), "{run:?}");
    let run = Run::new(&["-t", "-f", "{dir}/c"], &[("c", "workers none\n")]);
    assert!(run.err.contains("{dir}/c:1: "), "{run:?}");
}

/// Nobody but root goes beyond the hard limit, and a start that cannot have it says so.
#[test]
fn descriptor_limit_that_cannot_be_had_is_fatal() {
    let root = metadata("/proc/self").expect("/proc").uid() == 0;
    if root {
        return skipped("root may have any limit");
    }
    let run = Run::new(&["-c", "{dir}/c"], &[("c", "listen 127.0.0.1:0\ndescriptors 10000000\n")]);
    assert!(run.err.contains("cannot set the descriptor limit to 10000000"), "{run:?}");
}
