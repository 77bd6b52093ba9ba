//! A folder of files, and a proxy that serves it.

use crate::common::{Dir, Proxy, Setup};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// When the files were last modified, as `Last-Modified` has it.
pub const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// The tag of a file that was modified then, with this many bytes.
pub fn tag(size: usize) -> String {
    format!("\"2ebc98a1.1-{size:x}\"")
}

/// A folder with files that are as old as [`MODIFIED`].
#[derive(Debug)]
pub struct Tree(Dir);

impl Tree {
    pub fn new(files: &[(&str, &str)]) -> Tree {
        let tree = Tree(Dir::new());
        files.iter().for_each(|(name, contents)| _ = tree.write(name, contents));
        tree
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file in place, with the folders on its way.
    #[track_caller]
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders of the test");
        fs::write(&path, contents).expect("a file of the test");
        let file = File::options().write(true).open(&path).expect("a file of the test");
        let modified = UNIX_EPOCH + Duration::new(784_111_777, 1);
        file.set_modified(modified).expect("a time for the file");
        path
    }

    /// Puts a new file in the place of an old one.
    #[track_caller]
    pub fn replace(&self, name: &str, contents: impl AsRef<[u8]>) {
        let new = self.write("new-file-of-the-test", contents);
        fs::rename(new, self.0.path().join(name)).expect("rename");
    }

    /// A proxy with a site `a.test` that has this folder as its `docroot`, and these options more.
    #[track_caller]
    pub fn serve(&self, options: &str) -> Proxy {
        self.setup(options).start()
    }

    /// The same, before it is started.
    pub fn setup(&self, options: &str) -> Setup {
        let docroot = self.path().display();
        Setup::new().settings(&format!("site a.test docroot={docroot} {options}"))
    }
}
