//! Fuzz targets: functions of arbitrary bytes that panic if the program does what it must not.
//!
//! Each states what must hold whatever the bytes are, mostly by a second reader that knows nothing
//! of the first. `tests/fuzz` gives them to libFuzzer (`make fuzz`), which looks for bytes that
//! break them; the bytes found so far are in `tests/fuzz/corpus`, and `make test` runs them again.
//!
//! This room is only there in tests and under `--cfg fuzzing`. It may use every other room, and
//! none uses it.

mod bridge;
mod chunks;
mod corpus;
mod exchange;
mod handshake;
mod hostkey;
mod import;
mod input;
mod lines;
mod proxy_header;
mod ptth;
mod records;
mod request;
mod response;
mod settings;
mod swiftclient;

/// A target: what it is called, which is also the name of its folder of inputs, and its function.
type Target = (&'static str, fn(&[u8]));

/// Every target.
const TARGETS: &[Target] = &[
    ("request", request::run),
    ("response", response::run),
    ("chunks", chunks::run),
    ("bridge", bridge::run),
    ("ptth", ptth::run),
    ("hostkey", hostkey::run),
    ("swiftclient", swiftclient::run),
    ("proxy_header", proxy_header::run),
    ("settings", settings::run),
    ("import", import::run),
    ("handshake", handshake::run),
    ("exchange", exchange::run),
    ("records", records::run),
];

/// Runs the target called `name`.
///
/// # Panics
/// When something is wrong, and when there is no such target.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.unwrap_or_else(|| panic!("there is no target {name}"));
    target(bytes);
}
