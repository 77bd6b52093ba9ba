//! Files and what ends a connection: clients that are slow or gone, files that shrink, a shutdown.

use super::tree::Tree;
use crate::common::{Bridge, Client, Ending, eventually, on_time, pattern, pattern_differs};
use std::fs::{self, File};
use std::time::Duration;

/// More than the sockets on the way hold.
const LARGE: usize = 64 * 1024 * 1024;

fn large() -> Tree {
    let tree = Tree::new(&[("small", "small")]);
    tree.write("large", pattern(0, LARGE));
    tree
}

#[test]
fn a_file_that_becomes_shorter_while_it_is_sent_looks_cut_off() {
    let tree = large();
    let proxy = tree.serve("");
    let mut client = Client::get(&proxy, "a.test", "/large");
    let head = client.read_head();
    assert_eq!(head.field("content-length"), Some(LARGE.to_string().as_str()));
    proxy.await_asleep();
    File::options().write(true).open(tree.path().join("large")).unwrap().set_len(1000).unwrap();
    let (body, ending) = client.read_to_end();
    assert!(body.len() < LARGE, "{} bytes", body.len());
    assert_eq!(ending, Ending::Reset);
    // The file as it is now.
    client = Client::get(&proxy, "a.test", "/large");
    assert_eq!(client.read_response().body.len(), 1000);
}

#[test]
fn a_file_that_is_replaced_or_removed_while_it_is_sent_goes_on() {
    let tree = large();
    let proxy = tree.serve("");
    let mut client = Client::get(&proxy, "a.test", "/large");
    client.read_head();
    tree.replace("large", "other");
    fs::remove_file(tree.path().join("large")).unwrap();
    assert_eq!(pattern_differs(0, &client.read_exactly(LARGE)), None);
    client.send_get("a.test", "/small");
    assert_eq!(client.read_response().text(), "small");
}

#[test]
fn a_client_that_takes_nothing_is_closed_after_body_timeout() {
    let tree = large();
    let proxy = tree.setup("\nbody-timeout 1s\naccess-log {dir}/access format=json").start();
    let mut client = Client::get(&proxy, "a.test", "/large");
    client.read_head();
    let log = || fs::read_to_string(proxy.dir().join("access")).unwrap_or_default();
    eventually("its line", || log().ends_with('\n'));
    let line = log();
    assert!(line.contains("\"end\":\"client-timeout-data\""), "{line}");
    assert!(line.contains("\"status\":200"), "{line}");
    assert_eq!(client.read_to_end().1, Ending::Reset);
}

#[test]
fn a_client_that_takes_a_file_slowly_gets_it_whole() {
    on_time(Duration::from_millis(400), || {
        const SIZE: usize = 4 * 1024 * 1024;
        let tree = Tree::new(&[]);
        tree.write("file", pattern(0, SIZE));
        let proxy = tree.serve("\nbody-timeout 1s");
        let mut client = Client::get(&proxy, "a.test", "/file");
        client.read_head();
        let mut got = Vec::new();
        while got.len() < SIZE {
            got.extend(client.read_exactly((SIZE - got.len()).min(700_000)));
            crate::common::let_pass(Duration::from_millis(300));
        }
        assert_eq!(pattern_differs(0, &got), None);
    });
}

#[test]
fn a_client_that_goes_away_frees_its_place() {
    let tree = large();
    let proxy = tree.serve("\naccess-log {dir}/access format=json");
    let mut clients: Vec<Client> =
        (0..20).map(|_| Client::get(&proxy, "a.test", "/large")).collect();
    clients.iter_mut().for_each(|client| _ = client.read_head());
    proxy.await_count("C", 20);
    drop(clients);
    proxy.await_count("C", 0);
    let log = || fs::read_to_string(proxy.dir().join("access")).unwrap_or_default();
    eventually("their lines", || log().lines().count() == 20);
    assert_eq!(log().matches("\"end\":\"client-data\"").count(), 20, "{}", log());
}

#[test]
fn sigterm_finishes_a_file_and_then_closes() {
    let tree = large();
    let mut proxy = tree.serve("");
    let mut client = Client::get(&proxy, "a.test", "/large");
    client.read_head();
    let address = proxy.for_clients();
    proxy.terminate();
    eventually("connections are refused", || std::net::TcpStream::connect(address).is_err());
    assert_eq!(pattern_differs(0, &client.read_exactly(LARGE)), None);
    assert_eq!(client.expect_closed(), Ending::Closed);
    assert!(proxy.wait_exit().success());
}

#[test]
fn drain_timeout_cuts_a_file_off() {
    let tree = large();
    let mut proxy = tree.serve("\ndrain-timeout 1s");
    let mut client = Client::get(&proxy, "a.test", "/large");
    client.read_head();
    proxy.terminate();
    // Nothing is read meanwhile, and the kernel does not keep as much.
    proxy.wait_exit();
    let (body, ending) = client.read_to_end();
    assert!(body.len() < LARGE, "{} bytes", body.len());
    assert_eq!(ending, Ending::Reset);
}

#[test]
fn many_clients_at_once_get_files_and_backends() {
    let tree = Tree::new(&[("small", "small")]);
    tree.write("file", pattern(0, 500_000));
    let proxy = tree.serve("");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut bridge = Bridge::park(&proxy, &["a.test"]);
                scope.spawn(move || {
                    (1..20).for_each(|_| _ = bridge.serve("made"));
                    // It says that it closes. A request that it got then would be lost, and is repeated
                    // only once.
                    bridge.accept_request();
                    bridge.send(
                        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nmade",
                    );
                });
                let mut client = Client::connect(&proxy);
                for round in 0..20 {
                    client.send_get("a.test", "/file");
                    client.send_get("a.test", "/small");
                    client.send_get("a.test", &format!("/made/{round}"));
                    let body = client.read_response().body;
                    assert_eq!((body.len(), pattern_differs(0, &body)), (500_000, None));
                    assert_eq!(client.read_response().text(), "small");
                    assert_eq!(client.read_response().text(), "made");
                }
            });
        }
    });
}

#[test]
fn descriptors_of_files_are_given_back() {
    let tree = Tree::new(&[]);
    (0..1500).for_each(|number| _ = tree.write(&format!("f{number}"), number.to_string()));
    let proxy = tree.setup("").descriptors(512).start();
    let mut client = Client::connect(&proxy);
    for number in 0..1500 {
        client.send_get("a.test", &format!("/f{number}"));
        let response = client.read_response();
        assert_eq!(response.text(), number.to_string());
    }
    let open = || fs::read_dir(format!("/proc/{}/fd", proxy.id())).unwrap().count();
    assert!(open() < 512, "{}", open());
}
