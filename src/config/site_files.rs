//! The options of a site about files: `docroot=`, `hidden=`, `symlinks=`, `cache-control=`, `pages=`,
//! `suffixes=` and `sendfile-root=`.

use super::path_pattern::PathPattern;
use super::tokens::quote;
use super::values::{path, quoted, yes_no};
use std::fmt;
use std::path::PathBuf;

/// The names of the options.
pub(super) const FILES_OPTIONS: [&str; 7] =
    ["docroot", "hidden", "symlinks", "cache-control", "pages", "suffixes", "sendfile-root"];

/// What stands for the end of every name in `cache-control=`.
const ANY: &str = "*";

/// Which files a site serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteFiles {
    /// The folder that GET and HEAD look in before the backends.
    pub docroot: Option<PathBuf>,
    /// Paths in which this finds a match are for the backends.
    pub hidden: Option<PathPattern>,
    /// Whether symbolic links below the folders are followed.
    pub symlinks: Option<bool>,
    /// In the order of the line.
    pub cache_control: Vec<CacheControl>,
    /// The folder of pages that the application has stored.
    pub pages: Option<PathBuf>,
    /// How the names of these pages end, without a dot; only if there are pages.
    pub suffixes: Vec<String>,
    /// The folder of the files that backends name.
    pub sendfile_root: Option<PathBuf>,
}

/// The `Cache-Control` of files whose names end in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheControl {
    /// How the names end; empty for all.
    pub suffixes: Vec<String>,
    /// The field's value.
    pub value: String,
}

impl SiteFiles {
    /// Sets one of [`FILES_OPTIONS`].
    ///
    /// # Errors
    /// One sentence without the option's name.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "docroot" => self.docroot = Some(folder(value)?),
            "hidden" => self.hidden = Some(PathPattern::new(value)?),
            "symlinks" => self.symlinks = Some(yes_no(value)?),
            "cache-control" => self.cache_control.push(CacheControl::read(value)?),
            "pages" => self.pages = Some(folder(value)?),
            "suffixes" => {
                self.suffixes = value.split(',').map(suffix).collect::<Result<_, _>>()?;
            }
            _ => self.sendfile_root = Some(folder(value)?),
        }
        Ok(())
    }

    /// Whether there is any folder.
    pub(crate) fn any(&self) -> bool {
        self.docroot.is_some() || self.pages.is_some() || self.sendfile_root.is_some()
    }

    /// Whether the options of a line belong together.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.pages.is_some() && self.suffixes.is_empty() {
            return Err("pages needs suffixes, such as suffixes=html".to_owned());
        }
        let has_files = self.docroot.is_some() || self.pages.is_some();
        for (option, given, lacks) in [
            ("suffixes", !self.suffixes.is_empty(), self.pages.is_none().then_some("pages")),
            ("hidden", self.hidden.is_some(), (!has_files).then_some("docroot or pages")),
            (
                "cache-control",
                !self.cache_control.is_empty(),
                (!has_files).then_some("docroot or pages"),
            ),
            (
                "symlinks",
                self.symlinks.is_some(),
                (!self.any()).then_some("docroot, pages or sendfile-root"),
            ),
        ] {
            if let Some(lacks) = lacks.filter(|_| given) {
                return Err(format!("{option} is for {lacks}, and there is none"));
            }
        }
        Ok(())
    }

    /// The value of `Cache-Control` for the file of this name: that of the first option that fits.
    pub(crate) fn cache_control_of(&self, name: &[u8]) -> Option<&str> {
        let fits = |own: &&CacheControl| {
            own.suffixes.is_empty()
                || own.suffixes.iter().any(|suffix| name.ends_with(suffix.as_bytes()))
        };
        self.cache_control.iter().find(fits).map(|own| &*own.value)
    }
}

impl CacheControl {
    /// Reads `.css,.js:VALUE`, or `*:VALUE`.
    fn read(value: &str) -> Result<CacheControl, String> {
        let form = || {
            format!(
                "{} is not SUFFIX[,SUFFIX...]:VALUE, such as .css,.js:max-age=3600",
                quoted(value)
            )
        };
        let (suffixes, value) = value.split_once(':').ok_or_else(form)?;
        let is_value =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !is_value(value) || value.trim() != value {
            return Err(form());
        }
        let suffixes = match suffixes {
            ANY => Vec::new(),
            list => list.split(',').map(str::to_owned).collect(),
        };
        let is_suffix = |word: &String| !word.is_empty() && !word.contains(['/', '*']);
        if !suffixes.iter().all(is_suffix) {
            return Err(form());
        }
        Ok(CacheControl { suffixes, value: value.to_owned() })
    }
}

