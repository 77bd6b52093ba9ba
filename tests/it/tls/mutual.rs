//! Certificates of clients.

use super::authority::Kind;
use super::{Authority, proxy};
use crate::common::Proxy;

/// An issuer with a site, good and bad certificates of clients, and another issuer with one.
fn issuers() -> Option<(Authority, Authority)> {
    let [authority, other] = [Authority::new()?, Authority::new()?];
    authority.issue("site", "DNS:a.test");
    authority.issue("good", "DNS:client.test");
    authority.issue("revoked", "DNS:client.test");
    authority.issue_as("expired", "DNS:client.test", Kind::Ecdsa, "20200201000000Z");
    authority.revoke("revoked");
    other.issue("stranger", "DNS:client.test");
    Some((authority, other))
}

fn start(authority: &Authority, more: &str) -> Proxy {
    let [ca, crl] = ["ca.pem", "crl.pem"].map(|file| authority.path(file));
    let site = authority.tls("site");
    proxy(&format!("{site} client-ca={ca} client-crl={crl} {more}"), "")
}

fn shows(authority: &Authority, name: &str) -> String {
    let [cert, key] = ["pem", "key"].map(|ending| authority.path(&format!("{name}.{ending}")));
    format!("-cert {cert} -key {key}")
}

#[test]
fn clients_need_a_certificate_that_is_good() {
    let Some((authority, other)) = issuers() else { return };
    let proxy = start(&authority, "");
    for version in ["-tls1_2", "-tls1_3"] {
        let with = |whose, name| format!("{version} {}", shows(whose, name));
        authority.served(&proxy, &with(&authority, "good"));
        authority.refused(&proxy, version, "alert certificate required");
        authority.refused(&proxy, &with(&other, "stranger"), "alert unknown ca");
        authority.refused(&proxy, &with(&authority, "expired"), "alert certificate expired");
        authority.refused(&proxy, &with(&authority, "revoked"), "alert certificate revoked");
    }
    for why in [
        "peer sent no certificates",
        "its certificate is from an issuer that is not trusted here",
        "its certificate has expired",
        "its certificate has been revoked",
    ] {
        proxy.await_log(why);
    }
}

#[test]
fn a_certificate_that_is_optional_must_be_good_if_there_is_one() {
    let Some((authority, other)) = issuers() else { return };
    let proxy = start(&authority, "client-cert=optional");
    for version in ["-tls1_2", "-tls1_3"] {
        authority.served(&proxy, version);
        authority.served(&proxy, &format!("{version} {}", shows(&authority, "good")));
        let stranger = format!("{version} {}", shows(&other, "stranger"));
        authority.refused(&proxy, &stranger, "alert unknown ca");
        let revoked = format!("{version} {}", shows(&authority, "revoked"));
        authority.refused(&proxy, &revoked, "alert certificate revoked");
    }
}

/// Where no certificate is asked for there are tickets for everybody.
#[test]
fn a_ticket_of_another_listener_is_no_certificate() {
    let Some((authority, _)) = issuers() else { return };
    let (site, ca) = (authority.tls("site"), authority.path("ca.pem"));
    let proxy = proxy(
        &site,
        &format!(
            "listen 127.0.0.1:0 clients {site} client-ca={ca} client-cert=optional\n\
             listen 127.0.0.1:0 clients {site} client-ca={ca}"
        ),
    );
    let [open, _, optional, strict] = proxy.addresses()[..] else { panic!("{}", proxy.log()) };
    for version in ["-tls1_2", "-tls1_3"] {
        for from in [open, optional] {
            let (good, said) = authority.ask(from, &format!("{version} -sess_out session"));
            assert!(good && said.contains("HTTP/1.1 404"), "{said}");
            let (_, said) = authority.ask(strict, &format!("{version} -sess_in session"));
            assert!(!said.contains("HTTP/1.1"), "{said}");
        }
    }
}

/// A session that was resumed has the same rights, and no more.
#[test]
fn who_is_revoked_does_not_come_back_by_a_ticket_after_a_reload() {
    let Some((authority, _)) = issuers() else { return };
    let proxy = start(&authority, "");
    for version in ["-tls1_2", "-tls1_3"] {
        let name = if version == "-tls1_2" { "good" } else { "later" };
        if name == "later" {
            authority.issue("later", "DNS:client.test");
        }
        let options = format!("{version} {}", shows(&authority, name));
        authority.served(&proxy, &format!("{options} -sess_out session"));
        authority.revoke(name);
        proxy.reload_well();
        let (_, said) = authority.ask(proxy.for_clients(), &format!("{options} -sess_in session"));
        assert!(!said.contains("HTTP/1.1 404"), "{version}: {said}");
    }
}
