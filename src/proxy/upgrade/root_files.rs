//! Files that root can read and the user of the settings cannot. A program that is to replace this
//! one is started by that user, and gets what they held in sealed files in memory.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use crate::config::{KeptFiles, ListenTls, MAX_FILE, Settings, Source};
use crate::net::sys;

/// The files that are read at the start, opened while this process is root.
pub(in crate::proxy) struct Opened(Vec<(PathBuf, File)>);

/// What those held that may not be read any more.
#[derive(Default)]
pub struct RootFiles(Vec<(PathBuf, File)>);

/// The files that a start with these settings reads.
pub(in crate::proxy) fn files_read<'s>(
    settings: &'s Settings,
    source: &'s Source,
) -> impl Iterator<Item = &'s Path> {
    let single = [
        &source.file,
        &settings.secrets,
        &settings.revoked,
        &settings.admin_token,
        &settings.tls_ticket_keys,
        &settings.sticky_secret,
        &settings.redis_password,
    ];
    // It is made with the first site.
    let updates = settings.updates_file.as_deref().filter(|path| path.exists());
    let of_sites = settings.site.iter().flat_map(|site| &site.error_pages);
    let pages = settings.error_page.iter().chain(of_sites).map(|page| &*page.file);
    let waiting = settings.site.iter().filter_map(|site| site.on_demand.page.as_deref());
    let pages = pages.chain(waiting);
    let of_tls = settings.listen.iter().filter_map(|listen| listen.tls.as_ref());
    let of_servers = settings.site.iter().flat_map(|site| site.tls.files());
    let of_tls = of_tls.flat_map(ListenTls::files).chain(of_servers).map(PathBuf::as_path);
    single.into_iter().filter_map(Option::as_deref).chain(updates).chain(pages).chain(of_tls)
}

impl Opened {
    pub(in crate::proxy) fn all(settings: &Settings, source: &Source) -> Opened {
        let paths = files_read(settings, source);
        let open = |path: &Path| Some((path.to_owned(), File::open(path).ok()?));
        Opened(paths.filter_map(open).collect())
    }

    /// Keeps what this process, which is another user by now, may not read.
    ///
    /// # Errors
    /// One sentence.
    pub(in crate::proxy) fn keep(self, kept: &mut RootFiles) -> Result<(), String> {
        for (path, file) in self.0 {
            if File::open(&path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            {
                let shown = path.display();
                let file = seal(file).map_err(|error| format!("cannot keep {shown}: {error}"))?;
                kept.0.push((path, file));
            }
        }
        Ok(())
    }
}

fn seal(file: File) -> io::Result<File> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    sys::sealed_file(c"cloudbridge: a file that only root may read", &bytes)
}

impl RootFiles {
    pub(super) fn add(&mut self, path: PathBuf, file: File) {
        self.0.push((path, file));
    }

    pub(in crate::proxy) fn iter(&self) -> impl Iterator<Item = (&Path, &File)> {
        self.0.iter().map(|(path, file)| (&**path, file))
    }

    /// What they held.
    ///
    /// # Errors
    /// As read(2).
    pub fn read(&self) -> io::Result<KeptFiles> {
        let mut kept = KeptFiles::default();
        for (path, file) in &self.0 {
            let mut bytes = Vec::new();
            let mut file = file;
            file.rewind()?;
            file.read_to_end(&mut bytes)?;
            kept.add(path.clone(), bytes);
        }
        Ok(kept)
    }

    /// Keeps other processes of this user from them.
    pub(in crate::proxy) fn protect(&self) {
        if !self.0.is_empty() {
            sys::protect_memory();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_sealed_file_holds_what_it_was_made_of_and_cannot_be_changed() {
        let mut sealed = sys::sealed_file(c"test", b"sesame").unwrap();
        assert!(sealed.write_all(b"other").is_err());
        assert!(sealed.set_len(0).is_err());
        let mut files = RootFiles::default();
        files.add("/etc/secrets".into(), sealed);
        let mut expected = KeptFiles::default();
        expected.add("/etc/secrets".into(), b"sesame".to_vec());
        // As often as it is asked for.
        assert!(files.read().unwrap() == expected && files.read().unwrap() == expected);
    }
}
