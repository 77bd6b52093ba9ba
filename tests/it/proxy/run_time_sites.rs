//! Sites are made, changed and removed at the admin listener while the proxy runs, and last.

use super::upgrade::Upgraded;
use crate::common::{
    After, App, Client, Json, Load, Message, Proxy, Run, Setup, SwiftclientBackend, eventually,
    free_address, logged, ok, signal, skipped,
};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Sends a request to the admin listener over TCP.
#[track_caller]
fn ask(proxy: &Proxy, method: &str, path: &str, fields: &str, body: &str) -> Message {
    let mut client = Client::connect_to(proxy.for_admin());
    let length = match method {
        "PUT" => format!("Content-Length: {}\r\n", body.len()),
        _ => String::new(),
    };
    client
        .send(format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}{fields}\r\n{body}"));
    client.read_response()
}

const TOKEN: &str = "Authorization: Bearer sesame\r\n";

/// A proxy with an admin listener over TCP, which has a token, and these settings more.
fn setup(settings: &str) -> Setup {
    Setup::new()
        .settings("listen 127.0.0.1:0\nlisten 127.0.0.1:0 admin\nadmin-token {dir}/token")
        .settings("unknown-host 404")
        .settings(settings)
        .file("token", "sesame\n")
}

/// The status and the text of a change.
#[track_caller]
fn put(proxy: &Proxy, name: &str, line: &str) -> (u16, String) {
    let answer = ask(proxy, "PUT", &format!("/sites/{name}"), TOKEN, line);
    (answer.status(), answer.text().trim_end().to_owned())
}

#[track_caller]
fn delete(proxy: &Proxy, name: &str) -> (u16, String) {
    let answer = ask(proxy, "DELETE", &format!("/sites/{name}"), TOKEN, "");
    (answer.status(), answer.text().trim_end().to_owned())
}

