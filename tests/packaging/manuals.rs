//! The lists of options and commands in the manual pages.
//!
//! In a page, a list stands between two comments:
//!
//! ```text
//! .\" Options of cloudbridge: make manuals
//! .It Fl c Ar file , Fl -config Ar file
//! Read settings from FILE.
//! .\" By hand:
//! More, which stays.
//! .\" End
//! ```

use crate::help::{self, Flag, Program, Subcommand};
use crate::settings_page::quoted;
use crate::tools::{has, hold, root, run, source};
use std::process::Command;

/// Follows what the help says about an option, before what is only in the page.
const BY_HAND: &str = ".\\\" By hand:";
const END: &str = ".\\\" End";

/// All pages.
const PAGES: &[&str] = &[
    "doc/cloudbridge.1",
    "doc/cloudbridge-agent.1",
    "doc/cloudbridge-key.1",
    "doc/cloudbridge.conf.5",
];

#[test]
fn manuals_have_the_options_of_the_help() {
    let mut page = source("doc/cloudbridge.1");
    page = with_list(&page, "Options of cloudbridge", &options(&help::proxy()));
    page = with_list(&page, "Commands of ctl", &commands(&help::ctl()));
    page = with_list(&page, "Options of ctl", &options(&help::ctl()));
    hold("doc/cloudbridge.1", &page);
    let page = source("doc/cloudbridge-agent.1");
    let list = options(&help::agent());
    hold("doc/cloudbridge-agent.1", &with_list(&page, "Options of cloudbridge-agent", &list));
    let page = source("doc/cloudbridge-key.1");
    let list = options(&help::key());
    hold("doc/cloudbridge-key.1", &with_list(&page, "Options of cloudbridge-key", &list));
}

#[test]
fn manuals_are_good_mdoc() {
    if !has("mandoc") {
        return;
    }
    for page in PAGES {
        let lint = ["-Tlint", "-Wwarning"];
        let said = Command::new("mandoc").args(lint).arg(root().join(page)).output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.is_empty(), "{said}");
    }
}

#[test]
fn manuals_are_readable() {
    if !has("groff") {
        return;
    }
    for page in PAGES {
        let text =
            run(Command::new("groff").args(["-mdoc", "-Tascii", "-P-cbou"]).arg(root().join(page)));
        assert!(!text.contains("groff:") && !text.contains("troff:"), "{page}: {text}");
        assert!(text.contains("NAME") && text.contains("DESCRIPTION"), "{page}: {text}");
    }
}

/// An item of a list: its line, and what it is about.
type Item = (String, String);

fn options(program: &Program) -> Vec<Item> {
    let item = |flag: &Flag| {
        let value =
            flag.value.as_deref().map_or(String::new(), |value| format!(" Ar {}", small(value)));
        let short = flag.short.iter().map(|short| format!("Fl {short}{value}"));
        let long = flag.long.iter().map(|long| format!("Fl -{long}{value}"));
        let names: Vec<String> = short.chain(long).collect();
        (format!(".It {}", names.join(" , ")), flag.about.clone())
    };
    program.flags.iter().map(item).collect()
}

fn commands(program: &Program) -> Vec<Item> {
    let word = |word: &str| match word.strip_prefix('[') {
        // Only the first words of brackets are names of something.
        Some(word) if word.starts_with('-') => format!("Op Fl {} Ar", word.trim_start_matches('-')),
        Some(word) => format!("Op Ar {}", small(word.trim_end_matches(']'))),
        None => format!("Ar {}", small(word.trim_end_matches(']'))),
    };
    let item = |command: &Subcommand| {
        let words: Vec<String> = command.words.split_whitespace().map(word).collect();
        let words = words.join(" ").replace("Ar Ar ", "Ar ");
        (format!(".It Cm {} {words}", command.name).trim_end().to_owned(), command.about.clone())
    };
    program.commands.iter().map(item).collect()
}

/// The page with the list of this name as it should be.
#[track_caller]
fn with_list(page: &str, name: &str, items: &[Item]) -> String {
    let start = format!(".\\\" {name}: make manuals\n");
    let (before, rest) = page.split_once(&start).unwrap_or_else(|| panic!("no list of {name}"));
    let (old, after) = rest.split_once(&format!("{END}\n")).expect("the list has an end");
    let mut text = format!("{before}{start}");
    for (line, about) in items {
        text += &format!("{line}\n{}\n", sentence(about));
        if let Some(more) = by_hand(old, line) {
            text += &format!("{BY_HAND}\n{more}");
        }
    }
    text + END + "\n" + after
}

/// What the old list says about an item beyond the help.
fn by_hand<'o>(old: &'o str, line: &str) -> Option<&'o str> {
    let (_, rest) = old.split_once(&format!("{line}\n"))?;
    let item = rest.find("\n.It ").map_or(rest, |end| &rest[..end + 1]);
    item.split_once(&format!("{BY_HAND}\n")).map(|(_, more)| more)
}

/// A text of the help as a sentence of a page.
fn sentence(about: &str) -> String {
    let about = about.replace("explained below", "explained in cloudbridge.conf(5)");
    let mut letters = about.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if about.ends_with('.') { "" } else { "." };
    let text = quoted(&format!("{first}{}{end}", letters.as_str()));
    let words: Vec<String> = text.split(' ').map(marked).collect();
    words.join(" ").replace(". ", ".\n")
}

/// A word that stands for a value is written as the page's list writes it.
fn marked(word: &str) -> String {
    let name = word.trim_end_matches(['.', ',', ':', ';', ')']);
    let is_value = name.len() > 3 && name.chars().all(|c| c.is_ascii_uppercase());
    let known = ["FILE", "PATH", "TARGET", "HOST", "TIMESTAMP", "NAME"];
    if is_value && known.contains(&name) {
        return format!("\\fI{}\\fP{}", small(name), &word[name.len()..]);
    }
    word.to_owned()
}

fn small(word: &str) -> String {
    word.to_lowercase()
}
