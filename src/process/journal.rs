//! Whether standard error is the journal of systemd, which has the time of each line already and
//! takes its priority from the beginning of the line (sd-daemon(3)).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use log::Level;

/// What systemd sets: device and inode of the stream to the journal (systemd.exec(5)).
const VARIABLE: &str = "JOURNAL_STREAM";

/// One for the process, as standard error is.
static ATTACHED: AtomicBool = AtomicBool::new(false);

/// Looks whether standard error is the journal now. Call it again once it has been redirected.
pub fn look() {
    let named = std::env::var(VARIABLE).ok();
    let is_it = named.is_some_and(|named| stream().is_ok_and(|stream| named == stream));
    ATTACHED.store(is_it, Ordering::Relaxed);
}

/// Whether standard error was the journal at the last [`look`].
#[must_use]
pub fn is_attached() -> bool {
    ATTACHED.load(Ordering::Relaxed)
}

/// What begins a line of this level: nothing, unless it goes to the journal.
#[must_use]
pub fn priority(level: Level) -> &'static str {
    match level {
        _ if !is_attached() => "",
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

/// Standard error in the form of the variable.
fn stream() -> io::Result<String> {
    let stream = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let data = stream.metadata()?;
    Ok(format!("{}:{}", data.dev(), data.ino()))
}
