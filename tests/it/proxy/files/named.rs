//! Files that a backend names: X-Sendfile and X-Accel-Redirect.

use super::tree::{MODIFIED, Tree, tag};
use crate::common::{Bridge, Client, Proxy, pattern, pattern_differs};

/// A proxy whose site `a.test` sends the files that its backends name.
fn proxy(tree: &Tree) -> Proxy {
    Proxy::with(&format!("site a.test sendfile-root={}", tree.path().display()))
}

#[test]
fn the_client_gets_the_file_and_the_other_fields() {
    let tree = Tree::new(&[("sub/a b.txt", "0123456789")]);
    let proxy = proxy(&tree);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::connect(&proxy);
    let root = tree.path().display();
    for named in [
        format!("X-Sendfile: {root}/sub/a b.txt"),
        "X-Sendfile: sub/a b.txt".to_owned(),
        "X-Accel-Redirect: /sub/a%20b.txt".to_owned(),
        "x-accel-redirect: /sub/a%20b.txt?x".to_owned(),
    ] {
        client.send_get("a.test", "/download");
        bridge.accept_request();
        bridge.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\n{named}\r\nSet-Cookie: a=b\r\n\
             ETag: \"backend\"\r\nContent-Disposition: attachment\r\nX-Accel-Buffering: no\r\n\
             Content-Length: 0\r\n\r\n"
        ));
        let response = client.read_response();
        let head = String::from_utf8_lossy(&response.head).into_owned();
        let head: String =
            head.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect();
        assert_eq!(
            head,
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\nContent-Length: 10\r\n\
                 Last-Modified: {MODIFIED}\r\nETag: {}\r\nAccept-Ranges: bytes\r\n\
                 Set-Cookie: a=b\r\nContent-Disposition: attachment\r\n\r\n",
                tag(10)
            )
        );
        assert_eq!(response.text(), "0123456789");
    }
}

