//! Writes the file that keeps the sites that were made at run time (`updates-file`).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::config::{Settings, SiteUpdates};

/// Its permissions: there are keys in it.
const MODE: u32 = 0o600;

/// Keeps the sites that were made at run time, if a file is set for them. The file has either what it
/// had, or all of the new.
///
/// # Errors
/// Why it cannot be written, in one sentence. Then it is as it was.
pub(super) fn write(settings: &Settings, updates: &SiteUpdates) -> Result<(), String> {
    let Some(path) = &settings.updates_file else { return Ok(()) };
    replace(path, updates.to_text().as_bytes())
        .map_err(|error| format!("cannot write {}: {error}; nothing has changed", path.display()))
}

/// The same, where they have no file yet.
///
/// # Errors
/// Why it cannot be written, in one sentence.
pub(super) fn write_first(settings: &Settings, updates: &SiteUpdates) -> Result<(), String> {
    match &settings.updates_file {
        Some(path) if !updates.is_empty() && !path.exists() => write(settings, updates),
        _ => Ok(()),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut new = OsString::from(".");
    new.push(name);
    new.push(".new");
    let new = path.with_file_name(new);
    let written = write_new(&new, bytes).and_then(|()| fs::rename(&new, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    // The name is safe on the disk, too.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.map_or_else(|| PathBuf::from("."), Path::to_owned);
    if let Err(error) = File::open(&folder).and_then(|folder| folder.sync_all()) {
        log::warn!("{} may not have reached the disk: {error}", path.display());
    }
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // What a process that died has left.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Not through a link that somebody has put there.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = std::env::temp_dir().join(format!("cloudbridge-keep-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (path, new) = (folder.join("sites.conf"), folder.join(".sites.conf.new"));
        symlink("/etc/passwd", &new).unwrap();
        replace(&path, b"one").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        fs::create_dir(&new).unwrap();
        assert!(replace(&path, b"two").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        fs::remove_dir_all(&folder).unwrap();
        assert!(replace(&path, b"two").is_err());
    }
}
