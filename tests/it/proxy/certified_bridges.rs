//! Bridges that show certificates in place of host keys.

use crate::common::{
    ACK, After, Agent, App, Authority, B_SECOND, Bridge, Client, Issued, Json, Proxy, SECRETS,
    Setup, Wire, by_tls, eventually, unix_time,
};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// A proxy whose bridges come by TLS, and the issuer of their certificates.
struct World {
    ours: Authority,
    theirs: Authority,
    proxy: Proxy,
}

impl World {
    /// With these options of the bridges' listener, and these settings.
    #[track_caller]
    fn start(options: &str, settings: &str) -> World {
        let (ours, theirs) = (Authority::new("our ca"), Authority::new("backends' ca"));
        let own = ours.issue_for("proxy", &["proxy.test"]);
        let proxy = Setup::new()
            .settings(&format!(
                "listen 127.0.0.1:0 clients\n\
                 listen 127.0.0.1:0 bridges tls={{dir}}/own.pem,{{dir}}/own.key \
                 client-ca={{dir}}/ca.pem {options}\nsecrets-mode any\n{settings}"
            ))
            .file("own.pem", &own.certificate)
            .file("own.key", &own.key)
            .file("ca.pem", theirs.pem())
            .file("crl.pem", &theirs.revoke(&[]))
            .file("secrets", SECRETS)
            .start();
        World { ours, theirs, proxy }
    }

    /// Where those connect in the clear who show this certificate.
    fn at(&self, shown: Option<&Issued>) -> SocketAddr {
        by_tls(self.proxy.for_bridges(), "proxy.test", &self.ours, shown)
    }

    #[track_caller]
    fn park(&self, shown: &Issued, hosts: &[&str]) -> Bridge {
        let mut bridge = Bridge::connect_to(self.at(Some(shown)));
        bridge.send(registration(hosts, ""));
        bridge.expect_exact(ACK);
        bridge
    }

    /// The refusal of a registration.
    #[track_caller]
    fn refused(&self, shown: Option<&Issued>, registration: &str) -> (u16, String) {
        let mut bridge = Bridge::connect_to(self.at(shown));
        bridge.send(registration);
        let refusal = bridge.read_refusal();
        (refusal.status(), refusal.text())
    }
}

fn registration(hosts: &[&str], keys: &str) -> String {
    let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
    format!("BRIDGE / HTTP/1.1\r\n{hosts}{keys}\r\n")
}

#[test]
fn a_program_is_asked_about_certificates_and_their_names_have_limits() {
    let asked = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&asked);
    let app = App::start(move |seen| {
        *kept.lock().unwrap() = String::from_utf8(seen.body.clone()).unwrap();
        let allows = r#"{"allow":true,"limits":{"bridges":1}}"#;
        format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{allows}",
            allows.len()
        )
        .into_bytes()
    });
    let settings = format!(
        "secrets {{dir}}/secrets\nauthorise-timeout 30s\nauthorise http://{}\nkey-limits w.test bridges=1",
        app.to()
    );
    let world = World::start("", &settings);
    let shown = world.theirs.issue_for("app", &["a.test", "w.test"]);
    let _bridge = world.park(&shown, &["a.test"]);
    let question = Json::parse(&asked.lock().unwrap());
    assert_eq!(question.at(&["keys"]), &Json::List(Vec::new()));
    assert!(matches!(question.at(&["certificate"]), Json::Text(who) if who.contains("app")));
    let refusal = world.refused(Some(&shown), &registration(&["a.test"], ""));
    let text = |name: &str| format!("as many bridges as {name} may have are connected: 1\n");
    assert_eq!(refusal, (503, text("a.test")));
    let _other = world.park(&shown, &["w.test"]);
    assert_eq!(world.refused(Some(&shown), &registration(&["w.test"], "")), (503, text("w.test")));
}

