//! A new secret goes into a secrets file: whole or not at all, whatever is cut off when.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::bridge::Secrets;

use super::{Failure, moment, unix_time};

/// Random bytes of a secret: as many as an HMAC-SHA256 has, beyond which more add nothing (RFC 2104 section 3).
const RANDOM: usize = 32;

/// The mode of a secrets file: its owner, who should be the proxy's user, and nobody else.
const MODE: u32 = 0o600;

/// The mode bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// How often the clock is looked at while a secret is not in force yet.
const POLL: Duration = Duration::from_millis(20);

/// A secret has been added.
#[derive(Debug)]
pub(super) struct Added {
    /// The first Unix second at which it is in force.
    pub(super) from: u64,
    /// When it was added.
    now: u64,
}

impl Added {
    /// Waits until the secret is in force, if that is so next second; whoever makes a key after this
    /// makes it with the new one.
    pub(super) fn wait(&self) {
        while self.from == self.now + 1 && unix_time() == self.now {
            thread::sleep(POLL);
        }
    }
}

/// Adds a random secret to `file`, which is made if there is none.
///
/// The first secret of a file is in force from `now` (Unix seconds). Any other is from the next second, because
/// keys may have been made with the one before it in this one; or, if the last secret lies ahead, from a second
/// after that.
pub(super) fn add(file: &Path, now: u64) -> Result<Added, Failure> {
    // The file itself and not a link to it is what is replaced.
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let draft = Draft::new(&file)?;
    let failed = |error| Failure::of(format!("{}: {error}", file.display()));
    let mut text = match File::open(&file) {
        Ok(old) => read_guarded(old, &file, &draft)?,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(error)),
    };
    let from = next_timestamp(&text, &file, now)?;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text += &format!("{from}:{}\n", random().map_err(failed)?);
    draft.replace(&file, &text).map_err(failed)?;
    Ok(Added { from, now })
}

/// The text of the file there is, which must be for its owner's eyes only. The draft is given the same owner.
fn read_guarded(mut old: File, file: &Path, draft: &Draft) -> Result<String, Failure> {
    let name = file.display();
    let failed = |error| Failure::of(format!("{name}: {error}"));
    let data = old.metadata().map_err(failed)?;
    if !data.is_file() {
        return Err(Failure::of(format!("{name}: this is no ordinary file")));
    }
    if data.mode() & OTHERS != 0 {
        return Err(Failure::of(format!(
            "{name}: mode {:04o} is open to others; chmod 600 it, and ask yourself who has read the secrets in it",
            data.mode() & 0o7777
        )));
    }
    let ours = draft.file.metadata().map_err(failed)?;
    if (ours.uid(), ours.gid()) != (data.uid(), data.gid()) {
        fchown(&draft.file, Some(data.uid()), Some(data.gid()))
            .map_err(|error| Failure::of(format!("{name}: cannot keep its owner: {error}")))?;
    }
    let mut text = String::new();
    old.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// From when a new secret is in force, in a file that has `text` now.
fn next_timestamp(text: &str, file: &Path, now: u64) -> Result<u64, Failure> {
    if text.trim().is_empty() {
        return Ok(now);
    }
    let name = file.display().to_string();
    let secrets = Secrets::parse(text, &name).map_err(|lines| Failure { lines, code: 1 })?;
    let last = secrets.newest(u64::MAX).unwrap_or(now).max(now);
    last.checked_add(1)
        .ok_or_else(|| Failure::of(format!("{name}: no time is left after {}", moment::utc(last))))
}

fn random() -> io::Result<String> {
    let mut bytes = [0; RANDOM];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What will be the file, beside it. As there can be but one, it is also the lock that keeps two from adding at
/// once.
struct Draft {
    /// `None` once it has taken the file's place: what is there by that name then is somebody else's.
    path: Option<PathBuf>,
    file: File,
}

impl Draft {
    fn new(file: &Path) -> Result<Draft, Failure> {
        let mut path = OsString::from(file);
        path.push(".new");
        let path = PathBuf::from(path);
        let made = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path);
        match made {
            Ok(file) => Ok(Draft { path: Some(path), file }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Failure::of(format!(
                "{}: somebody else is adding a secret, or was interrupted: then remove this file",
                path.display()
            ))),
            Err(error) => Err(Failure::of(format!("{}: {error}", path.display()))),
        }
    }

    /// Puts it in the place of `file`, with everything on the disk first: after a crash there is the old file or the
    /// new one.
    fn replace(mut self, file: &Path, text: &str) -> io::Result<()> {
        // Whatever the umask has made of the mode.
        self.file.set_permissions(Permissions::from_mode(MODE))?;
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        if let Some(path) = &self.path {
            fs::rename(path, file)?;
        }
        self.path = None;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // If it stays, the next to add is told of it.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests;
