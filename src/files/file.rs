//! A file that is open, and what responses say of it.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::http::{Coding, Codings, Validators};
use crate::net::threads::Threads;

/// For how long after a change a file's tag is weak: it may change again and have the same time.
/// Kernels before 6.13 stamp files with the time of their last tick, 1 to 10 ms ago; some file systems
/// keep seconds, or two.
const FRESH: Duration = Duration::from_secs(2);

/// How far a file is from the processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Nearness {
    /// Its file system is in memory: nothing waits.
    Memory,
    /// On a disk of this machine, whose file system fails rather than waits if it is told to.
    Disk,
    /// Behind a network or another process, where anything may wait.
    Remote,
}

impl Nearness {
    /// By the magic number of a file system (statfs(2)). What is not known here is remote.
    pub(crate) fn of(file_system: u64) -> Nearness {
        match file_system {
            // tmpfs, ramfs.
            0x0102_1994 | 0x8584_58f6 => Nearness::Memory,
            // ext2 to ext4, XFS, Btrfs, F2FS, ZFS, bcachefs, overlayfs, squashfs, EROFS, ISO 9660, VFAT,
            // exFAT.
            0xef53 | 0x5846_5342 | 0x9123_683e | 0xf2f5_2010 | 0x2fc1_2fc1 | 0xca45_1a4e
            | 0x794c_7630 | 0x7371_7368 | 0xe0f5_e1e2 | 0x9660 | 0x4d44 | 0x2011_bab0 => {
                Nearness::Disk
            }
            _ => Nearness::Remote,
        }
    }
}

/// A file that has just been opened.
pub(super) struct Source {
    pub(super) file: File,
    pub(super) metadata: Metadata,
    pub(super) nearness: Nearness,
}

/// A file that is open.
pub(crate) struct OpenFile {
    pub(super) file: File,
    /// Those of its root.
    pub(crate) readers: Threads,
    pub(crate) size: u64,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
    pub(crate) nearness: Nearness,
    /// Its entity tag.
    tag: Box<str>,
    /// What responses with it, or about it, have: Last-Modified, ETag, and Vary and Content-Encoding if
    /// they apply.
    pub(super) fields: Box<[u8]>,
    pub(crate) media: Box<str>,
    /// The same in other codings; none if this is one of those.
    siblings: [Option<Arc<OpenFile>>; Coding::ALL.len()],
}

impl OpenFile {
    /// The file `name`, which has been opened; `siblings` are the same in other codings.
    pub(super) fn new(
        name: &[u8],
        source: Source,
        siblings: [Option<Source>; Coding::ALL.len()],
        readers: &Threads,
        now: SystemTime,
    ) -> OpenFile {
        let media = media(name);
        let varies = siblings.iter().any(Option::is_some);
        let mut own = [None, None, None];
        for ((coding, sibling), place) in Coding::ALL.into_iter().zip(siblings).zip(&mut own) {
            let file = |source| OpenFile::alone(source, &media, Some(coding), true, readers, now);
            *place = sibling.map(file).map(Arc::new);
        }
        OpenFile { siblings: own, ..OpenFile::alone(source, &media, None, varies, readers, now) }
    }

    fn alone(
        Source { file, metadata, nearness }: Source,
        media: &str,
        coding: Option<Coding>,
        varies: bool,
        readers: &Threads,
        now: SystemTime,
    ) -> OpenFile {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        let tag = tag(modified, metadata.len(), metadata.ino(), coding, now);
        OpenFile {
            file,
            readers: readers.clone(),
            size: metadata.len(),
            modified,
            nearness,
            fields: fields(modified, &tag, varies, coding),
            tag,
            media: media.into(),
            siblings: Default::default(),
        }
    }

    /// What it is compared by.
    pub(crate) fn validators(&self) -> Validators<'_> {
        Validators { tag: self.tag.as_bytes(), modified: self.modified.0.max(0).unsigned_abs() }
    }

    /// The form of it that a client with these fields takes best.
    pub(crate) fn best<'a>(
        self: &'a Arc<OpenFile>,
        accept_encoding: impl Iterator<Item = &'a [u8]>,
    ) -> &'a Arc<OpenFile> {
        if self.siblings.iter().all(Option::is_none) {
            return self;
        }
        let has = |coding: Coding| self.siblings[coding as usize].is_some();
        let best = Codings::of(accept_encoding).best(has);
        best.and_then(|coding| self.siblings[coding as usize].as_ref()).unwrap_or(self)
    }

    /// Whether the file is still what it was when it was opened. Only for one that is near: it asks the
    /// file system.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.file.metadata().is_ok_and(|now| {
            now.len() == self.size && (now.mtime(), now.mtime_nsec()) == self.modified
        })
    }
}

