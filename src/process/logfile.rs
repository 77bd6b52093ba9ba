//! Files that lines are added to, while root opens them first and somebody else later.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use super::identity::Identity;

/// Opens `path` for appending. A file that is made by this belongs to `owner`, so that the process,
/// once it is this user, can open it again.
///
/// # Errors
/// As open(2).
pub fn open(path: &Path, owner: Option<&Identity>) -> io::Result<File> {
    match OpenOptions::new().append(true).create_new(true).open(path) {
        Ok(file) => {
            if let Some(owner) = owner {
                // Only root may give files away. Nobody else becomes another user either, and
                // whether the file can be opened again is looked at once we are that user.
                let _ = owner.give(&file);
            }
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            OpenOptions::new().append(true).create(true).open(path)
        }
        Err(error) => Err(error),
    }
}
