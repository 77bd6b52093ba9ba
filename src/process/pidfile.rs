//! The pidfile: the process ID for scripts, and a lock that keeps a second process out.
//!
//! The lock (flock), not the process ID, tells whether the process is alive: process IDs are
//! reused, and a crash of the machine leaves files behind.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::net::sys;

/// Most bytes read from another process's file.
const NUMBER: u64 = 20;

/// The pidfile of this process. Removed when dropped.
#[derive(Debug)]
pub struct Pidfile {
    file: File,
    path: PathBuf,
    /// It belongs to another process now.
    given_away: bool,
}

impl Pidfile {
    /// Opens or creates the file and locks it. Its content is kept until [`Pidfile::write`].
    ///
    /// # Errors
    /// One sentence, with the process that holds the lock, if another does.
    pub fn claim(path: &Path) -> Result<Pidfile, String> {
        let shown = path.display();
        loop {
            let mut file =
                open(path).map_err(|error| format!("cannot write pidfile {shown}: {error}"))?;
            match sys::lock(&file) {
                Ok(true) => {}
                Ok(false) => return Err(in_use(path, &mut file)),
                Err(error) => return Err(format!("cannot lock pidfile {shown}: {error}")),
            }
            // Its last owner may have removed it between our open and our lock: then we have
            // locked a file that no other process can open.
            if is_at(&file, path) {
                return Ok(Pidfile { file, path: absolute(path), given_away: false });
            }
        }
    }

    /// The file that the program which this one replaces has locked. The lock belongs to the open
    /// file, which both have. `None` if it is another one than that at `path`. It is left to the old program
    /// until [`Pidfile::give_away`] says otherwise.
    #[must_use]
    pub fn inherit(file: File, path: &Path) -> Option<Pidfile> {
        let path = absolute(path);
        is_at(&file, &path).then_some(Pidfile { file, path, given_away: true })
    }

    /// The open file, for [`Pidfile::inherit`].
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Leaves the file to the program that has inherited it, or takes it back.
    pub fn give_away(&mut self, given_away: bool) {
        self.given_away = given_away;
    }

    /// Writes the process ID.
    ///
    /// # Errors
    /// As write(2).
    pub fn write(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}", std::process::id())
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if self.given_away {
            return;
        }
        // Without root we may not be allowed to remove it; an empty file does no harm.
        if std::fs::remove_file(&self.path).is_err() {
            let _ = self.file.set_len(0);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path)
}

/// Still valid after a change of directory.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn is_at(file: &File, path: &Path) -> bool {
    let place = |data: std::fs::Metadata| (data.dev(), data.ino());
    match (file.metadata().map(place), std::fs::metadata(path).map(place)) {
        (Ok(ours), Ok(there)) => ours == there,
        _ => false,
    }
}

fn in_use(path: &Path, file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.take(NUMBER).read_to_string(&mut text);
    let owner = match text.trim().parse::<u32>() {
        Ok(number) => format!("process {number}"),
        Err(_) => "a process that is just starting".to_owned(),
    };
    format!("pidfile {} is held by {owner}: it is already running", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let file = format!("cloudbridge-{name}-{}.pid", std::process::id());
            Place(std::env::temp_dir().join(file))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn pidfile_has_the_process_id_until_dropped() {
        let place = Place::new("holds");
        let mut pidfile = Pidfile::claim(&place.0).unwrap();
        pidfile.write().unwrap();
        let text = std::fs::read_to_string(&place.0).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        drop(pidfile);
        assert!(!place.0.exists());
    }

    #[test]
    fn a_second_process_is_refused_and_harms_nothing() {
        let place = Place::new("second");
        let mut pidfile = Pidfile::claim(&place.0).unwrap();
        let error = Pidfile::claim(&place.0).unwrap_err();
        assert!(
            error.ends_with("is held by a process that is just starting: it is already running")
        );
        pidfile.write().unwrap();
        let error = Pidfile::claim(&place.0).unwrap_err();
        let owner = format!("is held by process {}: it is already running", std::process::id());
        assert!(error.ends_with(&owner), "{error}");
        assert_ne!(std::fs::read_to_string(&place.0).unwrap(), "");
    }

    #[test]
    fn stale_pidfile_is_reused() {
        let place = Place::new("left");
        // Longer than ours, and the number of a process that lives: it does not hold the lock.
        std::fs::write(&place.0, "1\n                              \n").unwrap();
        Pidfile::claim(&place.0).unwrap().write().unwrap();
    }

    #[test]
    fn unwritable_pidfile_is_an_error() {
        let error = Pidfile::claim(Path::new("/nonexistent/a.pid")).unwrap_err();
        assert!(error.starts_with("cannot write pidfile /nonexistent/a.pid: No such"), "{error}");
    }
}
