//! Links between the documents, and what the documents say about files.

use super::{pages, read, root};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// A link in a page: the line, and where it leads.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, text) in prose(text) {
        let mut rest = text.as_str();
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            let end = rest.find(')').unwrap_or(rest.len());
            found.push((line, rest[..end].to_owned()));
        }
        let mut rest = text.as_str();
        while let Some(at) = rest.find("src=\"") {
            rest = &rest[at + 5..];
            let end = rest.find('"').unwrap_or(rest.len());
            found.push((line, rest[..end].to_owned()));
        }
    }
    found
}

/// The lines of a page that are no block, with their numbers, and without `code`.
fn prose(text: &str) -> Vec<(usize, String)> {
    let (mut fenced, mut lines) = (false, Vec::new());
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced && !line.starts_with("    ") {
            lines.push((number + 1, line.split('`').step_by(2).collect::<Vec<_>>().join("`")));
        }
    }
    lines
}

/// The anchors of a page, as GitHub makes them from its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let headings = text.lines().filter(|line| line.starts_with('#') && line.contains("# "));
    for heading in headings {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let repeated = (1..).map(|number| format!("{anchor}-{number}"));
        let free =
            std::iter::once(anchor.clone()).chain(repeated).find(|name| !anchors.contains(name));
        anchors.extend(free);
    }
    anchors
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = out.pop(),
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    let more = ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(PathBuf::from);
    let more = more.into_iter().filter(|page| root().join(page).exists());
    for page in pages().into_iter().chain(more) {
        for (line, link) in links(&read(&page)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = page.parent().unwrap_or(Path::new(""));
            let target = match file {
                "" => page.clone(),
                file => normal(&folder.join(file)),
            };
            let exists = root().join(&target).exists();
            let has_anchor =
                anchor.is_empty() || exists && anchors(&read(&target)).contains(anchor);
            if !exists || !has_anchor {
                wrong.push(format!("{}:{line}: {link} leads nowhere", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The walk through the source and the decisions name files, which are renamed more often than the
/// text is read.
#[test]
fn the_files_that_the_design_names_are_there() {
    let text = read(Path::new("doc/design.md"));
    let mut wrong = Vec::new();
    for (line, text) in text.lines().enumerate() {
        for code in text.split('`').skip(1).step_by(2).filter(|code| code.ends_with(".rs")) {
            let places = ["src", ""].map(|folder| root().join(folder).join(code));
            if code.contains('/')
                && !code.contains(' ')
                && !places.iter().any(|place| place.exists())
            {
                wrong.push(format!("doc/design.md:{}: there is no {code}", line + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn anchors_are_those_of_github() {
    let text = "# haproxy's agent check\n## What `-n` means\n## Rust\n## Rust\n";
    let expected = ["haproxys-agent-check", "what--n-means", "rust", "rust-1"];
    assert_eq!(anchors(text), BTreeSet::from(expected.map(str::to_owned)));
    let found = links("See [a](b.md#c), `[no](link)` and\n\n    [not](this)\n<img src=\"d.svg\">");
    assert_eq!(found, [(1, "b.md#c".to_owned()), (4, "d.svg".to_owned())]);
}
