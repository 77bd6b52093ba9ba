//! The key tool: makes host keys, adds secrets, and says what is wrong with a key.
//!
//! Exit codes: 0 when it is done or the key is good, 1 when it cannot be done or the key is not good, 2 for a bad
//! command line.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use cloudbridge::keytool;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    match keytool::run(&arguments, &mut io::stdin().lock()) {
        Ok(text) => print(&text),
        Err(failure) => {
            for line in &failure.lines {
                eprintln!("cloudbridge-key: {line}");
            }
            ExitCode::from(failure.code)
        }
    }
}

/// To standard output. Whoever redirects a key into a file has to hear that the disk is full.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cloudbridge-key: cannot write: {error}");
            ExitCode::FAILURE
        }
    }
}
