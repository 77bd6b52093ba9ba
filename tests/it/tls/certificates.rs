//! Which certificate is shown, with which key, and what goes with it.

use super::authority::Kind;
use super::{Authority, proxy};

#[test]
fn the_certificate_is_chosen_by_the_name_that_is_asked_for() {
    let Some(authority) = Authority::new() else { return };
    authority.issue("first", "DNS:first.test");
    authority.issue("exact", "DNS:a.b.test,DNS:exact.test");
    authority.issue("wild", "DNS:*.b.test");
    let all = ["first", "exact", "wild"].map(|name| authority.tls(name)).join(" ");
    let proxy = proxy(&all, "");
    for version in ["-tls1_2", "-tls1_3"] {
        for (name, shown) in [
            ("first.test", "first"),
            ("exact.test", "exact"),
            ("a.b.test", "exact"),
            ("A.B.TEST", "exact"),
            ("c.b.test", "wild"),
            // One level and no more.
            ("d.c.b.test", "first"),
            ("b.test", "first"),
            ("unknown.test", "first"),
        ] {
            let said = authority.served(&proxy, &format!("{version} -servername {name}"));
            assert!(said.contains(&format!("subject=CN = {shown}\n")), "{name}: {said}");
        }
        let said = authority.served(&proxy, &format!("{version} -noservername"));
        assert!(said.contains("subject=CN = first\n"), "{said}");
    }
}

#[test]
fn keys_of_every_kind_are_good() {
    let Some(authority) = Authority::new() else { return };
    for kind in [Kind::Ecdsa, Kind::Rsa, Kind::Ed25519] {
        let name = format!("{kind:?}").to_lowercase();
        authority.issue_as(&name, "DNS:a.test", kind, "20991231000000Z");
        let proxy = proxy(&authority.tls(&name), "");
        for version in ["-tls1_2", "-tls1_3"] {
            let options = format!("{version} -servername a.test -verify_hostname a.test");
            let said = authority.served(&proxy, &options);
            assert!(said.contains("Verify return code: 0 (ok)"), "{kind:?}: {said}");
        }
    }
}

/// Two of one name: the first one is shown, as for haproxy without bundles.
#[test]
fn a_chain_is_shown_whole() {
    let Some(authority) = Authority::new() else { return };
    authority.issue("site", "DNS:a.test");
    authority.sh("cat site.pem ca.pem > chain.pem && cat chain.pem site.key > both.pem");
    authority.sh("chmod 600 both.pem");
    for option in [
        format!("tls={},{}", authority.path("chain.pem"), authority.path("site.key")),
        format!("tls={}", authority.path("both.pem")),
    ] {
        let proxy = proxy(&option, "");
        let said = authority.served(&proxy, "-showcerts");
        assert_eq!(said.matches("BEGIN CERTIFICATE").count(), 2, "{said}");
    }
}

#[test]
fn an_ocsp_response_beside_a_certificate_is_stapled() {
    let Some(authority) = Authority::new() else { return };
    authority.issue("site", "DNS:a.test");
    let without = proxy(&authority.tls("site"), "");
    let said = authority.served(&without, "-status");
    assert!(said.contains("OCSP response: no response sent"), "{said}");
    authority.sh(
        "openssl ocsp -index index.txt -CA ca.pem -rsigner ca.pem -rkey ca.key -issuer ca.pem \
         -cert site.pem -respout site.pem.ocsp -ndays 1 2>&1",
    );
    let with = proxy(&authority.tls("site"), "");
    for version in ["-tls1_2", "-tls1_3"] {
        let said = authority.served(&with, &format!("{version} -status"));
        assert!(said.contains("OCSP Response Status: successful (0x0)"), "{said}");
        assert!(said.contains("Cert Status: good"), "{said}");
    }
    // A reload finds it, too.
    without.reload_well();
    assert!(authority.served(&without, "-status").contains("Cert Status: good"));
}

/// Neither the log, as talkative as it gets, nor the state shows a key.
#[test]
fn no_key_is_shown_anywhere() {
    let Some(authority) = Authority::new() else { return };
    authority.issue("site", "DNS:a.test");
    let tickets = "4f".repeat(32);
    let setup = super::setup(&authority.tls("site"), "tls-ticket-keys {dir}/keys");
    let proxy = setup.file("keys", &format!("{tickets}\n")).variable("RUST_LOG", "trace").start();
    authority.served(&proxy, "");
    authority.refused(&proxy, "-alpn h2", "no application protocol");
    proxy.reload();
    authority.served(&proxy, "");
    let shown = ["/state.json", "/metrics", "/config"].map(|path| {
        proxy.admin(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    });
    let all = proxy.log() + &shown.concat();
    let key = authority.sh("cat site.key");
    let lines = key.lines().filter(|line| !line.starts_with("-----"));
    for secret in lines.chain([tickets.as_str(), "PRIVATE KEY"]) {
        assert!(!all.contains(secret), "{secret}");
    }
}
