//! A folder whose files are served, and how they are opened.

use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::http::Coding;
use crate::net::sys::{self, Beneath};
use crate::net::threads::{Bounds, Threads};
use crate::time::Millis;

use super::cache::VALID;
use super::file::{Nearness, OpenFile, Source};
use super::name::is_below;

/// The threads of a folder, which may wait for its disk: enough to keep that busy. One that has stopped
/// must not collect requests without bound.
const READERS: Bounds = Bounds { name: "files", task: "read files", threads: 4, queue: 512 };

/// How often a file is opened again whose way has changed while it was opened.
const ATTEMPTS: usize = 16;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// By an event loop: only if that takes no wait.
    AtOnce,
    /// By a thread that may wait.
    Waiting,
}

/// What became of opening a file.
pub(crate) enum Opened {
    /// It is there.
    File(Arc<OpenFile>),
    /// There is no such file, or it is not to be served: a folder, a device, a link that leads out of the
    /// folder, one without permission.
    Missing,
    /// It cannot be said at once.
    NotNow,
    /// No descriptors or memory are left.
    Shortage,
}

/// A folder below which files are served.
pub(crate) struct Root {
    /// Its number in this process.
    pub(crate) id: u32,
    /// As in the settings.
    pub(crate) path: PathBuf,
    /// Symbolic links below it are followed.
    follows: bool,
    folder: Mutex<Arc<Folder>>,
    /// When its path was last looked at, in milliseconds.
    looked_at: AtomicU64,
    /// That something may not be read has been logged.
    is_denied_logged: AtomicBool,
    pub(crate) readers: Threads,
}

/// What the path of a root means.
struct Folder {
    file: File,
    nearness: Nearness,
    /// Device and number.
    identity: (u64, u64),
    /// Its path without symbolic links.
    real: PathBuf,
}

impl Folder {
    fn open(path: &Path) -> io::Result<Folder> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        // A file system need not say what it is.
        let nearness = sys::file_system(&file).map_or(Nearness::Remote, Nearness::of);
        let identity = (metadata.dev(), metadata.ino());
        Ok(Folder { file, nearness, identity, real: path.canonicalize()? })
    }
}

