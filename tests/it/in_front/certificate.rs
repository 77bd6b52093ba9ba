//! Certificates, made by openssl when a test needs them.

use crate::common::{Dir, installed, run_well};
use std::process::Command;

/// A key on the curve P-256, which takes no time to make.
const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/// Whether openssl is there. If not, says that the test is skipped.
pub fn can_be_made() -> bool {
    installed("openssl", &["openssl", "version"])
}

/// Makes an authority: `NAME.pem` is its certificate, `NAME.key` its key.
#[track_caller]
pub fn authority(dir: &Dir, name: &str) {
    let mut command = openssl(dir);
    command.args(["req", "-x509", "-days", "1"]).args(NEW_KEY);
    command.args(["-subj", &format!("/CN={name}")]);
    run_well(command.args(["-out", &format!("{name}.pem"), "-keyout", &format!("{name}.key")]));
}

/// Makes a certificate of this authority for a host name: `FILE` has it and its key, as haproxy and
/// nginx read them.
#[track_caller]
pub fn issue(dir: &Dir, authority: &str, host: &str, file: &str) {
    let mut command = openssl(dir);
    command.args(["req", "-x509", "-days", "1"]).args(NEW_KEY);
    let [ca, key] = ["pem", "key"].map(|ending| format!("{authority}.{ending}"));
    command.args(["-CA", &ca, "-CAkey", &key, "-subj", &format!("/CN={host}")]);
    command.args(["-addext", &format!("subjectAltName=DNS:{host}")]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    run_well(command.args(["-out", "issued.pem", "-keyout", "issued.key"]));
    let read = |name| std::fs::read_to_string(dir.path().join(name)).expect("openssl has made it");
    dir.write(file, &(read("issued.pem") + &read("issued.key")));
}

fn openssl(dir: &Dir) -> Command {
    let mut command = Command::new("openssl");
    command.current_dir(dir.path());
    command
}
