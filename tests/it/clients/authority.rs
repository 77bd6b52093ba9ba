//! An issuer of certificates, made by openssl for one test.

use crate::common::{Dir, Proxy, Setup, at, installed, run_well};
use std::path::PathBuf;
use std::process::Command;

#[derive(Debug)]
pub struct Authority(Dir);

/// A certificate and its private key.
#[derive(Debug)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// Whether openssl is installed. If not, says that the test is skipped.
    pub fn is_possible() -> bool {
        installed("openssl", &["openssl", "version"])
    }

    #[track_caller]
    pub fn new() -> Authority {
        let authority = Authority(Dir::new());
        authority
            .openssl(&["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2"])
            .args(["-subj", "/CN=an issuer"])
            .run();
        authority
    }

    /// The certificate of the issuer.
    pub fn ca(&self) -> String {
        self.0.path().join("ca.pem").display().to_string()
    }

    /// A certificate for these names, such as `DNS:a.test,IP:127.0.0.1`, that is valid for so many days from
    /// now, or has been over for as long.
    #[track_caller]
    pub fn issue(&self, name: &str, names: &str, days: i32) -> Files {
        let [key, request, certificate] =
            ["key", "csr", "pem"].map(|ending| format!("{name}.{ending}"));
        self.openssl(&["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args(["-keyout", &key, "-out", &request, "-subj", &format!("/CN={name}")])
            .run();
        self.0.write("extensions", &format!("subjectAltName={names}\nbasicConstraints=CA:FALSE\n"));
        self.openssl(&["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key"])
            .args(["-CAcreateserial", "-extfile", "extensions", "-out", &certificate])
            .args(["-days", &days.to_string()])
            .run();
        let path = |name: &str| self.0.path().join(name);
        Files { certificate: path(&certificate), key: path(&key) }
    }

    fn openssl(&self, words: &[&str]) -> Openssl {
        let mut command = Command::new("openssl");
        command.args(words).current_dir(self.0.path());
        Openssl(command)
    }
}

struct Openssl(Command);

impl Openssl {
    fn args<const N: usize>(mut self, words: [&str; N]) -> Openssl {
        self.0.args(words);
        self
    }

    #[track_caller]
    fn run(mut self) {
        run_well(&mut self.0);
    }
}

/// A proxy whose bridges come by TLS, with this certificate and these options of the listener more.
#[track_caller]
pub fn encrypted(files: &Files, options: &str) -> Proxy {
    encrypted_setup(files, options).start()
}

/// One that is not started yet.
pub fn encrypted_setup(files: &Files, options: &str) -> Setup {
    let (certificate, key) = (files.certificate.display(), files.key.display());
    Setup::new()
        .settings(&format!("listen 127.0.0.1:0 bridges tls={certificate},{key} {options}"))
        .settings("listen 127.0.0.1:0 clients")
}

/// How a backend dials it.
pub fn by_tls(proxy: &Proxy) -> String {
    format!("tls://{}", at(proxy))
}
