//! What `haproxy.cfg` adds to the common conduct.

use super::front::{Front, Kind};
use crate::common::{Client, eventually, on_time};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How often haproxy has tried its server again.
fn retries(front: &Front) -> u64 {
    let Ok(mut socket) = UnixStream::connect(front.socket()) else { return 0 };
    socket.write_all(b"show stat\n").expect("haproxy's socket");
    let mut table = String::new();
    socket.read_to_string(&mut table).expect("haproxy's socket");
    let mut lines = table.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let column = names.iter().position(|name| *name == "wretr").expect("a column of retries");
    let row = lines.find(|line| line.starts_with("cloudbridge,cloudbridge,")).expect("a server");
    row.split(',').nth(column).expect("the column").parse().expect("a number")
}

/// What the kernel refuses haproxy has nobody seen: it is tried again until a cloudbridge is there.
#[test]
fn a_restart_of_the_proxy_is_waited_for() {
    // haproxy takes the server out when three checks have failed, after four seconds at least.
    on_time(Duration::from_secs(1), || {
        let Some(mut front) = Front::start(Kind::Haproxy) else { return };
        front.await_up();
        front.kill_proxy();
        let mut client =
            front.request("POST /once HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
        eventually("haproxy has tried in vain", || retries(&front) > 0);
        front.start_proxy_again();
        let mut bridge = front.park();
        assert_eq!(bridge.accept_request().text(), "hi");
        bridge.respond_to(&mut client, "done");
    });
}

/// It takes as long as `timeout http-request`, ten seconds.
#[test]
fn an_upload_that_stops_is_answered_by_haproxy() {
    let Some(front) = Front::start(Kind::Haproxy) else { return };
    let mut bridge = front.park();
    let mut client =
        front.request("POST /slow HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nx");
    assert_eq!(client.read_response().status(), 408);
    front.assert_untouched(&mut bridge);
}

#[test]
fn the_health_check_follows_the_proxy() {
    let Some(mut front) = Front::start(Kind::Haproxy) else { return };
    front.await_up();
    front.kill_proxy();
    eventually("it is down", || !front.is_up());
    // haproxy answers by itself then.
    let mut client = Client::connect_to(front.http);
    client.send_get("a.test", "/");
    assert_eq!(client.read_response().status(), 503);
    front.start_proxy_again();
    eventually("it is up again", || front.is_up());
    front.assert_untouched(&mut front.park());
}
