//! Pages for answers of the proxy's own: the statuses that have one, and its file.

use super::values::{path, quoted};
use std::fmt;
use std::path::{Path, PathBuf};

/// A page: the file, and the statuses whose answers it is the body of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// 400 to 599, in the order of the line; never empty.
    pub statuses: Vec<u16>,
    /// The file, which is read at the start and at a reload.
    pub file: PathBuf,
    /// By the end of the file's name.
    pub media: PageMedia,
}

/// What a page is, and so how what is put into it is escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageMedia {
    /// `.html`
    Html,
    /// `.json`: what clients get that ask for JSON.
    Json,
    /// `.txt`
    Text,
}

impl PageMedia {
    fn of(file: &Path) -> Option<PageMedia> {
        match file.extension()?.to_str()? {
            "html" => Some(PageMedia::Html),
            "json" => Some(PageMedia::Json),
            "txt" => Some(PageMedia::Text),
            _ => None,
        }
    }

    /// Whether an answer has either this page or that one, and never both.
    fn rivals(self, other: PageMedia) -> bool {
        (self == PageMedia::Json) == (other == PageMedia::Json)
    }
}

impl ErrorPage {
    /// Reads `502,503,504` and the path of a file, and adds the page to `pages`.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn add(pages: &mut Vec<ErrorPage>, words: &str, file: &str) -> Result<(), String> {
        let mut statuses = Vec::new();
        for word in words.split(',') {
            let status = word.parse().ok().filter(|status| (400..600).contains(status));
            let Some(status) = status.filter(|_| word.len() == 3) else {
                return Err(format!("{} is not a status from 400 to 599", quoted(word)));
            };
            statuses.push(status);
        }
        let file = path(file)?;
        let Some(media) = PageMedia::of(&file) else {
            let shown = quoted(&file.to_string_lossy());
            return Err(format!("{shown} does not end in .html, .json or .txt"));
        };
        for (at, status) in statuses.iter().enumerate() {
            let mut others = pages.iter().filter(|other| other.statuses.contains(status));
            if statuses[..at].contains(status) || others.any(|other| media.rivals(other.media)) {
                let kind = if media == PageMedia::Json { "JSON page" } else { "page" };
                return Err(format!("{status} already has a {kind}"));
            }
        }
        pages.push(ErrorPage { statuses, file, media });
        Ok(())
    }

    /// The statuses as they are written.
    pub(super) fn shown_statuses(&self) -> String {
        let all: Vec<String> = self.statuses.iter().map(u16::to_string).collect();
        all.join(",")
    }
}

/// As it would be written after `error-page`.
impl fmt::Display for ErrorPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.shown_statuses(), self.file.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_says_what_a_page_is() {
        let mut pages = Vec::new();
        for (words, file) in [("503", "a.html"), ("503,404", "b.json"), ("404", "/x/c.txt")] {
            assert_eq!(ErrorPage::add(&mut pages, words, file), Ok(()));
        }
        let media: Vec<_> = pages.iter().map(|page| page.media).collect();
        assert_eq!(media, [PageMedia::Html, PageMedia::Json, PageMedia::Text]);
        assert_eq!(pages[1].to_string(), "503,404 b.json");
    }

    #[test]
    fn what_is_wrong_is_one_sentence() {
        let mut pages = Vec::new();
        ErrorPage::add(&mut pages, "503,504", "a.html").unwrap();
        for (words, file, what) in [
            ("200", "a.html", "\"200\" is not a status from 400 to 599"),
            ("+503", "a.html", "\"+503\" is not a status from 400 to 599"),
            ("502,", "a.html", "\"\" is not a status from 400 to 599"),
            ("502", "a.htm", "\"a.htm\" does not end in .html, .json or .txt"),
            ("502", "html", "\"html\" does not end in .html, .json or .txt"),
            ("502", "", "the path is empty"),
            ("502,502", "a.html", "502 already has a page"),
            ("502,503", "b.txt", "503 already has a page"),
        ] {
            assert_eq!(ErrorPage::add(&mut pages, words, file).unwrap_err(), what);
        }
        assert_eq!(pages.len(), 1);
        ErrorPage::add(&mut pages, "503", "a.json").unwrap();
        let again = ErrorPage::add(&mut pages, "503", "b.json");
        assert_eq!(again.unwrap_err(), "503 already has a JSON page");
    }
}
