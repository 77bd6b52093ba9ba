//! What is said of a file, and which requests get none.

use super::tree::{MODIFIED, Tree, tag};
use crate::common::{Bridge, Client, Message, Proxy, eventually, pattern, pattern_differs};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

#[track_caller]
fn ask(proxy: &Proxy, path: &str, fields: &str) -> Message {
    Client::ask(proxy, format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"))
}

/// The fields but for the date, which must be there.
#[track_caller]
fn undated(message: &Message) -> String {
    assert!(message.has("date"), "{message:?}");
    let head = String::from_utf8_lossy(&message.head).into_owned();
    head.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
}

#[test]
fn a_file_is_served_without_a_backend() {
    let tree = Tree::new(&[("a.txt", "hello"), ("index.html", "<p>"), ("sub/index.html", "sub")]);
    let proxy = tree.serve("");
    let response = ask(&proxy, "/a.txt?x=y", "");
    assert_eq!(response.text(), "hello");
    assert_eq!(
        undated(&response),
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n\
             Last-Modified: {MODIFIED}\r\nETag: {}\r\nAccept-Ranges: bytes\r\n\r\n",
            tag(5)
        )
    );
    assert_eq!(ask(&proxy, "/", "").text(), "<p>");
    assert_eq!(ask(&proxy, "/sub/", "").text(), "sub");
    assert_eq!(ask(&proxy, "/%61.txt", "").text(), "hello");
    // Counted when it has been sent, which a worker may do just after the client has it.
    eventually("all are counted", || proxy.info().number(&["counters", "files"]) == 4);
}

#[test]
fn what_is_no_file_goes_to_the_backend() {
    let tree = Tree::new(&[
        ("a.txt", "hello"),
        ("sub/index.html", "sub"),
        ("empty/x.txt", ""),
        (".secret", "secret"),
        (".git/config", "secret"),
        ("sub/.htaccess", "secret"),
        ("private/a.txt", "secret"),
        ("link-target", "linked"),
    ]);
    symlink("link-target", tree.path().join("link")).unwrap();
    let proxy = tree.serve("hidden=^/private/|~$ servers=127.0.0.1:9");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::connect(&proxy);
    for path in [
        "/none",
        "/",
        "/sub",
        "/empty/",
        "/.secret",
        "/.git/config",
        "/sub/.htaccess",
        "/private/a.txt",
        "/link",
        "/a.txt/",
        "/a.txt/x",
        "//a.txt",
        "/./a.txt",
        "/sub/../a.txt",
        "/a.txt%00",
        "/a.txt~",
        "/%2e%2e/a.txt",
        "/sub%2findex.html",
        "/a%5ctxt",
        "/%zz",
    ] {
        client.send_get("a.test", path);
        assert_eq!(bridge.serve_to(&mut client, "backend"), format!("GET {path} HTTP/1.1"));
    }
    for request in [
        "POST /a.txt HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi",
        "GET /a.txt HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi",
        "DELETE /a.txt HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "OPTIONS /a.txt HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ] {
        client.send(request);
        bridge.serve_to(&mut client, "backend");
    }
    // The same site, still.
    client.send_get("a.test", "/a.txt");
    assert_eq!(client.read_response().text(), "hello");
}

#[test]
fn links_below_the_folder_are_a_setting() {
    let tree = Tree::new(&[("target", "linked"), ("sub/a", "in sub")]);
    let outside = Tree::new(&[("secret", "secret")]);
    symlink("target", tree.path().join("link")).unwrap();
    symlink("sub", tree.path().join("folder")).unwrap();
    symlink(outside.path().join("secret"), tree.path().join("out")).unwrap();
    symlink(outside.path(), tree.path().join("out-folder")).unwrap();
    let proxy = tree.serve("symlinks=yes");
    assert_eq!(ask(&proxy, "/link", "").text(), "linked");
    assert_eq!(ask(&proxy, "/folder/a", "").text(), "in sub");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    for path in ["/out", "/out-folder/secret"] {
        let mut client = Client::get(&proxy, "a.test", path);
        bridge.serve_to(&mut client, "backend");
    }
}

