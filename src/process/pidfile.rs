//! The pidfile: the process's number for scripts, and the lock that keeps a second process out.
//!
//! The lock (flock) and not the number says whether the process lives: numbers are given out again,
//! and a machine that lost its power leaves files behind.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::net::sys;

/// Longest number that is read from a file that somebody else wrote, in bytes.
const NUMBER: u64 = 20;

/// A pidfile that is this process's. Dropping it removes it.
#[derive(Debug)]
pub struct Pidfile {
    file: File,
    path: PathBuf,
}

impl Pidfile {
    /// Opens or makes the file and locks it. What stands in it stays until [`Pidfile::write`].
    ///
    /// # Errors
    /// One sentence; when another process holds the lock, with its number.
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
            // Its last owner may have removed it between our open and our lock: then the lock is
            // on a file that nobody else will ever find.
            if is_at(&file, path) {
                return Ok(Pidfile { file, path: absolute(path) });
            }
        }
    }

    /// Writes this process's number.
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
        // Whoever is no longer root may not be allowed to remove it. An empty file misleads nobody.
        if std::fs::remove_file(&self.path).is_err() {
            let _ = self.file.set_len(0);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path)
}

/// The path as it will be found after a change of directory.
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
        // It has not served yet.
        Err(_) => "a process that is just starting".to_owned(),
    };
    format!("pidfile {} is held by {owner}: it runs already", path.display())
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
    fn it_holds_the_number_while_the_process_lives() {
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
        assert!(error.ends_with("is held by a process that is just starting: it runs already"));
        pidfile.write().unwrap();
        let error = Pidfile::claim(&place.0).unwrap_err();
        let owner = format!("is held by process {}: it runs already", std::process::id());
        assert!(error.ends_with(&owner), "{error}");
        assert_ne!(std::fs::read_to_string(&place.0).unwrap(), "");
    }

    #[test]
    fn one_that_was_left_behind_is_taken_over() {
        let place = Place::new("left");
        // Longer than ours, and the number of a process that lives: it does not hold the lock.
        std::fs::write(&place.0, "1\n                              \n").unwrap();
        Pidfile::claim(&place.0).unwrap().write().unwrap();
    }

    #[test]
    fn a_place_that_cannot_be_written_is_one_sentence() {
        let error = Pidfile::claim(Path::new("/nonexistent/a.pid")).unwrap_err();
        assert!(error.starts_with("cannot write pidfile /nonexistent/a.pid: No such"), "{error}");
    }
}
