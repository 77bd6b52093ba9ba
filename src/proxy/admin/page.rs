//! The live page.

use std::sync::OnceLock;

use super::super::page::Page;

const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The page, put together once.
pub(super) fn page() -> &'static Page {
    static PAGE: OnceLock<Page> = OnceLock::new();
    PAGE.get_or_init(|| Page::new(HTML, STYLE, SCRIPT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_document_that_loads_nothing() {
        page().check();
        assert!(page().document.contains(SCRIPT) && page().document.contains(STYLE));
    }
}