#[test]
fn a_certificate_serves_the_names_that_it_is_for_and_keys_the_others() {
    let world = World::start("", "secrets {dir}/secrets");
    let shown = world.theirs.issue_for("app", &["A.test", "*.w.test"]);
    let mut bridge = world.park(&shown, &["a.test", "*.w.test"]);
    bridge.serve_to(&mut Client::get(&world.proxy, "x.w.test", "/"), "by its certificate");
    let named = "; the certificate is for a.test, *.w.test\n";
    for host in ["b.test", "x.a.test", "x.w.test", "w.test"] {
        let refusal = world.refused(Some(&shown), &registration(&["a.test", host], ""));
        assert_eq!(refusal, (401, format!("no Host-Key covers {host}{named}")));
    }
    // Both in one BRIDGE.
    let mut mixed = Bridge::connect_to(world.at(Some(&shown)));
    let key = format!("Host-Key: {B_SECOND}\r\n");
    mixed.send(registration(&["a.test", "b.test"], &key));
    mixed.expect_exact(ACK);
    mixed.serve_to(&mut Client::get(&world.proxy, "b.test", "/"), "by its key");
    let info = world.proxy.info();
    let Json::List(backends) = info.at(&["backends"]) else { panic!("{info:?}") };
    assert!(!backends.is_empty());
    for backend in backends {
        let certificate = backend.at(&["certificate"]);
        assert_eq!(certificate.at(&["holder"]), &Json::Text("CN=app".to_owned()));
        assert!(certificate.number(&["expires"]) > unix_time());
    }
}

/// As a key for `w.test` would.
#[test]
fn a_certificate_for_a_name_and_those_below_gets_no_request_of_another_certificate() {
    let world = World::start("", "secrets {dir}/secrets");
    let narrow = world.theirs.issue_for("shop", &["shop.w.test"]);
    let wide = world.theirs.issue_for("wide", &["w.test", "*.w.test"]);
    let mut shop = world.park(&narrow, &["shop.w.test"]);
    let mut other = world.park(&wide, &["w.test", "*.w.test"]);
    let mut first = Client::get(&world.proxy, "shop.w.test", "/first");
    shop.accept_request();
    let mut second = Client::get(&world.proxy, "shop.w.test", "/second");
    world.proxy.await_count("c", 1);
    other.assert_untouched(&world.proxy, "x.w.test");
    shop.respond_to(&mut first, "first");
    assert_eq!(shop.serve_to(&mut second, "second"), "GET /second HTTP/1.1");
}

#[test]
fn without_secrets_a_listener_with_client_ca_takes_certificates_alone() {
    let world = World::start("client-cert=optional", "");
    let shown = world.theirs.issue_for("app", &["a.test"]);
    world.park(&shown, &["a.test"]);
    let refusal = world.refused(Some(&shown), &registration(&["b.test"], ""));
    let text = "no certificate covers b.test; the certificate is for a.test\n";
    assert_eq!(refusal, (401, text.to_owned()));
    let refusal = world.refused(None, &registration(&["a.test"], ""));
    let text = "no certificate covers a.test; no certificate has been shown\n";
    assert_eq!(refusal, (401, text.to_owned()));
}

#[test]
fn a_bridge_without_a_certificate_needs_a_key() {
    let world = World::start("client-cert=optional", "secrets {dir}/secrets");
    let key = format!("Host-Key: {B_SECOND}\r\n");
    let mut bridge = Bridge::connect_to(world.at(None));
    bridge.send(registration(&["b.test"], &key));
    bridge.expect_exact(ACK);
    let refusal = world.refused(None, &registration(&["a.test"], &key));
    let text = "no Host-Key covers a.test; no certificate has been shown\n";
    assert_eq!(refusal, (401, text.to_owned()));
}