impl Root {
    /// The folder at `path`.
    ///
    /// # Errors
    /// As open(2); `Unsupported` if the kernel has no openat2(2).
    pub(crate) fn open(path: &Path, follows: bool) -> io::Result<Root> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let folder = Folder::open(path)?;
        let how = Beneath { follows, is_cached: false, stays: false };
        match sys::open_beneath(folder.file.as_fd(), c".", how) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "this kernel has no openat2, which Linux 5.6 has",
                ));
            }
            // It need not be readable.
            _ => {}
        }
        Ok(Root {
            id: NEXT.fetch_add(1, Ordering::Relaxed) as u32,
            path: path.to_owned(),
            follows,
            folder: Mutex::new(Arc::new(folder)),
            looked_at: AtomicU64::new(0),
            is_denied_logged: AtomicBool::new(false),
            readers: Threads::new(READERS),
        })
    }

    /// Whether another root is the same by the settings, so that it can stay.
    pub(crate) fn is_like(&self, path: &Path, follows: bool) -> bool {
        self.path == path && self.follows == follows
    }

    /// Whether symbolic links below it are followed.
    pub(crate) fn follows(&self) -> bool {
        self.follows
    }

    fn folder(&self) -> Arc<Folder> {
        Arc::clone(&self.folder.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the path should be looked at again: it may be a link that leads to another folder by now,
    /// as after a deployment. True for one of those that ask, every [`VALID`]; it must then have a thread
    /// call [`Root::look_again`].
    pub(crate) fn is_look_due(&self, now: Millis) -> bool {
        let last = self.looked_at.load(Ordering::Relaxed);
        now.since(Millis(last)) >= VALID
            && self
                .looked_at
                .compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Opens the folder that its path means by now. If it cannot be opened the old one stays.
    pub(crate) fn look_again(&self) {
        let Ok(new) = Folder::open(&self.path) else { return };
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if folder.identity != new.identity || folder.real != new.real {
            *folder = Arc::new(new);
        }
    }

    /// The name below this folder of the file at an absolute path, or of one that is relative to the
    /// folder; `None` if it is not below.
    pub(crate) fn name_of(&self, path: &[u8]) -> Option<Vec<u8>> {
        let folder = self.folder();
        let below = |root: &Path| {
            let root = root.as_os_str().as_encoded_bytes();
            let root = root.strip_suffix(b"/").unwrap_or(root);
            path.strip_prefix(root)?.strip_prefix(b"/")
        };
        let name = match path {
            [b'/', ..] => below(&self.path).or_else(|| below(&folder.real))?,
            relative => relative,
        };
        is_below(name).then(|| name.to_vec())
    }

    /// Opens a file, and those of the same name in other codings if `with_siblings`. The name has no
    /// slash in front.
    pub(crate) fn find(&self, name: &[u8], way: Way, with_siblings: bool) -> Opened {
        let folder = self.folder();
        if way == Way::AtOnce && folder.nearness == Nearness::Remote {
            return Opened::NotNow;
        }
        let source = match self.open_one(&folder, name, way) {
            Ok(source) => source,
            Err(unopened) => return unopened,
        };
        let mut siblings = [None, None, None];
        if with_siblings && Coding::ALL.iter().all(|own| !name.ends_with(own.suffix().as_bytes())) {
            for (coding, sibling) in Coding::ALL.into_iter().zip(&mut siblings) {
                let name = [name, coding.suffix().as_bytes()].concat();
                match self.open_one(&folder, &name, way) {
                    Ok(source) => *sibling = Some(source),
                    Err(Opened::NotNow) => return Opened::NotNow,
                    Err(_) => {}
                }
            }
        }
        let now = SystemTime::now();
        Opened::File(Arc::new(OpenFile::new(name, source, siblings, &self.readers, now)))
    }

    fn open_one(&self, folder: &Folder, name: &[u8], way: Way) -> Result<Source, Opened> {
        let Ok(name) = CString::new(name) else { return Err(Opened::Missing) };
        let file = self.open_beneath(folder, &name, way)?;
        let metadata = file.metadata().map_err(|_| Opened::Missing)?;
        if !metadata.is_file() {
            return Err(Opened::Missing);
        }
        // The way may have led to another file system.
        let nearness = match way {
            Way::AtOnce => folder.nearness,
            Way::Waiting => sys::file_system(&file).map_or(Nearness::Remote, Nearness::of),
        };
        Ok(Source { file, metadata, nearness })
    }

    fn open_beneath(&self, folder: &Folder, name: &CStr, way: Way) -> Result<File, Opened> {
        let at_once = way == Way::AtOnce;
        let is_cached = at_once && folder.nearness == Nearness::Disk;
        let how = Beneath { follows: self.follows, is_cached, stays: at_once };
        for _ in 0..ATTEMPTS {
            let error = match sys::open_beneath(folder.file.as_fd(), name, how) {
                Ok(file) => return Ok(file.into()),
                Err(error) => error,
            };
            return Err(match error.raw_os_error() {
                Some(libc::EINTR) => continue,
                Some(libc::EAGAIN) if !at_once => continue,
                // A kernel that cannot fail rather than wait says EINVAL.
                Some(libc::EAGAIN | libc::EXDEV | libc::EINVAL) if at_once => Opened::NotNow,
                Some(libc::EACCES | libc::EPERM) => {
                    self.note_denied(name);
                    Opened::Missing
                }
                _ if sys::is_shortage(&error) => Opened::Shortage,
                _ => Opened::Missing,
            });
        }
        Err(Opened::Missing)
    }

    fn note_denied(&self, name: &CStr) {
        if !self.is_denied_logged.swap(true, Ordering::Relaxed) {
            let (root, name) = (self.path.display(), name.to_string_lossy());
            log::warn!(
                "{root}/{name:?} may not be read, so requests for it go to the backends; others like it \
                 in {root} are not logged"
            );
        }
    }
}
