//! `waiting-page-after`: what a browser sees while its request waits.

use crate::common::{Bridge, Client, Proxy, Setup, Stopwatch};
use std::time::Duration;

const BROWSER: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";

fn get(accept: &str) -> String {
    format!("GET /path HTTP/1.1\r\nHost: a.test\r\n{accept}\r\n")
}

#[test]
fn a_browser_gets_a_page_that_comes_again_and_others_wait_on() {
    let proxy = Proxy::with("site a.test waiting-page-after=300ms");
    let mut program = Client::request(&proxy, get("Accept: */*\r\n"));
    let mut form = Client::request(
        &proxy,
        format!("POST /path HTTP/1.1\r\nHost: a.test\r\n{BROWSER}Content-Length: 0\r\n\r\n"),
    );
    proxy.await_count("c", 2);
    let clock = Stopwatch::start();
    let mut browser = Client::request(&proxy, get(BROWSER));
    let page = browser.read_response();
    clock.assert_passed(Duration::from_millis(300));
    assert_eq!(page.status(), 503);
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!((page.field("retry-after"), page.field("refresh")), (Some("2"), Some("2")));
    assert_eq!(page.field("cache-control"), Some("no-store"));
    let why = "cloudbridge; error=destination_unavailable; details=\"waiting-page\"";
    assert_eq!(page.field("proxy-status"), Some(why));
    assert!(page.text().contains("<h1>a.test is starting</h1>"), "{page:?}");
    browser.expect_closed();
    proxy.await_count("c", 2);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    // They may have come to two workers within the same moment.
    (0..2).for_each(|_| _ = bridge.serve("served"));
    for client in [&mut program, &mut form] {
        assert_eq!(client.read_response().text(), "served");
    }
}

#[test]
fn a_browser_that_is_served_in_time_sees_no_page() {
    let proxy = Proxy::with("site a.test waiting-page-after=1h");
    let mut browser = Client::request(&proxy, get(BROWSER));
    proxy.await_count("c", 1);
    Bridge::park(&proxy, &["a.test"]).serve_to(&mut browser, "served");
}

#[test]
fn the_page_may_be_the_operator_s() {
    let proxy = Setup::new()
        .settings("site a.test waiting-page-after=1ms waiting-page={dir}/page.html")
        .file("page.html", "<p>{host} wakes up: {reason} {detail} {status} {request_id}\n")
        .start();
    let ask = || {
        let request = get(&format!("{BROWSER}X-Request-Id: <7>\r\n"));
        Client::ask(&proxy, request).text()
    };
    let page = "<p>a.test wakes up: waiting-page a backend is being started 503 &lt;7&gt;\n";
    assert_eq!(ask(), page);
    proxy.write("page.html", "<p>changed\n");
    proxy.reload_well();
    assert_eq!(ask(), "<p>changed\n");
}

/// The end of the wait is the end, even for a browser.
#[test]
fn a_timeout_that_comes_first_is_no_page() {
    let proxy = Proxy::with("site a.test timeout=50ms waiting-page-after=1h");
    Client::ask(&proxy, get(BROWSER)).assert_own_reply(503);
}
