//! An issuer of certificates, and openssl as a client.

use crate::common::{Dir, Proxy, installed, run_well};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The settings of `openssl ca`, in the directory where it runs.
const SETTINGS: &str = "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\n\
    crlnumber=crlnumber\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\nunique_subject=no\n\
    default_crl_days=1\n[p]\ncommonName=supplied\n\
    [issuer]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
    subjectKeyIdentifier=hash\n";

/// The kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ecdsa,
    Rsa,
    Ed25519,
}

/// Makes certificates in a directory of its own.
pub struct Authority {
    dir: Dir,
}

impl Authority {
    /// Makes an issuer, with a name of its own; `None` without openssl, which is said.
    #[track_caller]
    pub fn new() -> Option<Authority> {
        if !installed("openssl", &["openssl", "version"]) {
            return None;
        }
        let authority = Authority { dir: Dir::new() };
        for (name, contents) in
            [("index.txt", ""), ("serial", "01"), ("crlnumber", "01"), ("settings", SETTINGS)]
        {
            authority.dir.write(name, contents);
        }
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        authority.key("ca", Kind::Ecdsa);
        authority.sh(&format!(
            "openssl req -new -key ca.key -subj '/CN=issuer {number}' -out ca.csr && openssl ca \
             -batch -config settings -selfsign -keyfile ca.key -in ca.csr -out ca.pem -notext \
             -extensions issuer -startdate 20200101000000Z -enddate 20991231000000Z"
        ));
        Some(authority)
    }

    /// Where its files are: `ca.pem` and what was issued, `NAME.pem` with `NAME.key`.
    pub fn path(&self, file: &str) -> String {
        self.dir.path().join(file).display().to_string()
    }

    /// Runs a line of the shell in its directory, which must come to a good end.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        run_well(Command::new("sh").args(["-c", line]).current_dir(self.dir.path()))
    }

    fn key(&self, name: &str, kind: Kind) {
        let options = match kind {
            Kind::Ecdsa => "EC -pkeyopt ec_paramgen_curve:P-256",
            Kind::Rsa => "RSA -pkeyopt rsa_keygen_bits:2048",
            Kind::Ed25519 => "ED25519",
        };
        self.sh(&format!("umask 077; openssl genpkey -algorithm {options} -out {name}.key 2>&1"));
    }

    /// Issues a certificate for these names, such as `DNS:a.test,DNS:*.b.test`. Its subject is
    /// `name`.
    #[track_caller]
    pub fn issue(&self, name: &str, names: &str) {
        self.issue_as(name, names, Kind::Ecdsa, "20991231000000Z");
    }

    /// The same, with a key of this kind, and until then.
    #[track_caller]
    pub fn issue_as(&self, name: &str, names: &str, kind: Kind, until: &str) {
        self.key(name, kind);
        let extensions = format!("[e]\nsubjectAltName={names}\nbasicConstraints=CA:FALSE\n");
        self.dir.write("extensions", &extensions);
        self.sh(&format!(
            "openssl req -new -key {name}.key -subj '/CN={name}' -out {name}.csr && openssl ca \
             -batch -config settings -cert ca.pem -keyfile ca.key -in {name}.csr -out {name}.pem \
             -notext -extfile extensions -extensions e -startdate 20200101000000Z -enddate {until}"
        ));
    }

    /// Takes a certificate back, and writes `crl.pem`.
    #[track_caller]
    pub fn revoke(&self, name: &str) {
        self.sh(&format!(
            "openssl ca -config settings -cert ca.pem -keyfile ca.key -revoke {name}.pem && openssl \
             ca -config settings -cert ca.pem -keyfile ca.key -gencrl -out crl.pem"
        ));
    }

    /// The option of a listener that shows this certificate.
    pub fn tls(&self, name: &str) -> String {
        format!("tls={},{}", self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
    }

    /// What openssl's client says, with a request for `a.test` that it sends, and what it gets.
    /// `true` if it came to a good end.
    #[track_caller]
    pub fn ask(&self, address: SocketAddr, options: &str) -> (bool, String) {
        let request = r"printf 'GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n'";
        self.client(address, &format!("-ign_eof {options}"), request)
    }

    /// The same with what this line of the shell prints. Without `-ign_eof` a line of some letters
    /// is a command to openssl.
    #[track_caller]
    pub fn client(&self, address: SocketAddr, options: &str, input: &str) -> (bool, String) {
        let line = format!(
            "{input} | timeout 25 openssl s_client -connect {address} -CAfile ca.pem \
             -verify_return_error {options} 2>&1; echo status $?"
        );
        // Its output may hold bytes that are no text.
        let said = self.sh(&format!("({line}) | tr -cd '\\11\\12\\15\\40-\\176'"));
        (said.trim_end().ends_with("status 0"), said)
    }

    /// Fails unless openssl's client gets a 404 with these options.
    #[track_caller]
    pub fn served(&self, proxy: &Proxy, options: &str) -> String {
        let (good, said) = self.ask(proxy.for_clients(), options);
        assert!(good && said.contains("HTTP/1.1 404 "), "{options}: {said}");
        said
    }

    /// Fails unless openssl's client is refused with this alert.
    #[track_caller]
    pub fn refused(&self, proxy: &Proxy, options: &str, alert: &str) {
        let (_, said) = self.ask(proxy.for_clients(), options);
        assert!(!said.contains("HTTP/1.1 "), "{options}: {said}");
        assert!(said.contains(alert), "no {alert:?} with {options}: {said}");
    }
}