#[test]
fn a_list_of_revoked_certificates_takes_bridges_back_after_their_exchange() {
    let world = World::start("client-crl={dir}/crl.pem", "secrets {dir}/secrets");
    let (lost, kept) =
        (world.theirs.issue_for("lost", &["a.test"]), world.theirs.issue_for("kept", &["b.test"]));
    let mut busy = world.park(&lost, &["a.test"]);
    let mut other = world.park(&kept, &["b.test"]);
    let mut client = Client::get(&world.proxy, "a.test", "/slow");
    busy.accept_request();
    let mut idle = world.park(&lost, &["a.test"]);
    world.proxy.write("crl.pem", &world.theirs.revoke(&[&lost]));
    world.proxy.reload_well();
    idle.expect_closed();
    world.proxy.await_log("certificates are no longer good, of CN=lost; 1 bridge closed, and 1");
    busy.respond_to(&mut client, "finished");
    busy.expect_closed();
    other.serve_to(&mut Client::get(&world.proxy, "b.test", "/"), "kept");
    // It is not let in again.
    let mut refused = Bridge::connect_to(world.at(Some(&lost)));
    refused.send_if_open(registration(&["a.test"], ""));
    refused.expect_closed();
}

#[test]
fn a_bridge_ends_with_its_certificate() {
    let world = World::start("", "");
    let until = unix_time() + 8;
    let shown = world.theirs.issue("soon", &["a.test"], 7, until);
    let mut busy = world.park(&shown, &["a.test"]);
    let mut client = Client::get(&world.proxy, "a.test", "/slow");
    busy.accept_request();
    let mut idle = world.park(&shown, &["a.test"]);
    idle.expect_closed();
    assert!(unix_time() > until, "it was valid");
    world.proxy.await_log("certificates have expired, of CN=soon; 2 bridges lose them");
    busy.respond_to(&mut client, "finished");
    busy.expect_closed();
}

#[test]
fn an_expired_certificate_may_only_be_logged() {
    let world = World::start("", "expired-keys log");
    let shown = world.theirs.issue("soon", &["a.test"], 7, unix_time() + 5);
    let mut bridge = world.park(&shown, &["a.test"]);
    world.proxy.await_log("certificates have expired, of CN=soon; 1 bridge connected with them");
    bridge.serve_to(&mut Client::get(&world.proxy, "a.test", "/"), "still here");
}

#[test]
fn an_agent_needs_no_key_and_ctl_shows_its_certificate() {
    let world = World::start("", "secrets {dir}/secrets");
    let dir = world.proxy.dir();
    let shown = world.theirs.issue_for("agent", &["a.test"]).write(dir, "agent");
    std::fs::write(dir.join("ours.pem"), world.ours.pem()).unwrap();
    let app = App::named("by the agent", After::Keep);
    let _agent = Agent::start(&[
        "--to",
        &app.to(),
        "-n4",
        "--host",
        "a.test",
        "--ca",
        &dir.join("ours.pem").display().to_string(),
        "--server-name",
        "proxy.test",
        "--client-cert",
        &shown,
        &format!("tls://{}", world.proxy.for_bridges()),
    ]);
    world.proxy.await_count("b", 4);
    let response =
        Client::ask(&world.proxy, "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    assert_eq!((response.status(), response.text().as_str()), (200, "by the agent"));
    eventually("ctl shows it", || {
        let (_, said) = super::upgrade::ctl(&world.proxy, &["backends"]);
        said.contains("CN=agent until ")
    });
}

#[test]
fn a_certificate_is_as_good_for_a_ptth_request() {
    let world = World::start("", "ptth yes\nsecrets {dir}/secrets");
    let shown = world.theirs.issue_for("app", &["a.test"]);
    let ask = |name: &str| {
        let fields = "Connection: upgrade\r\nUpgrade: ptth\r\nALPN: http%2F1.1\r\n";
        format!("GET /.well-known/ptth/https%3A%2F%2F{name}/ HTTP/1.1\r\nHost: p\r\n{fields}\r\n")
    };
    let mut bridge = Bridge::reused(Wire::connect(world.at(Some(&shown))));
    bridge.send(ask("a.test"));
    assert_eq!(bridge.read_head().start, "HTTP/1.1 101 Switching Protocols");
    bridge.serve_to(&mut Client::get(&world.proxy, "a.test", "/"), "by its certificate");
    assert_eq!(world.refused(Some(&shown), &ask("b.test")).0, 401);
}
