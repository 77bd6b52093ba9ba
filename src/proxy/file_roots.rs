//! The folders of the sites whose files are served.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::config::{Settings, Site};
use crate::files::Root;

/// The folders of all sites. Sites with the same folder share it.
#[derive(Clone, Default)]
pub(super) struct FileRoots {
    all: Vec<Arc<Root>>,
    /// By the sites' names.
    sites: HashMap<String, SiteRoots>,
}

/// Those of one site, by their places among all.
#[derive(Clone, Copy, Default)]
struct SiteRoots {
    docroot: Option<usize>,
    pages: Option<usize>,
    sendfile: Option<usize>,
}

/// The folders of a site.
#[derive(Clone, Copy)]
pub(super) struct OfSite<'a> {
    pub(super) docroot: Option<&'a Arc<Root>>,
    pub(super) pages: Option<&'a Arc<Root>>,
    pub(super) sendfile: Option<&'a Arc<Root>>,
}

impl FileRoots {
    /// Opens the folders that the settings name.
    ///
    /// # Errors
    /// What is wrong with them, one sentence each.
    pub(super) fn open(settings: &Settings) -> Result<FileRoots, Vec<String>> {
        let (mut roots, mut wrong) = (FileRoots::default(), Vec::new());
        for site in settings.site.iter().filter(|site| site.files.any()) {
            let mut open = |option: &str, path: &Option<_>| {
                let path: &Path = path.as_deref()?;
                let opened = roots.place_of(path, site.files.symlinks == Some(true));
                let name = site.name();
                let problem = |error| {
                    format!("site {name}: {option}: cannot open {}: {error}", path.display())
                };
                opened.map_err(|error| wrong.push(problem(error))).ok()
            };
            let own = SiteRoots {
                docroot: open("docroot", &site.files.docroot),
                pages: open("pages", &site.files.pages),
                sendfile: open("sendfile-root", &site.files.sendfile_root),
            };
            roots.sites.insert(site.name().to_owned(), own);
        }
        if wrong.is_empty() { Ok(roots) } else { Err(wrong) }
    }

    fn place_of(&mut self, path: &Path, follows: bool) -> std::io::Result<usize> {
        if let Some(at) = self.all.iter().position(|root| root.is_like(path, follows)) {
            return Ok(at);
        }
        self.all.push(Arc::new(Root::open(path, follows)?));
        Ok(self.all.len() - 1)
    }

    /// Keeps those of `old` that are the same, with their threads; they are looked at again.
    pub(super) fn take_over(&mut self, old: &FileRoots) {
        for root in &mut self.all {
            let is_same = |known: &&Arc<Root>| known.is_like(&root.path, root.follows());
            if let Some(known) = old.all.iter().find(is_same) {
                known.look_again();
                *root = Arc::clone(known);
            }
        }
    }

    /// Whether there are any.
    pub(super) fn any(&self) -> bool {
        !self.all.is_empty()
    }

    /// All folders, each once.
    pub(super) fn all(&self) -> &[Arc<Root>] {
        &self.all
    }

    /// Those of `site`.
    pub(super) fn of(&self, site: &Site) -> Option<OfSite<'_>> {
        let own = self.sites.get(site.name())?;
        let get = |at: Option<usize>| at.and_then(|at| self.all.get(at));
        Some(OfSite {
            docroot: get(own.docroot),
            pages: get(own.pages),
            sendfile: get(own.sendfile),
        })
    }

    /// The folder with this number.
    pub(super) fn by_id(&self, id: u32) -> Option<&Arc<Root>> {
        self.all.iter().find(|root| root.id == id)
    }
}
