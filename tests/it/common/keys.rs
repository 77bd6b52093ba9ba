//! Host keys, and what the key tool makes of them.

use super::run_well;
use std::process::Command;

/// What a proxy has that takes [`A_FIRST`], [`A_SECOND`] and [`B_SECOND`].
pub const SECRETS: &str = "1000000000:first\n1600000000:second\n";

/// `printf first:1100000000:a.test | sha1sum`
pub const A_FIRST: &str = "344e847d1b3cdfc8673cfe1d0388b7b78ab720e6:1100000000:a.test";

/// `printf second:1700000000:a.test | sha1sum`
pub const A_SECOND: &str = "adb7c404c49597d34e253d48aba583c439491d84:1700000000:a.test";

/// `printf second:1700000000:b.test | sha1sum`
pub const B_SECOND: &str = "984629eac3ec2365a808dfc4d96533aead9df91a:1700000000:b.test";

/// A BRIDGE that sends a key as it is.
pub fn keyed(host: &str, key: &str) -> String {
    format!("BRIDGE / HTTP/1.1\r\nHost: {host}\r\nHost-Key: {key}\r\n\r\n")
}

/// What the key tool prints when it is given a key on standard input.
#[track_caller]
pub fn key_tool(words: &[&str], key: &str) -> String {
    let mut shell = Command::new("sh");
    let script = r#"printf '%s\n' "$KEY" | "$@""#;
    shell.args(["-c", script, "sh", env!("CARGO_BIN_EXE_cloudbridge-key")]).args(words);
    run_well(shell.env("KEY", key)).trim().to_owned()
}

/// The key with these options of `cloudbridge-key narrow`.
#[track_caller]
pub fn narrow(key: &str, options: &[&str]) -> String {
    key_tool(&[&["narrow", "-"], options].concat(), key)
}