#[test]
fn conditions_and_ranges_are_those_of_rfc_9110() {
    let tree = Tree::new(&[("a.txt", "0123456789")]);
    let proxy = tree.serve("");
    let own = tag(10);
    for (fields, status, body) in [
        (format!("If-None-Match: {own}\r\n"), 304, ""),
        (format!("If-None-Match: W/{own}\r\n"), 304, ""),
        ("If-None-Match: \"other\"\r\n".to_owned(), 200, "0123456789"),
        (format!("If-Modified-Since: {MODIFIED}\r\n"), 304, ""),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n".to_owned(), 200, "0123456789"),
        ("If-Match: \"other\"\r\n".to_owned(), 412, ""),
        (format!("If-Match: {own}\r\n"), 200, "0123456789"),
        ("Range: bytes=2-4\r\n".to_owned(), 206, "234"),
        ("Range: bytes=-3\r\n".to_owned(), 206, "789"),
        ("Range: bytes=20-\r\n".to_owned(), 416, ""),
        (format!("Range: bytes=2-4\r\nIf-Range: {own}\r\n"), 206, "234"),
        ("Range: bytes=2-4\r\nIf-Range: \"other\"\r\n".to_owned(), 200, "0123456789"),
        (format!("Range: bytes=2-4\r\nIf-Range: {MODIFIED}\r\n"), 206, "234"),
        (format!("Range: bytes=2-4\r\nIf-None-Match: {own}\r\n"), 304, ""),
    ] {
        let response = ask(&proxy, "/a.txt", &fields);
        assert_eq!(
            (response.status(), &*response.text()),
            (status, body),
            "{fields}: {response:?}"
        );
    }
    let head = ask(&proxy, "/a.txt", "Range: bytes=20-\r\n");
    assert_eq!(head.field("content-range"), Some("bytes */10"));
}

#[test]
fn several_ranges_come_in_one_response() {
    let tree = Tree::new(&[]);
    tree.write("large", pattern(0, 1_000_000));
    let proxy = tree.serve("");
    let mut client = Client::connect(&proxy);
    for _ in 0..2 {
        let ranges = "Range: bytes=0-299999,999990-,500000-500009\r\n";
        client.send(format!("GET /large HTTP/1.1\r\nHost: a.test\r\n{ranges}\r\n"));
        let response = client.read_response();
        let kind = response.field("content-type").unwrap_or_default();
        let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let mut rest = &response.body[..];
        for (from, to) in [(0, 299_999), (999_990, 999_999), (500_000, 500_009)] {
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\
                 Content-Range: bytes {from}-{to}/1000000\r\n\r\n"
            );
            rest = rest.strip_prefix(head.as_bytes()).unwrap();
            let (part, more) = rest.split_at(to - from + 1);
            assert_eq!(pattern_differs(from as u64, part), None);
            rest = more;
        }
        assert_eq!(rest, format!("\r\n--{boundary}--\r\n").as_bytes());
    }
}

