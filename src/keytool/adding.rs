//! Adds a secret to a secrets file, atomically.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::bridge::Secrets;

use super::datetime::{self, unix_time};
use super::failure::Failure;

/// Random bytes of a secret: the length of an HMAC-SHA256. More add nothing (RFC 2104, section 3).
const RANDOM: usize = 32;

/// The mode of a new secrets file: only for its owner, who should be the proxy's user.
const MODE: u32 = 0o600;

/// The mode of a new one in a folder whose files belong to the folder's group: `/etc/cloudbridge` is
/// such a folder, root's and of the group of the proxy's user.
const MODE_OF_GROUP: u32 = 0o640;

/// The mode bit of such a folder (inode(7), `S_ISGID`).
const SET_GROUP: u32 = 0o2000;

/// The group may write there, or everybody may do something: it is no folder for secrets.
const OTHERS_IN: u32 = 0o027;

/// The mode bits that a secrets file must not have: the group may read it, and nobody else.
const OTHERS: u32 = 0o037;

/// How often the clock is read until a secret is in force.
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Added {
    /// The first Unix second at which it is in force.
    pub(super) from: u64,
    /// When it was added.
    now: u64,
}

impl Added {
    /// Waits for the next second if the secret is in force from then, so that a key made after this
    /// is made with the new secret.
    pub(super) fn wait(&self) {
        while self.from == self.now + 1 && unix_time() == self.now {
            thread::sleep(POLL);
        }
    }
}

/// Adds a random secret to `file`, or creates the file.
///
/// The first secret of a file is in force from `now` (Unix seconds). Any other is in force from the
/// next second, because keys may already have been made in this one, or from the second after the
/// last secret if that is in the future.
///
/// A file keeps its mode, owner and group. A new one has [`MODE`] or [`MODE_OF_GROUP`].
pub(super) fn add(file: &Path, now: u64) -> Result<Added, Failure> {
    // Replace the file itself, not a link to it.
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let draft = Draft::new(&file)?;
    let failed = |error| Failure::of(format!("{}: {error}", file.display()));
    let (mut text, mode) = match File::open(&file) {
        Ok(old) => read_guarded(old, &file, &draft)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = fs::metadata(folder_of(&file)).map_err(failed)?;
            let is_of_group = folder.mode() & (SET_GROUP | OTHERS_IN) == SET_GROUP;
            (String::new(), if is_of_group { MODE_OF_GROUP } else { MODE })
        }
        Err(error) => return Err(failed(error)),
    };
    let from = next_timestamp(&text, &file, now)?;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text += &format!("{from}:{}\n", random().map_err(failed)?);
    draft.replace(&file, &text, mode).map_err(failed)?;
    Ok(Added { from, now })
}

/// Text and mode of the existing file, which nobody but its owner and group may read. Gives the draft
/// the same owner and group.
fn read_guarded(mut old: File, file: &Path, draft: &Draft) -> Result<(String, u32), Failure> {
    let name = file.display();
    let failed = |error| Failure::of(format!("{name}: {error}"));
    let data = old.metadata().map_err(failed)?;
    if !data.is_file() {
        return Err(Failure::of(format!("{name}: this is not a regular file")));
    }
    if data.mode() & OTHERS != 0 {
        return Err(Failure::of(format!(
            "{name}: mode {:04o} is open to others; chmod it to 600 or 640, and consider its secrets known",
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
    Ok((text, data.mode() & 0o777))
}

/// The folder that the file is in.
fn folder_of(file: &Path) -> &Path {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// From when a new secret is in force, in a file with this text.
fn next_timestamp(text: &str, file: &Path, now: u64) -> Result<u64, Failure> {
    if text.trim().is_empty() {
        return Ok(now);
    }
    let name = file.display().to_string();
    let secrets = Secrets::parse(text, &name).map_err(|lines| Failure { lines, code: 1 })?;
    let last = secrets.newest(u64::MAX).unwrap_or(now).max(now);
    last.checked_add(1).ok_or_else(|| {
        Failure::of(format!("{name}: no time is left after {}", datetime::utc(last)))
    })
}

fn random() -> io::Result<String> {
    let mut bytes = [0; RANDOM];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The new content, in a file next to the old one. It is also the lock against concurrent
/// additions.
struct Draft {
    /// `None` once it has replaced the file: another process may use the name then.
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
                "{}: another process is adding a secret, or was interrupted: then remove this file",
                path.display()
            ))),
            Err(error) => Err(Failure::of(format!("{}: {error}", path.display()))),
        }
    }

    /// Replaces `file`, after everything is on disk: a crash leaves the old file or the new one.
    fn replace(mut self, file: &Path, text: &str, mode: u32) -> io::Result<()> {
        self.file.write_all(text.as_bytes())?;
        // Independent of the umask.
        self.file.set_permissions(Permissions::from_mode(mode))?;
        self.file.sync_all()?;
        if let Some(path) = &self.path {
            fs::rename(path, file)?;
        }
        self.path = None;
        File::open(folder_of(file))?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // If this fails, the next command reports the file.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests;
