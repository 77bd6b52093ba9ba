//! Files that this process may not read, but which the program that it replaces could.
//!
//! That one was started by root, read them, and then became the user of its settings. This one is
//! started by that user.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What these files held when they were last read.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeptFiles(Vec<(PathBuf, Vec<u8>)>);

impl KeptFiles {
    /// Adds what a file held.
    pub fn add(&mut self, path: PathBuf, bytes: Vec<u8>) {
        self.0.push((path, bytes));
    }

    /// What was read from `path`; or what it held, if it may not be read by this process.
    ///
    /// # Errors
    /// The error of `read`.
    pub(crate) fn or<T>(
        &self,
        path: &Path,
        read: io::Result<T>,
        kept: impl FnOnce(&[u8]) -> io::Result<T>,
    ) -> io::Result<T> {
        let error = match read {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => error,
            read => return read,
        };
        match self.0.iter().find(|(known, _)| known == path) {
            Some((_, bytes)) => {
                log::warn!(
                    "{} may not be read by this user: what it held at the start stays in force",
                    path.display()
                );
                kept(bytes)
            }
            None => Err(error),
        }
    }
}

/// Without what is in them: they may be secrets.
impl fmt::Debug for KeptFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(path, _)| path)).finish()
    }
}

/// A text that was kept.
///
/// # Errors
/// As [`std::fs::read_to_string`].
pub(crate) fn text(bytes: &[u8]) -> io::Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_not_be_read_is_taken_from_what_was_kept() {
        let mut kept = KeptFiles::default();
        kept.add("/etc/secrets".into(), b"sesame".to_vec());
        let denied = || Err(io::ErrorKind::PermissionDenied.into());
        let or = |path: &str, read| kept.or(Path::new(path), read, text);
        assert_eq!(or("/etc/secrets", denied()).unwrap(), "sesame");
        assert_eq!(or("/etc/secrets", Ok("new".to_owned())).unwrap(), "new");
        let error = or("/etc/other", denied()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let missing = Err(io::ErrorKind::NotFound.into());
        assert_eq!(or("/etc/secrets", missing).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(format!("{kept:?}"), "[\"/etc/secrets\"]");
    }
}
