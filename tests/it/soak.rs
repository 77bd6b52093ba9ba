//! The soak checks itself: a few seconds of it with everything in them, and its oracle with journals
//! that show each thing that must not happen.

use crate::common::{installed, skipped};
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a program of the soak. What it says is the test's own.
#[track_caller]
fn run(words: &[&str]) {
    if !installed("python3", &["python3", "-c", "import sys; sys.exit(sys.version_info < (3, 10))"])
    {
        return skipped("the soak needs Python 3.10");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/soak");
    let output = Command::new("python3")
        .args(words)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("python3");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    eprintln!("{said}{complained}");
    assert!(output.status.success(), "{words:?}");
}

#[test]
fn the_oracle_finds_what_must_not_happen() {
    run(&["-B", "-m", "unittest", "-q", "test_oracle"]);
}

#[test]
fn a_few_seconds_of_soak_find_nothing() {
    let proxy = Path::new(env!("CARGO_BIN_EXE_cloudbridge"));
    let tools = proxy.parent().expect("a folder").to_str().expect("UTF-8");
    run(&["run", "--seconds", "10", "--seed", "382", "--tools", tools]);
}
