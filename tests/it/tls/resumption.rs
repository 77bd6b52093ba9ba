//! Sessions that are resumed by tickets.

use super::{Authority, handshakes, proxy, setup};
use crate::common::{Proxy, eventually};

const BOTH: [&str; 2] = ["-tls1_2", "-tls1_3"];

/// Fails unless this proxy takes the ticket in `session`.
#[track_caller]
fn resumes(authority: &Authority, proxy: &Proxy, version: &str) {
    let said = authority.served(proxy, &format!("{version} -sess_in session"));
    assert!(said.contains("Reused, TLSv1."), "{version}: {said}");
}

/// Fails if it does.
#[track_caller]
fn begins_anew(authority: &Authority, proxy: &Proxy, version: &str) {
    let said = authority.served(proxy, &format!("{version} -sess_in session"));
    assert!(said.contains("New, TLSv1."), "{version}: {said}");
}

#[test]
fn every_worker_takes_the_tickets_of_the_others() {
    const TIMES: u64 = 12;
    let Some(authority) = Authority::new() else { return };
    authority.issue("site", "DNS:a.test");
    let proxy = proxy(&authority.tls("site"), "workers 4");
    for version in BOTH {
        authority.served(&proxy, &format!("{version} -sess_out session"));
        for _ in 0..TIMES {
            resumes(&authority, &proxy, version);
        }
    }
    eventually("all are counted", || handshakes(&proxy, "resumed") == 2 * TIMES);
    assert_eq!(handshakes(&proxy, "full"), 2);
    // A reload keeps them.
    proxy.reload();
    proxy.await_log("nothing has changed");
    resumes(&authority, &proxy, "-tls1_3");
}

#[test]
fn proxies_with_the_same_keys_take_each_others_tickets() {
    let Some(authority) = Authority::new() else { return };
    authority.issue("site", "DNS:a.test");
    let start = |keys: &str| {
        let setup = setup(&authority.tls("site"), "tls-ticket-keys {dir}/keys");
        setup.file("keys", keys).start()
    };
    let [old, new] = ["0f", "a7"].map(|digits| digits.repeat(32) + "\n");
    let (one, two) = (start(&old), start(&old));
    // In the middle of a rotation, and after it.
    let (rotating, rotated) = (start(&format!("{new}{old}")), start(&new));
    let strange = proxy(&authority.tls("site"), "");
    for version in BOTH {
        authority.served(&one, &format!("{version} -sess_out session"));
        resumes(&authority, &two, version);
        resumes(&authority, &one, version);
        begins_anew(&authority, &strange, version);
        begins_anew(&authority, &rotated, version);
        resumes(&authority, &rotating, version);
        authority.served(&rotating, &format!("{version} -sess_out session"));
        // This one was made with the new key.
        begins_anew(&authority, &one, version);
        resumes(&authority, &rotated, version);
    }
}
