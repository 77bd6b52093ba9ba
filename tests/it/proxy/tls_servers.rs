//! Servers that the proxy dials, and speaks TLS with.

use crate::common::{After, App, Authority, Client, Proxy, Setup, eventually, for_tls};
use std::net::{SocketAddr, TcpListener};

/// A proxy with the site `a.test` and these servers and options, and files of an issuer and of a
/// certificate that it may show.
#[track_caller]
fn proxy(authority: &Authority, servers: &str, settings: &str) -> Proxy {
    let shown = authority.issue_for("proxy", &["proxy.test"]);
    Setup::new()
        .settings(&format!("site a.test servers={servers}\nsecrets-mode any\n{settings}"))
        .file("ca.pem", authority.pem())
        .file("own.pem", &shown.certificate)
        .file("own.key", &shown.key)
        .start()
}

#[track_caller]
fn ask(proxy: &Proxy) -> (u16, String) {
    let mut client = Client::get(proxy, "a.test", "/");
    let response = client.read_response();
    (response.status(), response.text())
}

fn server(app: &App) -> SocketAddr {
    app.address()
}

#[test]
fn a_server_is_verified_by_its_issuer_and_asked_for_its_name() {
    let authority = Authority::new("ca");
    let app = App::named("one", After::Keep);
    let certificate = authority.issue_for("server", &["server.test"]);
    let to = for_tls(server(&app), &certificate, None);
    let proxy =
        proxy(&authority, &format!("tls:{to} ca={{dir}}/ca.pem server-name=server.test"), "");
    for _ in 0..5 {
        assert_eq!(ask(&proxy), (200, "one".to_owned()));
        eventually("the connection is idle", || {
            proxy.info().number(&["sites", "a.test", "parked"]) == 1
        });
    }
    assert_eq!(app.accepted(), 1, "its connection is used again");
    // A body that comes in many records, both ways.
    let body = "x".repeat(300_000);
    let response = Client::ask(
        &proxy,
        format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 300000\r\n\r\n{body}"),
    );
    assert_eq!((response.status(), response.text().as_str()), (200, "one"));
}

#[test]
fn a_server_may_ask_for_a_certificate() {
    let authority = Authority::new("ca");
    let app = App::named("one", After::Keep);
    let to = for_tls(server(&app), &authority.issue_for("s", &["127.0.0.1"]), Some(&authority));
    let options = "client-cert={dir}/own.pem,{dir}/own.key";
    let proxy = proxy(&authority, &format!("tls:{to} ca={{dir}}/ca.pem {options}"), "");
    assert_eq!(ask(&proxy), (200, "one".to_owned()));
}

#[test]
fn a_wrong_certificate_is_logged_once_and_its_server_set_aside() {
    let (authority, strangers) = (Authority::new("ca"), Authority::new("strangers"));
    let app = App::named("one", After::Keep);
    let to = for_tls(server(&app), &strangers.issue_for("server", &["127.0.0.1"]), None);
    let settings = "wait-timeout 500ms";
    let proxy = proxy(&authority, &format!("tls:{to} ca={{dir}}/ca.pem"), settings);
    assert_eq!(ask(&proxy).0, 503);
    let line = format!(
        "site a.test: TLS with server tls:{to} fails: its certificate is from an issuer that is not \
         trusted here"
    );
    proxy.await_log(&line);
    assert_eq!(ask(&proxy).0, 503);
    // It is trusted from now on, and has time for a handshake.
    proxy.write("ca.pem", strangers.pem());
    proxy.change_settings(settings, "wait-timeout 1m");
    proxy.reload_well();
    proxy.await_log(&format!("site a.test: server tls:{to} is up"));
    assert_eq!(ask(&proxy), (200, "one".to_owned()));
    assert_eq!(proxy.log().matches(&line).count(), 1, "{}", proxy.log());
}

#[test]
fn health_checks_go_by_tls_and_a_server_that_does_not_speak_it_is_down() {
    let authority = Authority::new("ca");
    let app = App::named("one", After::Keep);
    let to = for_tls(server(&app), &authority.issue_for("server", &["127.0.0.1"]), None);
    let options = "ca={dir}/ca.pem check=/health check-interval=100ms";
    let good = proxy(&authority, &format!("tls:{to} {options}"), "");
    eventually("it is checked", || app.served() > 2);
    assert_eq!(ask(&good), (200, "one".to_owned()));
    // It accepts, and says nothing: the handshake is bounded by `dial-timeout`.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = silent.local_addr().unwrap();
    let settings = "dial-timeout 200ms\nwait-timeout 1s";
    let bad = proxy(&authority, &format!("tls:{to} ca={{dir}}/ca.pem"), settings);
    assert_eq!(ask(&bad).0, 503);
    bad.await_log(&format!("site a.test: server tls:{to} cannot be reached: it does not answer"));
}

#[test]
fn malformed_options_are_explained() {
    for (line, what) in [
        ("site a.test servers=127.0.0.1:1 ca=/x", "are for servers=tls:..., and there are none"),
        (
            "site a.test servers=tls:unix:/run/x ca=/x",
            "tls:unix:/run/x needs server-name=NAME, which its certificate is for",
        ),
        ("site a.test servers=tls:127.0.0.1:1 ca=/no/such", "cannot read /no/such"),
    ] {
        let said = Setup::new().settings(line).refused();
        assert!(said.contains(what), "{line}: {said}");
    }
}