#[test]
fn head_pipelines_and_old_clients_are_answered_in_order() {
    let tree = Tree::new(&[("a", "first"), ("b", "second")]);
    tree.write("large", pattern(0, 300_000));
    let proxy = tree.serve("");
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let mut client = Client::connect(&proxy);
    client.send(format!(
        "HEAD /a HTTP/1.1\r\nHost: a.test\r\n\r\n{}{}{}",
        get("/large"),
        get("/b"),
        get("/none")
    ));
    let head = client.read_head();
    assert_eq!((head.status(), head.field("content-length")), (200, Some("5")));
    let large = client.read_response();
    assert_eq!((large.body.len(), pattern_differs(0, &large.body)), (300_000, None));
    assert_eq!(client.read_response().text(), "second");
    Bridge::park(&proxy, &["a.test"]).serve_to(&mut client, "backend");
    // Without keep-alive it is closed; with it, it is said.
    let mut client = Client::request(&proxy, "GET /a HTTP/1.0\r\nHost: a.test\r\n\r\n");
    let response = client.read_response();
    assert_eq!((&*response.text(), response.field("connection")), ("first", Some("close")));
    client.expect_closed();
    let mut client = Client::request(
        &proxy,
        "GET /large HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n",
    );
    let response = client.read_response();
    assert_eq!((response.body.len(), response.field("connection")), (300_000, Some("keep-alive")));
    client.send("GET /a HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    assert_eq!(client.read_response().text(), "first");
    client.expect_closed();
}

#[test]
fn a_client_that_has_sent_its_fin_gets_the_file() {
    let tree = Tree::new(&[]);
    tree.write("large", pattern(0, 8_000_000));
    let proxy = tree.serve("");
    let mut client = Client::get(&proxy, "a.test", "/large");
    client.half_close();
    let response = client.read_response();
    assert_eq!((response.body.len(), pattern_differs(0, &response.body)), (8_000_000, None));
    client.expect_closed();
}

#[test]
fn compressed_forms_are_chosen_by_accept_encoding() {
    let tree = Tree::new(&[
        ("a.css", "0123456789"),
        ("a.css.br", "brotli"),
        ("a.css.gz", "gzip!"),
        ("b.css", "plain"),
    ]);
    let proxy = tree.serve("");
    for (accept, coding, body, etag) in [
        ("", None, "0123456789", tag(10)),
        (
            "Accept-Encoding: gzip, deflate, br, zstd\r\n",
            Some("br"),
            "brotli",
            "\"2ebc98a1.1-6-br\"".into(),
        ),
        ("Accept-Encoding: gzip\r\n", Some("gzip"), "gzip!", "\"2ebc98a1.1-5-gzip\"".into()),
        (
            "Accept-Encoding: br;q=0, *;q=0.1\r\n",
            Some("gzip"),
            "gzip!",
            "\"2ebc98a1.1-5-gzip\"".into(),
        ),
        ("Accept-Encoding: zstd\r\n", None, "0123456789", tag(10)),
    ] {
        let response = ask(&proxy, "/a.css", accept);
        assert_eq!(response.text(), body, "{accept}");
        assert_eq!(response.field("content-encoding"), coding, "{accept}");
        assert_eq!(response.field("vary"), Some("Accept-Encoding"), "{accept}");
        assert_eq!(response.field("etag"), Some(&*etag), "{accept}");
        assert_eq!(response.field("content-type"), Some("text/css; charset=utf-8"));
    }
    let part = ask(&proxy, "/a.css", "Accept-Encoding: br\r\nRange: bytes=1-2\r\n");
    assert_eq!((part.status(), &*part.text()), (206, "ro"));
    assert!(!ask(&proxy, "/b.css", "Accept-Encoding: br\r\n").has("vary"));
}

#[test]
fn cache_control_goes_by_the_end_of_the_name() {
    let tree = Tree::new(&[("a.css", "a"), ("b.js", "b"), ("index.html", "c"), ("d.txt", "d")]);
    let proxy =
        tree.serve("cache-control=.css,.js:max-age=60 \"cache-control=.html:no-cache, private\"");
    let value = |path| ask(&proxy, path, "").field("cache-control").map(str::to_owned);
    assert_eq!(value("/a.css").as_deref(), Some("max-age=60"));
    assert_eq!(value("/b.js").as_deref(), Some("max-age=60"));
    assert_eq!(value("/").as_deref(), Some("no-cache, private"));
    assert_eq!(value("/d.txt"), None);
    let fields = format!("If-None-Match: {}\r\n", tag(1));
    assert_eq!(ask(&proxy, "/a.css", &fields).field("cache-control"), Some("max-age=60"));
}

#[test]
fn a_file_that_changes_is_served_as_it_is() {
    let tree = Tree::new(&[("a", "old")]);
    let proxy = tree.serve("timeout=100ms");
    assert_eq!(ask(&proxy, "/a", "").text(), "old");
    // In place it shows at once, since its size and time are looked at.
    tree.write("a", "longer");
    assert_eq!(ask(&proxy, "/a", "").text(), "longer");
    tree.replace("a", "replaced");
    eventually("the new file is served", || ask(&proxy, "/a", "").text() == "replaced");
    fs::remove_file(tree.path().join("a")).unwrap();
    // Without a backend it is answered with 503 then.
    eventually("the file is gone", || {
        let answer = ask(&proxy, "/a", "");
        assert!(matches!(answer.status(), 200 | 503), "{answer:?}");
        answer.status() == 503
    });
    tree.write("b", "");
    assert_eq!(ask(&proxy, "/b", "").text(), "");
}

#[test]
fn a_file_of_just_now_has_a_weak_tag() {
    let tree = Tree::new(&[]);
    fs::write(tree.path().join("new"), "new").unwrap();
    let proxy = tree.serve("");
    let response = ask(&proxy, "/new", "");
    let etag = response.field("etag").unwrap();
    // The machine may have taken longer than the file is new.
    if etag.starts_with("W/") {
        let again = ask(&proxy, "/new", &format!("If-None-Match: {etag}\r\n"));
        assert_eq!(again.status(), 304);
    }
    let strong = ask(&proxy, "/new", &format!("If-Match: W/{}\r\n", etag.trim_start_matches("W/")));
    assert_eq!(strong.status(), 412);
}

#[test]
fn a_reload_puts_other_files_in_force() {
    let (one, two) = (Tree::new(&[("a", "one")]), Tree::new(&[("a", "two")]));
    let proxy = one.serve("");
    assert_eq!(ask(&proxy, "/a", "").text(), "one");
    let mut open = Client::get(&proxy, "a.test", "/a");
    assert_eq!(open.read_response().text(), "one");
    let old = format!("docroot={}", one.path().display());
    proxy.change_settings(&old, &format!("docroot={}", two.path().display()));
    proxy.reload_well();
    open.send_get("a.test", "/a");
    assert_eq!(open.read_response().text(), "two");
    proxy.change_settings(&old, "docroot=/no/such/folder");
    proxy.reload();
    proxy.await_log("site a.test: docroot: cannot open /no/such/folder: No such file or directory");
    assert_eq!(ask(&proxy, "/a", "").text(), "two");
    proxy.change_settings(&old, "timeout=1s");
    proxy.reload_well();
    assert_eq!(ask(&proxy, "/a", "").status(), 503);
}

#[test]
fn a_folder_that_is_missing_is_a_mistake_of_the_settings() {
    let said = crate::common::Setup::new()
        .settings("site a.test docroot=/no/such/folder pages=/dev/null suffixes=html")
        .refused();
    for what in [
        "site a.test: docroot: cannot open /no/such/folder: No such file or directory (os error 2)",
        "site a.test: pages: cannot open /dev/null: Not a directory (os error 20)",
    ] {
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn what_may_not_be_read_goes_to_the_backend_and_is_logged_once() {
    let tree = Tree::new(&[("a", "secret"), ("b", "secret"), ("c", "public")]);
    let none = Permissions::from_mode(0o000);
    for name in ["a", "b"] {
        fs::set_permissions(tree.path().join(name), none.clone()).unwrap();
    }
    // Root may read everything, so the proxy becomes another.
    let is_root = fs::read(tree.path().join("a")).is_ok();
    let proxy = tree.serve(if is_root { "\nuser nobody" } else { "" });
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    for path in ["/a", "/b", "/a"] {
        let mut client = Client::get(&proxy, "a.test", path);
        bridge.serve_to(&mut client, "backend");
    }
    assert_eq!(ask(&proxy, "/c", "").text(), "public");
    proxy.await_log("may not be read");
    assert_eq!(proxy.log().matches("may not be read").count(), 1);
}

#[test]
fn a_path_that_is_a_link_leads_to_another_folder_within_a_second() {
    let releases = Tree::new(&[("1/a", "one"), ("2/a", "two")]);
    let current = releases.path().join("current");
    symlink("1", &current).unwrap();
    let settings = format!("site a.test docroot={}", current.display());
    let proxy = Proxy::with(&settings);
    assert_eq!(ask(&proxy, "/a", "").text(), "one");
    symlink("2", releases.path().join("next")).unwrap();
    fs::rename(releases.path().join("next"), &current).unwrap();
    eventually("the new folder is served", || ask(&proxy, "/a", "").text() == "two");
}

#[test]
fn sites_have_folders_of_their_own() {
    let (one, two) = (Tree::new(&[("a", "one")]), Tree::new(&[("a", "two")]));
    let proxy = Proxy::with(&format!(
        "site a.test,b.test docroot={}\nsite *.c.test docroot={} default\nsite d.test",
        one.path().display(),
        two.path().display()
    ));
    for (host, text) in
        [("a.test", "one"), ("B.TEST", "one"), ("x.c.test", "two"), ("unknown.test", "two")]
    {
        let response = Client::ask(&proxy, format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(response.text(), text, "{host}");
    }
    let mut client = Client::get(&proxy, "d.test", "/a");
    Bridge::park(&proxy, &["d.test"]).serve_to(&mut client, "backend");
}

#[test]
fn the_access_log_and_the_metrics_count_files() {
    let tree = Tree::new(&[("a", "hello")]);
    let proxy = tree
        .setup("\naccess-log {dir}/access.log format=json\nlisten 127.0.0.1:0\nlisten 127.0.0.1:0 admin")
        .start();
    ask(&proxy, "/a", "");
    ask(&proxy, "/a", &format!("If-None-Match: {}\r\n", tag(5)));
    let log = proxy.dir().join("access.log");
    let read = || fs::read_to_string(&log).unwrap_or_default();
    eventually("two lines", || read().lines().count() == 2);
    let log = read();
    let mut lines: Vec<&str> = log.lines().collect();
    // They may be of two workers.
    lines.sort_by_key(|line| line.contains("\"status\":304"));
    for part in ["\"status\":200", "\"body_out\":5", "\"site\":\"a.test\"", "\"backend\":null"] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    for part in ["\"status\":304", "\"body_out\":0", "\"end\":\"done\""] {
        assert!(lines[1].contains(part), "{part}: {}", lines[1]);
    }
    let mut admin = Client::connect_to(proxy.for_admin());
    admin.send("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    let metrics = admin.read_response().text();
    for line in ["\ncloudbridge_files_total 2\n", "\ncloudbridge_file_reads_total "] {
        assert!(metrics.contains(line), "{line}");
    }
}