#[test]
fn ranges_and_conditions_of_the_request_count() {
    let tree = Tree::new(&[("a", "0123456789")]);
    let proxy = proxy(&tree);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::connect(&proxy);
    let own = tag(10);
    for (request, status, body) in [
        ("GET /x HTTP/1.1\r\nHost: a.test\r\nRange: bytes=2-4\r\n\r\n".to_owned(), 206, "234"),
        (format!("GET /x HTTP/1.1\r\nHost: a.test\r\nIf-None-Match: {own}\r\n\r\n"), 304, ""),
        ("GET /x HTTP/1.1\r\nHost: a.test\r\nRange: bytes=10-\r\n\r\n".to_owned(), 416, ""),
        // They mean nothing in a POST.
        (
            "POST /x HTTP/1.1\r\nHost: a.test\r\nRange: bytes=2-4\r\nContent-Length: 2\r\n\r\nhi"
                .to_owned(),
            200,
            "0123456789",
        ),
    ] {
        client.send(&request);
        bridge.accept_request();
        bridge.send(
            "HTTP/1.1 200 OK\r\nX-Sendfile: a\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n",
        );
        let response = client.read_response();
        assert_eq!((response.status(), &*response.text()), (status, body), "{request}");
        assert_eq!(response.field("set-cookie"), Some("a=b"));
    }
    client.send("HEAD /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
    bridge.accept_head();
    bridge.send("HTTP/1.1 200 OK\r\nX-Sendfile: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.read_head().field("content-length"), Some("10"));
    crate::common::exchange(&mut client, &mut bridge);
}

#[test]
fn the_bridge_is_free_while_the_file_is_sent() {
    const SIZE: usize = 64 * 1024 * 1024;
    let tree = Tree::new(&[]);
    tree.write("large", pattern(0, SIZE));
    let proxy = proxy(&tree);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut slow = Client::get(&proxy, "a.test", "/download");
    bridge.accept_request();
    bridge.send("HTTP/1.1 200 OK\r\nX-Sendfile: large\r\nContent-Length: 0\r\n\r\n");
    let head = slow.read_head();
    assert_eq!(head.field("content-length"), Some(SIZE.to_string().as_str()));
    let mut other = Client::get(&proxy, "a.test", "/other");
    bridge.serve_to(&mut other, "other");
    let body = slow.read_exactly(SIZE);
    assert_eq!(pattern_differs(0, &body), None);
    crate::common::exchange(&mut slow, &mut bridge);
}

#[test]
fn a_body_that_comes_with_it_is_dropped() {
    let tree = Tree::new(&[("a", "file")]);
    let proxy = proxy(&tree);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::connect(&proxy);
    // In pieces, so that the body is not there at once.
    for pieces in [
        &["HTTP/1.1 200 OK\r\nX-Sendfile: a\r\nContent-Length: 6\r\n\r\nun", "used"][..],
        &["HTTP/1.1 200 OK\r\nX-Sendfile: a\r\nContent-Length: 6\r\n\r\n", "unused"],
        &[
            "HTTP/1.1 200 OK\r\nX-Send",
            "file: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nunu",
            "sed\r\n0\r\n",
            "\r\n",
        ],
    ] {
        client.send_get("a.test", "/download");
        bridge.accept_request();
        for piece in pieces {
            bridge.send(piece);
            proxy.await_asleep();
        }
        assert_eq!(client.read_response().text(), "file");
    }
    crate::common::exchange(&mut client, &mut bridge);
    // One that is long ends the bridge, not the client.
    client.send_get("a.test", "/download");
    bridge.accept_request();
    bridge.send("HTTP/1.1 200 OK\r\nX-Sendfile: a\r\nContent-Length: 100000\r\n\r\nunused");
    assert_eq!(client.read_response().text(), "file");
    bridge.read_to_end();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    crate::common::exchange(&mut client, &mut bridge);
}

#[test]
fn what_is_not_below_the_folder_is_not_found() {
    let tree = Tree::new(&[("root/a", "file"), ("outside", "secret")]);
    std::os::unix::fs::symlink("../outside", tree.path().join("root/link")).unwrap();
    let root = tree.path().join("root");
    let proxy = Proxy::with(&format!("site a.test sendfile-root={}", root.display()));
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::connect(&proxy);
    let outside = tree.path().join("outside");
    let above = format!("X-Sendfile: {}/../outside", root.display());
    for named in [
        "X-Sendfile: none",
        "X-Sendfile: /etc/passwd",
        "X-Sendfile: ../outside",
        "X-Sendfile: link",
        "X-Sendfile: .",
        "X-Accel-Redirect: /none",
        "X-Accel-Redirect: /../outside",
        "X-Accel-Redirect: /%2e%2e/outside",
        "X-Accel-Redirect: none",
        &above,
        &format!("X-Sendfile: {}", outside.display()),
    ] {
        client.send_get("a.test", "/download");
        bridge.accept_request();
        bridge.send(format!("HTTP/1.1 200 OK\r\n{named}\r\nContent-Length: 0\r\n\r\n"));
        let response = client.read_response();
        response.assert_own_reply(404);
        assert!(response.field("proxy-status").unwrap().contains("no-file"), "{response:?}");
    }
    crate::common::exchange(&mut client, &mut bridge);
}

#[test]
fn only_a_200_of_such_a_site_names_a_file() {
    let tree = Tree::new(&[("a", "file")]);
    let proxy = Proxy::with(&format!(
        "site a.test sendfile-root={}\nsite b.test docroot={}",
        tree.path().display(),
        tree.path().display()
    ));
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.accept_request();
    bridge.send("HTTP/1.1 403 Forbidden\r\nX-Sendfile: a\r\nContent-Length: 2\r\n\r\nno");
    let response = client.read_response();
    assert_eq!((response.status(), response.field("x-sendfile")), (403, Some("a")));
    let mut bridge = Bridge::park(&proxy, &["b.test"]);
    let mut client = Client::get(&proxy, "b.test", "/");
    bridge.accept_request();
    bridge.send("HTTP/1.1 200 OK\r\nX-Sendfile: a\r\nContent-Length: 2\r\n\r\nno");
    let response = client.read_response();
    assert_eq!((&*response.text(), response.field("x-sendfile")), ("no", Some("a")));
}
