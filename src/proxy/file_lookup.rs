//! Which file answers a request, if one does.

use std::sync::Arc;

use crate::config::Site;
use crate::exchange::RequestMeta;
use crate::files::{Cache, Known, Opened, Planned, Root, Way, name};
use crate::http::request::Request;
use crate::time::{Micros, Millis};

use super::file_roots::OfSite;

/// What a worker knows of files.
#[derive(Default)]
pub(super) struct Lookups {
    pub(super) cache: Cache,
    /// Room for the path of a request, decoded, and for the name of a file.
    path: Vec<u8>,
    name: Vec<u8>,
}

/// What a search for a file has found.
pub(super) enum Found {
    /// The request is for the backends.
    Nothing,
    /// This file; its name is in [`Lookups::name`].
    File(Arc<crate::files::OpenFile>),
    /// A thread must open it.
    Later(ToOpen),
    /// No descriptors or memory are left.
    Shortage,
}

/// A file that a thread must open.
pub(super) struct ToOpen {
    pub(super) root: Arc<Root>,
    pub(super) name: Vec<u8>,
    /// Which of the names it is that the request may mean.
    pub(super) at: usize,
    pub(super) is_head: bool,
}

/// What a thread has found for a request.
pub(super) struct Looked {
    pub(super) at: usize,
    pub(super) opened: Opened,
    /// When the request's head was whole.
    pub(super) received: Micros,
}

/// A response whose head is in the workspace.
pub(super) struct FromFile {
    pub(super) planned: Planned,
    /// Bytes of the request's head.
    pub(super) request: usize,
    pub(super) is_head: bool,
    pub(super) close: bool,
    pub(super) received: Micros,
}

/// Whether a request may be answered from a file.
pub(super) fn may_be_file(request: &Request<'_, '_>, meta: &RequestMeta) -> bool {
    matches!(request.method, "GET" | "HEAD") && !meta.has_body() && !request.upgrade
}

