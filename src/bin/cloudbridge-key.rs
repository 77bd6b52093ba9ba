//! The key tool: makes host keys, adds secrets, and checks keys.
//!
//! Exit codes: 0 if it is done or the key is valid, 1 if it cannot be done or the key is invalid, 2
//! for a bad command line.

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

/// Reports write errors: a full disk must not leave an incomplete key in a file unnoticed.
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