/// The lines of all sites, each with where it is from.
#[track_caller]
fn sites(proxy: &Proxy) -> Vec<(String, String)> {
    let answer = ask(proxy, "GET", "/sites", "", "");
    assert_eq!(answer.status(), 200, "{answer:?}");
    let answer = Json::parse(&answer.text());
    let Json::List(sites) = answer.at(&["sites"]) else { panic!("{answer:?}") };
    let text = |site: &Json, member: &str| match site.at(&[member]) {
        Json::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    sites.iter().map(|site| (text(site, "line"), text(site, "from"))).collect()
}

/// What a request for this host gets.
#[track_caller]
fn get(proxy: &Proxy, host: &str) -> (u16, String) {
    let mut client = Client::get(proxy, host, "/");
    let answer = client.read_response();
    (answer.status(), answer.text())
}

#[test]
fn a_site_is_made_changed_and_removed() {
    let (one, two) = (App::named("one", After::Keep), App::named("two", After::Keep));
    let proxy = setup("site old.test servers=127.0.0.1:1").start();
    assert_eq!(get(&proxy, "new.test").0, 404);
    let line = format!(",www.new.test servers={} max=4\n", one.to());
    assert_eq!(put(&proxy, "New.test", &line), (201, "site new.test is made".to_owned()));
    // It is in force on every worker as soon as the answer is there.
    for _ in 0..8 {
        assert_eq!(get(&proxy, "new.test"), (200, "one".to_owned()));
    }
    assert_eq!(get(&proxy, "www.new.test"), (200, "one".to_owned()));
    let line = format!("servers={} key=\"a key\" max=4", two.to());
    assert_eq!(put(&proxy, "new.test", &line), (200, "site new.test is changed".to_owned()));
    assert_eq!(get(&proxy, "new.test"), (200, "two".to_owned()));
    assert_eq!(get(&proxy, "www.new.test").0, 404);
    assert_eq!(put(&proxy, "new.test", &line), (200, "site new.test is as it was".to_owned()));
    let shown = format!("new.test key=... servers={} max=4", two.to());
    assert_eq!(
        sites(&proxy),
        [
            ("old.test servers=127.0.0.1:1".to_owned(), "settings".to_owned()),
            (shown, "run-time".to_owned()),
        ]
    );
    assert_eq!(delete(&proxy, "new.test"), (200, "site new.test is removed".to_owned()));
    assert_eq!(get(&proxy, "new.test").0, 404);
    assert_eq!(delete(&proxy, "new.test"), (404, "there is no site new.test".to_owned()));
    assert!(!proxy.log().contains("a key"), "{}", proxy.log());
}

#[test]
fn who_may_not_act_changes_no_site() {
    let proxy = setup("").start();
    for (fields, status) in [
        ("", 401),
        ("Authorization: Bearer sesam\r\n", 401),
        ("Authorization: Bearer sesame\r\nOrigin: http://evil.test\r\n", 403),
    ] {
        let answer = ask(&proxy, "PUT", "/sites/a.test", fields, "timeout=1s");
        assert_eq!(answer.status(), status, "{fields}");
        assert_eq!(ask(&proxy, "DELETE", "/sites/a.test", fields, "").status(), status, "{fields}");
    }
    let without = Setup::new().settings("listen 127.0.0.1:0\nlisten 127.0.0.1:0 admin").start();
    assert_eq!(put(&without, "a.test", "").0, 403);
    assert_eq!((sites(&proxy), sites(&without)), (vec![], vec![]));
}

#[test]
fn a_site_that_is_wrong_or_not_for_run_time_changes_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_at = taken.local_addr().unwrap();
    let proxy = setup("site old.test,www.old.test timeout=1s").start();
    assert_eq!(put(&proxy, "kept.test", ",alias.test timeout=2s").0, 201);
    let before = sites(&proxy);
    for (name, line, status, what) in [
        ("a.test", "timeout=soon", 422, "timeout: \"soon\" is not a time"),
        ("a.test", "novelty=1", 422, "there is no option \"novelty\""),
        ("a.test", "timeout=1s\nsite b.test", 422, "a site is one line"),
        ("a.test", "key=...", 422, "... is how a key is shown"),
        ("a.test", "backup=nobody.test", 422, "no site has the name nobody.test"),
        ("a.test", ",old.test timeout=1s", 422, "old.test is already a name of the site old.test"),
        ("a.test", ",kept.test", 422, "kept.test is already a name of the site kept.test"),
        ("a.test", &format!("swiftiply={taken_at}"), 422, "cannot listen on"),
        ("a.test", "error-page=503:/etc/passwd", 403, "only the settings file may set it"),
        ("a.test", "servers=tls:h:1 ca=/etc/shadow", 403, "only the settings file may set it"),
        ("a.test", "servers=unix:{dir}/admin.sock", 403, "only the settings file may name"),
        ("a.test", "servers=redis://h/k", 403, "only the settings file may name"),
        ("old.test", "timeout=9s", 409, "old.test belongs to a site"),
        ("www.old.test", "timeout=9s", 409, "www.old.test belongs to a site"),
        ("alias.test", "timeout=9s", 409, "alias.test belongs to a site"),
        ("a%20b", "", 404, "this is no name of a site"),
    ] {
        let (got, text) = put(&proxy, name, line);
        assert!(got == status && text.contains(what), "{name} {line}: {got} {text}");
    }
    let answer = ask(&proxy, "PUT", "/sites/a.test", TOKEN, &"x".repeat(16_385));
    assert_eq!(answer.status(), 413);
    assert_eq!(delete(&proxy, "old.test").0, 409);
    assert_eq!(sites(&proxy), before);
}

#[test]
fn a_condition_keeps_one_operator_from_undoing_what_another_has_done() {
    let proxy = setup("").start();
    let send = |method: &str, condition: &str, line: &str| {
        ask(&proxy, method, "/sites/a.test", &format!("{TOKEN}{condition}\r\n"), line)
    };
    let made = send("PUT", "If-None-Match: *", "timeout=1s");
    assert_eq!(made.status(), 201);
    let tag = made.field("ETag").unwrap().to_owned();
    assert_eq!(send("PUT", "If-None-Match: *", "timeout=2s").status(), 412);
    let shown = ask(&proxy, "GET", "/sites/a.test", "", "");
    assert_eq!((shown.status(), shown.field("ETag")), (200, Some(&*tag)));
    proxy.reload_well();
    let changed = send("PUT", &format!("If-Match: {tag}"), "timeout=2s");
    assert_eq!(changed.status(), 200);
    assert_ne!(changed.field("ETag"), Some(&*tag));
    assert_eq!(send("PUT", &format!("If-Match: {tag}"), "timeout=3s").status(), 412);
    assert_eq!(send("DELETE", &format!("If-Match: {tag}"), "").status(), 412);
    assert_eq!(send("DELETE", "If-Match: *", "").status(), 200);
    assert_eq!(send("DELETE", "If-Match: *", "").status(), 412);
    assert_eq!(ask(&proxy, "GET", "/sites/a.test", "", "").status(), 404);
}