/// The entity tag of a file: the nanosecond in which it was modified, and its size.
///
/// Two contents of a file have the same size and nanosecond only if they were written within a tick of
/// the kernel's clock, so a tag made within [`FRESH`] of a change is weak; or if somebody has set the
/// time. Tools that do so mostly set whole seconds, and often the same for all files, so the number of
/// the file is added then: a file that replaces another has another. It is left out otherwise, so that
/// several machines with copies of the same files have the same tags.
fn tag(
    (seconds, nanos): (i64, i64),
    size: u64,
    number: u64,
    coding: Option<Coding>,
    now: SystemTime,
) -> Box<str> {
    let since = Duration::new(seconds.max(0).unsigned_abs(), nanos.unsigned_abs() as u32);
    let age = now.duration_since(UNIX_EPOCH + since).unwrap_or_default();
    let weak = if age < FRESH { "W/" } else { "" };
    let number = if nanos == 0 { format!("-{number:x}") } else { String::new() };
    let coding = coding.map_or(String::new(), |coding| format!("-{}", coding.name()));
    format!("{weak}\"{seconds:x}.{nanos:x}-{size:x}{number}{coding}\"").into()
}

fn fields((seconds, _): (i64, i64), tag: &str, varies: bool, coding: Option<Coding>) -> Box<[u8]> {
    let modified = UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs());
    let mut fields = Vec::new();
    // Writing to a Vec cannot fail. Nor has httpdate a year above 9999.
    if seconds < 253_402_300_800 {
        let _ = write!(fields, "Last-Modified: {}\r\n", httpdate::fmt_http_date(modified));
    }
    let _ = write!(fields, "ETag: {tag}\r\n");
    if varies {
        fields.extend_from_slice(b"Vary: Accept-Encoding\r\n");
    }
    if let Some(coding) = coding {
        let _ = write!(fields, "Content-Encoding: {}\r\n", coding.name());
    }
    fields.into()
}

/// The media type of a file by the end of its name. Text is UTF-8.
pub(crate) fn media(name: &[u8]) -> Box<str> {
    let guess = mime_guess::from_path(Path::new(OsStr::from_bytes(name)));
    match guess.first_raw() {
        Some(text) if text.starts_with("text/") => format!("{text}; charset=utf-8").into(),
        Some(other) => other.into(),
        None => "application/octet-stream".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_strong_once_the_file_has_rested() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let tag = |now| tag((1000, 5), 16, 7, None, at(now));
        assert_eq!(&*tag(1003), "\"3e8.5-10\"");
        assert_eq!(&*tag(1001), "W/\"3e8.5-10\"");
        // The clock was set back.
        assert_eq!(&*tag(900), "W/\"3e8.5-10\"");
    }

    #[test]
    fn a_time_that_was_set_is_not_trusted_alone() {
        let now = UNIX_EPOCH + Duration::from_secs(5000);
        let tag = |modified, coding| tag(modified, 16, 0xab, coding, now);
        assert_eq!(&*tag((1, 0), None), "\"1.0-10-ab\"");
        assert_eq!(&*tag((1, 1), Some(Coding::Gzip)), "\"1.1-10-gzip\"");
        assert_eq!(&*tag((-5, 1), None), "\"fffffffffffffffb.1-10\"");
    }

    #[test]
    fn types_are_known_by_the_end_of_the_name() {
        for (name, media_type) in [
            ("a/b.html", "text/html; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.PNG", "image/png"),
            ("a.svg", "image/svg+xml"),
            ("a.woff2", "font/woff2"),
            ("a.json", "application/json"),
            ("a.wasm", "application/wasm"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a", "application/octet-stream"),
            ("a.unknown-to-all", "application/octet-stream"),
        ] {
            assert_eq!(&*media(name.as_bytes()), media_type, "{name}");
        }
    }

    #[test]
    fn fields_say_what_the_file_is() {
        let text = |varies, coding| {
            String::from_utf8(fields((784_111_777, 0), "\"x\"", varies, coding).into()).unwrap()
        };
        assert_eq!(
            text(false, None),
            "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nETag: \"x\"\r\n"
        );
        assert_eq!(
            text(true, Some(Coding::Brotli)),
            "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nETag: \"x\"\r\n\
             Vary: Accept-Encoding\r\nContent-Encoding: br\r\n"
        );
    }
}