fn folder(value: &str) -> Result<PathBuf, String> {
    let folder = path(value)?;
    if !folder.is_absolute() {
        return Err(format!("{} is not an absolute path", quoted(value)));
    }
    Ok(folder)
}

fn suffix(word: &str) -> Result<String, String> {
    let bare = word.strip_prefix('.').unwrap_or(word);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if bare.is_empty() || !bare.bytes().all(is_plain) {
        return Err(format!("{} is not the end of a name, such as html", quoted(word)));
    }
    Ok(bare.to_owned())
}

/// As the options are written, each with a space in front.
impl fmt::Display for SiteFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(folder) = &self.docroot {
            write!(f, " docroot={}", folder.display())?;
        }
        if let Some(pattern) = &self.hidden {
            write!(f, " {}", quote(&format!("hidden={}", pattern.regex())))?;
        }
        if let Some(follows) = self.symlinks {
            write!(f, " symlinks={}", if follows { "yes" } else { "no" })?;
        }
        for CacheControl { suffixes, value } in &self.cache_control {
            let list = if suffixes.is_empty() { ANY.to_owned() } else { suffixes.join(",") };
            let quotes = if value.contains(' ') { "\"" } else { "" };
            write!(f, " {quotes}cache-control={list}:{value}{quotes}")?;
        }
        if let Some(folder) = &self.pages {
            write!(f, " pages={} suffixes={}", folder.display(), self.suffixes.join(","))?;
        }
        if let Some(folder) = &self.sendfile_root {
            write!(f, " sendfile-root={}", folder.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<SiteFiles, String> {
        let mut files = SiteFiles::default();
        for (name, value) in options {
            files.set(name, value)?;
        }
        files.check().map(|()| files)
    }

    #[test]
    fn options_are_read_and_shown() {
        assert_eq!(read(&[]).unwrap().to_string(), "");
        let all = read(&[
            ("docroot", "/srv/a"),
            ("hidden", "^/private/"),
            ("symlinks", "yes"),
            ("cache-control", ".css,.js:public, max-age=3600"),
            ("cache-control", "*:no-cache"),
            ("pages", "/srv/b"),
            ("suffixes", "html,.htm"),
            ("sendfile-root", "/srv/c"),
        ]);
        let all = all.unwrap();
        assert_eq!(
            all.to_string(),
            " docroot=/srv/a hidden=^/private/ symlinks=yes \
             \"cache-control=.css,.js:public, max-age=3600\" cache-control=*:no-cache \
             pages=/srv/b suffixes=html,htm sendfile-root=/srv/c"
        );
        assert_eq!(all.cache_control_of(b"/a/b.css"), Some("public, max-age=3600"));
        assert_eq!(all.cache_control_of(b"/a/b.html"), Some("no-cache"));
    }

    #[test]
    fn errors_are_one_sentence() {
        for (options, what) in [
            (&[("docroot", "a")][..], "\"a\" is not an absolute path"),
            (&[("docroot", "")], "the path is empty"),
            (&[("pages", "/a")], "pages needs suffixes, such as suffixes=html"),
            (&[("suffixes", "html")], "suffixes is for pages, and there is none"),
            (&[("hidden", "a")], "hidden is for docroot or pages, and there is none"),
            (
                &[("sendfile-root", "/a"), ("cache-control", "*:x")],
                "cache-control is for docroot or pages, and there is none",
            ),
            (
                &[("symlinks", "no")],
                "symlinks is for docroot, pages or sendfile-root, and there is none",
            ),
            (&[("symlinks", "maybe")], "\"maybe\" is not yes or no"),
            (
                &[("cache-control", "no-cache")],
                "\"no-cache\" is not SUFFIX[,SUFFIX...]:VALUE, such as .css,.js:max-age=3600",
            ),
            (
                &[("cache-control", ".a,:x")],
                "\".a,:x\" is not SUFFIX[,SUFFIX...]:VALUE, such as .css,.js:max-age=3600",
            ),
            (&[("suffixes", "html,")], "\"\" is not the end of a name, such as html"),
            (&[("suffixes", "a/b")], "\"a/b\" is not the end of a name, such as html"),
        ] {
            assert_eq!(read(options).unwrap_err(), what, "{options:?}");
        }
        assert!(read(&[("hidden", "(")]).unwrap_err().contains("is not a regular expression"));
    }
}