#[test]
fn changes_at_once_are_made_one_after_another() {
    let proxy = setup("updates-file {dir}/sites.conf").start();
    std::thread::scope(|scope| {
        for at in 0..8 {
            let proxy = &proxy;
            scope.spawn(move || {
                for round in 1..=3 {
                    let own = put(proxy, &format!("s{at}.test"), &format!("timeout={round}s"));
                    assert!(matches!(own.0, 200 | 201), "{own:?}");
                    let common = put(proxy, "common.test", &format!("timeout={at}{round}s"));
                    assert!(matches!(common.0, 200 | 201), "{common:?}");
                }
            });
        }
    });
    let mut lines: Vec<String> = sites(&proxy).into_iter().map(|(line, _)| line).collect();
    lines.sort();
    assert_eq!(lines.len(), 9, "{lines:?}");
    for at in 0..8 {
        assert_eq!(lines[at + 1], format!("s{at}.test timeout=3s"));
    }
    let kept = std::fs::read_to_string(proxy.dir().join("sites.conf")).unwrap();
    assert_eq!(kept.lines().filter(|line| line.starts_with("site ")).count(), 9, "{kept}");
}

#[test]
fn requests_notice_no_change_of_another_site() {
    let app = App::start(|_| ok("served"));
    let proxy = setup(&format!("site a.test servers={}", app.to())).start();
    Load::run(
        &proxy,
        "GET",
        4,
        |_, text| text == "served",
        |load| {
            for round in 1..=5 {
                assert!(matches!(put(&proxy, "b.test", &format!("timeout={round}s")).0, 200 | 201));
                load.await_more(20);
            }
            assert_eq!(delete(&proxy, "b.test").0, 200);
            load.await_more(20);
        },
    );
}

#[test]
fn swiftclient_backends_come_to_a_site_that_was_made() {
    let proxy = setup("").start();
    let at = free_address();
    assert_eq!(put(&proxy, "a.test", &format!("swiftiply={at} key=abc")).0, 201);
    let mut backend =
        SwiftclientBackend::park_at(&proxy, at, "a.test", "swiftclient7f0000011a2b03abc");
    let mut client = Client::get(&proxy, "a.test", "/");
    backend.serve_to(&mut client, "served");
    assert_eq!(delete(&proxy, "a.test").0, 200);
    backend.expect_closed();
    eventually("nobody listens there", || std::net::TcpStream::connect(at).is_err());
}

#[test]
fn without_a_file_sites_last_over_reloads_and_upgrades() {
    let app = App::named("served", After::Keep);
    let proxy = Upgraded::with(setup(""));
    assert_eq!(put(&proxy, "a.test", &format!("servers={} key=\"k k\"", app.to())).0, 201);
    proxy.reload_well();
    assert_eq!(get(&proxy, "a.test"), (200, "served".to_owned()));
    proxy.upgrade();
    assert_eq!(get(&proxy, "a.test"), (200, "served".to_owned()));
    let line = format!("a.test key=... servers={}", app.to());
    assert_eq!(sites(&proxy), [(line, "run-time".to_owned())]);
    assert_eq!(delete(&proxy, "a.test").0, 200);
    proxy.upgrade();
    assert_eq!(sites(&proxy), []);
}

/// Has the program that serves read its settings again.
#[track_caller]
fn reload(proxy: &Upgraded) {
    let read = || proxy.log().matches(logged::READ_AGAIN).count();
    let before = read();
    signal(proxy.process().unwrap(), "HUP");
    eventually("the reload", || read() > before);
}

