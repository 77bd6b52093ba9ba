//! Files for appending, which root opens first and another user later.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::identity::Identity;

/// Opens `path` for appending. A new file is given to `owner`, so that the process can reopen it
/// once it is this user. A named pipe without a reader is an error: to wait for one would keep the
/// process from starting, or from obeying its signals.
///
/// # Errors
/// As open(2).
pub fn open(path: &Path, owner: Option<&Identity>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).custom_flags(libc::O_NONBLOCK);
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            if let Some(owner) = owner {
                // Only root may give files away, and only root becomes another user. The caller
                // checks as that user whether the file can be opened again.
                let _ = owner.give(&file);
            }
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            options.create(true).open(path)
        }
        Err(error) => Err(error),
    }
}