impl Lookups {
    /// The name of the file that was found last.
    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Searches for the file that a request for `site` means: below `docroot`, then below `pages`.
    pub(super) fn search(
        &mut self,
        (site, roots): (&Site, OfSite<'_>),
        request: &Request<'_, '_>,
        mut looked: Option<Looked>,
        now: Millis,
    ) -> Found {
        if !name::read(request.path, &mut self.path) {
            return Found::Nothing;
        }
        let hidden = site.files.hidden.as_ref();
        if hidden.is_some_and(|hidden| hidden.regex().is_match(&self.path)) {
            return Found::Nothing;
        }
        // A page is of a path alone.
        let pages = roots.pages.filter(|_| !request.target.contains('?'));
        let first = looked.as_ref().map_or(0, |looked| looked.at);
        for at in first.. {
            self.name.clear();
            let root = if at == 0 {
                index_name(&self.path, &mut self.name);
                roots.docroot
            } else {
                let Some(pages) = pages else { break };
                let suffixes = &site.files.suffixes;
                match page_name(&self.path, at - 1, suffixes, &mut self.name) {
                    Some(is_name) => is_name.then_some(pages),
                    None => break,
                }
            };
            let Some(root) = root else { continue };
            let opened = match looked.take() {
                Some(looked) => looked.opened,
                None => self.open(root, true, now),
            };
            match opened {
                Opened::File(file) => return Found::File(file),
                Opened::Missing => {}
                Opened::Shortage => return Found::Shortage,
                Opened::NotNow => {
                    let (root, name) = (Arc::clone(root), self.name.clone());
                    let is_head = request.method == "HEAD";
                    return Found::Later(ToOpen { root, name, at, is_head });
                }
            }
        }
        Found::Nothing
    }

    /// Opens the file of a name that a backend has given, at once.
    pub(super) fn open_named(&mut self, root: &Arc<Root>, name: &[u8], now: Millis) -> Opened {
        self.name.clear();
        self.name.extend_from_slice(name);
        self.open(root, false, now)
    }

    fn open(&mut self, root: &Arc<Root>, with_siblings: bool, now: Millis) -> Opened {
        let number = number(root, with_siblings);
        match self.cache.get(number, &self.name, now) {
            Some(Known::File(file)) => return Opened::File(file),
            Some(Known::Missing) => return Opened::Missing,
            None => {}
        }
        if root.is_look_due(now) {
            let looking = Arc::clone(root);
            root.readers.run(move || looking.look_again());
        }
        let opened = root.find(&self.name, Way::AtOnce, with_siblings);
        self.note(number, &opened, now);
        opened
    }

    /// Keeps what a thread has found.
    pub(super) fn note_looked(
        &mut self,
        (root, name): (&Root, &[u8]),
        with_siblings: bool,
        opened: &Opened,
        now: Millis,
    ) {
        self.name.clear();
        self.name.extend_from_slice(name);
        self.note(number(root, with_siblings), opened, now);
    }

    fn note(&mut self, number: u32, opened: &Opened, now: Millis) {
        match opened {
            Opened::File(file) => {
                self.cache.put(number, &self.name, Known::File(Arc::clone(file)), now);
            }
            Opened::Missing => self.cache.put(number, &self.name, Known::Missing, now),
            Opened::NotNow => {}
            // What is kept may be what is lacking.
            Opened::Shortage => self.cache.clear(),
        }
    }
}

/// The number under which the cache has a file: with what belongs to it in other codings, or alone.
fn number(root: &Root, with_siblings: bool) -> u32 {
    root.id << 1 | u32::from(with_siblings)
}

/// Writes the name below `docroot` for a path.
fn index_name(path: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(&path[1..]);
    if path.ends_with(b"/") {
        into.extend_from_slice(name::INDEX);
    }
}

/// Writes the name below `pages` that comes at this place, as Rails stores pages: `/a/b` is `a/b.html`,
/// `/` is `index.html`, and `/a/` is `a/index.html` or `a.html`; a name with a dot may be whole. False if
/// there is none at this place, and `None` if none follows.
fn page_name(path: &[u8], place: usize, suffixes: &[String], into: &mut Vec<u8>) -> Option<bool> {
    let (bare, whole) = match path.strip_suffix(b"/") {
        Some(folder) => (folder, false),
        None => (path, true),
    };
    let count = suffixes.len();
    if whole && place == 0 {
        into.extend_from_slice(&path[1..]);
        let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        return Some(last.contains(&b'.'));
    }
    // Where the suffixes begin again: `/a/index.html`, then `/a.html`.
    let place = if whole { place - 1 } else { place };
    let (suffix, is_index) = match (whole, place) {
        (false, place) if place < count => (&suffixes[place], true),
        (false, place) if place < 2 * count && !bare.is_empty() => {
            (&suffixes[place - count], false)
        }
        (true, place) if place < count => (&suffixes[place], false),
        _ => return None,
    };
    into.extend_from_slice(bare.strip_prefix(b"/").unwrap_or(bare));
    if is_index {
        if !into.is_empty() {
            into.push(b'/');
        }
        into.extend_from_slice(b"index");
    }
    into.push(b'.');
    into.extend_from_slice(suffix.as_bytes());
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(path: &str) -> Vec<String> {
        let suffixes = ["html".to_owned(), "htm".to_owned()];
        let mut names = Vec::new();
        for place in 0.. {
            let mut name = Vec::new();
            match page_name(path.as_bytes(), place, &suffixes, &mut name) {
                None => break,
                Some(true) => names.push(String::from_utf8(name).unwrap()),
                Some(false) => {}
            }
        }
        names
    }

    #[test]
    fn pages_are_named_as_rails_names_them() {
        assert_eq!(pages("/"), ["index.html", "index.htm"]);
        assert_eq!(pages("/a"), ["a.html", "a.htm"]);
        assert_eq!(pages("/a/b"), ["a/b.html", "a/b.htm"]);
        assert_eq!(pages("/a.b/c"), ["a.b/c.html", "a.b/c.htm"]);
        assert_eq!(pages("/feed.xml"), ["feed.xml", "feed.xml.html", "feed.xml.htm"]);
        assert_eq!(pages("/a/"), ["a/index.html", "a/index.htm", "a.html", "a.htm"]);
    }

    #[test]
    fn a_folder_means_its_index() {
        for (path, name) in [("/", "index.html"), ("/a/", "a/index.html"), ("/a", "a")] {
            let mut found = Vec::new();
            index_name(path.as_bytes(), &mut found);
            assert_eq!(found, name.as_bytes());
        }
    }
}
