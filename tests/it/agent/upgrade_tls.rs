//! A new agent takes over from a running one whose bridges are encrypted: it dials its own before the
//! old one gives up its bridges.

use super::upgrade::Upgraded;
use crate::common::{After, App, Authority, Load, Setup, eventually};

#[test]
fn encrypted_bridges_are_dialled_anew_and_nothing_is_lost() {
    let authority = Authority::new("ca");
    let own = authority.issue_for("proxy", &["proxy.test"]);
    let proxy = Setup::new()
        .settings(
            "listen 127.0.0.1:0 clients\n\
             listen 127.0.0.1:0 bridges tls={dir}/own.pem,{dir}/own.key\nsecrets-mode any",
        )
        .file("own.pem", &own.certificate)
        .file("own.key", &own.key)
        .file("ca.pem", authority.pem())
        .start();
    let app = App::named("hello", After::Keep);
    let ca = proxy.dir().join("ca.pem").display().to_string();
    let agent = Upgraded::start(&[
        "--to",
        &app.to(),
        "-n4",
        "--ca",
        &ca,
        "--server-name",
        "proxy.test",
        &format!("tls://{}", proxy.for_bridges()),
    ]);
    proxy.await_count("b", 4);
    let leaves = || proxy.info().number(&["counters", "leaves"]);
    let served = Load::run(
        &proxy,
        "POST",
        6,
        |_, text| text == "hello",
        |load| {
            for upgrade in 1..=3 {
                load.await_more(5);
                let old = agent.upgrade();
                load.await_more(5);
                agent.await_replaced(old);
                // Once, when the new one had its own; those of the new one stay.
                eventually("the old one has deregistered", || leaves() == upgrade);
            }
            load.await_more(5);
        },
    );
    assert!(served > 100, "{served}");
    eventually("all bridges are there", || {
        let count = |letter| proxy.count(letter);
        count("b") + count("B") == 4
    });
    assert_eq!(leaves(), 3);
}