#[test]
fn a_file_keeps_sites_for_the_next_process() {
    const KEPT: &str = "site a.test timeout=2s key=\"k \\\"k\"\nsite *.b.test\n";
    let proxy = Upgraded::with(setup("updates-file {dir}/sites.conf"));
    let path = proxy.dir().join("sites.conf");
    assert!(!path.exists());
    assert_eq!(put(&proxy, "a.test", r#"timeout=1s key="k \"k""#).0, 201);
    assert_eq!(put(&proxy, "%2A.b.test", "").0, 201);
    assert_eq!(put(&proxy, "c.test", "").0, 201);
    assert_eq!(put(&proxy, "a.test", r#"timeout=2s key="k \"k""#).0, 200);
    assert_eq!(delete(&proxy, "c.test").0, 200);
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(kept.ends_with(KEPT) && kept.starts_with("# "), "{kept}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // The new program reads it, and so does HUP.
    proxy.upgrade();
    assert_eq!(sites(&proxy).len(), 2);
    proxy.write("sites.conf", &format!("{KEPT}site d.test timeout=4s\n"));
    reload(&proxy);
    assert_eq!(sites(&proxy)[2].0, "d.test timeout=4s");
    proxy.write("sites.conf", "");
    reload(&proxy);
    assert_eq!(sites(&proxy), []);
    // And a process that is started anew.
    let conf = "listen 127.0.0.1:0\nworkers 2\nupdates-file {dir}/sites.conf\nsite a.test\n";
    let check = |kept: &str| {
        let run = Run::new(&["-t", "-c", "{dir}/c"], &[("c", conf), ("sites.conf", kept)]);
        (run.status.success(), run.err)
    };
    assert_eq!(check("site b.test timeout=2s\n"), (true, String::new()));
    let both = "cloudbridge: {dir}/sites.conf: site a.test: a.test is already a name of the site \
                a.test\n";
    assert_eq!(check(KEPT), (false, both.to_owned()));
    let (passed, said) = check("site b.test error-page=503:/x.html\nlisten :80\n");
    assert!(!passed && said.contains("{dir}/sites.conf:1: site: error-page names what"), "{said}");
    assert!(said.contains("{dir}/sites.conf:2: there is no directive \"listen\""), "{said}");
}

#[test]
fn a_reload_with_a_site_that_was_made_changes_nothing() {
    let proxy = setup("# more").start();
    assert_eq!(put(&proxy, "a.test", "timeout=7s").0, 201);
    proxy.change_settings("# more", "site a.test timeout=9s");
    proxy.reload();
    proxy.await_log("made at run time: site a.test: a.test is already a name of the site a.test");
    proxy.await_log(logged::NOTHING_CHANGED);
    assert_eq!(sites(&proxy), [("a.test timeout=7s".to_owned(), "run-time".to_owned())]);
    assert_eq!(delete(&proxy, "a.test").0, 200);
    proxy.reload_well();
    assert_eq!(sites(&proxy), [("a.test timeout=9s".to_owned(), "settings".to_owned())]);
}

#[test]
fn a_reload_that_names_a_file_keeps_there_what_was_made_before() {
    let proxy = setup("# more").start();
    assert_eq!(put(&proxy, "a.test", "timeout=7s").0, 201);
    proxy.change_settings("# more", "updates-file {dir}/none/sites.conf");
    proxy.reload();
    proxy.await_log("none/sites.conf: No such file or directory (os error 2); nothing has changed");
    let path = proxy.dir().join("sites.conf");
    proxy.change_settings("# more", &format!("updates-file {}", path.display()));
    proxy.reload_well();
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(kept.ends_with("\nsite a.test timeout=7s\n"), "{kept}");
}

#[test]
fn what_cannot_be_kept_is_not_done() {
    let proxy = setup("updates-file {dir}/none/sites.conf").start();
    let (status, text) = put(&proxy, "a.test", "timeout=7s");
    assert_eq!(status, 500);
    let what = "none/sites.conf: No such file or directory (os error 2); nothing has changed";
    assert!(text.starts_with("cannot write ") && text.ends_with(what), "{text}");
    assert_eq!(sites(&proxy), []);
    std::fs::create_dir(proxy.dir().join("none")).unwrap();
    assert_eq!(put(&proxy, "a.test", "timeout=7s").0, 201);
}

/// In a namespace of its own: a file system of 8 KiB, full but for a page, and the proxy.
const SMALL_DISK: &str = r#"
mkdir "$DISK" && mount -t tmpfs -o size=8k none "$DISK" && exec "$@"
"#;

#[test]
fn on_a_full_disk_nothing_changes() {
    let works = ["unshare", "-m", "true"];
    if !Command::new(works[0]).args(&works[1..]).output().is_ok_and(|o| o.status.success()) {
        return skipped("a file system of its own cannot be made here");
    }
    let disk = std::env::temp_dir().join(format!("cloudbridge-disk-{}", std::process::id()));
    let file = disk.join("sites.conf");
    let proxy = setup(&format!("updates-file {}", file.display()))
        .variable("DISK", disk.to_str().unwrap())
        .under(&["unshare", "-m", "sh", "-c", SMALL_DISK, "sh"])
        .start();
    assert_eq!(put(&proxy, "a.test", "timeout=1s").0, 201);
    // The old file and the new one do not fit together.
    let many: Vec<String> = (0..500).map(|at| format!("w{at}.a.test")).collect();
    let line = format!(",{} timeout=2s", many.join(","));
    let (status, text) = put(&proxy, "b.test", &line);
    assert_eq!(status, 500, "{text}");
    assert!(text.ends_with("No space left on device (os error 28); nothing has changed"), "{text}");
    assert_eq!(sites(&proxy), [("a.test timeout=1s".to_owned(), "run-time".to_owned())]);
    let inside = Path::new("/proc").join(proxy.id().to_string()).join("root");
    let inside = inside.join(file.strip_prefix("/").unwrap());
    let kept = std::fs::read_to_string(&inside).unwrap();
    assert!(kept.ends_with("\nsite a.test timeout=1s\n"), "{kept}");
    assert_eq!(put(&proxy, "a.test", "timeout=3s").0, 200);
    drop(proxy);
    let _ = std::fs::remove_dir(disk);
}

#[test]
fn ten_thousand_sites_are_a_bound() {
    let lines: String = (0..10_000).map(|at| format!("site s{at}.test timeout=1s\n")).collect();
    let proxy = setup("updates-file {dir}/sites.conf").file("sites.conf", &lines).start();
    let (status, text) = put(&proxy, "more.test", "");
    assert_eq!((status, text.as_str()), (422, "there are 10000 sites from run time already"));
    assert_eq!(put(&proxy, "s77.test", "timeout=2s").0, 200);
    assert_eq!(delete(&proxy, "s78.test").0, 200);
    assert_eq!(put(&proxy, "more.test", "").0, 201);
}

#[test]
fn the_command_line_does_the_same() {
    let proxy = setup("site old.test timeout=1s").start();
    let ctl = |words: &[&str], input: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge"));
        command.arg("ctl").arg("-c").arg(proxy.dir().join("cloudbridge.conf")).args(words);
        proxy.write("input", input);
        command.stdin(std::fs::File::open(proxy.dir().join("input")).unwrap());
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    };
    let done = |text: &str| (0, text.to_owned());
    let set =
        ["site", "set", "A.test,www.a.test", "swiftiply=127.0.0.1:0", "match=a b", "timeout=9s"];
    assert_eq!(ctl(&set, ""), done("site a.test is made\n"));
    assert_eq!(
        ctl(&["site", "set", "b.test", "-"], "key=secret timeout=8s\n"),
        done("site b.test is made\n")
    );
    let list = "site old.test timeout=1s\n\
                site a.test,www.a.test swiftiply=127.0.0.1:0 match=\"a b\" timeout=9s # made at run time\n\
                site b.test key=... timeout=8s # made at run time\n";
    assert_eq!(ctl(&["site", "list"], ""), done(list));
    assert_eq!(
        ctl(&["site", "show", "www.a.test"], "").1,
        format!("{}\n", list.lines().nth(1).unwrap())
    );
    assert_eq!(ctl(&["site", "delete", "b.test"], ""), done("site b.test is removed\n"));
    let refused = ctl(&["site", "delete", "old.test"], "");
    assert!(refused.0 == 1 && refused.1.contains("old.test belongs to a site"), "{refused:?}");
    let refused = ctl(&["site", "set", "c.test", "timeout=soon"], "");
    assert!(refused.0 == 1 && refused.1.contains("\"soon\" is not a time"), "{refused:?}");
}
